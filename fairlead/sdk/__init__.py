"""The Python SDK: typed calls over the REST API, and the reader and writer of packs."""
