"""Fill the three regions' sources: Parquet in a bucket, a table of PostgreSQL, and a DuckDB database."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2026, 1, 1, tzinfo=UTC)
CUSTOMERS = 200
WEEKS = 8


def fill_bucket(url: str, options: dict[str, Any]) -> None:
    """Payments, as Parquet."""
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(_rows(1))
    table = pa.table(
        {
            "customer_id": pa.array([customer for customer, _, _ in rows], pa.int64()),
            "event_timestamp": pa.array([moment for _, moment, _ in rows], pa.timestamp("us", tz="UTC")),
            "paid_30d": pa.array([round(value * 900, 2) for _, _, value in rows], pa.float64()),
        }
    )
    path = f"{url.partition('://')[2]}/payments/part-0.parquet"
    with fsspec.filesystem("s3", **options).open(path, "wb") as target:
        pq.write_table(table, target)


def fill_postgres(url: str) -> None:
    """Accounts, as a table."""
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE accounts (customer_id bigint, event_timestamp timestamptz, balance float8, risk_band text)"
        )
        with connection.cursor().copy("COPY accounts FROM STDIN") as copy:
            for customer, moment, value in _rows(2):
                copy.write_row((customer, moment, round(value * 5000 - 500, 2), "ABC"[int(value * 3)]))


def fill_duckdb(path: Path) -> None:
    """Visits, as a table of a database file."""
    import duckdb

    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE TABLE visits (customer_id bigint, event_timestamp timestamptz, pages_seen bigint)")
        connection.executemany(
            "INSERT INTO visits VALUES (?, ?, ?)",
            [(customer, moment, int(value * 40)) for customer, moment, value in _rows(3)],
        )


def _rows(seed: int) -> Any:
    chance = random.Random(seed)
    for customer in range(1, CUSTOMERS + 1):
        for week in range(WEEKS):
            yield customer, START + timedelta(weeks=week, hours=chance.randrange(168)), chance.random()
