"""Rows digests, bases and deltas are what `docs/reference/format.md` says, read with the standard library alone."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fairlead.core.canonical import canonical_json
from fairlead.featurestore import stored_rows
from fairlead.featurestore.definitions import Column
from fairlead.featurestore.row_files import RowWriter, WrittenRows, arrow_schema
from fairlead.featurestore.snapshots import record_of
from fairlead.featurestore.stored_rows import StoredRows, read_stored, write_base, write_successor
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from tests.featurestore.parquet_reader import read_parquet

arrow: Any = pa
COLUMNS = [
    Column(name="patient_id", type="INT64"),
    Column(name="note", type="STRING"),
    Column(name="texture", type="DOUBLE"),
    Column(name="event_timestamp", type="UNIX_TIMESTAMP"),
]
OLD = [(1, "a", 0.5, 0), (1, None, -0.0, 1), (2, "b", 1.0, 0), (3, "c", None, 0), (3, "c", None, 0)]
# One row has another text, one of two equal rows is gone, and one comes before all others.
NEW = [(0, "é", 2.0, 0), (1, "a", 0.5, 0), (1, None, -0.0, 1), (2, "bb", 1.0, 0), (3, "c", None, 0)]
OLD_DIGEST = "sha256:22e7e9a2d1ecd070a83ed9c10d8e1c10094ccd8202f164166363de9096bea294"
NEW_DIGEST = "sha256:96673eb7413a59987eaad819e990f6b4a5b059024abfee7b7301122eb2d6feba"
MIXED_DIGEST = "sha256:b1c2514eec3ce9c98a391dfbe995d24fe990b8fee990ef3f87e9c96b5635b7ea"
RECORD_DIGEST = "sha256:ffcabf445baf1402d9f0588f362c264d53df199c3bf709e1085679b595a96fdb"


def start(day: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)


def micros(day: int) -> int:
    return 1_767_225_600_000_000 + day * 86_400_000_000


def write(path: Path, rows: list[Any], columns: list[Column] = COLUMNS) -> WrittenRows:
    named = [dict(zip((column.name for column in columns), row, strict=True)) for row in rows]
    with RowWriter(path, columns) as writer:
        writer.write(arrow.Table.from_pylist(named, schema=arrow_schema(columns)))
        return writer.finish()


def rows_digest(columns: list[tuple[str, str]], rows: list[tuple[Any, ...]]) -> str:
    """The digest of fewer rows than a group has, by the words of the format's description."""
    header = json.dumps(
        [{"name": name, "type": kind} for name, kind in columns], separators=(",", ":"), sort_keys=True
    ).encode()
    found = b"fairlead/rows\x00\x01" + struct.pack("<I", len(header)) + header + struct.pack("<I", len(rows))
    for index, (_, kind) in enumerate(columns):
        found += column_bytes([row[index] for row in rows], kind)
    return "sha256:" + hashlib.sha256(found).hexdigest()


def column_bytes(values: list[Any], kind: str) -> bytes:
    found = bytes(value is not None for value in values)
    if kind.endswith("_LIST"):
        found += b"".join(struct.pack("<I", len(value or ())) for value in values)
        return found + column_bytes([item for value in values for item in value or ()], kind.removesuffix("_LIST"))
    if kind in {"STRING", "BYTES"}:
        found += b"".join(struct.pack("<I", len(value or b"")) for value in values)
        return found + b"".join(value or b"" for value in values)
    code = {"INT32": "<i", "INT64": "<q", "UNIX_TIMESTAMP": "<q", "FLOAT": "<f", "DOUBLE": "<d", "BOOL": "<B"}[kind]
    return found + b"".join(struct.pack(code, value or 0 if value != 0 else value) for value in values)


def plain(rows: list[Any]) -> list[tuple[Any, ...]]:
    return [(key, None if note is None else note.encode(), texture, micros(day)) for key, note, texture, day in rows]


def typed(rows: list[Any]) -> list[Any]:
    return [(key, note, texture, start(day)) for key, note, texture, day in rows]


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredRows:
    monkeypatch.setattr(stored_rows, "MOST_DELTA_SHARE", 9.0)
    write(tmp_path / "old.parquet", typed(OLD))
    written = write(tmp_path / "new.parquet", typed(NEW))
    base = tmp_path / "base"
    base.mkdir()
    (tmp_path / "old.parquet").rename(base / "rows.parquet")
    assert write_base(base / "rows.parquet").files == {"rows.parquet": base / "rows.parquet"}
    made = tmp_path / "made"
    made.mkdir()
    successor = write_successor(
        read_stored(base),
        base / "rows.parquet",
        tmp_path / "new.parquet",
        written,
        made,
        by=["patient_id", "event_timestamp"],
    )
    for name, path in successor.files.items():
        if path.parent != made:
            (made / name).write_bytes(path.read_bytes())
    return read_stored(made)


