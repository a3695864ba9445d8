from __future__ import annotations

from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.errors import (
    AliasNotFound,
    Conflict,
    FairleadError,
    GateRefused,
    InvalidInput,
    PermissionDenied,
    PlanOutdated,
    PromotionPolicyNotFound,
    RoleBindingNotFound,
    StaleRevision,
)
from fairlead.core.ports import SmokeTestFacts
from fairlead.registry.audit import AuditLog
from fairlead.registry.evaluations import Evaluations
from fairlead.registry.freeze import Freeze
from fairlead.registry.history import History
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.identity import Caller, Reach
from fairlead.registry.paging import PageRequest
from fairlead.registry.policy import Policy
from fairlead.registry.promotion import Promotions
from fairlead.registry.promotion_policies import PromotionPolicies
from fairlead.registry.promotion_policy import (
    Approver,
    Approvers,
    ExpressionGate,
    PromotionPolicy,
    assign,
    from_json,
    to_json,
)
from fairlead.registry.promotion_record import APPLIED, AWAITING_APPROVAL, WITHDRAWN, Promotion
from fairlead.registry.role_bindings import RoleBindings
from fairlead.registry.version_registration import VersionDraft
from tests.record_world import World, run_together, unknown_id

US = "aws:us-east-1"
NO_WORSE = ExpressionGate(name="no-worse", expression="champion == null || metrics.auc >= champion.metrics.auc - 0.002")
FAIR = ExpressionGate(name="fair", expression="evaluations.fairness.metrics.gap <= 0.05", message="Ask the team.")
ALWAYS = Freeze(name="always", reason="Audit.", begins="2000-01-01", ends="2100-01-01")


@pytest.fixture
def churn(world: World) -> World:
    """The model `churn`: version 1 at auc 0.9, version 2 at auc 0.7."""
    world.model()
    world.version(metrics={"auc": 0.9})
    world.version(metrics={"auc": 0.7})
    return world


def apply(world: World, *gates: ExpressionGate, name: str = "prod", **parts: Any) -> int:
    policy = PromotionPolicy(models=("churn*",), environments=("production",), gates=gates, **parts)
    return (
        PromotionPolicies(world.database, world.clock).put(world.owner, name, policy, expected_revision=None).revision
    )


def ask(world: World, version: int = 1, *, revision: int = 0, **more: Any) -> Promotion:
    return world.promotions.request(
        world.owner, "churn", version, "production", expected_revision=revision, reason="It is better.", **more
    )


def bind(world: World, principal: str, role: str, **patterns: Any) -> str:
    return RoleBindings(world.database, world.clock).bind(world.owner, principal=principal, role=role, **patterns).id


def gate(promotion: Promotion, name: str) -> dict[str, Any]:
    return next(found for found in promotion.plan["gates"] if found["gate"] == name)


def test_an_expression_refuses_with_its_text_its_values_and_the_next_step(churn: World) -> None:
    apply(churn, NO_WORSE, FAIR)
    with pytest.raises(GateRefused) as refused:
        ask(churn)
    assert refused.value.detail.endswith("evaluations has no 'fairness'. Ask the team.")
    assert "fairlead model evaluate churn/1" in (refused.value.hint or "")
    Evaluations(churn.database, churn.clock).record(churn.owner, "churn", 1, name="fairness", metrics={"gap": 0.01})
    done = ask(churn)
    assert done.state == APPLIED
    fair = gate(done, "fair")
    assert (fair["policy"], fair["expression"], fair["verdict"]) == ("prod", FAIR.expression, "passed")
    assert fair["values"] == {"evaluations.fairness.metrics.gap": 0.01}


def test_a_challenger_is_compared_with_the_champion(churn: World) -> None:
    apply(churn, NO_WORSE)
    ask(churn)
    with pytest.raises(GateRefused) as refused:
        ask(churn, 2, revision=1)
    assert "metrics.auc is 0.7, champion.metrics.auc is 0.9" in refused.value.detail


def test_a_policy_is_about_the_models_and_environments_that_it_matches(churn: World) -> None:
    apply(churn, ExpressionGate(name="never", expression="false"))
    churn.model("fraud")
    churn.version("fraud")
    assert churn.promotions.request(churn.owner, "fraud", 1, "production", expected_revision=0).state == APPLIED
    assert churn.promotions.request(churn.owner, "churn", 1, "staging", expected_revision=0).state == APPLIED
    with pytest.raises(GateRefused):
        ask(churn)


