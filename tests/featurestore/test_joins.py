"""The point-in-time join, against a plain Python reading of its definition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.errors import InvalidInput
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.joins import ViewRows, join_point_in_time
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.services import Projection, ServiceDefinition
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition
from fairlead.featurestore.sources import Sources

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
FAR = EPOCH + timedelta(days=3650)
arrow: Any = pa
parquet: Any = pq

# Few values, so that keys meet, times tie and rows repeat.
keys = st.integers(0, 2)
moments = st.integers(0, 6).map(lambda hours: EPOCH + timedelta(hours=hours))
values = st.none() | st.sampled_from([-1.5, -0.0, 0.0, 2.0])
rows = st.lists(st.tuples(keys, moments, st.none() | moments, values), max_size=25)
entity_rows = st.lists(st.tuples(st.none() | keys, st.none() | moments), max_size=15)
ttls = st.none() | st.integers(1, 4)


def view_of(path: Path, *, ttl_hours: int | None = None) -> ViewDefinition:
    return ViewDefinition(
        name="cells",
        entities=("patient",),
        keys=(Column(name="patient_id", type="INT64"),),
        features=(Column(name="radius", type="DOUBLE"),),
        source=SourceDefinition(
            place=ParquetFiles(uri=str(path)),
            timestamp_field="measured_at",
            created_timestamp_column="created_at",
            field_mapping={},
        ),
        ttl_seconds=None if ttl_hours is None else str(ttl_hours * 3600),
        residency=UNRESTRICTED,
    )


SERVICE = ServiceDefinition(
    name="diagnosis",
    projections=(Projection(view="cells", alias="cells", features=("radius",), join_key_map={}),),
)


def write_source(path: Path, found: list[tuple[int, datetime, datetime | None, float | None]]) -> None:
    times = arrow.timestamp("us", tz="UTC")
    table = arrow.table(
        {
            "patient_id": arrow.array([row[0] for row in found], arrow.int64()),
            "measured_at": arrow.array([row[1] for row in found], times),
            "created_at": arrow.array([row[2] for row in found], times),
            "radius": arrow.array([row[3] for row in found], arrow.float64()),
        }
    )
    parquet.write_table(table, path)


def entity_table(found: list[tuple[int | None, datetime | None]]) -> Any:
    return arrow.table(
        {
            "label": arrow.array(range(len(found)), arrow.int64()),
            "patient_id": arrow.array([row[0] for row in found], arrow.int64()),
            "event_timestamp": arrow.array([row[1] for row in found], arrow.timestamp("us", tz="UTC")),
        }
    )


def reference_join(
    entities: list[tuple[int | None, datetime | None]],
    found: list[tuple[int, datetime, datetime | None, float | None]],
    ttl_hours: int | None,
) -> list[float | None]:
    """What the join means, one entity row at a time."""
    answer: list[float | None] = []
    for key, moment in entities:
        known = [row for row in found if moment is not None and row[0] == key and row[1] <= moment]
        last = max(
            known,
            key=lambda row: (row[1], row[2] is not None, row[2] or EPOCH, row[3] is not None, row[3] or 0.0),
            default=None,
        )
        is_stale = ttl_hours is not None and moment is not None and last is not None
        if last is None or (is_stale and moment - last[1] > timedelta(hours=ttl_hours or 0)):  # type: ignore[operator]
            answer.append(None)
        else:
            answer.append(last[3])
    return answer


@given(found=rows, entities=entity_rows, ttl_hours=ttls)
def test_the_join_gives_what_was_last_known_and_keeps_every_row_in_order(
    found: list[tuple[int, datetime, datetime | None, float | None]],
    entities: list[tuple[int | None, datetime | None]],
    ttl_hours: int | None,
) -> None:
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        view = view_of(scratch / "source.parquet", ttl_hours=ttl_hours)
        write_source(scratch / "source.parquet", found)
        write_rows(view, as_of=FAR, sources=Sources(), destination=scratch / "rows.parquet", scratch=scratch)
        joined = join_point_in_time(
            entity_table(entities),
            SERVICE,
            {"cells": [ViewRows(view=view, path=scratch / "rows.parquet")]},
            scratch=scratch,
        )
    assert joined.column("label").to_pylist() == list(range(len(entities)))
    assert joined.column("radius").to_pylist() == reference_join(entities, found, ttl_hours)


@given(found=rows, later=rows, ttl_hours=ttls)
def test_what_happens_later_never_changes_what_was_known(
    found: list[tuple[int, datetime, datetime | None, float | None]],
    later: list[tuple[int, datetime, datetime | None, float | None]],
    ttl_hours: int | None,
) -> None:
    entities = entity_table([(key, EPOCH + timedelta(hours=6)) for key in range(3)])
    future = [(key, moment + timedelta(hours=7), created, value) for key, moment, created, value in later]
    answers: list[list[float | None]] = []
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        view = view_of(scratch / "source.parquet", ttl_hours=ttl_hours)
        for history in (found, found + future):
            write_source(scratch / "source.parquet", history)
            write_rows(view, as_of=FAR, sources=Sources(), destination=scratch / "rows.parquet", scratch=scratch)
            views = {"cells": [ViewRows(view=view, path=scratch / "rows.parquet")]}
            joined = join_point_in_time(entities, SERVICE, views, scratch=scratch)
            answers.append(joined.column("radius").to_pylist())
    assert answers[0] == answers[1]


@given(found=rows, seed=st.randoms(use_true_random=False))
def test_the_same_rows_in_any_order_are_the_same_bytes(
    found: list[tuple[int, datetime, datetime | None, float | None]], seed: Any
) -> None:
    shuffled = list(found)
    seed.shuffle(shuffled)
    written: list[bytes] = []
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        view = view_of(scratch / "source.parquet")
        for order in (found, shuffled):
            write_source(scratch / "source.parquet", order)
            write_rows(view, as_of=FAR, sources=Sources(), destination=scratch / "rows.parquet", scratch=scratch)
            written.append((scratch / "rows.parquet").read_bytes())
    assert written[0] == written[1]


def prepare(folder: Path, **columns: Any) -> tuple[Any, dict[str, list[ViewRows]]]:
    view = view_of(folder / "source.parquet")
    write_source(folder / "source.parquet", [(1, EPOCH, None, 2.0)])
    write_rows(view, as_of=FAR, sources=Sources(), destination=folder / "rows.parquet", scratch=folder)
    return arrow.table(columns), {"cells": [ViewRows(view=view, path=folder / "rows.parquet")]}


def test_whole_numbers_that_pandas_made_floats_still_match(tmp_path: Path) -> None:
    entities, views = prepare(tmp_path, patient_id=[1.0, float("nan")], event_timestamp=[EPOCH, EPOCH])
    assert join_point_in_time(entities, SERVICE, views, scratch=tmp_path).column("radius").to_pylist() == [2.0, None]


def test_a_time_without_a_zone_is_utc(tmp_path: Path) -> None:
    naive = [EPOCH.replace(tzinfo=None), EPOCH.replace(tzinfo=None) - timedelta(microseconds=1)]
    entities, views = prepare(tmp_path, patient_id=[1, 1], event_timestamp=naive)
    assert join_point_in_time(entities, SERVICE, views, scratch=tmp_path).column("radius").to_pylist() == [2.0, None]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"event_timestamp": [EPOCH]}, "no column 'patient_id'"),
        ({"patient_id": [1]}, "no column 'event_timestamp'"),
        ({"patient_id": [1], "event_timestamp": ["soon"]}, "not a time"),
        ({"patient_id": ["one"], "event_timestamp": [EPOCH]}, "no INT64 key"),
        ({"patient_id": [1.5], "event_timestamp": [EPOCH]}, "no INT64 key"),
        ({"patient_id": [1], "event_timestamp": [EPOCH], "radius": [0]}, "already have a column 'radius'"),
    ],
)
def test_entity_rows_that_cannot_be_joined_are_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    entities, views = prepare(tmp_path, **columns)
    with pytest.raises(InvalidInput, match=message):
        join_point_in_time(entities, SERVICE, views, scratch=tmp_path)
