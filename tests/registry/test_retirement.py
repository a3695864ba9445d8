from __future__ import annotations

import shutil
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.core.errors import AlreadyExists, Conflict, LocationInUse, LocationNotFound
from fairlead.core.ports import RegionUser
from fairlead.registry.tables import ReplicaRow
from fairlead.sync.collection import GRACE
from fairlead.sync.upkeep import Upkeeps
from tests.fleet import ADMIN, Fleet, open_fleet

FILES = {"weights.bin": b"w" * 5000, "config.json": b"{}"}
OTHER = {"weights.bin": b"x" * 7000}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia",)) as fleet:
        yield fleet


@pytest.fixture
def local(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        yield fleet


def register(fleet: Fleet, files: dict[str, bytes] = FILES, **where: object) -> str:
    _, written = fleet.register(files, **where)  # pyright: ignore[reportArgumentType]  (passed on)
    fleet.settle()
    return written.digest


def collect(fleet: Fleet, name: str) -> None:
    """As many passes of the collector as an object takes from its mark to its grave."""
    for _ in range(4):
        Upkeeps(fleet.database, fleet.clock).request(ADMIN, "collect", location=name, scope={})
        fleet.run()
        fleet.clock.advance(GRACE + timedelta(minutes=1))


def test_a_location_with_nothing_to_bring_is_active_at_once(local: Fleet) -> None:
    assert local.add("amsterdam").state == "ACTIVE"


def test_a_new_location_takes_uploads_only_once_it_holds_what_it_should(fleet: Fleet) -> None:
    digest = register(fleet)
    assert fleet.add("amsterdam").state == "WARMING"
    assert fleet.begin(near="amsterdam").location.name == "virginia"
    fleet.settle()
    assert fleet.states(digest) == {"virginia": "VERIFIED", "amsterdam": "VERIFIED"}
    assert fleet.location("amsterdam").state == "ACTIVE"
    assert fleet.begin(near="amsterdam").location.name == "amsterdam"
    assert "location.activate" in fleet.actions()


def test_a_location_is_warm_enough_at_the_share_that_was_asked_for(local: Fleet) -> None:
    kept, lost = register(local), register(local, OTHER)
    shutil.rmtree(local.folder("virginia"))
    local.folder("virginia").mkdir()
    local.locations.add(
        ADMIN,
        name="amsterdam",
        region="azure:westeurope",
        url=local.folder("amsterdam").as_uri(),
        settings={"min_warm": 0.0},
    )
    local.run()
    assert local.location("amsterdam").state == "ACTIVE"
    assert "VERIFIED" not in {local.states(kept)["amsterdam"], local.states(lost)["amsterdam"]}


def test_a_location_that_residency_leaves_empty_becomes_active(local: Fleet) -> None:
    register(local, residency="us")
    assert local.add("amsterdam").state == "ACTIVE"


def test_a_retired_location_is_drained_then_read_no_more_then_wanted_no_more(fleet: Fleet) -> None:
    fleet.add("amsterdam")
    digest = register(fleet)
    found = fleet.retirements.retire(ADMIN, "virginia")
    assert (found.location.state, found.replicas, found.last_replica_count) == ("DRAINING", 1, 0)
    assert fleet.begin(near="virginia").location.name == "amsterdam"
    assert fleet.states(digest)["virginia"] == "VERIFIED"
    fleet.run()
    assert fleet.location("virginia").state == "RETIRED"
    assert fleet.states(digest) == {"virginia": "PENDING", "amsterdam": "VERIFIED"}
    with fleet.database.read() as session:
        rows = session.query(ReplicaRow).where(ReplicaRow.location_id == found.location.id).all()
        assert [row.is_wanted for row in rows] == [False]
    newer = register(fleet, OTHER, near="amsterdam")
    assert fleet.states(newer) == {"amsterdam": "VERIFIED"}
    assert fleet.retirements.retire(ADMIN, "virginia").location.state == "RETIRED"
    assert [action for action in fleet.actions() if action.startswith("location.retire")] == [
        "location.retire",
        "location.retired",
    ]


def test_what_only_a_retiring_location_holds_is_copied_elsewhere_first(local: Fleet) -> None:
    digest = register(local)
    local.add("amsterdam")
    found = local.retirements.retire(ADMIN, "virginia")
    assert [(each.artifact, each.copied_to) for each in found.last_replicas] == [(digest, ("amsterdam",))]
    assert local.location("virginia").state == "DRAINING"
    local.settle()
    assert local.states(digest)["amsterdam"] == "VERIFIED"
    assert local.location("virginia").state == "RETIRED"
    assert local.read(digest, "amsterdam") == FILES


def test_a_location_with_the_last_replica_of_what_may_be_nowhere_else_is_kept(local: Fleet) -> None:
    local.add("amsterdam")
    digest = register(local, residency="us")
    with pytest.raises(LocationInUse, match=digest):
        local.retirements.retire(ADMIN, "virginia")
    assert local.location("virginia").state == "ACTIVE"
    assert local.retirements.show(ADMIN, "virginia").last_replicas[0].copied_to == ()


def test_a_location_is_drained_for_as_long_as_an_upload_or_a_deployment_needs_it(local: Fleet) -> None:
    local.add("amsterdam")
    upload = local.begin(near="virginia")
    local.users = {"aws:us-east-1": ["deployment churn"]}
    found = local.retirements.retire(ADMIN, "virginia")
    assert (found.open_uploads, found.used_by) == (1, (RegionUser(name="deployment churn"),))
    local.run()
    assert local.location("virginia").state == "DRAINING"
    local.complete(upload, local.write(upload, FILES))
    local.settle()
    assert local.location("virginia").state == "DRAINING"
    local.users = {}
    local.run()
    assert local.location("virginia").state == "RETIRED"


def test_a_deployment_may_go_on_where_its_region_has_another_active_location(local: Fleet) -> None:
    local.locations.add(ADMIN, name="second", region="aws:us-east-1", url=local.folder("second").as_uri())
    local.users = {"aws:us-east-1": ["deployment churn"]}
    assert local.retirements.retire(ADMIN, "virginia").used_by == ()
    local.run()
    assert local.location("virginia").state == "RETIRED"


def test_a_retirement_can_be_taken_back_until_it_is_over(local: Fleet) -> None:
    local.add("amsterdam")
    register(local)
    local.retirements.retire(ADMIN, "virginia")
    assert local.retirements.keep(ADMIN, "virginia").state == "WARMING"
    local.run()
    assert local.location("virginia").state == "ACTIVE"
    local.retirements.retire(ADMIN, "virginia")
    local.run()
    with pytest.raises(Conflict, match="is retired"):
        local.retirements.keep(ADMIN, "virginia")


def test_a_name_and_a_url_can_be_given_again_once_the_retired_location_is_collected(fleet: Fleet) -> None:
    fleet.add("amsterdam")
    digest = register(fleet)
    fleet.retirements.retire(ADMIN, "virginia")
    fleet.run()
    with pytest.raises(AlreadyExists):
        fleet.add("virginia")
    collect(fleet, "virginia")
    assert fleet.packs("virginia") == []
    assert fleet.states(digest) == {"amsterdam": "VERIFIED"}
    again = fleet.add("virginia")
    assert again.state == "WARMING"
    fleet.settle()
    assert fleet.location("virginia").state == "ACTIVE"
    assert fleet.read(digest, "virginia") == FILES


def test_a_cache_is_retired_at_once_and_takes_neither_uploads_nor_replicas(local: Fleet) -> None:
    local.locations.add(
        ADMIN, name="edge", region="aws:us-east-1", url="https://edge.example.com/", kind="cache", settings={}
    )
    digest = register(local)
    assert local.states(digest) == {"virginia": "VERIFIED"}
    assert local.location("edge").url == "https://edge.example.com"
    assert local.retirements.retire(ADMIN, "edge").location.state == "RETIRED"


def test_a_location_that_is_not_there_cannot_be_retired(local: Fleet) -> None:
    with pytest.raises(LocationNotFound, match="paris"):
        local.retirements.retire(ADMIN, "paris")
