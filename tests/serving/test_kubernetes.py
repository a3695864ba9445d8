from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.kubernetes import KIND, KubernetesSettings
from fairlead.serving.workload import ReplicaResources, Scaling, Workload
from tests.serving.golden import check_golden
from tests.serving.manifest_schemas import check_manifest
from tests.serving.workloads import CPU, L4, beside_former, workload

GATEWAY = {"exposure": "gateway", "host": "churn.example.com", "gateway": {"name": "public", "namespace": "gateways"}}
CASES: dict[str, tuple[Workload, dict[str, Any]]] = {
    "plain": (workload(), {}),
    "eks_canary": (
        beside_former(workload(instance_type="c7i.xlarge", is_spot=True)),
        {
            "distribution": "eks",
            "identity": {"cloud": "aws", "principal": "arn:aws:iam::123456789012:role/churn"},
            "autoscaling": {"by": "keda", "prometheus": "http://prometheus.monitoring:9090"},
            **GATEWAY,
        },
    ),
    "gke_gpu": (
        workload("gcp:us-central1", resources=L4, instance_type="g2-standard-8"),
        {
            "distribution": "gke",
            "identity": {"cloud": "gcp", "principal": "churn@models.iam.gserviceaccount.com"},
            "exposure": "load-balancer",
        },
    ),
    "aks_ingress": (
        workload("azure:westeurope", is_spot=True),
        {
            "distribution": "aks",
            "identity": {"cloud": "azure", "principal": "0f8fad5b-d9cb-469f-a165-70867728950e"},
            "exposure": "ingress",
            "host": "churn.example.com",
        },
    ),
    "gke_bare_metal": (
        workload("edge:hall-7", online_store="/var/lib/features/online.db"),
        {
            "distribution": "gke-bare-metal",
            "identity": {
                "cloud": "gcp",
                "principal": "churn@models.iam.gserviceaccount.com",
                "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/hall",
            },
            "feature_claim": "features",
            "scratch_class": "default",
            "scratch_gib": 20,
        },
    ),
}


def written(given: Workload, **settings: Any) -> dict[str, str]:
    return {each.path: each.text for each in KIND.render(given, KubernetesSettings.model_validate(settings))}


def objects(given: Workload, **settings: Any) -> dict[str, dict[str, Any]]:
    found = {path: yaml.safe_load(text) for path, text in written(given, **settings).items()}
    for each in found.values():
        check_manifest(each)
    return found


