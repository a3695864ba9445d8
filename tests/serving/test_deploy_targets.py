from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.errors import (
    Conflict,
    DeployTargetNotFound,
    FairleadError,
    InvalidInput,
    StaleRevision,
    Unavailable,
    UnknownRegion,
)
from fairlead.registry.identity import Caller
from fairlead.registry.paging import PageRequest
from fairlead.serving import kinds
from fairlead.serving.deploy_targets import TargetDraft
from fairlead.serving.deployments import DeploymentDraft
from fairlead.serving.kinds.registry import KINDS, find_kind, installed_kinds
from fairlead.serving.targets import EndpointKey
from fairlead.testing.target_conformance import ONE, make_spec
from tests.fleet import ADMIN, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import EU_AZURE, EU_WEST, US, Platform, refused

FOLDER = {"path": "/srv/manifests"}
DRAFT = TargetDraft(kind="bentocloud", delivery="folder", delivery_settings=FOLDER)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with open_fleet(tmp_path) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        yield platform


def put(platform: Platform, name: str = "cloud", draft: TargetDraft = DRAFT, revision: int | None = None) -> Any:
    return platform.targets.put(ADMIN, name, draft, expected_revision=revision)


def deploy(platform: Platform, targets: dict[str, str], regions: tuple[str, ...] = (US, EU_WEST)) -> None:
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", version=1, regions=regions, targets=targets))
    platform.settle(rounds=2)


def test_a_target_is_applied_shown_replaced_and_deleted(platform: Platform) -> None:
    assert put(platform, revision=0).revision == 1
    refused(StaleRevision, lambda: put(platform, revision=0))
    settings = {"instance_type": "cpu.2"}
    draft = TargetDraft(
        kind="bentocloud", delivery="folder", delivery_settings=FOLDER, settings=settings, regions=(US,)
    )
    applied = put(platform, draft=draft, revision=1)
    assert (applied.revision, applied.settings, applied.regions) == (2, settings, (US,))
    assert platform.targets.get(ADMIN, "cloud") == applied
    assert platform.targets.list(ADMIN, PageRequest()).items == (applied,)
    stranger = Caller(workspace_id="other", principal="ana", scopes=frozenset({"admin"}))
    refused(DeployTargetNotFound, lambda: platform.targets.get(stranger, "cloud"))
    platform.targets.delete(ADMIN, "cloud", expected_revision=2)
    refused(DeployTargetNotFound, lambda: platform.targets.get(ADMIN, "cloud"))
    assert [each for each in platform.fleet.actions() if each.startswith("target.")] == [
        "target.apply",
        "target.apply",
        "target.delete",
    ]


@pytest.mark.parametrize(
    ("draft", "error", "pointer"),
    [
        (TargetDraft(kind="mainframe", delivery="folder"), InvalidInput, None),
        (TargetDraft(kind="local", delivery="process"), InvalidInput, None),
        (TargetDraft(kind="bentocloud", delivery="cluster"), InvalidInput, None),
        (TargetDraft(kind="bentocloud", delivery="folder"), InvalidInput, "/delivery_settings/path"),
        (replace(DRAFT, settings={"password": "x"}), InvalidInput, "/settings/password"),
        (
            TargetDraft(kind="bentocloud", delivery="folder", delivery_settings=FOLDER, regions=()),
            InvalidInput,
            "/regions",
        ),
        (replace(DRAFT, regions=("aws:atlantis-1",)), UnknownRegion, None),
    ],
)
def test_a_document_that_makes_no_sense_is_refused(
    platform: Platform, draft: TargetDraft, error: type[FairleadError], pointer: str | None
) -> None:
    assert refused(error, lambda: put(platform, draft=draft)).attributes.get("pointer") == pointer


def test_the_local_target_is_always_there_and_is_nobody_s_to_change(platform: Platform) -> None:
    assert platform.targets.get(ADMIN, "local").revision == 0
    refused(InvalidInput, lambda: put(platform, "local"))


