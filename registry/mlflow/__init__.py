"""MLflow's own wire dialect of the registry: what a stock MLflow client speaks, on the record's own use cases."""
