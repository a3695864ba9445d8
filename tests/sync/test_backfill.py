from __future__ import annotations

from collections.abc import Generator
from decimal import Decimal
from pathlib import Path

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.errors import AlreadyExists
from fairlead.registry.paging import PageRequest
from tests.fleet import ADMIN, REGIONS, Fleet, open_fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia", "eemshaven")) as fleet:
        fleet.register({"a.bin": bytes(range(256)) * 4000})
        fleet.register({"b.bin": b"restricted"}, residency="us")
        fleet.settle()
        yield fleet


def test_adding_is_priced_from_the_cheapest_source_and_keeps_nothing(fleet: Fleet) -> None:
    url = fleet.folder("amsterdam").as_uri()
    plan = fleet.backfills.plan_new(ADMIN, name="amsterdam", region=REGIONS["amsterdam"], url=url)
    (source,) = plan.sources
    tariffs = {
        name: load_catalog().egress(REGIONS[name], REGIONS["amsterdam"]).value for name in ("virginia", "eemshaven")
    }
    assert source.location == min(tariffs, key=lambda name: tariffs[name])
    assert (plan.wanted, plan.verified, plan.waiting, source.artifacts) == (1, 0, 0, 1)
    assert plan.bytes > 0
    assert plan.usd >= Decimal(plan.bytes) / 10**9 * Decimal(str(tariffs[source.location]))
    assert plan.seconds > 0
    assert [each.name for each in fleet.locations.list(ADMIN, _page()).items] == ["eemshaven", "virginia"]
    assert not fleet.folder("amsterdam").exists()


def test_the_plan_of_a_location_that_is_there_shrinks_to_nothing(fleet: Fleet) -> None:
    fleet.add("amsterdam")
    fleet.settle()
    plan = fleet.backfills.plan(ADMIN, "amsterdam")
    assert (plan.wanted, plan.verified, plan.bytes, plan.usd, plan.sources) == (1, 1, 0, 0, ())


def test_what_is_verified_nowhere_is_waited_for(fleet: Fleet) -> None:
    fleet.register({"c.bin": b"new"})
    fleet.add("amsterdam")
    fleet.wipe("virginia")
    plan = fleet.backfills.plan(ADMIN, "amsterdam")
    assert plan.wanted == plan.waiting + len(plan.sources) + plan.verified


def test_a_plan_is_refused_where_adding_would_be(fleet: Fleet) -> None:
    with pytest.raises(AlreadyExists):
        fleet.backfills.plan_new(ADMIN, name="virginia", region=REGIONS["virginia"], url="/tmp/elsewhere")


def _page() -> PageRequest:
    return PageRequest()
