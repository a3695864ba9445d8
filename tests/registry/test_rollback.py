from __future__ import annotations

import pytest

from fairlead.core.errors import (
    Conflict,
    EnvironmentNotFound,
    FairleadError,
    InvalidInput,
    ModelVersionNotFound,
    StaleRevision,
)
from fairlead.registry.audit import AuditLog
from fairlead.registry.paging import PageRequest
from fairlead.registry.policy import MetricGate, Policy
from fairlead.registry.promotion_record import STALE
from fairlead.registry.rollback import Rollback
from tests.record_world import World

STRICT = Policy(gates=(MetricGate(metric="auc", comparison=">=", limit=2.0),), approvals=1)


@pytest.fixture
def churn(world: World) -> World:
    """A world where production was held by churn/1, churn/2 and now churn/3, at revision 3."""
    world.model()
    for version in (1, 2, 3):
        world.version()
        world.promotions.request(world.owner, "churn", version, "production", expected_revision=version - 1)
    world.version()
    return world


def roll_back(
    world: World, *, revision: int = 3, to_version: int | None = None, reason: str = "It is wrong."
) -> Rollback:
    return world.rollbacks.move_back(
        world.owner, "churn", "production", expected_revision=revision, reason=reason, to_version=to_version
    )


def test_production_goes_back_to_the_version_before_in_one_call(churn: World) -> None:
    done = roll_back(churn)
    assert (done.move.kind, done.move.from_version, done.move.to_version, done.move.revision) == ("rollback", 3, 2, 4)
    assert churn.versions.resolve(churn.owner, "churn@production").version.version == 2
    assert churn.refs_revision() == 4


def test_it_goes_to_any_version_that_held_the_environment(churn: World) -> None:
    assert roll_back(churn, to_version=1).move.to_version == 1


def test_gates_and_approvals_do_not_stand_in_the_way_and_what_was_skipped_is_said_and_audited(churn: World) -> None:
    churn.policy("production", STRICT)
    done = roll_back(churn)
    assert done.not_rechecked == ("auc >= 2", "approvals")
    (event,) = AuditLog(churn.database).list(churn.owner, PageRequest(), action="model.rollback").items
    assert event.facts["not_rechecked"] == ["auc >= 2", "approvals"]
    assert (event.subject, event.facts["reason"]) == ("churn/2", "It is wrong.")


def test_a_second_roll_back_returns_to_where_the_first_began(churn: World) -> None:
    roll_back(churn)
    assert roll_back(churn, revision=4).move.to_version == 3


@pytest.mark.parametrize(
    ("to_version", "error"), [(3, Conflict), (4, Conflict), (9, ModelVersionNotFound), (2**63, ModelVersionNotFound)]
)
def test_a_version_that_never_held_the_environment_or_holds_it_is_refused(
    churn: World, to_version: int, error: type[FairleadError]
) -> None:
    with pytest.raises(error):
        roll_back(churn, to_version=to_version)


def test_without_an_earlier_holder_there_is_no_way_back(churn: World) -> None:
    with pytest.raises(Conflict, match="before"):
        churn.rollbacks.move_back(churn.owner, "churn", "staging", expected_revision=0, reason="It is wrong.")


def test_the_fence_holds_for_roll_backs_too(churn: World) -> None:
    with pytest.raises(StaleRevision):
        roll_back(churn, revision=2)
    assert churn.refs_revision() == 3


@pytest.mark.parametrize("reason", ["", "  ", "\0", "x" * 2001])
def test_a_roll_back_needs_a_reason(churn: World, reason: str) -> None:
    with pytest.raises(InvalidInput):
        roll_back(churn, reason=reason)


def test_an_alias_is_not_rolled_back(churn: World) -> None:
    churn.aliases.set(churn.owner, "churn", "champion", 1, expected_revision=0)
    with pytest.raises(EnvironmentNotFound):
        churn.rollbacks.move_back(churn.owner, "churn", "champion", expected_revision=1, reason="x")


def test_promotions_that_wait_become_stale(churn: World) -> None:
    churn.policy("production", Policy(approvals=1))
    waiting = churn.promotions.request(churn.owner, "churn", 4, "production", expected_revision=3)
    roll_back(churn)
    assert churn.promotions.get(churn.owner, waiting.id or "").state == STALE
