"""A base and its deltas hold the rows of every snapshot, whatever became of the source between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import copysign, isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.errors import CorruptSnapshot
from fairlead.featurestore import row_deltas, row_files, stored_rows
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.row_deltas import apply_delta, write_delta
from fairlead.featurestore.row_files import RowWriter, WrittenRows, iter_groups
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.stored_rows import (
    StoredRows,
    flatten,
    follows,
    read_stored,
    write_base,
    write_row_delta,
    write_successor,
)

arrow: Any = pa
parquet: Any = pq
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BY = ["patient_id", "measured_at"]

# Few values, so that keys meet, times tie and rows repeat.
moments = st.integers(0, 6).map(lambda hours: EPOCH + timedelta(hours=hours))
values = st.none() | st.sampled_from([-1.5, -0.0, 0.0, 2.0, float("nan"), float("inf")])
Row = tuple[int, datetime, datetime | None, float | None]
rows = st.tuples(st.integers(0, 3), moments, st.none() | moments, values)
sources = st.lists(rows, max_size=30)
# What a step does to the source: rows that come, those that go or change (by position), and as of when it is taken.
edits = st.tuples(st.lists(rows, max_size=6), st.lists(st.integers(0, 40), max_size=6), values, st.booleans(), moments)


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of a few rows, and deltas of any size, of which there are few."""
    monkeypatch.setattr(row_files, "ROW_GROUP", 4)
    monkeypatch.setattr(row_deltas, "ROW_GROUP", 4)
    monkeypatch.setattr(stored_rows, "MOST_DELTAS", 3)
    monkeypatch.setattr(stored_rows, "MOST_DELTA_SHARE", 1e9)


def view_of(path: Path) -> ViewDefinition:
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
        ttl_seconds=None,
        residency=UNRESTRICTED,
    )


def read_source(folder: Path, found: list[Row], as_of: datetime, name: str) -> tuple[Path, WrittenRows]:
    """The rows that a source has up to a time, as a file."""
    times = arrow.timestamp("us", tz="UTC")
    table = {
        "patient_id": arrow.array([row[0] for row in found], arrow.int64()),
        "measured_at": arrow.array([row[1] for row in found], times),
        "created_at": arrow.array([row[2] for row in found], times),
        "radius": arrow.array([row[3] for row in found], arrow.float64()),
    }
    parquet.write_table(arrow.table(table), folder / "source.parquet")
    view = view_of(folder / "source.parquet")
    statistics = write_rows(view, as_of=as_of, sources=Sources(), destination=folder / name, scratch=folder)
    return folder / name, statistics.written


def histories(found: list[Row], steps: list[Any]) -> Iterator[tuple[list[Row], datetime]]:
    """The source after each step, and as of when it is read."""
    yield found, EPOCH + timedelta(hours=6)
    for come, places, value, is_deleted, as_of in steps:
        for place in places:
            if place < len(found):
                found = [*found[:place], *([] if is_deleted else [(*found[place][:3], value)]), *found[place + 1 :]]
        found = [*found, *come]
        yield found, as_of


def known(found: list[Row], as_of: datetime) -> list[tuple[Any, ...]]:
    """What a snapshot has of a source's rows, and in which order."""

    def rank(row: tuple[Any, ...]) -> tuple[Any, ...]:
        key, radius, event, created = row
        sign = 0 if radius is None else copysign(1, radius)
        return key, event, created is not None, created or EPOCH, radius is not None, radius or 0.0, sign

    rows = [
        (key, None if radius is None or isnan(radius) else radius, event, created)
        for key, event, created, radius in found
        if event <= as_of and (created is None or created <= as_of)
    ]
    return sorted(rows, key=rank)


def put(files: dict[str, Path], folder: Path) -> StoredRows:
    """An artifact's files in a folder of their own, as a replica gives them."""
    folder.mkdir()
    for name, path in files.items():
        (folder / name).write_bytes(path.read_bytes())
    return read_stored(folder)


