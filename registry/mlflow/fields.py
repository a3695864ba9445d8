"""The fields of a request: a JSON object in a body, or the query of a GET; MLflow sends the same names in either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import VERSION_MAX

_NUMBER_MAX_DIGITS = 18


class Fields:
    """Typed access to what a request carries; what is missing or of another type is refused by its name."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def required(self, name: str) -> str:
        """A text that must be there and not be empty.

        Raises:
            InvalidInput: naming the field.
        """
        found = self.text(name)
        if not found:
            raise InvalidInput(f"Missing value for required parameter '{name}'.", hint="See MLflow's REST API.")
        return found

    def text(self, name: str) -> str | None:
        """A text, or None where it is missing.

        Raises:
            InvalidInput: naming the field.
        """
        found = self._values.get(name)
        if isinstance(found, list):
            found = cast("list[object]", found)[-1] if found else None
        if found is None or isinstance(found, str):
            return found
        if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 10**_NUMBER_MAX_DIGITS:
            return str(found)
        raise _wrong_type(name, "a text")

    def texts(self, name: str) -> list[str]:
        """Texts, none where the field is missing; a GET repeats the name.

        Raises:
            InvalidInput: naming the field.
        """
        found = self._values.get(name)
        if found is None:
            return []
        items = cast("list[object]", found) if isinstance(found, list) else [found]
        if not all(isinstance(item, str) for item in items) or len(items) > 100:
            raise _wrong_type(name, "a list of texts")
        return cast("list[str]", items)

    def number(self, name: str) -> int | None:
        """A whole number, or None where it is missing.

        Raises:
            InvalidInput: naming the field.
        """
        found = self.text(name)
        if found is None:
            return None
        if not found.removeprefix("-").isascii() or not found.removeprefix("-").isdigit() or len(found) > 19:
            raise _wrong_type(name, "a whole number")
        return int(found)

    def version(self) -> int:
        """The number of a version. One that no version can have names none: 0.

        Raises:
            InvalidInput: if it is missing or no number.
        """
        text = self.required("version")
        if not (text.isascii() and text.isdigit()):
            raise InvalidInput(f"Parameter 'version' must be an integer, got '{text[:40]}'.", hint="Send a number.")
        number = int(text) if len(text) < _NUMBER_MAX_DIGITS else 0
        return number if number <= VERSION_MAX else 0

    def flag(self, name: str) -> bool:
        """Whether a flag is set.

        Raises:
            InvalidInput: naming the field.
        """
        found = self._values.get(name)
        if found in {None, False, "false", "False", ""}:
            return False
        if found in {True, "true", "True"}:
            return True
        raise _wrong_type(name, "true or false")

    def object(self, name: str) -> dict[str, Any] | None:
        """An object, or None where it is missing.

        Raises:
            InvalidInput: naming the field.
        """
        found: object = self._values.get(name)
        if found is None or isinstance(found, dict):
            return cast("dict[str, Any] | None", found)
        raise _wrong_type(name, "an object")

    def objects(self, name: str) -> list[dict[str, Any]]:
        """Objects, none where the field is missing; at most 100.

        Raises:
            InvalidInput: naming the field.
        """
        found: object = self._values.get(name) or []
        items = cast("list[object]", found) if isinstance(found, list) else [None]
        if len(items) > 100 or not all(isinstance(item, dict) for item in items):
            raise _wrong_type(name, "a list of objects")
        return cast("list[dict[str, Any]]", items)

    def tags(self) -> dict[str, str]:
        """The tags of a creating call: objects with `key` and `value`, the last of a key counting.

        Raises:
            InvalidInput: naming the field.
        """
        found: object = self._values.get("tags") or []
        if not isinstance(found, list):
            raise _wrong_type("tags", "a list of objects")
        tags: dict[str, str] = {}
        for item in cast("list[object]", found):
            if not isinstance(item, dict):
                raise _wrong_type("tags", "a list of objects")
            one = Fields(cast("dict[str, Any]", item))
            tags[one.required("key")] = one.text("value") or ""
        return tags


async def read_fields(request: Request) -> Fields:
    """The fields of a request.

    Raises:
        InvalidInput: if the body is no JSON object.
    """
    if request.method == "GET":
        query = request.query_params
        return Fields({name.removesuffix("[]"): query.getlist(name) for name in query})
    body = await request.body()
    try:
        values: object = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise InvalidInput("The body is no JSON.", hint="Send a JSON object.") from None
    if not isinstance(values, dict):
        raise InvalidInput("The body is no JSON object.", hint="Send a JSON object.")
    return Fields(cast("dict[str, Any]", values))


Asked = Annotated[Fields, Depends(read_fields)]


def _wrong_type(name: str, what: str) -> InvalidInput:
    return InvalidInput(f"Invalid value for parameter '{name}': it is not {what}.", hint="See MLflow's REST API.")
