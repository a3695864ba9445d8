"""Replication plans: how an artifact should get to where it is wanted, worked out from the record as it stands.

The same plan is asked for by people (what would it cost, also to regions that have no location yet), by promotions
(what is still missing), and by `PlanSweep`, which writes each hop into the replica that it should bring. A location may
be a relay where residency and the artifact's own regions permit it and replicas are brought at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Residency
from fairlead.core.errors import ArtifactNotFound, FairleadError, InvalidInput, NotReady
from fairlead.core.ids import parse_digest, parse_model_reference
from fairlead.core.ports import PricedCopy
from fairlead.registry.blocks import BlockShelf
from fairlead.registry.locations import Location, all_locations
from fairlead.registry.tables import ArtifactRow, LedgerRow, ReplicaRow
from fairlead.sync.distribution import Distribution, DistributionRequest, plan_distribution
from fairlead.sync.hops import HopPrices, Missing, Stop
from fairlead.sync.missing import Contents, ContentsReader, VerifiedReplica, held_blocks, whole

if TYPE_CHECKING:
    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.registry.identity import Caller
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.versions import Versions

VERIFIED = "VERIFIED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationPlan:
    """A plan for one artifact. `is_what_if`: its destinations were named, and are not those that are wanted."""

    artifact: str
    residency: str
    is_what_if: bool
    distribution: Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class HopStatus:
    """One replica's hop as it was planned, and as it was made. Dollars are None where nothing was planned or paid."""

    location: str
    region: str
    state: str
    is_wanted: bool
    planned_source: str | None
    planned_bytes: int | None
    planned_usd: Decimal | None
    source: str | None
    moved_bytes: int | None
    actual_usd: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a plan looks at, read in one transaction. Replicas are by location id; sources are in order of name."""

    workspace_id: str
    residency: str
    digest: str
    key_id: str
    size_bytes: int
    locations: Mapping[str, Location]
    sources: tuple[VerifiedReplica, ...]
    lacking: tuple[str, ...]
    relays: tuple[str, ...]

    def shelf(self, location_id: str) -> BlockShelf:
        """Where a location keeps the artifact's blocks."""
        return BlockShelf(
            workspace_id=self.workspace_id, residency=self.residency, location_id=location_id, key_id=self.key_id
        )


