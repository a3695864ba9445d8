"""Online stores: for each region and service, the snapshot that is served there, kept true by work.

A service is wanted online as soon as a model version pins it or somebody asks for it, and then wherever its data may
be: each region materializes the newest READY snapshot (or the one that was asked for) from its own verified replicas.
A view whose residency class keeps it out of a region is left out there, and the region's state and every answer say so.
What is served is what the file itself says; a file that is lost, or that an older worker put in place of a newer one,
is made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.errors import ExpectationFailed, InvalidInput, NotReady, ReplicaUnavailable, SnapshotNotOnline
from fairlead.core.ids import parse_digest
from fairlead.core.ports import Clock
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.freshness import ViewFreshness, freshness_of
from fairlead.featurestore.online_choice import OnlineEngines
from fairlead.featurestore.online_desired import MATERIALIZE, derive_online_states, online_subject
from fairlead.featurestore.online_engines import NEWEST, OnlineStoreReader, StoreName
from fairlead.featurestore.online_reader import OnlineStoreError
from fairlead.featurestore.releases import is_releasable
from fairlead.featurestore.snapshots import find_snapshot, newest_snapshot
from fairlead.featurestore.tables import OnlineIntentRow, OnlineStateRow
from fairlead.featurestore.tables_online import LEAVING, OnlineSlotRow
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.tables import WorkRow

OnlineStateName = Literal["WAITING", "PENDING", "READY", "FAILED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSnapshot:
    """A snapshot that a region keeps beside what it serves, for those who hold or held an environment."""

    snapshot: str
    state: str
    rows: int | None
    materialized_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineState:
    """What a region serves of a service, and what it should.

    `missing_views` may not be in the region at all. Unless `is_atomic`, its `engine` shows rows of two snapshots while
    one takes the place of the other. `views` says how fresh it is, `kept` what else is there.
    """

    service: str
    region: str
    state: OnlineStateName
    wanted_snapshot: str
    snapshot: str | None
    rows: int | None
    missing_views: tuple[str, ...]
    engine: str | None
    is_atomic: bool | None
    materialized_at: datetime | None
    views: tuple[ViewFreshness, ...]
    kept: tuple[KeptSnapshot, ...]
    error_code: str | None
    error_detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineAnswer:
    """Rows from one region's store, and the snapshot they are from."""

    region: str
    snapshot: str
    rows: list[dict[str, Any]]


