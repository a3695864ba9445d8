from __future__ import annotations

import os
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from fairlead.core.errors import LocationUnavailable
from fairlead.core.ports import ObjectStore
from fairlead.registry import work
from fairlead.registry.replicas import REPLICATE, derive_replications
from fairlead.registry.tables import ReplicaRow
from fairlead.registry.uploads import derive_verifications
from fairlead.registry.work import WorkStatus
from fairlead.sync.sources import WAIT_FOR_SOURCE
from fairlead.testing.objects import Action, Fault, FaultyStore
from tests.fleet import ADMIN, BACK_OFF, REGIONS, Fleet, open_fleet

FILES = {"weights.bin": os.urandom(200_000)}
VIRGINIA, EEMSHAVEN, AMSTERDAM = REGIONS["virginia"], REGIONS["eemshaven"], REGIONS["amsterdam"]


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path) as fleet:
        yield fleet


def register_verified(fleet: Fleet) -> str:
    """An artifact that is VERIFIED in Virginia and wanted everywhere, with nothing copied yet."""
    _, written = fleet.register(FILES)
    derive(fleet)
    run(fleet, "verify-upload")
    derive(fleet)
    return written.digest


def derive(fleet: Fleet) -> None:
    """Require work, without planning where copies come from: that is for the tests to say."""
    with fleet.database.write() as session:
        derive_verifications(session, fleet.clock.now())
        derive_replications(session, fleet.clock.now())


def run(fleet: Fleet, kind: str, region: str | None = None) -> bool:
    """Do one piece of work; False if none was due."""
    regions = None if region is None else {region}
    leased = work.lease(
        fleet.database,
        fleet.clock,
        kinds={kind},
        regions=regions,
        holder="test",
        ttl=timedelta(minutes=1),
    )
    if leased is None:
        return False
    try:
        fleet.duties.handlers[kind](leased)
    except Exception as error:  # noqa: BLE001  (as a worker does)
        work.fail(fleet.database, fleet.clock, leased, error, None)
    return True


def plan(fleet: Fleet, digest: str, **sources: str) -> None:
    """Say where the replica at each location should come from."""
    with fleet.database.write() as session:
        for name, source in sources.items():
            session.execute(
                update(ReplicaRow)
                .where(ReplicaRow.artifact_digest == digest, ReplicaRow.location_id == fleet.location(name).id)
                .values(planned_source_location_id=fleet.location(source).id)
            )


def waiting(fleet: Fleet, region: str) -> WorkStatus:
    with fleet.database.read() as session:
        found = work.list_work(session, ADMIN.workspace_id, fleet.clock.now()).items
    return next(each for each in found if each.kind == REPLICATE and each.region == region)


def source_region(fleet: Fleet, digest: str, name: str) -> str | None:
    return fleet.replica(digest, name).source_region


def test_a_copy_waits_for_the_source_of_the_plan_and_then_takes_it(fleet: Fleet) -> None:
    digest = register_verified(fleet)
    plan(fleet, digest, eemshaven="virginia", amsterdam="eemshaven")
    assert run(fleet, REPLICATE, AMSTERDAM)
    found = waiting(fleet, AMSTERDAM)
    assert (found.state, found.attempts, found.error_code) == ("WAITING", 0, "not-ready")
    assert fleet.states(digest)["amsterdam"] == "PENDING"
    assert not run(fleet, REPLICATE, AMSTERDAM)

    assert run(fleet, REPLICATE, EEMSHAVEN)
    assert run(fleet, REPLICATE, AMSTERDAM), "it is told at once"
    assert source_region(fleet, digest, "amsterdam") == EEMSHAVEN
    assert fleet.read(digest, "amsterdam") == FILES


def test_the_source_of_the_plan_is_taken_also_where_another_one_is_cheaper(fleet: Fleet) -> None:
    digest = register_verified(fleet)
    assert run(fleet, REPLICATE, EEMSHAVEN)
    for source in ("virginia", "eemshaven"):
        fleet.wipe("amsterdam")
        with fleet.database.write() as session:
            mine = ReplicaRow.location_id == fleet.location("amsterdam").id
            session.execute(update(ReplicaRow).where(mine).values(state="PENDING", layout_key=None))
        plan(fleet, digest, amsterdam=source)
        derive(fleet)
        assert run(fleet, REPLICATE, AMSTERDAM)
        assert source_region(fleet, digest, "amsterdam") == REGIONS[source]


