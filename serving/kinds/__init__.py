"""The platforms that deployments can be written for, each in a module of its own that ends in its `KIND`."""