def test_regions_run_on_the_targets_that_are_named_for_them(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    put(platform)
    deploy(platform, {EU_WEST: "cloud"})
    status = platform.deployments.get(ADMIN, "churn")
    assert [(each.region, each.target, each.state) for each in status.regions] == [
        (US, "local", "RUNNING"),
        (EU_WEST, "cloud", "RUNNING"),
    ]
    assert {key[2] for key in platform.target.running} == {US}
    assert {key[2] for key in platform.other.running} == {EU_WEST}

    # A target that runs something is not deleted, and stays of its kind.
    refused(Conflict, lambda: platform.targets.delete(ADMIN, "cloud", expected_revision=None))
    refused(Conflict, lambda: put(platform, draft=replace(DRAFT, regions=(US,))))

    # Moving to another target starts there first, and ends on the former one.
    plan = platform.deployments.plan(ADMIN, DeploymentDraft(model="churn", version=1, regions=(US, EU_WEST)))
    assert [(step.action, step.from_target, step.target) for step in plan.steps] == [
        ("keep", "local", "local"),
        ("replace", "cloud", "local"),
    ]
    deploy(platform, {})
    assert platform.other.running == {}
    assert {key[2] for key in platform.target.running} == {US, EU_WEST}
    platform.targets.delete(ADMIN, "cloud", expected_revision=None)


@pytest.mark.parametrize(
    ("targets", "error"),
    [({"*": "absent"}, DeployTargetNotFound), ({EU_AZURE: "local"}, InvalidInput), ({EU_WEST: "cloud"}, InvalidInput)],
)
def test_a_target_that_is_not_for_a_region_is_refused(
    platform: Platform, targets: dict[str, str], error: type[FairleadError]
) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    put(platform, draft=replace(DRAFT, regions=(US,)))
    refused(error, lambda: deploy(platform, targets))


def test_a_region_that_moves_twice_forgets_no_target_that_it_still_has_to_leave(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    put(platform, "one")
    put(platform, "two")
    deploy(platform, {}, (US,))
    stop = platform.target.stop

    def refuse(key: EndpointKey) -> None:
        raise Unavailable(f"What runs in {key.region} cannot be reached.")

    platform.target.stop = refuse
    deploy(platform, {"*": "one"}, (US,))
    assert platform.target.running
    deploy(platform, {"*": "two"}, (US,))
    assert platform.other.running
    platform.target.stop = stop
    platform.settle(rounds=4)
    assert not platform.target.running
    (region,) = platform.deployments.get(ADMIN, "churn").regions
    assert (region.target, region.state, region.health) == ("two", "RUNNING", "up")


def test_what_runs_is_shown_in_the_words_of_any_target(platform: Platform) -> None:
    platform.register("churn", model_files(1.0, 1.0, 1.0))
    refused(FairleadError, lambda: platform.drifts.render(ADMIN, "churn"))
    deploy(platform, {}, regions=(US,))
    (rendered,) = platform.drifts.render(ADMIN, "churn")
    assert [each.path for each in rendered.documents] == ["workload.json"]
    put(platform)
    (rendered,) = platform.drifts.render(ADMIN, "churn", target="cloud", region=US)
    assert rendered.target == "cloud"
    assert rendered.documents
    refused(FairleadError, lambda: platform.drifts.render(ADMIN, "churn", region=EU_WEST))


def test_every_kind_is_found_by_its_name() -> None:
    workload = make_spec(bundle_digest=ONE).workload
    assert workload == type(workload).from_json(workload.to_json())
    assert load_catalog().region(workload.region)
    for name in installed_kinds():
        assert find_kind(name).name == name
    modules = {each.name for each in pkgutil.iter_modules(kinds.__path__)}
    made = {each for each in modules if hasattr(import_module(f"{kinds.__name__}.{each}"), "KIND")}
    assert made == {KINDS[name] for name in installed_kinds()}
