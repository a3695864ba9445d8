"""Placement questions as they are asked of the service: filled in from the record, changed, and in fleets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import InvalidInput
from fairlead.serving.placements import Placements
from tests.fleet import ADMIN, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import Platform

ASKED: dict[str, Any] = {
    "reference": "churn/1",
    "demand": [{"area": "london", "requests_per_second": 10.0}],
    "resources": {"vcpus": 1.0, "memory_gib": 2.0, "requests_per_second_per_replica": 10.0},
}


@pytest.fixture(scope="module")
def placements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placements]:
    folder: Path = tmp_path_factory.mktemp("placements")
    with open_fleet(folder) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        platform.register("churn", model_files(1.0, 1.0, 1.0))
        yield platform.placements


def test_a_change_is_answered_beside_the_unchanged_request(placements: Placements) -> None:
    before = placements.create(ADMIN, ASKED).answer["placement"]["regions"]
    cloud = before[0].partition(":")[0]
    kept = placements.create(ADMIN, ASKED | {"what_if": {"without": [cloud]}})
    assert kept.answer["what_if"]["regions_before"] == before
    assert kept.answer["what_if"]["changes"] == [f"without {cloud}"]
    assert not {region for region in kept.answer["placement"]["regions"] if region.startswith(cloud)}
    assert kept.request["what_if"]["without"] == [cloud]


def test_the_front_and_the_flips_are_there_where_they_are_asked_for(placements: Placements) -> None:
    answer = placements.create(ADMIN, ASKED | {"include": ["pareto", "sensitivity"]}).answer
    assert answer["pareto"][0]["cost_usd"] == answer["placement"]["terms"]["cost_usd"]
    assert {each["of"] for each in answer["sensitivity"]} >= {"demand", "egress_tariffs", "carbon_price"}
    assert not answer["is_explained"]


def test_each_model_of_a_fleet_has_a_placement_of_its_own(placements: Placements) -> None:
    one = {"demand": ASKED["demand"], "resources": ASKED["resources"]}
    models = [{"name": "churn", "reference": "churn/1", "request": one}, {"name": "spam", "request": one}]
    fleet = placements.create_fleet(ADMIN, {"models": models})
    for name, placement_id in fleet.placements.items():
        kept = placements.get(ADMIN, placement_id)
        assert kept.answer["placement"] == fleet.answer["placements"][name]
    assert placements.get(ADMIN, fleet.placements["churn"]).request["artifact_bytes"] > 0


@pytest.mark.parametrize(
    ("pointer", "more"),
    [
        ("/include/0", {"include": ["weather"]}),
        ("/what_if/rain", {"what_if": {"rain": 1}}),
        ("/what_if/demand_times", {"what_if": {"demand_times": 0}}),
        ("/spot/max_share", {"spot": {"max_share": 2}}),
        ("/quotas/0/of", {"quotas": [{"scope": "*", "of": "rain", "limit": 1}]}),
        ("/order/1", {"order": ["cost", "compliance"]}),
        ("/allowed_clouds/0", {"allowed_clouds": ["moon"]}),
    ],
)
def test_what_is_wrong_is_named_by_its_pointer(placements: Placements, pointer: str, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        placements.create(ADMIN, ASKED | more)
    assert refused.value.attributes["pointer"] == pointer
