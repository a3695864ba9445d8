"""What is written for SkyPilot.

`skypilot_schema.json` is what of SkyPilot 0.14.1's own schemas (`sky/utils/schemas.py`) the documents use, and nothing
beside it; each was also read by `sky.Task.from_yaml_config` of that version when the schema was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.skypilot import KIND, SkyPilotSettings
from fairlead.serving.workload import ReplicaResources, Scaling, Workload, environment_of
from tests.serving.golden import check_golden
from tests.serving.workloads import CPU, L4, beside_former, workload

SCHEMA = json.loads((Path(__file__).parent / "skypilot_schema.json").read_text(encoding="utf-8"))
BIG = ReplicaResources(vcpus=8, memory_gib=64, accelerator="A100-80", accelerator_share=1.0)
ONE = Scaling(min_replicas=1, max_replicas=1)
CASES: Mapping[str, tuple[Workload, SkyPilotSettings]] = {
    "service": (workload(), SkyPilotSettings()),
    "service_spot": (
        workload("gcp:europe-west4", resources=L4, instance_type="g2-standard-4", is_spot=True),
        SkyPilotSettings(any_instance=True),
    ),
    "task": (workload("azure:eastus", resources=BIG, scaling=ONE), SkyPilotSettings(form="task", disk_gib=256)),
}


def rendered(given: tuple[Workload, SkyPilotSettings]) -> dict[str, str]:
    return {document.path: document.text for document in KIND.render(*given)}


@pytest.mark.parametrize("name", CASES)
def test_a_document_is_the_one_that_was_reviewed(name: str) -> None:
    check_golden(f"skypilot/{name}", rendered(CASES[name]))


@pytest.mark.parametrize(
    "given",
    [
        *CASES.values(),
        (workload(scaling=ONE), SkyPilotSettings()),
        (workload(scaling=ONE, is_spot=True), SkyPilotSettings(on_demand_fallback=False)),
        (
            workload(scaling=Scaling(min_replicas=0, max_replicas=2, requests_per_second_per_replica=0.5)),
            SkyPilotSettings(),
        ),
    ],
)
def test_every_document_fits_skypilot_s_schema(given: tuple[Workload, SkyPilotSettings]) -> None:
    (text,) = rendered(given).values()
    task: dict[str, Any] = yaml.safe_load(text)
    for name, document in {"task": task, **task}.items():
        if name in SCHEMA:
            cast("Any", jsonschema).validate(document, SCHEMA[name])
    assert task["envs"] == environment_of(given[0])
    # Each variable is handed on by its name, so no value is ever read by a shell.
    assert all(f"--env {name}" in task["run"] for name in task["envs"])
    assert "hello" not in task["run"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (workload(image=None), "has no image"),
        (beside_former(workload()), "takes no shares"),
        (workload("edge:shop"), "knows no region"),
        (workload(resources=replace(L4, accelerator_share=0.25)), "shares no accelerator"),
        (workload(resources=replace(CPU, architecture="arm64")), "no machines of arm64"),
    ],
)
def test_what_skypilot_has_no_words_for_is_refused(given: Workload, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        rendered((given, SkyPilotSettings()))
