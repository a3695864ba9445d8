"""Terraform, written as people write it: what runs in a region of a cloud, and the buckets of locations."""
