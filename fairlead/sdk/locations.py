"""Locations: adding them, what that costs, how they are opened, and giving them up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.artifacts import READY_TIMEOUT_SECONDS, wait_until
from fairlead.sdk.records import Location, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import JsonObject, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSource(Record):
    """What comes from one location, the cheapest that has it. `usd` is decimal text."""

    location: str
    region: str
    artifacts: int
    bytes: int
    usd: str
    seconds: float
    is_estimate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill(Record):
    """What a location lacks, and what bringing it there moves, costs and takes at most. `usd` is decimal text.

    `waiting` artifacts are VERIFIED nowhere yet. The sources send at the same time.
    """

    location: Location
    wanted: int
    verified: int
    waiting: int
    bytes: int
    usd: str
    seconds: float
    is_estimate: bool = False
    sources: tuple[BackfillSource, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReplica(Record):
    """An artifact that no other location holds, and where it is to be copied first."""

    artifact: str
    kind: str
    residency: str
    size_bytes: int
    copied_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionUser(Record):
    """What reads from a location, and leaves by itself for `goes_on_in`, or else after `command` was typed."""

    name: str
    goes_on_in: tuple[str, ...] = ()
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement(Record):
    """What retiring a location takes away, and what still needs it. `last_replicas` lists at most 100."""

    location: Location
    replicas: int
    stored_bytes: int
    last_replica_count: int
    open_uploads: int
    last_replicas: tuple[LastReplica, ...] = ()
    used_by: tuple[RegionUser, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(Record):
    """A location that was given up for lost. `artifacts` names at most 100 of those that no other location holds."""

    location: Location
    has_region: bool
    reason: str
    lost_by: str
    lost_at: datetime
    artifact_count: int
    artifacts: tuple[str, ...] = ()


class Locations:
    """Buckets and prefixes, each in a region."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(
        self,
        name: str,
        region: str,
        url: str,
        *,
        options: Mapping[str, JsonValue] | None = None,
        kind: str = "storage",
        settings: Mapping[str, JsonValue] | None = None,
    ) -> Location:
        """Add a location; what residency, regions and policies permit is replicated to it.

        `url` is a folder, `s3://bucket/prefix`, `gs://bucket/prefix` or `abfs://container/prefix`; of a cache it is the
        address that it is reached at. `options` go to the filesystem as they are, `settings` are those of
        docs/reference/locations.md; neither holds a secret: credentials come from the environment of each process.

        Raises:
            UnknownRegion, AlreadyExists, LocationUnavailable, PermissionDenied.
        """
        return Location.from_json(
            self._transport.post(
                "/api/v1/locations", _request(name, region, url, options=options, kind=kind, settings=settings)
            )
        )

    def plan(
        self,
        name: str,
        region: str,
        url: str,
        *,
        options: Mapping[str, JsonValue] | None = None,
        kind: str = "storage",
        settings: Mapping[str, JsonValue] | None = None,
    ) -> Backfill:
        """What adding a location would bring there, and what that would cost; nothing is kept.

        Raises:
            UnknownRegion, AlreadyExists, InvalidInput.
        """
        body = _request(name, region, url, options=options, kind=kind, settings=settings)
        return Backfill.from_json(self._transport.post("/api/v1/locations/backfill-plan", body))

    def list(self) -> Iterator[Location]:
        """All locations by name."""
        return map(Location.from_json, self._transport.items("/api/v1/locations"))

    def get(self, name: str) -> Location:
        """One location.

        Raises:
            LocationNotFound: if there is none of that name.
        """
        return Location.from_json(self._transport.get(_path(name)))

    def backfill(self, name: str) -> Backfill:
        """What a location still lacks, and what bringing it there costs.

        Raises:
            LocationNotFound: if there is none of that name.
        """
        return Backfill.from_json(self._transport.get(f"{_path(name)}/backfill"))

    def set(self, name: str, settings: Mapping[str, JsonValue]) -> Location:
        """Change settings, after the location was tried out with them; None takes one back.

        Raises:
            LocationNotFound, InvalidInput, LocationUnavailable, PermissionDenied.
        """
        return Location.from_json(self._transport.request("PATCH", _path(name), body={"settings": dict(settings)}))

    def retirement(self, name: str) -> Retirement:
        """What retiring a location would take away, or what its retirement still waits for.

        Raises:
            LocationNotFound: if there is none of that name.
        """
        return Retirement.from_json(self._transport.get(f"{_path(name)}/retirement"))

    def retire(self, name: str) -> Retirement:
        """Begin to drain a location: what only it holds is copied elsewhere, then its objects are taken away.

        Raises:
            LocationNotFound: if there is none of that name.
            LocationInUse: if it holds the last replica of something that may be nowhere else.
        """
        return Retirement.from_json(self._transport.post(f"{_path(name)}/retirement", {}))

    def give_up(self, name: str, *, reason: str, has_region: bool = False) -> Loss:
        """Say that a location will never come back: nothing is read from it, and no erasure waits for it.

        With `has_region`, all else in its region is lost too: online stores, and logs of pushed rows. Certificates of
        erasures quote `reason`.

        Raises:
            LocationNotFound: if there is none of that name.
            InvalidInput: if it is a cache, or there is no reason.
        """
        body: JsonObject = {"reason": reason, "has_region": has_region}
        return Loss.from_json(self._transport.post(f"{_path(name)}/loss", body))

    def wait(self, name: str, state: str, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> Location:
        """Wait until a location is ACTIVE, or RETIRED.

        Raises:
            LocationNotFound: if there is none of that name.
            TimeoutError: if it is not by then.
        """
        wait_until(lambda: self.get(name).state == state, f"{name} to be {state}", timeout_seconds)
        return self.get(name)

    def keep(self, name: str) -> Location:
        """Take back a retirement that is not over.

        Raises:
            LocationNotFound: if there is none of that name.
            Conflict: if it is RETIRED already.
        """
        return Location.from_json(self._transport.request("DELETE", f"{_path(name)}/retirement"))


def _path(name: str) -> str:
    return f"/api/v1/locations/{quote(parse_name(name, what='location'), safe='')}"


def _request(
    name: str,
    region: str,
    url: str,
    *,
    options: Mapping[str, JsonValue] | None,
    kind: str,
    settings: Mapping[str, JsonValue] | None,
) -> JsonObject:
    return {
        "name": parse_name(name, what="location"),
        "region": region,
        "url": url,
        "options": dict(options or {}),
        "kind": kind,
        "settings": dict(settings or {}),
    }
