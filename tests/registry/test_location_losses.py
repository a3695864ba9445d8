"""A location that is given up for lost: nothing is read from it or waits for it, and its place may be used again."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from fairlead.core.errors import InvalidInput, LocationNotFound
from fairlead.registry.location_losses import Losses
from fairlead.registry.tables_bytes import GarbageRow, ScrubRow
from fairlead.sync.upkeep_duties import UpkeepRules
from tests.fleet import ADMIN, Fleet, open_fleet

FILES = {"model.bin": b"weights" * 1000}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia", "eemshaven")) as opened:
        opened.upkeep = UpkeepRules()
        yield opened


def live(fleet: Fleet, days: int) -> None:
    for _ in range(days):
        fleet.run()
        fleet.clock.advance(timedelta(days=1, minutes=1))
    fleet.run()


def test_replicas_elsewhere_go_on_and_uploads_into_it_end(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.settle()
    losses = Losses(fleet.database, fleet.clock)
    open_upload = fleet.uploads.begin(ADMIN, kind="model", residency="unrestricted", region="aws:us-east-1")
    assert open_upload.location.name == "virginia"
    said = losses.give_up(ADMIN, "virginia", reason="gone")
    assert (said.location.state, said.has_region, said.artifact_count) == ("RETIRED", False, 0)
    assert fleet.uploads.get(ADMIN, open_upload.id).state == "FAILED"
    live(fleet, 4)
    assert {each.location.name: each.state for each in fleet.artifact(written.digest).replicas} == {
        "eemshaven": "VERIFIED"
    }
    # The region may be given up later than the location.
    assert losses.give_up(ADMIN, "virginia", reason="gone", has_region=True).has_region
    assert losses.give_up(ADMIN, "virginia", reason="gone").has_region
    with pytest.raises(LocationNotFound):
        losses.give_up(ADMIN, "paris", reason="gone")
    with pytest.raises(InvalidInput):
        losses.give_up(ADMIN, "eemshaven", reason="  ")


@pytest.mark.parametrize("way", ["lost", "retired"])
def test_nothing_is_collected_in_the_name_of_a_location_whose_place_another_has(fleet: Fleet, way: str) -> None:
    _, written = fleet.register(FILES)
    fleet.settle()
    before = fleet.location("virginia")
    if way == "lost":
        Losses(fleet.database, fleet.clock).give_up(ADMIN, "virginia", reason="gone")
    else:
        fleet.retirements.retire(ADMIN, "virginia")
        live(fleet, 8)
    fleet.locations.add(ADMIN, name="virginia", region=before.region, url=before.url)
    live(fleet, 7)
    with fleet.database.read() as session:
        marked = session.scalars(select(GarbageRow.location_id).where(GarbageRow.state != "DELETED")).all()
        passes = session.scalars(select(ScrubRow).where(ScrubRow.location_id == fleet.location("virginia").id)).all()
    assert before.id not in marked
    assert not [each.outcome for each in passes if "missing" in (each.outcome or {})]
    # Of what was lost, the feature store says when nothing that was erased is left in it; there is none here.
    assert fleet.location("virginia").state == ("WARMING" if way == "lost" else "ACTIVE")
    assert fleet.read(written.digest, "virginia") == FILES
