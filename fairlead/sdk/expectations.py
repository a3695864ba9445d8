"""Expectations on feature snapshots: what must be true of the rows, what was found, and what they are like."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from fairlead.core.errors import ExpectationsNotFound, JsonValue
from fairlead.core.ids import parse_name
from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationSet(Record):
    """What is expected of a service's snapshots, or of a view's rows in any snapshot."""

    name: str
    service: str | None = None
    view: str | None = None
    expectations: tuple[JsonObject, ...] = ()
    revision: int
    updated_by: str
    updated_at: datetime

    def spec(self) -> JsonObject:
        """What its owners wrote."""
        about: JsonObject = {"service": self.service} if self.view is None else {"view": self.view}
        return about | {"expectations": cast("JsonValue", [dict(each) for each in self.expectations])}


class Expectations:
    """What snapshots are held to before they are served or promoted with."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[ExpectationSet]:
        """All sets by name."""
        return map(ExpectationSet.from_json, self._transport.items("/api/v1/features/expectations"))

    def get(self, name: str) -> ExpectationSet:
        """One set.

        Raises:
            ExpectationsNotFound: if there is none of that name.
        """
        return ExpectationSet.from_json(self._transport.get(_path(name)))

    def find(self, name: str) -> ExpectationSet | None:
        """One set, or None."""
        try:
            return self.get(name)
        except ExpectationsNotFound:
            return None

    def apply(self, name: str, spec: Mapping[str, JsonValue], *, revision: int | None = None) -> ExpectationSet:
        """Create or replace a set: `service` or `view`, and `expectations`. The newest snapshots are checked anew.

        Raises:
            InvalidInput: if it could not be checked, naming the expectation.
            FeatureServiceNotFound, FeatureViewNotFound
            StaleRevision: if it is not at `revision` (0: not there).
        """
        return ExpectationSet.from_json(self._transport.request("PUT", _path(name), body=dict(spec), if_match=revision))

    def delete(self, name: str, *, revision: int | None = None) -> None:
        """Remove a set.

        Raises:
            ExpectationsNotFound, StaleRevision
        """
        self._transport.request("DELETE", _path(name), if_match=revision)

    def checks(self, snapshot: str) -> list[JsonObject]:
        """What was expected of each part of a snapshot (by digest or id), and found.

        Raises:
            SnapshotNotFound
        """
        return cast("list[JsonObject]", self._transport.get(f"{_snapshot_path(snapshot)}/checks")["items"])

    def report(self, snapshot: str, *, region: str | None = None) -> JsonObject:
        """How each feature of a snapshot is spread, beside the snapshot before; `region` is where you read from.

        Raises:
            SnapshotNotFound, NotReady, ReplicaUnavailable
        """
        return self._transport.get(f"{_snapshot_path(snapshot)}/report", region=region)


def _path(name: str) -> str:
    return f"/api/v1/features/expectations/{quote(parse_name(name, what='set of expectations'), safe='')}"


def _snapshot_path(reference: str) -> str:
    return f"/api/v1/features/snapshots/{quote(reference, safe=':')}"
