"""Which regions may answer an online read, from the nearest to the furthest.

A region is asked only where the read stays inside every residency class of the snapshot that it serves: what the
caller's region may not have, is not read where it is; and the keys of a caller inside a class are not sent to a region
outside. A caller who does not say where he is gets no route to data under a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED, Catalog, Residency, permits
from fairlead.core.db import Database
from fairlead.core.errors import ResidencyViolation
from fairlead.core.ports import Clock
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.feature_servers import FeatureServer, servers_by_region
from fairlead.featurestore.online_engines import NEWEST
from fairlead.featurestore.tables import OnlineStateRow, SnapshotPartRow, SnapshotRow
from fairlead.featurestore.tables_online import OnlineSlotRow
from fairlead.registry.identity import Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRoute:
    """One region that may answer, its servers' addresses, and what it serves as far as the record knows.

    `round_trip_ms` is from the caller's region; None where that is not said.
    """

    region: str
    urls: tuple[str, ...]
    round_trip_ms: float | None
    snapshot: str
    as_of: datetime
    age_seconds: float
    missing_views: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A region that serves the service, and why it may not answer this caller."""

    region: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRoutes:
    """Where a service may be read, nearest first, and where not."""

    service: str
    routes: tuple[OnlineRoute, ...]
    left_out: tuple[LeftOut, ...]


class OnlineRouting:
    """Finds the regions that may answer."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog

    def find(self, caller: Caller, service: str, *, near: str | None = None, slot: str = NEWEST) -> OnlineRoutes:
        """The regions that serve a service (in a slot), nearest to the region `near` first.

        Raises:
            FeatureServiceNotFound, UnknownRegion: if there is none.
            ResidencyViolation: if data under a class is served and `near` is not said.
        """
        origin = None if near is None else self._catalog.region(near).id
        now = self._clock.now()
        with self._database.read() as session:
            find_pinned_service(session, caller.workspace_id, service)
            states = _serving(session, caller.workspace_id, service, slot)
            snapshots = _snapshots(session, caller.workspace_id, {state.served_snapshot or "" for state in states})
            servers = servers_by_region(session, caller.workspace_id, now)
            routes: list[OnlineRoute] = []
            left_out: list[LeftOut] = []
            for state in states:
                as_of, classes = snapshots[state.served_snapshot or ""]
                reason = self._forbids(classes, origin, state.region, service)
                if reason is not None:
                    left_out.append(LeftOut(region=state.region, reason=reason))
                    continue
                routes.append(self._route(state, as_of, servers.get(state.region, []), origin, now))
        return OnlineRoutes(
            service=service,
            routes=tuple(sorted(routes, key=lambda each: (each.round_trip_ms or 0.0, each.region))),
            left_out=tuple(left_out),
        )

    def _route(
        self,
        state: OnlineStateRow | OnlineSlotRow,
        as_of: datetime,
        servers: Sequence[FeatureServer],
        origin: str | None,
        now: datetime,
    ) -> OnlineRoute:
        distance = None if origin is None else self._catalog.round_trip(origin, state.region).value
        return OnlineRoute(
            region=state.region,
            urls=tuple(server.url for server in servers),
            round_trip_ms=distance,
            snapshot=state.served_snapshot or "",
            as_of=as_of,
            age_seconds=max(0.0, (now - as_of).total_seconds()),
            missing_views=tuple(state.missing_views),
        )

    def _forbids(self, classes: Sequence[str], origin: str | None, region: str, service: str) -> str | None:
        for name in classes:
            residency = Residency(name)
            if origin is None:
                raise ResidencyViolation(
                    f"The service {service!r} has data under the residency class {name!r}, and the request does not "
                    "say where it comes from.",
                    hint="Say it: --near REGION, or FAIRLEAD_REGION.",
                    residency=name,
                )
            is_origin_inside = permits(residency, self._catalog.region(origin).jurisdiction)
            is_region_inside = permits(residency, self._catalog.region(region).jurisdiction)
            if is_region_inside and not is_origin_inside:
                return f"it has data under {name!r}, which may not go to {origin}"
            if is_origin_inside and not is_region_inside:
                return f"it is outside {name!r}, and keys of {origin} may be under that class"
        return None


def _serving(session: Session, workspace_id: str, service: str, slot: str) -> list[OnlineStateRow | OnlineSlotRow]:
    """The regions that serve a service, or keep a snapshot of it; by name."""
    query = select(OnlineStateRow).where(
        OnlineStateRow.workspace_id == workspace_id,
        OnlineStateRow.service == service,
        OnlineStateRow.served_snapshot.is_not(None),
    )
    if slot == NEWEST:
        return list(session.scalars(query.order_by(OnlineStateRow.region)))
    kept = select(OnlineSlotRow).where(
        OnlineSlotRow.workspace_id == workspace_id,
        OnlineSlotRow.service == service,
        OnlineSlotRow.slot == slot,
        OnlineSlotRow.served_snapshot.is_not(None),
    )
    served = session.scalars(query.where(OnlineStateRow.served_snapshot == slot))
    found: dict[str, OnlineStateRow | OnlineSlotRow] = {row.region: row for row in served}
    found |= {row.region: row for row in session.scalars(kept)}
    return [found[region] for region in sorted(found)]


def _snapshots(session: Session, workspace_id: str, digests: set[str]) -> Mapping[str, tuple[datetime, Sequence[str]]]:
    """The time of each snapshot, and the residency classes of its parts but the unrestricted one."""
    query = (
        select(SnapshotRow.digest, SnapshotRow.as_of, SnapshotPartRow.residency)
        .join(
            SnapshotPartRow,
            (SnapshotPartRow.workspace_id == SnapshotRow.workspace_id)
            & (SnapshotPartRow.snapshot_id == SnapshotRow.id),
        )
        .where(SnapshotRow.workspace_id == workspace_id, SnapshotRow.digest.in_(digests))
    )
    found: dict[str, tuple[datetime, set[str]]] = {}
    for digest, as_of, residency in session.execute(query):
        if digest is not None:
            found.setdefault(digest, (as_of, set()))[1].add(residency)
    return {digest: (as_of, sorted(classes - {UNRESTRICTED})) for digest, (as_of, classes) in found.items()}
