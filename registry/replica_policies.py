"""Replica policies in the record: applied, shown, and turned into the replicas that should be.

What should be follows from the policies, the pointers and the clock, so it is worked out again whenever one of them
has moved, and by and by besides. A replica that is no longer wanted is marked, and the collector takes it away; but
none is marked before a wanted one is VERIFIED, and the last one of an artifact never is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.errors import ReplicaPolicyNotFound
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.locations import all_locations
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.promotion_record import AWAITING_APPROVAL, REFUSED
from fairlead.registry.replica_policy import (
    ArtifactFacts,
    ReplicaPolicy,
    Use,
    check_policy,
    from_json,
    is_match,
    to_json,
    wanted_regions,
)
from fairlead.registry.replicas import ReplicaKey, ensure_replica
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables import (
    AliasMoveRow,
    ArtifactRow,
    EnvironmentRow,
    LocationRow,
    ModelVersionRow,
    PromotionRow,
    RegisteredModelRow,
    ReplicaRow,
    WorkspaceRow,
)
from fairlead.registry.tables_bytes import ReplicaPolicyRow

HOLDERS_KEPT = 2
"""An environment needs the version that holds it and the one to roll back to."""

ASKED_FOR = timedelta(days=1)
"""How long a version that was refused an environment for want of replicas is brought to its regions all the same."""

Drift = Literal["missing", "damaged", "unwanted"]
ArtifactUse = tuple[str, str, str, int]
"""Residency class and digest of an artifact, and the model (its row's id) and version that it belongs to."""

ArtifactUses = Callable[[Session, str], Iterable[ArtifactUse]]
"""Which model versions of a workspace need which artifacts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPolicy:
    """A policy and its revision."""

    name: str
    policy: ReplicaPolicy
    revision: int
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftEntry:
    """A replica that is not as it should be: wanted and missing or damaged, or there and not wanted."""

    artifact: str
    kind: str
    residency: str
    location: str
    region: str
    drift: Drift
    state: str | None


class ReplicaPolicies:
    """Applies, shows and removes policies, and shows what is not yet as they say."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog, uses: Sequence[ArtifactUses]) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._uses = tuple(uses)

    def list(self, caller: Caller, page: PageRequest) -> Page[AppliedPolicy]:
        """Policies by name."""
        query = select(ReplicaPolicyRow).where(ReplicaPolicyRow.workspace_id == caller.workspace_id)
        listing = ("replica-policies", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [ReplicaPolicyRow.name], listing=listing).map(_to_applied)

    def get(self, caller: Caller, name: str) -> AppliedPolicy:
        """One policy.

        Raises:
            ReplicaPolicyNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return _to_applied(_find(session, caller, name))

    def put(self, caller: Caller, name: str, policy: ReplicaPolicy, *, expected_revision: int | None) -> AppliedPolicy:
        """Apply a policy: create it or replace it. Without an expected revision it replaces whatever is there.

        Raises:
            InvalidInput: if the policy makes no sense.
            StaleRevision: if it is not at the expected revision (0: not there).
        """
        parse_name(name, what="replica policy")
        check_policy(policy, [region.id for region in self._catalog.within(caller.workspace_id).regions()])
        with self._database.write() as session:
            key = (caller.workspace_id, name)
            # Also what was never there: two that create one policy wait for each other here.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update=True)
            row = session.get(ReplicaPolicyRow, key, with_for_update=True)
            before = None if row is None else dict(row.document)
            _check_revision(name, 0 if row is None else row.revision, expected_revision)
            if row is None:
                row = ReplicaPolicyRow(workspace_id=caller.workspace_id, name=name, revision=0)
                session.add(row)
            row.document, row.revision = to_json(policy), row.revision + 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            facts = {"revision": row.revision, "before": before, "after": to_json(policy)}
            audit.record(session, caller, self._clock, action="replica-policy.apply", subject=name, facts=facts)
            return _to_applied(row)

    def delete(self, caller: Caller, name: str, *, expected_revision: int | None) -> None:
        """Remove a policy; what it governed should be everywhere again, unless another policy governs it.

        Raises:
            ReplicaPolicyNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
        """
        with self._database.write() as session:
            row = _find(session, caller, name, lock=True)
            _check_revision(name, row.revision, expected_revision)
            facts = {"revision": row.revision, "before": dict(row.document)}
            session.delete(row)
            # The rows that it had marked are wanted again; the sweep only looks where there are policies.
            session.flush()
            _apply(session, caller.workspace_id, self._uses, self._clock.now())
            audit.record(session, caller, self._clock, action="replica-policy.delete", subject=name, facts=facts)

    def find_drift(self, caller: Caller) -> list[DriftEntry]:
        """Every replica that is not as the policies say at this moment; workers mend what they can within seconds."""
        found: list[DriftEntry] = []
        with self._database.read() as session:
            workspace = _Workspace(session, caller.workspace_id, self._uses, self._clock.now())
            for artifact in workspace.artifacts:
                rows = workspace.replicas.get((artifact.residency, artifact.digest), {})
                wanted = workspace.wanted(artifact)
                for location in workspace.locations:
                    row = rows.get(location.id)
                    drift = _drift(row, is_wanted=location.id in wanted)
                    if drift is not None:
                        found.append(
                            DriftEntry(
                                artifact=artifact.digest,
                                kind=artifact.kind,
                                residency=artifact.residency,
                                location=location.name,
                                region=location.region,
                                drift=drift,
                                state=None if row is None else row.state,
                            )
                        )
        return found


class PolicySweep:
    """The deriver of what policies want: at once where something that they look at has moved, and else now and then."""

    def __init__(self, uses: Sequence[ArtifactUses], every: timedelta = timedelta(minutes=1)) -> None:
        self._uses = tuple(uses)
        self._every = every
        self._seen: dict[str, tuple[object, ...]] = {}
        self._due: dict[str, datetime] = {}

    def __call__(self, session: Session, now: datetime) -> None:
        """Bring the replica rows of every workspace that has policies in line with them."""
        for workspace_id in session.scalars(select(ReplicaPolicyRow.workspace_id).distinct()).all():
            seen = _signature(session, workspace_id)
            if seen != self._seen.get(workspace_id) or now >= self._due[workspace_id]:
                _apply(session, workspace_id, self._uses, now)
                self._seen[workspace_id] = seen
                self._due[workspace_id] = now + self._every


def model_uses(session: Session, workspace_id: str) -> Iterable[ArtifactUse]:
    """The files of every model version."""
    query = select(
        ModelVersionRow.residency, ModelVersionRow.artifact_digest, ModelVersionRow.model_id, ModelVersionRow.version
    ).where(ModelVersionRow.workspace_id == workspace_id, ModelVersionRow.artifact_digest.is_not(None))
    return [
        (residency, cast("str", digest), model, version) for residency, digest, model, version in session.execute(query)
    ]


class _Workspace:
    """What the policies of one workspace look at, read once."""

    def __init__(self, session: Session, workspace_id: str, uses: Sequence[ArtifactUses], now: datetime) -> None:
        self._now = now
        policies = session.scalars(select(ReplicaPolicyRow).where(ReplicaPolicyRow.workspace_id == workspace_id))
        self._policies = [from_json(row.document) for row in policies]
        self._versions = _uses_by_version(session, workspace_id, now)
        self._uses: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
        for source in uses:
            for residency, digest, model_id, version in source(session, workspace_id):
                self._uses[residency, digest].append((model_id, version))
        self.locations = [each for each in all_locations(session, workspace_id) if each.is_filled]
        query = select(ArtifactRow).where(ArtifactRow.workspace_id == workspace_id).order_by(ArtifactRow.digest)
        self.artifacts: Sequence[ArtifactRow] = session.scalars(query).all()
        self.replicas: dict[tuple[str, str], dict[str, ReplicaRow]] = defaultdict(dict)
        for row in session.scalars(select(ReplicaRow).where(ReplicaRow.workspace_id == workspace_id)):
            self.replicas[row.residency, row.artifact_digest][row.location_id] = row

    def wanted(self, artifact: ArtifactRow) -> frozenset[str]:
        """The ids of the locations where an artifact should be or has to stay for now."""
        if artifact.released_at is not None:
            return frozenset()
        patterns = wanted_regions(self._policies, self._facts(artifact), self._now)
        permitted = [each for each in self.locations if each.permits(artifact.residency, artifact.regions)]
        wanted = {each.id for each in permitted if patterns is None or is_match(patterns, each.region)}
        rows = self.replicas.get((artifact.residency, artifact.digest), {})
        verified = [row for row in rows.values() if row.state == "VERIFIED"]
        if not wanted:
            # Somewhere it has to be: where it came in, or else where it has been longest, unless that is given up.
            homes = [row for row in verified if any(each.id == row.location_id for each in permitted)]
            homes.sort(key=lambda row: (row.source_location_id is not None, row.verified_at, row.location_id))
            wanted.update([row.location_id for row in homes[:1]] or [each.id for each in permitted[:1]])
        if not any(row.location_id in wanted for row in verified):
            wanted.update(row.location_id for row in verified)
        return frozenset(wanted | _relays(rows, wanted))

    def _facts(self, artifact: ArtifactRow) -> ArtifactFacts:
        versions = self._uses.get((artifact.residency, artifact.digest), ())
        return ArtifactFacts(
            kind=artifact.kind,
            residency=artifact.residency,
            created_at=artifact.created_at,
            uses=tuple(self._versions[version] for version in versions if version in self._versions),
        )


def _relays(rows: Mapping[str, ReplicaRow], wanted: Collection[str]) -> set[str]:
    """The locations over which a wanted replica that was never VERIFIED is planned to come: they stay until it has."""
    relays: set[str] = set()
    frontier = set(wanted)
    while frontier:
        lacking = (rows[each] for each in frontier if each in rows)
        sources = {row.planned_source_location_id for row in lacking if row.layout_key is None}
        frontier = {each for each in sources if each is not None and each in rows and each not in relays}
        relays |= frontier
    return relays


def _apply(session: Session, workspace_id: str, uses: Sequence[ArtifactUses], now: datetime) -> None:
    workspace = _Workspace(session, workspace_id, uses, now)
    for artifact in workspace.artifacts:
        rows = workspace.replicas.get((artifact.residency, artifact.digest), {})
        wanted = workspace.wanted(artifact)
        for location_id in wanted - rows.keys():
            key = ReplicaKey(
                workspace_id=workspace_id,
                residency=artifact.residency,
                artifact_digest=artifact.digest,
                location_id=location_id,
            )
            ensure_replica(session, key, now)
        for row in rows.values():
            if row.is_wanted != (row.location_id in wanted):
                row.is_wanted = row.location_id in wanted
                row.updated_at = now


def _uses_by_version(session: Session, workspace_id: str, now: datetime) -> Mapping[tuple[str, int], Use]:
    needed = _needed_versions(session, workspace_id, now)
    query = (
        select(ModelVersionRow, RegisteredModelRow.name)
        .join(
            RegisteredModelRow,
            (RegisteredModelRow.workspace_id == ModelVersionRow.workspace_id)
            & (RegisteredModelRow.id == ModelVersionRow.model_id),
        )
        .where(ModelVersionRow.workspace_id == workspace_id)
        .order_by(ModelVersionRow.model_id, ModelVersionRow.version.desc())
    )
    uses: dict[tuple[str, int], Use] = {}
    newer: dict[str, int] = defaultdict(int)
    for row, name in session.execute(query):
        uses[row.model_id, row.version] = Use(
            model=name,
            environments=frozenset(needed.get((row.model_id, row.version), ())),
            newer=newer[row.model_id],
            created_at=row.created_at,
        )
        newer[row.model_id] += row.state == "READY"
    return uses


def _needed_versions(session: Session, workspace_id: str, now: datetime) -> Mapping[tuple[str, int], Collection[str]]:
    """The environments that need each version: its holder, the one before, and those that were asked for."""
    needed: dict[tuple[str, int], set[str]] = defaultdict(set)
    environments = session.scalars(select(EnvironmentRow.name).where(EnvironmentRow.workspace_id == workspace_id)).all()
    moves = (
        select(AliasMoveRow.model_id, AliasMoveRow.name, AliasMoveRow.to_version)
        .where(AliasMoveRow.workspace_id == workspace_id, AliasMoveRow.name.in_(environments))
        .order_by(AliasMoveRow.revision.desc())
    )
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for model_id, name, version in session.execute(moves):
        held = holders[model_id, name]
        if version is not None and version not in held and len(held) < HOLDERS_KEPT:
            held.append(version)
            needed[model_id, version].add(name)
    asked = select(PromotionRow.model_id, PromotionRow.version, PromotionRow.environment).where(
        PromotionRow.workspace_id == workspace_id,
        (PromotionRow.state == AWAITING_APPROVAL)
        | ((PromotionRow.state == REFUSED) & (PromotionRow.requested_at > now - ASKED_FOR)),
    )
    for model_id, version, environment in session.execute(asked):
        needed[model_id, version].add(environment)
    return needed


def _signature(session: Session, workspace_id: str) -> tuple[object, ...]:
    """What changes when policies may want something else: pointers, promotions, artifacts, locations, policies."""

    def rows(*columns: Any) -> tuple[object, ...]:
        of = columns[0].class_
        return tuple(tuple(row) for row in session.execute(select(*columns).where(of.workspace_id == workspace_id)))

    promotions = select(func.max(PromotionRow.id)).where(PromotionRow.workspace_id == workspace_id)
    artifacts = select(func.count(), func.max(ArtifactRow.created_at)).where(ArtifactRow.workspace_id == workspace_id)
    verified = select(func.count()).where(ReplicaRow.workspace_id == workspace_id, ReplicaRow.state == "VERIFIED")
    return (
        session.get_one(WorkspaceRow, workspace_id).refs_revision,
        session.scalar(promotions),
        tuple(session.execute(artifacts).one()),
        session.scalar(verified),
        rows(LocationRow.id, LocationRow.state),
        rows(ReplicaPolicyRow.name, ReplicaPolicyRow.revision, ReplicaPolicyRow.updated_at),
    )


def _drift(row: ReplicaRow | None, *, is_wanted: bool) -> Drift | None:
    if row is None:
        return "missing" if is_wanted else None
    if not is_wanted:
        return "unwanted"
    if row.state == "CORRUPT":
        return "damaged"
    return None if row.state == "VERIFIED" else "missing"


def _find(session: Session, caller: Caller, name: str, *, lock: bool = False) -> ReplicaPolicyRow:
    row = session.get(ReplicaPolicyRow, (caller.workspace_id, name), with_for_update=lock or None)
    if row is None:
        raise ReplicaPolicyNotFound(
            f"There is no replica policy {name[:80]!r}.", hint="See: fairlead replica-policy list"
        )
    return row


def _check_revision(name: str, actual: int, expected: int | None) -> None:
    require_revision(
        f"The replica policy {name!r}",
        actual,
        expected,
        hint=f"Look at it and try again: fairlead replica-policy show {name}",
    )


def _to_applied(row: ReplicaPolicyRow) -> AppliedPolicy:
    return AppliedPolicy(
        name=row.name,
        policy=from_json(row.document),
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
