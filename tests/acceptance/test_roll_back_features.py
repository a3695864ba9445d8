"""Whoever rolls a model back finds the features that it was trained with, at once, by the command line alone."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.command_line import LABELS, CommandLine, leave_nothing, write_folder
from tests.acceptance.world import REGIONS, when, write_feast_repository

arrow: Any = pa
parquet: Any = pq


@pytest.fixture
def fairlead(tmp_path: Path) -> Generator[CommandLine]:
    command_line = CommandLine(home=tmp_path / ".fairlead")
    yield command_line
    leave_nothing(command_line.home)


def grow(repository: Path, age: float, month: int) -> None:
    """One more measurement of the first sample's age."""
    path = repository / "ages.parquet"
    columns = {"sample_id": [1], "event_timestamp": [datetime(2026, month, 1, tzinfo=UTC)], "age": [age]}
    before = parquet.read_table(path)
    parquet.write_table(arrow.concat_tables([before, arrow.table(columns).cast(before.schema)]), path)


def release(fairlead: CommandLine, model: Path, version: int) -> str:
    """Take a snapshot, and promote a version that pins it; the snapshot's digest."""
    digest: str = fairlead.json("features", "snapshot", "diagnosis")["digest"]
    fairlead("model", "register", "triage", model, *LABELS, "--snapshot", digest, "--metric", "accuracy=0.97")
    fairlead("model", "where", f"triage/{version}", "--wait")
    fairlead("model", "promote", f"triage/{version}", "--to", "production")
    return digest


@pytest.mark.timeout(600)
def test_features_of_the_version_before_are_there_at_once_after_a_roll_back(
    fairlead: CommandLine, tmp_path: Path
) -> None:
    repository = write_feast_repository(tmp_path / "clinic")
    fairlead("features", "apply", repository)
    model = write_folder(tmp_path / "model", {"model.bin": b"weights"})
    first = release(fairlead, model, 1)
    grow(repository, 41.0, 4)
    second = release(fairlead, model, 2)

    def kept() -> bool | None:
        states = fairlead.json("features", "online", "diagnosis")
        ready = [{each["snapshot"] for each in state["kept"] if each["state"] == "READY"} for state in states]
        return True if ready == [{first, second}] * len(REGIONS) else None

    when(kept, seconds=120, pause=1)
    fairlead("model", "rollback", "triage@production", "--reason", "worse at night")
    for region in REGIONS:
        asked = ("--entity", "sample_id=1", "--region", region)
        before = fairlead.json("features", "read", f"diagnosis@{first}", *asked)
        assert (before["snapshot"], before["rows"][0]["age"]) == (first, 40.0)
        newest = fairlead.json("features", "read", "diagnosis", *asked)
        assert (newest["snapshot"], newest["rows"][0]["age"]) == (second, 41.0)