class OnlineStores:
    """Asks for materialization, shows each region's state, and reads features online.

    Args:
        database: the record.
        clock: the time, which TTLs are measured against.
        catalog: the regions.
        engines: the online stores that this machine reaches.
        home_region: the region whose store is read where a request names none; None: any that serves, by name.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        engines: OnlineEngines,
        home_region: str | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._engines = engines
        self._home_region = home_region
        self._readers: dict[StoreName, OnlineStoreReader] = {}

    def materialize(
        self, caller: Caller, service: str, *, snapshot: str | None = None, regions: Sequence[str] | None = None
    ) -> list[OnlineState]:
        """Want a service online: the newest snapshot from now on, or one; wherever its data may be, or in some regions.

        What regions serve that are no longer among them, goes.

        Raises:
            FeatureServiceNotFound, SnapshotNotFound: if there is none.
            NotReady: if the snapshot is not READY, or there is none.
            ExpectationFailed: if it is not as expected.
            UnknownRegion: if a region is not in the catalog.
            InvalidInput: if the snapshot is of another service, or `regions` is empty.
        """
        wanted = None if regions is None else sorted({self._catalog.region(region).id for region in regions})
        if wanted == []:
            raise InvalidInput("No region is named.", hint="Leave `regions` out for every region.")
        now = self._clock.now()
        with self._database.write() as session:
            find_pinned_service(session, caller.workspace_id, service)
            digest = _check_snapshot(session, caller, service, snapshot)
            row = session.get(OnlineIntentRow, (caller.workspace_id, service), with_for_update=True)
            if row is None:
                row = OnlineIntentRow(workspace_id=caller.workspace_id, service=service)
                session.add(row)
            row.snapshot_digest, row.regions = digest, None if wanted is None else [*wanted]
            row.asked_by, row.asked_at = caller.principal, now
            session.flush()
            audit.record(
                session,
                caller,
                self._clock,
                action="online.materialize",
                subject=service,
                facts={"snapshot": digest, "regions": None if wanted is None else list(wanted)},
            )
            derive_online_states(session, now)
            return _states(session, caller.workspace_id, service)

    def states(self, caller: Caller, service: str) -> list[OnlineState]:
        """What each region serves of a service, by region.

        Raises:
            FeatureServiceNotFound: if there is no such service.
        """
        with self._database.read() as session:
            find_pinned_service(session, caller.workspace_id, service)
            return _states(session, caller.workspace_id, service)

    def address(self, caller: Caller, service: str, region: str) -> str | None:
        """Where this machine keeps a region's store of a service; the file may not be there. None: in no file."""
        place = self._catalog.region(region).id
        name = StoreName(workspace_id=caller.workspace_id, service=service, region=place)
        return self._engines.of(place).address(name)

    def reader(self, name: StoreName) -> OnlineStoreReader:
        """The reader of a store, which is shared and stays open; the store need not be there."""
        found = self._readers.get(name)
        return found or self._readers.setdefault(name, self._engines.of(name.region).reader(name))

    def read(
        self, caller: Caller, service: str, entities: Mapping[str, Sequence[Any]], *, region: str | None = None
    ) -> OnlineAnswer:
        """Features of entities from one region's store (see `online_reader` for the rows' form).

        `SERVICE@DIGEST` reads that snapshot where a region keeps it or serves it, and no other.

        Raises:
            FeatureServiceNotFound, UnknownRegion: if there is none.
            NotReady: if no region, or not the one that was named, serves the service.
            SnapshotNotOnline: if none of them has the snapshot that was named.
            ReplicaUnavailable: if that region's store is not on this machine.
            InvalidInput: if a join key is missing or of the wrong type.
        """
        service, _, snapshot = service.partition("@")
        slot = parse_digest(snapshot) if snapshot else NEWEST
        wanted = None if region is None else self._catalog.region(region).id
        serving = _serving(self.states(caller, service), slot)
        chosen = _choose(list(serving), wanted or self._home_region)
        if chosen is None or (wanted is not None and chosen != wanted):
            of = f"the snapshot {slot} of {service!r}" if slot else f"the service {service!r}"
            kind = SnapshotNotOnline if slot else NotReady
            raise kind(
                f"There is no store of {of} online in {wanted or 'any region'} yet.",
                hint=f"Ask for it: fairlead features materialize {service}" + (f" --snapshot {slot}" if slot else ""),
                service=service,
                region=wanted,
            )
        name = StoreName(workspace_id=caller.workspace_id, service=service, region=chosen, slot=serving[chosen])
        try:
            found, rows = self.reader(name).read(entities, now=self._clock.now())
        except FileNotFoundError:
            raise ReplicaUnavailable(
                f"The online store of {service!r} in {chosen} is not on this machine.",
                hint=f"Ask a server in {chosen}; a store that was lost there is made again by itself.",
                region=chosen,
            ) from None
        except OnlineStoreError as error:
            raise InvalidInput(str(error), hint="Send each join key of the service's views.") from error
        if slot not in {NEWEST, found}:
            raise NotReady(f"{chosen} has moved on from the snapshot {slot} of {service!r}.", hint="Ask again.")
        return OnlineAnswer(region=chosen, snapshot=found, rows=rows)


