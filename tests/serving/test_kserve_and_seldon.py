from __future__ import annotations

from typing import Any

import pytest
import yaml

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds import kserve, seldon
from fairlead.serving.workload import AnyKind, Scaling, Workload
from tests.serving.golden import check_golden
from tests.serving.manifest_schemas import check_manifest
from tests.serving.workloads import L4, beside_former, workload

MODELS = {"storage_uri": "gs://bundles/churn"}
CASES: dict[str, tuple[AnyKind, Workload, dict[str, Any]]] = {
    "kserve/canary": (kserve.KIND, beside_former(workload()), {}),
    "kserve/standard": (kserve.KIND, workload(resources=L4), {"mode": "Standard", "distribution": "gke"}),
    "seldon/plain": (seldon.KIND, workload(online_store=None), MODELS),
    "seldon/canary": (seldon.KIND, beside_former(workload(online_store=None)), MODELS),
}


def objects(
    kind: AnyKind, given: Workload, settings: dict[str, Any], golden: str | None = None
) -> list[dict[str, Any]]:
    documents = kind.render(given, kind.settings.model_validate(settings))
    if golden is not None:
        check_golden(golden, {each.path: each.text for each in documents})
    found = [yaml.safe_load(each.text) for each in documents]
    for each in found:
        check_manifest(each)
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_what_was_read_and_what_the_apis_take(name: str) -> None:
    kind, given, settings = CASES[name]
    objects(kind, given, settings, golden=name)


def test_kserve_ends_the_last_replica_under_knative_alone() -> None:
    idle = workload(scaling=Scaling(min_replicas=0, max_replicas=2, requests_per_second_per_replica=10.5))
    for mode, least in (("Knative", 0), ("Standard", 1)):
        assert objects(kserve.KIND, idle, {"mode": mode})[-1]["spec"]["predictor"]["minReplicas"] == least


def test_kserve_without_knative_refuses_to_share_requests_out() -> None:
    with pytest.raises(InvalidInput, match="all requests to one revision"):
        objects(kserve.KIND, beside_former(workload()), {"mode": "Standard"})


@pytest.mark.parametrize("given", [workload(), workload(resources=L4, online_store=None)])
def test_seldon_refuses_what_a_model_cannot_say(given: Workload) -> None:
    with pytest.raises(InvalidInput, match="knows no"):
        objects(seldon.KIND, given, MODELS)