def test_the_environments_own_policy_and_each_promotion_policy_must_pass(churn: World) -> None:
    churn.policy("production", Policy(approvals=1))
    apply(churn, NO_WORSE)
    apply(churn, name="other", approvals=(Approvers(count=1, role="risk"),))
    waiting = ask(churn)
    bind(churn, "cho", "risk")
    assert waiting.plan["policies"] == {"other": 1, "prod": 1}
    assert churn.promotions.approve(churn.caller("ben", "approve"), waiting.id or "").state == AWAITING_APPROVAL
    done = churn.promotions.approve(churn.caller("cho", "approve"), waiting.id or "")
    assert done.state == APPLIED
    assert [(word.principal, word.roles) for word in done.approvals] == [("ben", ()), ("cho", ("risk",))]


def test_an_approvers_role_counts_where_it_is_bound_and_each_person_fills_one_place(churn: World) -> None:
    apply(churn, approvals=(Approvers(count=1, role="risk"), Approvers(count=1)))
    bind(churn, "ben", "risk", models="fraud*")
    waiting = ask(churn)
    ben, cho = churn.caller("ben", "approve"), churn.caller("cho", "approve")
    assert churn.promotions.approve(ben, waiting.id or "").state == AWAITING_APPROVAL
    assert churn.promotions.approve(cho, waiting.id or "").state == AWAITING_APPROVAL
    bind(churn, "ben", "risk", models="churn", environments="prod*")
    assert churn.promotions.approve(ben, waiting.id or "").state == APPLIED


def test_the_role_of_a_group_counts_for_whoever_is_in_it_when_they_approve(churn: World) -> None:
    def person(name: str, *groups: str) -> Caller:
        reach = Reach(scopes=["approve"], groups=groups, by_roles=True)
        token = churn.tokens.create(churn.owner, name=name, principal=name, reach=reach)
        return churn.tokens.authenticate(token.secret)

    apply(churn, approvals=(Approvers(count=2, role="risk"),))
    bind(churn, "group:risk", "risk", models="churn*", environments="production")
    bind(churn, "group:risk-2", "risk", models="fraud*")
    for group in ("risk", "risk-2", "staff"):
        bind(churn, f"group:{group}", "approver")
    waiting = ask(churn).id or ""
    for other in (person("ben", "risk-2"), person("cho", "staff"), person("group-risk", "staff")):
        assert gate(churn.promotions.approve(other, waiting), "approvals by risk")["value"] == 0
    # One person is one, however many groups they are in.
    _, again = (churn.promotions.approve(person("dora", "staff", "risk", "risk-2"), waiting) for _ in range(2))
    assert gate(again, "approvals by risk")["detail"] == "1 of 2 approvals as risk by dora."
    asking = person("ana", "risk")
    assert asking.principal == churn.owner.principal
    with pytest.raises(FairleadError):
        churn.promotions.approve(asking, waiting)
    done = churn.promotions.approve(person("eli", "risk"), waiting)
    assert (done.state, gate(done, "approvals by risk")["value"]) == (APPLIED, 2)
    assert [word.principal for word in done.approvals if "risk" in word.roles] == ["dora", "eli"]


def test_people_are_matched_to_places_so_that_as_many_as_possible_are_filled() -> None:
    asked = (Approvers(count=1), Approvers(count=1, role="risk"), Approvers(count=1, role="legal"))
    both = Approver(principal="ana", roles=frozenset({"risk", "legal"}))
    risk = Approver(principal="ben", roles=frozenset({"risk"}))
    nobody = Approver(principal="cho")
    assert assign(asked, [both, risk, nobody]) == (("cho",), ("ben",), ("ana",))
    assert sum(map(len, assign(asked, [risk, both]))) == 2


def test_approving_twice_is_one_event(churn: World) -> None:
    apply(churn, approvals=(Approvers(count=2),))
    waiting = ask(churn)
    ben = churn.caller("ben", "approve")
    for _ in range(2):
        churn.promotions.approve(ben, waiting.id or "")
    events = AuditLog(churn.database).list(churn.owner, PageRequest(), action="model.promote.approve").items
    assert len(events) == 1


def test_a_requester_withdraws_and_nobody_else_does(churn: World) -> None:
    apply(churn, approvals=(Approvers(count=1),))
    waiting = ask(churn)
    with pytest.raises(PermissionDenied):
        churn.promotions.withdraw(churn.caller("ben", "promote"), waiting.id or "")
    assert churn.promotions.withdraw(churn.owner, waiting.id or "", comment="no").state == WITHDRAWN
    with pytest.raises(Conflict):
        churn.promotions.approve(churn.caller("ben", "approve"), waiting.id or "")
    (event,) = AuditLog(churn.database).list(churn.owner, PageRequest(), action="model.promote.withdraw").items
    assert event.facts["comment"] == "no"


