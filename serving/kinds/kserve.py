"""KServe: an InferenceService whose predictor is the bundle's own image.

Under Knative the InferenceService keeps its name from revision to revision: KServe starts the new one beside the one
that was last fully in, and shares requests out by `canaryTrafficPercent`; it also ends the last replica when no
requests come. Knative has to permit `kubernetes.podspec-nodeselector` (and `-tolerations`, `-persistent-volume-claim`
where they are used). In `Standard` mode, plain Deployments, a share of traffic is refused.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.manifests import Manifest, annotations_of, labels_of, manifest, object_name, to_documents
from fairlead.serving.kinds.pods import METRICS_ANNOTATIONS, PodSettings, account_manifests, pod_labels, pod_spec
from fairlead.serving.workload import CLUSTER_DELIVERIES, PORT, Document, TargetKind, Workload

_KSERVE_CONTAINER = "kserve-container"
_KNATIVE_REFUSES = ("startupProbe", "lifecycle")
_REQUEST_SECONDS = 30


class KServeSettings(PodSettings):
    """How a deployment is written for KServe."""

    mode: Literal["Knative", "Standard"] = Field(
        default="Knative", description="KServe's deployment mode; a canary and scaling to zero need Knative."
    )


def render(workload: Workload, settings: KServeSettings) -> tuple[Document, ...]:
    """The InferenceService of a deployment in its region, and the account that it runs as.

    Raises:
        InvalidInput: if the mode or the target's settings cannot express the workload.
    """
    return to_documents([*account_manifests(workload, settings), _service(workload, settings)])


def _service(workload: Workload, settings: KServeSettings) -> Manifest:
    is_knative = settings.mode == "Knative"
    is_shared = workload.former is not None and workload.traffic_percent < 100
    if is_shared and not is_knative:
        raise InvalidInput(
            f"KServe's mode {settings.mode} leads all requests to one revision, not {workload.traffic_percent} %.",
            hint="Set mode to Knative, or use a target of kind kubernetes with a Gateway.",
        )
    found = manifest(
        "serving.kserve.io/v1beta1/InferenceService",
        workload,
        object_name(workload),
        settings.namespace,
        is_revision=False,
        spec={
            "predictor": {
                **({"canaryTrafficPercent": workload.traffic_percent} if is_shared else {}),
                **_scaling(workload, is_knative=is_knative),
                "timeout": _REQUEST_SECONDS,
                **_pod(workload, settings),
            }
        },
    )
    # KServe copies both to the pods of the revision.
    found["metadata"]["labels"] = dict(sorted({**labels_of(workload), **pod_labels(settings)}.items()))
    annotations = {**annotations_of(workload), **METRICS_ANNOTATIONS, "serving.kserve.io/deploymentMode": settings.mode}
    found["metadata"]["annotations"] = dict(sorted(annotations.items()))
    return found


def _scaling(workload: Workload, *, is_knative: bool) -> dict[str, Any]:
    scaling = workload.scaling
    least = scaling.min_replicas if is_knative else max(1, scaling.min_replicas)
    replicas: dict[str, Any] = {"minReplicas": least, "maxReplicas": max(1, least, scaling.max_replicas)}
    rate = scaling.requests_per_second_per_replica
    if rate is None or scaling.min_replicas == scaling.max_replicas:
        return replicas
    if is_knative:
        return replicas | {"scaleMetric": "rps", "scaleTarget": max(1, math.floor(rate))}
    return replicas | {"scaleMetric": "cpu", "scaleTarget": 70}


def _pod(workload: Workload, settings: KServeSettings) -> dict[str, Any]:
    spec = pod_spec(workload, settings, container=_KSERVE_CONTAINER)
    # Knative has names of its own for ports, drains by itself, and spreads pods as its operator set it up to.
    (container,) = spec["containers"]
    if settings.mode == "Knative":
        for name in _KNATIVE_REFUSES:
            del container[name]
        container["ports"] = [{"name": "http1", "containerPort": PORT}]
        for name in ("readinessProbe", "livenessProbe"):
            path = container[name]["httpGet"]["path"]
            container[name] = {**container[name], "httpGet": {"path": path, "port": PORT}}
        spec.pop("topologySpreadConstraints", None)
        del spec["terminationGracePeriodSeconds"]
    else:
        # Its pods have labels of KServe's own, so a selector of ours would count none of them.
        spec.pop("topologySpreadConstraints", None)
    return spec


KIND = TargetKind(name="kserve", settings=KServeSettings, render=render, deliveries=CLUSTER_DELIVERIES)
