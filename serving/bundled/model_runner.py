"""Checks rows against a model's signature, and has the model's own library predict.

This file is copied into bundles as it is, beside `model_loaders`: it imports nothing of Fairlead, and pandas and NumPy
only where a model is asked. Rows are what JSON gives: objects with the columns or named tensors of the signature, or
bare arrays where the signature has one nameless tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

if TYPE_CHECKING:
    from fairlead.serving.bundled.model_loaders import ModelNotLoadable, load_callable
elif __package__ == "fairlead_bundle":
    from fairlead_bundle.model_loaders import ModelNotLoadable, load_callable
else:
    from fairlead.serving.bundled.model_loaders import ModelNotLoadable, load_callable

__all__ = ["Column", "InvalidRows", "LoadedModel", "ModelNotLoadable", "Tensor", "load_model", "read_inputs"]

Row = Any
_INTEGERS = frozenset({"integer", "long"})
_FLOATS = frozenset({"float", "double"})
_DTYPES = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64", "boolean": "bool"}


class InvalidRows(ValueError):
    """The rows do not have the model's signature; the message names row and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One input of the model. `type` is MLflow's name, such as `double`. With no name, rows are bare values."""

    name: str | None
    type: str
    is_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor input. `shape` is that of one row: without the first axis, -1 where any length will do."""

    name: str | None
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory. `columns` is None where its signature names none; `tensors` is empty but for tensor inputs."""

    columns: tuple[Column, ...] | None
    tensors: tuple[Tensor, ...] = ()
    loaded_with: str
    call: Callable[[Any], Any]

    def check(self, rows: Sequence[Row]) -> None:
        """Refuse rows that do not have the model's signature.

        Raises:
            InvalidRows: if a row misses a column, has one too many, or a value of another type.
        """
        for number, row in enumerate(rows):
            if self.tensors:
                _check_tensors(self.tensors, number, row)
            elif self._bare is not None:
                _check_value(self._bare, number, row)
            elif not isinstance(row, Mapping):
                raise InvalidRows(f"Row {number} is no object of columns: {row!r:.80}.")
            elif self.columns is not None:
                _check_columns(self.columns, number, cast("Mapping[str | None, Any]", row))

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """One prediction a row, in the order of the rows.

        Raises:
            InvalidRows: if a row does not have the model's signature, or the rows' arrays differ in their shapes.
            ValueError: if the model gives another number of predictions.
        """
        self.check(rows)
        return self.predict_checked(rows)

    def predict_checked(self, rows: Sequence[Row]) -> list[Any]:
        """`predict` for rows that `check` let pass."""
        answers = _answers(self.call(self._tensors(rows) if self.tensors else self._frame(rows)))
        if len(answers) != len(rows):
            raise ValueError(f"The model gave {len(answers)} predictions for {len(rows)} rows.")
        return answers

    @property
    def _bare(self) -> Column | None:
        """The one column whose values are the rows, where the signature names none."""
        return None if self.columns is None or self.columns[0].name is not None else self.columns[0]

    def _frame(self, rows: Sequence[Row]) -> Any:
        import pandas as pd

        if self._bare is not None:
            return pd.DataFrame({0: _series(pd, self._bare, rows)})
        if self.columns is None:
            return pd.DataFrame([dict(row) for row in rows])
        given = [each for each in self.columns if each.is_required or any(each.name in row for row in rows)]
        values = {each.name: [row.get(each.name) for row in rows] for each in given}
        return pd.DataFrame({each.name: _series(pd, each, values[each.name]) for each in given})

    def _tensors(self, rows: Sequence[Row]) -> Any:
        import numpy as np

        def stack(tensor: Tensor) -> Any:
            values = rows if tensor.name is None else [row[tensor.name] for row in rows]
            try:
                return np.asarray(values, dtype=tensor.dtype)
            except (ValueError, TypeError):
                raise InvalidRows(f"The rows' arrays are no {tensor.dtype} of one shape.") from None

        if len(self.tensors) == 1 and self.tensors[0].name is None:
            return stack(self.tensors[0])
        return {str(tensor.name): stack(tensor) for tensor in self.tensors}


def load_model(folder: Path, *, allows_pickle: bool = False) -> LoadedModel:
    """Load the MLflow model in `folder`. This runs the model's code.

    Raises:
        ModelNotLoadable: if the folder holds no MLmodel file, or what loads the model is missing or not allowed.
    """
    try:
        described = cast("dict[str, Any]", yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelNotLoadable("The model has no MLmodel file. Register a folder saved with MLflow.") from None
    columns, tensors = read_inputs(described)
    loaded_with, call = load_callable(folder, described, allows_pickle=allows_pickle)
    return LoadedModel(columns=columns, tensors=tensors, loaded_with=loaded_with, call=call)


def read_inputs(described: Mapping[str, Any]) -> tuple[tuple[Column, ...] | None, tuple[Tensor, ...]]:
    """The inputs of an MLmodel's signature, in its order: columns, or tensors; neither where it says nothing useful."""
    fields = read_fields(described, "inputs")
    if fields and all(field.get("type") == "tensor" for field in fields):
        return None, tuple(
            Tensor(
                name=field.get("name"),
                dtype=str(field["tensor-spec"]["dtype"]),
                shape=tuple(int(length) for length in field["tensor-spec"]["shape"][1:]),
            )
            for field in fields
        )
    if not fields or (len(fields) > 1 and any("name" not in field for field in fields)):
        return None, ()
    columns = tuple(
        Column(name=field.get("name"), type=str(field["type"]), is_required=bool(field.get("required", True)))
        for field in fields
    )
    return columns, ()