def test_a_freeze_refuses_and_only_a_named_role_sets_it_aside_with_a_reason(churn: World) -> None:
    apply(churn, freezes=(ALWAYS,), override_roles=("commander",))
    with pytest.raises(GateRefused, match=r"Frozen until 2100-01-01T00:00:00Z: Audit\."):
        ask(churn)
    with pytest.raises(GateRefused):
        ask(churn, is_emergency=True)
    bind(churn, "ana", "commander")
    with pytest.raises(InvalidInput, match="needs a reason"):
        churn.promotions.request(churn.owner, "churn", 1, "production", expected_revision=0, is_emergency=True)
    done = ask(churn, is_emergency=True)
    assert (done.state, gate(done, "freeze always")["verdict"]) == (APPLIED, "overridden")
    (event,) = AuditLog(churn.database).list(churn.owner, PageRequest(), action="model.promote").items
    gates: Any = event.facts["gates"]
    assert "by ana as commander" in gates[0]["detail"]


def test_a_residency_class_that_forbids_a_required_region_is_named(world: World) -> None:
    world.model(residency="eu")
    upload = world.upload(residency="eu")
    world.verify(upload)
    world.versions.register(world.owner, "churn", VersionDraft(upload_id=upload))
    apply(world, required_regions=(US,))
    with pytest.raises(GateRefused, match=f"residency class 'eu' of churn/1 keeps its bytes out of {US}"):
        ask(world)
    apply(world, residency=("unrestricted",))
    with pytest.raises(GateRefused, match="the policy 'prod' admits unrestricted"):
        ask(world)
    world.policy("production", Policy(residency=("us",)))
    with pytest.raises(GateRefused, match="the environment's policy admits us"):
        ask(world)
    kept = world.promotions.list(world.owner, PageRequest()).items
    assert {promotion.plan["facts"]["residency"] for promotion in kept} == {"eu"}


def test_a_plan_applies_while_the_world_is_as_it_was_and_else_says_what_changed(churn: World) -> None:
    apply(churn, NO_WORSE)
    plan = churn.promotions.plan(churn.owner, "churn", 1, "production").plan
    same = churn.promotions.plan(churn.owner, "churn", 1, "production").plan
    assert plan["fingerprint"] == same["fingerprint"]
    churn.versions.update(churn.owner, "churn", 1, tags={"x": "y"})
    apply(churn, NO_WORSE, FAIR)
    churn.replica(churn.versions.get(churn.owner, "churn", 1), US)
    Evaluations(churn.database, churn.clock).record(churn.owner, "churn", 1, name="fairness", metrics={"gap": 0.01})
    with pytest.raises(PlanOutdated) as refused:
        ask(churn, basis=plan["basis"])
    changes: Any = refused.value.attributes["changes"]
    assert changes == [
        "tags of the version changed",
        "the evaluation fairness of the version is new",
        "the promotion policy prod was at revision 1 and is at revision 2",
        f"the replica in {US} is new",
    ]
    assert churn.promotions.list(churn.owner, PageRequest()).items == ()
    fresh = churn.promotions.plan(churn.owner, "churn", 1, "production").plan
    assert fresh["fingerprint"] != plan["fingerprint"]
    assert ask(churn, basis=fresh["basis"]).state == APPLIED


def test_a_policy_has_revisions_and_every_one_is_in_the_audit_log(churn: World) -> None:
    policies = PromotionPolicies(churn.database, churn.clock)
    assert [apply(churn, NO_WORSE), apply(churn, NO_WORSE), apply(churn, FAIR)] == [1, 1, 2]
    with pytest.raises(StaleRevision):
        policies.put(churn.owner, "prod", PromotionPolicy(), expected_revision=1)
    policies.delete(churn.owner, "prod", expected_revision=2)
    with pytest.raises(PromotionPolicyNotFound):
        policies.get(churn.owner, "prod")
    events = AuditLog(churn.database).list(churn.owner, PageRequest(), subject="prod").items
    assert Counter(event.action for event in events) == {"promotion-policy.apply": 2, "promotion-policy.delete": 1}


def test_a_policy_that_cannot_be_evaluated_is_refused_with_gate_and_place(churn: World) -> None:
    with pytest.raises(InvalidInput, match="The gate 'g': There is no variable 'auc'") as refused:
        apply(churn, ExpressionGate(name="g", expression="auc > 1"))
    assert (refused.value.attributes["gate"], refused.value.attributes["column"]) == ("g", 1)
    with pytest.raises(InvalidInput, match="Two gates"):
        apply(churn, NO_WORSE, NO_WORSE)


