"""What lies at a location: every object of a workspace, told apart by its key alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fairlead.core.errors import InvalidName
from fairlead.core.ids import Digest
from fairlead.sync.store.domain import DedupDomain

if TYPE_CHECKING:
    from fairlead.core.ports import ObjectStore

ObjectKind = Literal["pack", "layout", "manifest", "record", "foreign"]

_DOMAIN_PARTS = 3
_RECORD = frozenset({"refs", "record"})
_LAYOUT = re.compile(r"layouts/([0-9a-f]{64})/")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object. `digest` names the pack, or the artifact of a layout or manifest; `sequence` is a layout's.

    The size in bytes is that of the object as it lies there. A *record* object holds signed refs or a copy of the
    record; a *foreign* one is none that Fairlead writes.
    """

    key: str
    size: int
    kind: ObjectKind
    domain: DedupDomain | None = None
    digest: Digest | None = None
    sequence: int = 0


def list_objects(store: ObjectStore, workspace_id: str) -> Iterator[StoredObject]:
    """Every object below a workspace's prefix, in key order.

    Raises:
        LocationUnavailable, PermissionDenied: from the store.
    """
    domains: dict[str, DedupDomain | None] = {}
    for item in store.list(f"{workspace_id}/"):
        yield classify(item.key, item.size, domains)


def classify(key: str, size: int, domains: dict[str, DedupDomain | None] | None = None) -> StoredObject:
    """Tell what an object is by its key. `domains` remembers the domains that were seen."""
    known = {} if domains is None else domains
    parts = key.split("/", _DOMAIN_PARTS)
    if len(parts) > 1 and parts[1] in _RECORD:
        return StoredObject(key, size, "record")
    if len(parts) <= _DOMAIN_PARTS:
        return StoredObject(key, size, "foreign")
    prefix = "/".join(parts[:_DOMAIN_PARTS])
    if prefix not in known:
        try:
            known[prefix] = DedupDomain(*parts[:_DOMAIN_PARTS])
        except InvalidName:
            known[prefix] = None
    domain = known[prefix]
    if domain is None:
        return StoredObject(key, size, "foreign")
    if (pack := domain.parse_pack_key(key)) is not None:
        return StoredObject(key, size, "pack", domain, pack)
    if (artifact := domain.parse_manifest_key(key)) is not None:
        return StoredObject(key, size, "manifest", domain, artifact)
    if (match := _LAYOUT.match(parts[_DOMAIN_PARTS])) is not None:
        artifact = Digest(f"sha256:{match[1]}")
        if (name := domain.parse_layout_key(artifact, key)) is not None:
            return StoredObject(key, size, "layout", domain, artifact, name.sequence)
    return StoredObject(key, size, "foreign")
