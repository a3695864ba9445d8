"""Where a view's rows are, as values: read from Feast's JSON of a data source.

A source names a place and never how to get in: a database is named by a *connection*, whose address and password are
a setting of the workers that read it. Its digest is of the place, so the same rows under another password are the same
version, and another query text is another one.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fairlead.core.errors import FeatureDefinitionInvalid, JsonValue
from fairlead.core.ids import parse_name
from fairlead.featurestore.feast_json import column_name, object_of

FILES, POSTGRES, DUCKDB, HOPSWORKS = "FileSource", "PostgreSQLSource", "DuckDBSource", "HopsworksSource"
SOURCE_KINDS = (FILES, POSTGRES, DUCKDB, HOPSWORKS)
"""Feast's classes of sources that are read, by their bare names."""

CONNECTION_TAG = "fairlead.connection"
"""The tag of a source that names the connection to its database; `default` without it."""

_FEAST_CONNECTION_TAG = "feast.connection-ref.name"
_DEFAULT_CONNECTION = "default"
_IDENTIFIER = r'(?:[^\W\d][\w$]*|"[^"\x00]+")'
_TABLE = re.compile(rf"{_IDENTIFIER}(?:\.{_IDENTIFIER}){{0,2}}")
_MAX_QUERY = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFiles:
    """A file, a folder or a pattern of Parquet files, here or in a bucket."""

    uri: str

    def content(self) -> dict[str, JsonValue]:
        """What of it changes the rows."""
        return {"kind": FILES, "uri": self.uri}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresRows:
    """A table (`schema.table`) or a query of the PostgreSQL database that a connection leads to."""

    connection: str
    table: str | None
    query: str | None

    def content(self) -> dict[str, JsonValue]:
        """What of it changes the rows."""
        return {"kind": POSTGRES, "connection": self.connection, "table": self.table, "query": self.query}


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckDBRows:
    """A table or a query of a DuckDB database: a file, here or in a bucket."""

    database: str
    table: str | None
    query: str | None

    def content(self) -> dict[str, JsonValue]:
        """What of it changes the rows."""
        return {"kind": DUCKDB, "database": self.database, "table": self.table, "query": self.query}


@dataclass(frozen=True, slots=True, kw_only=True)
class HopsworksRows:
    """A version of a feature group in a project of the Hopsworks server that a connection leads to."""

    connection: str
    project: str
    feature_group: str
    version: int

    def content(self) -> dict[str, JsonValue]:
        """What of it changes the rows."""
        return {
            "kind": HOPSWORKS,
            "connection": self.connection,
            "project": self.project,
            "feature_group": self.feature_group,
            "version": self.version,
        }


SourcePlace = ParquetFiles | PostgresRows | DuckDBRows | HopsworksRows


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDefinition:
    """The place of a view's rows. `field_mapping` is from the place's column names to the view's."""

    place: SourcePlace
    timestamp_field: str
    created_timestamp_column: str | None
    field_mapping: Mapping[str, str]

    def content(self) -> dict[str, JsonValue]:
        """What of it changes values or schema."""
        return {
            "format": 1,
            **self.place.content(),
            "timestamp_field": self.timestamp_field,
            "created_timestamp_column": self.created_timestamp_column,
            "field_mapping": dict(self.field_mapping),
        }


def source_from_content(content: Mapping[str, Any]) -> SourceDefinition:
    """The source that a stored content describes; the inverse of `SourceDefinition.content`."""
    place: SourcePlace
    match content["kind"]:
        case "PostgreSQLSource":
            place = PostgresRows(connection=content["connection"], table=content["table"], query=content["query"])
        case "DuckDBSource":
            place = DuckDBRows(database=content["database"], table=content["table"], query=content["query"])
        case "HopsworksSource":
            place = HopsworksRows(
                connection=content["connection"],
                project=content["project"],
                feature_group=content["feature_group"],
                version=content["version"],
            )
        case _:
            place = ParquetFiles(uri=content["uri"])
    return SourceDefinition(
        place=place,
        timestamp_field=content["timestamp_field"],
        created_timestamp_column=content["created_timestamp_column"],
        field_mapping=content["field_mapping"],
    )


def read_source(spec: object, *, owner: str | None = None) -> SourceDefinition:
    """Read Feast's JSON of a source; `owner` names the view it belongs to, for messages.

    Raises:
        FeatureDefinitionInvalid: if it is of a kind that is not read, or does not say where its rows are.
    """
    members = object_of(spec, FILES)
    what = f"The source of view {owner!r}" if owner else f"Source {str(members.get('name', ''))[:80]!r}"
    place = _read_place(members, what)
    timestamp_field = str(members.get("timestampField", ""))
    if not timestamp_field:
        raise FeatureDefinitionInvalid(
            f"{what} has no timestamp_field.", hint="Give it: FileSource(..., timestamp_field=...)."
        )
    created = str(members.get("createdTimestampColumn", "")) or None
    mapping = object_of(members.get("fieldMapping", {}), FILES)
    return SourceDefinition(
        place=place,
        timestamp_field=column_name(timestamp_field, "Source of", owner or what),
        created_timestamp_column=None if created is None else column_name(created, "Source of", owner or what),
        field_mapping={str(key): str(value) for key, value in sorted(mapping.items())},
    )


