from __future__ import annotations

import os
from collections.abc import Generator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.errors import (
    ArtifactNotFound,
    DistributionInfeasible,
    InvalidInput,
    NotReady,
    ReplicaUnavailable,
    ResidencyViolation,
    UnknownRegion,
)
from fairlead.core.ports import ObjectStore
from fairlead.registry.models import Labels, Models
from fairlead.registry.replica_policies import PolicySweep, ReplicaPolicies
from fairlead.registry.replica_policy import ReplicaPolicy
from fairlead.registry.tables import ReplicaRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.sync.plan_sweep import PlanSweep
from fairlead.sync.worker import Worker
from fairlead.testing.objects import MemoryStore
from tests.fleet import ADMIN, Fleet, open_fleet

NEIGHBOURS = {"groningen": "gcp:europe-west1", "frankfurt": "gcp:europe-west3"}


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        yield fleet


def add(fleet: Fleet, name: str, region: str) -> None:
    fleet.locations.add(ADMIN, name=name, region=region, url=fleet.folder(name).as_uri())


def register(fleet: Fleet, size: int = 200_000) -> str:
    _, written = fleet.register({"weights.bin": os.urandom(size)})
    return written.digest


def rows(fleet: Fleet, digest: str) -> dict[str, ReplicaRow]:
    with fleet.database.read() as session:
        found = session.query(ReplicaRow).filter_by(artifact_digest=digest).all()
        for row in found:
            session.expunge(row)
    names = {each.location.id: each.location.name for each in fleet.artifact(digest).replicas}
    return {names[row.location_id]: row for row in found}


def derive(fleet: Fleet, sweep: PlanSweep | None = None) -> None:
    sweep = sweep or PlanSweep(fleet.database, fleet.plans)
    sweep.prepare(fleet.clock.now())
    with fleet.database.write() as session:
        sweep(session, fleet.clock.now())


def test_copies_follow_the_tree_and_move_what_was_planned(fleet: Fleet) -> None:
    for name, region in NEIGHBOURS.items():
        add(fleet, name, region)
    digest = register(fleet)
    fleet.settle()
    assert set(fleet.states(digest).values()) == {"VERIFIED"}
    status = {hop.location: hop for hop in fleet.plans.status(ADMIN, digest)}
    fed = {status[name].source for name in NEIGHBOURS}
    assert "virginia" in fed
    assert len(fed) == 2, "one copy crosses the ocean and feeds the other"
    for name in NEIGHBOURS:
        hop = status[name]
        assert hop.source == hop.planned_source
        assert hop.planned_bytes is not None
        assert hop.moved_bytes is not None
        assert abs(hop.moved_bytes - hop.planned_bytes) <= 0.01 * hop.planned_bytes
        assert hop.planned_usd is not None
        assert hop.actual_usd is not None
        assert hop.planned_usd == pytest.approx(hop.actual_usd, rel=Decimal("0.01")), "requests are in both"
    assert fleet.plans.plan(ADMIN, digest).distribution.tree.hops == ()


def test_a_plan_counts_only_what_the_destination_lacks(fleet: Fleet) -> None:
    add(fleet, "eemshaven", "gcp:europe-west4")
    weights = os.urandom(300_000)
    fleet.register({"weights.bin": weights})
    fleet.settle()
    _, second = fleet.register({"weights.bin": weights, "head.bin": os.urandom(5_000)}, regions=["aws:us-east-1"])
    fleet.run()
    plans = fleet.plans
    partly = plans.plan(ADMIN, second.digest, regions=["gcp:europe-west4"])
    wholly = plans.plan(ADMIN, second.digest, regions=["gcp:europe-west1"])
    assert partly.is_what_if
    assert partly.distribution.tree.bytes < 10_000
    assert wholly.distribution.tree.bytes > 300_000


def test_planned_hops_stay_as_they_are_until_something_changes(fleet: Fleet) -> None:
    for name, region in NEIGHBOURS.items():
        add(fleet, name, region)
    digest = register(fleet)
    worker = fleet.worker()
    worker.derive()
    assert worker.run_until_idle() > 0
    with fleet.database.write() as session:
        for row in session.query(ReplicaRow).filter(ReplicaRow.source_location_id.is_not(None)):
            row.state, row.planned_bytes = "PENDING", None
    sweep = PlanSweep(fleet.database, fleet.plans)
    derive(fleet, sweep)
    planned = {name: row.planned_bytes for name, row in rows(fleet, digest).items() if name != "virginia"}
    assert all(size is not None for size in planned.values())
    with fleet.database.write() as session:
        for row in session.query(ReplicaRow):
            row.planned_bytes = None
    derive(fleet, sweep)
    assert all(row.planned_bytes is None for row in rows(fleet, digest).values()), (
        "nothing changed, nothing was planned"
    )
    add(fleet, "tokyo", "aws:ap-northeast-1")
    derive(fleet, sweep)
    assert any(row.planned_bytes is not None for row in rows(fleet, digest).values())