def read_fields(described: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    """The fields of one side (`inputs` or `outputs`) of an MLmodel's signature; none where it has none."""
    signature = cast("dict[str, Any] | None", described.get("signature"))
    said = signature.get(side) if signature else None
    return cast("list[dict[str, Any]]", json.loads(said) if isinstance(said, str) else said or [])


def _check_columns(columns: Sequence[Column], number: int, row: Mapping[str | None, Any]) -> None:
    known = {column.name for column in columns}
    if unknown := sorted(str(name) for name in row if name not in known):
        raise InvalidRows(f"Row {number} has a column {unknown[0]!r} that the model's signature does not name.")
    for column in columns:
        if column.name in row:
            _check_value(column, number, row[column.name])
        elif column.is_required:
            raise InvalidRows(f"Row {number} misses the column {column.name!r} of the model's signature.")


def _check_value(column: Column, number: int, value: Any) -> None:
    if column.type in _FLOATS:
        is_right = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
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
        where = "" if column.name is None else f" column {column.name!r}"
        raise InvalidRows(f"Row {number}:{where} wants {column.type}, got {value!r}.")


def _check_tensors(tensors: Sequence[Tensor], number: int, row: Row) -> None:
    if len(tensors) == 1 and tensors[0].name is None:
        _check_shape(tensors[0], number, row)
        return
    if not isinstance(row, Mapping):
        raise InvalidRows(f"Row {number} is no object of tensors: {row!r:.80}.")
    named = cast("Mapping[str, Any]", row)
    wanted = {str(tensor.name): tensor for tensor in tensors}
    if different := sorted(set(named) ^ set(wanted)):
        has = "has" if different[0] in named else "misses"
        raise InvalidRows(f"Row {number} {has} the tensor {different[0]!r}.")
    for name, tensor in wanted.items():
        _check_shape(tensor, number, named[name])


def _check_shape(tensor: Tensor, number: int, value: Any) -> None:
    found: list[int] = []
    inner = value
    while isinstance(inner, list):
        values = cast("list[Any]", inner)
        found.append(len(values))
        inner = values[0] if values else None
    if len(found) != len(tensor.shape) or any(
        want not in (-1, has) for want, has in zip(tensor.shape, found, strict=True)
    ):
        name = "" if tensor.name is None else f" of {tensor.name!r}"
        raise InvalidRows(f"Row {number}: the array{name} has the shape {found}, not {list(tensor.shape)}.")


def _series(pd: Any, column: Column, values: Sequence[Any]) -> Any:
    if column.type in _FLOATS:
        values = [math.nan if value is None else value for value in values]
    if column.type == "datetime":
        return pd.to_datetime(pd.Series(values))
    return pd.Series(values, dtype=_DTYPES.get(column.type, "object"))


def _answers(answer: Any) -> list[Any]:
    if hasattr(answer, "to_dict") and hasattr(answer, "columns"):
        values = cast("list[Any]", answer.to_dict("records"))
    elif isinstance(answer, Mapping):
        named = {name: _listed(column) for name, column in cast("Mapping[str, Any]", answer).items()}
        values = [dict(zip(named, each, strict=True)) for each in zip(*named.values(), strict=True)]
    else:
        values = _listed(answer)
    return [_plain(value) for value in values]


def _listed(values: Any) -> list[Any]:
    return cast("list[Any]", values.tolist()) if hasattr(values, "tolist") else list(values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("Sequence[Any]", value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    # JSON has no NaN.
    return None if isinstance(value, float) and not math.isfinite(value) else value
