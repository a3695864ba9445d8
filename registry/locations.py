"""Locations: buckets and prefixes, each in a region of the catalog, and so under one jurisdiction.

A location is tried out (an object written, read back and deleted) before it is kept, and it keeps no secret: whoever
opens it brings credentials of their own from the environment. Its region and URL never change, because what was allowed
to be copied there depends on them; its settings do.

A *storage* location holds replicas. It is WARMING until it holds what it should, and ACTIVE from then on: only an
ACTIVE one is chosen for uploads, deployments and feature stores. One that is being retired is DRAINING, and then
RETIRED. A *cache* holds copies of what was asked of it, and no replica.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, cast, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog, Residency, permits
from fairlead.core.cloud_hosts import CloudHosts
from fairlead.core.db import Database, is_dry_run
from fairlead.core.errors import AlreadyExists, InvalidInput, JsonValue, LocationNotFound, LocationUnavailable
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock, ObjectStore
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_json
from fairlead.registry.location_addresses import overlaps, parse_cache_url, parse_options, parse_url
from fairlead.registry.location_returns import take_back
from fairlead.registry.location_settings import STORE_SETTINGS, client_settings, parse_settings
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import ArtifactRow, LocationRow, ReplicaRow
from fairlead.registry.tables_bytes import BlockRow, GarbageRow

StoreOpener = Callable[[str, Mapping[str, object]], ObjectStore]
"""Opens the object store at a URL with options; `fairlead.sync.store.objects.open_store` is the one of the product."""

LocationKind = Literal["storage", "cache"]
LocationState = Literal["WARMING", "ACTIVE", "DRAINING", "RETIRED"]
FILLED_STATES = ("WARMING", "ACTIVE")
"""The states of a storage location in which replicas are brought there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A bucket and prefix in a region."""

    id: str
    name: str
    region: str
    jurisdiction: str
    url: str
    options: Mapping[str, Any]
    kind: LocationKind = "storage"
    state: LocationState = "ACTIVE"
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    created_at: datetime

    @property
    def is_filled(self) -> bool:
        """Whether replicas are brought here."""
        return self.kind == "storage" and self.state in FILLED_STATES

    @property
    def takes_traffic(self) -> bool:
        """Whether uploads, deployments and feature stores may choose it."""
        return self.kind == "storage" and self.state == "ACTIVE"

    @property
    def store_options(self) -> dict[str, object]:
        """What a process of ours opens the store with."""
        return {**self.options, **{name: self.settings[name] for name in STORE_SETTINGS if name in self.settings}}

    @property
    def client_options(self) -> dict[str, object]:
        """What a client opens the store with, beside an identity of its own."""
        return {**self.options, **client_settings(self.settings)}

    @property
    def client_access(self) -> str:
        """How clients reach it: `direct`, or `signed`."""
        return str(self.settings.get("client_access", "direct"))

    def permits(self, residency: str, regions: list[str] | None) -> bool:
        """Whether data of a residency class, wanted in these regions (None: in all), may and should be here."""
        return permits(Residency(residency), self.jurisdiction) and (regions is None or self.region in regions)


class Locations:
    """Adds and lists locations."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        open_store: StoreOpener,
        cloud_hosts: CloudHosts | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._open_store = open_store
        self._cloud_hosts = cloud_hosts or CloudHosts()

    def add(
        self,
        caller: Caller,
        *,
        name: str,
        region: str,
        url: str,
        options: Mapping[str, JsonValue] | None = None,
        kind: str = "storage",
        settings: Mapping[str, JsonValue] | None = None,
        key: IdempotencyKey | None = None,
    ) -> Location:
        """Try a location out and keep it. Everything that may and should be there is copied to it from now on.

        A folder that does not exist is made, this once: later its absence means that a disk is away. A storage location
        is WARMING where there is something to bring to it (see `derive_location_states`), or to take out of it since
        one that was lost has come back, and else ACTIVE at once.

        Raises:
            UnknownRegion: if the catalog has no such region.
            InvalidInput: if the URL, options or settings are not valid, hold a secret, overlap another location's, or
                would send the server's credentials where its operator has not said that they may go.
            AlreadyExists: if the name is taken.
            LocationUnavailable, PermissionDenied, StorageFull: if it cannot be written, read or deleted from.
        """
        row = self.draft(caller, name=name, region=region, url=url, options=options, kind=kind, settings=settings)
        if key is None:
            # Only to spare an impossible location the trial; a repeated call finds its first answer below.
            with self._database.read() as session:
                _check_is_new(session, row)
        if row.kind == "storage" and not is_dry_run():
            # The trial writes, and may make a folder.
            self._try_out(to_location(row))
        with self._database.write() as session:
            return run_once(
                session,
                caller,
                self._clock,
                key,
                result_type=Location,
                action=lambda: self._keep(session, caller, row),
            )

    def draft(
        self,
        caller: Caller,
        *,
        name: str,
        region: str,
        url: str,
        options: Mapping[str, JsonValue] | None = None,
        kind: str = "storage",
        settings: Mapping[str, JsonValue] | None = None,
    ) -> LocationRow:
        """The row that a location would have, checked by itself and not yet against the others.

        Raises:
            UnknownRegion, InvalidInput: as `add` says.
        """
        found = self._catalog.within(caller.workspace_id).region(region)
        checked_kind = parse_kind(kind)
        checked_url = parse_url(url) if checked_kind == "storage" else parse_cache_url(url)
        row = LocationRow(
            workspace_id=caller.workspace_id,
            name=parse_name(name, what="location"),
            region=found.id,
            jurisdiction=found.jurisdiction,
            url=checked_url,
            options=parse_options(options or {}),
            kind=checked_kind,
            state="ACTIVE",
            settings=parse_settings(
                parse_json(settings or {}, what="settings of a location"),
                scheme=checked_url.partition(":")[0],
                kind=checked_kind,
            ),
            created_at=self._clock.now(),
        )
        self._check_hosts(to_location(row))
        return row

    def check_new(self, session: Session, row: LocationRow) -> None:
        """Refuse a draft whose name or place another location has.

        Raises:
            AlreadyExists, InvalidInput: as `add` says.
        """
        _check_is_new(session, row, frees_name=True)

    def list(self, caller: Caller, page: PageRequest) -> Page[Location]:
        """The workspace's locations, by name."""
        query = select(LocationRow).where(LocationRow.workspace_id == caller.workspace_id)
        listing = ("locations", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [LocationRow.name], listing=listing).map(to_location)

    def set(
        self,
        caller: Caller,
        name: str,
        settings: Mapping[str, JsonValue],
        *,
        key: IdempotencyKey | None = None,
    ) -> Location:
        """Change some of a location's settings, after it was tried out with them; null takes one back.

        Raises:
            LocationNotFound: if the workspace has none of this name.
            InvalidInput: if a setting does not exist or does not fit.
            LocationUnavailable, PermissionDenied, StorageFull: if it cannot be used with the new settings.
        """
        changes = parse_json(settings, what="settings of a location")
        with self._database.read() as session:
            present = find_location(session, caller.workspace_id, name)
        changed = _changed(present, changes)
        self._check_hosts(changed)
        is_opened_otherwise = changed.kind == "storage" and changed.store_options != present.store_options
        if is_opened_otherwise and not is_dry_run():
            self._try_out(changed)

        def apply(session: Session) -> Location:
            row = lock_location(session, caller.workspace_id, name)
            row.settings = dict(_changed(to_location(row), changes).settings)
            facts: dict[str, JsonValue] = {"region": row.region, "settings": cast("JsonValue", row.settings)}
            audit.record(session, caller, self._clock, action="location.set", subject=row.name, facts=facts)
            return to_location(row)

        with self._database.write() as session:
            return run_once(session, caller, self._clock, key, result_type=Location, action=lambda: apply(session))

    def get(self, caller: Caller, name: str) -> Location:
        """One location.

        Raises:
            LocationNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            return find_location(session, caller.workspace_id, name)

    def _keep(self, session: Session, caller: Caller, row: LocationRow) -> Location:
        _check_is_new(session, row, frees_name=True)
        session.add(row)
        session.flush()
        if row.kind == "storage":
            is_to_be_cleared = take_back(session, row)
            if is_to_be_cleared or _has_artifacts_for(session, row.workspace_id, to_location(row)):
                row.state = "WARMING"
        facts: dict[str, JsonValue] = {
            "id": row.id,
            "region": row.region,
            "jurisdiction": row.jurisdiction,
            "url": row.url,
            "kind": row.kind,
            "state": row.state,
            "settings": cast("JsonValue", row.settings),
        }
        audit.record(session, caller, self._clock, action="location.add", subject=row.name, facts=facts)
        return to_location(row)

    def _check_hosts(self, location: Location) -> None:
        if location.kind == "storage":
            self._cloud_hosts.check(location.url.partition("://")[0], location.store_options)

    def _try_out(self, location: Location) -> None:
        url, options = location.url, location.store_options
        is_folder = url.startswith("file:")
        store = self._open_store(url, {**options, "create": True} if is_folder else options)
        key, data = f"probes/{secrets.token_hex(16)}", secrets.token_bytes(64)
        store.write(key, data)
        try:
            if store.read(key) != data:
                raise LocationUnavailable(
                    f"{url} gave back other bytes than were written to it.", hint="Check what stands at this URL."
                )
        finally:
            store.delete(key)


def parse_kind(kind: str) -> LocationKind:
    """Check what a location is for.

    Raises:
        InvalidInput: if it is neither storage nor cache.
    """
    if kind not in get_args(LocationKind):
        raise InvalidInput(f"{kind[:40]!r} is no kind of location.", hint="Use storage or cache.")
    return cast("LocationKind", kind)


def _changed(location: Location, changes: Mapping[str, JsonValue]) -> Location:
    checked = parse_settings(
        {**location.settings, **changes}, scheme=location.url.partition(":")[0], kind=location.kind
    )
    return replace(location, settings=checked)


def _has_artifacts_for(session: Session, workspace_id: str, location: Location) -> bool:
    query = select(ArtifactRow).where(ArtifactRow.workspace_id == workspace_id)
    return any(location.permits(artifact.residency, artifact.regions) for artifact in session.scalars(query))


def _check_is_new(session: Session, row: LocationRow, *, frees_name: bool = False) -> None:
    others = session.scalars(select(LocationRow).where(LocationRow.workspace_id == row.workspace_id))
    for other in others.all():
        if _is_collected(session, other):
            # Its row stays, since the past refers to it; its name and URL may be given again.
            if other.name == row.name and frees_name:
                other.name = f"{other.name[:200]}~{other.id}"
                session.flush()
            continue
        if other.name == row.name:
            raise AlreadyExists(
                f"There is a location {row.name!r} already, in {other.region}.",
                hint="See: fairlead location list",
                location=row.name,
            )
        # One folder in two regions would put data where its residency does not let it be.
        if overlaps(row, other):
            raise InvalidInput(
                f"The URL overlaps that of the location {other.name!r}.",
                hint="Give each location a bucket and prefix of its own.",
                location=other.name,
            )


def _is_collected(session: Session, row: LocationRow) -> bool:
    """Whether a location is retired and nothing of it is left to take away."""
    if row.state != "RETIRED":
        return False
    for table in (ReplicaRow, BlockRow, GarbageRow):
        query = select(table.location_id).where(table.workspace_id == row.workspace_id, table.location_id == row.id)
        if table is GarbageRow:
            # What is deleted is remembered for a while.
            query = query.where(GarbageRow.state != "DELETED")
        if session.scalar(query.limit(1)) is not None:
            return False
    return True


def find_location(session: Session, workspace_id: str, name: str) -> Location:
    """A location by its name.

    Raises:
        LocationNotFound: if the workspace has none of this name.
    """
    query = select(LocationRow).where(LocationRow.workspace_id == workspace_id, LocationRow.name == name)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise _not_found(name)
    return to_location(row)


def get_location(session: Session, workspace_id: str, location_id: str) -> Location:
    """A location by its row's id.

    Raises:
        LocationNotFound: if it is gone.
    """
    row = session.get(LocationRow, (workspace_id, location_id))
    if row is None:
        raise LocationNotFound(f"There is no location {location_id}.", hint="See: fairlead location list")
    return to_location(row)


def all_locations(session: Session, workspace_id: str) -> list[Location]:
    """Every storage location of a workspace, whatever its state, by name."""
    query = select(LocationRow).where(LocationRow.workspace_id == workspace_id, LocationRow.kind == "storage")
    return [to_location(row) for row in session.scalars(query.order_by(LocationRow.name))]


def filled_locations(session: Session, workspace_id: str) -> list[Location]:
    """The locations that replicas are brought to, by name."""
    return [location for location in all_locations(session, workspace_id) if location.is_filled]


def traffic_locations(session: Session, workspace_id: str) -> list[Location]:
    """The locations that uploads, deployments and feature stores may choose, by name."""
    return [location for location in all_locations(session, workspace_id) if location.takes_traffic]


def lock_location(session: Session, workspace_id: str, name: str) -> LocationRow:
    """The row of a location, locked until the transaction ends.

    Raises:
        LocationNotFound: if the workspace has none of this name.
    """
    query = select(LocationRow).where(LocationRow.workspace_id == workspace_id, LocationRow.name == name)
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is None:
        raise _not_found(name)
    return row


def to_location(row: LocationRow) -> Location:
    """The record of a row."""
    return Location(
        id=row.id,
        name=row.name,
        region=row.region,
        jurisdiction=row.jurisdiction,
        url=row.url,
        options=row.options,
        kind=cast("LocationKind", row.kind),
        state=cast("LocationState", row.state),
        settings=row.settings,
        created_at=row.created_at,
    )


def _not_found(name: str) -> LocationNotFound:
    return LocationNotFound(f"There is no location {name[:80]!r}.", hint="See: fairlead location list")
