"""Identifiers, names and references: how things are called.

Three kinds of identifier exist. A *digest* names bytes (`sha256:<64 hex>`). A *UUIDv7* names a row; it sorts by the
time it was made, but order between rows is always by revision. A *name* is what people type.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
import unicodedata
import uuid
from dataclasses import dataclass
from typing import NewType

from fairlead.core.errors import InvalidDigest, InvalidName, InvalidReference

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits."""

RowId = NewType("RowId", str)
"""A UUIDv7 in its canonical 36-character form."""

RegionId = NewType("RegionId", str)
"""`cloud:region`, such as `aws:us-east-1`."""

NAME_MAX_LENGTH = 255
VERSION_MAX = 2**31 - 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_VERSION_ALIAS = re.compile(r"v\d+", re.IGNORECASE)
_FORBIDDEN_IN_NAMES = frozenset('/\\:@%#?"<>|*')

_last_lock = threading.Lock()
_last_stamp = 0


def new_row_id() -> RowId:
    """Make a UUIDv7 (RFC 9562) that is greater than every one made before in this process.

    The 12 bits after the millisecond hold its fraction (method 3 of section 6.2), so ids made within one millisecond
    still sort in the order they were made.
    """
    global _last_stamp  # noqa: PLW0603  (monotonic within the process, as the RFC asks)
    with _last_lock:
        nanoseconds = time.time_ns()
        stamp = (nanoseconds // 1_000_000 << 12) | (nanoseconds % 1_000_000 * 4096 // 1_000_000)
        stamp = max(stamp, _last_stamp + 1)
        _last_stamp = stamp
    random_bits = int.from_bytes(os.urandom(8), "big") & (2**62 - 1)
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random_bits
    return RowId(str(uuid.UUID(int=value)))


def sha256_digest(data: bytes | bytearray | memoryview) -> Digest:
    """The digest that names `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def parse_digest(text: str) -> Digest:
    """Check a digest's form.

    Raises:
        InvalidDigest: if it is not `sha256:` and 64 lower-case hexadecimal digits.
    """
    if not _DIGEST.fullmatch(text):
        raise InvalidDigest(f"{text[:80]!r} is not a digest: expected sha256:<64 lower-case hex digits>.")
    return Digest(text)


def digest_hex(digest: Digest) -> str:
    """The 64 hexadecimal digits of a digest."""
    return digest.removeprefix("sha256:")


def parse_name(text: str, *, what: str = "model") -> str:
    r"""Check a name and bring it to Unicode form NFC.

    Names hold 1 to 255 characters, none of them a control character or one of `/ \ : @ % # ? " < > | *`, and neither
    begin nor end with white space or a dot.

    Raises:
        InvalidName: with the rule that was broken.
    """
    name = unicodedata.normalize("NFC", text)
    reason = None
    if not name:
        reason = "it is empty"
    elif len(name) > NAME_MAX_LENGTH:
        reason = f"it is longer than {NAME_MAX_LENGTH} characters"
    elif any(_is_invisible(character) for character in name):
        reason = "it holds a control, line-breaking or unassigned character"
    elif forbidden := sorted(_FORBIDDEN_IN_NAMES & set(name)):
        reason = f"it holds {forbidden[0]!r}"
    elif name != name.strip() or name[0] == "." or name[-1] == ".":
        reason = "it begins or ends with white space or a dot"
    if reason:
        raise InvalidName(
            f"{name[:80]!r} cannot be a {what} name: {reason}.",
            hint="Use letters, digits, spaces, dots, dashes and underscores.",
        )
    return name


def _is_invisible(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith("C") or category in {"Zl", "Zp"}


def parse_alias(text: str) -> str:
    """Check an alias name: a name that is neither `latest` nor `v<N>`, which MLflow reserves.

    Raises:
        InvalidName: with the rule that was broken.
    """
    alias = parse_name(text, what="alias")
    if alias.lower() == "latest" or _VERSION_ALIAS.fullmatch(alias):
        raise InvalidName(f"{alias!r} cannot be an alias: `latest` and `v<N>` are reserved.")
    return alias


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """`name/3` (a version) or `name@alias` (wherever that pointer now stands); exactly one of the two is set."""

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.version}" if self.alias is None else f"{self.name}@{self.alias}"


def parse_model_reference(text: str) -> ModelReference:
    """Read `churn/3`, `churn@production`, or either behind `models:/`.

    Raises:
        InvalidReference: if it is neither form.
        InvalidName: if the name or alias breaks a rule of names.
    """
    body = text.removeprefix("models:/")
    if "@" in body:
        name, _, alias = body.rpartition("@")
        return ModelReference(name=parse_name(name), alias=parse_alias(alias))
    name, slash, number = body.rpartition("/")
    if slash and _VERSION.fullmatch(number) and int(number) <= VERSION_MAX:
        return ModelReference(name=parse_name(name), version=int(number))
    raise InvalidReference(
        f"{text[:120]!r} names no model version.", hint="Write name/VERSION (churn/3) or name@ALIAS (churn@production)."
    )
