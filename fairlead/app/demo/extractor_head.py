"""How the demo's model is loaded: MLflow, or a bundle without MLflow, imports the copy that lies in the model."""

# safetensors and skops are typed in part.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from numpy.typing import NDArray
from safetensors.numpy import load_file


class ExtractorHead:
    """A feature extractor and a scikit-learn head."""

    def __init__(self, folder: Path) -> None:
        self._weights = load_file(folder / "extractor.safetensors")
        self._head: Any = skops.io.load(folder / "head.skops")

    def predict(self, inputs: object, params: object = None) -> NDArray[np.float64]:
        """The probability that each row (n_rows, 20) is benign: (n_rows,) float64. MLflow passes `params`."""
        del params
        weights = self._weights
        hidden = (np.asarray(inputs, dtype=np.float32) - weights["input.centre"]) / weights["input.scale"]
        for layer in range(2):
            hidden = np.maximum(hidden @ weights[f"hidden.{layer}.weight"] + weights[f"hidden.{layer}.bias"], 0)
        return self._head.predict_proba(hidden)[:, 1]


def _load_pyfunc(data_path: str) -> ExtractorHead:  # pyright: ignore[reportUnusedFunction]  (MLflow calls it by name)
    return ExtractorHead(Path(data_path))
