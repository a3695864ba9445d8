"""Sources of Feast repositories, as objects there and as places here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from fairlead.core.errors import FeatureDefinitionInvalid
from fairlead.featurestore.source_definitions import (
    DuckDBRows,
    HopsworksRows,
    PostgresRows,
    SourcePlace,
    read_source,
    source_from_content,
)
from fairlead.sdk.feast_objects import to_wire

TIMES: Any = {"timestamp_field": "measured", "created_timestamp_column": "noted", "field_mapping": {"r": "radius"}}


def read(source: Any) -> Any:
    (wire,) = to_wire([source])
    return read_source(wire["spec"])


def test_what_a_source_says_in_a_repository_is_where_its_rows_are(tmp_path: Path) -> None:
    from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

    from fairlead.featurestore.feast_sources import DuckDBSource, HopsworksSource

    path = tmp_path / "clinic.duckdb"
    expected: list[tuple[Any, SourcePlace]] = [
        (
            DuckDBSource(name="a", database=str(path), table="cells", **TIMES),
            DuckDBRows(database=str(path), table="cells", query=None),
        ),
        (
            HopsworksSource(project="clinic", feature_group="cells", version=2, tags={"fairlead.connection": "hops"}),
            HopsworksRows(connection="hops", project="clinic", feature_group="cells", version=2),
        ),
        (
            PostgreSQLSource(name="c", query="SELECT 1;", **TIMES),
            PostgresRows(connection="default", table=None, query="SELECT 1"),
        ),
    ]
    for source, place in expected:
        source.timestamp_field = "measured"
        found = read(source)
        assert found.place == place
        assert source_from_content(found.content()) == found
        assert type(source).from_proto(source.to_proto()) == source
    with pytest.raises(FeatureDefinitionInvalid, match="gives an address") as refused:
        read(PostgreSQLSource(name="c", table="t", tags={"fairlead.connection": "postgresql://u:hunter2@h/d"}, **TIMES))
    assert "hunter2" not in str(refused.value)
    with pytest.raises(FeatureDefinitionInvalid, match="cannot be one"):
        read(PostgreSQLSource(name="c", table="cells; DROP TABLE cells", **TIMES))


def test_feast_learns_the_columns_of_a_duckdb_source(tmp_path: Path) -> None:
    from feast.value_type import ValueType

    from fairlead.featurestore.feast_sources import DuckDBSource

    path = tmp_path / "clinic.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE cells (id BIGINT, measured TIMESTAMP, radius FLOAT, parts VARCHAR[], odd HUGEINT)"
        )
    source = DuckDBSource(name="a", database=str(path), table="cells", timestamp_field="measured")
    config: Any = None
    to_type = source.source_datatype_to_feast_value_type()
    assert {name: to_type(kind) for name, kind in source.get_table_column_names_and_types(config)} == {
        "id": ValueType.INT64,
        "measured": ValueType.UNIX_TIMESTAMP,
        "radius": ValueType.FLOAT,
        "parts": ValueType.STRING_LIST,
        "odd": ValueType.UNKNOWN,
    }
