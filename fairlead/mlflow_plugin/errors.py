"""Errors as MLflow's callers know them; the cause is Fairlead's own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from fairlead.core import errors

if TYPE_CHECKING:
    from collections.abc import Generator

_CODES: tuple[tuple[type[errors.FairleadError], str], ...] = (
    (errors.AlreadyExists, "RESOURCE_ALREADY_EXISTS"),
    (errors.Conflict, "RESOURCE_CONFLICT"),
    (errors.NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (errors.Unauthenticated, "UNAUTHENTICATED"),
    (errors.PermissionDenied, "PERMISSION_DENIED"),
    (errors.IntegrityError, "DATA_LOSS"),
    (errors.StorageFull, "RESOURCE_LIMIT_EXCEEDED"),
    (errors.Unavailable, "TEMPORARILY_UNAVAILABLE"),
    (errors.InvalidInput, "INVALID_PARAMETER_VALUE"),
    (errors.ResidencyViolation, "INVALID_PARAMETER_VALUE"),
)


@contextmanager
def as_mlflow_errors() -> Generator[None]:
    """Raise MLflow's exception, with the nearest of its codes, for each error of Fairlead's that leaves the block."""
    try:
        yield
    except errors.FairleadError as error:
        code = next((code for cls, code in _CODES if isinstance(error, cls)), "INTERNAL_ERROR")
        raise MlflowException(str(error), error_code=ErrorCode.Value(code)) from error
