"""The demo's model: a wide feature extractor (float32, safetensors) and a small scikit-learn head (skops).

The extractor is the hidden part of a multi-layer perceptron fitted to the training set, 20 -> 2048 -> 2048 with ReLU:
4.2 million weights, 16.9 MB. The head is a logistic regression on its 2048 outputs. Version 2 fits the head again and
leaves the extractor as it is.
"""

# pandas and scikit-learn are typed in part.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 2048
SEED = 7
FEATURE_SERVICE = "diagnosis"

Extractor = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Rows to fit on and rows to measure on: every third sample is held out."""

    features: list[str]
    fit: pd.DataFrame
    held_out: pd.DataFrame


def split(frame: pd.DataFrame, features: list[str]) -> Split:
    """Hold out every third sample."""
    is_held_out: Any = frame["sample_id"] % 3 == 0
    rows: Any = frame
    return Split(features=features, fit=rows[~is_held_out], held_out=rows[is_held_out])


def fit_extractor(data: Split, *, width: int = WIDTH, epochs: int = 3) -> Extractor:
    """Fit the perceptron and keep its hidden layers and the scaling of its inputs."""
    from sklearn.neural_network import MLPClassifier

    inputs = data.fit[data.features].to_numpy(np.float32)
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    make: Any = MLPClassifier
    perceptron: Any = make((width, width), max_iter=epochs, batch_size=64, learning_rate_init=3e-4, random_state=SEED)
    with warnings.catch_warnings():
        # A few epochs are enough for a demo, and it says so itself.
        warnings.simplefilter("ignore")
        perceptron.fit((inputs - centre) / scale, data.fit["is_benign"].to_numpy())
    return {
        "input.centre": centre,
        "input.scale": scale,
        "hidden.0.weight": np.ascontiguousarray(perceptron.coefs_[0], np.float32),
        "hidden.0.bias": np.ascontiguousarray(perceptron.intercepts_[0], np.float32),
        "hidden.1.weight": np.ascontiguousarray(perceptron.coefs_[1], np.float32),
        "hidden.1.bias": np.ascontiguousarray(perceptron.intercepts_[1], np.float32),
    }


def extract(extractor: Extractor, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the extractor: (n_rows, 20) float32 to (n_rows, width) float32."""
    hidden = (inputs - extractor["input.centre"]) / extractor["input.scale"]
    for layer in range(2):
        hidden = np.maximum(hidden @ extractor[f"hidden.{layer}.weight"] + extractor[f"hidden.{layer}.bias"], 0)
    return hidden


def fit_head(
    extractor: Extractor, data: Split, *, penalty: float, rows: int | None = None
) -> tuple[Any, dict[str, float]]:
    """Fit the head on (the first `rows` of) the fit rows; answers it with its metrics on the held-out rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, roc_auc_score

    fit = data.fit if rows is None else data.fit.head(rows)
    head: Any = LogisticRegression(C=penalty, max_iter=2000)
    head.fit(extract(extractor, fit[data.features].to_numpy(np.float32)), fit["is_benign"])
    probabilities = head.predict_proba(extract(extractor, data.held_out[data.features].to_numpy(np.float32)))[:, 1]
    truth = data.held_out["is_benign"]
    metrics = {
        "roc_auc": float(roc_auc_score(truth, probabilities)),
        "accuracy": float(accuracy_score(truth, probabilities > 0.5)),
    }
    return head, metrics


def save_model(extractor: Extractor, head: object, data: Split, folder: Path) -> Path:
    """Save extractor and head as an MLflow model with a signature; nothing in it is a pickle."""
    import skops.io
    from mlflow import pyfunc
    from mlflow.models import infer_signature
    from safetensors.numpy import save_file

    weights = folder / "weights"
    shutil.rmtree(folder, ignore_errors=True)
    weights.mkdir(parents=True)
    save_file(extractor, weights / "extractor.safetensors")
    skops.io.dump(head, weights / "head.skops")
    example = data.held_out[data.features].head(3).reset_index(drop=True)
    pyfunc.save_model(
        str(folder / "model"),
        loader_module="extractor_head",
        data_path=str(weights),
        code_paths=[str(Path(__file__).with_name("extractor_head.py"))],
        signature=infer_signature(example, np.zeros(3)),
        pip_requirements=[
            f"{package}=={version(package)}" for package in ("numpy", "pandas", "safetensors", "scikit-learn", "skops")
        ],
    )
    return folder / "model"