def pod(given: Workload, **settings: Any) -> dict[str, Any]:
    found = objects(given, **settings)
    return next(each for each in found.values() if each["kind"] == "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_what_was_read_and_what_the_apis_take(name: str) -> None:
    given, settings = CASES[name]
    objects(given, **settings)
    check_golden(f"kubernetes/{name}", written(given, **settings))


@pytest.mark.parametrize(
    "distribution", ["plain", "k3s", "eks", "eks-anywhere", "gke", "gke-bare-metal", "gke-vmware", "aks"]
)
def test_every_distribution_takes_what_is_written_for_it(distribution: str) -> None:
    found = objects(workload(), distribution=distribution, exposure="ingress", host="churn.example.com")
    assert {each["kind"] for each in found.values()} == {
        "ServiceAccount",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Service",
        "Ingress",
    }


def test_weights_of_a_route_share_requests_out_between_two_revisions() -> None:
    found = objects(beside_former(workload(), 25), **GATEWAY)
    (route,) = (each for each in found.values() if each["kind"] == "HTTPRoute")
    backends = route["spec"]["rules"][0]["backendRefs"]
    services = {each["metadata"]["name"] for each in found.values() if each["kind"] == "Service"}
    assert [each["weight"] for each in backends] == [25, 75]
    assert {each["name"] for each in backends} == services


def test_the_same_pods_have_the_same_name_whatever_share_of_requests_they_get() -> None:
    def names(given: Workload) -> set[str]:
        return {each["metadata"]["name"] for each in objects(given).values() if each["kind"] == "Deployment"}

    assert names(workload()) < names(beside_former(workload(), 5))


def test_an_ingress_cannot_share_requests_out() -> None:
    with pytest.raises(InvalidInput, match="all requests to one revision"):
        written(beside_former(workload(), 25), exposure="ingress", host="churn.example.com")


@pytest.mark.parametrize(
    ("distribution", "sharing", "resource", "selector"),
    [
        ("k3s", "time-slicing", "nvidia.com/gpu.shared", {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}),
        ("k3s", "mig", "nvidia.com/mig-2g.10gb", {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}),
        ("gke", "mig", "nvidia.com/gpu", {"cloud.google.com/gke-gpu-partition-size": "2g.10gb"}),
        ("gke", "time-slicing", "nvidia.com/gpu", {"cloud.google.com/gke-max-shared-clients-per-gpu": "4"}),
    ],
)
def test_replicas_share_a_board_as_the_nodes_split_it(
    distribution: str, sharing: str, resource: str, selector: dict[str, str]
) -> None:
    quarter = ReplicaResources(vcpus=2, memory_gib=8, accelerator="A100-40", accelerator_share=0.25)
    found = pod(workload(resources=quarter), distribution=distribution, gpu_sharing=sharing)
    assert found["containers"][0]["resources"]["limits"][resource] == "1"
    assert selector.items() <= found["nodeSelector"].items()


def test_a_share_of_a_board_needs_nodes_that_split_it() -> None:
    with pytest.raises(InvalidInput, match="how boards are split"):
        pod(workload(resources=ReplicaResources(vcpus=2, memory_gib=8, accelerator="L4", accelerator_share=0.5)))


@pytest.mark.parametrize(
    ("distribution", "board", "share", "limits"),
    [
        ("gke", "TPU-v5e", 4.0, {"google.com/tpu": "4"}),
        ("eks", "Inferentia2", 1.0, {"aws.amazon.com/neuron": "1"}),
        ("eks", "Inferentia2", 0.5, {"aws.amazon.com/neuroncore": "1"}),
    ],
)
def test_other_accelerators_are_asked_for_by_their_own_names(
    distribution: str, board: str, share: float, limits: dict[str, str]
) -> None:
    needs = ReplicaResources(vcpus=2, memory_gib=8, accelerator=board, accelerator_share=share)
    found = pod(workload(resources=needs), distribution=distribution)
    assert limits.items() <= found["containers"][0]["resources"]["limits"].items()


def test_spot_is_refused_where_no_node_can_be_taken_away() -> None:
    with pytest.raises(InvalidInput, match="K3s has no spot nodes"):
        pod(workload(is_spot=True), distribution="k3s")


def test_the_last_replica_ends_only_where_requests_are_counted_before_they_reach_one() -> None:
    idle = workload(scaling=Scaling(min_replicas=0, max_replicas=3, requests_per_second_per_replica=40.0))
    keda = {"by": "keda", "prometheus": "http://prometheus:9090"}

    def least(autoscaling: dict[str, str]) -> int:
        found = objects(idle, autoscaling=autoscaling).values()
        (scaler,) = (each for each in found if each["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"})
        return scaler["spec"].get("minReplicaCount", scaler["spec"].get("minReplicas"))

    assert [least({}), least(keda), least({**keda, "arrivals_query": "sum(rate(ingress[1m]))"})] == [1, 1, 0]


def test_a_fixed_number_of_replicas_has_no_autoscaler() -> None:
    found = objects(workload(resources=CPU, scaling=Scaling(min_replicas=3, max_replicas=3)))
    (deployment,) = (each for each in found.values() if each["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 3
    assert "HorizontalPodAutoscaler" not in {each["kind"] for each in found.values()}


def test_a_bundle_without_an_image_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no image"):
        written(workload(image=None))


def test_a_gateway_needs_a_host() -> None:
    with pytest.raises(ValidationError, match="needs a host"):
        KubernetesSettings.model_validate({"exposure": "gateway", "gateway": {"name": "public"}})
