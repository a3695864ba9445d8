"""Backfills: what bringing everything that should be at a location there moves, costs and takes, before it is begun."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import Select, and_, select
from sqlalchemy.orm import Session

from fairlead.core.errors import JsonValue
from fairlead.registry.blocks import BlockShelf
from fairlead.registry.locations import Location, Locations, all_locations, find_location, to_location
from fairlead.registry.tables import ArtifactRow, ReplicaRow
from fairlead.sync.hops import HopPrice, HopPrices, Missing, Stop, usd
from fairlead.sync.missing import Contents, ContentsReader, VerifiedReplica, held_blocks, whole

if TYPE_CHECKING:
    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.identity import Caller
    from fairlead.registry.locations import StoreOpener

# Beyond so many artifacts the rest are priced by their whole size, so that an answer does not take minutes.
_LAYOUTS_READ = 512
_READS_AT_ONCE = 8

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
    nowhere yet. Blocks that the location holds already do not move, and what artifacts share moves once.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """An artifact that a shelf lacks, and where it comes from."""

    digest: str
    shelf: BlockShelf
    source: VerifiedReplica


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lacking:
    location: Location
    wanted: int
    verified: int
    waiting: int
    copies: tuple[_Copy, ...]


class Backfills:
    """Plans backfills. `derive` are the derivers that say which replicas should be."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        locations: Locations,
        derive: Sequence[Derive],
        open_store: StoreOpener,
    ) -> None:
        self._database = database
        self._clock = clock
        self._prices = HopPrices(catalog)
        self._locations = locations
        self._derive = tuple(derive)
        self._contents = ContentsReader(open_store)

    def plan(self, caller: Caller, name: str) -> Backfill:
        """What a location still lacks.

        Raises:
            LocationNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            lacking = self._look(session, caller.workspace_id, find_location(session, caller.workspace_id, name))
        contents = self._read_contents(lacking)
        with self._database.read() as session:
            held = {
                copy.digest: held_blocks(session, copy.shelf, each)
                for copy, each in zip(lacking.copies, contents, strict=True)
                if each is not None
            }
        return self._price(lacking, contents, held)

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
        found: list[_Lacking] = []
        with contextlib.suppress(_Undo), self._database.write() as session:
            self._locations.check_new(session, row)
            session.add(row)
            session.flush()
            for derive in self._derive:
                derive(session, self._clock.now())
            session.flush()
            found.append(self._look(session, caller.workspace_id, to_location(row)))
            raise _Undo
        (lacking,) = found
        return self._price(lacking, self._read_contents(lacking), {})

    def _look(self, session: Session, workspace_id: str, location: Location) -> _Lacking:
        """What is not VERIFIED at a location, and where each comes from at the least price, by its size alone."""
        places = {each.id: each for each in all_locations(session, workspace_id) if each.state != "RETIRED"}
        wanted = session.execute(_wanted_at(workspace_id, location.id)).all()
        copies: list[_Copy] = []
        waiting = verified = 0
        offers = _offers(session, workspace_id, location.id)
        for replica, artifact in wanted:
            if replica.state == "VERIFIED":
                verified += 1
                continue
            sources = [
                VerifiedReplica(location=places[source], layout_key=layout_key, stored_bytes=size)
                for source, layout_key, size in offers.get((artifact.residency, artifact.digest), ())
                if source in places
            ]
            if not sources:
                waiting += 1
                continue
            _, source = min(
                ((self._hop(_stop(each.location), location, whole(each.stored_bytes)), each) for each in sources),
                key=lambda offer: (offer[0].picodollars, offer[0].seconds, offer[1].location.name),
            )
            shelf = BlockShelf(
                workspace_id=workspace_id,
                residency=artifact.residency,
                location_id=location.id,
                key_id=artifact.key_id,
            )
            copies.append(_Copy(digest=artifact.digest, shelf=shelf, source=source))
        return _Lacking(location=location, wanted=len(wanted), verified=verified, waiting=waiting, copies=tuple(copies))

    def _read_contents(self, lacking: _Lacking) -> list[Contents | None]:
        """What the artifacts are made of, as far as their layouts are read."""

        def read(copy: _Copy) -> Contents | None:
            shelf = copy.shelf
            return self._contents.read(shelf.workspace_id, shelf.residency, copy.digest, [copy.source])

        read_in_full = lacking.copies[:_LAYOUTS_READ]
        with ThreadPoolExecutor(max_workers=_READS_AT_ONCE, thread_name_prefix="backfill") as pool:
            found = list(pool.map(read, read_in_full))
        return found + [None] * (len(lacking.copies) - len(found))

    def _price(
        self, lacking: _Lacking, contents: Sequence[Contents | None], held: Mapping[str, AbstractSet[str]]
    ) -> Backfill:
        hops: dict[str, list[tuple[int, HopPrice]]] = defaultdict(list)
        # What a copy before brought to a shelf is there for the next one.
        brought: dict[BlockShelf, set[str]] = defaultdict(set)
        for copy, each in zip(lacking.copies, contents, strict=True):
            missing = whole(copy.source.stored_bytes)
            if each is not None:
                missing = each.missing(held.get(copy.digest, set()) | brought[copy.shelf])
                brought[copy.shelf] |= each.stored_lengths.keys()
            source = copy.source.location
            hops[source.name].append((missing.bytes, self._hop(_stop(source), lacking.location, missing)))
        places = {copy.source.location.name: _stop(copy.source.location) for copy in lacking.copies}
        parts = tuple(sorted((_sum(places[name], of) for name, of in hops.items()), key=lambda part: part.location))
        return Backfill(
            location=lacking.location,
            wanted=lacking.wanted,
            verified=lacking.verified,
            waiting=lacking.waiting,
            bytes=sum(part.bytes for part in parts),
            usd=sum((part.usd for part in parts), Decimal(0)),
            seconds=max((part.seconds for part in parts), default=0.0),
            is_estimate=any(part.is_estimate for part in parts),
            sources=parts,
        )

    def _hop(self, source: Stop, location: Location, missing: Missing) -> HopPrice:
        return self._prices.price(source, _stop(location), missing)


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
) -> Mapping[tuple[str, str], Sequence[tuple[str, str, int]]]:
    """Who has each artifact VERIFIED, through which layout, and how many bytes it is stored in there."""
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
    found: dict[tuple[str, str], list[tuple[str, str, int]]] = defaultdict(list)
    for replica, size in session.execute(query):
        stored = replica.stored_bytes if replica.stored_bytes is not None else size
        found[replica.residency, replica.artifact_digest].append(
            (replica.location_id, replica.layout_key or "", stored)
        )
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
