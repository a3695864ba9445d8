"""A feature group of Hopsworks as a source, against a loopback stand-in for the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.errors import FairleadError, FeatureSourceInvalid, PermissionDenied, Unavailable
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.source_definitions import HopsworksRows, SourceDefinition
from fairlead.featurestore.sources import Sources
from tests.servers.hopsworks_server import API_KEY, HopsworksServer, hopsworks_server

arrow: Any = pa
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CELLS = HopsworksRows(connection="hops", project="clinic", feature_group="cells", version=2)


@pytest.fixture(scope="module")
def server() -> Iterator[HopsworksServer]:
    times = arrow.array([datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 4)], arrow.timestamp("us", tz="UTC"))
    rows = arrow.table(
        {"patient_id": [1, 1, 2], "measured": times, "radius": [1.5, 2.5, 9.5], "unused": ["a", "b", "c"]}
    )
    with hopsworks_server(rows) as running:
        yield running


def read(place: HopsworksRows, address: str, folder: Path, *, feature: str = "radius") -> int:
    view = ViewDefinition(
        name="cells",
        entities=("patient",),
        keys=(Column(name="patient_id", type="INT64"),),
        features=(Column(name=feature, type="DOUBLE"),),
        source=SourceDefinition(
            place=place, timestamp_field="measured", created_timestamp_column=None, field_mapping={}
        ),
        ttl_seconds=None,
        residency=UNRESTRICTED,
    )
    sources = Sources(connections={"hops": address})
    return write_rows(view, as_of=NOW, sources=sources, destination=folder / "rows.parquet", scratch=folder).rows


def test_rows_of_a_feature_group_come_by_a_signed_query_for_the_columns_that_are_needed(
    server: HopsworksServer, tmp_path: Path
) -> None:
    server.asked.clear()
    assert read(CELLS, server.address, tmp_path) == 2, "the third is after the snapshot's time"
    query = next(body for path, body in server.asked if path.endswith("/query"))
    assert [each["name"] for each in query["leftFeatures"]] == ["patient_id", "measured", "radius"]


@pytest.mark.parametrize(
    ("place", "change", "expected"),
    [
        (CELLS, (API_KEY, "wrong"), (PermissionDenied, "may not read")),
        (replace(CELLS, project="surgery"), ("", ""), (FeatureSourceInvalid, "Hopsworks has none")),
        (replace(CELLS, version=3), ("", ""), (FeatureSourceInvalid, "version 3")),
        (CELLS, ("http://user:", "http://"), (FeatureSourceInvalid, "no address of a Hopsworks server")),
        (CELLS, ("query_service=grpc://127.0.0.1:", "query_service=grpc://127.0.0.1:9?"), (Unavailable, "answer")),
    ],
)
def test_what_hopsworks_cannot_answer_is_said_without_the_key(
    server: HopsworksServer, tmp_path: Path, place: HopsworksRows, change: tuple[str, str], expected: tuple[Any, str]
) -> None:
    address = server.address.replace(*change)
    error, message = expected
    with pytest.raises(error, match=message) as caught:
        read(place, address, tmp_path)
    assert isinstance(caught.value, FairleadError)
    assert API_KEY not in f"{caught.value} {caught.value.hint}"


def test_a_column_that_is_missing_is_named_with_those_that_are_there(server: HopsworksServer, tmp_path: Path) -> None:
    with pytest.raises(FeatureSourceInvalid, match=r"no column 'area'. It has: .*unused"):
        read(CELLS, server.address, tmp_path, feature="area")
