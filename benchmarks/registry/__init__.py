"""The record against MLflow's server: processor time, throughput and latency of the calls that everybody makes."""
