"""Sources in databases: PostgreSQL through named connections, DuckDB files, and what they may not do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import psycopg
import pytest

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.errors import FairleadError, FeatureSourceInvalid, PermissionDenied, Unavailable
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.duck import fetch_rows, open_duckdb
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.source_definitions import DuckDBRows, PostgresRows, SourceDefinition, SourcePlace
from fairlead.featurestore.source_queries import Needs
from fairlead.featurestore.sources import Sources
from tests.servers.object_stores import ObjectStoreServer
from tests.servers.postgres import PostgresServer

NOW = datetime(2026, 3, 1, tzinfo=UTC)

ROWS = """
CREATE SCHEMA clinic;
CREATE TABLE clinic.cells (
    patient_id bigint, measured timestamptz, noted timestamp, radius real, area {decimal}, marker text, counts integer[]
);
INSERT INTO clinic.cells VALUES
    (1, '2026-02-01 00:00:00+00', '2026-02-01', 1.5, 2.25, 'a', {counts}),
    (1, '2026-02-02 12:00:00.000001+02', '2026-02-02', 2.5, NULL, 'b', NULL),
    (2, '2026-04-01 00:00:00+00', '2026-04-01', 9.5, 9.25, 'of the future', NULL),
    (3, NULL, NULL, 7.5, 7.25, 'of no time', NULL);
CREATE TABLE clinic."Odd Name" AS SELECT patient_id AS id, measured AS "When", radius AS r FROM clinic.cells;
"""


def view_over(place: SourcePlace, **changes: Any) -> ViewDefinition:
    view = ViewDefinition(
        name="cells",
        entities=("patient",),
        keys=(Column(name="patient_id", type="INT64"),),
        features=(
            Column(name="area", type="DOUBLE"),
            Column(name="counts", type="INT64_LIST"),
            Column(name="marker", type="STRING"),
            Column(name="radius", type="FLOAT"),
        ),
        source=SourceDefinition(
            place=place, timestamp_field="measured", created_timestamp_column="noted", field_mapping={}
        ),
        ttl_seconds=None,
        residency=UNRESTRICTED,
    )
    return replace(view, **changes)


def postgres(**changes: Any) -> PostgresRows:
    return replace(PostgresRows(connection="clinic", table="clinic.cells", query=None), **changes)


@pytest.fixture(scope="module")
def clinic(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database with measurements; the URL for the user who may read them."""
    with postgres_server.new_database() as url:
        address = url.replace("+psycopg", "")
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(ROWS.format(decimal="numeric(9, 2)", counts="ARRAY[1, 2]").encode())
            connection.execute(
                b"DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'hunter2';"
                b'GRANT USAGE ON SCHEMA clinic TO reader; GRANT SELECT ON clinic.cells, clinic."Odd Name" TO reader;'
                b"CREATE TABLE clinic.secrets (patient_id bigint, measured timestamptz);"
            )
        yield address.replace("//postgres@", "//reader:hunter2@")
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(b"DROP OWNED BY reader; DROP ROLE reader")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A DuckDB database with the same measurements, and a file beside it that is nobody's source."""
    (tmp_path / "secret.csv").write_text("patient_id,measured\n1,2026-02-01\n")
    path = tmp_path / "measured.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(ROWS.format(decimal="decimal(9, 2)", counts="[1, 2]"))
        connection.execute(f"CREATE VIEW leak AS SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')")
    return path


def read(view: ViewDefinition, sources: Sources, folder: Path) -> tuple[list[dict[str, Any]], int]:
    statistics = write_rows(view, as_of=NOW, sources=sources, destination=folder / "rows.parquet", scratch=folder)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        table: Any = connection.sql(f"SELECT * FROM '{folder / 'rows.parquet'}'").to_arrow_table()
    return table.to_pylist(), statistics.left_out


EXPECTED = [
    {
        "patient_id": 1, "area": 2.25, "counts": [1, 2], "marker": "a", "radius": 1.5,
        "measured": datetime(2026, 2, 1, tzinfo=UTC), "noted": datetime(2026, 2, 1, tzinfo=UTC),
    },
    {
        "patient_id": 1, "area": None, "counts": None, "marker": "b", "radius": 2.5,
        "measured": datetime(2026, 2, 2, 10, 0, 0, 1, tzinfo=UTC), "noted": datetime(2026, 2, 2, tzinfo=UTC),
    },
]  # fmt: skip


