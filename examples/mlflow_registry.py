"""Register a model with MLflow's own client, and load it again by an alias. No plug-in, no tracking server.

    python examples/mlflow_registry.py SERVER

`MLFLOW_TRACKING_TOKEN` holds a token of the server.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow import sklearn as mlflow_sklearn
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sklearn.linear_model import LogisticRegression

MONTHS = np.array([[1.0], [2.0], [20.0], [30.0]])
LEFT = [1, 1, 0, 0]


def main(server: str) -> None:
    """Register, and load again."""
    mlflow.set_registry_uri(server)  # the one line

    client = MlflowClient()
    client.create_registered_model("leavers", tags={"fairlead.team": "growth", "fairlead.cost_centre": "cc-42"})

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model: Any = LogisticRegression().fit(MONTHS, LEFT)
        mlflow_sklearn.save_model(model, folder, pip_requirements=["scikit-learn"])
        source = f"{server}/api/2.0/mlflow-artifacts/artifacts/uploads/leavers"
        get_artifact_repository(source).log_artifacts(str(folder))

    version = client.create_model_version("leavers", source)
    client.set_registered_model_alias("leavers", "champion", version.version)

    loaded = mlflow.pyfunc.load_model("models:/leavers@champion")
    print(f"leavers/{version.version} predicts {loaded.predict(MONTHS).tolist()}")


if __name__ == "__main__":
    main(sys.argv[1])