def _serving(states: Sequence[OnlineState], slot: str) -> dict[str, str]:
    """The regions that have a store to read, and its slot."""
    if slot == NEWEST:
        return {state.region: NEWEST for state in states if state.snapshot is not None}
    found = {state.region: NEWEST for state in states if state.snapshot == slot}
    kept = {state.region for state in states for each in state.kept if each.snapshot == slot and each.materialized_at}
    return found | dict.fromkeys(kept, slot)


def _choose(serving: Sequence[str], region: str | None) -> str | None:
    return region if region in serving else next(iter(sorted(serving)), None)


def _check_snapshot(session: Session, caller: Caller, service: str, reference: str | None) -> str | None:
    """The digest to hold on to; None follows the newest, of which there must be one."""
    if reference is None:
        if newest_snapshot(session, caller.workspace_id, service) is None:
            raise NotReady(
                f"The service {service!r} has no snapshot that is READY and as expected.",
                hint=f"Take one: fairlead features snapshot {service}",
            )
        return None
    row = find_snapshot(session, caller.workspace_id, reference)
    if row.service != service:
        raise InvalidInput(
            f"The snapshot {reference} is of {row.service!r}, not of {service!r}.",
            hint=f"List them: fairlead features snapshots --service {service}",
        )
    if row.digest is None:
        raise NotReady(
            f"The snapshot {reference} is {row.state}.",
            hint=row.error_detail or "Its data is being written and read back; ask again soon.",
        )
    if not is_releasable(session, row):
        raise ExpectationFailed(
            f"The snapshot {reference} is not as expected, or was not checked yet.",
            hint=f"See what was found: fairlead features report {reference}",
            snapshot=row.digest,
        )
    return row.digest


def _states(session: Session, workspace_id: str, service: str) -> list[OnlineState]:
    query = select(OnlineStateRow).where(
        OnlineStateRow.workspace_id == workspace_id,
        OnlineStateRow.service == service,
        OnlineStateRow.state != LEAVING,
    )
    views, kept = freshness_of(session, workspace_id, service), _kept(session, workspace_id, service)
    return [
        _to_state(session, row, views.get(row.region, []), kept.get(row.region, []))
        for row in session.scalars(query.order_by(OnlineStateRow.region))
    ]


def _kept(session: Session, workspace_id: str, service: str) -> dict[str, list[KeptSnapshot]]:
    query = select(OnlineSlotRow).where(OnlineSlotRow.workspace_id == workspace_id, OnlineSlotRow.service == service)
    found: dict[str, list[KeptSnapshot]] = {}
    for row in session.scalars(query.order_by(OnlineSlotRow.region, OnlineSlotRow.slot)):
        found.setdefault(row.region, []).append(
            KeptSnapshot(snapshot=row.slot, state=row.state, rows=row.row_count, materialized_at=row.materialized_at)
        )
    return found


def _to_state(
    session: Session, row: OnlineStateRow, views: Sequence[ViewFreshness], kept: Sequence[KeptSnapshot]
) -> OnlineState:
    query = select(WorkRow).where(
        WorkRow.workspace_id == row.workspace_id,
        WorkRow.kind == MATERIALIZE,
        WorkRow.subject == online_subject(row.service, row.region),
    )
    work = session.scalars(query).one_or_none()
    error = None if work is None or row.state == "READY" else work.error_code
    state: OnlineStateName = "FAILED" if error else _STATES[row.state]
    return OnlineState(
        service=row.service,
        region=row.region,
        state=state,
        wanted_snapshot=row.wanted_snapshot,
        snapshot=row.served_snapshot,
        rows=row.row_count,
        missing_views=tuple(row.missing_views),
        engine=row.engine,
        is_atomic=row.is_atomic,
        materialized_at=row.materialized_at,
        views=tuple(views),
        kept=tuple(kept),
        error_code=error,
        error_detail=None if error is None or work is None else work.error_detail,
    )


_STATES: Mapping[str, OnlineStateName] = {"WAITING": "WAITING", "PENDING": "PENDING", "READY": "READY"}
