"""SkyPilot: a service of SkyServe (`sky serve up`), or a task that is one replica (`sky launch`).

Both run the bundle's image with the Docker of SkyPilot's machines.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Literal

from pydantic import Field

from fairlead.serving.kinds.names import deployment_name, tags_of
from fairlead.serving.kinds.needs import cannot, image_of, whole_boards
from fairlead.serving.kinds.yaml_text import yaml_text
from fairlead.serving.workload import PORT, Document, TargetKind, TargetSettings, Workload, environment_of

_CLOUDS = frozenset({"aws", "azure", "gcp"})
# The catalog names boards by their memory where SkyPilot has another word.
_ACCELERATORS = {"A100-40": "A100", "A100-80": "A100-80GB"}
_START_SECONDS = 600


class SkyPilotSettings(TargetSettings):
    """How a workload is written for SkyPilot."""

    form: Literal["service", "task"] = Field(
        default="service", description="A service with as many replicas as requests need, or a task with one."
    )
    any_instance: bool = Field(
        default=False,
        description="Whether another type of instance with room for a replica may be taken where the placement's is "
        "not to be had.",
    )
    on_demand_fallback: bool = Field(
        default=True, description="Whether on-demand replicas stand in for spot ones that are not to be had."
    )
    disk_gib: int = Field(default=64, ge=20, description="Disk of each machine, in GiB.")


def render(workload: Workload, settings: SkyPilotSettings) -> tuple[Document, ...]:
    """One file, `service.yaml` or `task.yaml`.

    Raises:
        InvalidInput: if there is no image, or SkyPilot has no words for the workload.
    """
    if workload.former is not None and workload.former.bundle_digest != workload.bundle_digest:
        raise cannot(workload, "SkyServe moves traffic by itself when a service is updated, and takes no shares of it")
    body: dict[str, Any] = {"name": deployment_name(workload, longest=48)}
    if settings.form == "service":
        body["service"] = _service(workload, settings)
    body["resources"] = _resources(workload, settings)
    environment = environment_of(workload)
    body["envs"] = environment
    body["run"] = _command(workload, list(environment))
    return (Document(path=f"{settings.form}.yaml", text=yaml_text(body)),)


def _service(workload: Workload, settings: SkyPilotSettings) -> dict[str, Any]:
    scaling = workload.scaling
    probe = {"path": "/readyz", "initial_delay_seconds": _START_SECONDS, "timeout_seconds": 5}
    if scaling.requests_per_second_per_replica is None and not workload.is_spot:
        return {"readiness_probe": probe, "replicas": scaling.min_replicas}
    policy: dict[str, Any] = {"min_replicas": scaling.min_replicas}
    if scaling.requests_per_second_per_replica is not None:
        policy["max_replicas"] = max(1, scaling.max_replicas)
        policy["target_qps_per_replica"] = scaling.requests_per_second_per_replica
    if workload.is_spot and settings.on_demand_fallback:
        policy["dynamic_ondemand_fallback"] = True
    return {"readiness_probe": probe, "replica_policy": policy}


def _resources(workload: Workload, settings: SkyPilotSettings) -> dict[str, Any]:
    cloud, _, region = workload.region.partition(":")
    if cloud not in _CLOUDS:
        raise cannot(workload, f"SkyPilot knows no region {workload.region}")
    body: dict[str, Any] = {
        "infra": f"{cloud}/{region}",
        "use_spot": workload.is_spot,
        "ports": PORT,
        "disk_size": settings.disk_gib,
        "labels": {_label(name): _label(value) for name, value in tags_of(workload).items()},
    }
    room = _room(workload)
    if workload.instance_type is None:
        return {**body, **room}
    exactly = {"instance_type": workload.instance_type}
    if not settings.any_instance:
        return {**body, **exactly}
    return {**body, "any_of": [exactly, room]}


def _room(workload: Workload) -> dict[str, Any]:
    asked, boards = workload.resources, whole_boards(workload, "SkyPilot")
    if asked.architecture != "x86_64" and workload.instance_type is None:
        raise cannot(workload, f"SkyPilot chooses no machines of {asked.architecture}")
    room: dict[str, Any] = {"cpus": f"{asked.vcpus:g}+", "memory": f"{asked.memory_gib:g}+"}
    if asked.accelerator is not None:
        room["accelerators"] = {_ACCELERATORS.get(asked.accelerator, asked.accelerator): boards}
    return room


def _command(workload: Workload, variables: list[str]) -> str:
    words = ["docker", "run", "--rm", "--publish", f"{PORT}:{PORT}"]
    if workload.resources.accelerator is not None:
        words += ["--gpus", "all"]
    # The values are SkyPilot's to set.
    for name in variables:
        words += ["--env", name]
    return f"{shlex.join([*words, image_of(workload)])}\n"


def _label(text: str) -> str:
    """As the strictest of the clouds takes labels."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


KIND = TargetKind(name="skypilot", settings=SkyPilotSettings, render=render)