class ReplicationPlans:
    """Makes plans, and shows what became of them."""

    def __init__(
        self, database: Database, *, catalog: Catalog, open_store: StoreOpener, versions: Versions | None = None
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._prices = HopPrices(catalog)
        self._versions = versions
        self.contents = ContentsReader(open_store)

    def plan(
        self,
        caller: Caller,
        of: str,
        *,
        regions: Sequence[str] | None = None,
        deadline_seconds: float | None = None,
    ) -> ReplicationPlan:
        """How an artifact, or the one of `churn/3` or `churn@production`, gets to where it is not VERIFIED yet.

        `regions` ask what it would take to bring it to these instead, also where no location is yet. Nothing is kept.

        Raises:
            InvalidInput, UnknownRegion: if the reference, the deadline or a region is not valid.
            ArtifactNotFound, ModelNotFound, ModelVersionNotFound, AliasNotFound: if there is no such thing.
            NotReady: if the version has no artifact yet.
            ReplicaUnavailable: if no replica is VERIFIED.
            ResidencyViolation: if a region may not hold it.
            DistributionInfeasible: if no way meets the deadline.
        """
        if deadline_seconds is not None and not 0 < deadline_seconds < 10**9:
            raise InvalidInput("A deadline is a number of seconds above 0.", hint="Write --deadline 10m.")
        digest = self._digest_of(caller, of)
        with self._database.read() as session:
            situation = look(session, find_artifact(session, caller.workspace_id, digest))
        destinations: list[Stop] | None = None
        if regions is not None:
            destinations = self._stops_in(situation, regions)
            situation = replace(situation, lacking=_ids_of(destinations, situation.locations))
        distribution = self.distribute(
            situation, self.read_contents(situation), destinations=destinations, deadline_seconds=deadline_seconds
        )
        return ReplicationPlan(
            artifact=situation.digest,
            residency=situation.residency,
            is_what_if=regions is not None,
            distribution=distribution,
        )

    def status(self, caller: Caller, of: str) -> list[HopStatus]:
        """Each replica's hop as planned and as made, by location.

        Raises:
            InvalidInput: if the reference is not valid.
            ArtifactNotFound, ModelNotFound, ModelVersionNotFound, AliasNotFound: if there is no such thing.
            NotReady: if the version has no artifact yet.
        """
        digest = self._digest_of(caller, of)
        with self._database.read() as session:
            artifact = find_artifact(session, caller.workspace_id, digest)
            locations = {each.id: each for each in all_locations(session, artifact.workspace_id)}
            paid = _paid_by_region(session, artifact)
            hops = [_to_status(row, locations, paid) for row in _replicas_of(session, artifact)]
        return sorted(hops, key=lambda hop: hop.location)

    def price_copies(
        self, workspace_id: str, residency: str, digest: str, regions: Sequence[str]
    ) -> Mapping[str, PricedCopy]:
        """What bringing an artifact to each of these regions would move and cost (the port of promotions).

        Asks no store, so where its layout was not read yet, the bytes are at most those.
        """
        with self._database.read() as session:
            artifact = session.get(ArtifactRow, (workspace_id, residency, digest))
            if artifact is None:
                return {}
            situation = look(session, artifact)
        if not situation.sources:
            return {}
        contents = next(filter(None, map(self.contents.recall, situation.sources)), None)
        held = {replica.location.region for replica in situation.sources}
        try:
            stops = self._stops_in(situation, [region for region in regions if region not in held])
            distribution = self.distribute(
                replace(situation, lacking=_ids_of(stops, situation.locations)), contents, destinations=stops
            )
        except FairleadError:
            # What cannot be planned has no price; that it is missing is said all the same.
            return {}
        return {
            hop.destination.region: PricedCopy(source_region=hop.source.region, bytes=hop.bytes, usd=hop.usd)
            for hop in distribution.tree.hops
        }

    def read_contents(self, situation: Situation) -> Contents | None:
        """What the artifact is made of; reads a store, so outside of every transaction."""
        return self.contents.read(situation.workspace_id, situation.residency, situation.digest, situation.sources)

    def distribute(
        self,
        situation: Situation,
        contents: Contents | None,
        *,
        destinations: Sequence[Stop] | None = None,
        deadline_seconds: float | None = None,
    ) -> Distribution:
        """The cheapest way to the destinations; None: to every location that lacks a wanted replica."""
        stops = {location_id: to_stop(location) for location_id, location in situation.locations.items()}
        wanted = [stops[each] for each in situation.lacking] if destinations is None else list(destinations)
        relays = [stops[each] for each in situation.relays]
        missing = self._missing(situation, contents, {stop.id for stop in (*wanted, *relays)})
        return plan_distribution(
            DistributionRequest(
                residency=Residency(situation.residency),
                sources=[stops[replica.location.id] for replica in situation.sources],
                destinations=wanted,
                relays=relays,
                missing=lambda stop: missing[stop.id],
                deadline_seconds=deadline_seconds,
            ),
            self._prices,
        )

    def _missing(
        self, situation: Situation, contents: Contents | None, stop_ids: Collection[str]
    ) -> Mapping[str, Missing]:
        if contents is None:
            size = max((replica.stored_bytes for replica in situation.sources), default=situation.size_bytes)
            return dict.fromkeys((*stop_ids, *situation.locations), whole(size))
        found: dict[str, Missing] = {}
        with self._database.read() as session:
            for each in stop_ids:
                is_there = each in situation.locations
                held = held_blocks(session, situation.shelf(each), contents) if is_there else set[str]()
                found[each] = contents.missing(held)
        return found

    def _digest_of(self, caller: Caller, of: str) -> str:
        if of.startswith("sha256:"):
            return parse_digest(of)
        parse_model_reference(of)
        if self._versions is None:
            raise InvalidInput(f"{of[:80]!r} is no digest.")
        version = self._versions.resolve(caller, of).version
        if version.artifact_digest is None:
            raise NotReady(f"{of} has no artifact yet.", hint="See what runs and what waits: fairlead work")
        return version.artifact_digest

    def _stops_in(self, situation: Situation, regions: Sequence[str]) -> list[Stop]:
        """The locations in some regions, the first by name of each; a region without one stands for itself."""
        stops: list[Stop] = []
        for region in dict.fromkeys(self._catalog.region(each).id for each in regions):
            here = [each for each in situation.locations.values() if each.region == region and each.is_filled]
            if here:
                stops.append(to_stop(min(here, key=lambda each: each.name)))
            else:
                jurisdiction = self._catalog.region(region).jurisdiction
                stops.append(Stop(id=region, name=region, region=region, jurisdiction=jurisdiction))
        return stops


def look(session: Session, artifact: ArtifactRow) -> Situation:
    """Where an artifact is, where it is wanted and is not, and where it could pass."""
    locations = {
        location.id: location
        for location in all_locations(session, artifact.workspace_id)
        if location.kind == "storage" and location.state != "RETIRED"
    }
    rows = {row.location_id: row for row in _replicas_of(session, artifact) if row.location_id in locations}
    sources = [
        VerifiedReplica(
            location=locations[each],
            layout_key=row.layout_key or "",
            stored_bytes=artifact.size_bytes if row.stored_bytes is None else row.stored_bytes,
        )
        for each, row in rows.items()
        if row.state == VERIFIED
    ]
    lacking = [
        each for each, row in rows.items() if row.state != VERIFIED and row.is_wanted and locations[each].is_filled
    ]
    relays = [
        each
        for each, location in locations.items()
        # The planner sees to residency, and says what it cost.
        if location.is_filled and (artifact.regions is None or location.region in artifact.regions)
    ]
    return Situation(
        workspace_id=artifact.workspace_id,
        residency=artifact.residency,
        digest=artifact.digest,
        key_id=artifact.key_id,
        size_bytes=artifact.size_bytes,
        locations=locations,
        sources=tuple(sorted(sources, key=lambda replica: replica.location.name)),
        # What residency refused once is not asked for again.
        lacking=tuple(each for each in lacking if locations[each].permits(artifact.residency, None)),
        relays=tuple(relays),
    )


def find_artifact(session: Session, workspace_id: str, digest: str) -> ArtifactRow:
    """An artifact by its digest, under the least strict residency class that it is held under.

    Raises:
        ArtifactNotFound: if the workspace has none of this name.
    """
    query = select(ArtifactRow).where(ArtifactRow.workspace_id == workspace_id, ArtifactRow.digest == digest)
    rows = session.scalars(query).all()
    if not rows:
        raise ArtifactNotFound(
            f"There is no artifact {digest}.", hint="See a model's: fairlead model show NAME", digest=digest
        )
    return min(rows, key=lambda row: (row.residency != "unrestricted", row.residency))


def to_stop(location: Location) -> Stop:
    """A location as the planner sees it."""
    limit = location.settings.get("rate_limit_bytes_per_second")
    return Stop(
        id=location.id,
        name=location.name,
        region=location.region,
        jurisdiction=location.jurisdiction,
        bytes_per_second=limit if isinstance(limit, int) else None,
    )


def _ids_of(stops: Sequence[Stop], locations: Mapping[str, Location]) -> tuple[str, ...]:
    return tuple(stop.id for stop in stops if stop.id in locations)


def _replicas_of(session: Session, artifact: ArtifactRow) -> Sequence[ReplicaRow]:
    query = select(ReplicaRow).where(
        ReplicaRow.workspace_id == artifact.workspace_id,
        ReplicaRow.residency == artifact.residency,
        ReplicaRow.artifact_digest == artifact.digest,
    )
    return session.scalars(query).all()


def _paid_by_region(session: Session, artifact: ArtifactRow) -> Mapping[str, Decimal]:
    """What the last copy of an artifact into each region cost."""
    query = (
        select(LedgerRow.region, LedgerRow.actual_usd)
        .where(
            LedgerRow.workspace_id == artifact.workspace_id,
            LedgerRow.subject == artifact.digest,
            LedgerRow.residency == artifact.residency,
            LedgerRow.kind.in_(["replicate", "repair"]),
        )
        .order_by(LedgerRow.id)
    )
    return {region: Decimal(amount) for region, amount in session.execute(query)}


def _to_status(row: ReplicaRow, locations: Mapping[str, Location], paid: Mapping[str, Decimal]) -> HopStatus:
    location = locations[row.location_id]

    def name(location_id: str | None) -> str | None:
        found = None if location_id is None else locations.get(location_id)
        return None if found is None else found.name

    has_moved = row.moved_bytes is not None
    return HopStatus(
        location=location.name,
        region=location.region,
        state=row.state,
        is_wanted=row.is_wanted,
        planned_source=name(row.planned_source_location_id),
        planned_bytes=row.planned_bytes,
        planned_usd=None if row.planned_usd is None else Decimal(row.planned_usd),
        source=name(row.source_location_id),
        moved_bytes=row.moved_bytes,
        actual_usd=paid.get(location.region) if has_moved else None,
    )
