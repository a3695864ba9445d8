"""The revision fence of things that are replaced whole: who changed it first wins, and the other is told."""

from __future__ import annotations

from fairlead.core.errors import StaleRevision


def require_revision(what: str, actual: int, expected: int | None, *, hint: str) -> None:
    """Refuse a change that starts from a revision which is no longer current; None starts from whatever is there.

    `what` names the thing at the beginning of a sentence. A thing that is not there is at revision 0.

    Raises:
        StaleRevision: with `expected` and `actual`.
    """
    if expected is not None and expected != actual:
        raise StaleRevision(
            f"{what} is at revision {actual}, not {expected}.", hint=hint, expected=expected, actual=actual
        )
