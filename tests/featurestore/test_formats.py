"""What is written today is what `docs/reference/format.md` says, computed here with the standard library alone.

A test that fails here says that a stored format changed: it needs another version, and a reader of the one before.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.catalog.residency import Residency
from fairlead.core.canonical import canonical_json
from fairlead.featurestore.definitions import Column, EntityDefinition, ViewDefinition, content_digest
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.online_engines import StoreContents, StoreName
from fairlead.featurestore.online_sqlite import OnlineFolder, SqliteEngine
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.services import Projection, ServiceDefinition
from fairlead.featurestore.snapshots import record_of
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from tests.featurestore.parquet_reader import ParquetFile, read_parquet

arrow: Any = pa
parquet: Any = pq

VIEW = ViewDefinition(
    name="cells",
    entities=("patient",),
    keys=(Column(name="patient_id", type="INT64"),),
    features=(Column(name="texture", type="DOUBLE"), Column(name="note", type="STRING")),
    source=SourceDefinition(
        place=ParquetFiles(uri="cells.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        field_mapping={"pid": "patient_id"},
    ),
    ttl_seconds="86400",
    residency=Residency("eu"),
)
SERVICE = ServiceDefinition(
    name="diagnosis",
    projections=(
        Projection(view="cells", alias="first", features=("texture", "note"), join_key_map={"patient_id": "pid"}),
        Projection(view="cells", alias="second", features=("texture",), join_key_map={}),
    ),
)
ENTITY_JSON = b'{"format":1,"join_key":"patient_id","kind":"Entity","name":"patient","type":"INT64"}'
VIEW_JSON = (
    b'{"entities":["patient"],'
    b'"features":[{"name":"note","type":"STRING"},{"name":"texture","type":"DOUBLE"}],'
    b'"format":1,"keys":[{"name":"patient_id","type":"INT64"}],"kind":"FeatureView","name":"cells",'
    b'"source":{"created_timestamp_column":"created","field_mapping":{"pid":"patient_id"},"format":1,'
    b'"kind":"FileSource","timestamp_field":"event_timestamp","uri":"cells.parquet"},"ttl_seconds":"86400"}'
)
VIEW_DIGEST = "sha256:c813c8de493fe8f25e3ff406dc68d67d98e51a494de92351bf4842424ff6e949"
SERVICE_JSON = (
    b'{"format":1,"kind":"FeatureService","name":"diagnosis","views":['
    b'{"alias":"first","features":["texture","note"],"join_key_map":{"patient_id":"pid"},"view":"cells",'
    b'"view_digest":"VIEW_DIGEST"},'
    b'{"alias":"second","features":["texture"],"join_key_map":{},"view":"cells","view_digest":"VIEW_DIGEST"}]}'
).replace(b"VIEW_DIGEST", VIEW_DIGEST.encode())
SERVICE_DIGEST = "sha256:72fbf9f09059c908da0de43ffa01cd510e49b16240666e2c7c9bfe1dafbd2360"
SNAPSHOT_JSON = (
    (
        b'{"artifacts":['
        b'{"digest":"sha256:' + b"a" * 64 + b'","residency":"eu","rows":3,"view":"cells","view_digest":"VIEW_DIGEST"},'
        b'{"digest":"sha256:'
        + b"b" * 64
        + b'","residency":"unrestricted","rows":0,"view":"genes","view_digest":"sha256:'
        + b"c" * 64
        + b'"}],'
        b'"as_of":"2026-03-01T12:00:00.000001Z","service":"diagnosis","service_digest":"SERVICE_DIGEST","version":1}'
    )
    .replace(b"VIEW_DIGEST", VIEW_DIGEST.encode())
    .replace(b"SERVICE_DIGEST", SERVICE_DIGEST.encode())
)
SNAPSHOT_DIGEST = "sha256:be697f674a39ac0154280743a27e4981723f1fa6df64b9120a791120c54d229b"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def micros(day: int) -> int:
    return 1_767_225_600_000_000 + (day - 1) * 86_400_000_000


def january(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The canonical rows of `VIEW`, from a source in no order, with one row without a key and one of later times."""
    folder = tmp_path_factory.mktemp("rows")
    source = {
        "pid": arrow.array([2, 1, 1, 1, 1, None, 9], arrow.int64()),
        "texture": arrow.array([0.5, 4.0, 3.0, float("nan"), -0.0, 1.0, 1.0], arrow.float64()),
        "note": ["é", None, "b", "c", "d", "nobody's", "later"],
        "event_timestamp": [january(day) for day in (1, 2, 2, 2, 1, 1, 20)],
        "created": arrow.array(
            [None, january(3), january(3), None, january(1), None, None], arrow.timestamp("us", tz="UTC")
        ),
    }
    parquet.write_table(arrow.table(source), folder / "cells.parquet")
    write_rows(
        ViewDefinition(
            name=VIEW.name,
            entities=VIEW.entities,
            keys=VIEW.keys,
            features=VIEW.features,
            source=SourceDefinition(
                place=ParquetFiles(uri=str(folder / "cells.parquet")),
                timestamp_field=VIEW.source.timestamp_field,
                created_timestamp_column=VIEW.source.created_timestamp_column,
                field_mapping=VIEW.source.field_mapping,
            ),
            ttl_seconds=VIEW.ttl_seconds,
            residency=VIEW.residency,
        ),
        as_of=january(10),
        sources=Sources(),
        destination=folder / "rows.parquet",
        scratch=folder,
    )
    return folder / "rows.parquet"