def test_a_relay_holds_a_replica_as_long_as_it_is_needed(tmp_path: Path) -> None:
    destinations = {"london": "azure:uksouth", "capetown": "aws:af-south-1", "bahrain": "aws:me-south-1"}
    with open_fleet(tmp_path, names=()) as fleet:
        for name, region in {**destinations, "montreal": "aws:ca-central-1"}.items():
            add(fleet, name, region)
        policies = ReplicaPolicies(fleet.database, fleet.clock, catalog=load_catalog(), uses=())
        wanted = ReplicaPolicy(regions=tuple(destinations.values()))
        policies.put(ADMIN, "somewhere", wanted, expected_revision=0)
        _, written = fleet.register({"weights.bin": os.urandom(3_000_000)}, near="amsterdam")
        fleet.run()
        duties, policy_sweep = fleet.duties, PolicySweep([], every=timedelta(0))
        worker = Worker(
            fleet.database,
            fleet.clock,
            regions=None,
            handlers=duties.handlers,
            derivers=[policy_sweep, *duties.derivers],
        )
        worker.derive()
        planned = rows(fleet, written.digest)
        assert set(planned) == {*destinations, "montreal"}
        worker.derive()
        assert rows(fleet, written.digest)["montreal"].is_wanted
        relay = planned["montreal"].location_id
        assert {planned[name].planned_source_location_id for name in ("capetown", "bahrain")} == {relay}
        worker.run_until_idle()
        fleet.clock.advance(timedelta(minutes=1))
        worker.run_until_idle()
        done = rows(fleet, written.digest)
        assert {done[name].source_location_id for name in ("capetown", "bahrain")} == {relay}
        assert {name: row.state for name, row in done.items() if row.is_wanted} == dict.fromkeys(
            destinations, "VERIFIED"
        )


def test_a_deadline_and_residency_are_kept_or_refused(fleet: Fleet) -> None:
    digest = register(fleet)
    fleet.run()
    plans = fleet.plans
    assert plans.plan(ADMIN, digest, regions=["azure:westeurope"], deadline_seconds=3600).distribution.is_optimal
    with pytest.raises(DistributionInfeasible):
        plans.plan(ADMIN, digest, regions=["azure:westeurope"], deadline_seconds=1e-9)
    _, written = fleet.register({"us.bin": os.urandom(1000)}, residency="us")
    fleet.run()
    with pytest.raises(ResidencyViolation):
        plans.plan(ADMIN, written.digest, regions=["azure:westeurope"])


def test_a_reference_is_resolved_and_what_cannot_be_planned_says_why(fleet: Fleet) -> None:
    upload_id, written = fleet.register({"m.bin": b"m" * 1000})
    labels = Labels(owner="ana", team="risk", cost_centre="cc")
    Models(fleet.database, fleet.clock).create(ADMIN, name="churn", labels=labels, residency="unrestricted")
    Versions(fleet.database, fleet.clock).register(ADMIN, "churn", VersionDraft(upload_id=upload_id))
    plans = fleet.plans
    with pytest.raises(NotReady):
        plans.plan(ADMIN, "churn/1")
    fleet.run()
    assert plans.plan(ADMIN, "churn/1").artifact == written.digest
    with pytest.raises(ArtifactNotFound):
        plans.plan(ADMIN, "sha256:" + "0" * 64)
    with pytest.raises(UnknownRegion):
        plans.plan(ADMIN, "churn/1", regions=["aws:mars-1"])
    with pytest.raises(InvalidInput):
        plans.plan(ADMIN, "churn/1", deadline_seconds=-1)
    with fleet.database.write() as session:
        for row in session.query(ReplicaRow):
            row.state = "CORRUPT"
    with pytest.raises(ReplicaUnavailable):
        plans.plan(ADMIN, "churn/1")


def test_a_source_that_cannot_be_read_is_planned_by_its_size(fleet: Fleet) -> None:
    digest = register(fleet, 50_000)
    fleet.run()

    def away(_name: str, _store: ObjectStore) -> ObjectStore:
        return MemoryStore()

    fleet.wrap = away
    plan = fleet.plans.plan(ADMIN, digest, regions=["gcp:europe-west4"])
    assert plan.distribution.tree.bytes >= 50_000


def test_copies_for_a_promotion_are_priced_together_without_asking_a_store(fleet: Fleet) -> None:
    digest = register(fleet)
    fleet.run()

    def never(_name: str, _store: ObjectStore) -> ObjectStore:
        raise AssertionError("a store was asked inside a transaction")

    fleet.wrap = never
    regions = ["aws:us-east-1", *NEIGHBOURS.values()]
    priced = fleet.plans.price_copies(ADMIN.workspace_id, "unrestricted", digest, regions)
    assert set(priced) == set(NEIGHBOURS.values())
    assert {copy.source_region for copy in priced.values()} != {"aws:us-east-1"}, "one feeds the other"
    assert all(copy.usd > Decimal(0) for copy in priced.values())
