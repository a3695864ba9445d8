"""What a location's settings may say: the same few words for every cloud, checked by what the cloud has of each.

Settings are part of the record, so they hold no secret: an *identity* names a role and where each process finds its
token, or a name under which each process finds keys of its own. A URL, a region and a kind are no settings: they
never change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import cast
from urllib.parse import urlsplit

from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.registry.limits import parse_text

STORE_SETTINGS = (
    "endpoint",
    "storage_class",
    "encryption_key",
    "has_create_only",
    "rate_limit_bytes_per_second",
    "identity",
)
"""What the store of a location is opened with."""

CLIENT_SETTINGS = ("endpoint", "storage_class", "encryption_key", "has_create_only")
"""What clients that read and write a location themselves are told; they come with identities of their own."""

_EVERYWHERE = frozenset({"has_create_only", "rate_limit_bytes_per_second", "min_warm"})
_IN_CLOUDS = frozenset({"endpoint", "storage_class", "encryption_key", "identity", "client_access"})
_OF_CACHES = frozenset({"is_public", "size_bytes", "offline_seconds"})

# Classes that answer a read at once: what has to be thawed first is no replica.
_STORAGE_CLASSES: Mapping[str, tuple[str, ...]] = {
    "s3": (
        "STANDARD",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "REDUCED_REDUNDANCY",
        "GLACIER_IR",
        "EXPRESS_ONEZONE",
    ),
    "gs": ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"),
    "abfs": ("Hot", "Cool", "Cold"),
}
CLIENT_ACCESS = ("direct", "signed")
"""How clients reach a location: with identities of their own, or by addresses that the server signs for them."""

_IDENTITY_KINDS = ("workload", "static", "anonymous")
_TOKEN_SOURCES = ("file", "gcp-metadata", "azure-metadata")
_OF_TOKENS = frozenset({"token_from", "token_file_env", "token_audience", "metadata_host"})
_OF_WORKLOAD: Mapping[str, frozenset[str]] = {
    "s3": _OF_TOKENS | {"role_arn", "session_name", "sts_endpoint", "sts_region"},
    "gs": _OF_TOKENS | {"audience", "service_account", "token_url", "impersonation_url", "subject_token_type"},
    "abfs": _OF_TOKENS | {"tenant_id", "client_id", "authority"},
}
_REQUIRED_WITH_TOKEN: Mapping[str, tuple[str, ...]] = {
    "s3": ("role_arn",),
    "gs": ("audience",),
    "abfs": ("tenant_id", "client_id"),
}
_CREDENTIALS_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
# Which variable, not which file: nobody may have a server read a file of their choice and send it somewhere.
_TOKEN_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,100}_TOKEN_FILE")
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_COUNT_MAX = 2**50
_TEXT_MAX_LENGTH = 2000


def parse_settings(settings: Mapping[str, JsonValue], *, scheme: str, kind: str) -> dict[str, JsonValue]:
    """Check a location's settings against what its kind and its URL's scheme (`file`, `s3`, `gs`, `abfs`) have.

    A setting that is null is left out: that is how one is taken back.

    Raises:
        InvalidInput: naming the setting that does not exist or does not fit.
    """
    known = _OF_CACHES if kind == "cache" else _EVERYWHERE | (frozenset[str]() if scheme == "file" else _IN_CLOUDS)
    checked: dict[str, JsonValue] = {}
    for name, value in settings.items():
        if name not in known:
            raise InvalidInput(
                f"A {kind} location at {scheme}:// has no setting {name[:60]!r}.",
                hint=f"It has: {', '.join(sorted(known))}.",
                setting=name[:60],
            )
        if value is not None:
            checked[name] = _PARSERS[name](name, value, scheme)
    _refuse_plain_http(checked, scheme)
    return checked


def _refuse_plain_http(settings: Mapping[str, JsonValue], scheme: str) -> None:
    """Google's and Azure's requests carry the token itself, where those of S3 only prove that there is a key."""
    identity = settings.get("identity")
    is_anonymous = isinstance(identity, dict) and identity["kind"] == "anonymous"
    endpoint = urlsplit(str(settings.get("endpoint", "")))
    if scheme != "s3" and endpoint.scheme == "http" and endpoint.hostname not in _LOOPBACK and not is_anonymous:
        raise _wrong("endpoint", f"is an https:// URL on {scheme}://, or its identity anonymous: tokens are sent there")


def _parse_bool(name: str, value: JsonValue, _scheme: str) -> JsonValue:
    if not isinstance(value, bool):
        raise _wrong(name, "is true or false")
    return value


def _parse_count(name: str, value: JsonValue, _scheme: str) -> JsonValue:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _COUNT_MAX:
        raise _wrong(name, f"is a whole number from 1 to {_COUNT_MAX}")
    return value


def _parse_share(name: str, value: JsonValue, _scheme: str) -> JsonValue:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise _wrong(name, "is a share from 0 to 1")
    return value


def _parse_endpoint(name: str, value: JsonValue, _scheme: str) -> JsonValue:
    text = _parse_plain(name, value)
    parts = urlsplit(text)
    if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc or parts.query:
        raise _wrong(name, "is a URL like https://s3.example.com, without a user or a query")
    return text.rstrip("/")


def _parse_storage_class(name: str, value: JsonValue, scheme: str) -> JsonValue:
    text, classes = _parse_plain(name, value), _STORAGE_CLASSES[scheme]
    found = {each.lower(): each for each in classes}.get(text.lower())
    if found is None:
        raise _wrong(name, f"is one of {', '.join(classes)} on {scheme}://")
    return found


def _parse_client_access(name: str, value: JsonValue, _scheme: str) -> JsonValue:
    if value not in CLIENT_ACCESS:
        raise _wrong(name, f"is {' or '.join(CLIENT_ACCESS)}")
    return value


def _parse_encryption_key(name: str, value: JsonValue, scheme: str) -> JsonValue:
    text = _parse_plain(name, value)
    if scheme == "gs" and not re.fullmatch(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+", text):
        raise _wrong(name, "is projects/P/locations/L/keyRings/R/cryptoKeys/K on gs://")
    return text


def _parse_identity(name: str, value: JsonValue, scheme: str) -> JsonValue:
    if not isinstance(value, dict):
        raise _wrong(name, "is an object with a `kind`")
    kind = value.get("kind")
    if kind not in _IDENTITY_KINDS:
        raise _wrong(f"{name}.kind", f"is one of {', '.join(_IDENTITY_KINDS)}")
    known = _OF_WORKLOAD[scheme] if kind == "workload" else {"credentials"} if kind == "static" else frozenset[str]()
    checked: dict[str, JsonValue] = {"kind": kind}
    for member, given in value.items():
        if member == "kind" or given is None:
            continue
        if member not in known:
            raise InvalidInput(
                f"An identity of kind {kind} on {scheme}:// has no {member[:60]!r}.",
                hint=f"It has: {', '.join(sorted(known)) or 'nothing more'}.",
                setting=f"{name}.{member[:60]}",
            )
        checked[member] = _parse_identity_member(f"{name}.{member}", member, given)
    if kind == "static" and "credentials" not in checked:
        raise _wrong(f"{name}.credentials", "names the keys in each process's environment, such as `partner`")
    if kind == "workload" and len(checked) > 1:
        for member in _REQUIRED_WITH_TOKEN[scheme]:
            if member not in checked:
                raise _wrong(f"{name}.{member}", f"is needed for a workload identity on {scheme}://")
    return checked


def _parse_identity_member(name: str, member: str, value: JsonValue) -> str:
    text = _parse_plain(name, value)
    if member == "token_from" and text not in _TOKEN_SOURCES:
        raise _wrong(name, f"is one of {', '.join(_TOKEN_SOURCES)}")
    if member == "token_file_env" and not _TOKEN_VARIABLE.fullmatch(text):
        raise _wrong(name, "is the name of an environment variable that ends in _TOKEN_FILE")
    if member == "credentials" and not _CREDENTIALS_NAME.fullmatch(text):
        raise _wrong(name, "is a short name in lower case, and no secret")
    if member == "metadata_host" and not _HOST.fullmatch(text):
        raise _wrong(name, "is a host, and perhaps a port, without a path")
    if member in {"sts_endpoint", "token_url", "impersonation_url", "authority"}:
        checked = str(_parse_endpoint(name, text, ""))
        if not checked.startswith("https://") and urlsplit(checked).hostname not in _LOOPBACK:
            raise _wrong(name, "is an https:// URL: tokens are sent there")
        return checked
    return text


def _parse_plain(name: str, value: JsonValue) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _wrong(name, "is a text without control characters")
    return parse_text(value, what=f"setting {name}", max_length=_TEXT_MAX_LENGTH)


def _wrong(name: str, what: str) -> InvalidInput:
    return InvalidInput(f"The setting {name[:80]!r} {what}.", setting=name[:80])


_PARSERS: Mapping[str, Callable[[str, JsonValue, str], JsonValue]] = {
    "endpoint": _parse_endpoint,
    "storage_class": _parse_storage_class,
    "encryption_key": _parse_encryption_key,
    "identity": _parse_identity,
    "client_access": _parse_client_access,
    "rate_limit_bytes_per_second": _parse_count,
    "size_bytes": _parse_count,
    "offline_seconds": _parse_count,
    "has_create_only": _parse_bool,
    "is_public": _parse_bool,
    "min_warm": _parse_share,
}


def client_settings(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The settings that a client is told, with an identity only where there is none to bring: an open bucket."""
    told = {name: settings[name] for name in CLIENT_SETTINGS if name in settings}
    identity = settings.get("identity")
    if isinstance(identity, dict) and cast("dict[str, JsonValue]", identity).get("kind") == "anonymous":
        told["identity"] = identity
    return told
