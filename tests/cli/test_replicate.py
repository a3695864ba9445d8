from __future__ import annotations

from typing import Any

import pytest

from fairlead.catalog import UNRESTRICTED, load_catalog
from fairlead.cli.replicate import describe_replication, parse_duration
from fairlead.core.errors import InvalidInput
from fairlead.sync.distribution import DistributionRequest, plan_distribution
from fairlead.sync.hops import HopPrices, Missing, Stop
from fairlead.sync.plans import ReplicationPlan
from fairlead.sync.schemas_replications import PlanOut


def plan(sources: list[str], destinations: list[str], deadline: float | None = None) -> dict[str, Any]:
    catalog = load_catalog()

    def stop(region: str) -> Stop:
        return Stop(id=region, name=region, region=region, jurisdiction=catalog.region(region).jurisdiction)

    request = DistributionRequest(
        residency=UNRESTRICTED,
        sources=[stop(each) for each in sources],
        destinations=[stop(each) for each in destinations],
        relays=[],
        missing=lambda _stop: Missing(bytes=14 * 10**9, packs=418),
        deadline_seconds=deadline,
    )
    found = plan_distribution(request, HopPrices(catalog))
    answer = ReplicationPlan(
        artifact="sha256:" + "0b" * 32, residency="unrestricted", is_what_if=True, distribution=found
    )
    return PlanOut.of(answer).model_dump(mode="json")


def test_a_plan_is_drawn_as_a_tree_with_its_totals() -> None:
    text = describe_replication(plan(["aws:us-east-1"], ["gcp:europe-west1", "gcp:europe-west3", "azure:westeurope"]))
    lines = text.splitlines()
    assert lines[1] == "aws:us-east-1  aws:us-east-1  VERIFIED"
    assert sum("── " in line for line in lines) == 3
    assert any(line.startswith(("    └── ", "│   └── ", "    ├── ", "│   ├── ")) for line in lines)
    assert "plan:   3 copies, 42 GB, $" in text
    assert "direct: 3 copies, 42 GB, $" in text
    assert "saved:  $" in text


def test_a_plan_says_what_bound_it_and_that_there_may_be_nothing_to_do() -> None:
    tight = plan(["aws:us-east-1"], ["gcp:europe-west1", "gcp:europe-west3"], deadline=60)
    text = describe_replication(tight)
    assert ("bound by deadline: within 60 s; without it $" in text) == bool(tight["bindings"])
    assert "nothing to copy" in describe_replication(plan(["aws:us-east-1"], ["aws:us-east-1"]))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172_800), ("7", 7)])
def test_spans_of_time_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "-1s", "0m", "10 years"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_duration(text)
