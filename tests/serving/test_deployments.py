from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from fairlead.core.errors import (
    AlreadyExists,
    DeploymentNotFound,
    EnvironmentNotFound,
    FairleadError,
    InvalidInput,
    LocationNotFound,
    ModelVersionNotFound,
    NotFound,
    NotReady,
    ResidencyViolation,
    UnknownRegion,
)
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.identity import Caller
from fairlead.registry.paging import PageRequest
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.serving.deployments import Deployment, DeploymentDraft
from tests.fleet import ADMIN, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import EU_AZURE, EU_WEST, US, Platform, refused

EVERYWHERE = (US, EU_WEST, EU_AZURE)


@pytest.fixture
def platform(database_url: str, tmp_path: Path) -> Iterator[Platform]:
    with open_fleet(tmp_path, database_url) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        platform.create_model("triage", "eu")
        yield platform


def follow(regions: tuple[str, ...] = EVERYWHERE, model: str = "churn") -> DeploymentDraft:
    return DeploymentDraft(model=model, environment="production", regions=regions)


def seen(deployment: Deployment) -> list[tuple[str, str, int | None]]:
    return [(each.region, each.state, each.version) for each in deployment.regions]


def test_a_deployment_follows_its_environment_through_promotion_and_roll_back(platform: Platform) -> None:
    one = platform.register("churn", model_files(1.0, 1.0, 1.0))
    two = platform.register("churn", model_files(2.0, 1.0, 1.0))
    deployments = platform.deployments
    deployments.apply(ADMIN, follow())
    platform.settle()
    assert seen(deployments.get(ADMIN, "churn")) == [(region, "WAITING", None) for region in EVERYWHERE]

    platform.promote("churn", one, revision=0)
    platform.settle()
    running = deployments.get(ADMIN, "churn")
    assert seen(running) == [(region, "RUNNING", one) for region in EVERYWHERE]
    # One bundle, and one digest of it everywhere.
    assert {each.bundle_digest for each in running.regions} == {running.bundle_digest}
    route = platform.table()["acme:churn"]
    assert [endpoint.region for endpoint in route.endpoints] == list(EVERYWHERE)

    platform.promote("churn", two, revision=1)
    platform.settle()
    replaced = deployments.get(ADMIN, "churn")
    assert seen(replaced) == [(region, "RUNNING", two) for region in EVERYWHERE]
    assert replaced.bundle_digest != running.bundle_digest
    assert {each.bundle_digest for each in platform.table()["acme:churn"].endpoints} == {replaced.bundle_digest}

    platform.rollbacks.move_back(ADMIN, "churn", "production", expected_revision=2, reason="worse")
    platform.settle()
    back = deployments.get(ADMIN, "churn")
    assert seen(back) == [(region, "RUNNING", one) for region in EVERYWHERE]
    assert back.bundle_digest == running.bundle_digest
    assert sorted(platform.target.log) == sorted(f"start {region}" for _ in range(3) for region in EVERYWHERE)
    assert platform.fleet.actions().count("deployment.run") == 9
    assert len(platform.fleet.ledger("deploy")) == 9


def test_a_plan_says_what_would_change_and_changes_nothing(platform: Platform) -> None:
    one = platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.promote("churn", one, revision=0)
    plan = platform.deployments.plan(ADMIN, follow((US, EU_WEST)))
    assert [(step.region, step.action, step.to_version) for step in plan.steps] == [
        (US, "start", one),
        (EU_WEST, "start", one),
    ]
    assert plan.bundle_state == "MISSING"
    refused(DeploymentNotFound, lambda: platform.deployments.get(ADMIN, "churn"))

    platform.deployments.apply(ADMIN, follow((US, EU_WEST)))
    platform.settle()
    two = platform.register("churn", model_files(2.0, 1.0, 1.0))
    platform.promote("churn", two, revision=1)
    plan = platform.deployments.plan(ADMIN, follow((EU_WEST, EU_AZURE)))
    assert [(step.region, step.action, step.from_version, step.to_version) for step in plan.steps] == [
        (EU_WEST, "replace", one, two),
        (EU_AZURE, "start", None, two),
        (US, "stop", one, None),
    ]


