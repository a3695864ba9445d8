"""What an MLflow model folder says of itself, read without MLflow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

MLMODEL_MAX_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowModel:
    """Flavor and signature, from the `MLmodel` file."""

    flavor: str
    signature: dict[str, Any] | None


def read_mlflow_model(path: Path) -> MlflowModel | None:
    """Read a folder's `MLmodel`; None where there is none, so it is no MLflow model.

    Raises:
        InvalidInput: if the file is there but cannot be read as one.
    """
    file = path / "MLmodel"
    if not file.is_file():
        return None
    import yaml

    try:
        if file.stat().st_size > MLMODEL_MAX_BYTES:
            raise InvalidInput("The MLmodel file is larger than any that MLflow writes.")
        document = cast("dict[str, Any]", yaml.safe_load(file.read_text(encoding="utf-8")))
        flavors = [str(name) for name in document["flavors"] if name != "python_function"]
        sides = cast("dict[str, Any]", document.get("signature") or {})
        signature = {
            side: json.loads(columns) if isinstance(columns, str) else columns
            for side, columns in sides.items()
            if columns is not None
        }
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            "The MLmodel file cannot be read.", hint="Save the model again with mlflow.*.save_model."
        ) from error
    return MlflowModel(flavor=flavors[0] if flavors else "pyfunc", signature=signature or None)
