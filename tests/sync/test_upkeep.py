"""Passes are asked for once, wait their turn, and are shown with what they found."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from fairlead.app.problem_handlers import install_problem_handlers
from fairlead.cli.scrub import _parse_sample, _parse_slice  # pyright: ignore[reportPrivateUsage]  (what it understands)
from fairlead.core.errors import InvalidInput, LocationNotFound, UpkeepNotFound
from fairlead.registry.access import install_access
from fairlead.registry.tables import UploadRow
from fairlead.registry.tables_bytes import ScrubRow
from fairlead.sync.api_upkeep import upkeep_router
from fairlead.sync.upkeep import Upkeeps
from fairlead.sync.upkeep_duties import UPLOADS_KEPT, forget_uploads
from tests.fleet import ADMIN, Fleet, open_fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        yield fleet


@pytest.fixture
def upkeeps(fleet: Fleet) -> Upkeeps:
    return Upkeeps(fleet.database, fleet.clock)


def test_what_waits_is_not_asked_for_twice(fleet: Fleet, upkeeps: Upkeeps) -> None:
    (first,) = upkeeps.request(ADMIN, "scrub")
    (again,) = upkeeps.request(ADMIN, "scrub", location="virginia")
    (other,) = upkeeps.request(ADMIN, "scrub", location="virginia", scope={"sample": 0.5})
    assert first.id == again.id != other.id
    fleet.run()
    assert [upkeeps.get(ADMIN, each.id).state for each in (first, other)] == ["DONE", "DONE"]


def test_what_is_not_there_is_said_so(upkeeps: Upkeeps) -> None:
    with pytest.raises(LocationNotFound):
        upkeeps.request(ADMIN, "scrub", location="nowhere")
    with pytest.raises(UpkeepNotFound):
        upkeeps.get(ADMIN, "01a1ff8f-c06e-7a55-b697-be9177949992")


def test_the_api_asks_for_passes_and_lists_them(fleet: Fleet, upkeeps: Upkeeps) -> None:
    app = FastAPI()
    install_access(app, lambda _secret: ADMIN)
    install_problem_handlers(app)
    app.include_router(upkeep_router(upkeeps, wake=lambda: None), prefix="/api/v1")
    with TestClient(app, headers={"authorization": "Bearer x"}) as client:
        asked = client.post("/api/v1/upkeep", json={"task": "scrub", "slice": 2, "of": 30})
        assert asked.status_code == 202
        (item,) = asked.json()["items"]
        assert (item["state"], item["scope"], item["location"]) == ("WAITING", {"slice": 2, "of": 30}, "virginia")
        fleet.run()
        shown = client.get(f"/api/v1/upkeep/{item['id']}").json()
        assert (shown["state"], shown["findings"]) == ("DONE", [])
        assert [each["id"] for each in client.get("/api/v1/upkeep").json()["items"]] == [item["id"]]
        for wrong in (
            {"task": "scrub", "slice": 3},
            {"task": "scrub", "slice": 3, "of": 2},
            {"task": "scrub", "sample": 0.1, "slice": 1, "of": 2},
            {"task": "scrub", "is_quick": True},
            {"task": "collect", "sample": 0.1},
        ):
            assert client.post("/api/v1/upkeep", json=wrong).status_code == 400
        assert client.post("/api/v1/upkeep", json={"task": "burn"}).status_code in {400, 422}


def test_the_command_line_reads_shares_and_slices() -> None:
    assert _parse_sample("5%") == pytest.approx(0.05)
    assert _parse_slice("3/30") == (3, 30)
    for text in ("0%", "101%", "5", "x%"):
        with pytest.raises(InvalidInput):
            _parse_sample(text)
    for text in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(InvalidInput):
            _parse_slice(text)


def test_uploads_that_came_to_nothing_and_old_passes_are_forgotten_after_a_time(fleet: Fleet, upkeeps: Upkeeps) -> None:
    fleet.begin(near="virginia")
    upkeeps.request(ADMIN, "collect")
    fleet.run()
    fleet.clock.advance(UPLOADS_KEPT / 2)
    fleet.run()
    with fleet.database.write() as session:
        forget_uploads(session, fleet.clock.now())
        assert [row.state for row in session.scalars(select(UploadRow))] == ["EXPIRED"]
        forget_uploads(session, fleet.clock.now() + UPLOADS_KEPT)
        assert session.scalars(select(UploadRow)).all() == []
    fleet.clock.advance(timedelta(days=100))
    fleet.run()
    with fleet.database.read() as session:
        assert all(row.requested_by == "schedule" for row in session.scalars(select(ScrubRow)))