def test_a_policy_survives_the_record() -> None:
    policy = PromotionPolicy(
        models=("a",),
        gates=(NO_WORSE, FAIR),
        approvals=(Approvers(count=2, role="r"),),
        freezes=(ALWAYS,),
        override_roles=("c",),
        required_regions=(US,),
        residency=("eu",),
    )
    assert from_json(to_json(policy)) == policy


def test_one_of_several_who_create_a_policy_or_an_environment_wins(churn: World) -> None:
    policies = PromotionPolicies(churn.database, churn.clock)
    create = partial(policies.put, churn.owner, "new", PromotionPolicy(gates=(NO_WORSE,)), expected_revision=0)
    assert Counter(map(code, run_together(create, create, create))) == {"done": 1, "stale-revision": 2}
    environment = partial(churn.environments.put, churn.owner, "canary", rank=25, wanted=Policy(), expected_revision=0)
    assert Counter(map(code, run_together(environment, environment, environment))) == {"done": 1, "stale-revision": 2}


def code(outcome: object) -> str:
    return outcome.code if isinstance(outcome, FairleadError) else "done"


def test_who_is_on_call_rolls_back_past_every_gate_and_it_is_said(churn: World) -> None:
    ask(churn)
    ask(churn, 2, revision=1)
    apply(churn, NO_WORSE, approvals=(Approvers(count=1, role="risk"),), freezes=(ALWAYS,))
    dora = churn.caller("dora", "promote")
    back = partial(churn.rollbacks.move_back, dora, "churn", "production", expected_revision=2, reason="3 a.m.")
    with pytest.raises(PermissionDenied, match="not on call"):
        back()
    bind(churn, "dora", "on-call", models="churn", environments="production")
    done = back()
    assert done.move.to_version == 1
    assert done.not_rechecked == ("prod: no-worse", "prod: freeze always", "prod: approvals by risk")


def test_a_holder_of_long_ago_is_no_way_back(world: World) -> None:
    world.model()
    for _ in range(7):
        world.version()
    for version in range(1, 8):
        ask(world, version, revision=version - 1)
    with pytest.raises(Conflict, match="5 other versions have since"):
        world.rollbacks.move_back(world.owner, "churn", "production", expected_revision=7, reason="r", to_version=1)


def test_roles_are_bound_once_and_taken_away(churn: World) -> None:
    bindings = RoleBindings(churn.database, churn.clock)
    key = IdempotencyKey(key="k", request_sha256="0" * 64)
    one = bindings.bind(churn.owner, principal="group:risk", role="risk", key=key)
    assert bindings.bind(churn.owner, principal="group:risk", role="risk").id == one.id
    assert [each.id for each in bindings.list(churn.owner, PageRequest(), principal="group:risk").items] == [one.id]
    bindings.unbind(churn.owner, one.id)
    for missing in (one.id, unknown_id()):
        with pytest.raises(RoleBindingNotFound):
            bindings.unbind(churn.owner, missing)


def test_an_evaluation_is_recorded_once_for_one_key_and_the_newest_counts(churn: World) -> None:
    evaluations = Evaluations(churn.database, churn.clock)
    record = partial(evaluations.record, churn.owner, "churn", 1, name="fairness")
    key = IdempotencyKey(key="k", request_sha256="0" * 64)
    assert record(metrics={"gap": 0.5}, key=key) == record(metrics={"gap": 0.5}, key=key)
    record(metrics={"gap": 0.01})
    assert [each.metrics["gap"] for each in evaluations.list(churn.owner, "churn", 1, PageRequest()).items] == [
        0.01,
        0.5,
    ]
    apply(churn, FAIR)
    assert ask(churn).state == APPLIED
    with pytest.raises(InvalidInput):
        record(metrics={})


