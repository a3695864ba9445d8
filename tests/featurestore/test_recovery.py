"""What was asked for comes true whatever dies on the way, and nothing is recorded twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from fairlead.catalog import load_catalog
from fairlead.featurestore.online_reader import OnlineReader
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.snapshot_work import SnapshotHandler
from fairlead.featurestore.snapshots import Snapshot
from fairlead.featurestore.sources import Sources
from fairlead.registry.identity import Caller
from fairlead.registry.models import Labels, Models
from fairlead.registry.tables import WorkRow
from fairlead.registry.uploads import Upload, Uploads
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.sync.scratch import Scratch
from fairlead.sync.worker import Worker
from tests.featurestore.feature_fleet import FeatureFleet, cells_view, day, open_feature_fleet, patient, service
from tests.fleet import ADMIN, LABELS, REGIONS

US, EU = REGIONS["virginia"], REGIONS["eemshaven"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        fleet.cells([(1, 0, 1.0), (1, 6, 6.0)])
        cells = {"cells": [("radius", "FLOAT")]}
        fleet.apply([patient(), cells_view(fleet.sources / "cells.parquet"), service(views=cells)])
        yield fleet


def served(world: FeatureFleet, region: str) -> str:
    return OnlineReader(world.store.online.address(ADMIN, "diagnosis", region) or "").meta["snapshot"]


class Killed(BaseException):
    """A worker's process ends."""


class KilledAfterHandingOver(Uploads):
    """A worker that dies when its rows are handed over, before anybody noted it."""

    def complete(
        self, caller: Caller, upload_id: str, *, artifact_digest: str, layout_key: str, sent_bytes: int
    ) -> Upload:
        super().complete(
            caller, upload_id, artifact_digest=artifact_digest, layout_key=layout_key, sent_bytes=sent_bytes
        )
        raise Killed


class KilledBeforeWriting(Uploads):
    """A worker that dies when it has the source's rows and has sent none."""

    def begin(
        self,
        caller: Caller,
        *,
        kind: str,
        residency: str,
        regions: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        region: str | None = None,
        key: Any = None,
    ) -> Upload:
        super().begin(caller, kind=kind, residency=residency, regions=regions, labels=labels, region=region, key=key)
        raise Killed


class Slow(Uploads):
    """A worker that is presumed dead when it has the source's rows, and goes on after `meanwhile`."""

    meanwhile: Callable[[], None]

    def begin(self, *args: Any, **options: Any) -> Upload:
        self.meanwhile()
        return super().begin(*args, **options)


def worker_with(world: FeatureFleet, uploads: Uploads) -> Worker:
    """One that takes snapshots alone."""
    fleet = world.fleet
    handler = SnapshotHandler(
        fleet.database,
        fleet.clock,
        uploads=uploads,
        open_store=fleet.open_store,
        sources=Sources(),
        replicas=ReplicaRows(
            fleet.database, artifacts=fleet.artifacts, open_store=fleet.open_store, folder=fleet.root / "rows"
        ),
        logged=world.store.streams.logged,
        scratch=Scratch(fleet.root / "scratch"),
    )
    return Worker(fleet.database, fleet.clock, regions=None, handlers={"snapshot": handler}, derivers=[])


@pytest.mark.parametrize("dying", [KilledBeforeWriting, KilledAfterHandingOver])
def test_a_snapshot_survives_the_death_of_its_worker(world: FeatureFleet, dying: type[Uploads]) -> None:
    taken = world.store.snapshots.take(ADMIN, "diagnosis")
    uploads = dying(world.fleet.database, world.fleet.clock, catalog=load_catalog())
    with pytest.raises(Killed):
        worker_with(world, uploads).run_until_idle()
    world.run()
    assert world.store.snapshots.get(ADMIN, taken.id).state == "PENDING"  # its lease still runs
    world.fleet.clock.advance(day(1) - day(0))
    world.run()
    assert world.store.snapshots.get(ADMIN, taken.id).state == "READY"
    assert world.fleet.actions().count("snapshot.ready") == 1


def test_a_slow_worker_leaves_what_its_successor_recorded(world: FeatureFleet) -> None:
    taken = world.store.snapshots.take(ADMIN, "diagnosis")
    recorded: list[Snapshot] = []

    def take_over() -> None:
        world.fleet.clock.advance(day(1) - day(0))
        # By now the source holds something else, which is what the successor reads.
        world.cells([(1, 0, 1.0), (2, 5, 7.0), (3, 6, 6.0)])
        world.run()
        recorded.append(world.store.snapshots.get(ADMIN, taken.id))

    slow = Slow(world.fleet.database, world.fleet.clock, catalog=load_catalog())
    slow.meanwhile = take_over
    worker_with(world, slow).run_until_idle()
    world.run()
    assert [(each.state, each.artifacts[0].rows) for each in recorded] == [("READY", 3)]
    assert world.store.snapshots.get(ADMIN, taken.id) == recorded[0]
    assert world.fleet.actions().count("snapshot.ready") == 1


def test_work_that_is_lost_is_derived_again(world: FeatureFleet) -> None:
    taken = world.store.snapshots.take(ADMIN, "diagnosis")
    with world.fleet.database.write() as session:
        session.execute(delete(WorkRow))
    world.run()
    assert world.store.snapshots.get(ADMIN, taken.id).state == "READY"
    world.store.online.materialize(ADMIN, "diagnosis")
    with world.fleet.database.write() as session:
        session.execute(delete(WorkRow))
    world.run()
    assert {state.state for state in world.store.online.states(ADMIN, "diagnosis")} == {"READY"}


def test_a_store_that_a_slow_worker_put_back_is_replaced(world: FeatureFleet) -> None:
    first = world.snapshot(as_of=day(5))
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    path = Path(world.store.online.address(ADMIN, "diagnosis", EU) or "")
    shutil.copy(path, path.with_suffix(".old"))
    second = world.snapshot()
    assert served(world, EU) == second.digest
    path.with_suffix(".old").replace(path)
    assert served(world, EU) == first.digest
    world.run()
    assert served(world, EU) == second.digest


def test_a_region_that_is_added_later_serves_too(world: FeatureFleet) -> None:
    snapshot = world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    world.fleet.add("amsterdam")
    world.run()
    assert served(world, REGIONS["amsterdam"]) == snapshot.digest


def test_what_a_model_version_pins_is_served_without_asking(world: FeatureFleet) -> None:
    snapshot = world.snapshot()
    assert world.store.online.states(ADMIN, "diagnosis") == []
    Models(world.fleet.database, world.fleet.clock).create(ADMIN, name="churn", labels=Labels(**LABELS))
    upload, _ = world.fleet.register({"model.bin": b"weights"})
    draft = VersionDraft(upload_id=upload, feature_service="diagnosis", snapshot_digest=snapshot.digest)
    Versions(world.fleet.database, world.fleet.clock).register(ADMIN, "churn", draft)
    world.run()
    assert served(world, US) == served(world, EU) == snapshot.digest


def test_one_snapshot_can_be_held_in_some_regions(world: FeatureFleet) -> None:
    first = world.snapshot(as_of=day(5))
    world.store.online.materialize(ADMIN, "diagnosis", snapshot=first.digest, regions=[US])
    world.snapshot()
    world.run()
    assert served(world, US) == first.digest
    assert [state.region for state in world.store.online.states(ADMIN, "diagnosis")] == [US]
