"""Snapshots: what they hold, and how they fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.canonical import canonical_json
from fairlead.core.errors import InvalidInput, LocationNotFound, NotReady, ResidencyViolation, SnapshotNotFound
from fairlead.core.ids import sha256_digest
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.duck import fetch_number, limit_threads, open_duckdb
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.snapshots import record_of, snapshot_parts
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.tables import SnapshotRow
from fairlead.registry.paging import PageRequest
from tests.featurestore.feature_fleet import (
    FeatureFleet,
    cells_view,
    day,
    entity_rows,
    genes_view,
    open_feature_fleet,
    patient,
    service,
    view_spec,
)
from tests.fleet import ADMIN

arrow: Any = pa
parquet: Any = pq
ONLY_CELLS = {"cells": [("radius", "FLOAT")]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path, names=("virginia",)) as fleet:
        fleet.cells([(1, 0, 1.0), (1, 2, float("nan")), (2, 3, 2.5)])
        fleet.apply([patient(), cells_view(fleet.sources / "cells.parquet"), service(views=ONLY_CELLS)])
        yield fleet


def replace_source(world: FeatureFleet, **columns: Any) -> None:
    parquet.write_table(arrow.table(columns), world.sources / "cells.parquet")


def test_the_digest_is_that_of_the_canonical_record(world: FeatureFleet) -> None:
    snapshot = world.snapshot(as_of=day(5))
    with world.fleet.database.read() as session:
        row = session.get_one(SnapshotRow, (ADMIN.workspace_id, snapshot.id))
        record = record_of(row, snapshot_parts(session, row))
    assert snapshot.digest == sha256_digest(canonical_json(record))
    assert record["as_of"] == "2026-02-24T12:00:00.000000Z"
    (part,) = snapshot.artifacts
    assert part.statistics == {
        "rows": 3,
        "left_out": 0,
        "min_event_time": "2026-02-19T12:00:00.000000Z",
        "max_event_time": "2026-02-22T12:00:00.000000Z",
        "nulls": {"radius": 1},
        "columns": {
            "patient_id": pytest.approx(
                {"type": "INT64", "distinct": 2, "min": 1, "max": 2, "mean": 4 / 3, "deviation": sqrt(2) / 3}
            ),
            "radius": {"type": "FLOAT", "distinct": 2, "min": 1.0, "max": 2.5, "mean": 1.75, "deviation": 0.75},
        },
    }
    assert world.store.snapshots.get(ADMIN, snapshot.digest or "").id == snapshot.id
    assert [each.id for each in world.store.snapshots.list(ADMIN, PageRequest(), service="diagnosis").items] == [
        snapshot.id
    ]
    assert {"snapshot.take", "snapshot.ready"} <= set(world.fleet.actions())
    assert [row.subject for row in world.fleet.ledger("upload")] == [part.digest]


def test_rows_that_were_written_down_later_are_not_known_yet(world: FeatureFleet) -> None:
    source = {
        "timestampField": "event_timestamp",
        "createdTimestampColumn": "created",
        "fileOptions": {"uri": str(world.sources / "cells.parquet")},
    }
    world.apply([cells_view(world.sources / "cells.parquet", batchSource=source)])
    times = [day(1), day(1), day(2)]
    replace_source(
        world, patient_id=[1, 1, 1], event_timestamp=times, created=[day(1), day(6), day(2)], radius=[1.0, 7, 2]
    )
    assert [part.rows for part in world.snapshot(as_of=day(5)).artifacts] == [2]
    latest = world.snapshot(as_of=day(7))
    joined = world.store.historical.join(ADMIN, entity_rows([(1, 1)]), snapshot=latest.digest)
    assert joined.rows.column("radius").to_pylist() == [7.0]


def test_rows_without_key_or_time_are_left_out_and_counted(world: FeatureFleet) -> None:
    replace_source(world, patient_id=[1, None, 3], event_timestamp=[day(1), day(1), None], radius=[1.0, 2.0, 3.0])
    (part,) = world.snapshot().artifacts
    assert (part.rows, (part.statistics or {})["left_out"]) == (1, 2)


def test_columns_are_brought_to_the_types_of_the_definition(world: FeatureFleet) -> None:
    # As pandas writes them: nanoseconds without a zone, and whole numbers as floats.
    replace_source(
        world,
        patient_id=[1.0, 2.0],
        event_timestamp=arrow.array([1_771_600_000_000_000_000] * 2, arrow.timestamp("ns")),
        radius=["1.5", None],
    )
    snapshot = world.snapshot()
    assert (snapshot.state, snapshot.error_detail) == ("READY", None)


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "INT64", "STRING"])
@pytest.mark.parametrize("given", [arrow.float32(), arrow.float64()], ids=str)
@pytest.mark.parametrize("numbers", [[], [1.0], [1.0, 3.0]], ids=len)
def test_what_is_not_a_number_is_missing(tmp_path: Path, kind: str, given: Any, numbers: list[float]) -> None:
    """Also where a Parquet file's statistics, which leave NaN out, say that there can be none."""
    found = arrow.array([*numbers, float("nan")], given)
    times = arrow.array([day(0)] * len(found), arrow.timestamp("us", tz="UTC"))
    parquet.write_table(
        arrow.table({"patient_id": range(len(found)), "event_timestamp": times, "radius": found}), tmp_path / "source"
    )
    view = ViewDefinition(
        name="cells",
        entities=("patient",),
        keys=(Column(name="patient_id", type="INT64"),),
        features=(Column(name="radius", type=kind),),
        source=SourceDefinition(
            place=ParquetFiles(uri=str(tmp_path / "source")),
            timestamp_field="event_timestamp",
            created_timestamp_column=None,
            field_mapping={},
        ),
        ttl_seconds=None,
        residency=UNRESTRICTED,
    )
    rows = tmp_path / "rows.parquet"
    written = write_rows(view, as_of=day(5), sources=Sources(), destination=rows, scratch=tmp_path)
    assert written.nulls == {"radius": 1}
    assert parquet.read_table(rows).column("radius").to_pylist()[-1] is None
    # Nor is it a key.
    view = replace(view, keys=(Column(name="radius", type="INT64"),), features=(Column(name="patient_id", type=kind),))
    written = write_rows(view, as_of=day(5), sources=Sources(), destination=rows, scratch=tmp_path)
    assert (written.rows, written.left_out) == (len(numbers), 1)


