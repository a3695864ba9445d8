"""Ray Serve: the configuration of an application, and KubeRay's RayService that runs it.

Ray runs Serve applications, and a bundle's own service is a BentoML one: the image has to hold Ray and an application
that the setting `import_path` names. A RayService replaces its whole cluster once the new one is ready; it cannot share
requests out between two, so a canary is refused. Shares of a GPU are Ray's own: replicas of one board count its parts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pydantic import Field

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.manifests import (
    Manifest,
    annotations_of,
    labels_of,
    manifest,
    object_name,
    to_documents,
)
from fairlead.serving.kinds.pods import PodSettings, account_manifests, pod_labels, pod_spec
from fairlead.serving.kinds.yaml_text import manifest_text
from fairlead.serving.workload import (
    CLUSTER_DELIVERIES,
    PORT,
    Document,
    ReplicaResources,
    TargetKind,
    Workload,
    environment_of,
)

_HEAD = ReplicaResources(vcpus=1.0, memory_gib=4.0)
_REPLACED = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle")


class RaySettings(PodSettings):
    """How a deployment is written for Ray Serve."""

    import_path: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="The Serve application in the image, `module:name`."
    )
    serve_deployment: str = Field(
        default="Prediction",
        pattern=r"^[A-Za-z_]\w*$",
        description="The application's Serve deployment that is scaled.",
    )
    ray_version: str = Field(pattern=r"^\d+\.\d+\.\d+$", description="The image's version of Ray.")


def render(workload: Workload, settings: RaySettings) -> tuple[Document, ...]:
    """Serve's configuration (`serve.yaml`, for `serve deploy`), and the RayService with the account that it runs as.

    Raises:
        InvalidInput: if requests are to be shared out, or the target's settings cannot express the workload.
    """
    if workload.former is not None and 0 < workload.traffic_percent < 100:
        raise InvalidInput(
            f"A RayService leads all requests to one revision, not {workload.traffic_percent} % of them.",
            hint="Use a strategy of blue_green.",
        )
    text = manifest_text(_serve(workload, settings))
    manifests = [*account_manifests(workload, settings), _service(workload, settings, text)]
    return (Document(path="serve.yaml", text=text), *to_documents(manifests))


def _serve(workload: Workload, settings: RaySettings) -> dict[str, Any]:
    needs, scaling = workload.resources, workload.scaling
    actor: dict[str, Any] = {"num_cpus": needs.vcpus, "memory": int(needs.memory_gib * 2**30)}
    if needs.accelerator is not None:
        actor["num_gpus"] = needs.accelerator_share
    deployment: dict[str, Any] = {"name": settings.serve_deployment, "ray_actor_options": actor}
    if scaling.requests_per_second_per_replica is None or scaling.min_replicas == scaling.max_replicas:
        deployment["num_replicas"] = max(1, scaling.min_replicas)
    else:
        deployment["autoscaling_config"] = {"min_replicas": scaling.min_replicas, "max_replicas": scaling.max_replicas}
    return {
        "http_options": {"host": "0.0.0.0", "port": PORT},  # noqa: S104  (in a pod)
        "applications": [
            {
                "name": object_name(workload),
                "route_prefix": "/",
                "import_path": settings.import_path,
                "runtime_env": {"env_vars": environment_of(workload)},
                "deployments": [deployment],
            }
        ],
    }


def _service(workload: Workload, settings: RaySettings, serve: str) -> Manifest:
    least = max(1, workload.scaling.min_replicas)
    most = max(least, workload.scaling.max_replicas)
    share = workload.resources.accelerator_share
    if 0 < share < 1:
        least, most = math.ceil(least * share), math.ceil(most * share)
    worker = {
        "groupName": "replicas",
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": {},
        "template": _template(workload, settings, "ray-worker"),
    }
    head = _template(workload, settings, "ray-head")
    if is_scaled := most > least:
        # KubeRay's autoscaler runs there and calls the cluster's API, as an account that KubeRay makes for it.
        for name in ("serviceAccountName", "automountServiceAccountToken"):
            del head["spec"][name]
    return manifest(
        "ray.io/v1/RayService",
        workload,
        object_name(workload),
        settings.namespace,
        is_revision=True,
        spec={
            "upgradeStrategy": {"type": "NewCluster"},
            "serveConfigV2": serve,
            "rayClusterConfig": {
                "rayVersion": settings.ray_version,
                "enableInTreeAutoscaling": is_scaled,
                # The head only leads: no replica is put there.
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104  (in a pod)
                    "template": head,
                },
                "workerGroupSpecs": [worker],
            },
        },
    )


def _template(workload: Workload, settings: RaySettings, container: str) -> dict[str, Any]:
    needs, pods = workload.resources, 1
    if container == "ray-head":
        needs = replace(_HEAD, architecture=needs.architecture)
    elif 0 < needs.accelerator_share < 1:
        # A worker has a whole board, and the replicas that share it.
        pods = math.floor(1 / needs.accelerator_share)
        needs = replace(needs, accelerator_share=1.0, vcpus=needs.vcpus * pods, memory_gib=needs.memory_gib * pods)
    spec = pod_spec(replace(workload, resources=needs), settings, container=container)
    # KubeRay brings probes of its own, and its pods have no label that a spread of ours could count.
    spec.pop("topologySpreadConstraints", None)
    (only,) = spec["containers"]
    for name in _REPLACED:
        del only[name]
    del only["ports"]
    labels = {**labels_of(workload, is_revision=True), **pod_labels(settings)}
    return {"metadata": {"labels": dict(sorted(labels.items())), "annotations": annotations_of(workload)}, "spec": spec}


KIND = TargetKind(name="ray", settings=RaySettings, render=render, deliveries=CLUSTER_DELIVERIES)
