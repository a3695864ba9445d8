"""Examples of a model with what it answers, written into its folder before it is registered.

They are part of the version from then on: a bundle's smoke test asks for the same rows and compares.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXAMPLES = "fairlead_examples.json"
_FORMAT = 1
_ROWS_MAX = 1000


def record_examples(
    folder: str | Path,
    rows: Sequence[Any] | None = None,
    predictions: Sequence[Any] | None = None,
    *,
    relative_tolerance: float = 1e-4,
    absolute_tolerance: float = 1e-6,
) -> int:
    """Write examples into an MLflow model's folder, in the place of earlier ones; how many there are.

    Args:
        folder: what `mlflow.*.save_model` wrote.
        rows: what the model is asked, as JSON: objects of columns or named tensors, or bare arrays. None: the input
            example that the model was saved with.
        predictions: what it answers, one for each row. None: MLflow loads the model in this process and asks it.
        relative_tolerance: how far an answer may be from the recorded one, as a share of the larger one.
        absolute_tolerance: how far it may be in any case.

    Raises:
        InvalidInput: if the folder holds no model or no examples, or rows and predictions do not fit together.
        MissingExtra: if the model has to be asked, and MLflow is not installed.
    """
    path = Path(folder)
    if not (path / "MLmodel").is_file():
        raise InvalidInput(f"{path} holds no MLmodel file.", hint="Give a folder that mlflow.*.save_model wrote.")
    asked = list(rows if rows is not None else _input_example(path))[:_ROWS_MAX]
    if not asked:
        raise InvalidInput(
            "There are no rows to record.", hint="Save the model with an input_example, or give rows of your own."
        )
    answers = [_plain(each) for each in (_predict(path, asked) if predictions is None else predictions)][:_ROWS_MAX]
    if len(answers) != len(asked):
        raise InvalidInput(f"There are {len(asked)} rows and {len(answers)} predictions.")
    document = {
        "format": _FORMAT,
        "rows": [_plain(row) for row in asked],
        "predictions": answers,
        "relative_tolerance": relative_tolerance,
        "absolute_tolerance": absolute_tolerance,
    }
    (path / EXAMPLES).write_text(json.dumps(document, sort_keys=True) + "\n", encoding="utf-8")
    return len(asked)


def _input_example(path: Path) -> Sequence[Any]:
    """The rows of MLflow's input example for servers."""
    file = path / "serving_input_example.json"
    if not file.is_file():
        return []
    try:
        said = cast("Mapping[str, Any]", json.loads(file.read_text(encoding="utf-8")))
        if "dataframe_split" in said:
            table = said["dataframe_split"]
            return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        inputs = said.get("dataframe_records", said.get("inputs", []))
        if isinstance(inputs, dict):
            named = cast("dict[str, list[Any]]", inputs)
            return [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]
        return cast("Sequence[Any]", inputs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"The model's input example cannot be read: {error}.", hint="Give rows of your own."
        ) from None


def _predict(path: Path, rows: Sequence[Any]) -> list[Any]:
    try:
        import mlflow.pyfunc
        import numpy as np
        import pandas as pd
    except ImportError as error:
        raise MissingExtra(
            f"Asking the model for its predictions needs {error.name}.",
            hint="Install it with: pip install 'fairlead[mlflow]' pandas; or give the predictions.",
        ) from None
    model: Any = mlflow.pyfunc.load_model(str(path))
    schema = model.metadata.get_input_schema()
    if schema is not None and schema.is_tensor_spec():
        if schema.has_input_names():
            given: Any = {name: np.asarray([row[name] for row in rows]) for name in schema.input_names()}
            types = dict(zip(schema.input_names(), schema.numpy_types(), strict=True))
            given = {name: values.astype(types[name]) for name, values in given.items()}
        else:
            given = np.asarray(rows, dtype=schema.numpy_types()[0])
    else:
        given = pd.DataFrame(list(rows))
        if schema is not None and schema.has_input_names():
            kinds = dict(zip(schema.input_names(), schema.pandas_types(), strict=True))
            given = given.astype({name: kind for name, kind in kinds.items() if name in given and kind != "datetime64"})
    answer: Any = model.predict(given)
    if hasattr(answer, "to_dict") and hasattr(answer, "columns"):
        return cast("list[Any]", answer.to_dict("records"))
    if isinstance(answer, dict):
        named = {name: list(values) for name, values in cast("dict[str, Any]", answer).items()}
        return [dict(zip(named, each, strict=True)) for each in zip(*named.values(), strict=True)]
    return list(answer)


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("Sequence[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