def test_rows_are_named_by_their_values(tmp_path: Path) -> None:
    named = [(column.name, column.type) for column in COLUMNS]
    for rows, expected in ((OLD, OLD_DIGEST), (NEW, NEW_DIGEST)):
        assert write(tmp_path / "rows.parquet", typed(rows)).digest == expected
        assert rows_digest(named, plain(rows)) == expected


def test_values_of_every_type_are_in_the_digest(tmp_path: Path) -> None:
    kinds = ["INT32", "INT64", "FLOAT", "DOUBLE", "STRING", "BYTES", "BOOL", "UNIX_TIMESTAMP", "INT32_LIST"]
    kinds += ["STRING_LIST", "BOOL_LIST", "UNIX_TIMESTAMP_LIST"]
    values = [-7, 2**40, 0.5, -0.0, "é", b"\x00", True, start(1), [1, None], ["", "x"], [False], [start(0)]]
    raw = [-7, 2**40, 0.5, -0.0, "é".encode(), b"\x00", 1, micros(1), [1, None], [b"", b"x"], [0], [micros(0)]]
    columns = [Column(name=f"c{index}", type=kind) for index, kind in enumerate(kinds)]
    named = [(column.name, column.type) for column in columns]
    nothing = [None] * len(kinds)
    written = write(tmp_path / "rows.parquet", [values, nothing], columns)
    assert written.digest == rows_digest(named, [tuple(raw), tuple(nothing)]) == MIXED_DIGEST


def test_a_delta_says_where_rows_go_and_come(stored: StoredRows) -> None:
    index = json.dumps(
        {"deltas": 1, "format": "fairlead/rows", "rows": 5, "rows_digest": NEW_DIGEST, "version": 2},
        separators=(",", ":"),
    )
    assert (stored.folder / "rows.json").read_bytes() == index.encode()
    assert sorted(path.name for path in stored.folder.iterdir()) == [
        "base.parquet",
        "delta-0001.added.parquet",
        "delta-0001.removed.parquet",
        "rows.json",
    ]
    removed = read_parquet(stored.folder / "delta-0001.removed.parquet")
    added = read_parquet(stored.folder / "delta-0001.added.parquet")
    assert removed.schema == [("__kept", "INT64", None)]
    assert [name for name, _, _ in added.schema] == ["__kept", *(column.name for column in COLUMNS)]
    # Kept are rows 0, 1 and one of 3 and 4.
    assert removed.rows == [(2,), (1,)]
    assert added.rows == [(0, *plain(NEW)[0]), (2, *plain(NEW)[3])]


def test_a_base_and_its_deltas_are_read_by_counting(stored: StoredRows) -> None:
    rows = read_parquet(stored.folder / "base.parquet").rows
    removed = read_parquet(stored.folder / "delta-0001.removed.parquet").rows
    added = read_parquet(stored.folder / "delta-0001.added.parquet").rows
    kept: list[tuple[Any, ...]] = []
    for (gap,) in removed:
        kept += rows[:gap]
        rows = rows[gap + 1 :]
    kept += rows
    found: list[tuple[Any, ...]] = []
    for gap, *row in added:
        found += kept[:gap]
        kept = kept[gap:]
        found.append(tuple(row))
    found += kept
    assert found == plain(NEW)


def test_a_snapshot_of_named_rows_is_named_by_its_second_record() -> None:
    snapshot = SnapshotRow(service="diagnosis", service_digest="sha256:" + "d" * 64, as_of=start(60))
    digests = {"view_digest": "sha256:" + "c" * 64, "artifact_digest": "sha256:" + "a" * 64, "rows_digest": NEW_DIGEST}
    part = SnapshotPartRow(view="cells", residency="eu", row_count=5, features=["texture", "note"], **digests)
    record = (
        '{"artifacts":[{"digest":"sha256:' + "a" * 64 + '","features":["note","texture"],"residency":"eu","rows":5,'
        '"rows_digest":"' + NEW_DIGEST + '","view":"cells","view_digest":"sha256:' + "c" * 64 + '"}],'
        '"as_of":"2026-03-02T00:00:00.000000Z","service":"diagnosis","service_digest":"sha256:' + "d" * 64 + '",'
        '"version":2}'
    ).encode()
    assert canonical_json(record_of(snapshot, [part])) == record
    assert "sha256:" + hashlib.sha256(record).hexdigest() == RECORD_DIGEST
