"""RFC 9457 problem documents: the one translation between our errors and what crosses the wire, both ways."""

from __future__ import annotations

from typing import cast

from fairlead.core.errors import (
    PROBLEM_TYPE_PREFIX,
    Conflict,
    FairleadError,
    InvalidInput,
    JsonValue,
    NotFound,
    PermissionDenied,
    ServerUnavailable,
    StorageFull,
    Unauthenticated,
    Unavailable,
    error_classes,
)

MEDIA_TYPE = "application/problem+json"
_STANDARD_MEMBERS = frozenset({"type", "title", "status", "detail", "hint"})
_BY_STATUS: dict[int, type[FairleadError]] = {
    400: InvalidInput,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: InvalidInput,
    415: InvalidInput,
    422: InvalidInput,
    428: Conflict,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: StorageFull,
}
"""What an error of a code that this client does not know yet is at least."""


def to_problem(error: FairleadError) -> dict[str, JsonValue]:
    """Render an error as the members of a problem document."""
    problem: dict[str, JsonValue] = {
        "type": PROBLEM_TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.hint is not None:
        problem["hint"] = error.hint
    # An attribute never shadows a standard member.
    return error.attributes | problem


def from_problem(problem: object, *, status: int) -> FairleadError:
    """Rebuild the error that the server raised; `status` is that of the answer.

    A code that this client does not know becomes the broadest class of the status, and an answer that is no JSON
    object becomes `ServerUnavailable` with the attribute `http_status`: whatever sent it is not a Fairlead server.
    """
    if not isinstance(problem, dict):
        return ServerUnavailable(
            f"The server answered {status} without saying why.",
            hint="Check that FAIRLEAD_URL names a Fairlead server, and no proxy is in the way.",
            http_status=status,
        )
    members = cast("dict[str, JsonValue]", problem)
    code = str(members.get("type", "")).removeprefix(PROBLEM_TYPE_PREFIX)
    cls = error_classes().get(code) or _BY_STATUS.get(status, FairleadError)
    hint = members.get("hint")
    attributes = {key: value for key, value in members.items() if key not in _STANDARD_MEMBERS}
    return cls(
        str(members.get("detail", f"The server answered {status}.")),
        hint=None if hint is None else str(hint),
        **attributes,
    )
