"""Regions keep what holders of an environment need, and build upon what is there."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fairlead.catalog import load_catalog
from fairlead.core.errors import NotReady
from fairlead.featurestore.freshness import OnlineMetrics
from fairlead.featurestore.online_engines import StoreName
from fairlead.featurestore.online_slots import store_for
from fairlead.featurestore.online_work import LostStores
from fairlead.featurestore.tables_online import OnlineSlotRow
from fairlead.registry.environments import Environments
from fairlead.registry.models import Labels, Models
from fairlead.registry.policy import Policy
from fairlead.registry.promotion import Promotions
from fairlead.registry.rollback import Rollbacks
from fairlead.registry.tables import AuditEventRow, ModelVersionRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from tests.featurestore.feature_fleet import FeatureFleet, cells_view, day, open_feature_fleet, patient, service
from tests.fleet import ADMIN, LABELS, REGIONS

US, EU = REGIONS["virginia"], REGIONS["eemshaven"]
CELLS = {"cells": [("radius", "FLOAT")]}


@contextmanager
def open_world(folder: Path, url: str | None = None) -> Generator[FeatureFleet]:
    with open_feature_fleet(folder, url) as fleet:
        fleet.cells([(1, 0, 1.0), (2, 0, 2.0)])
        fleet.apply([patient(), cells_view(fleet.sources / "cells.parquet", ttl="0s"), service(views=CELLS)])
        database, clock = fleet.fleet.database, fleet.fleet.clock
        Models(database, clock).create(ADMIN, name="churn", labels=Labels(**LABELS))
        Environments(database, clock).put(ADMIN, "live", rank=99, wanted=Policy(), expected_revision=0)
        yield fleet


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_world(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def world_anywhere(tmp_path: Path, database_url: str) -> Iterator[FeatureFleet]:
    with open_world(tmp_path, database_url) as fleet:
        yield fleet


def register(world: FeatureFleet, snapshot: str, number: int) -> None:
    upload, _ = world.fleet.register({"model.bin": b"weights %d" % number})
    draft = VersionDraft(upload_id=upload, feature_service="diagnosis", snapshot_digest=snapshot)
    Versions(world.fleet.database, world.fleet.clock).register(ADMIN, "churn", draft)
    world.run()


def promote(world: FeatureFleet, version: int, revision: int) -> None:
    promotions = Promotions(world.fleet.database, world.fleet.clock, load_catalog())
    promotions.request(ADMIN, "churn", version, "live", expected_revision=revision, reason="better")
    world.run()


def take(world: FeatureFleet, radius: float, moment: float) -> str:
    """A snapshot in which the first patient's radius is another."""
    world.cells([(1, 0, 1.0), (2, 0, 2.0), (1, moment, radius)])
    return world.snapshot().digest or ""


def kept(world: FeatureFleet) -> dict[str, set[str]]:
    states = world.store.online.states(ADMIN, "diagnosis")
    return {state.region: {each.snapshot for each in state.kept if each.state == "READY"} for state in states}


def read(world: FeatureFleet, snapshot: str, region: str) -> list[Any]:
    asked = f"diagnosis@{snapshot}" if snapshot else "diagnosis"
    return [row["radius"] for row in world.store.online.read(ADMIN, asked, {"patient_id": [1, 2]}, region=region).rows]


