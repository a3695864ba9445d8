"""MLflow's plug-in: MLflow's client calls, with files read and written by Fairlead's own reader and writer.

    mlflow.set_registry_uri("fairlead://our-server")

MLflow finds the classes by the entry points in `pyproject.toml`; nothing else imports this package. Every process that
imports MLflow loads these modules, so they load little until they are used.
"""
