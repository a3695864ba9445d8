"""The dedup domain: who may share stored bytes with whom, as a part of every object key.

Blocks are shared inside one (workspace, residency class, encryption key) and nowhere else, so a block of restricted
data can never be reused by, or moved with, data under another rule. Keys of one domain:

    {workspace}/{residency}/{key_id}/manifests/{artifact}.json
    {workspace}/{residency}/{key_id}/packs/{first two digits}/{pack}.pack
    {workspace}/{residency}/{key_id}/layouts/{artifact}/{sequence}-{layout}.json.gz
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fairlead.core.errors import InvalidName
from fairlead.core.ids import Digest, digest_hex, parse_digest

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_LAYOUT_NAME = re.compile(r"([0-9]{10})-([0-9a-f]{64})\.json\.gz")
_MANIFEST_NAME = re.compile(r"([0-9a-f]{64})\.json")
_PACK_NAME = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})\.pack")
_RESERVED = frozenset({"refs", "record"})

PLAIN_KEY_ID = "plain"
"""The key id of a domain whose objects are not encrypted by Fairlead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutName:
    """What a layout's key says: its place in the order of this artifact's layouts here, and the digest of its bytes."""

    sequence: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class DedupDomain:
    """The workspace, residency class and encryption key within which equal blocks are stored once.

    Raises:
        InvalidName: if a part is not 1 to 128 letters, digits, dots, dashes and underscores, or is reserved.
    """

    workspace: str
    residency: str
    key_id: str = PLAIN_KEY_ID

    def __post_init__(self) -> None:
        for what, part in (("workspace", self.workspace), ("residency", self.residency), ("key id", self.key_id)):
            check_part(part, what=what)
        if self.residency in _RESERVED:
            raise InvalidName(f"{self.residency!r} cannot be a residency class: the word is reserved.")

    @property
    def prefix(self) -> str:
        """What every key of the domain begins with, without the closing `/`."""
        return f"{self.workspace}/{self.residency}/{self.key_id}"

    def manifest_key(self, artifact: Digest) -> str:
        """Where the manifest of an artifact is."""
        return f"{self.manifest_prefix()}{digest_hex(parse_digest(artifact))}.json"

    def manifest_prefix(self) -> str:
        """What the keys of all manifests begin with."""
        return f"{self.prefix}/manifests/"

    def pack_key(self, pack: Digest) -> str:
        """Where a pack is; it is named by the sha256 of its bytes."""
        digits = digest_hex(parse_digest(pack))
        return f"{self.pack_prefix()}{digits[:2]}/{digits}.pack"

    def pack_prefix(self) -> str:
        """What the keys of all packs begin with."""
        return f"{self.prefix}/packs/"

    def layout_prefix(self, artifact: Digest | None = None) -> str:
        """What the keys of all layouts, or of all layouts of one artifact, begin with."""
        folder = f"{self.prefix}/layouts/"
        return folder if artifact is None else f"{folder}{digest_hex(parse_digest(artifact))}/"

    def layout_key(self, artifact: Digest, sequence: int, layout: Digest) -> str:
        """Where a layout is; keys of one artifact sort by sequence."""
        return f"{self.layout_prefix(artifact)}{sequence:010d}-{digest_hex(parse_digest(layout))}.json.gz"

    def parse_manifest_key(self, key: str) -> Digest | None:
        """The artifact whose manifest has this key, or None where no manifest does."""
        match = _MANIFEST_NAME.fullmatch(key.removeprefix(self.manifest_prefix()))
        return Digest(f"sha256:{match[1]}") if match and key.startswith(self.manifest_prefix()) else None

    def parse_pack_key(self, key: str) -> Digest | None:
        """The pack that has this key, or None where no pack does."""
        match = _PACK_NAME.fullmatch(key.removeprefix(self.pack_prefix()))
        if match is None:
            return None
        pack = Digest(f"sha256:{match[1]}")
        return pack if key == self.pack_key(pack) else None

    def parse_layout_key(self, artifact: Digest, key: str) -> LayoutName | None:
        """What the key of a layout of this artifact says, or None where it is not one."""
        prefix = self.layout_prefix(artifact)
        match = _LAYOUT_NAME.fullmatch(key.removeprefix(prefix))
        if match is None or not key.startswith(prefix):
            return None
        return LayoutName(sequence=int(match[1]), digest=Digest(f"sha256:{match[2]}"))


def domain_of_key(key: str) -> DedupDomain | None:
    """The domain that an object's key lies in, or None where it lies in none (refs, the copy of the record)."""
    parts = key.split("/")
    if len(parts) < 4 or parts[1] in _RESERVED:
        return None
    try:
        return DedupDomain(*parts[:3])
    except InvalidName:
        return None


def encryption_of(key: str) -> tuple[str, str] | None:
    """The workspace and key id that the object of a key is encrypted under, or None where it is not encrypted.

    Those are the objects of a domain, and the documents of the copy of the record.
    """
    parts = key.split("/")
    is_document = len(parts) == 4 and parts[1] == "record" and parts[2] != "index"
    if not is_document and domain_of_key(key) is None:
        return None
    return None if parts[2] == PLAIN_KEY_ID else (parts[0], parts[2])


def check_part(part: str, *, what: str) -> str:
    """Return one part of a domain's prefix when it can stand in an object key.

    Raises:
        InvalidName: if it is not 1 to 128 letters, digits, dots, dashes and underscores.
    """
    if not _PART.fullmatch(part):
        raise InvalidName(
            f"{part[:80]!r} cannot be a {what} in an object key.",
            hint="Use 1 to 128 letters, digits, dots, dashes and underscores; begin with a letter or digit.",
        )
    return part
