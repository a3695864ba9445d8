"""Power is an estimate with one set of coefficients for all clouds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairlead.catalog import load_catalog
from fairlead.catalog.power import instance_power

CATALOG = load_catalog()


def test_power_is_idle_watts_plus_the_share_of_what_load_adds() -> None:
    (price,) = CATALOG.prices("aws:us-east-1", "m6i.large")
    power = instance_power(price, utilization=0.5)
    assert power is not None
    assert power.value == pytest.approx(2 * (0.74 + 0.5 * 2.76) + 8 * 0.392)
    assert power.is_estimate


def test_an_accelerator_draws_its_board_power_under_full_load() -> None:
    (price,) = CATALOG.prices("aws:us-east-1", "g4dn.xlarge")
    power = instance_power(price, utilization=1.0)
    assert power is not None
    assert power.value == pytest.approx(4 * 3.5 + 16 * 0.392 + 71)


def test_power_rises_with_utilization_for_every_instance_in_the_catalog() -> None:
    unknown: set[str | None] = set()
    for region in CATALOG.regions():
        for price in CATALOG.prices(region.id):
            idle, full = (instance_power(price, utilization=u) for u in (0.0, 1.0))
            if idle is None or full is None:
                unknown.add(price.accelerator)
            else:
                assert 0 < idle.value < full.value
    # Nobody says what these boards draw.
    assert unknown == {"Inferentia1", "Inferentia2", "Trainium1"}


def test_an_instance_whose_owner_states_its_power_draws_that() -> None:
    (price,) = CATALOG.prices("aws:us-east-1", "inf2.xlarge")
    stated = replace(price, idle_watts=40.0, full_watts=120.0)
    power = instance_power(stated, utilization=0.5)
    assert power is not None
    assert power.value == 80.0
