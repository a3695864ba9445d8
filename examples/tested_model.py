"""Trains a small model, saves it in a format that is no pickle, and records what it answers.

python examples/tested_model.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from fairlead.sdk.examples import record_examples


def main() -> None:
    """Write the model's folder."""
    folder = Path(sys.argv[1])
    rows = pd.DataFrame(np.random.default_rng(7).normal(size=(200, 2)), columns=["months", "calls"])
    left = (rows["calls"] > rows["months"]).astype(int)
    model = LogisticRegression().fit(rows, left)
    example = rows.head(5)
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=infer_signature(example, model.predict(example)),
        input_example=example,
        serialization_format="skops",
        pip_requirements=["scikit-learn", "skops"],
    )
    print(f"Recorded {record_examples(folder)} examples.")


if __name__ == "__main__":
    main()
