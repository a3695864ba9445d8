"""Any snapshot restores anywhere to the rows that its source had: whatever became of the source, and of the view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import copysign, isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.core.errors import ReplicaUnavailable
from fairlead.featurestore import row_deltas, row_files, stored_rows
from fairlead.featurestore.replica_rows import ArtifactName, ReplicaRows
from fairlead.featurestore.snapshots import Snapshot, SnapshotPart
from tests.featurestore.feature_fleet import FeatureFleet, day, open_feature_fleet, patient, service, view_spec
from tests.fleet import ADMIN, REGIONS

arrow: Any = pa
parquet: Any = pq
US, EU = REGIONS["virginia"], REGIONS["eemshaven"]

# A view's features: those that go everywhere, and one that stays in the EU.
TYPES = {"mass": "DOUBLE", "note": "STRING", "sizes": "DOUBLE_LIST", "ward": "STRING"}
EVERY_TYPE = {
    "patient_id": arrow.int64(),
    "event_timestamp": arrow.timestamp("us", tz="UTC"),
    "created": arrow.timestamp("us", tz="UTC"),
    "mass": arrow.float64(),
    "note": arrow.string(),
    "sizes": arrow.list_(arrow.float64()),
    "ward": arrow.string(),
}
Row = Mapping[str, Any]

# Few values, so that keys meet, times tie and rows repeat.
floats = st.sampled_from([-1.5, -0.0, 0.0, float("nan"), float("inf")])
texts = st.none() | st.sampled_from(["", "a", "é"])
moments = st.integers(0, 4).map(day)
rows = st.fixed_dictionaries(
    {
        "patient_id": st.none() | st.integers(0, 2),
        "event_timestamp": st.none() | moments,
        "created": st.none() | moments,
        "mass": st.none() | floats,
        "note": texts,
        "sizes": st.none() | st.lists(st.none() | st.sampled_from([-1.5, 2.0]), max_size=2),
        "ward": texts,
    }
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens before a snapshot is taken: rows come, go and change, and the view has other features."""

    come: list[Row]
    go: list[int]
    change: list[tuple[int, Row]]
    features: frozenset[str]
    as_of: datetime


steps = st.builds(
    Step,
    come=st.lists(rows, max_size=12),
    go=st.lists(st.integers(0, 20), max_size=2),
    change=st.lists(st.tuples(st.integers(0, 20), rows), max_size=3),
    # Most snapshots are of the version before.
    features=st.just(frozenset(TYPES)) | st.frozensets(st.sampled_from(sorted(TYPES)), min_size=1),
    as_of=st.just(day(5)) | moments,
)


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of a few rows, and deltas of any size, of which there are few."""
    monkeypatch.setattr(row_files, "ROW_GROUP", 4)
    monkeypatch.setattr(row_deltas, "ROW_GROUP", 4)
    monkeypatch.setattr(stored_rows, "MOST_DELTAS", 2)
    monkeypatch.setattr(stored_rows, "MOST_DELTA_SHARE", 1e9)


@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(steps, min_size=2, max_size=5))
def test_any_snapshot_of_any_history_restores_anywhere_to_what_its_source_had(history: list[Step]) -> None:
    with TemporaryDirectory() as name, open_feature_fleet(Path(name)) as world:
        source: list[Row] = []
        taken: list[tuple[Snapshot, list[Row]]] = []
        for step in history:
            source = edited(source, step)
            taken.append((take(world, source, step), [row for row in source if is_known(row, step.as_of)]))
        for snapshot, found in taken:
            for part in snapshot.artifacts:
                expected = repr(in_order(found, part.features or ()))
                assert repr(restore(world, part, EU)) == expected
                if part.residency == "eu":
                    with pytest.raises(ReplicaUnavailable):
                        restore(world, part, US)
                else:
                    assert repr(restore(world, part, US)) == expected


def edited(source: list[Row], step: Step) -> list[Row]:
    changed = dict(step.change)
    kept = [changed.get(number, row) for number, row in enumerate(source) if number not in step.go]
    return kept + step.come


def take(world: FeatureFleet, source: list[Row], step: Step) -> Snapshot:
    path = world.sources / "cells.parquet"
    columns = {name: arrow.array([row[name] for row in source], kind) for name, kind in EVERY_TYPE.items()}
    parquet.write_table(arrow.table(columns), path)
    features = [(name, TYPES[name]) for name in sorted(step.features)]
    tagged = [
        {"name": name, "valueType": kind} | ({"tags": {"fairlead.residency": "eu"}} if name == "ward" else {})
        for name, kind in features
    ]
    batch = {
        "timestampField": "event_timestamp",
        "createdTimestampColumn": "created",
        "fileOptions": {"uri": str(path)},
    }
    view = view_spec("cells", features, path, batchSource=batch, features=tagged)
    world.apply([patient(), view, service(views={"cells": features})])
    snapshot = world.snapshot(as_of=step.as_of)
    assert (snapshot.state, snapshot.error_detail) == ("READY", None)
    return snapshot


def is_known(row: Row, as_of: datetime) -> bool:
    event, created = row["event_timestamp"], row["created"]
    return (
        row["patient_id"] is not None and event is not None and event <= as_of and (created is None or created <= as_of)
    )


def in_order(found: list[Row], features: tuple[str, ...]) -> list[list[Any]]:
    """Rows with some of their features, as a snapshot has them."""

    def value(each: Any) -> Any:
        return None if isinstance(each, float) and isnan(each) else each

    def rank(each: Any) -> tuple[Any, ...]:
        if isinstance(each, list):
            # Within lists, what is missing is greater than what is there.
            items = cast("list[float | None]", each)
            return (True, [(item is None, item or 0.0) for item in items])
        if isinstance(each, str):
            return (True, each.encode())
        return (False,) if each is None else (True, each, copysign(1, each))

    ordered = [
        [row["patient_id"], *(value(row[name]) for name in sorted(features)), row["event_timestamp"], row["created"]]
        for row in found
    ]
    return sorted(
        ordered,
        key=lambda row: (
            row[0],
            row[-2],
            (row[-1] is not None, row[-1] or day(0)),
            *(rank(each) for each in row[1:-2]),
        ),
    )


def restore(world: FeatureFleet, part: SnapshotPart, region: str) -> list[list[Any]]:
    """The rows of a part out of one region's replica, on a machine that has nothing yet."""
    fleet = world.fleet
    with TemporaryDirectory(dir=fleet.root) as folder:
        replicas = ReplicaRows(
            fleet.database, artifacts=fleet.artifacts, open_store=fleet.open_store, folder=Path(folder)
        )
        artifact = ArtifactName(workspace_id=ADMIN.workspace_id, residency=part.residency, digest=part.digest or "")
        table = parquet.read_table(replicas.fetch(artifact, only=region))
    return [
        [each.astimezone(UTC) if isinstance(each, datetime) else each for each in row.values()]
        for row in table.to_pylist()
    ]