def test_a_definition_is_named_by_the_sha256_of_its_canonical_json() -> None:
    entity = EntityDefinition(name="patient", join_key="patient_id", type="INT64")
    assert canonical_json(entity.content()) == ENTITY_JSON
    assert canonical_json(VIEW.content()) == VIEW_JSON
    assert VIEW.digest == VIEW_DIGEST == sha256(VIEW_JSON)
    content = SERVICE.content({"cells": VIEW.digest}, {})
    assert canonical_json(content) == SERVICE_JSON
    assert content_digest(content) == SERVICE_DIGEST == sha256(SERVICE_JSON)


def test_a_snapshot_is_named_by_the_sha256_of_its_record() -> None:
    snapshot = SnapshotRow(
        service="diagnosis", service_digest=SERVICE_DIGEST, as_of=datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
    )
    digests = {"view_digest": "sha256:" + "c" * 64, "artifact_digest": "sha256:" + "b" * 64}
    genes = SnapshotPartRow(view="genes", residency="unrestricted", row_count=0, **digests)
    digests = {"view_digest": VIEW_DIGEST, "artifact_digest": "sha256:" + "a" * 64}
    cells = SnapshotPartRow(view="cells", residency="eu", row_count=3, **digests)
    written = canonical_json(record_of(snapshot, [genes, cells]))
    assert written == SNAPSHOT_JSON
    assert sha256(written) == SNAPSHOT_DIGEST


def test_rows_are_plain_parquet_in_canonical_order(rows: Path) -> None:
    found: ParquetFile = read_parquet(rows)
    assert found.metadata["fairlead.rows"] == "1"
    assert found.schema == [
        ("patient_id", "INT64", None),
        ("note", "BYTE_ARRAY", "STRING"),
        ("texture", "DOUBLE", None),
        ("event_timestamp", "INT64", "TIMESTAMP(UTC, MICROS)"),
        ("created", "INT64", "TIMESTAMP(UTC, MICROS)"),
    ]
    assert found.row_groups == [5]
    assert found.codecs == {"UNCOMPRESSED"}
    assert found.rows == [
        (1, b"d", 0.0, micros(1), micros(1)),
        (1, b"c", None, micros(2), None),
        (1, None, 4.0, micros(2), micros(3)),
        (1, b"b", 3.0, micros(2), micros(3)),
        (2, "é".encode(), 0.5, micros(1), None),
    ]
    assert str(found.rows[0][2]) == "-0.0"


def write_online_store(folder: Path, contents: StoreContents) -> Path:
    engine = SqliteEngine({}, OnlineFolder(root=folder / "online"))
    name = StoreName(workspace_id="default", service=contents.service.name, region="aws:eu-west-1")
    engine.write(name, contents, scratch=folder)
    return engine.path(name)


def test_an_online_store_is_a_sqlite_file_of_three_kinds_of_tables(rows: Path, tmp_path: Path) -> None:
    meta = {"service_digest": SERVICE_DIGEST, "snapshot": SNAPSHOT_DIGEST, "as_of": "t", "region": "aws:eu-west-1"}
    rows_of = {"cells": [ViewRows(view=VIEW, path=rows)]}
    path = write_online_store(tmp_path, StoreContents(service=SERVICE, views={"cells": VIEW}, rows=rows_of, meta=meta))
    with closing(sqlite3.connect(path)) as connection:
        assert dict(connection.execute("SELECT * FROM meta")) == meta | {
            "format": "1",
            "service": "diagnosis",
            "rows": "4",
        }
        views = connection.execute(
            "SELECT position, alias, store, keys, features, ttl_microseconds, is_missing FROM views ORDER BY position"
        ).fetchall()
        assert [(*row[:3], json.loads(row[3]), json.loads(row[4]), *row[5:]) for row in views] == [
            (
                *(0, "first", "view_0", [["pid", "INT64", "patient_id"]]),
                [["first__texture", "DOUBLE", "texture"], ["note", "STRING", "note"]],
                *(86_400_000_000, 0),
            ),
            (
                *(1, "second", "view_1", [["patient_id", "INT64", "patient_id"]]),
                [["second__texture", "DOUBLE", "texture"]],
                *(86_400_000_000, 0),
            ),
        ]
        assert connection.execute(
            "SELECT k0, event_timestamp, created_timestamp, f0, f1 FROM view_0 ORDER BY k0"
        ).fetchall() == [
            (1, micros(2), micros(3), 3.0, "b"),
            (2, micros(1), None, 0.5, "é"),
        ]
        assert connection.execute("SELECT k0, event_timestamp, f0 FROM view_1 ORDER BY k0").fetchall() == [
            (1, micros(2), 3.0),
            (2, micros(1), 0.5),
        ]
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
        assert tables == ["meta", "view_0", "view_1", "views"]


def test_an_online_store_says_which_views_its_region_may_not_hold(tmp_path: Path) -> None:
    contents = StoreContents(service=SERVICE, views={"cells": VIEW}, rows={}, meta={"snapshot": "s"})
    path = write_online_store(tmp_path, contents)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT alias, is_missing FROM views").fetchall() == [("first", 1), ("second", 1)]
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
    assert tables == ["meta", "views"]