def test_the_same_rows_come_out_of_each_kind_of_database(clinic: str, file: Path, tmp_path: Path) -> None:
    sources = Sources(roots=(tmp_path,), connections={"clinic": clinic})
    query = "SELECT *, 1 AS unused FROM clinic.cells -- as they are"
    for place in (
        postgres(),
        postgres(table=None, query=query),
        DuckDBRows(database=str(file), table="clinic.cells", query=None),
        DuckDBRows(database=str(file), table=None, query=query),
    ):
        assert read(view_over(place), sources, tmp_path) == (EXPECTED, 1)


def test_columns_are_found_by_their_exact_names_and_mapped(clinic: str, file: Path, tmp_path: Path) -> None:
    sources = Sources(connections={"clinic": clinic})
    mapping = {"id": "patient_id", "r": "radius"}
    for place in (
        postgres(table='clinic."Odd Name"'),
        DuckDBRows(database=str(file), table='clinic."Odd Name"', query=None),
    ):
        source = SourceDefinition(
            place=place, timestamp_field="When", created_timestamp_column=None, field_mapping=mapping
        )
        view = view_over(place, source=source, features=(Column(name="radius", type="FLOAT"),))
        rows, _ = read(view, sources, tmp_path)
        assert [row["radius"] for row in rows] == [1.5, 2.5]


def test_only_what_is_needed_is_asked_of_a_database(clinic: str, file: Path, tmp_path: Path) -> None:
    sources = Sources(connections={"clinic": clinic})
    for place in (postgres(), DuckDBRows(database=str(file), table="clinic.cells", query=None)):
        view = view_over(place, features=(Column(name="radius", type="FLOAT"),))
        needs = Needs.of(view, since=datetime(2026, 2, 2, tzinfo=UTC), until=NOW)
        with open_duckdb(tmp_path) as connection:
            relation = sources.relation(connection, view.source, view="cells", needs=needs)
            columns = {row[0] for row in fetch_rows(connection, f"DESCRIBE {relation}")}
            rows = fetch_rows(connection, f"SELECT radius FROM {relation} ORDER BY radius")
            schema = sources.relation(connection, view.source, view="cells", needs=Needs(has_rows=False))
            assert fetch_rows(connection, f"SELECT * FROM {schema}") == []
        assert columns == {"patient_id", "measured", "noted", "radius"}
        assert rows == [(2.5,), (7.5,)]  # the second one is of no time


