"""Backfills: what bringing everything that should be at a location there moves, costs and takes, before it is begun."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import Select, and_, select
from sqlalchemy.orm import Session

from fairlead.core.errors import JsonValue
from fairlead.registry.locations import Location, Locations, all_locations, find_location, to_location
from fairlead.registry.tables import ArtifactRow, ReplicaRow
from fairlead.sync.hops import HopPrice, HopPrices, Missing, Stop, usd

if TYPE_CHECKING:
    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.identity import Caller

PACK_BYTES = 32 * 2**20
"""What a pack is taken to weigh where nobody has counted an artifact's packs."""

Derive = Callable[[Session, datetime], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSource:
    """What comes from one location, the cheapest that has it. Seconds are those of one copy after the other."""

    location: str
    region: str
    artifacts: int
    bytes: int
    usd: Decimal
    seconds: float
    is_estimate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """What a location lacks, and what bringing it there moves, costs and takes.

    Sources send at the same time, so `seconds` is that of the slowest. `waiting` are artifacts that are VERIFIED
    nowhere yet. Blocks that the location holds already do not move; manifests and layouts, some hundred bytes, do.
    """

    location: Location
    wanted: int
    verified: int
    waiting: int
    bytes: int
    usd: Decimal
    seconds: float
    is_estimate: bool
    sources: tuple[BackfillSource, ...]


class Backfills:
    """Plans backfills. `derive` are the derivers that say which replicas should be."""

    def __init__(
        self, database: Database, clock: Clock, *, catalog: Catalog, locations: Locations, derive: Sequence[Derive]
    ) -> None:
        self._database = database
        self._clock = clock
        self._prices = HopPrices(catalog)
        self._locations = locations
        self._derive = tuple(derive)

    def plan(self, caller: Caller, name: str) -> Backfill:
        """What a location still lacks.

        Raises:
            LocationNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            location = find_location(session, caller.workspace_id, name)
            return self._price(session, caller.workspace_id, location)

    def plan_new(
        self,
        caller: Caller,
        *,
        name: str,
        region: str,
        url: str,
        options: Mapping[str, JsonValue] | None = None,
        kind: str = "storage",
        settings: Mapping[str, JsonValue] | None = None,
    ) -> Backfill:
        """What a location would lack if it were added: it is, with all that follows from that, and none of it is kept.

        Raises:
            UnknownRegion, InvalidInput, AlreadyExists: as adding it does.
        """
        row = self._locations.draft(
            caller, name=name, region=region, url=url, options=options, kind=kind, settings=settings
        )
        found: list[Backfill] = []
        with contextlib.suppress(_Undo), self._database.write() as session:
            self._locations.check_new(session, row)
            session.add(row)
            session.flush()
            for derive in self._derive:
                derive(session, self._clock.now())
            session.flush()
            found.append(self._price(session, caller.workspace_id, to_location(row)))
            raise _Undo
        return found[0]

    def _price(self, session: Session, workspace_id: str, location: Location) -> Backfill:
        places = {each.id: _stop(each) for each in all_locations(session, workspace_id) if each.state != "RETIRED"}
        wanted = session.execute(_wanted_at(workspace_id, location.id)).all()
        hops: dict[str, list[tuple[int, HopPrice]]] = defaultdict(list)
        waiting = verified = 0
        offers = _offers(session, workspace_id, location.id)
        for replica, artifact in wanted:
            if replica.state == "VERIFIED":
                verified += 1
                continue
            sources = [
                (places[source], size)
                for source, size in offers.get((artifact.residency, artifact.digest), ())
                if source in places
            ]
            if not sources:
                waiting += 1
                continue
            size, price, source = min(
                ((size, self._hop(source, location, size), source) for source, size in sources),
                key=lambda offer: (offer[1].picodollars, offer[1].seconds, offer[2].name),
            )
            hops[source.id].append((size, price))
        parts = tuple(sorted((_sum(places[source], of) for source, of in hops.items()), key=lambda part: part.location))
        return Backfill(
            location=location,
            wanted=len(wanted),
            verified=verified,
            waiting=waiting,
            bytes=sum(part.bytes for part in parts),
            usd=sum((part.usd for part in parts), Decimal(0)),
            seconds=max((part.seconds for part in parts), default=0.0),
            is_estimate=any(part.is_estimate for part in parts),
            sources=parts,
        )

    def _hop(self, source: Stop, location: Location, size: int) -> HopPrice:
        packs = -(-size // PACK_BYTES)
        return self._prices.price(source, _stop(location), Missing(bytes=size, packs=packs))


class _Undo(Exception):
    pass


def _wanted_at(workspace_id: str, location_id: str) -> Select[ReplicaRow, ArtifactRow]:
    return (
        select(ReplicaRow, ArtifactRow)
        .join(
            ArtifactRow,
            and_(
                ArtifactRow.workspace_id == ReplicaRow.workspace_id,
                ArtifactRow.residency == ReplicaRow.residency,
                ArtifactRow.digest == ReplicaRow.artifact_digest,
            ),
        )
        .where(ReplicaRow.workspace_id == workspace_id, ReplicaRow.location_id == location_id, ReplicaRow.is_wanted)
    )


def _offers(
    session: Session, workspace_id: str, location_id: str
) -> Mapping[tuple[str, str], Sequence[tuple[str, int]]]:
    """Who has each artifact VERIFIED, and how many bytes it is stored in there."""
    query = (
        select(ReplicaRow, ArtifactRow.size_bytes)
        .join(
            ArtifactRow,
            and_(
                ArtifactRow.workspace_id == ReplicaRow.workspace_id,
                ArtifactRow.residency == ReplicaRow.residency,
                ArtifactRow.digest == ReplicaRow.artifact_digest,
            ),
        )
        .where(
            ReplicaRow.workspace_id == workspace_id,
            ReplicaRow.location_id != location_id,
            ReplicaRow.state == "VERIFIED",
        )
    )
    found: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for replica, size in session.execute(query):
        stored = replica.stored_bytes if replica.stored_bytes is not None else size
        found[replica.residency, replica.artifact_digest].append((replica.location_id, stored))
    return found


def _stop(location: Location) -> Stop:
    return Stop(
        id=location.id,
        name=location.name,
        region=location.region,
        jurisdiction=location.jurisdiction,
        bytes_per_second=location.settings.get("rate_limit_bytes_per_second"),
    )


def _sum(source: Stop, hops: Iterable[tuple[int, HopPrice]]) -> BackfillSource:
    found = list(hops)
    return BackfillSource(
        location=source.name,
        region=source.region,
        artifacts=len(found),
        bytes=sum(size for size, _ in found),
        usd=usd(sum(price.picodollars for _, price in found)),
        seconds=sum(price.seconds for _, price in found),
        is_estimate=any(price.is_estimate for _, price in found),
    )
