"""How much of what a request may carry: texts, tags, numbers, free-form JSON and row ids.

PostgreSQL can keep neither a NUL nor half of a surrogate pair, and a row of any size is somebody's slow page, so both
are refused where they come in.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from typing import cast

from fairlead.core.errors import FairleadError, InvalidInput, JsonValue
from fairlead.core.ids import parse_name

DESCRIPTION_MAX_LENGTH = 20_000
REASON_MAX_LENGTH = 2_000
TAG_VALUE_MAX_LENGTH = 100_000
TAGS_MAX_COUNT = 100
NUMBERS_MAX_COUNT = 1_000
JSON_MAX_BYTES = 256 * 1024
JSON_MAX_DEPTH = 32


def parse_text(text: str, *, what: str, max_length: int = DESCRIPTION_MAX_LENGTH) -> str:
    """Check free text: no NUL, no half of a surrogate pair, not too long.

    Raises:
        InvalidInput: naming what is wrong.
    """
    if len(text) > max_length:
        raise InvalidInput(f"The {what} is longer than {max_length} characters.", hint="Shorten it.")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(f"The {what} holds a NUL or half of a surrogate pair.", hint="Send plain Unicode text.")
    return text


def parse_tags(tags: Mapping[str, str], *, what: str = "tag") -> dict[str, str]:
    """Check tags: at most 100, each key a name, each value free text.

    Raises:
        InvalidInput: naming the tag that is wrong.
    """
    if len(tags) > TAGS_MAX_COUNT:
        raise InvalidInput(f"There are {len(tags)} {what}s; at most {TAGS_MAX_COUNT} fit.", hint="Leave some out.")
    return {
        parse_tag_key(key, what=what): parse_text(value, what=f"{what} {key[:40]!r}", max_length=TAG_VALUE_MAX_LENGTH)
        for key, value in tags.items()
    }


def parse_tag_key(key: str, *, what: str = "tag") -> str:
    """Check the key of a tag, metric or parameter: a name, which may also hold `/`, `:` and `@`.

    Raises:
        InvalidName: with the rule that was broken.
    """
    parse_name(key.translate({ord(character): "_" for character in "/:@%#"}), what=what)
    return key


def parse_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Check metrics: at most 1000, each a finite number.

    Raises:
        InvalidInput: naming the metric that is wrong.
    """
    if len(metrics) > NUMBERS_MAX_COUNT:
        raise InvalidInput(f"There are {len(metrics)} metrics; at most {NUMBERS_MAX_COUNT} fit.", hint="Keep the best.")
    for key, value in metrics.items():
        parse_tag_key(key, what="metric")
        if not math.isfinite(value):
            raise InvalidInput(f"The metric {key[:40]!r} is {value}, which no gate can compare.", hint="Leave it out.")
    return {key: float(value) for key, value in metrics.items()}


def parse_json(value: Mapping[str, object], *, what: str) -> dict[str, JsonValue]:
    """Check free-form JSON: at most 256 KiB and 32 levels deep, finite numbers, texts that a database can keep.

    Raises:
        InvalidInput: naming what is wrong.
    """
    _check_json(value, what, JSON_MAX_DEPTH)
    checked = cast("dict[str, JsonValue]", dict(value))
    if len(json.dumps(checked)) > JSON_MAX_BYTES:
        raise InvalidInput(f"The {what} is larger than {JSON_MAX_BYTES // 1024} KiB.", hint="Store it as a file.")
    return checked


def parse_row_id(text: str, error: type[FairleadError], *, what: str) -> str:
    """Check a row's id; what has not the form of one names nothing.

    Raises:
        FairleadError: of the given class.
    """
    try:
        row_id = str(uuid.UUID(text))
    except ValueError:
        row_id = ""
    if row_id != text:
        raise error(f"There is no {what} {text[:80]!r}.", hint="Name it by its id, a UUID.")
    return row_id


def _check_json(value: object, what: str, depth: int) -> None:
    if depth == 0:
        raise InvalidInput(f"The {what} is nested more than {JSON_MAX_DEPTH} levels deep.", hint="Make it flatter.")
    if isinstance(value, str):
        parse_text(value, what=what, max_length=JSON_MAX_BYTES)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"The {what} holds {value}, which is not JSON.", hint="Write it as text.")
    elif isinstance(value, int) and abs(value) > 2**53 - 1:
        raise InvalidInput(f"The {what} holds an integer beyond ±(2^53 - 1).", hint="Write it as text.")
    elif isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            parse_text(str(key), what=what, max_length=JSON_MAX_BYTES)
            _check_json(item, what, depth - 1)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            _check_json(item, what, depth - 1)