def test_a_planned_source_that_fails_is_not_waited_for(fleet: Fleet) -> None:
    digest = register_verified(fleet)
    plan(fleet, digest, eemshaven="virginia", amsterdam="eemshaven")
    assert run(fleet, REPLICATE, AMSTERDAM)

    def away(name: str, store: ObjectStore) -> ObjectStore:
        if name == "eemshaven":
            raise LocationUnavailable("The region is away.")
        return store

    fleet.wrap = away
    assert run(fleet, REPLICATE, EEMSHAVEN)
    assert fleet.states(digest)["eemshaven"] == "FAILED"
    assert run(fleet, REPLICATE, AMSTERDAM), "it is told at once"
    assert source_region(fleet, digest, "amsterdam") == VIRGINIA


def test_a_planned_source_that_nobody_works_for_is_waited_for_a_while_only(fleet: Fleet) -> None:
    digest = register_verified(fleet)
    plan(fleet, digest, eemshaven="virginia", amsterdam="eemshaven")
    assert run(fleet, REPLICATE, AMSTERDAM)
    fleet.clock.advance(WAIT_FOR_SOURCE)
    assert run(fleet, REPLICATE, AMSTERDAM)
    assert source_region(fleet, digest, "amsterdam") == VIRGINIA


def test_a_planned_source_whose_region_is_at_work_is_waited_for_longer(fleet: Fleet) -> None:
    digest = register_verified(fleet)
    plan(fleet, digest, eemshaven="virginia", amsterdam="eemshaven")
    fleet.clock.advance(WAIT_FOR_SOURCE)
    with fleet.database.write() as session:
        work.require_work(
            session,
            workspace_id=ADMIN.workspace_id,
            residency="unrestricted",
            kind="other",
            subject="busy",
            region=EEMSHAVEN,
            priority=work.USUAL,
            now=fleet.clock.now(),
        )
    busy = work.lease(
        fleet.database, fleet.clock, kinds={"other"}, regions=None, holder="one", ttl=timedelta(minutes=1)
    )
    assert busy is not None
    assert run(fleet, REPLICATE, AMSTERDAM)
    assert waiting(fleet, AMSTERDAM).error_code == "not-ready"


@pytest.mark.parametrize("sources", [{"eemshaven": "amsterdam", "amsterdam": "eemshaven"}, {"amsterdam": "amsterdam"}])
def test_a_plan_that_runs_in_a_circle_does_not_keep_copies_waiting(fleet: Fleet, sources: dict[str, str]) -> None:
    digest = register_verified(fleet)
    plan(fleet, digest, **sources)
    fleet.clock.advance(timedelta(seconds=1))
    while run(fleet, REPLICATE):
        pass
    fleet.clock.advance(BACK_OFF)
    fleet.clock.advance(WAIT_FOR_SOURCE)
    while run(fleet, REPLICATE):
        pass
    assert set(fleet.states(digest).values()) == {"VERIFIED"}


def test_a_planned_source_that_is_damaged_gives_way_to_another(fleet: Fleet) -> None:
    digest = register_verified(fleet)
    assert run(fleet, REPLICATE, EEMSHAVEN)
    plan(fleet, digest, amsterdam="eemshaven")
    fleet.wrap = lambda name, store: (
        FaultyStore(store, [Fault(operation="read", call=call, action=Action.FLIP) for call in range(1, 40)])
        if name == "eemshaven"
        else store
    )
    assert run(fleet, REPLICATE, AMSTERDAM)
    assert source_region(fleet, digest, "amsterdam") == VIRGINIA
    assert fleet.states(digest)["eemshaven"] == "CORRUPT"


def test_what_was_given_up_mends_the_last_replica_while_its_bytes_are_still_there(fleet: Fleet) -> None:
    digest = register_verified(fleet)
    assert run(fleet, REPLICATE, EEMSHAVEN)
    with fleet.database.write() as session:
        given_up = ReplicaRow.location_id == fleet.location("eemshaven").id
        session.execute(update(ReplicaRow).where(given_up).values(is_wanted=False, state="PENDING"))
        unwanted = ReplicaRow.location_id == fleet.location("amsterdam").id
        session.execute(update(ReplicaRow).where(unwanted).values(is_wanted=False))
    fleet.wipe("virginia")
    fleet.artifacts.report(ADMIN, digest, location="virginia", code="object-not-found")

    fleet.clock.advance(BACK_OFF)
    assert run(fleet, REPLICATE, VIRGINIA)
    assert fleet.states(digest) == {"virginia": "VERIFIED", "eemshaven": "PENDING", "amsterdam": "PENDING"}
    assert source_region(fleet, digest, "virginia") == EEMSHAVEN
    assert fleet.read(digest, "virginia") == FILES
