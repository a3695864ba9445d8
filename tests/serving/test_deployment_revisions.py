"""Plans that are kept, roll-backs, what somebody changed by hand, and what has changed around a deployment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from fairlead.catalog import load_catalog
from fairlead.core.errors import DeploymentNotFound, InvalidInput, NotFound, PlanOutdated, Unavailable
from fairlead.registry.paging import PageRequest
from fairlead.serving.deployment_spec import ScalingDraft
from fairlead.serving.deployments import Deployment, DeploymentDraft, Deployments
from fairlead.serving.tables_targets import DeploymentRevisionRow
from fairlead.serving.targets import EndpointKey, EndpointSpec, RunningEndpoint
from tests.fleet import ADMIN, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import EU_WEST, US, Platform, refused

BOTH = (US, EU_WEST)
QUESTION = {
    "reference": "churn/1",
    "demand": [
        {"area": "new-york", "requests_per_second": 150, "latency_limit_ms": 200},
        {"area": "paris", "requests_per_second": 90, "latency_limit_ms": 200},
    ],
    "resources": {"vcpus": 1, "memory_gib": 2, "requests_per_second_per_replica": 100},
}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with open_fleet(tmp_path) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        platform.register("churn", model_files(1.0, 1.0, 1.0))
        platform.promote("churn", 1, revision=0)
        yield platform


def follow(*regions: str, scaling: ScalingDraft | None = None) -> DeploymentDraft:
    return DeploymentDraft(
        model="churn", environment="production", regions=regions or BOTH, scaling=scaling or ScalingDraft()
    )


def deploy(platform: Platform, draft: DeploymentDraft) -> None:
    platform.deployments.apply(ADMIN, draft)
    platform.settle(rounds=1)


def second_version(platform: Platform) -> None:
    platform.register("churn", model_files(2.0, 1.0, 1.0))
    platform.promote("churn", 2, revision=1)
    platform.settle(rounds=1)


def shown(platform: Platform) -> Deployment:
    return platform.deployments.get(ADMIN, "churn")


def test_a_plan_is_applied_only_while_it_would_be_the_same(platform: Platform) -> None:
    plan = platform.deployments.plan(ADMIN, follow())
    assert plan == platform.deployments.plan(ADMIN, follow())
    platform.deployments.apply(ADMIN, follow(), plan_digest=plan.digest)
    refused(PlanOutdated, lambda: platform.deployments.apply(ADMIN, follow(), plan_digest=plan.digest))
    platform.settle(rounds=1)
    again = platform.deployments.plan(ADMIN, follow(US))
    # The pointer has moved since.
    second_version(platform)
    refused(PlanOutdated, lambda: platform.deployments.apply(ADMIN, follow(US), plan_digest=again.digest))
    assert len(shown(platform).regions) == 2


def test_a_plan_weighs_dollars_and_grams_of_before_and_after(platform: Platform) -> None:
    placement = platform.placements.create(ADMIN, QUESTION)
    draft = DeploymentDraft(model="churn", environment="production", placement_id=placement.id)
    plan = platform.deployments.plan(ADMIN, draft)
    assert plan.from_usd_per_hour is None
    assert plan.usd_per_hour is not None
    assert plan.carbon_g_per_hour is not None
    assert all(step.instances for step in plan.steps)
    deploy(platform, draft)
    busiest = shown(platform).regions[0]
    assert busiest.shares
    assert busiest.usd_per_hour == plan.steps[0].usd_per_hour
    endpoint = platform.table()["acme:churn"].endpoints[0]
    assert endpoint.shares == busiest.shares
    workload = platform.target.running["acme", "churn", busiest.region].spec.workload
    assert workload.resources.vcpus == 1.0
    assert workload.scaling.min_replicas >= 1
    assert workload.instance_type is not None
    after = platform.deployments.plan(ADMIN, follow(US))
    assert after.from_usd_per_hour == plan.usd_per_hour
    assert after.usd_per_hour is None


def test_replicas_follow_the_requests_within_the_range_that_is_given(platform: Platform) -> None:
    ranged = ScalingDraft(min_replicas=0, max_replicas=4, requests_per_second_per_replica=50)
    deploy(platform, follow(US))
    plan = platform.deployments.plan(ADMIN, follow(US, scaling=ranged))
    assert [(step.action, step.from_replicas, step.replicas) for step in plan.steps] == [("scale", 1, 0)]
    before = platform.target.log.copy()
    deploy(platform, follow(US, scaling=ranged))
    scaling = platform.target.running["acme", "churn", US].spec.workload.scaling
    assert (scaling.min_replicas, scaling.max_replicas, scaling.requests_per_second_per_replica) == (0, 4, 50)
    assert platform.target.log == before, "the same process serves for both"
    refused(InvalidInput, lambda: platform.deployments.plan(ADMIN, follow(scaling=ScalingDraft(max_replicas=4))))
    backwards = ScalingDraft(min_replicas=5, max_replicas=4, requests_per_second_per_replica=1)
    refused(InvalidInput, lambda: platform.deployments.plan(ADMIN, follow(scaling=backwards)))


def test_a_roll_back_makes_an_earlier_revision_the_newest_and_pins_its_version(platform: Platform) -> None:
    deploy(platform, follow())
    refused(NotFound, lambda: platform.deployments.roll_back(ADMIN, "churn", reason="there is none"))
    second_version(platform)
    platform.deployments.roll_back(ADMIN, "churn", reason="worse in Paris")
    platform.settle(rounds=1)
    back = shown(platform)
    assert (back.revision, back.revision_state, back.environment) == (3, "LIVE", None)
    assert [each.version for each in back.regions] == [1, 1]
    history = platform.deployments.history(ADMIN, "churn", PageRequest()).items
    assert [(each.cause, each.state, each.version) for each in history] == [
        ("apply", "SUPERSEDED", 1),
        ("follow", "SUPERSEDED", 2),
        ("rollback", "LIVE", 1),
    ]
    assert history[-1].why == "worse in Paris"
    refused(NotFound, lambda: platform.deployments.roll_back(ADMIN, "churn", to_revision=9, reason="no such"))
    # Applied again, it follows the environment again.
    deploy(platform, follow())
    assert [each.version for each in shown(platform).regions] == [2, 2]


def test_a_roll_back_of_regions_goes_on_following(platform: Platform) -> None:
    deploy(platform, follow())
    deploy(platform, follow(US))
    platform.deployments.roll_back(ADMIN, "churn", to_revision=1, reason="Europe was better")
    platform.settle(rounds=1)
    back = shown(platform)
    assert (back.environment, [each.region for each in back.regions]) == ("production", list(BOTH))


def test_what_somebody_changed_by_hand_is_seen_and_put_right(platform: Platform) -> None:
    deploy(platform, follow(US))
    assert [each.drift for each in platform.drifts.find(ADMIN, "churn")] == ["none"]
    wait = timedelta(minutes=1)
    platform.fleet.clock.advance(wait)
    platform.target.differences[US] = ("replicas: 1 -> 7",)
    (drift,) = platform.drifts.find(ADMIN, "churn")
    assert (drift.drift, drift.details) == ("changed", ("replicas: 1 -> 7",))
    platform.worker().run_until_idle()
    assert [each.drift for each in platform.drifts.find(ADMIN, "churn")] == ["none"]
    # Whoever changes it again and again is not raced with: the next time is half a minute later.
    platform.target.differences[US] = ("replicas: 1 -> 7",)
    platform.worker().run_until_idle()
    assert shown(platform).regions[0].differences == ("replicas: 1 -> 7",)
    platform.fleet.clock.advance(wait)
    platform.worker().run_until_idle()
    assert shown(platform).regions[0].differences == ()


def test_an_endpoint_that_lives_and_does_not_answer_is_started_again_after_a_while(platform: Platform) -> None:
    deploy(platform, follow(US))
    before = shown(platform).regions[0].endpoint_url
    platform.target.hangs = {US}
    platform.worker().run_until_idle()
    assert shown(platform).regions[0].health == "unready"
    assert [each.drift for each in platform.drifts.find(ADMIN, "churn")] == ["unready"]
    platform.fleet.clock.advance(timedelta(seconds=10))
    platform.worker().run_until_idle()
    assert shown(platform).regions[0].endpoint_url == before
    platform.fleet.clock.advance(timedelta(seconds=11))
    platform.worker().run_until_idle()
    after = shown(platform).regions[0]
    assert (after.health, after.state) == ("up", "RUNNING")
    assert after.endpoint_url != before


def test_a_target_that_cannot_be_asked_says_nothing_of_what_runs_there(platform: Platform) -> None:
    deploy(platform, follow(US))
    before = shown(platform).regions[0].endpoint_url
    platform.target.is_down = True
    platform.worker().run_until_idle()
    assert (shown(platform).regions[0].health, shown(platform).regions[0].state) == ("unknown", "RUNNING")
    assert [each.drift for each in platform.drifts.find(ADMIN, "churn")] == ["unknown"]
    # Nor is a revision given up because of that.
    second_version(platform)
    platform.settle(rounds=5)
    assert shown(platform).revision_state == "ROLLING"
    platform.target.is_down = False
    platform.settle(rounds=2)
    assert shown(platform).regions[0].endpoint_url != before
    assert shown(platform).revision_state == "LIVE"


def test_a_deployment_whose_location_is_given_up_is_advised_to_be_placed_anew(platform: Platform) -> None:
    placement = platform.placements.create(ADMIN, QUESTION)
    deploy(platform, DeploymentDraft(model="churn", environment="production", placement_id=placement.id))
    assert shown(platform).advice == ()
    region = shown(platform).regions[0].region
    location = {US: "virginia", EU_WEST: "eemshaven"}.get(region, "amsterdam")
    platform.fleet.retirements.retire(ADMIN, location)
    (advice, *_) = shown(platform).advice
    assert advice.startswith(f"{region} has no location any more")
    assert "fairlead deploy replan churn" in advice
    proposal = platform.replanning.propose(ADMIN, "churn")
    assert proposal.placement_id != placement.id
    assert region not in {step.region for step in proposal.plan.steps if step.action != "stop"}
    assert shown(platform).placement_id == placement.id, "it is only proposed"


def test_requests_follow_a_new_order_of_regions_although_nothing_new_runs(platform: Platform) -> None:
    deploy(platform, follow(*BOTH))
    assert [each.region for each in platform.table()["acme:churn"].endpoints] == list(BOTH)
    started = list(platform.target.log)
    deploy(platform, follow(*reversed(BOTH)))
    platform.settle(rounds=1)
    assert platform.target.log == started
    assert [each.region for each in platform.table()["acme:churn"].endpoints] == [*reversed(BOTH)]


def test_placing_anew_weighs_what_runs_now_and_not_what_ran_when_it_was_last_placed_anew(platform: Platform) -> None:
    before = platform.placements.create(ADMIN, QUESTION).answer["placement"]["choices"]
    names = ("sku", "count", "is_spot")
    ran = [
        {"region": each["region"]} | {name: one[name] for name in names} | {"count": one["count"] + 9}
        for each in before
        for one in each["instances"]
    ]
    question = {**QUESTION, "switching": {"current": ran, "horizon_hours": 24}}
    placement = platform.placements.create(ADMIN, question)
    deploy(platform, DeploymentDraft(model="churn", environment="production", placement_id=placement.id))
    proposal = platform.replanning.propose(ADMIN, "churn")
    request = platform.placements.get(ADMIN, proposal.placement_id).request
    choices = placement.answer["placement"]["choices"]
    runs = {(each["region"], one["sku"], one["count"]) for each in choices for one in each["instances"]}
    assert {(each["region"], each["sku"], each["count"]) for each in request["switching"]["current"]} == runs
    assert request["switching"]["horizon_hours"] == 24


def test_a_target_that_breaks_holds_up_no_other(platform: Platform) -> None:
    deploy(platform, follow(US))

    def break_down(_spec: EndpointSpec) -> RunningEndpoint | None:
        raise RuntimeError("not foreseen")

    platform.target.observe = break_down  # pyright: ignore[reportAttributeAccessIssue]
    platform.worker().run_until_idle()
    assert (shown(platform).regions[0].health, shown(platform).regions[0].state) == ("unknown", "RUNNING")


def test_a_deployment_that_breaks_holds_up_no_other(platform: Platform) -> None:
    deploy(platform, follow(US))
    broken = replace(follow(US), name="broken")
    platform.deployments.apply(ADMIN, broken)
    with platform.fleet.database.write() as session:
        row = session.scalars(select(DeploymentRevisionRow).order_by(DeploymentRevisionRow.created_at.desc())).first()
        assert row is not None
        row.document = {"regions": "of a release that nobody knows"}
    second_version(platform)
    platform.settle(rounds=2)
    assert [each.version for each in shown(platform).regions] == [2]


def test_a_region_that_cannot_be_stopped_says_why(platform: Platform) -> None:
    deploy(platform, follow(US))

    def refuse(key: EndpointKey) -> None:
        raise Unavailable(f"The cluster of {key.region} cannot be reached.")

    stop, platform.target.stop = platform.target.stop, refuse
    platform.deployments.delete(ADMIN, "churn")
    platform.settle(rounds=1)
    (region,) = shown(platform).regions
    assert (region.state, region.error_code) == ("STOPPING", "unavailable")
    assert "cannot be reached." in (region.error_detail or "")
    platform.target.stop = stop
    platform.settle(rounds=2)
    refused(DeploymentNotFound, lambda: shown(platform))


def test_what_nobody_placed_cannot_be_placed_anew(platform: Platform) -> None:
    deploy(platform, follow(US))
    refused(InvalidInput, lambda: platform.replanning.propose(ADMIN, "churn"))


def test_what_runs_on_this_machine_is_asked_how_it_is_whenever_it_is_shown(platform: Platform) -> None:
    deploy(platform, follow(US))
    deployments = Deployments(
        platform.fleet.database, platform.fleet.clock, catalog=load_catalog(), local=platform.target
    )
    platform.target.hangs = {US}
    assert deployments.get(ADMIN, "churn").regions[0].health == "unready"
    # As after a restart of the server: no pass has looked yet.
    platform.target.kill(US)
    assert deployments.get(ADMIN, "churn").regions[0].health == "down"
