"""Train a churn model on a snapshot, save it as MLflow does, and print how good it is: its ROC AUC, and nothing else.

    python examples/train.py SNAPSHOT FOLDER [STRENGTH]

Every third customer is held out. `STRENGTH` is scikit-learn's `C`: the less of it, the simpler the model.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import sklearn as mlflow_sklearn
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fairlead

FEATURES = ["months", "monthly_bill", "support_calls"]
LABELS = Path(__file__).with_name("feast_repo") / "labels.parquet"


def train(snapshot: str, folder: Path, strength: float) -> float:
    """Save a model in `folder`, which must not exist; the ROC AUC on the customers that were held out."""
    with fairlead.connect() as fl:
        frame: Any = fl.features.training_set("churn_features", pd.read_parquet(LABELS), snapshot=snapshot).frame
    is_held_out = frame["customer_id"] % 3 == 0
    fit, held_out = frame[~is_held_out], frame[is_held_out]
    model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=strength))
    model.fit(fit[FEATURES], fit["has_left"])
    probabilities = model.predict_proba(held_out[FEATURES])
    mlflow_sklearn.save_model(
        model,
        str(folder),
        # A format that holds data only: bundles load it without MLflow, and never a pickle.
        serialization_format="skops",
        pyfunc_predict_fn="predict_proba",
        signature=infer_signature(held_out[FEATURES], probabilities),
        pip_requirements=[f"{package}=={version(package)}" for package in ("pandas", "scikit-learn", "skops")],
    )
    return float(roc_auc_score(held_out["has_left"], probabilities[:, 1]))


if __name__ == "__main__":
    print(round(train(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 1.0), 4))
