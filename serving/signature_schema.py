"""What a bundle's requests and answers look like, as JSON Schema made from the signature in an MLmodel file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.core.errors import InvalidInput
from fairlead.serving.bundled.model_runner import Column, Tensor, read_fields, read_inputs

_TYPES: Mapping[str, Mapping[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer"},
    "float": {"type": ["number", "null"]},
    "double": {"type": ["number", "null"]},
    "string": {"type": ["string", "null"]},
    "datetime": {"type": ["string", "null"], "format": "date-time"},
}


def schema_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of `rows` and of the `answer`; what the signature does not say is left open.

    Raises:
        InvalidInput: if the signature is none that MLflow writes.
    """
    try:
        columns, tensors = read_inputs(described)
        row: Mapping[str, Any] = {"type": "object"}
        if tensors:
            row = _of_tensors(tensors)
        elif columns is not None and columns[0].name is None:
            row = _TYPES.get(columns[0].type, {})
        elif columns is not None:
            row = _of_columns(columns)
        prediction = _of_outputs(read_fields(described, "outputs"))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise InvalidInput(
            "The signature in the version's MLmodel file cannot be read.",
            hint="Register a folder that MLflow saved, with signature=mlflow.models.infer_signature(inputs, outputs).",
        ) from None
    text = {"type": ["string", "null"]}
    return {
        "rows": {"type": "array", "items": row},
        "answer": {
            "type": "object",
            "properties": {
                "predictions": {"type": "array", "items": prediction},
                "model": {"type": "string"},
                "artifact_digest": {"type": "string"},
                "bundle_digest": text,
                "region": text,
                "snapshot": text,
            },
        },
    }


def _of_columns(columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {str(column.name): dict(_TYPES.get(column.type, {})) for column in columns},
        "required": [str(column.name) for column in columns if column.is_required],
        "additionalProperties": False,
    }


def _of_tensors(tensors: Sequence[Tensor]) -> Mapping[str, Any]:
    if len(tensors) == 1 and tensors[0].name is None:
        return _of_tensor(tensors[0])
    named = {str(tensor.name): _of_tensor(tensor) for tensor in tensors}
    return {"type": "object", "properties": named, "required": [*named], "additionalProperties": False}


def _of_tensor(tensor: Tensor) -> Mapping[str, Any]:
    schema: dict[str, Any] = {"type": _kind_of(tensor.dtype)}
    for length in reversed(tensor.shape):
        schema = {"type": "array", "items": schema}
        if length >= 0:
            schema |= {"minItems": length, "maxItems": length}
    return schema


def _kind_of(dtype: str) -> str:
    if dtype.startswith(("int", "uint")):
        return "integer"
    return {"bool": "boolean", "str": "string", "object": "string"}.get(dtype, "number")


def _of_outputs(fields: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if not fields:
        return {}
    named = {str(field.get("name")): _of_output(field) for field in fields}
    if len(fields) == 1 and "name" not in fields[0]:
        return _of_output(fields[0])
    return {"type": "object", "properties": named}


def _of_output(field: Mapping[str, Any]) -> Mapping[str, Any]:
    if field.get("type") == "tensor":
        spec = field["tensor-spec"]
        shape = tuple(int(length) for length in spec["shape"][1:])
        return _of_tensor(Tensor(name=None, dtype=str(spec["dtype"]), shape=shape))
    return dict(_TYPES.get(str(field["type"]), {}))
