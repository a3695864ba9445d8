"""Test vectors of segments of logs, and of the ids of rows that come without one."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fairlead.core.errors import FeatureRowsInvalid
from fairlead.featurestore.event_log import EventLog
from fairlead.featurestore.log_segments import write_segment
from fairlead.featurestore.pushed_rows import check_rows, columns_of_json
from tests.featurestore.test_formats import VIEW

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = [
    {"patient_id": 7, "texture": 0.1, "note": "größe", "event_timestamp": "2026-03-01T11:00:00Z", "created": None},
    {"patient_id": 8, "texture": None, "note": None, "event_timestamp": "2026-03-01T11:00:00.5Z", "created": None},
]
parquet: Any = pq


def test_a_row_without_an_id_is_named_by_the_sha256_of_its_json() -> None:
    (checked,) = check_rows([VIEW], columns_of_json(ROWS), ids=None, now=NOW)
    written = (
        '{"created":null,"event_timestamp":1772362800000000,"note":"größe","patient_id":7,"texture":0.1}',
        '{"created":null,"event_timestamp":1772362800500000,"note":null,"patient_id":8,"texture":null}',
    )
    assert checked.ids == ["sha256:" + hashlib.sha256(each.encode()).hexdigest() for each in written]


def test_a_row_was_not_made_in_the_future() -> None:
    """No snapshot of the next years would have it."""
    late = {**ROWS[0], "created": "2036-03-01T12:00:00Z"}
    with pytest.raises(FeatureRowsInvalid, match="'created' lies in the future"):
        check_rows([VIEW], columns_of_json([late]), ids=None, now=NOW)


def test_a_segment_is_a_parquet_file_in_order_of_sequence(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path / "cells.log.sqlite", workspace_id="w", view="cells", region="gcp:europe-west4")
    (checked,) = check_rows([VIEW], columns_of_json(ROWS), ids=["a", "b"], now=NOW)
    log.append(checked.table, checked.ids, to=3, view_digest=VIEW.digest, principal="ana", now=NOW)
    batch = log.read()
    log.close()
    assert batch is not None
    write_segment(tmp_path / "rows.parquet", VIEW, batch.rows)
    found = parquet.read_table(tmp_path / "rows.parquet")
    assert [f"{field.name} {field.type}" for field in found.schema] == [
        "__sequence int64",
        "__event string",
        "__accepted_at timestamp[us, tz=UTC]",
        "__to int8",
        "patient_id int64",
        "note string",
        "texture double",
        "event_timestamp timestamp[us, tz=UTC]",
        "created timestamp[us, tz=UTC]",
    ]
    assert found.schema.metadata == {b"fairlead.log": b"1"}
    assert found.select(["__sequence", "__event", "__to"]).to_pylist() == [
        {"__sequence": 1, "__event": "a", "__to": 3},
        {"__sequence": 2, "__event": "b", "__to": 3},
    ]
    assert found.column("created").to_pylist() == [NOW, NOW]
    # The same rows give the same bytes, and so the same artifact.
    write_segment(tmp_path / "again.parquet", VIEW, batch.rows)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "rows.parquet").read_bytes()
    column = parquet.ParquetFile(tmp_path / "rows.parquet").metadata.row_group(0).column(0)
    assert (column.compression, "PLAIN" in column.encodings) == ("UNCOMPRESSED", True)