def test_statistics_tell_only_what_can_be_written(world: FeatureFleet) -> None:
    far = arrow.array([-(2**57), 2**62, 0], arrow.timestamp("us", tz="UTC"))
    radius = [("radius", "UNIX_TIMESTAMP")]
    world.apply([view_spec("cells", radius, world.sources / "cells.parquet"), service(views={"cells": radius})])
    replace_source(world, patient_id=[1, 2, 3], event_timestamp=far, radius=far)
    snapshot = world.snapshot()
    assert (snapshot.state, snapshot.error_detail) == ("READY", None)
    statistics = snapshot.artifacts[0].statistics or {}
    assert (statistics["rows"], statistics["min_event_time"]) == (2, "1970-01-01T00:00:00.000000Z")
    assert statistics["columns"]["radius"]["max"] == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"patient_id": [1], "event_timestamp": [day(1)]}, "has no column 'radius'"),
        ({"patient_id": [1], "event_timestamp": [day(1)], "radius": ["wide"]}, "cannot be read as FLOAT in 1 row"),
        ({"patient_id": [1.5], "event_timestamp": [day(1)], "radius": [1.0]}, "cannot be read as INT64 in 1 row"),
        ({"patient_id": [1], "event_timestamp": [17], "radius": [1.0]}, "cannot be read as a time"),
        ({"patient_id": [1], "event_timestamp": [day(1)], "radius": [[1.0]]}, "cannot be read as FLOAT"),
    ],
)
def test_a_source_that_does_not_fit_fails_and_says_why(
    world: FeatureFleet, columns: dict[str, Any], detail: str
) -> None:
    replace_source(world, **columns)
    snapshot = world.snapshot()
    assert (snapshot.state, snapshot.error_code, snapshot.digest) == ("FAILED", "feature-source-invalid", None)
    assert detail in (snapshot.error_detail or "")
    assert "wide" not in (snapshot.error_detail or "")
    assert "snapshot.fail" in world.fleet.actions()
    with pytest.raises(NotReady, match="FAILED"):
        world.store.historical.join(ADMIN, entity_rows([(1, 4)]), snapshot=snapshot.id)


def test_a_missing_file_and_one_that_is_no_parquet_fail_and_say_so(world: FeatureFleet) -> None:
    path = world.sources / "cells.parquet"
    path.write_bytes(b"patient_id,radius\n1,2\n")
    assert "cannot be read as Parquet" in (world.snapshot().error_detail or "")
    path.unlink()
    assert "has no file" in (world.snapshot().error_detail or "")
    world.cells([(1, 0, 1.0)])
    assert world.snapshot().state == "READY"
    assert not list((world.fleet.root / "features" / "scratch").iterdir())


def test_files_outside_the_source_roots_are_not_read(world: FeatureFleet) -> None:
    outside = world.fleet.root / "outside.parquet"
    (world.sources / "cells.parquet").rename(outside)
    (world.sources / "link.parquet").symlink_to(outside)
    for path in (outside, world.sources / ".." / "outside.parquet", world.sources / "link.parquet"):
        world.apply([cells_view(path)])
        snapshot = world.snapshot()
        assert (snapshot.state, snapshot.error_code) == ("FAILED", "permission-denied")


def test_what_cannot_be_taken_is_refused_at_once(world: FeatureFleet) -> None:
    with pytest.raises(InvalidInput, match="has not come yet"):
        world.store.snapshots.take(ADMIN, "diagnosis", as_of=day(11))
    with pytest.raises(SnapshotNotFound):
        world.store.snapshots.get(ADMIN, "sha256:" + "0" * 64)
    with pytest.raises(SnapshotNotFound):
        world.store.snapshots.get(ADMIN, "nonsense")
    world.apply([genes_view(world.sources / "genes.parquet"), service()])
    with pytest.raises(ResidencyViolation, match="'genes'"):
        world.store.snapshots.take(ADMIN, "diagnosis")


def test_without_a_location_the_error_says_how_to_add_one(tmp_path: Path) -> None:
    with open_feature_fleet(tmp_path, names=()) as world:
        world.apply([patient(), cells_view(world.sources / "cells.parquet"), service(views=ONLY_CELLS)])
        with pytest.raises(LocationNotFound, match="fairlead location add"):
            world.store.snapshots.take(ADMIN, "diagnosis")


def test_a_sort_takes_few_of_the_threads_of_a_large_machine(tmp_path: Path) -> None:
    with open_duckdb(tmp_path) as connection:
        connection.execute("SET threads = 64")
        for most in (4, 8):
            limit_threads(connection, most)
            assert fetch_number(connection, "SELECT current_setting('threads')") == 4
