from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from functools import partial

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.errors import (
    Conflict,
    EnvironmentNotFound,
    FairleadError,
    GateRefused,
    InvalidInput,
    ModelNotFound,
    ModelVersionNotFound,
    NotReady,
    PromotionNotFound,
    SelfApproval,
    StaleRevision,
)
from fairlead.registry.audit import AuditLog
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.identity import Caller
from fairlead.registry.paging import PageRequest
from fairlead.registry.policy import MetricGate, Policy
from fairlead.registry.promotion import Promotions
from fairlead.registry.promotion_record import APPLIED, AWAITING_APPROVAL, PLANNED, REFUSED, REJECTED, STALE, Promotion
from fairlead.registry.version_registration import VersionDraft
from tests.record_world import World, run_together, unknown_id

US, EU = "aws:us-east-1", "gcp:europe-west4"
AUC = MetricGate(metric="auc", comparison=">=", limit=0.8)


@pytest.fixture
def churn(world: World) -> World:
    """A world with the model `churn`: version 1 at auc 0.9, version 2 at auc 0.7."""
    world.model()
    world.version(metrics={"auc": 0.9})
    world.version(metrics={"auc": 0.7})
    return world


def ask(
    world: World, version: int = 1, environment: str = "production", *, revision: int = 0, caller: Caller | None = None
) -> Promotion:
    return world.promotions.request(
        caller or world.owner, "churn", version, environment, expected_revision=revision, reason="It is better."
    )


def standing(world: World, environment: str = "production") -> tuple[int | None, int]:
    alias = world.aliases.get(world.owner, "churn", environment)
    return alias.version, alias.revision


def said(outcome: Promotion | FairleadError) -> str:
    return outcome.code if isinstance(outcome, FairleadError) else outcome.state


def actions(world: World, subject: str = "churn/1") -> list[str]:
    return [event.action for event in AuditLog(world.database).list(world.owner, PageRequest(), subject=subject).items]


def test_without_a_policy_a_promotion_applies_at_once(churn: World) -> None:
    done = ask(churn)
    assert (done.state, done.reference, done.base_revision, done.revision) == (APPLIED, "churn/1", 0, 1)
    assert standing(churn) == (1, 1)
    assert churn.refs_revision() == 1
    (move,) = churn.aliases.history(churn.owner, "churn", "production", PageRequest()).items
    assert (move.kind, move.promotion_id, move.reason) == ("promote", done.id, "It is better.")


def test_a_dry_run_shows_the_plan_and_keeps_nothing(churn: World) -> None:
    churn.policy("production", Policy(gates=(AUC,)))
    before = len(AuditLog(churn.database).list(churn.owner, PageRequest()).items)
    planned = churn.promotions.plan(churn.owner, "churn", 2, "production")
    assert (planned.id, planned.state) == (None, PLANNED)
    assert planned.plan["moves"] == {"from": None, "to": 2}
    assert [gate["verdict"] for gate in planned.plan["gates"]] == ["failed"]
    assert standing(churn) == (None, 0)
    assert churn.promotions.list(churn.owner, PageRequest()).items == ()
    assert len(AuditLog(churn.database).list(churn.owner, PageRequest()).items) == before
    with pytest.raises(StaleRevision):
        churn.promotions.plan(churn.owner, "churn", 2, "production", expected_revision=3)


def test_a_failed_gate_refuses_with_the_reason_and_the_next_step_and_stays_on_record(churn: World) -> None:
    churn.policy("production", Policy(gates=(AUC,), approvals=1))
    with pytest.raises(GateRefused) as refused:
        ask(churn, 2)
    assert "auc is 0.7" in refused.value.detail
    assert refused.value.hint
    plan = refused.value.attributes["plan"]
    assert isinstance(plan, dict)
    (kept,) = churn.promotions.list(churn.owner, PageRequest(), state=REFUSED).items
    assert (kept.id, kept.plan) == (refused.value.attributes["promotion"], plan)
    assert kept.finished_at == churn.clock.now()
    assert standing(churn) == (None, 0)
    assert churn.refs_revision() == 0
    (event,) = AuditLog(churn.database).list(churn.owner, PageRequest(), action="model.promote.refuse").items
    assert event.facts["failed"] == ["auc >= 0.8"]


def test_a_version_must_have_held_the_previous_environment(churn: World) -> None:
    churn.policy("production", Policy(previous_environment="staging"))
    with pytest.raises(GateRefused, match="never held staging"):
        ask(churn)
    ask(churn, environment="staging")
    ask(churn, 2, environment="staging", revision=1)
    assert ask(churn).state == APPLIED


def test_replicas_must_be_verified_in_every_required_region_and_missing_ones_are_priced(churn: World) -> None:
    churn.policy("production", Policy(required_regions=(US, EU)))
    version = churn.versions.get(churn.owner, "churn", 1)
    churn.replica(version, US)
    churn.replica(version, EU, "COPYING")
    with pytest.raises(GateRefused) as refused:
        ask(churn)
    plan = refused.value.attributes["plan"]
    assert isinstance(plan, dict)
    price = float(Decimal(str(load_catalog().egress(US, EU).value)))
    assert plan["missing_replicas"] == [
        {"region": EU, "bytes": 10**9, "usd": pytest.approx(price), "source_region": US, "state": "COPYING"}
    ]
    assert (plan["bytes"], plan["usd"]) == (10**9, pytest.approx(price))
    churn.replica(version, EU)
    assert ask(churn).state == APPLIED


