"""How many replicas run: rules of HPA and KEDA from the requests a second that one replica was measured to answer."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from fairlead.serving.kinds.manifests import Manifest, manifest, revision_object_name
from fairlead.serving.workload import TargetSettings, Workload

_CPU_PERCENT = 70
_URL = r"^https?://[A-Za-z0-9.:\[\]_/-]+$"


class Autoscaling(TargetSettings):
    """What counts requests in the cluster, and what starts replicas for them.

    HPA reads `requests_metric` from the cluster's custom metrics; without one it holds the processors at 70 %. KEDA
    asks Prometheus. The last replica ends only where requests are counted before they reach one: by `arrivals_query`.
    """

    by: Literal["hpa", "keda"] = Field(default="hpa", description="Kubernetes's own autoscaler, or KEDA.")
    requests_metric: str | None = Field(
        default=None,
        pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]{0,99}$",
        description="The name of requests a second and pod among the cluster's custom metrics, for HPA.",
    )
    prometheus: str | None = Field(
        default=None, pattern=_URL, description="Prometheus's address in the cluster, for KEDA."
    )
    arrivals_query: str | None = Field(
        default=None,
        max_length=1000,
        description="A query for requests a second as they arrive at the ingress, for KEDA; with it a deployment may "
        "scale to zero.",
    )

    @model_validator(mode="after")
    def _keda_asks_prometheus(self) -> Autoscaling:
        if self.by == "keda" and self.prometheus is None:
            raise ValueError("KEDA needs the address of Prometheus, prometheus")
        return self


def fixed_replicas(workload: Workload) -> int | None:
    """How many replicas always run; None where an autoscaler says so."""
    scaling = workload.scaling
    is_fixed = scaling.requests_per_second_per_replica is None or scaling.min_replicas == scaling.max_replicas
    return max(1, scaling.min_replicas) if is_fixed else None


def least_replicas(workload: Workload, settings: Autoscaling) -> int:
    """How many replicas an autoscaler leaves at least."""
    ends_last = settings.by == "keda" and settings.arrivals_query is not None
    return workload.scaling.min_replicas if ends_last else max(1, workload.scaling.min_replicas)


def autoscaler(workload: Workload, settings: Autoscaling, namespace: str) -> Manifest | None:
    """What starts and ends the replicas of one revision; None where their number is fixed."""
    rate = workload.scaling.requests_per_second_per_replica
    if fixed_replicas(workload) is not None or rate is None:
        return None
    name = revision_object_name(workload)
    least = least_replicas(workload, settings)
    if settings.by == "keda":
        return _scaled_object(workload, settings, namespace, least, rate)
    if settings.requests_metric is None:
        target = {"type": "Utilization", "averageUtilization": _CPU_PERCENT}
        metric: dict[str, Any] = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    else:
        value = {"type": "AverageValue", "averageValue": _quantity(rate)}
        metric = {"type": "Pods", "pods": {"metric": {"name": settings.requests_metric}, "target": value}}
    return manifest(
        "autoscaling/v2/HorizontalPodAutoscaler",
        workload,
        name,
        namespace,
        is_revision=True,
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": least,
            "maxReplicas": max(least, workload.scaling.max_replicas),
            "metrics": [metric],
        },
    )


def _scaled_object(workload: Workload, settings: Autoscaling, namespace: str, least: int, rate: float) -> Manifest:
    name = revision_object_name(workload)
    pods = f'sum(rate(bentoml_service_request_total{{namespace="{namespace}",pod=~"{name}-.+"}}[1m]))'
    return manifest(
        "keda.sh/v1alpha1/ScaledObject",
        workload,
        name,
        namespace,
        is_revision=True,
        spec={
            "scaleTargetRef": {"name": name},
            "minReplicaCount": least,
            "maxReplicaCount": max(least, workload.scaling.max_replicas),
            "triggers": [
                {
                    "type": "prometheus",
                    "metadata": {
                        "serverAddress": settings.prometheus,
                        "query": settings.arrivals_query or pods,
                        "threshold": f"{rate:g}",
                    },
                }
            ],
        },
    )


def _quantity(rate: float) -> str:
    return f"{rate:g}" if rate == int(rate) else f"{math.ceil(rate * 1000)}m"