def _read_place(members: Mapping[str, Any], what: str) -> SourcePlace:
    kind = str(members.get("type", "BATCH_FILE"))
    if kind == "BATCH_FILE":
        return _read_files(members, what)
    # A source of Feast's contributors, or of anybody, is named by its class; the class itself is never imported.
    name = str(members.get("dataSourceClassType", "")).rpartition(".")[2]
    read = _CUSTOM.get(name) if kind == "CUSTOM_SOURCE" else None
    if read is None:
        raise FeatureDefinitionInvalid(
            f"{what} is of kind {(name or kind)[:80]}, which is not read.",
            hint=f"Use one of: {', '.join(SOURCE_KINDS)}; or export its rows as Parquet files.",
        )
    return read(members, _configuration(members, what), what)


def _read_files(members: Mapping[str, Any], what: str) -> ParquetFiles:
    options = object_of(members.get("fileOptions", {}), FILES)
    if "deltaFormat" in object_of(options.get("fileFormat", {}), FILES):
        raise FeatureDefinitionInvalid(f"{what} holds a Delta table.", hint="Export it as Parquet files.")
    return ParquetFiles(uri=_text(options.get("uri"), what, "path"))


def _read_postgres(members: Mapping[str, Any], options: Mapping[str, Any], what: str) -> PostgresRows:
    table, query = _table_or_query(options, what)
    return PostgresRows(connection=_connection(members, what), table=table, query=query)


def _read_duckdb(_members: Mapping[str, Any], options: Mapping[str, Any], what: str) -> DuckDBRows:
    table, query = _table_or_query(options, what)
    return DuckDBRows(database=_text(options.get("database"), what, "database"), table=table, query=query)


def _read_hopsworks(members: Mapping[str, Any], options: Mapping[str, Any], what: str) -> HopsworksRows:
    version = options.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or not 0 < version < 2**31:
        raise FeatureDefinitionInvalid(f"{what} names no version.", hint="Give HopsworksSource(..., version=1).")
    return HopsworksRows(
        connection=_connection(members, what),
        project=_text(options.get("project"), what, "project"),
        feature_group=_text(options.get("feature_group"), what, "feature_group"),
        version=version,
    )


_CUSTOM: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any], str], SourcePlace]] = {
    POSTGRES: _read_postgres,
    DUCKDB: _read_duckdb,
    HOPSWORKS: _read_hopsworks,
}


def _configuration(members: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What a custom source says of itself: JSON, in base64 as protobuf writes bytes."""
    options = object_of(members.get("customOptions", {}), FILES)
    try:
        found: object = json.loads(base64.b64decode(str(options.get("configuration", "")), validate=True))
    except (ValueError, binascii.Error, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FeatureDefinitionInvalid(f"{what} is not given as Feast's JSON.", hint="Send MessageToDict(to_proto()).")
    return cast("dict[str, Any]", found)


def _connection(members: Mapping[str, Any], what: str) -> str:
    tags = object_of(members.get("tags", {}), FILES)
    name = str(tags.get(CONNECTION_TAG) or tags.get(_FEAST_CONNECTION_TAG) or _DEFAULT_CONNECTION)
    if "://" in name:
        # Whoever writes an address here may have written its password, so the message does not repeat it.
        raise FeatureDefinitionInvalid(
            f"{what} gives an address where the name of a connection belongs.",
            hint=f"Give the connection a name in the workers' settings, and that name in the tag {CONNECTION_TAG}.",
        )
    return parse_name(name, what="connection")


def _table_or_query(options: Mapping[str, Any], what: str) -> tuple[str | None, str | None]:
    table, query = str(options.get("table") or "").strip(), str(options.get("query") or "").strip()
    # Feast reads the table where both are given.
    if table:
        if len(table) > 255 or not _TABLE.fullmatch(table):
            raise FeatureDefinitionInvalid(
                f"{what} names the table {table[:80]!r}, which cannot be one.",
                hint='Write table, schema.table or "Table"; for anything else give query=.',
            )
        return table, None
    query = query.rstrip(";").rstrip()
    if not query or "\x00" in query or len(query) > _MAX_QUERY:
        raise FeatureDefinitionInvalid(
            f"{what} has no table and no query of at most {_MAX_QUERY} characters.", hint="Give it table= or query=."
        )
    return None, query


def _text(value: object, what: str, argument: str) -> str:
    text = str(value or "")
    if not text or "\x00" in text or len(text) > 4096:
        raise FeatureDefinitionInvalid(f"{what} has no {argument}.", hint=f"Give it {argument}=...")
    return text
