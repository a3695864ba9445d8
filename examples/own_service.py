"""A BentoML service of one's own for a bundle: it answers with words in place of numbers.

Beside it in the bundle are `fairlead_bundle`, with what a generated service is made of, and the version's files in
`model`. The gateway passes `/predict`, `/predict_rows` and `/info` on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
from fairlead_bundle.model_runner import load_model  # pyright: ignore[reportMissingImports]  (it is in the bundle)


@bentoml.service(name="churn", workers=1)
class Churn:
    """Says in words who leaves."""

    def __init__(self) -> None:
        self.model: Any = load_model(Path(__file__).parent / "model")

    @bentoml.api(route="/predict_rows")
    def predict_rows(self, rows: list[dict[str, Any]]) -> dict[str, list[str]]:
        """One word a row."""
        return {"predictions": ["leaves" if each else "stays" for each in self.model.predict(rows)]}
