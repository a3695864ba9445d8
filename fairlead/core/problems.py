"""RFC 9457 problem documents: the one translation between our errors and what crosses the wire, both ways."""

from __future__ import annotations

from typing import cast

from fairlead.core.errors import PROBLEM_TYPE_PREFIX, FairleadError, JsonValue, ServerUnavailable, error_classes

MEDIA_TYPE = "application/problem+json"
_STANDARD_MEMBERS = frozenset({"type", "title", "status", "detail", "hint"})


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
    """Rebuild the error that the server raised; an answer that is no problem document becomes `ServerUnavailable`."""
    if not isinstance(problem, dict):
        return ServerUnavailable(f"The server answered {status} without saying why.", http_status=status)
    members = cast("dict[str, JsonValue]", problem)
    code = str(members.get("type", "")).removeprefix(PROBLEM_TYPE_PREFIX)
    cls = error_classes().get(code, FairleadError)
    hint = members.get("hint")
    attributes = {key: value for key, value in members.items() if key not in _STANDARD_MEMBERS}
    return cls(
        str(members.get("detail", f"The server answered {status}.")),
        hint=None if hint is None else str(hint),
        **attributes,
    )
