"""A snapshot sends what changed since its neighbour, and restores anywhere to the rows that the source had."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import update

from fairlead.featurestore import stored_rows
from fairlead.featurestore.applied import FeatureObject, find_pinned_service
from fairlead.featurestore.replica_rows import ArtifactName, ReplicaRows
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.snapshots import Snapshot
from fairlead.featurestore.sources import Sources
from fairlead.registry.tables import ReplicaRow
from fairlead.sync.collection import GRACE
from fairlead.sync.upkeep import Upkeeps
from tests.featurestore.feature_fleet import FeatureFleet, day, open_feature_fleet, patient, service, view_spec
from tests.fleet import ADMIN, REGIONS

arrow: Any = pa
parquet: Any = pq
US, EU = REGIONS["virginia"], REGIONS["eemshaven"]
FEATURES = [(f"m{index}", "DOUBLE") for index in range(6)]
ROWS = 20_000


def view(path: Path) -> FeatureObject:
    source = {
        "timestampField": "event_timestamp",
        "createdTimestampColumn": "created",
        "fileOptions": {"uri": str(path)},
    }
    return view_spec("cells", FEATURES, path, batchSource=source)


class Source:
    """A table of measurements that changes, and what it held before."""

    def __init__(self, world: FeatureFleet, rows: int) -> None:
        self._path = world.sources / "cells.parquet"
        self._chance = np.random.default_rng(11)
        self._keys = np.arange(rows) // 4
        self._times = [day(float(number % 4)) for number in range(rows)]
        self._created: list[datetime] = list(self._times)
        self._values: list[Any] = [self._chance.normal(size=rows) for _ in FEATURES]
        self.write()

    def change(self, share: float, *, at: datetime) -> None:
        """New values for some rows, a row that goes, and one that comes late, twice."""
        changed = np.flatnonzero(self._chance.random(len(self._keys)) < share)
        self._values = [np.where(np.isin(np.arange(len(each)), changed), each + 1, each) for each in self._values]
        for row in changed:
            self._created[row] = at
        gone = int(self._chance.integers(len(self._keys)))
        kept = [row for row in range(len(self._keys)) if row != gone] + [0, 0]
        self._keys = self._keys[kept]
        self._times = [self._times[row] for row in kept]
        self._created = [*[self._created[row] for row in kept[:-2]], at, at]
        self._values = [each[kept] for each in self._values]
        self.write()

    def write(self) -> None:
        times = arrow.timestamp("us", tz="UTC")
        columns = {
            "patient_id": arrow.array(self._keys, arrow.int64()),
            "event_timestamp": arrow.array(self._times, times),
            "created": arrow.array(self._created, times),
            **{name: values for (name, _), values in zip(FEATURES, self._values, strict=True)},
        }
        parquet.write_table(arrow.table(columns), self._path)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        fleet.apply([patient(), view(fleet.sources / "cells.parquet"), service(views={"cells": FEATURES})])
        yield fleet


def read_now(world: FeatureFleet, as_of: datetime, name: str) -> bytes:
    """The rows that the source has now, written as one base."""
    with world.fleet.database.read() as session:
        (found,) = find_pinned_service(session, ADMIN.workspace_id, "diagnosis").views.values()
    path = world.fleet.root / name
    write_rows(found, as_of=as_of, sources=Sources(), destination=path, scratch=world.fleet.root)
    return path.read_bytes()


def restore(world: FeatureFleet, snapshot: Snapshot, region: str, name: str) -> bytes:
    """The rows of a snapshot out of one region's replica, on a machine that has nothing yet."""
    fleet = world.fleet
    folder = fleet.root / f"restored-{name}-{region.replace(':', '-')}"
    rows = ReplicaRows(fleet.database, artifacts=fleet.artifacts, open_store=fleet.open_store, folder=folder)
    (part,) = snapshot.artifacts
    artifact = ArtifactName(workspace_id=ADMIN.workspace_id, residency=part.residency, digest=part.digest or "")
    try:
        return rows.fetch(artifact, only=region).read_bytes()
    finally:
        shutil.rmtree(folder)


def test_a_change_of_two_percent_sends_no_more_than_five_percent(world: FeatureFleet) -> None:
    source = Source(world, ROWS)
    (base,) = world.snapshot(as_of=day(5)).artifacts
    source.change(0.02, at=day(6))
    (changed,) = world.snapshot(as_of=day(7)).artifacts
    assert (base.deltas, changed.deltas) == (0, 1)
    assert 0 < (changed.sent_bytes or 0) <= 0.05 * (base.sent_bytes or 0)
    # And no more between regions.
    moved = {row.subject: row.moved_bytes for row in world.fleet.ledger("replicate")}
    assert 0 < moved[changed.digest or ""] <= 0.05 * moved[base.digest or ""]


def test_rows_that_are_there_already_are_not_written_again(world: FeatureFleet) -> None:
    source = Source(world, 400)
    first = world.snapshot(as_of=day(5))
    source.change(0.05, at=day(6))
    between = world.snapshot(as_of=day(7))
    again = world.snapshot(as_of=day(5.5))
    # The source of then is gone, so what was known as of day 5 is not what it was.
    assert again.artifacts[0].rows_digest != first.artifacts[0].rows_digest
    same = world.snapshot(as_of=day(7.5))
    assert same.digest != between.digest
    assert same.artifacts[0].digest == between.artifacts[0].digest
    assert (same.artifacts[0].sent_bytes, between.artifacts[0].sent_bytes) != (0, 0)
    assert same.artifacts[0].sent_bytes == 0


def test_compaction_changes_no_row(world: FeatureFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "MOST_DELTA_SHARE", 9.0)
    source = Source(world, 400)
    world.snapshot(as_of=day(5))
    source.change(0.05, at=day(6))
    in_deltas = world.snapshot(as_of=day(7))
    # Elsewhere, the same rows are a base.
    (world.fleet.root / "elsewhere").mkdir()
    with open_feature_fleet(world.fleet.root / "elsewhere", names=("virginia",)) as other:
        shutil.copy(world.sources / "cells.parquet", other.sources / "cells.parquet")
        other.apply([patient(), view(other.sources / "cells.parquet"), service(views={"cells": FEATURES})])
        compacted = other.snapshot(as_of=day(7))
    one, another = in_deltas.artifacts[0], compacted.artifacts[0]
    assert (one.deltas, another.deltas) == (1, 0)
    assert one.digest != another.digest
    assert one.rows_digest == another.rows_digest


def test_a_snapshot_outlives_the_one_that_it_stands_upon(world: FeatureFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "MOST_DELTA_SHARE", 9.0)
    source = Source(world, 400)
    first = world.snapshot(as_of=day(5))
    source.change(0.05, at=day(6))
    second = world.snapshot(as_of=day(7))
    expected = read_now(world, day(7), "second.parquet")
    assert second.artifacts[0].deltas == 1
    fleet = world.fleet
    for _ in range(4):
        with fleet.database.write() as session:
            gone = ReplicaRow.artifact_digest == first.artifacts[0].digest
            session.execute(update(ReplicaRow).where(gone).values(is_wanted=False))
        for location in ("virginia", "eemshaven"):
            Upkeeps(fleet.database, fleet.clock).request(ADMIN, "collect", location=location, scope={})
        fleet.run()
        fleet.clock.advance(GRACE + timedelta(minutes=1))
    for region in (US, EU):
        assert restore(world, second, region, "second") == expected
