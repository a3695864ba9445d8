from __future__ import annotations

import yaml
from jsonschema import Draft202012Validator

from fairlead.serving.kinds.crossplane import KIND, CrossplaneSettings
from fairlead.serving.workload import Workload
from tests.serving.golden import check_golden
from tests.serving.manifest_schemas import check_manifest
from tests.serving.workloads import beside_former, workload

SETTINGS = CrossplaneSettings(cluster="eks-virginia")


def written(given: Workload) -> dict[str, str]:
    return {each.path: each.text for each in KIND.render(given, SETTINGS)}


def test_a_claim_is_what_its_definition_and_the_clusters_api_take() -> None:
    files = written(workload())
    check_golden("crossplane", files)
    definition, composition, claim = (yaml.safe_load(text) for text in files.values())
    check_manifest_of_crossplane(definition)
    check_manifest_of_crossplane(composition)
    Draft202012Validator(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]).validate(claim)
    for each in claim["spec"]["objects"]:
        check_manifest(each)


def test_the_definition_and_the_composition_are_the_same_for_all_claims() -> None:
    first, second = written(workload()), written(beside_former(workload("gcp:us-central1", deployment="fraud")))
    same = {path for path in first if second.get(path) == first[path]}
    assert {path.partition("-")[0] for path in same} == {"compositeresourcedefinition", "composition"}


def check_manifest_of_crossplane(found: dict[str, object]) -> None:
    assert found["metadata"] == {"name": "xmodelendpoints.serving.fairlead.dev"}
    check_manifest(found)
