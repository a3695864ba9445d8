"""Object keys: relative, `/`-separated paths that can never leave the prefix they are joined to."""

from __future__ import annotations

from fairlead.core.errors import InvalidInput

TEMPORARY_PREFIX = ".fairlead-tmp-"
"""File names of this form hold half-written objects of a local store; no key may use them."""

_KEY_MAX_BYTES = 900


def check_key(key: str) -> str:
    r"""Return the key when it names an object.

    A key holds 1 to 900 bytes of UTF-8, whose parts are neither empty nor `.` or `..`, without backslash or control
    character.

    Raises:
        InvalidInput: with the rule that was broken.
    """
    reason = _fault(key)
    if reason is None and any(part in {"", ".", ".."} for part in key.split("/")):
        reason = "it has an empty, `.` or `..` part"
    if reason:
        raise InvalidInput(f"{key[:120]!r} cannot be an object key: {reason}.")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix when it can begin a key; the empty prefix begins all of them.

    Raises:
        InvalidInput: with the rule that was broken.
    """
    reason = _fault(prefix) if prefix else None
    *folders, _last = prefix.split("/")
    if reason is None and any(part in {"", ".", ".."} for part in folders):
        reason = "it has an empty, `.` or `..` part"
    if reason:
        raise InvalidInput(f"{prefix[:120]!r} cannot begin an object key: {reason}.")
    return prefix


def check_range(start: int, length: int | None) -> None:
    """Refuse a negative start or length.

    Raises:
        InvalidInput: if either is negative.
    """
    if start < 0 or (length is not None and length < 0):
        raise InvalidInput(f"A range cannot start at {start} with length {length}.")


def _fault(key: str) -> str | None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if not key or size > _KEY_MAX_BYTES:
        return f"it is empty or longer than {_KEY_MAX_BYTES} bytes"
    if "\\" in key or any(ord(character) < 32 or ord(character) == 127 for character in key):
        return "it holds a backslash or a control character"
    if any(part.startswith(TEMPORARY_PREFIX) for part in key.split("/")):
        return f"names beginning with {TEMPORARY_PREFIX} are reserved"
    return None
