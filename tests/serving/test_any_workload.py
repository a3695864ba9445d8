"""Whatever a workload says, kinds either write what their platforms can read, or refuse it."""

from __future__ import annotations

import json
from typing import Any, cast

import hcl2
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds import bentocloud, skypilot, terraform
from fairlead.serving.workload import Document, ReplicaResources, Scaling, Workload, environment_of
from tests.serving.workloads import beside_former, workload

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
RESOURCES = st.builds(
    ReplicaResources,
    vcpus=st.floats(0.1, 40),
    memory_gib=st.floats(0.1, 300),
    accelerator=st.sampled_from([None, None, "T4", "L4", "A10G", "A100-80"]),
    accelerator_share=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    architecture=st.sampled_from(["x86_64", "x86_64", "arm64"]),
)
SCALINGS = st.builds(
    Scaling,
    min_replicas=st.integers(0, 5),
    max_replicas=st.integers(5, 50),
    requests_per_second_per_replica=st.one_of(st.none(), st.floats(0.01, 5000)),
)
WORKLOADS = st.builds(
    workload,
    st.sampled_from(["aws:us-east-1", "gcp:europe-west1", "azure:northeurope"]),
    workspace=st.one_of(st.just("default"), NAMES),
    deployment=NAMES,
    model=NAMES,
    environment=st.one_of(st.none(), NAMES),
    resources=RESOURCES,
    scaling=SCALINGS,
    instance_type=st.sampled_from([None, "g5.xlarge"]),
    is_spot=st.booleans(),
    bento=st.just("churn:" + "8a" * 16),
    variables=st.dictionaries(st.from_regex(r"[A-Z_]{1,12}", fullmatch=True), st.text(max_size=40), max_size=3),
    labels=st.dictionaries(st.sampled_from(["owner", "team", "cost_centre"]), NAMES, max_size=3),
)
EITHER = st.one_of(WORKLOADS, WORKLOADS.map(beside_former))
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def written(kind: Any, given: Workload) -> tuple[Document, ...]:
    try:
        return kind.KIND.render(given, kind.KIND.settings())
    except InvalidInput:
        return ()


@FEW
@given(given_workload=EITHER)
def test_terraform_s_files_are_read_as_they_were_meant(given_workload: Workload) -> None:
    for document in written(terraform, given_workload):
        parsed: dict[str, Any] = cast("Any", hcl2).loads(document.text)
        assert parsed
    again = written(terraform, given_workload)
    assert again == written(terraform, given_workload)


@FEW
@given(given_workload=EITHER)
def test_yaml_s_files_hold_every_variable_as_it_is(given_workload: Workload) -> None:
    for document in written(skypilot, given_workload):
        assert yaml.safe_load(document.text)["envs"] == environment_of(given_workload)
    for document in written(bentocloud, given_workload):
        body: dict[str, Any] = yaml.safe_load(document.text)
        said = [body, *body.get("canary", {}).get("versions", {}).values()][-1]
        assert {each["name"]: each["value"] for each in said["envs"]} == environment_of(given_workload)


@FEW
@given(given_workload=WORKLOADS)
def test_a_workload_comes_back_from_json_as_it_was(given_workload: Workload) -> None:
    for each in (given_workload, beside_former(given_workload)):
        assert Workload.from_json(json.loads(json.dumps(each.to_json()))) == each
