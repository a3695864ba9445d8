"""A placement's text holds the whole explanation: what was chosen, why, what it costs, what came second."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.cli.placements import describe_placement
from fairlead.core.ids import RegionId
from fairlead.serving.placement import Demand, PlacementRequest, Resources, place

REQUEST = PlacementRequest(
    demand=(
        Demand(area="new-york", requests_per_second=120, latency_limit_ms=90),
        Demand(area="frankfurt", requests_per_second=80, latency_limit_ms=40),
    ),
    resources=Resources(vcpus=1, memory_gib=2, requests_per_second_per_replica=40, bytes_per_request=2000),
    candidate_regions=(RegionId("aws:us-east-1"), RegionId("gcp:europe-west4"), RegionId("azure:westeurope")),
    existing_replicas=(RegionId("aws:us-east-1"),),
    artifact_bytes=17_000_000,
    carbon_price_usd_per_tonne=100,
)


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    return {"id": "0198", "request": {}, "answer": place(REQUEST).to_json()}


def test_every_chosen_region_is_there_with_what_runs_in_it(row: dict[str, Any]) -> None:
    text = describe_placement(row)
    assert text.startswith("placement 0198: 2 regions, ")
    for choice in row["answer"]["placement"]["choices"]:
        line = next(line for line in text.splitlines() if line.startswith(choice["region"]))
        for instance in choice["instances"]:
            assert f"{instance['count']} x {instance['sku']}" in line


def test_every_area_is_there_with_shares_latency_and_limit(row: dict[str, Any]) -> None:
    text = describe_placement(row)
    for group in row["answer"]["placement"]["groups"]:
        line = next(line for line in text.splitlines() if line.startswith(group["area"]))
        for region in group["shares"]:
            assert f"{region} 100 %" in line
        assert f"~{group['p95_ms']:g} ms" in line
        assert line.endswith(f"{group['latency_limit_ms']:g} ms")


def test_the_cost_adds_up_as_it_is_shown(row: dict[str, Any]) -> None:
    text = describe_placement(row)
    line = next(line for line in text.splitlines() if line.startswith("an hour costs"))
    words = line.replace("=", "+").split()
    compute, egress, replication, total = (float(word) for word in words if word[0].isdigit())
    assert compute + egress + replication == pytest.approx(total, abs=1e-9)
    assert total == row["answer"]["placement"]["terms"]["cost_usd"]


def test_emissions_come_with_their_method(row: dict[str, Any]) -> None:
    text = describe_placement(row)
    assert f"= {row['answer']['placement']['terms']['carbon_g']:g} gCO2e" in text
    assert "PUE x grid of the" in text


def test_what_bound_it_and_who_lost_and_why_are_there(row: dict[str, Any]) -> None:
    text = describe_placement(row)
    assert "bound by\n  latency_limit_ms" in text
    assert "runner-up      aws:us-east-1, azure:westeurope: " in text
    assert "more: " in text
    assert "azure:westeurope: permitted, and the objective is lower without it [not-chosen]" in text
    assert "regions (named with --output json): there is no location in it" in text


def test_figures_that_nobody_measured_are_named(row: dict[str, Any]) -> None:
    text = describe_placement(row).partition("\nestimates\n")[2]
    flat = " ".join(text.split())
    assert "round trip new-york to aws:us-east-1: ~15.3 +-" in flat
    assert "grid carbon of aws:us-east-1: ~" in flat
    assert "grid carbon of gcp:europe-west4" not in flat


def test_no_line_is_wider_than_a_hundred_characters_unless_a_table_is(row: dict[str, Any]) -> None:
    assert max(len(line) for line in describe_placement(row).splitlines()) <= 120


def test_a_single_free_choice_says_that_nothing_bound_it_and_nothing_came_second(row: dict[str, Any]) -> None:
    answer = row["answer"] | {"runner_up": None, "bounds": [], "rejected": []}
    text = describe_placement(row | {"answer": answer})
    assert "bound by       nothing" in text
    assert "runner-up      none" in text
    assert "not chosen" not in text
