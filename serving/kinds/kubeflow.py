"""Kubeflow Pipelines: components that promote and deploy a model from within a pipeline, by Fairlead's command line.

A component is a step that pipelines load (`kfp.components.load_component_from_file`). It decides nothing: gates, plans
and health are Fairlead's, and a refusal ends the step with Fairlead's exit code. The step finds its server and its
token in the environment (`FAIRLEAD_URL`, `FAIRLEAD_TOKEN`), which the pipeline gives it from a secret.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fairlead.serving.kinds.manifests import DOMAIN, object_name
from fairlead.serving.kinds.yaml_text import manifest_text
from fairlead.serving.workload import Document, TargetKind, TargetSettings, Workload


class KubeflowSettings(TargetSettings):
    """How a deployment's components are written."""

    image: str = Field(
        pattern=r"^[a-z0-9.:/_-]+@sha256:[0-9a-f]{64}$", description="The image that holds `fairlead`, by digest."
    )
    target: str = Field(
        default="local",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,254}$",
        description="The target that the deploying component deploys to.",
    )


def render(workload: Workload, settings: KubeflowSettings) -> tuple[Document, ...]:
    """A component that deploys a version in the workload's region, and one that promotes a version."""
    reference = f"{workload.model}/{workload.version}"
    deploy = [
        "fairlead",
        "deploy",
        "apply",
        {"inputValue": "reference"},
        "--name",
        workload.deployment,
        "--region",
        workload.region,
        "--target",
        settings.target,
    ]
    promote = [
        "fairlead",
        "model",
        "promote",
        {"inputValue": "reference"},
        "--to",
        {"inputValue": "environment"},
    ]
    version = {
        "name": "reference",
        "type": "String",
        "description": "The version, MODEL/VERSION.",
        "default": reference,
    }
    environment = {
        "name": "environment",
        "type": "String",
        "description": "The environment to move.",
        "default": workload.environment or "staging",
    }
    return (
        _component(workload, settings, "deploy", command=deploy, inputs=[version]),
        _component(workload, settings, "promote", command=promote, inputs=[version, environment]),
    )


def _component(
    workload: Workload, settings: KubeflowSettings, verb: str, *, command: list[Any], inputs: list[dict[str, str]]
) -> Document:
    component = {
        "name": f"{verb.title()} {workload.model}",
        "metadata": {
            "labels": {
                "app.kubernetes.io/managed-by": "fairlead",
                f"{DOMAIN}/deployment": object_name(workload),
            },
        },
        "inputs": inputs,
        "implementation": {"container": {"image": settings.image, "command": command}},
    }
    return Document(path=f"{verb}.component.yaml", text=manifest_text(component))


KIND = TargetKind(name="kubeflow", settings=KubeflowSettings, render=render)
