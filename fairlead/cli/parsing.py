"""Options that hold `NAME=VALUE`, regions and JSON."""

from __future__ import annotations

import json
import sys
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