def test_a_number_with_a_fraction_is_no_whole_number(clinic: str, tmp_path: Path) -> None:
    sources = Sources(connections={"clinic": clinic})
    with pytest.raises(FeatureSourceInvalid, match=r"'area'.*INT64 in 2 rows"):
        read(view_over(postgres(), features=(Column(name="area", type="INT64"),)), sources, tmp_path)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (postgres(connection="other"), FeatureSourceInvalid, "behind the connection 'other'"),
        (postgres(table="clinic.genes"), FeatureSourceInvalid, "names a table"),
        (postgres(table="surgery.cells"), FeatureSourceInvalid, "names a table"),
        (postgres(table="clinic.secrets"), PermissionDenied, "may not read"),
        (postgres(table=None, query="SELECT nothing FROM clinic.cells"), FeatureSourceInvalid, "names a column"),
        (postgres(table=None, query="SELECT 1 AS id) TO PROGRAM 'true' --"), FeatureSourceInvalid, "42601"),
        (postgres(table=None, query="SELECT 1; SELECT 2"), FeatureSourceInvalid, "42601"),
        (postgres(table=None, query="SELECT 1 AS a, 2 AS a"), FeatureSourceInvalid, "two columns 'a'"),
        (postgres(table=None, query="SELECT 1/0 AS patient_id"), FeatureSourceInvalid, "fails|has no column"),
        (postgres(table=None, query="SELECT patient_id FROM clinic.cells"), FeatureSourceInvalid, "no column 'area'"),
    ],
)
def test_what_postgresql_cannot_answer_is_said_without_its_address(
    clinic: str, tmp_path: Path, place: PostgresRows, error: type[FairleadError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        read(view_over(place), Sources(connections={"clinic": clinic}), tmp_path)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert "127.0.0.1" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("hunter2", "wrong"), (PermissionDenied, None)),  # (the test cluster trusts everybody on loopback)
        (("reader:hunter2", "nobody:hunter2"), (PermissionDenied,)),
        (("/test_", "/nowhere_"), (FeatureSourceInvalid, Unavailable)),
        (("127.0.0.1:", "127.0.0.1:1"), (Unavailable,)),
    ],
)
def test_a_connection_that_leads_nowhere_is_no_secret_told(
    clinic: str, tmp_path: Path, change: tuple[str, str], error: tuple[Any, ...]
) -> None:
    address = clinic.replace(*change)
    if change[1].startswith("127"):
        address = clinic.partition("@")[0] + "@127.0.0.1:9/clinic"
    sources = Sources(connections={"clinic": address})
    assert "hunter2" not in repr(sources)
    if None in error:
        read(view_over(postgres()), sources, tmp_path)
        return
    with pytest.raises(error) as caught:
        read(view_over(postgres()), sources, tmp_path)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_a_query_neither_changes_anything_nor_takes_for_ever(clinic: str, file: Path, tmp_path: Path) -> None:
    owner = clinic.replace("reader:hunter2@", "postgres@")
    sources = Sources(connections={"clinic": owner}, query_timeout=timedelta(milliseconds=300))
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(b"CREATE SEQUENCE IF NOT EXISTS clinic.visits")
    changing = "SELECT nextval('clinic.visits') AS patient_id, now() AS measured"
    slow = "SELECT 1 AS patient_id, now() AS measured FROM pg_sleep(20)"
    for query, message in ((changing, "fails while it runs"), (slow, r"within 0\.3 seconds")):
        view = view_over(postgres(table=None, query=query))
        with open_duckdb(tmp_path) as duck, pytest.raises(FeatureSourceInvalid, match=message):
            sources.relation(duck, view.source, view="cells")
    endless = "SELECT sum(a.range * b.range) AS patient_id FROM range(10000000) a, range(10000000) b"
    view = view_over(DuckDBRows(database=str(file), table=None, query=endless))
    with open_duckdb(tmp_path) as duck, pytest.raises(FeatureSourceInvalid, match=r"within 0\.3 seconds"):
        sources.relation(duck, view.source, view="cells")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT * FROM leak", "something else than its database"),
        ("SELECT * FROM read_csv('{folder}/secret.csv')", "something else"),
        ("SELECT * FROM '{folder}/secret.csv'", "cannot be read"),
        ("SELECT * FROM glob('{folder}/*')", "something else"),
        ("SELECT * FROM clinic.cells) AS source; ATTACH '{folder}/x.duckdb'; SELECT * FROM (SELECT 1", "not valid SQL"),
        ("INSERT INTO clinic.cells VALUES (9) RETURNING *", "not valid SQL"),
        ("SELECT nothing FROM clinic.cells", "a column is missing"),
        ("SELECT * FROM clinic.genes", "no such table"),
        ("SELECT * FROM file", "no such table"),
    ],
)
def test_a_duckdb_query_sees_its_own_database_alone(file: Path, tmp_path: Path, query: str, message: str) -> None:
    place = DuckDBRows(database=str(file), table=None, query=query.format(folder=tmp_path))
    with pytest.raises(FeatureSourceInvalid, match=message):
        read(view_over(place), Sources(roots=(tmp_path,)), tmp_path)
    assert not (tmp_path / "x.duckdb").exists()


def test_a_duckdb_file_lies_where_the_server_reads_and_is_one(file: Path, tmp_path: Path) -> None:
    def place(path: Path | str) -> ViewDefinition:
        return view_over(DuckDBRows(database=str(path), table="clinic.cells", query=None))

    with pytest.raises(PermissionDenied, match="outside the folders"):
        read(place(file), Sources(roots=(tmp_path / "elsewhere",)), tmp_path)
    with pytest.raises(FeatureSourceInvalid, match="no file"):
        read(place(tmp_path / "none.duckdb"), Sources(), tmp_path)
    with pytest.raises(FeatureSourceInvalid, match="not read"):
        read(place("https://127.0.0.1/clinic.duckdb"), Sources(), tmp_path)
    with pytest.raises(FeatureSourceInvalid, match="no DuckDB database"):
        read(place(tmp_path / "secret.csv"), Sources(), tmp_path)


def test_a_duckdb_file_may_lie_in_a_bucket(gcs_server: ObjectStoreServer, file: Path, tmp_path: Path) -> None:
    bucket, files = gcs_server.new_bucket(), fsspec.filesystem(gcs_server.scheme, **gcs_server.options)
    files.pipe_file(f"{bucket}/measured.duckdb", file.read_bytes())
    sources = Sources(roots=(), storage_options={gcs_server.scheme: gcs_server.options})
    place = DuckDBRows(database=f"{bucket}/measured.duckdb", table="clinic.cells", query=None)
    assert read(view_over(place), sources, tmp_path) == (EXPECTED, 1)
    with pytest.raises(FeatureSourceInvalid, match="no object"):
        read(view_over(replace(place, database=f"{bucket}/none.duckdb")), sources, tmp_path)
