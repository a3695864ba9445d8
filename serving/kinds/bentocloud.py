"""BentoCloud: the configuration of a deployment, for `bentoml deployment apply -f`.

BentoCloud runs Bentos and no images: the bundle is pushed there first, with `bentoml push`.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import Field

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.names import regional_name, tags_of
from fairlead.serving.kinds.needs import cannot
from fairlead.serving.kinds.yaml_text import yaml_text
from fairlead.serving.workload import Document, TargetKind, TargetSettings, Workload, environment_of


class BentoCloudSettings(TargetSettings):
    """How a workload is written for BentoCloud."""

    cluster: str | None = Field(default=None, description="The cluster; the organisation's first if unset.")
    instance_type: str | None = Field(
        default=None, description="BentoCloud's own name of what a replica runs on, such as gpu.l4.1; chosen if unset."
    )
    service: str | None = Field(
        default=None, description="The name of the Bento's service; that of the Bento if unset, as bundles have it."
    )
    strategy: Literal["RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout"] = Field(
        default="RollingUpdate", description="How replicas are replaced."
    )
    access_authorization: bool = Field(default=True, description="Whether requests need a token of the organisation's.")
    request_seconds: float = Field(
        default=0.1,
        gt=0,
        le=3600,
        description="Seconds that a request takes; from it follows how many a replica answers at once.",
    )
    secrets: tuple[str, ...] = Field(default=(), description="Names of secrets that BentoCloud keeps.")


def render(workload: Workload, settings: BentoCloudSettings) -> tuple[Document, ...]:
    """One file, `deployment.yaml`.

    Raises:
        InvalidInput: if nothing says what the bundle is called, or BentoCloud has no words for the workload.
    """
    if workload.is_spot:
        raise cannot(workload, "BentoCloud has no spot capacity")
    body: dict[str, Any] = {
        "name": regional_name(workload, longest=48),
        "bento": _bento(workload),
    }
    if settings.cluster is not None:
        body["cluster"] = settings.cluster
    body["access_authorization"] = settings.access_authorization
    body["labels"] = [{"key": key, "value": value} for key, value in tags_of(workload).items()]
    body["envs"] = _environment(workload)
    if settings.secrets:
        body["secrets"] = list(settings.secrets)
    body["services"] = _services(workload, settings)
    former = workload.former
    if former is not None and _bento(former) != _bento(workload):
        body["canary"] = _canary(workload, settings)
        body["bento"], body["envs"] = _bento(former), _environment(former)
        body["services"] = _services(former, settings)
    return (Document(path="deployment.yaml", text=yaml_text(body)),)


def _canary(workload: Workload, settings: BentoCloudSettings) -> dict[str, Any]:
    """The newest revision beside the main one, which is the former until all traffic has moved."""
    newest = {
        "bento": _bento(workload),
        "weight": workload.traffic_percent,
        "envs": _environment(workload),
        "services": _services(workload, settings),
    }
    return {"route_type": "random", "versions": {f"v{workload.version}": newest}}


def _services(workload: Workload, settings: BentoCloudSettings) -> dict[str, Any]:
    scaling = workload.scaling
    is_fixed = scaling.requests_per_second_per_replica is None
    most = scaling.min_replicas if is_fixed else scaling.max_replicas
    service: dict[str, Any] = {}
    if settings.instance_type is not None:
        service["instance_type"] = settings.instance_type
    service["scaling"] = {"min_replicas": scaling.min_replicas, "max_replicas": max(1, most)}
    service["deployment_strategy"] = settings.strategy
    if scaling.requests_per_second_per_replica is not None:
        # BentoCloud makes more replicas when each has more to answer at once than this.
        at_once = math.ceil(scaling.requests_per_second_per_replica * settings.request_seconds)
        service["config_overrides"] = {"traffic": {"concurrency": max(1, at_once)}}
    return {settings.service or _bento(workload).partition(":")[0]: service}


def _environment(workload: Workload) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in environment_of(workload).items()]


def _bento(workload: Workload) -> str:
    if workload.bento is None or re.fullmatch(r"[a-z0-9._-]+:[a-z0-9._-]+", workload.bento) is None:
        raise InvalidInput(
            f"Nothing says by what name BentoML knows the bundle of version {workload.version} of {workload.model!r}.",
            hint=f"Build it: fairlead bundle {workload.model}/{workload.version}",
        )
    return workload.bento


KIND = TargetKind(name="bentocloud", settings=BentoCloudSettings, render=render)