@settings(max_examples=25)
@given(found=sources, steps=st.lists(edits, max_size=6))
def test_every_snapshot_of_any_history_restores_to_the_rows_that_were_read(found: list[Row], steps: list[Any]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        stored: StoredRows | None = None
        flat_before = folder / "none"
        kept: list[tuple[StoredRows, Path, WrittenRows]] = []
        for number, (state, as_of) in enumerate(histories(found, steps)):
            flat, written = read_source(folder, state, as_of, f"{number}.parquet")
            assert repr([tuple(row.values()) for row in utc_rows(flat)]) == repr(known(state, as_of))
            made = folder / f"made-{number}"
            made.mkdir()
            successor = (
                write_base(flat) if stored is None else write_successor(stored, flat_before, flat, written, made, by=BY)
            )
            stored = put(dict(successor.files), folder / f"stored-{number}")
            assert stored.deltas == successor.deltas == number % 4  # every fourth one is a new base
            kept.append((stored, flat, written))
            flat_before = flat
        for stored, flat, written in kept:
            assert flatten(stored, folder / "flat.parquet") == written
            # Byte for byte what one base of these rows is.
            assert (folder / "flat.parquet").read_bytes() == flat.read_bytes()


@settings(max_examples=25)
@given(before=sources, after=sources)
def test_a_row_delta_is_what_one_state_has_more_and_less_than_another(before: list[Row], after: list[Row]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        last = EPOCH + timedelta(days=1)
        old, _ = read_source(folder, before, last, "old.parquet")
        new, _ = read_source(folder, after, last, "new.parquet")
        added, removed = folder / "added.parquet", folder / "removed.parquet"
        counts = write_row_delta(old, None, new, added=added, removed=removed)
        assert counts == (parquet.read_metadata(added).num_rows, parquet.read_metadata(removed).num_rows)
        one, other = texts(old), texts(new)
        for row in texts(removed):
            one.remove(row)
        assert sorted(one + texts(added)) == sorted(other)
        assert not set(texts(added)) & set(texts(removed))


def utc_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return [
        {name: each.astimezone(UTC) if isinstance(each, datetime) else each for name, each in row.items()}
        for row in rows
    ]


def texts(path: Path) -> list[str]:
    """Each row as a text that tells -0.0 from 0.0."""
    return [str(row) for row in utc_rows(path)]


MIXED = [
    Column(name="key", type="STRING"),
    Column(name="flag", type="BOOL"),
    Column(name="raw", type="BYTES"),
    Column(name="small", type="INT32"),
    Column(name="wide", type="FLOAT_LIST"),
    Column(name="words", type="STRING_LIST"),
    Column(name="times", type="UNIX_TIMESTAMP_LIST"),
    Column(name="at", type="UNIX_TIMESTAMP"),
]


def mixed(number: int, **changes: Any) -> dict[str, Any]:
    found = {
        "key": f"é{number}",
        "flag": None if number % 3 == 0 else number % 2 == 0,
        "raw": bytes([number % 7]) * (number % 3),
        "small": -number,
        "wide": None if number % 5 == 0 else [float(number), None, float("nan")][: number % 4],
        "words": ["", None, str(number)][: number % 4],
        "times": [EPOCH][: number % 2],
        "at": EPOCH + timedelta(minutes=number),
    }
    return found | changes


def test_rows_of_every_type_go_through_deltas(tmp_path: Path) -> None:
    old = [mixed(number) for number in range(10, 60)]
    new = [mixed(each, **({"wide": [float("nan")]} if each % 10 == 0 else {})) for each in range(10, 70) if each != 33]
    for name, found in (("old", old), ("new", new)):
        with RowWriter(tmp_path / f"{name}.parquet", MIXED) as writer:
            writer.write(arrow.Table.from_pylist(found, schema=row_files.arrow_schema(MIXED)))
            writer.finish()
    counts = write_delta(
        tmp_path / "old.parquet",
        tmp_path / "new.parquet",
        added=tmp_path / "added",
        removed=tmp_path / "removed",
        by=["key", "at"],
    )
    assert (counts.added, counts.removed) == (15, 6)
    rows = apply_delta(iter_groups(tmp_path / "old.parquet"), added=tmp_path / "added", removed=tmp_path / "removed")
    with RowWriter(tmp_path / "again.parquet", MIXED) as writer:
        for table in rows:
            writer.write(table)
        writer.finish()
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "new.parquet").read_bytes()


@pytest.mark.parametrize("value", [-0.0, 0.0, None])
def test_what_is_missing_is_no_value(tmp_path: Path, value: float | None) -> None:
    """Else the whole stretch of rows that it is in would be taken for changed."""
    last = EPOCH + timedelta(days=1)
    same: list[Row] = [(1, EPOCH + timedelta(hours=hour), None, 1.0) for hour in range(3)]
    old, _ = read_source(tmp_path, [*same, (2, EPOCH, None, None)], last, "old.parquet")
    new, _ = read_source(tmp_path, [*same, (2, EPOCH, None, value)], last, "new.parquet")
    counts = write_delta(old, new, added=tmp_path / "added", removed=tmp_path / "removed", by=BY)
    assert (counts.added, counts.removed) == ((0, 0) if value is None else (1, 1))


def two_states(folder: Path) -> tuple[StoredRows, StoredRows, Path, Path]:
    last = EPOCH + timedelta(days=1)
    old, _ = read_source(folder, [(1, EPOCH, None, 1.0), (2, EPOCH, None, 2.0)], last, "old.parquet")
    new, written = read_source(folder, [(1, EPOCH, None, 1.0), (2, EPOCH, None, 3.0)], last, "new.parquet")
    base = put(dict(write_base(old).files), folder / "base")
    successor = write_successor(base, old, new, written, folder, by=BY)
    return base, put(dict(successor.files), folder / "next"), old, new


def test_an_artifact_that_does_not_give_its_rows_is_refused(tmp_path: Path) -> None:
    _, stored, _, _ = two_states(tmp_path)
    index = stored.folder / "rows.json"
    said = json.loads(index.read_bytes())
    for damage in ({"version": 3}, {"deltas": 2}, {"deltas": 0}, {"rows": "many"}):
        index.write_text(json.dumps(said | damage))
        with pytest.raises(CorruptSnapshot, match="in a form that is known"):
            read_stored(stored.folder)
    index.write_text(json.dumps(said | {"rows_digest": "sha256:" + "0" * 64}))
    with pytest.raises(CorruptSnapshot, match="do not give the rows"):
        flatten(read_stored(stored.folder), tmp_path / "flat.parquet")
    index.write_text(json.dumps(said))
    (stored.folder / "delta-0001.added.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptSnapshot, match="do not give the rows"):
        flatten(read_stored(stored.folder), tmp_path / "flat.parquet")


def test_the_next_delta_says_by_itself_what_changed(tmp_path: Path) -> None:
    base, stored, old, new = two_states(tmp_path)
    assert follows(base, stored)
    assert not follows(stored, base)
    added, removed = tmp_path / "added.parquet", tmp_path / "removed.parquet"
    assert write_row_delta(old, stored, new, added=added, removed=removed) == (1, 1)
    assert [row["radius"] for row in parquet.read_table(added).to_pylist()] == [3.0]
    assert [row["radius"] for row in parquet.read_table(removed).to_pylist()] == [2.0]


def test_deltas_that_grow_too_large_are_folded_into_a_new_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "MOST_DELTA_SHARE", 0.5)
    last = EPOCH + timedelta(days=1)
    old, _ = read_source(tmp_path, [(1, EPOCH, None, 1.0)], last, "old.parquet")
    new, written = read_source(tmp_path, [(2, EPOCH, None, 1.0)], last, "new.parquet")
    base = put(dict(write_base(old).files), tmp_path / "base")
    successor = write_successor(base, old, new, written, tmp_path, by=BY)
    assert successor.files == {"rows.parquet": new}
