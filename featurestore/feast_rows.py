"""Feast's data sources as DuckDB relations, with columns called as a feature view calls them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from google.protobuf.json_format import MessageToDict

from fairlead.core.errors import FeatureSourceInvalid
from fairlead.featurestore.duck import fetch_rows, not_nan, open_duckdb, quote_name
from fairlead.featurestore.source_definitions import ParquetFiles, PostgresRows, SourceDefinition, read_source
from fairlead.featurestore.source_queries import Needs
from fairlead.featurestore.sources import Sources

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FLOATS = ("FLOAT", "DOUBLE")
_POSTGRES_TYPES = {
    "BLOB": "bytea",
    "DOUBLE": "double precision",
    "FLOAT": "real",
    "TIMESTAMP": "timestamp without time zone",
    "VARCHAR": "text",
}
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The rows of a source, and what each column of it is called and is.

    Args:
        relation: SQL that stands for the rows.
        found: DuckDB's type of each of the source's columns.
        renamed: from the view's names to the source's.
        owner: whose source it is, for messages.
    """

    relation: str
    found: Mapping[str, str]
    owner: str
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])

    def sql(self, name: str) -> str:
        """A column by the view's name of it.

        Raises:
            FeatureSourceInvalid: if the source has none of that name.
        """
        return quote_name(self.source_name(name))

    def type(self, name: str) -> str:
        """DuckDB's type of a column by the view's name of it."""
        return self.found[self.source_name(name)]

    def time(self, name: str) -> str:
        """A column of times as SQL gives one: rounded to the microsecond, and UTC where it names no zone."""
        return f"CAST({self.sql(name)} AS TIMESTAMPTZ)"

    def ranked(self, name: str) -> str:
        """A column as it ranks among rows of one entity and time: a float that is not a number is a missing value."""
        column, kind = self.sql(name), self.type(name)
        return not_nan(column, kind) if kind in _FLOATS else column

    def has(self, name: str) -> bool:
        """Whether there is a column that the view calls so."""
        return name in self.found or self.renamed.get(name) in self.found

    def source_name(self, name: str) -> str:
        """What the source calls a column that the view calls `name`.

        Raises:
            FeatureSourceInvalid: if it has none.
        """
        renamed = self.renamed.get(name, name)
        for each in (renamed, name):
            if each in self.found:
                return each
        raise FeatureSourceInvalid(
            f"The source of view {self.owner!r} has no column {renamed!r}.",
            hint=f"It has: {', '.join(sorted(self.found))[:400]}. Correct the view, or its field_mapping.",
            view=self.owner,
            column=renamed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReader:
    """Reads Feast's sources in this process, with the rights of whoever runs it.

    Args:
        repo_path: what relative paths are relative to.
        connections: addresses of databases by the names that sources give them.
        memory_limit: how much DuckDB keeps in memory before it spills, such as `1GiB`.
    """

    repo_path: Path | None
    connections: Mapping[str, str]
    memory_limit: str

    @contextmanager
    def open(self) -> Generator[DuckDBPyConnection]:
        """A connection for one job; what does not fit into memory goes to a temporary folder."""
        with (
            TemporaryDirectory(prefix="fairlead-") as folder,
            open_duckdb(Path(folder), memory_limit=self.memory_limit) as connection,
        ):
            yield connection

    def columns(
        self,
        connection: DuckDBPyConnection,
        source: DataSource,
        *,
        owner: str,
        needed: Iterable[str],
        useful: Iterable[str] = (),
        is_mapped: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Columns:
        """The rows of a source: at least the needed columns, useful ones that it has, and rows in the window of times.

        Where `is_mapped`, columns are called as the view calls them, and else as the source does.

        Raises:
            FeatureDefinitionInvalid: if the source is of a kind that is not read.
            FeatureSourceInvalid: if it has no rows to read.
            MissingExtra, Unavailable, PermissionDenied: if it cannot be reached.
        """
        definition = self._definition(source, owner)
        renamed = {final: name for name, final in definition.field_mapping.items()} if is_mapped else {}
        sources, place = self._sources(source), definition.place
        if isinstance(place, ParquetFiles):
            needs = Needs(since=since, until=until)
        else:
            # A database sends what it is asked for, so it is asked what it has.
            relation = sources.relation(connection, definition, view=owner, needs=Needs(has_rows=False))
            asked = _columns(connection, relation, owner, renamed)
            wanted = [*needed, *(name for name in useful if asked.has(name))]
            needs = Needs(columns=frozenset(map(asked.source_name, wanted)), since=since, until=until)
        found = _columns(connection, sources.relation(connection, definition, view=owner, needs=needs), owner, renamed)
        for name in needed:
            found.source_name(name)
        return found

    def all_columns(self, connection: DuckDBPyConnection, source: DataSource) -> Columns:
        """All rows and columns of a source, called as the source calls them."""
        definition = self._definition(source, source.name)
        return _columns(
            connection, self._sources(source).relation(connection, definition, view=source.name), source.name, {}
        )

    def described(self, source: DataSource) -> list[tuple[str, str]]:
        """The columns of a database's table or query and their types, as the class of the source calls types.

        Raises:
            FeatureDefinitionInvalid: if the source is of a kind that is not read.
            FeatureSourceInvalid, MissingExtra, Unavailable, PermissionDenied: if it cannot be asked.
        """
        definition = self._definition(source, source.name)
        with self.open() as connection:
            needs = Needs(has_rows=False)
            relation = self._sources(source).relation(connection, definition, view=source.name, needs=needs)
            found = _columns(connection, relation, source.name, {}).found
        if not isinstance(definition.place, PostgresRows):
            return list(found.items())
        return [(name, _postgres_type(kind)) for name, kind in found.items()]

    def _definition(self, source: DataSource, owner: str) -> SourceDefinition:
        if not isinstance(source, FileSource):
            return read_source(MessageToDict(source.to_proto()), owner=owner)
        if source.file_format is not None and type(source.file_format).__name__ != "ParquetFormat":
            raise FeatureSourceInvalid(
                f"The source of view {owner!r} is a {type(source.file_format).__name__}, and Parquet is read.",
                hint="Export it as Parquet files.",
                view=owner,
            )
        # (Feast would take a URL without a host for a relative path)
        is_url = "://" in source.path
        uri = source.path if is_url else FileSource.get_uri_for_file_path(self.repo_path, source.path)
        return SourceDefinition(
            place=ParquetFiles(uri=uri),
            timestamp_field=source.timestamp_field or "",
            created_timestamp_column=source.created_timestamp_column or None,
            field_mapping=dict(source.field_mapping or {}),
        )

    def _sources(self, source: DataSource) -> Sources:
        return Sources(storage_options={"s3": bucket_options(source)}, connections=self.connections)


def _columns(connection: DuckDBPyConnection, relation: str, owner: str, renamed: Mapping[str, str]) -> Columns:
    rows = fetch_rows(connection, f"DESCRIBE SELECT * FROM {relation}")  # noqa: S608
    return Columns(relation=relation, found={str(row[0]): str(row[1]) for row in rows}, owner=owner, renamed=renamed)


def _postgres_type(kind: str) -> str:
    """What PostgreSQL calls a type that DuckDB has its rows in."""
    plain = kind.removesuffix("[]")
    return _POSTGRES_TYPES.get(plain, plain.lower()) + kind[len(plain) :]


def bucket_options(source: DataSource) -> dict[str, Any]:
    """What fsspec needs to reach a source's S3 bucket, as far as the source says it."""
    credentials: Mapping[str, str] = source.resolve_credentials() or {}
    options: dict[str, Any] = {name: credentials[key] for key, name in _CREDENTIALS.items() if credentials.get(key)}
    if endpoint := getattr(source, "s3_endpoint_override", None):
        options["client_kwargs"] = {"endpoint_url": endpoint}
    return options
