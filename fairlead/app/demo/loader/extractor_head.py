"""How the demo's model is loaded: MLflow, and a bundle without MLflow, import this file from the model's own folder."""

from pathlib import Path

import numpy as np
import skops.io
from safetensors.numpy import load_file


class ExtractorHead:
    """A feature extractor and a scikit-learn head."""

    def __init__(self, folder):
        self._weights = load_file(folder / "extractor.safetensors")
        self._head = skops.io.load(folder / "head.skops")

    def predict(self, inputs, params=None):  # noqa: ARG002  (MLflow passes params)
        """The probability that each row (n_rows, 20) is benign: (n_rows,) float64."""
        weights = self._weights
        hidden = (np.asarray(inputs, dtype=np.float32) - weights["input.centre"]) / weights["input.scale"]
        for layer in range(2):
            hidden = np.maximum(hidden @ weights[f"hidden.{layer}.weight"] + weights[f"hidden.{layer}.bias"], 0)
        return self._head.predict_proba(hidden)[:, 1]


def _load_pyfunc(data_path):
    return ExtractorHead(Path(data_path))
