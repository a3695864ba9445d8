"""A version whose features are not as expected is refused, with the value and the limit, as by any other gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from fairlead.catalog import load_catalog
from fairlead.core.errors import GateRefused
from fairlead.core.ports import SnapshotFinding
from fairlead.registry.promotion import Promotions
from fairlead.registry.promotion_policies import PromotionPolicies
from fairlead.registry.promotion_policy import ExpressionGate, PromotionPolicy
from fairlead.registry.promotion_record import APPLIED, REFUSED
from fairlead.registry.tables import ModelVersionRow
from tests.record_world import World

SNAPSHOT = "sha256:" + "5" * 64
DRIFTED = SnapshotFinding(
    name="usage: bill-drift",
    measure="PSI",
    value=0.41,
    limit="<= 0.25",
    is_passed=False,
    is_required=True,
    detail="",
)


class Found:
    """What checks found of one snapshot."""

    def __init__(self, *findings: SnapshotFinding) -> None:
        self._findings = findings

    def findings(self, workspace_id: str, snapshot_digest: str) -> Sequence[SnapshotFinding]:
        assert workspace_id
        return self._findings if snapshot_digest == SNAPSHOT else ()


@pytest.fixture
def churn(world: World) -> World:
    world.model()
    world.version()
    with world.database.write() as session:
        session.execute(update(ModelVersionRow).values(snapshot_digest=SNAPSHOT))
    return world


def promote(world: World, *findings: SnapshotFinding, revision: int = 0) -> tuple[str, list[tuple[object, ...]]]:
    promotions = Promotions(world.database, world.clock, load_catalog(), snapshots=Found(*findings))
    gates: Any = promotions.plan(world.owner, "churn", 1, "production").plan["gates"]
    told = [(each["gate"], each["value"], each["limit"], each["verdict"]) for each in gates]
    try:
        done = promotions.request(world.owner, "churn", 1, "production", expected_revision=revision, reason="Better.")
    except GateRefused:
        return REFUSED, told
    return done.state, told


def test_what_failed_refuses_with_its_value_and_limit(churn: World) -> None:
    state, gates = promote(churn, DRIFTED)
    assert state == REFUSED
    assert gates == [("expectation usage: bill-drift (PSI)", 0.41, "<= 0.25", "failed")]


def test_warnings_are_told_and_what_passed_lets_it_go_on(churn: World) -> None:
    passed = replace(DRIFTED, name="usage: rows", measure="rows", value=400.0, limit=">= 100", is_passed=True)
    state, gates = promote(churn, replace(DRIFTED, is_required=False), passed)
    assert state == APPLIED
    assert [gate[-1] for gate in gates] == ["passed", "passed"]


def test_expressions_ask_what_was_found(churn: World) -> None:
    gate = ExpressionGate(name="calm", expression='expectations["usage: bill-drift PSI"].value < 0.1')
    PromotionPolicies(churn.database, churn.clock).put(
        churn.owner, "calm", PromotionPolicy(gates=(gate,)), expected_revision=None
    )
    assert promote(churn, replace(DRIFTED, is_passed=True))[0] == REFUSED
    assert promote(churn, replace(DRIFTED, is_passed=True, value=0.05))[0] == APPLIED
