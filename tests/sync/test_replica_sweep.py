from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select

from fairlead.registry.tables import LocationRow, ReplicaRow
from fairlead.sync.duties import ReplicaSweep
from tests.fleet import Fleet, open_fleet

EVERY = timedelta(seconds=15)


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia", "amsterdam")) as fleet:
        yield fleet


def count(fleet: Fleet) -> int:
    with fleet.database.read() as session:
        return session.scalar(select(func.count()).select_from(ReplicaRow)) or 0


def test_lost_rows_come_back_part_by_part_and_a_new_location_gets_all_at_once(fleet: Fleet) -> None:
    for content in (b"one", b"two", b"three"):
        fleet.register({"model": content})
        fleet.settle()
    assert count(fleet) == 6
    sweep, now = ReplicaSweep(EVERY, part=1), fleet.clock.now()

    def step() -> int:
        nonlocal now
        now += EVERY
        with fleet.database.write() as session:
            sweep(session, now)
        return count(fleet)

    assert step() == 6
    with fleet.database.write() as session:
        amsterdam = session.scalars(select(LocationRow.id).where(LocationRow.name == "amsterdam")).one()
        session.execute(delete(ReplicaRow).where(ReplicaRow.location_id == amsterdam))
    assert [step() for _ in range(3)] == [4, 5, 6]
    fleet.add("eemshaven")
    assert step() == 9
