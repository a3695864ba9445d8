"""Replica policies: where artifacts should be, and what is not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPolicy(Record):
    """A policy as it was applied. `regions` are region ids or patterns of them."""

    name: str
    match: JsonObject
    regions: tuple[str, ...]
    retention: JsonObject | None = None
    revision: int
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDrift(Record):
    """A replica that is not as it should be: `drift` is missing, damaged or unwanted."""

    artifact: str
    kind: str
    residency: str
    location: str
    region: str
    drift: str
    state: str | None = None


class ReplicaPolicies:
    """Where the artifacts of which models should be, and for how long."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[ReplicaPolicy]:
        """All policies by name."""
        return map(ReplicaPolicy.from_json, self._transport.items("/api/v1/replica-policies"))

    def get(self, name: str) -> ReplicaPolicy:
        """One policy.

        Raises:
            ReplicaPolicyNotFound: if there is none of that name.
        """
        return ReplicaPolicy.from_json(self._transport.get(_path(name)))

    def apply(self, name: str, policy: Mapping[str, JsonValue], *, revision: int | None = None) -> ReplicaPolicy:
        """Create or replace a policy: `match`, `regions`, `retention`.

        Raises:
            StaleRevision: if a revision is given and the policy is not at it (0: not there yet).
        """
        answer = self._transport.request("PUT", _path(name), body=dict(policy), if_match=revision)
        return ReplicaPolicy.from_json(answer)

    def delete(self, name: str, *, revision: int | None = None) -> None:
        """Remove a policy; what it governed should be everywhere again, unless another governs it."""
        self._transport.request("DELETE", _path(name), if_match=revision)

    def drift(self) -> Iterator[ReplicaDrift]:
        """Every replica that is not as the policies say at this moment."""
        return map(ReplicaDrift.from_json, self._transport.items("/api/v1/replicas/drift"))


def _path(name: str) -> str:
    return f"/api/v1/replica-policies/{quote(parse_name(name, what='replica policy'), safe='')}"
