"""Options that hold `NAME=VALUE`, regions and JSON."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse_pairs(options: Sequence[str] | None) -> dict[str, str]:
    """Read `NAME=VALUE` options.

    Raises:
        InvalidInput: naming the one that has no `=`, or a name given twice.
    """
    pairs: dict[str, str] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{option!r} is not NAME=VALUE.")
        if name in pairs:
            raise InvalidInput(f"{name!r} is given twice.")
        pairs[name] = value
    return pairs


def parse_numbers(options: Sequence[str] | None) -> dict[str, float]:
    """Read `NAME=NUMBER` options.

    Raises:
        InvalidInput: naming the one that holds no number.
    """
    numbers: dict[str, float] = {}
    for name, value in parse_pairs(options).items():
        try:
            numbers[name] = float(value)
        except ValueError:
            raise InvalidInput(f"{name}={value!r}: {value!r} is not a number.") from None
    return numbers


def parse_milliseconds(text: str) -> float:
    """Read a duration such as `80ms`, `0.08s` or `80` (milliseconds) in milliseconds.

    Raises:
        InvalidInput: if it is none.
    """
    number, factor = text.strip(), 1.0
    for unit, milliseconds in (("ms", 1.0), ("s", 1000.0)):
        if number.endswith(unit):
            number, factor = number.removesuffix(unit), milliseconds
            break
    try:
        return float(number) * factor
    except ValueError:
        raise InvalidInput(f"{text!r} is no duration.", hint="Write it like 80ms.") from None


def read_document(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds one object (`-` for standard input).

    Raises:
        InvalidInput: if it is missing, malformed or no object.
    """
    import yaml

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        document: object = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise InvalidInput(f"{path} is not valid: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} holds no object.")
    return cast("dict[str, Any]", document)


API_VERSION = "fairlead/v1"


def read_resource(path: Path, kind: str) -> dict[str, Any]:
    """Read the `spec` of a resource: a document that says which version of which kind it is.

    Raises:
        InvalidInput: if it is of another kind or version, or holds more than apiVersion, kind and spec.
    """
    document = read_document(path)
    said = (document.pop("apiVersion", None), document.pop("kind", None))
    spec = document.pop("spec", None)
    if said != (API_VERSION, kind) or not isinstance(spec, dict) or document:
        raise InvalidInput(
            f"{path} is no {kind} of {API_VERSION}.",
            hint=f"Begin it with 'apiVersion: {API_VERSION}' and 'kind: {kind}', and put the rest below 'spec:'.",
        )
    return cast("dict[str, Any]", spec)


def read_named_resource(path: Path, kind: str) -> tuple[str, dict[str, Any]]:
    """Read a resource that says its name, below `metadata:`; the name and the `spec`, its times as text.

    Raises:
        InvalidInput: if it has no name, or is of another kind or version.
    """
    document = read_document(path)
    metadata = document.get("metadata")
    name = cast("dict[str, object]", metadata).get("name") if isinstance(metadata, dict) else None
    spec = document.get("spec")
    said = (document.get("apiVersion"), document.get("kind"))
    is_whole = set(document) == {"apiVersion", "kind", "metadata", "spec"} and metadata == {"name": name}
    if said != (API_VERSION, kind) or not isinstance(name, str) or not isinstance(spec, dict) or not is_whole:
        raise InvalidInput(
            f"{path} is no {kind} of {API_VERSION} with a name.",
            hint=f"Begin it with 'apiVersion: {API_VERSION}', 'kind: {kind}' and 'metadata: {{name: NAME}}', and put "
            "the rest below 'spec:'.",
        )
    return name, _with_times_as_text(spec)


def parse_moment(text: str) -> datetime:
    """Read a time in RFC 3339; without a time zone it is UTC.

    Raises:
        InvalidInput: if it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{text[:40]!r} is no time.", hint="Write it like 2026-03-01T12:00:00Z.") from None


def _with_times_as_text(value: Any) -> Any:
    # YAML reads what looks like a time as one; our resources hold them as text.
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {str(key): _with_times_as_text(item) for key, item in members.items()}
    if isinstance(value, list):
        return [_with_times_as_text(item) for item in cast("list[Any]", value)]
    return value.isoformat() if isinstance(value, date) else value
