from __future__ import annotations

import pytest

from fairlead.core.errors import (
    EnvironmentNotFound,
    FairleadError,
    InvalidInput,
    InvalidName,
    StaleRevision,
    UnknownRegion,
)
from fairlead.registry import policy
from fairlead.registry.audit import AuditLog
from fairlead.registry.paging import PageRequest
from fairlead.registry.policy import MetricGate, Policy
from tests.record_world import World

STRICT = Policy(
    gates=(MetricGate(metric="auc", comparison=">=", limit=0.8),),
    required_regions=("aws:us-east-1",),
    approvals=1,
    previous_environment="staging",
)


def test_a_policy_has_revisions_and_the_one_before_is_on_record(world: World) -> None:
    changed = world.environments.put(world.owner, "production", rank=30, wanted=STRICT, expected_revision=1)
    assert (changed.revision, changed.policy) == (2, STRICT)
    assert world.environments.get(world.owner, "production") == changed
    world.environments.put(world.owner, "production", rank=40, wanted=Policy(), expected_revision=2)
    *_, event = AuditLog(world.database).list(world.owner, PageRequest(), subject="production").items
    assert policy.from_json(dict(event.facts)["before"]) == STRICT  # pyright: ignore[reportArgumentType]  (JSON)


def test_a_change_from_a_stale_revision_is_refused(world: World) -> None:
    for stale in (0, 2):
        with pytest.raises(StaleRevision):
            world.environments.put(world.owner, "production", rank=30, wanted=STRICT, expected_revision=stale)
    assert world.environments.get(world.owner, "production").policy == Policy()


def test_a_new_environment_takes_its_place_in_the_order(world: World) -> None:
    world.environments.put(world.owner, "canary", rank=25, wanted=Policy(), expected_revision=0)
    names = [each.name for each in world.environments.list(world.owner, PageRequest(size=500)).items]
    assert names == ["dev", "staging", "canary", "production"]
    page = world.environments.list(world.owner, PageRequest(size=2))
    rest = world.environments.list(world.owner, PageRequest(size=2, token=page.next_page_token))
    assert [each.name for each in (*page.items, *rest.items)] == names


@pytest.mark.parametrize(
    ("name", "rank", "wanted", "error"),
    [
        ("production", 30, Policy(required_regions=("aws:moon-1",)), UnknownRegion),
        ("production", 30, Policy(previous_environment="nowhere"), EnvironmentNotFound),
        ("production", 30, Policy(previous_environment="production"), InvalidInput),
        ("production", 5, Policy(previous_environment="staging"), InvalidInput),
        ("production", 30, Policy(approvals=11), InvalidInput),
        ("production", -1, Policy(), InvalidInput),
        ("production", 2**40, Policy(), InvalidInput),
        ("production", 30, Policy(gates=(MetricGate(metric="a\0", comparison=">", limit=1),)), InvalidName),
        ("latest", 30, Policy(), InvalidName),
        ("a/b", 30, Policy(), InvalidName),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    world: World, name: str, rank: int, wanted: Policy, error: type[FairleadError]
) -> None:
    with pytest.raises(error):
        world.environments.put(world.owner, name, rank=rank, wanted=wanted, expected_revision=1)


def test_an_environment_that_does_not_exist_is_not_found(world: World) -> None:
    with pytest.raises(EnvironmentNotFound):
        world.environments.get(world.owner, "nowhere")