def test_regions_keep_what_the_present_and_the_previous_holder_need(world_anywhere: FeatureFleet) -> None:
    world = world_anywhere
    first = take(world, 10.0, 1)
    register(world, first, 1)
    assert kept(world) == {US: set(), EU: set()}
    promote(world, 1, 0)
    second = take(world, 20.0, 2)
    register(world, second, 2)
    promote(world, 2, 1)
    assert kept(world) == {US: {first, second}, EU: {first, second}}
    newest = take(world, 30.0, 3)
    for region in (US, EU):
        assert read(world, "", region) == [30.0, 2.0]
        assert read(world, second, region) == [20.0, 2.0]
        assert read(world, first, region) == [10.0, 2.0]
    register(world, newest, 3)
    promote(world, 3, 2)
    # The first has left the two that count, and its store is gone.
    assert kept(world) == {US: {second, newest}, EU: {second, newest}}
    with pytest.raises(NotReady, match="no store of the snapshot"):
        read(world, first, US)
    engine = world.store.online_engines.of(US)
    assert sorted(name.slot for name in engine.stores(ADMIN.workspace_id, US)) == sorted(["", second, newest])
    # Whoever goes back finds its features there at once, before any work is done.
    rollbacks = Rollbacks(world.fleet.database, world.fleet.clock)
    rollbacks.move_back(ADMIN, "churn", "live", expected_revision=3, reason="at night")
    assert read(world, second, US) == [20.0, 2.0]
    world.run()
    assert kept(world)[US] == {second, newest}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the record says of one materialization."""

    region: str
    slot: str
    is_whole: bool
    rows: int


def steps(world: FeatureFleet) -> list[Step]:
    with world.fleet.database.read() as session:
        query = select(AuditEventRow).where(AuditEventRow.action == "online.ready").order_by(AuditEventRow.id)
        return [
            Step(
                region=str(event.facts["region"]),
                slot=str(event.facts["slot"]),
                is_whole=bool(event.facts["is_whole"]),
                rows=int(str(event.facts["rows"])),
            )
            for event in session.scalars(query)
        ]


def test_a_region_that_serves_one_snapshot_rewrites_what_is_new_in_the_next(world: FeatureFleet) -> None:
    rows = [(number, 0, float(number)) for number in range(1, 11)]
    world.cells(rows)
    world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis", regions=[EU])
    world.run()
    world.cells([*rows, (1, 2, 20.0)])
    world.snapshot()
    assert read(world, "", EU) == [20.0, 2.0]
    world.cells([(number, 3, 0.0) for number in range(1, 11)])
    world.snapshot()
    # Where most has changed, everything is written anew.
    assert steps(world) == [
        Step(region=EU, slot="", is_whole=True, rows=10),
        Step(region=EU, slot="", is_whole=False, rows=10),
        Step(region=EU, slot="", is_whole=True, rows=10),
    ]


def test_freshness_and_watermark_are_told_by_region_and_view(world: FeatureFleet) -> None:
    take(world, 10.0, 1)
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    states = world.store.online.states(ADMIN, "diagnosis")
    assert [(state.engine, state.is_atomic) for state in states] == [("sqlite", True)] * 2
    for state in states:
        (view,) = state.views
        assert (view.view, view.watermark) == ("cells", day(1))
        assert view.as_of <= view.materialized_at == state.materialized_at
    told = OnlineMetrics(world.fleet.database, world.fleet.clock).render(ADMIN)
    labels = f'service="diagnosis",region="{US}"'
    assert f"fairlead_online_ready{{{labels}}} 1.0\n" in told
    assert f'fairlead_online_watermark_timestamp_seconds{{{labels},view="cells"}} {day(1).timestamp()!r}\n' in told
    assert f"fairlead_online_rows{{{labels}}} 2.0\n" in told


def test_a_region_that_is_asked_for_no_longer_serves_no_longer(world_anywhere: FeatureFleet) -> None:
    world = world_anywhere
    take(world, 10.0, 1)
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    metrics = OnlineMetrics(world.fleet.database, world.fleet.clock)
    assert US in metrics.render(ADMIN)
    world.store.online.materialize(ADMIN, "diagnosis", regions=[EU])
    # What is no longer kept up is read no longer, and then it is gone.
    for _ in range(2):
        assert [state.region for state in world.store.online.states(ADMIN, "diagnosis")] == [EU]
        assert US not in metrics.render(ADMIN)
        with pytest.raises(NotReady):
            read(world, "", US)
        world.run()
    assert world.store.online_engines.of(US).stores(ADMIN.workspace_id, US) == []
    world.store.online.materialize(ADMIN, "diagnosis", regions=[US, EU])
    world.run()
    assert read(world, "", US) == [10.0, 2.0]


def test_of_a_store_that_is_lost_no_freshness_is_told(world: FeatureFleet) -> None:
    take(world, 10.0, 1)
    world.store.online.materialize(ADMIN, "diagnosis", regions=[US])
    world.run()
    assert world.store.online.states(ADMIN, "diagnosis")[0].views
    world.store.online_engines.of(US).drop(StoreName(workspace_id=ADMIN.workspace_id, service="diagnosis", region=US))
    lost = LostStores(world.fleet.database, world.store.online_engines, None)
    now = world.fleet.clock.now()
    lost.prepare(now)
    with world.fleet.database.write() as session:
        lost(session, now)
    (state,) = world.store.online.states(ADMIN, "diagnosis")
    assert (state.state, state.snapshot, state.views) == ("PENDING", None, ())
    world.run()
    assert world.store.online.states(ADMIN, "diagnosis")[0].views


def test_the_watermark_of_restricted_data_is_not_told_outside(world: FeatureFleet) -> None:
    world.genes([(1, 1, "a")])
    world.apply(world.definitions())
    world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    by_region = {state.region: state.views for state in world.store.online.states(ADMIN, "diagnosis")}
    assert {view.view: view.watermark for view in by_region[EU]} == {"cells": day(0), "genes": None}
    assert [view.view for view in by_region[US]] == ["cells"]


def test_a_slot_that_is_lost_is_made_again(world: FeatureFleet) -> None:
    first = take(world, 10.0, 1)
    register(world, first, 1)
    promote(world, 1, 0)
    name = StoreName(workspace_id=ADMIN.workspace_id, service="diagnosis", region=US, slot=first)
    world.store.online_engines.of(US).drop(name)
    world.run()
    assert read(world, first, US) == [10.0, 2.0]
    with world.fleet.database.read() as session:
        rows = session.scalars(select(OnlineSlotRow)).all()
        assert {(row.region, row.state, row.engine) for row in rows} == {
            (US, "READY", "sqlite"),
            (EU, "READY", "sqlite"),
        }


def test_a_model_that_goes_back_reads_the_service_as_it_was_trained_with(world: FeatureFleet) -> None:
    first = take(world, 10.0, 1)
    register(world, first, 1)
    promote(world, 1, 0)

    def slot() -> str | None:
        with world.fleet.database.read() as session:
            version = session.scalars(select(ModelVersionRow)).one()
            name = store_for(session, version, US)
        return None if name is None else name.slot

    take(world, 20.0, 2)
    # The same version of the service: newer data is better.
    assert slot() == ""
    path = world.cells([(1, 0, 1.0)])
    world.apply([cells_view(path, ttl="60s"), service(views=CELLS)])
    world.snapshot()
    assert slot() == first


def test_every_way_back_reads_its_own_version_of_the_service_at_once(world: FeatureFleet) -> None:
    """Also one that is further back than the last, and one that pins a service's version without data."""
    pinned = world.store.snapshots.get(ADMIN, take(world, 10.0, 1)).service_digest
    upload, _ = world.fleet.register({"model.bin": b"weights 1"})
    draft = VersionDraft(upload_id=upload, feature_service="diagnosis", feature_service_digest=pinned)
    Versions(world.fleet.database, world.fleet.clock).register(ADMIN, "churn", draft)
    world.run()
    promote(world, 1, 0)
    latest = take(world, 20.0, 2)
    register(world, latest, 2)
    promote(world, 2, 1)
    world.apply([cells_view(world.sources / "cells.parquet", ttl="60s"), service(views=CELLS)])
    for number in (3, 4):
        register(world, take(world, 10.0 * number, number), number)
        promote(world, number, number - 1)
    with world.fleet.database.read() as session:
        versions = session.scalars(select(ModelVersionRow).order_by(ModelVersionRow.version)).all()
        stores = [store_for(session, version, US) for version in versions]
    assert [store and store.slot for store in stores] == [latest, latest, "", ""]
    rollbacks = Rollbacks(world.fleet.database, world.fleet.clock)
    rollbacks.move_back(ADMIN, "churn", "live", expected_revision=4, reason="at night", to_version=1)
    assert read(world, latest, US) == [20.0, 2.0]
