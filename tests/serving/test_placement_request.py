"""A request that is wrong is refused by the name of the wrong member."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import FairleadError, InvalidInput, ResidencyViolation
from fairlead.serving.placement import Demand, PlacementRequest, Resources, place, request_from_json

GOOD: dict[str, Any] = {
    "demand": [{"area": "london", "requests_per_second": 10, "latency_limit_ms": 50}],
    "resources": {"vcpus": 1, "memory_gib": 2, "requests_per_second_per_replica": 40},
    "candidate_regions": ["azure:westeurope", "gcp:europe-west4"],
}


def test_a_request_reads_as_it_is_written() -> None:
    assert request_from_json(GOOD | {"residency": "EU", "min_regions": 2, "budget_usd_per_hour": 3}) == (
        PlacementRequest(
            demand=(Demand(area="london", requests_per_second=10.0, latency_limit_ms=50.0),),
            resources=Resources(vcpus=1.0, memory_gib=2.0, requests_per_second_per_replica=40.0),
            residency=request_from_json(GOOD | {"residency": "eu"}).residency,
            candidate_regions=request_from_json(GOOD).candidate_regions,
            min_regions=2,
            budget_usd_per_hour=3.0,
        )
    )


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/demand", []),
        ("/demand", {"area": "london"}),
        ("/demand/0", "london"),
        ("/demand/0/area", "atlantis"),
        ("/demand/0/area", 7),
        ("/demand/0/requests_per_second", 0),
        ("/demand/0/requests_per_second", -1),
        ("/demand/0/requests_per_second", float("nan")),
        ("/demand/0/requests_per_second", float("inf")),
        ("/demand/0/requests_per_second", "10"),
        ("/demand/0/requests_per_second", True),
        ("/demand/0/requests_per_second", 10**400),
        ("/demand/0/latency_limit_ms", 0),
        ("/demand/0/latency", 5),
        ("/resources", None),
        ("/resources/vcpus", 0),
        ("/resources/memory_gib", 1e300),
        ("/resources/requests_per_second_per_replica", 1e-9),
        ("/resources/bytes_per_request", 1.5),
        ("/resources/bytes_per_request", -1),
        ("/resources/accelerator", "TPU"),
        ("/resources/architecture", "sparc"),
        ("/residency", "europe"),
        ("/candidate_regions/0", "westeurope"),
        ("/allowed_regions", "azure:westeurope"),
        ("/denied_regions", ["azure:westeurope", "mars"]),
        ("/min_regions", 0),
        ("/min_clouds", 1.0),
        ("/artifact_bytes", -1),
        ("/amortization_hours", 0),
        ("/carbon_price_usd_per_tonne", -1),
        ("/latency_price_usd_per_request_second", -1),
        ("/budget_usd_per_hour", -1),
        ("/bogus", 1),
    ],
)
def test_a_wrong_member_is_named_by_its_pointer(pointer: str, value: object) -> None:
    document: Any = copy.deepcopy(GOOD)
    *path, last = (int(step) if step.isdigit() else step for step in pointer.split("/")[1:])
    parent: Any = document
    for step in path:
        parent = parent[step]
    parent[last] = value
    with pytest.raises(InvalidInput) as refused:
        place(request_from_json(document))
    assert str(refused.value.attributes["pointer"]).startswith(pointer)


@pytest.mark.parametrize("member", ["demand", "resources"])
def test_a_missing_member_is_named(member: str) -> None:
    document = {name: value for name, value in GOOD.items() if name != member}
    with pytest.raises(InvalidInput, match="is missing") as refused:
        request_from_json(document)
    assert refused.value.attributes["pointer"] == f"/{member}"


def test_an_area_named_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice") as refused:
        place(request_from_json(GOOD | {"demand": GOOD["demand"] * 2}))
    assert refused.value.attributes["pointer"] == "/demand/1/area"


def test_a_replica_that_is_already_outside_its_residency_class_is_a_violation() -> None:
    document = GOOD | {"residency": "eu", "existing_replicas": ["aws:us-east-1"]}
    with pytest.raises(ResidencyViolation) as refused:
        place(request_from_json(document))
    assert refused.value.attributes["pointer"] == "/existing_replicas/0"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(document=json_values, member=st.sampled_from([*GOOD, "residency", "existing_replicas", "min_regions"]))
def test_no_json_at_all_gives_anything_but_a_typed_error(document: object, member: str) -> None:
    for each in (document, GOOD | {member: document}):
        try:
            request_from_json(each)
        except FairleadError as error:
            assert "pointer" in error.attributes  # noqa: PT017  (any typed error will do; none is also fine)
