"""Sources that Feast has no class of: DuckDB databases and feature groups of Hopsworks, for use in Feast repositories.

    from fairlead.featurestore.feast_sources import DuckDBSource, HopsworksSource

Importing this module imports Feast. A PostgreSQL database is read by Feast's own `PostgreSQLSource`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.value_type import ValueType
from google.protobuf.json_format import MessageToDict

from fairlead.featurestore.definitions import DUCKDB_TYPES
from fairlead.featurestore.duck import fetch_rows, open_duckdb
from fairlead.featurestore.source_definitions import read_source
from fairlead.featurestore.source_queries import Needs
from fairlead.featurestore.sources import Sources

# What DuckDB calls a type that Feast has too; smaller whole numbers and plain times fit into those.
_FEAST_TYPES = {duckdb: name for name, duckdb in DUCKDB_TYPES.items()} | {
    "TINYINT": "INT32",
    "SMALLINT": "INT32",
    "TIMESTAMP": "UNIX_TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "UNIX_TIMESTAMP",
    "DATE": "UNIX_TIMESTAMP",
}


class _ConfiguredSource(DataSource):
    """A custom source of Feast's: what it says of its place is JSON in `custom_options`."""

    _members: ClassVar[tuple[str, ...]] = ()

    def place(self) -> dict[str, Any]:
        """What it says of its place."""
        return {name: getattr(self, name) for name in self._members}

    def __eq__(self, other: object) -> bool:
        """Two sources are equal where Feast's members and the place are."""
        return isinstance(other, type(self)) and super().__eq__(other) and self.place() == other.place()

    __hash__ = DataSource.__hash__

    @classmethod
    def _read(cls, data_source: Any) -> dict[str, Any]:
        return {
            "name": data_source.name,
            **json.loads(data_source.custom_options.configuration),
            "timestamp_field": data_source.timestamp_field,
            "created_timestamp_column": data_source.created_timestamp_column,
            "field_mapping": dict(data_source.field_mapping),
            "description": data_source.description,
            "tags": dict(data_source.tags),
            "owner": data_source.owner,
        }

    def _to_proto_impl(self) -> DataSourceProto:
        proto = DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{type(self).__module__}.{type(self).__name__}",
            field_mapping=self.field_mapping,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
        )
        proto.custom_options.configuration = json.dumps(self.place(), sort_keys=True).encode()
        return proto

    def source_type(self) -> Any:
        """Feast's number of custom sources."""
        return DataSourceProto.CUSTOM_SOURCE

    def validate(self, config: RepoConfig) -> None:
        """Nothing: whoever reads the rows says what is wrong."""

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """From DuckDB's types, in which rows arrive."""
        return _value_type

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:  # noqa: ARG002  (Feast's)
        """The columns and their types, as DuckDB calls them."""
        spec = MessageToDict(self.to_proto())
        with tempfile.TemporaryDirectory() as folder, open_duckdb(Path(folder)) as connection:
            relation = Sources().relation(connection, read_source(spec), view=self.name, needs=Needs(has_rows=False))
            rows = fetch_rows(connection, f"DESCRIBE SELECT * FROM {relation}")  # noqa: S608  (our own temporary table)
            return [(str(row[0]), str(row[1])) for row in rows]

    def get_table_query_string(self) -> str:
        """Feast's engines cannot query it.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{type(self).__name__} is read by Fairlead, not by SQL of Feast's engines.")


class DuckDBSource(_ConfiguredSource):
    """A table or a query of a DuckDB database, which is opened for reading.

    Args:
        name: name of the source.
        database: the file: a path, or a URL of s3://, gs:// or abfs://.
        table: `table` or `schema.table`; or
        query: a SELECT over the database's own tables.
        timestamp_field: column of event times.
        created_timestamp_column: column that says when a row was written.
        field_mapping: from the database's column names to the view's.
        description, tags, owner: as for any source of Feast's.
    """

    _members = ("database", "table", "query")

    def __init__(
        self,
        *,
        name: str,
        database: str,
        table: str | None = None,
        query: str | None = None,
        timestamp_field: str = "",
        created_timestamp_column: str = "",
        field_mapping: Mapping[str, str] | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        super().__init__(
            name=name,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=dict(field_mapping or {}),
            description=description,
            tags=dict(tags or {}),
            owner=owner,
        )
        self.database, self.table, self.query = database, table, query

    @staticmethod
    def from_proto(data_source: Any) -> DuckDBSource:
        """The inverse of `to_proto`."""
        return DuckDBSource(**DuckDBSource._read(data_source))


class HopsworksSource(_ConfiguredSource):
    """A version of a feature group in Hopsworks. Its tag `fairlead.connection` names the server (`default` without).

    Args:
        name: name of the source; none: of the feature group and its version.
        project: the project in Hopsworks.
        feature_group: name of the feature group.
        version: its version.
        timestamp_field: column of event times.
        created_timestamp_column: column that says when a row was written.
        field_mapping: from the feature group's column names to the view's.
        description, tags, owner: as for any source of Feast's.
    """

    _members = ("project", "feature_group", "version")

    def __init__(
        self,
        *,
        project: str,
        feature_group: str,
        version: int,
        name: str | None = None,
        timestamp_field: str = "",
        created_timestamp_column: str = "",
        field_mapping: Mapping[str, str] | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        super().__init__(
            name=name or f"{feature_group}_{version}",
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=dict(field_mapping or {}),
            description=description,
            tags=dict(tags or {}),
            owner=owner,
        )
        self.project, self.feature_group, self.version = project, feature_group, version

    @staticmethod
    def from_proto(data_source: Any) -> HopsworksSource:
        """The inverse of `to_proto`."""
        return HopsworksSource(**HopsworksSource._read(data_source))


def _value_type(duckdb_type: str) -> ValueType:
    plain = duckdb_type.removesuffix("[]")
    name = _FEAST_TYPES.get(plain, "UNKNOWN")
    return ValueType[f"{name}_LIST" if plain != duckdb_type and name != "UNKNOWN" else name]
