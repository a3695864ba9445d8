from __future__ import annotations

import pytest
import yaml
from jsonschema import Draft202012Validator

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.ray import KIND, RaySettings
from fairlead.serving.workload import ReplicaResources, Scaling, Workload
from tests.serving.golden import check_golden
from tests.serving.manifest_schemas import SERVE, check_manifest
from tests.serving.workloads import beside_former, workload

SETTINGS = RaySettings(import_path="churn_app:app", ray_version="2.60.0")
HALF = ReplicaResources(vcpus=2, memory_gib=8, accelerator="L4", accelerator_share=0.5)


@pytest.mark.parametrize(("name", "given"), [("cpu", workload()), ("shared_gpu", workload(resources=HALF))])
def test_what_is_written_is_what_was_read_and_what_ray_and_the_api_take(name: str, given: Workload) -> None:
    documents = KIND.render(given, SETTINGS)
    check_golden(f"ray/{name}", {each.path: each.text for each in documents})
    for each in documents:
        if each.path == "serve.yaml":
            Draft202012Validator(SERVE).validate(yaml.safe_load(each.text))
        else:
            check_manifest(yaml.safe_load(each.text))


def test_workers_have_as_many_boards_as_their_replicas_fill() -> None:
    scaling = Scaling(min_replicas=3, max_replicas=6, requests_per_second_per_replica=5)
    documents = KIND.render(workload(resources=HALF, scaling=scaling), SETTINGS)
    (worker,) = yaml.safe_load(documents[-1].text)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (worker["minReplicas"], worker["maxReplicas"]) == (2, 3)


def test_ray_cannot_share_requests_out() -> None:
    with pytest.raises(InvalidInput, match="all requests to one revision"):
        KIND.render(beside_former(workload()), SETTINGS)
