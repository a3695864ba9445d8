"""Where a location is: its URL, brought to one form, and the options that its file system is opened with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.registry.limits import parse_json

if TYPE_CHECKING:
    from fairlead.registry.locations import Location
    from fairlead.registry.tables import LocationRow

_SCHEMES = {
    "file": "file",
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "abfs",
    "az": "abfs",
    "abfss": "abfs",
}
_URL_MAX_LENGTH = 2000
_SECRET_NAME = re.compile(
    r"secret|passw|credential|connection_?string|sas|signature|account_?key|access_?key|private|token|^key$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"accountkey=|sharedaccesssignature|-----begin|://[^/@]*:[^/@]*@|[?&](sig|x-amz-)", re.IGNORECASE
)
# What is checked as a setting is given as one.
_SETTINGS = frozenset({"endpoint", "storage_class", "encryption_key", "identity", "rate_limit_bytes_per_second"})
# Words that tell gcsfs where to look for credentials, and hold none.
_HARMLESS_TOKENS = frozenset({"anon", "google_default", "cloud", "browser"})


def parse_url(url: str) -> str:
    """Check a location's URL and bring it to one form: a known scheme, no credentials, no `/` at its end.

    A plain path is taken as a folder of this machine.

    Raises:
        InvalidInput: saying what is wrong, without repeating what may be a secret.
    """
    if not url or len(url) > _URL_MAX_LENGTH or not url.isprintable():
        raise InvalidInput("The location's URL is empty, too long, or holds a control character.")
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Path(url).absolute().as_uri()
    kind = _SCHEMES.get(scheme.lower())
    if kind is None:
        raise InvalidInput(
            f"{scheme[:40]!r} is no kind of location.", hint="Write a folder, or a URL of s3://, gs:// or abfs://."
        )
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise InvalidInput(
            "The location's URL holds a user, a query or a fragment.",
            hint="Write scheme://bucket/prefix; credentials come from the environment of each process.",
        )
    if kind == "file":
        folder = Path(unquote(urlsplit(url).path))
        if rest[:1] != "/" or folder == Path("/") or ".." in folder.parts:
            raise InvalidInput("The location's URL names no folder.", hint="Write file:///absolute/folder.")
        return "file://" + quote(folder.as_posix())
    address = rest.strip("/")
    if not address or any(part in {"", ".", ".."} for part in address.split("/")):
        raise InvalidInput("The location's URL names no bucket and prefix.", hint=f"Write {kind}://bucket/prefix.")
    return f"{kind}://{address}"


def parse_cache_url(url: str) -> str:
    """Check the address that a cache is reached at, and bring it to one form: http:// or https://, no `/` at its end.

    Raises:
        InvalidInput: saying what is wrong.
    """
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    if (
        scheme.lower() not in {"http", "https"}
        or not host
        or "@" in host
        or {"?", "#"} & set(rest)
        or not url.isprintable()
        or len(url) > _URL_MAX_LENGTH
    ):
        raise InvalidInput(
            "The URL of a cache is the address that it is reached at, without a user or a query.",
            hint="Write https://models.edge.example.com.",
        )
    return f"{scheme.lower()}://{rest.strip('/')}"


def parse_options(options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Check options for the file system: plain JSON that holds no secret, and no setting.

    Raises:
        InvalidInput: naming the option that looks like one.
    """
    checked = parse_json(options, what="options of a location")
    for name in checked:
        if name in _SETTINGS:
            raise InvalidInput(
                f"{name!r} is a setting of a location, and no option of its file system.",
                hint=f"Give it as such: fairlead location add --{name.replace('_', '-')}.",
                option=name,
            )
    _refuse_secrets(checked, "")
    return checked


def _refuse_secrets(value: JsonValue, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_secrets(item, key)
    elif isinstance(value, list):
        for item in value:
            _refuse_secrets(item, name)
    elif isinstance(value, str):
        is_harmless = name.lower() == "token" and value in _HARMLESS_TOKENS
        if _SECRET_VALUE.search(value) or (_SECRET_NAME.search(name) and not is_harmless):
            raise InvalidInput(
                f"The option {name[:80]!r} looks like a secret, and a location keeps none.",
                hint="Set it in the environment of the server and of the clients, such as AWS_SECRET_ACCESS_KEY.",
                option=name[:80],
            )


def overlaps(row: LocationRow | Location, other: LocationRow | Location) -> bool:
    """Whether two locations are one place, or one of them lies within the other."""
    is_same_service = row.url.startswith(("file:", "http")) or _service_of(other) == _service_of(row)
    return is_same_service and (f"{row.url}/".startswith(f"{other.url}/") or f"{other.url}/".startswith(f"{row.url}/"))


def _service_of(row: LocationRow | Location) -> tuple[object, object]:
    """What tells the bucket of one service from the bucket of the same name of another."""
    settings = row.settings or {}
    return row.options, settings.get("endpoint")
