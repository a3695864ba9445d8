"""Feeds: where newer figures come from. One module for each source, behind the ports of `ports.py`."""
