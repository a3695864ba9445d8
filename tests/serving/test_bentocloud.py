"""What is written for BentoCloud, read by BentoML's own classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
import yaml

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.bentocloud import KIND, BentoCloudSettings
from fairlead.serving.workload import Scaling, Workload
from tests.serving.golden import check_golden
from tests.serving.workloads import beside_former, workload

BENTO = "churn:" + "8a" * 16
CASES: Mapping[str, tuple[Workload, BentoCloudSettings]] = {
    "deployment": (
        workload(bento=BENTO),
        BentoCloudSettings(cluster="aws-us-east-1", instance_type="cpu.2", secrets=("feature-store",)),
    ),
    "deployment_canary": (
        beside_former(workload(bento=BENTO), percent=25),
        BentoCloudSettings(),
    ),
}


def rendered(given: tuple[Workload, BentoCloudSettings]) -> dict[str, str]:
    return {document.path: document.text for document in KIND.render(*given)}


@pytest.mark.parametrize("name", CASES)
def test_a_document_is_the_one_that_was_reviewed(name: str) -> None:
    check_golden(f"bentocloud/{name}", rendered(CASES[name]))


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # BentoML's own import
@pytest.mark.parametrize(
    "given",
    [
        *CASES.values(),
        (workload(bento=BENTO, scaling=Scaling(min_replicas=0, max_replicas=0)), BentoCloudSettings(service="Churn")),
    ],
)
def test_bentoml_reads_every_member_of_every_document(given: tuple[Workload, BentoCloudSettings]) -> None:
    from bentoml._internal.cloud.deployment import DeploymentConfig, DeploymentConfigParameters
    from bentoml._internal.utils.cattr import bentoml_cattr

    (text,) = rendered(given).values()
    written: dict[str, Any] = yaml.safe_load(text)
    # What BentoML takes out of the file itself, before it becomes the body of a request.
    parameters = DeploymentConfigParameters(config_dict=dict(written), service_name="any")
    parameters.cfg_dict = dict(written)
    assert parameters.get_name() == written["name"]
    assert parameters.get_cluster() == written.pop("cluster", None)
    read = cast("Any", bentoml_cattr).structure(written, DeploymentConfig)
    # Its classes pass over members that they do not know: nothing may be lost on the way back.
    assert without_defaults(read.to_dict()) == without_defaults(written)


def without_defaults(value: Any) -> Any:
    """Members that are null, false or empty say what leaving them out says."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: without_defaults(each) for name, each in members.items() if each not in (None, False, [], {})}
    return [without_defaults(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (workload(), "by what name BentoML knows"),
        (workload(bento="churn: [8]"), "by what name BentoML knows"),
        (workload(bento=BENTO, is_spot=True), "no spot capacity"),
    ],
)
def test_what_bentocloud_has_no_words_for_is_refused(given: Workload, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        rendered((given, BentoCloudSettings()))