def test_a_plan_prices_the_bytes_that_a_region_still_lacks(platform: Platform) -> None:
    one = platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.promote("churn", one, revision=0)
    platform.deployments.apply(ADMIN, follow((US,)))
    platform.settle()
    bundle = platform.deployments.get(ADMIN, "churn").bundle_digest
    assert bundle is not None
    (row,) = [row for row in platform.bundles.list(ADMIN, PageRequest()).items if row.digest == bundle]
    platform.fleet.artifacts.report(ADMIN, bundle, location="eemshaven", code="corrupt-pack")
    plan = platform.deployments.plan(ADMIN, follow((US, EU_WEST)))
    there = plan.steps[1]
    assert there.bytes == row.size_bytes == plan.bytes
    assert there.source_region in {US, EU_AZURE}
    assert Decimal(there.usd) > 0
    assert plan.usd == there.usd


def test_a_deployment_takes_its_regions_order_and_dollars_from_a_placement(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    request = {
        "reference": "churn/1",
        "demand": [
            {"area": "new-york", "requests_per_second": 50, "latency_limit_ms": 80},
            {"area": "paris", "requests_per_second": 90, "latency_limit_ms": 80},
        ],
        "resources": {"vcpus": 1, "memory_gib": 2, "requests_per_second_per_replica": 100},
    }
    placement = platform.placements.create(ADMIN, request)
    assert platform.placements.get(ADMIN, placement.id) == placement
    assert placement.request["artifact_bytes"] > 0
    assert placement.request["existing_replicas"] == sorted(EVERYWHERE)
    draft = DeploymentDraft(model="churn", version=1, placement_id=placement.id)
    plan = platform.deployments.plan(ADMIN, draft)
    assert {step.region for step in plan.steps} == set(placement.answer["placement"]["regions"])
    assert plan.usd_per_hour is not None
    assert Decimal(plan.usd_per_hour) == sum(Decimal(step.usd_per_hour or "0") for step in plan.steps)
    deployment = platform.deployments.apply(ADMIN, draft)
    assert deployment.placement_id == placement.id


def test_a_region_outside_the_residency_class_is_refused_before_anything_is_written(platform: Platform) -> None:
    platform.register("triage", model_files(1.0, 1.0, 1.0))
    draft = DeploymentDraft(model="triage", version=1, regions=(EU_WEST, US))
    for action in (platform.deployments.plan, platform.deployments.apply):
        error = refused(ResidencyViolation, lambda action=action: action(ADMIN, draft))
        assert error.attributes["region"] == US
    assert platform.deployments.list(ADMIN, PageRequest()).items == ()


def test_an_eu_model_runs_in_both_eu_regions_and_its_bundle_is_nowhere_else(platform: Platform) -> None:
    platform.register("triage", model_files(1.0, 1.0, 1.0))
    platform.deployments.apply(ADMIN, DeploymentDraft(model="triage", version=1, regions=(EU_WEST, EU_AZURE)))
    platform.settle()
    running = platform.deployments.get(ADMIN, "triage")
    assert seen(running) == [(EU_WEST, "RUNNING", 1), (EU_AZURE, "RUNNING", 1)]
    assert running.bundle_digest is not None
    assert platform.fleet.states(running.bundle_digest) == {"amsterdam": "VERIFIED", "eemshaven": "VERIFIED"}
    assert platform.table()["acme:triage"].residency == "eu"


def test_a_process_that_died_is_started_again_by_itself(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", version=1, regions=(US, EU_WEST)))
    platform.settle()
    before = platform.deployments.get(ADMIN, "churn").regions[0]
    platform.target.kill(US)
    (drift, *_) = platform.drifts.find(ADMIN, "churn")
    assert drift.drift == "missing"
    platform.settle()
    after = platform.deployments.get(ADMIN, "churn").regions[0]
    assert after.health == "up"
    assert after.endpoint_url != before.endpoint_url
    assert {endpoint.url for endpoint in platform.table()["acme:churn"].endpoints} >= {after.endpoint_url}


def test_a_region_that_cannot_start_the_new_version_goes_on_with_the_old_one(platform: Platform) -> None:
    one = platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.promote("churn", one, revision=0)
    platform.deployments.apply(ADMIN, follow((US, EU_WEST)))
    platform.settle()
    two = platform.register("churn", model_files(2.0, 1.0, 1.0))
    platform.target.refuses.add(EU_WEST)
    platform.promote("churn", two, revision=1)
    platform.settle(rounds=2)
    status = platform.deployments.get(ADMIN, "churn")
    assert seen(status) == [(US, "RUNNING", two), (EU_WEST, "FAILED", one)]
    assert "did not start" in (status.regions[1].error_detail or "")
    assert len(platform.table()["acme:churn"].endpoints) == 2
    # After the third attempt the revision is given up, and the regions that had moved go back.
    platform.settle(rounds=2)
    status = platform.deployments.get(ADMIN, "churn")
    assert seen(status) == [(US, "RUNNING", one), (EU_WEST, "RUNNING", one)]
    assert (status.revision_state, status.live_revision, status.desired_version) == ("FAILED", 1, one)
    assert "did not get ready in gcp:europe-west4" in (status.failure or "")
    assert platform.fleet.actions().count("deployment.fail") == 1
    # Moving the pointer back is what the deployment does already.
    platform.rollbacks.move_back(ADMIN, "churn", "production", expected_revision=2, reason="does not start")
    platform.target.refuses.clear()
    platform.settle()
    assert seen(platform.deployments.get(ADMIN, "churn")) == [(US, "RUNNING", one), (EU_WEST, "RUNNING", one)]


def test_a_roll_back_does_not_wait_for_an_endpoint_that_is_still_getting_ready(platform: Platform) -> None:
    one = platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.promote("churn", one, revision=0)
    platform.deployments.apply(ADMIN, follow((US,)))
    platform.settle()
    before = platform.deployments.get(ADMIN, "churn").regions[0]
    two = platform.register("churn", model_files(2.0, 1.0, 1.0))

    def roll_back() -> None:
        platform.rollbacks.move_back(ADMIN, "churn", "production", expected_revision=2, reason="hangs")
        platform.worker().derive()

    platform.target.meanwhile = roll_back
    platform.promote("churn", two, revision=1)
    platform.settle()
    status = platform.deployments.get(ADMIN, "churn")
    assert seen(status) == [(US, "RUNNING", one)]
    assert status.regions[0].endpoint_url == before.endpoint_url
    assert platform.target.log == [f"start {US}"]


def test_a_deployment_that_is_deleted_while_it_starts_is_stopped(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.target.meanwhile = lambda: (platform.deployments.delete(ADMIN, "churn"), platform.worker().derive())[1]
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", version=1, regions=(US,)))
    platform.settle()
    refused(DeploymentNotFound, lambda: platform.deployments.get(ADMIN, "churn"))
    assert platform.target.log == [f"stop {US}"]


def test_deleting_drains_every_region_and_forgets_the_deployment(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", version=1, regions=(US, EU_WEST)))
    platform.settle()
    assert platform.deployments.delete(ADMIN, "churn").state == "DELETING"
    assert platform.deployments.delete(ADMIN, "churn").state == "DELETING"
    again = DeploymentDraft(model="churn", version=1, regions=(US,))
    refused(AlreadyExists, lambda: platform.deployments.apply(ADMIN, again))
    platform.settle()
    refused(DeploymentNotFound, lambda: platform.deployments.get(ADMIN, "churn"))
    assert platform.table() == {}
    assert platform.target.running == {}
    platform.deployments.apply(ADMIN, again)
    platform.settle()
    assert seen(platform.deployments.get(ADMIN, "churn")) == [(US, "RUNNING", 1)]


def test_a_region_that_is_left_out_is_drained_and_may_come_back(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    both = DeploymentDraft(model="churn", version=1, regions=(US, EU_WEST))
    platform.deployments.apply(ADMIN, both)
    platform.settle()
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", version=1, regions=(EU_WEST,)))
    platform.settle()
    assert seen(platform.deployments.get(ADMIN, "churn")) == [(EU_WEST, "RUNNING", 1)]
    assert [endpoint.region for endpoint in platform.table()["acme:churn"].endpoints] == [EU_WEST]
    platform.deployments.apply(ADMIN, both)
    platform.settle()
    assert seen(platform.deployments.get(ADMIN, "churn")) == [(US, "RUNNING", 1), (EU_WEST, "RUNNING", 1)]


def test_an_endpoint_gets_its_region_s_online_store_once_there_is_one(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0), feature_service="diagnosis")
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", version=1, regions=(US,)))
    platform.settle()
    running = platform.target.running.get(("acme", "churn", US))
    assert running is not None
    assert running.spec.online_store is None
    platform.stores[f"diagnosis in {US}"] = "/online/us.sqlite"
    platform.settle()
    running = platform.target.running.get(("acme", "churn", US))
    assert running is not None
    assert running.spec.online_store == "/online/us.sqlite"


def test_a_promotion_s_plan_names_the_deployments_that_follow(platform: Platform) -> None:
    one = platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.deployments.apply(ADMIN, follow())
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", name="pinned", version=one, regions=(US,)))
    plan = platform.promotions.plan(ADMIN, "churn", one, "production").plan
    assert plan["deployments"] == ["churn"]


def test_asking_twice_with_one_key_gives_one_deployment(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    key = IdempotencyKey(key="k", request_sha256="0" * 64)
    first = platform.deployments.apply(ADMIN, follow(), key=key)
    assert platform.deployments.apply(ADMIN, follow(), key=key) == first
    assert platform.fleet.actions().count("deployment.apply") == 1


@pytest.mark.parametrize(
    ("draft", "error"),
    [
        (DeploymentDraft(model="churn", regions=(US,)), InvalidInput),
        (DeploymentDraft(model="churn", version=1, environment="production", regions=(US,)), InvalidInput),
        (DeploymentDraft(model="churn", version=1), InvalidInput),
        (DeploymentDraft(model="churn", version=1, regions=()), InvalidInput),
        (DeploymentDraft(model="churn", version=1, regions=("aws:atlantis-1",)), UnknownRegion),
        (DeploymentDraft(model="churn", version=1, regions=("aws:eu-west-1",)), LocationNotFound),
        (DeploymentDraft(model="churn", version=9, regions=(US,)), ModelVersionNotFound),
        (DeploymentDraft(model="churn", environment="nowhere", regions=(US,)), EnvironmentNotFound),
        (DeploymentDraft(model="churn", version=1, placement_id="x"), NotFound),
        (DeploymentDraft(model="churn", name="a/b", version=1, regions=(US,)), InvalidInput),
    ],
)
def test_a_draft_that_makes_no_sense_is_refused(
    platform: Platform, draft: DeploymentDraft, error: type[FairleadError]
) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    refused(error, lambda: platform.deployments.apply(ADMIN, draft))


def test_the_name_of_another_model_s_deployment_is_taken(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.register("triage", model_files(1.0, 1.0, 1.0))
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", version=1, regions=(US,)))
    other = DeploymentDraft(model="triage", name="churn", version=1, regions=(EU_WEST,))
    refused(AlreadyExists, lambda: platform.deployments.apply(ADMIN, other))


def test_a_version_that_is_not_ready_is_neither_bundled_nor_deployed(platform: Platform) -> None:
    upload = platform.fleet.begin(near="virginia")
    draft = VersionDraft(upload_id=upload.id)
    Versions(platform.fleet.database, platform.fleet.clock).register(ADMIN, "churn", draft)
    refused(NotReady, lambda: platform.bundles.request(ADMIN, "churn/1"))
    pinned = DeploymentDraft(model="churn", version=1, regions=(US,))
    refused(NotReady, lambda: platform.deployments.apply(ADMIN, pinned))


def test_a_bundle_is_asked_for_once_and_becomes_ready_when_it_was_read_back(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    first = platform.bundles.request(ADMIN, "churn/1")
    assert platform.bundles.request(ADMIN, "churn/1").id == first.id
    assert first.state == "PENDING"
    platform.settle()
    ready = platform.bundles.get(ADMIN, first.id)
    assert ready.state == "READY"
    assert ready.digest is not None
    assert set(platform.fleet.states(ready.digest).values()) == {"VERIFIED"}
    assert [each.id for each in platform.bundles.list(ADMIN, PageRequest(), reference="churn/1").items] == [first.id]


def test_a_workspace_sees_none_of_another_s(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", version=1, regions=(US,)))
    bundle = platform.bundles.request(ADMIN, "churn/1")
    stranger = Caller(workspace_id="other", principal="ana", scopes=frozenset({"admin"}))
    refused(NotFound, lambda: platform.deployments.get(stranger, "churn"))
    refused(NotFound, lambda: platform.deployments.delete(stranger, "churn"))
    refused(NotFound, lambda: platform.bundles.get(stranger, bundle.id))
    assert platform.deployments.list(stranger, PageRequest()).items == ()