def test_an_auditor_learns_what_held_production_at_a_time(churn: World) -> None:
    class Bundles:
        def bundle_of(self, workspace_id: str, model_id: str, version: int) -> str | None:
            assert workspace_id == churn.owner.workspace_id
            assert model_id
            return f"bundle-{version}"

        def smoke_test_of(self, workspace_id: str, model_id: str, version: int) -> SmokeTestFacts | None:
            assert (workspace_id, version) == (churn.owner.workspace_id, 1)
            assert model_id
            return None

    promotions = Promotions(churn.database, churn.clock, load_catalog(), bundles=Bundles())
    history = History(churn.database, churn.clock)
    version = churn.versions.get(churn.owner, "churn", 1)
    churn.replica(version, US)
    apply(churn, NO_WORSE, approvals=(Approvers(count=1),))
    before = churn.clock.now()
    churn.clock.advance(timedelta(hours=1))
    waiting = promotions.request(churn.owner, "churn", 1, "production", expected_revision=0, reason="first")
    promotions.approve(churn.caller("ben", "approve"), waiting.id or "", comment="fine")
    during = churn.clock.now()
    churn.clock.advance(timedelta(hours=1))
    apply(churn)
    ask(churn, 2, revision=1)
    with pytest.raises(AliasNotFound):
        history.held_at(churn.owner, "churn", "production", before)
    held = history.held_at(churn.owner, "churn", "production", during)
    assert (held.reference, held.artifact_digest, held.bundle) == ("churn/1", version.artifact_digest, "bundle-1")
    assert held.regions == (US,)
    assert held.promotion is not None
    assert [(word.principal, word.comment) for word in held.promotion.approvals] == [("ben", "fine")]
    assert gate(held.promotion, "no-worse")["verdict"] == "passed"
    assert history.held_at(churn.owner, "churn", "production").reference == "churn/2"
    churn.rollbacks.move_back(churn.owner, "churn", "production", expected_revision=2, reason="bad")
    back = history.held_at(churn.owner, "churn", "production")
    assert (back.move.kind, back.not_rechecked) == ("rollback", ())
    assert back.promotion is not None
    assert back.promotion.id == waiting.id


def test_the_routes_answer_with_codes_and_fences(churn: World) -> None:
    spec: dict[str, Any] = {
        "match": {"models": ["churn"], "environments": ["production"]},
        "gates": [{"name": "auc", "expression": "metrics.auc > 0.8"}],
        "approvals": [{"role": "risk"}],
        "freezes": [{"name": "old", "reason": "r", "from": "2020-01-01", "until": "2020-02-01"}],
    }
    with churn.http() as http:
        made = http.put("/api/v1/promotion-policies/p", json=spec, headers={"If-Match": '"0"'})
        assert (made.status_code, made.headers["etag"]) == (200, '"1"')
        assert made.json()["freezes"][0]["from"] == "2020-01-01"
        stale = http.put("/api/v1/promotion-policies/p", json=spec, headers={"If-Match": '"0"'})
        assert (stale.status_code, stale.json()["type"]) == (412, "urn:fairlead:error:stale-revision")
        for expression in ("metrics.auc > 0 && '\0' == ''", "0x" + "f" * 300 + " > 1", "auc", "1 +"):
            bad = spec | {"gates": [{"name": "g", "expression": expression}]}
            assert http.put("/api/v1/promotion-policies/p", json=bad).status_code == 400, expression
        early = spec | {
            "freezes": [{"name": "f", "reason": "r", "from": "0001-01-01T00:00+23:00", "until": "2020-01-01"}]
        }
        assert http.put("/api/v1/promotion-policies/p", json=early).status_code == 400
        asked = http.post(
            "/api/v1/models/churn/promotions",
            json={"version": 1, "environment": "production"},
            headers={"If-Match": '"0"'},
        )
        assert asked.status_code == 202
        path = f"/api/v1/promotions/{asked.json()['id']}"
        assert http.post(f"{path}/withdraw", json={}).json()["state"] == "WITHDRAWN"
        assert http.get("/api/v1/models/churn/history/production/at").status_code == 404
        for moment in ("soon", "0001-01-01T00:00:00+23:59"):
            at = http.get("/api/v1/models/churn/history/production/at", params={"time": moment})
            assert at.status_code == 400
        evaluation = {"name": "e", "metrics": {"gap": 0.1}}
        assert http.post("/api/v1/models/churn/versions/1/evaluations", json=evaluation).status_code == 201
        assert http.post("/api/v1/models/churn/versions/9/evaluations", json=evaluation).status_code == 404
        bound = http.post("/api/v1/role-bindings", json={"principal": "ben", "role": "risk"})
        assert bound.status_code == 201
        assert http.delete(f"/api/v1/role-bindings/{bound.json()['id']}").status_code == 204
        assert http.delete("/api/v1/promotion-policies/p").status_code == 204
    with churn.http(churn.secret("ben", "read", "promote")) as http:
        assert http.put("/api/v1/promotion-policies/p", json=spec).status_code == 403
        assert http.post("/api/v1/role-bindings", json={"principal": "ben", "role": "on-call"}).status_code == 403
