"""What is applied to a cluster, and what becomes of it there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import (
    Conflict,
    EndpointUnavailable,
    FairleadError,
    InvalidInput,
    PermissionDenied,
    Unavailable,
)
from fairlead.core.ids import RegionId
from fairlead.serving import cluster_target
from fairlead.serving.cluster_target import DELIVERIES, ClusterTarget
from fairlead.serving.deploy_targets import TargetDraft
from fairlead.serving.deployments import DeploymentDraft
from fairlead.serving.kinds import kserve, kubernetes, seldon
from fairlead.serving.kinds.registry import check_settings
from fairlead.serving.targets import (
    LOCAL,
    DeployTarget,
    EndpointSpec,
    NoLongerWanted,
    StillStarting,
    TargetParts,
    TargetRules,
)
from fairlead.serving.workload import AnyKind
from fairlead.testing.target_conformance import ONE, TWO, DeployTargetSuite, ensured, make_spec, stopped
from tests.fleet import ADMIN, open_fleet
from tests.servers.kubernetes_api import TOKEN, KubernetesApi, kubernetes_api, write_kubeconfig
from tests.serving.models import model_files
from tests.serving.platform import US, Platform

FIRST, SECOND = make_spec(bundle_digest=ONE), make_spec(bundle_digest=TWO, version=2)
NAMESPACES = {"fairlead", "models-gcp-europe-west4", "models-azure-westeurope"}


@pytest.fixture
def api() -> Generator[KubernetesApi]:
    with kubernetes_api() as served:
        yield served


@pytest.fixture
def clusters(tmp_path: Path, api: KubernetesApi) -> Path:
    write_kubeconfig(tmp_path / "clusters" / "virginia.yaml", api.url)
    return tmp_path / "clusters"


@pytest.fixture
def opened(clusters: Path) -> Callable[..., ClusterTarget]:
    def start(**settings: Any) -> ClusterTarget:
        return open_target(clusters, settings)

    return start


@pytest.fixture(autouse=True)
def look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_target, "_LOOK_SECONDS", 0.0)


def open_target(
    clusters: Path, settings: Mapping[str, Any], kind: AnyKind = kubernetes.KIND, **kind_settings: Any
) -> ClusterTarget:
    found = DELIVERIES["cluster"]
    parts = TargetParts(
        workspace_id="default",
        name="virginia",
        kind=kind,
        settings=check_settings(kind.settings, kind_settings, what="settings"),
        delivery_settings=check_settings(found.settings, {"cluster": "virginia", **settings}, what="delivery_settings"),
        folder=clusters,
        rules=TargetRules(clusters=clusters),
    )
    assert found.check is not None
    found.check(parts.delivery_settings, parts.rules)
    target = found.open(parts)
    assert isinstance(target, ClusterTarget)
    return target


def differences(target: DeployTarget, spec: EndpointSpec = FIRST) -> tuple[str, ...]:
    seen = target.observe(spec)
    assert seen is not None
    return seen.differences


class TestClusterTarget(DeployTargetSuite):
    @pytest.fixture
    def reopen(self, clusters: Path, api: KubernetesApi) -> Callable[[], DeployTarget]:
        api.namespaces |= NAMESPACES
        return lambda: open_target(clusters, {"namespace": "models-{region}"})

    @pytest.fixture
    def target(self, reopen: Callable[[], DeployTarget]) -> DeployTarget:
        return reopen()


def test_what_somebody_else_set_is_a_conflict_that_names_them_unless_it_may_be_taken_over(
    api: KubernetesApi, opened: Callable[..., ClusterTarget]
) -> None:
    ensured(opened(), FIRST)
    api.edit("NetworkPolicy", "churn", "spec", "policyTypes", value=["Ingress"])
    with pytest.raises(Conflict, match=r"NetworkPolicy.*\.spec\.policyTypes.*kubectl-edit"):
        ensured(opened(), FIRST)
    with pytest.raises(Conflict):
        ensured(opened(), SECOND)
    # Nothing of the second was put there before that was seen.
    assert len(api.names("Deployment")) == 1
    ensured(opened(overwrite=True), SECOND)
    assert api.find("NetworkPolicy", "churn").to_object()["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_what_somebody_changed_or_removed_is_told(api: KubernetesApi, opened: Callable[..., ClusterTarget]) -> None:
    target = opened()
    ensured(target, FIRST)
    (name,) = api.names("Deployment")
    api.edit("Deployment", name, "metadata", "annotations", "fairlead.dev/bundle-digest", value="sha256:other")
    api.edit("Deployment", name, "spec", "progressDeadlineSeconds", value=5)
    api.edit("NetworkPolicy", "churn", "spec", "policyTypes", value=["Ingress"], manager="fairlead")
    del api.objects["v1", "Service", "fairlead", "churn"]
    told = "; ".join(differences(target))
    assert ".spec.progressDeadlineSeconds" in told
    assert f"Deployment {name} does not name the bundle" in told
    assert "NetworkPolicy churn was edited in spec" in told
    assert "Service churn was removed" in told


def test_what_others_add_and_own_is_no_difference(api: KubernetesApi, opened: Callable[..., ClusterTarget]) -> None:
    target = opened()
    ensured(target, FIRST)
    api.edit("Deployment", *api.names("Deployment"), "spec", "paused", value=False, manager="some-operator")
    assert differences(target) == ()
    ensured(target, FIRST)


def test_what_only_an_earlier_revision_had_is_deleted_and_what_is_not_ours_stays(
    api: KubernetesApi, opened: Callable[..., ClusterTarget]
) -> None:
    target = opened()
    ensured(target, FIRST)
    (first,) = api.names("Deployment")
    other = make_spec(bundle_digest=ONE, deployment="other")
    ensured(target, other)
    both = EndpointSpec(
        workspace_id="default", workload=replace(SECOND.workload, traffic_percent=100, former=FIRST.workload)
    )
    ensured(target, both)
    assert first in api.names("Deployment")
    ensured(target, SECOND)
    assert target.observe(SECOND) is not None
    assert first not in api.names("Deployment")
    assert "other" in api.names("Service")
    stopped(target, SECOND.key)
    assert target.observe(SECOND) is None
    assert {each.name.split("-")[0] for each in api.objects.values()} == {"other"}


def test_requests_are_led_to_a_revision_only_once_it_is_ready(
    api: KubernetesApi, opened: Callable[..., ClusterTarget]
) -> None:
    target = opened()
    ensured(target, FIRST)

    def leads_to() -> str:
        return api.find("Service", "churn").to_object()["spec"]["selector"]["app.kubernetes.io/instance"]

    first = leads_to()
    api.stuck.add("churn-v2")
    with pytest.raises(StillStarting):
        target.ensure(SECOND, lambda _: None)
    assert leads_to() == first
    with pytest.raises(NoLongerWanted):
        target.ensure(SECOND, lambda _: None, lambda: False)
    assert differences(target) == ()
    assert api.names("Deployment") == {first}
    api.stuck.clear()
    ensured(target, SECOND)
    assert leads_to() != first


@pytest.mark.parametrize("why", ["failing", "stuck"])
def test_a_revision_that_does_not_get_ready_is_taken_away_and_the_one_before_answers(
    api: KubernetesApi, opened: Callable[..., ClusterTarget], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = opened(start_seconds=10)
    ensured(target, FIRST)
    getattr(api, why).add("churn-v2")
    if why == "stuck":
        with pytest.raises(StillStarting):
            target.ensure(SECOND, lambda _: None)
        now = cluster_target.time.time()
        monkeypatch.setattr(cluster_target.time, "time", lambda: now + 11)
    with pytest.raises(EndpointUnavailable, match="does not get ready"):
        ensured(target, SECOND)
    seen = target.observe(FIRST)
    assert seen is not None
    assert (seen.spec, seen.is_ready, seen.differences) == (FIRST, True, ())
    assert not any(name.startswith("churn-v2") for name in api.names("Deployment"))


def test_a_first_revision_that_fails_leaves_nothing(api: KubernetesApi, opened: Callable[..., ClusterTarget]) -> None:
    api.failing.add("churn")
    with pytest.raises(EndpointUnavailable):
        ensured(opened(), FIRST)
    assert opened().observe(FIRST) is None
    assert not api.names("Deployment")


def test_an_inference_service_is_awaited_by_its_own_word(api: KubernetesApi, clusters: Path) -> None:
    target = open_target(clusters, {}, kserve.KIND)
    api.stuck.add("churn")
    with pytest.raises(StillStarting):
        target.ensure(FIRST, lambda _: None)
    with pytest.raises(StillStarting):
        target.ensure(FIRST, lambda _: None)
    assert target.observe(FIRST) is None
    api.stuck.clear()
    ensured(target, FIRST)
    seen = target.observe(FIRST)
    assert seen is not None
    assert (seen.is_ready, seen.differences) == (True, ())
    # The object keeps its name, so what ran before is applied again where the new one does not get ready.
    api.stuck.add("churn")
    with pytest.raises(StillStarting):
        target.ensure(SECOND, lambda _: None)
    with pytest.raises(NoLongerWanted):
        target.ensure(SECOND, lambda _: None, lambda: False)
    found = api.find("InferenceService", "churn").to_object()
    assert found["metadata"]["annotations"]["fairlead.dev/bundle-digest"] == ONE


def test_two_regions_in_one_namespace_do_not_take_each_others_objects(opened: Callable[..., ClusterTarget]) -> None:
    ensured(opened(), FIRST)
    there = make_spec(bundle_digest=ONE, region=RegionId("azure:westeurope"))
    with pytest.raises(Conflict, match="another region"):
        ensured(opened(), there)
    with pytest.raises(Conflict):
        opened().stop(there.key)


def test_what_is_there_and_not_ours_is_not_taken(api: KubernetesApi, opened: Callable[..., ClusterTarget]) -> None:
    ensured(opened(), FIRST)
    stored = api.objects["v1", "Service", "fairlead", "churn"]
    api.objects.clear()
    stored.values = {path: value for path, value in stored.values.items() if path[0] != "metadata"}
    stored.owners = {"helm": set(stored.values)}
    api.objects["v1", "Service", "fairlead", "churn"] = stored
    with pytest.raises(Conflict, match="belongs to something else"):
        ensured(opened(overwrite=True), FIRST)
    assert not api.names("Deployment")


def test_a_cluster_is_one_that_the_operator_lists(clusters: Path) -> None:
    for name in ("elsewhere", "in-cluster"):
        with pytest.raises(InvalidInput, match="knows no cluster"):
            open_target(clusters, {"cluster": name})
    with pytest.raises(InvalidInput):
        open_target(clusters, {"cluster": "../virginia"})


@pytest.mark.parametrize("user", [{"exec": {"command": "/bin/sh"}}, {"auth-provider": {"name": "gcp"}}])
def test_a_kubeconfig_that_would_run_a_command_is_refused(clusters: Path, user: dict[str, Any]) -> None:
    write_kubeconfig(clusters / "virginia.yaml", "http://127.0.0.1:1", user)
    with pytest.raises(InvalidInput, match="have a command run"):
        open_target(clusters, {})


def test_a_token_that_was_renewed_in_its_file_is_read_again(api: KubernetesApi, clusters: Path) -> None:
    token = clusters / "token"
    token.write_text("one that has run out", encoding="utf-8")
    write_kubeconfig(clusters / "virginia.yaml", api.url, {"tokenFile": str(token)})
    target = open_target(clusters, {})
    with pytest.raises(Unavailable, match="does not let the account"):
        target.observe(FIRST)
    token.write_text(TOKEN, encoding="utf-8")
    assert target.observe(FIRST) is None


def test_what_a_controller_made_under_the_same_labels_is_left_to_its_owner(
    api: KubernetesApi, opened: Callable[..., ClusterTarget]
) -> None:
    target = opened()
    ensured(target, FIRST)
    made = copy.deepcopy(api.find("Service", "churn"))
    made.name = "churn-of-a-controller"
    made.values["metadata", "ownerReferences"] = [{"kind": "Deployment", "name": "churn"}]
    api.objects["v1", "Service", "fairlead", made.name] = made
    ensured(target, SECOND)
    assert made.name in api.names("Service")


@dataclass(slots=True)
class ClusterPlatform(Platform):
    """A platform whose deployments run on a cluster."""

    cluster: DeployTarget | None = None

    def open_target(self, _workspace_id: str, name: str) -> DeployTarget:
        assert self.cluster is not None
        return self.target if name == LOCAL else self.cluster


def test_a_deployment_waits_for_the_cluster_is_replaced_and_leaves_it(
    api: KubernetesApi, clusters: Path, tmp_path: Path
) -> None:
    storage = {"storage_uri": "s3://bundles/all"}
    api.namespaces.add("seldon-mesh")
    with open_fleet(tmp_path) as fleet:
        platform = ClusterPlatform(fleet=fleet, cluster=open_target(clusters, {}, seldon.KIND, **storage))
        draft = TargetDraft(kind="seldon", delivery="folder", delivery_settings={"path": "/srv"}, settings=storage)
        platform.targets.put(ADMIN, "cloud", draft, expected_revision=0)
        platform.create_model("churn")

        def deploy(version: int) -> list[tuple[str, int | None]]:
            platform.register("churn", model_files(float(version), 1.0, 1.0))
            wanted = DeploymentDraft(model="churn", version=version, regions=(US,), targets={US: "cloud"})
            platform.deployments.apply(ADMIN, wanted)
            return settled()

        def settled() -> list[tuple[str, int | None]]:
            platform.settle()
            return [(each.state, each.version) for each in platform.deployments.get(ADMIN, "churn").regions]

        api.stuck.add("churn")
        assert deploy(1) == [("DEPLOYING", None)]
        api.stuck.clear()
        assert settled() == [("RUNNING", 1)]
        assert deploy(2) == [("RUNNING", 2)]
        assert {name.rpartition("-")[0] for name in api.names("Model")} == {"churn-v2"}
        platform.deployments.delete(ADMIN, "churn")
        platform.settle()
        assert not api.names("Model")


def test_errors_say_nothing_of_the_account(api: KubernetesApi, clusters: Path) -> None:
    write_kubeconfig(clusters / "virginia.yaml", api.url, {"token": "wrong-secret"})
    with pytest.raises(PermissionDenied) as refused:
        open_target(clusters, {}).ensure(FIRST, lambda _: None)
    write_kubeconfig(clusters / "virginia.yaml", "http://127.0.0.1:9", {"token": "wrong-secret"})
    with pytest.raises(Unavailable) as away:
        open_target(clusters, {}).observe(FIRST)
    for error in (refused.value, away.value):
        assert isinstance(error, FairleadError)
        assert "wrong-secret" not in f"{error} {error.hint} {error.__cause__}"


def test_a_namespace_that_is_not_there_is_named(clusters: Path) -> None:
    with pytest.raises(InvalidInput, match="no namespace 'nowhere'"):
        open_target(clusters, {"namespace": "nowhere"}).ensure(FIRST, lambda _: None)
