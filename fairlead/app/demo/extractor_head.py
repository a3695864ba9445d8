"""How the demo's model is loaded: MLflow, or a bundle without MLflow, imports the copy that lies in the model."""

# safetensors is typed in part.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file


class ExtractorHead:
    """A feature extractor and the head that scikit-learn fitted to it, as plain weights: serving needs no more."""

    def __init__(self, folder: Path) -> None:
        self._weights = load_file(folder / "extractor.safetensors")
        self._head = load_file(folder / "head.safetensors")

    def predict(self, inputs: object, params: object = None) -> NDArray[np.float64]:
        """The probability that each row (n_rows, 20) is benign: (n_rows,) float64. MLflow passes `params`."""
        del params
        weights = self._weights
        hidden = (np.asarray(inputs, dtype=np.float32) - weights["input.centre"]) / weights["input.scale"]
        for layer in range(2):
            hidden = np.maximum(hidden @ weights[f"hidden.{layer}.weight"] + weights[f"hidden.{layer}.bias"], 0)
        return 1 / (1 + np.exp(-(hidden @ self._head["weight"] + self._head["bias"]).astype(np.float64)))


def _load_pyfunc(data_path: str) -> ExtractorHead:  # pyright: ignore[reportUnusedFunction]  (MLflow calls it by name)
    return ExtractorHead(Path(data_path))
