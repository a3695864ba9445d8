"""Sources in buckets and folders."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.errors import FeatureSourceInvalid, PermissionDenied, Unavailable
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.row_statistics import RowStatistics
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition
from fairlead.featurestore.sources import Sources
from tests.servers.object_stores import ObjectStoreServer

arrow: Any = pa
parquet: Any = pq
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def read(folder: Path, uri: str, sources: Sources) -> RowStatistics:
    view = ViewDefinition(
        name="cells",
        entities=("patient",),
        keys=(Column(name="patient_id", type="INT64"),),
        features=(Column(name="radius", type="FLOAT"),),
        source=SourceDefinition(
            place=ParquetFiles(uri=uri),
            timestamp_field="event_timestamp",
            created_timestamp_column=None,
            field_mapping={"r": "radius"},
        ),
        ttl_seconds=None,
        residency=UNRESTRICTED,
    )
    return write_rows(view, as_of=NOW, sources=sources, destination=folder / "rows.parquet", scratch=folder)


def write_cells(path: Path, patient: int) -> bytes:
    table = arrow.table({"patient_id": [patient], "event_timestamp": [NOW], "r": [1.5]})
    parquet.write_table(table, path)
    return path.read_bytes()


def test_a_bucket_is_read_as_one_file_or_a_folder_of_them(gcs_server: ObjectStoreServer, tmp_path: Path) -> None:
    bucket, files = gcs_server.new_bucket(), fsspec.filesystem(gcs_server.scheme, **gcs_server.options)
    for patient in (1, 2):
        files.pipe_file(f"{bucket}/cells/{patient}.parquet", write_cells(tmp_path / "source.parquet", patient))
    files.pipe_file(f"{bucket}/text.parquet", b"no parquet")
    sources = Sources(roots=(), storage_options={gcs_server.scheme: gcs_server.options})
    assert read(tmp_path, f"{bucket}/cells/1.parquet", sources).rows == 1
    assert read(tmp_path, f"{bucket}/cells", sources).rows == 2
    with pytest.raises(FeatureSourceInvalid, match="no object"):
        read(tmp_path, f"{bucket}/cells/3.parquet", sources)
    with pytest.raises(FeatureSourceInvalid, match="cannot be read as Parquet"):
        read(tmp_path, f"{bucket}/text.parquet", sources)


def test_a_folder_and_a_pattern_are_all_their_files(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for patient in (1, 2):
        write_cells(tmp_path / "cells" / f"{patient}'s.parquet", patient)
    assert read(tmp_path, str(tmp_path / "cells"), Sources()).rows == 2
    assert read(tmp_path, f"{tmp_path}/cells/*.parquet", Sources()).rows == 2
    assert read(tmp_path, (tmp_path / "cells" / "1's.parquet").as_uri(), Sources(roots=(tmp_path,))).rows == 1


@pytest.mark.parametrize("uri", ["http://127.0.0.1/cells.parquet", "cells.parquet", "md5://cells"])
def test_a_server_reads_neither_the_web_nor_a_relative_path(tmp_path: Path, uri: str) -> None:
    with pytest.raises(FeatureSourceInvalid):
        read(tmp_path, uri, Sources(roots=(tmp_path,)))


@pytest.mark.parametrize("pattern", ["/**/*.parquet", "{}/*/../../**", "/etc/passwd", "{}/link*/*"])
def test_a_server_neither_reads_nor_walks_through_what_is_outside_its_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    write_cells(outside / "1.parquet", 1)
    if "link" not in pattern:
        monkeypatch.delattr("glob.glob")
    with pytest.raises(PermissionDenied):
        read(tmp_path, pattern.format(root), Sources(roots=(root,)))


def test_a_bucket_that_does_not_answer_is_tried_again(tmp_path: Path) -> None:
    options = {
        "key": "k",
        "secret": "s",
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"total_max_attempts": 1}},
    }
    with pytest.raises(Unavailable):
        read(tmp_path, "s3://nowhere/cells.parquet", Sources(storage_options={"s3": options}))
