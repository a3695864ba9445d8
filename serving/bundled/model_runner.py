"""Loads the model of a bundle with the model's own library and checks rows against its signature.

This file is copied into bundles as it is: it imports nothing of Fairlead, and neither MLflow nor pandas before a model
asks for them. It reads the `MLmodel` file of an MLflow model folder and loads, in this order:

1. scikit-learn models saved as skops (or as a pickle, only where `FAIRLEAD_ALLOW_PICKLE=1`);
2. models with a `loader_module` of their own: its code goes on the path and `_load_pyfunc(data)` is called;
3. anything else through `mlflow.pyfunc`, where MLflow is installed.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import yaml

Row = Mapping[str, Any]

_INTEGERS = frozenset({"integer", "long"})
_FLOATS = frozenset({"float", "double"})
_DTYPES = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64", "boolean": "bool"}


class ModelNotLoadable(Exception):
    """The model cannot be loaded here; the message says what is missing."""


class InvalidRows(ValueError):
    """The rows do not have the model's signature; the message names row and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One input of the model. `type` is MLflow's name, such as `double`."""

    name: str
    type: str
    is_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory. `columns` is None where its signature names none."""

    columns: tuple[Column, ...] | None
    loaded_with: str
    call: Callable[[Any], Any]

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """One prediction a row, in the order of the rows.

        Raises:
            InvalidRows: if a row misses a column, has one too many, or a value of another type.
        """
        import pandas as pd

        if self.columns is None:
            frame = pd.DataFrame([dict(row) for row in rows])
        else:
            frame = pd.DataFrame(
                {column.name: _series(pd, column, rows) for column in self.columns if _is_given(column, rows)}
            )
            _refuse_unknown(self.columns, rows)
        answer = self.call(frame)
        values: list[Any] = answer.tolist() if hasattr(answer, "tolist") else _records(answer)
        return [_plain(value) for value in values]


def load_model(folder: Path) -> LoadedModel:
    """Load the MLflow model in `folder`. This runs the model's code.

    Raises:
        ModelNotLoadable: if the folder holds no MLmodel file, or what loads the model is missing or not allowed.
    """
    try:
        described = cast("dict[str, Any]", yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelNotLoadable("The model has no MLmodel file. Register a folder saved with MLflow.") from None
    flavors = cast("dict[str, dict[str, Any]]", described.get("flavors") or {})
    columns = read_columns(described)
    pyfunc = flavors.get("python_function")
    if "sklearn" in flavors and pyfunc is not None and not pyfunc.get("code"):
        return LoadedModel(
            columns=columns, loaded_with="sklearn", call=_load_sklearn(folder, flavors["sklearn"], pyfunc)
        )
    loader = "" if pyfunc is None else str(pyfunc.get("loader_module", ""))
    if pyfunc is not None and loader and not loader.startswith("mlflow."):
        return LoadedModel(columns=columns, loaded_with="loader_module", call=_load_by_loader(folder, pyfunc, loader))
    return LoadedModel(columns=columns, loaded_with="mlflow", call=_load_with_mlflow(folder, sorted(flavors)))


def read_columns(described: Mapping[str, Any]) -> tuple[Column, ...] | None:
    """The named inputs of an MLmodel's signature, in its order; None where it has no signature or a nameless one."""
    signature = cast("dict[str, Any] | None", described.get("signature"))
    if not signature or not signature.get("inputs"):
        return None
    inputs = signature["inputs"]
    fields = cast("list[dict[str, Any]]", json.loads(inputs) if isinstance(inputs, str) else inputs)
    if any("name" not in field for field in fields):
        return None
    return tuple(
        Column(name=field["name"], type=str(field["type"]), is_required=bool(field.get("required", True)))
        for field in fields
    )


def _load_sklearn(folder: Path, flavor: Mapping[str, Any], pyfunc: Mapping[str, Any]) -> Callable[[Any], Any]:
    file = folder / str(flavor.get("pickled_model", "model.skops"))
    if flavor.get("serialization_format") == "skops":
        skops_io = _import("skops.io", "skops")
        model = skops_io.load(file, trusted=flavor.get("skops_trusted_types") or [])
    else:
        if os.environ.get("FAIRLEAD_ALLOW_PICKLE") != "1":
            raise ModelNotLoadable(
                "The model is a pickle, which can run any code. Save it with serialization_format='skops', "
                "or set FAIRLEAD_ALLOW_PICKLE=1 where it is served."
            )
        with file.open("rb") as stream:
            model = _import("cloudpickle", "cloudpickle").load(stream)
    return cast("Callable[[Any], Any]", getattr(model, str(pyfunc.get("predict_fn", "predict"))))


def _load_by_loader(folder: Path, pyfunc: Mapping[str, Any], loader: str) -> Callable[[Any], Any]:
    if pyfunc.get("code"):
        sys.path.insert(0, str(folder / str(pyfunc["code"])))
    module = _import(loader, loader)
    data = folder / str(pyfunc["data"]) if pyfunc.get("data") else folder
    return cast("Callable[[Any], Any]", module._load_pyfunc(str(data)).predict)  # noqa: SLF001  (MLflow's protocol)


def _load_with_mlflow(folder: Path, flavors: Sequence[str]) -> Callable[[Any], Any]:
    try:
        pyfunc = importlib.import_module("mlflow.pyfunc")
    except ImportError:
        raise ModelNotLoadable(
            f"A model of flavor {', '.join(flavors) or 'unknown'} loads through MLflow, which is not installed here."
        ) from None
    return cast("Callable[[Any], Any]", pyfunc.load_model(str(folder)).predict)


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelNotLoadable(
            f"The model needs {package}: {error}. Add it to the model's pip requirements."
        ) from error


def _is_given(column: Column, rows: Sequence[Row]) -> bool:
    return column.is_required or any(column.name in row for row in rows)


def _refuse_unknown(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    known = {column.name for column in columns}
    for number, row in enumerate(rows):
        if unknown := sorted(set(row) - known):
            raise InvalidRows(f"Row {number} has a column {unknown[0]!r} that the model's signature does not name.")


def _series(pd: Any, column: Column, rows: Sequence[Row]) -> Any:
    values = [_checked(column, number, row) for number, row in enumerate(rows)]
    if column.type == "datetime":
        return pd.to_datetime(pd.Series(values))
    return pd.Series(values, dtype=_DTYPES.get(column.type, "object"))


def _checked(column: Column, number: int, row: Row) -> Any:
    if column.name not in row:
        if column.is_required:
            raise InvalidRows(f"Row {number} misses the column {column.name!r} of the model's signature.")
        return None
    value = row[column.name]
    if column.type in _FLOATS:
        if value is None:
            return math.nan
        is_right = isinstance(value, int | float) and not isinstance(value, bool)
    elif column.type in _INTEGERS:
        is_right = isinstance(value, int) and not isinstance(value, bool)
    elif column.type == "boolean":
        is_right = isinstance(value, bool)
    elif column.type == "string":
        is_right = value is None or isinstance(value, str)
    elif column.type == "datetime":
        is_right = value is None or isinstance(value, str | datetime)
    else:
        is_right = True
    if not is_right:
        raise InvalidRows(f"Row {number}: column {column.name!r} wants {column.type}, got {value!r}.")
    return value


def _records(answer: Any) -> list[Any]:
    return cast("list[Any]", answer.to_dict("records")) if hasattr(answer, "to_dict") else list(answer)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    # JSON has no NaN.
    return None if isinstance(value, float) and not math.isfinite(value) else value
