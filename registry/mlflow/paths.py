"""Paths that come in over the wire. None of them leads anywhere but down, whichever way it is read or decoded."""

from __future__ import annotations

import unicodedata

from fairlead.core.errors import InvalidInput

PATH_MAX_LENGTH = 1_000
# A percent sign would let a path mean something else once it is decoded again; `#` and `?` where it becomes a URL.
_FORBIDDEN = frozenset('\\%#?:*"<>|')


def parse_path(text: str, *, may_be_empty: bool = False) -> str:
    r"""Check a relative path with `/` between its parts.

    Raises:
        InvalidInput: if it is empty, absolute, holds `.`, `..` or an empty part, a control character or one of
            `\ % # ? : * " < > |`, or is too long.
    """
    if not text and may_be_empty:
        return ""
    parts = text.split("/")
    is_plain = not any(unicodedata.category(character)[0] == "C" for character in text[: PATH_MAX_LENGTH + 1])
    if (
        not is_plain
        or len(text) > PATH_MAX_LENGTH
        or _FORBIDDEN & set(text)
        or any(part in {"", ".", ".."} or part != part.strip() or len(part.encode()) > 240 for part in parts)
    ):
        raise InvalidInput(
            f"Invalid path: {text[:80]!r}.",
            hint="Send a relative path whose parts are plain names, without '..', backslashes or percent signs.",
        )
    return text
