"""Canonical JSON: one value, one sequence of bytes.

Keys sorted by code point, no white space, UTF-8 without escapes beyond those JSON demands, integers only within
±(2^53 - 1), and no floats: where a digest depends on a number that is not whole, write it as a string.
"""

from __future__ import annotations

import json
from typing import cast

from fairlead.core.errors import InvalidInput, JsonValue

_SAFE_INTEGER = 2**53 - 1


def canonical_json(value: JsonValue) -> bytes:
    """Encode a value; equal values give equal bytes on every machine.

    Raises:
        InvalidInput: if the value holds a float, an integer beyond ±(2^53 - 1), half a surrogate pair, or something
            that is not JSON, or if it is nested too deep.
    """
    try:
        _check(value)
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidInput("The value is nested too deep for canonical JSON.") from None
    except UnicodeEncodeError:
        raise InvalidInput("The value holds half a surrogate pair, which has no UTF-8 form.") from None


def _check(value: object) -> None:
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            raise InvalidInput(f"{value} is too large for canonical JSON.")
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            _check(item)
    elif isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                raise InvalidInput(f"{key!r} cannot be a key in canonical JSON.")
            _check(item)
    else:
        raise InvalidInput(f"A {type(value).__name__} has no canonical JSON form.")
