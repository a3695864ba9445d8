"""An erasure that is killed at any step goes on with the next worker, and ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fairlead.featurestore.erasing import Erasing
from fairlead.featurestore.erasure_locations import EraseLocationHandler
from fairlead.featurestore.erasure_stores import EraseStoreHandler
from fairlead.featurestore.erasure_work import EraseRowsHandler
from fairlead.sync.upkeep_duties import UpkeepRules
from fairlead.sync.worker import Worker
from tests.featurestore.feature_fleet import FeatureFleet, day, open_feature_fleet
from tests.featurestore.test_erasures import GENES, MARKER, ROWS, SUBJECT, finish, get, holds, request, stored_blocks
from tests.featurestore.test_streams import definitions, push, row
from tests.fleet import ADMIN

STEPS: list[tuple[type[Any], str]] = [
    (EraseRowsHandler, "_upload"),
    (EraseRowsHandler, "_note"),
    (EraseStoreHandler, "_note"),
    (EraseLocationHandler, "_note"),
    (Erasing, "_finish"),
]


class Killed(BaseException):
    """The process is gone: nothing that catches errors sees it."""


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[FeatureFleet]:
    with open_feature_fleet(tmp_path, database_url) as opened:
        opened.fleet.upkeep = UpkeepRules()
        opened.cells(ROWS)
        opened.genes(GENES)
        opened.apply(definitions(opened))
        yield opened


def kill_once(monkeypatch: pytest.MonkeyPatch, owner: type[Any], step: str, killed: list[str]) -> None:
    """Let the process die at a step, after what the step does outside of the record was done."""
    real: Callable[..., Any] = getattr(owner, step)

    def die(*arguments: Any, **options: Any) -> Any:
        if f"{owner.__name__}.{step}" not in killed:
            killed.append(f"{owner.__name__}.{step}")
            if step == "_upload":
                real(*arguments, **options)
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(owner, step, die)


def test_an_erasure_that_is_killed_at_every_step_still_leaves_nothing(
    fleet: FeatureFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.snapshot(as_of=day(3))
    fleet.store.online.materialize(ADMIN, "diagnosis")
    fleet.fleet.settle()
    fleet.run()
    killed: list[str] = []
    for owner, step in STEPS:
        kill_once(monkeypatch, owner, step, killed)
    asked = request(fleet)
    for _ in range(40):
        try:
            fleet.run()
        except Killed:
            # Its leases run out.
            fleet.fleet.clock.advance(timedelta(minutes=10))
            continue
        if get(fleet, asked).state == "DONE":
            break
        fleet.fleet.clock.advance(fleet.fleet.upkeep.collect_grace)
    assert killed == [f"{owner.__name__}.{step}" for owner, step in STEPS]
    found = get(fleet, asked)
    assert found.state == "DONE", found.missing
    assert found.rows_removed == 5
    (fleet.sources / "genes.parquet").unlink()
    assert holds(fleet.fleet.root / "features", MARKER) == []
    assert not any(MARKER.encode() in block for block in stored_blocks(fleet))


def test_pushed_rows_leave_the_log_its_segments_and_the_online_store(fleet: FeatureFleet) -> None:
    fleet.snapshot(as_of=day(3))
    fleet.store.online.materialize(ADMIN, "diagnosis")
    fleet.fleet.settle()
    fleet.run()
    push(fleet, [row(SUBJECT, 9, 1.0), row(1, 9, 2.0), row(77, 9, 3.0)])
    fleet.fleet.clock.advance(timedelta(hours=1))
    fleet.store.streams.keep(None)
    fleet.run()
    fleet.store.streams.keep(None)
    push(fleet, [row(SUBJECT, 9.5, 4.0), row(1, 9.5, 5.0)])
    for value, sealed in ((SUBJECT, 6), (77, 1)):
        asked = request(fleet, value)
        fleet.fleet.settle()
        fleet.run()
        found = get(fleet, asked)
        assert all("is to be cleared" in each for each in found.missing)
        # The row that lay in the log alone is in no artifact.
        assert found.rows_removed == sealed
        rows = fleet.store.online.read(ADMIN, "diagnosis", {"patient_id": [value, 1]}).rows
        assert rows[0]["_status"]["cells"] == "not_found"
        assert rows[1]["radius"] == 5.0
    logged = fleet.store.streams.logs.local()
    assert logged
    again = fleet.snapshot()
    assert {part.view: part.rows for part in again.artifacts}["cells"] == len(ROWS) - 4 + 2


def test_a_region_that_is_away_holds_the_certificate_up_and_nobodys_reads(fleet: FeatureFleet) -> None:
    fleet.snapshot(as_of=day(3))
    fleet.store.online.materialize(ADMIN, "diagnosis")
    fleet.fleet.settle()
    fleet.run()
    duties = fleet.fleet.duties
    here = Worker(
        fleet.fleet.database,
        fleet.fleet.clock,
        regions=["gcp:europe-west4"],
        handlers={**duties.handlers, **fleet.store.handlers},
        derivers=[*duties.derivers, *fleet.store.derivers(["gcp:europe-west4"])],
    )
    asked = request(fleet)
    for _ in range(8):
        here.run_until_idle()
        fleet.fleet.clock.advance(fleet.fleet.upkeep.collect_grace)
    found = get(fleet, asked)
    assert found.state == "RUNNING"
    read = fleet.store.online.read(ADMIN, "diagnosis", {"patient_id": [SUBJECT]}, region="gcp:europe-west4")
    assert set(read.rows[0]["_status"].values()) == {"not_found"}
    # It comes back.
    assert finish(fleet, asked).rows_removed == 5
    assert not any(MARKER.encode() in block for block in stored_blocks(fleet))