def test_where_no_region_has_the_bytes_the_price_is_not_known(churn: World) -> None:
    churn.policy("production", Policy(required_regions=(EU,)))
    plan = churn.promotions.plan(churn.owner, "churn", 1, "production").plan
    assert plan["missing_replicas"] == [
        {"region": EU, "bytes": 2_000_000_000, "usd": None, "source_region": None, "state": None}
    ]


def test_one_verified_replica_in_a_region_is_enough(churn: World) -> None:
    churn.policy("production", Policy(required_regions=(US,)))
    version = churn.versions.get(churn.owner, "churn", 1)
    churn.replica(version, US, "CORRUPT")
    assert churn.promotions.plan(churn.owner, "churn", 1, "production").plan["gates"][0]["verdict"] == "failed"
    churn.replica(version, US)
    assert churn.promotions.plan(churn.owner, "churn", 1, "production").plan["missing_replicas"] == []


def test_the_plan_names_the_deployments_that_follow_the_environment(churn: World) -> None:
    class Index:
        def following(self, workspace_id: str, model: str, environment: str) -> Sequence[str]:
            assert workspace_id == churn.owner.workspace_id
            return (f"{model}-{environment}",)

        def pinned(self, workspace_id: str, model: str, version: int | None) -> Sequence[str]:  # noqa: ARG002  (the port's)
            return ()

    promotions = Promotions(churn.database, churn.clock, load_catalog(), Index())
    assert promotions.plan(churn.owner, "churn", 1, "dev").plan["deployments"] == ["churn-dev"]


def test_a_promotion_waits_for_approvals_by_others_and_the_last_one_applies_it(churn: World) -> None:
    churn.policy("production", Policy(gates=(AUC,), approvals=2))
    waiting = ask(churn)
    assert (waiting.state, waiting.revision) == (AWAITING_APPROVAL, None)
    assert standing(churn) == (None, 0)
    ben, cho = churn.caller("ben", "approve"), churn.caller("cho", "approve")
    assert churn.promotions.approve(ben, waiting.id or "", comment="fine").state == AWAITING_APPROVAL
    assert churn.promotions.approve(ben, waiting.id or "").state == AWAITING_APPROVAL
    done = churn.promotions.approve(cho, waiting.id or "")
    assert (done.state, done.revision) == (APPLIED, 1)
    assert [word.principal for word in done.approvals] == ["ben", "cho"]
    assert standing(churn) == (1, 1)
    (event,) = AuditLog(churn.database).list(churn.owner, PageRequest(), action="model.promote").items
    assert event.facts["approvers"] == ["ben", "cho"]
    assert event.facts["requested_by"] == "ana"


def test_the_requester_cannot_approve_and_the_attempt_is_on_record(churn: World) -> None:
    churn.policy("production", Policy(approvals=1))
    waiting = ask(churn)
    with pytest.raises(SelfApproval):
        churn.promotions.approve(churn.owner, waiting.id or "")
    assert churn.promotions.get(churn.owner, waiting.id or "").approvals == ()
    assert actions(churn)[-2:] == ["model.promote.request", "model.promote.self-approval"]


def test_the_last_approval_asks_every_gate_again(churn: World) -> None:
    churn.policy("production", Policy(required_regions=(US,), approvals=1))
    version = churn.versions.get(churn.owner, "churn", 1)
    churn.replica(version, US)
    waiting = ask(churn)
    churn.replica(version, US, "CORRUPT")
    with pytest.raises(GateRefused):
        churn.promotions.approve(churn.caller("ben", "approve"), waiting.id or "")
    assert churn.promotions.get(churn.owner, waiting.id or "").state == REFUSED
    assert standing(churn) == (None, 0)


def test_a_policy_that_became_stricter_holds_for_promotions_that_wait(churn: World) -> None:
    churn.policy("production", Policy(approvals=1))
    waiting = ask(churn)
    churn.policy("production", Policy(approvals=2))
    assert churn.promotions.approve(churn.caller("ben", "approve"), waiting.id or "").state == AWAITING_APPROVAL


def test_an_environment_that_moved_makes_waiting_promotions_stale(churn: World) -> None:
    churn.policy("production", Policy(approvals=1))
    first, second = ask(churn, 1), ask(churn, 2)
    ben = churn.caller("ben", "approve")
    churn.promotions.approve(ben, first.id or "")
    assert churn.promotions.get(churn.owner, second.id or "").state == STALE
    with pytest.raises(StaleRevision):
        churn.promotions.approve(ben, second.id or "")
    assert standing(churn) == (1, 1)


