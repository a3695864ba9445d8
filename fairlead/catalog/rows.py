"""The rows of the shipped tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from importlib.resources import files


def table_rows(table: str) -> Iterator[dict[str, str]]:
    """The rows of one table, each by the names of its columns. An empty cell is a gap, never a zero."""
    text = files("fairlead.catalog.tables").joinpath(f"{table}.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(io.StringIO(text, newline=""))
