"""Register a model's folder with MLflow's client and the plug-in, and load it again by an alias.

    python examples/mlflow_plugin.py [fairlead://HOST:PORT]

Without an address, the server of `FAIRLEAD_URL` is used, or else the embedded one.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow import sklearn as mlflow_sklearn
from sklearn.linear_model import LogisticRegression

MONTHS = np.array([[1.0], [2.0], [20.0], [30.0]])
LEFT = [1, 1, 0, 0]


def main(registry: str) -> None:
    """Register, and load again."""
    mlflow.set_registry_uri(registry)  # the one line

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model: Any = LogisticRegression().fit(MONTHS, LEFT)
        mlflow_sklearn.save_model(model, folder, pip_requirements=["scikit-learn"])
        version = mlflow.register_model(str(folder), "stayers")
    MlflowClient().set_registered_model_alias("stayers", "champion", version.version)

    loaded = mlflow.pyfunc.load_model("models:/stayers@champion")
    print(f"stayers/{version.version} predicts {loaded.predict(MONTHS).tolist()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fairlead://")
