"""What it costs to leave out of a view's rows whoever was erased.

    .venv/bin/python benchmarks/features/forgotten.py [--rows 1000000]

The condition that a snapshot's rows go through, over rows in memory, for none, one, ten, a hundred and a thousand
forgotten subjects under one salt.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from fairlead.core.subjects import Subject
from fairlead.featurestore.duck import fetch_number, open_duckdb
from fairlead.featurestore.forgotten import Forgotten, is_kept

SALT = "0" * 64
UNTIL = datetime(2026, 2, 1, tzinfo=UTC)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder, open_duckdb(Path(folder)) as connection:
        connection.execute(
            f"CREATE TABLE rows AS SELECT i AS id, TIMESTAMPTZ '2026-01-01' AS at FROM range({rows}) r(i)"  # noqa: S608
        )
        for count in (0, 1, 10, 100, 1000):
            forgotten = [Forgotten(subject=Subject.of({"id": each}, SALT), until=UNTIL) for each in range(count)]
            begun, cpu = time.monotonic(), time.process_time()
            kept = fetch_number(connection, f"SELECT count(*) FROM rows WHERE {is_kept(forgotten, 'at')}")  # noqa: S608
            assert kept == rows - count
            cpu, spent = time.process_time() - cpu, time.monotonic() - begun
            print(f"{count:5} forgotten: {cpu:6.2f} s of CPU, {spent:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