def test_a_rejected_promotion_is_over(churn: World) -> None:
    churn.policy("production", Policy(approvals=1))
    waiting = ask(churn)
    ben = churn.caller("ben", "approve")
    rejected = churn.promotions.reject(ben, waiting.id or "", comment="not on a Friday")
    assert rejected.state == REJECTED
    assert [(word.principal, word.is_approval, word.comment) for word in rejected.approvals] == [
        ("ben", False, "not on a Friday")
    ]
    for decide in (churn.promotions.approve, churn.promotions.reject):
        with pytest.raises(Conflict, match="REJECTED"):
            decide(ben, waiting.id or "")


def test_a_promotion_from_a_stale_revision_is_refused(churn: World) -> None:
    ask(churn)
    with pytest.raises(StaleRevision) as refused:
        ask(churn, 2)
    assert refused.value.attributes == {"expected": 0, "actual": 1}
    assert standing(churn) == (1, 1)


def test_what_cannot_be_promoted_is_refused(churn: World) -> None:
    churn.versions.register(churn.owner, "churn", VersionDraft(upload_id=churn.upload()))
    promote = churn.promotions.request
    cases: list[tuple[str, int, str, type[FairleadError]]] = [
        ("fraud", 1, "production", ModelNotFound),
        ("churn", 9, "production", ModelVersionNotFound),
        ("churn", 1, "nowhere", EnvironmentNotFound),
        ("churn", 3, "production", NotReady),
    ]
    for model, version, environment, error in cases:
        with pytest.raises(error):
            promote(churn.owner, model, version, environment, expected_revision=0)
    ask(churn)
    with pytest.raises(Conflict, match="already"):
        ask(churn, revision=1)


def test_a_promotion_that_does_not_exist_is_not_found(churn: World) -> None:
    for promotion in ("", "nonsense", unknown_id()):
        with pytest.raises(PromotionNotFound):
            churn.promotions.get(churn.owner, promotion)
        with pytest.raises(PromotionNotFound):
            churn.promotions.approve(churn.owner, promotion)


def test_a_repeated_request_is_one_promotion(churn: World) -> None:
    key = IdempotencyKey(key="k", request_sha256="0" * 64)

    def promote() -> Promotion:
        return churn.promotions.request(churn.owner, "churn", 1, "production", expected_revision=0, key=key)

    assert promote() == promote()
    assert standing(churn) == (1, 1)


def test_promotions_are_listed_newest_first_by_model_and_state(churn: World) -> None:
    ask(churn, 1, "dev")
    ask(churn, 2, "dev", revision=1)
    listed = churn.promotions.list(churn.owner, PageRequest(), model="churn", state=APPLIED).items
    assert [each.reference for each in listed] == ["churn/2", "churn/1"]
    with pytest.raises(ModelNotFound):
        churn.promotions.list(churn.owner, PageRequest(), model="fraud")
    with pytest.raises(InvalidInput):
        churn.promotions.list(churn.owner, PageRequest(), state="LOST")


def test_of_many_who_promote_from_one_revision_exactly_one_wins(churn: World) -> None:
    outcomes = run_together(*(partial(ask, churn, 1 + number % 2) for number in range(8)))
    assert Counter(map(said, outcomes)) == {APPLIED: 1, "stale-revision": 7}
    assert standing(churn)[1] == 1


def test_approvals_that_come_at_once_apply_a_promotion_once(churn: World) -> None:
    churn.policy("production", Policy(approvals=2))
    waiting = ask(churn).id or ""
    people = [churn.caller(f"p{number}", "approve") for number in range(6)]
    outcomes = run_together(*(partial(churn.promotions.approve, person, waiting) for person in people))
    assert Counter(map(said, outcomes)) == {AWAITING_APPROVAL: 1, APPLIED: 1, "conflict": 4}
    assert standing(churn) == (1, 1)


def test_policies_and_promotions_that_change_at_once_do_not_block_each_other(churn: World) -> None:
    for _ in range(6):
        version, revision = standing(churn, "dev")
        promote = partial(ask, churn, 2 if version == 1 else 1, "dev", revision=revision)
        change = partial(churn.policy, "dev", Policy())
        outcomes = run_together(promote, change, promote, change)
        errors = [outcome for outcome in outcomes if isinstance(outcome, FairleadError)]
        assert all(isinstance(error, StaleRevision) for error in errors), errors
        assert standing(churn, "dev")[1] == revision + 1


def test_a_move_leaves_the_promotions_of_other_environments_and_models_alone(churn: World) -> None:
    churn.model("fraud")
    churn.version("fraud")
    for environment in ("staging", "production"):
        churn.policy(environment, Policy(approvals=1))
    moved = ask(churn, 1, "production").id or ""
    rival = ask(churn, 2, "production").id or ""
    elsewhere = ask(churn, 2, "staging").id or ""
    other = churn.promotions.request(churn.owner, "fraud", 1, "production", expected_revision=0).id or ""
    churn.promotions.approve(churn.caller("bea", "approve"), moved)
    states = [churn.promotions.get(churn.owner, each).state for each in (moved, rival, elsewhere, other)]
    assert states == [APPLIED, STALE, AWAITING_APPROVAL, AWAITING_APPROVAL]
