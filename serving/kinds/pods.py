"""The pod that runs a bundle's image: the same for every API that takes pods.

It runs as nobody in particular, writes to nothing but its scratch, holds no token of the cluster, and goes on answering
for `_ARRIVAL_SECONDS` after it was told to end, because requests arrive until every proxy has heard of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.accelerators import GpuSharing, accelerator_request
from fairlead.serving.kinds.distributions import (
    CloudIdentity,
    Distribution,
    IdentityParts,
    identity_parts,
    overlay_of,
    spot_nodes,
)
from fairlead.serving.kinds.manifests import NAMESPACE_PATTERN, Manifest, manifest, object_name, selector_of
from fairlead.serving.workload import PORT, TargetSettings, Workload, environment_of

CONTAINER = "endpoint"
SCRATCH = "/tmp"  # noqa: S108  (the container's own, on a volume of its own)
METRICS_ANNOTATIONS: Mapping[str, str] = {
    "prometheus.io/path": "/metrics",
    "prometheus.io/port": str(PORT),
    "prometheus.io/scrape": "true",
}
_ARRIVAL_SECONDS = 10
_ENDING_SECONDS = 60
_START_SECONDS = 600
_PROBE_SECONDS = 5
_USER = 65532
_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"


class Toleration(TargetSettings):
    """A taint that pods bear."""

    key: str = Field(max_length=317, description="The taint's key.")
    value: str | None = Field(default=None, max_length=63, description="Its value; without one, any.")
    effect: str | None = Field(
        default=None, pattern=r"^(NoSchedule|PreferNoSchedule|NoExecute)$", description="Its effect; without one, any."
    )


class PodSettings(TargetSettings):
    """Where pods run in a cluster, and as whom."""

    namespace: str = Field(default="fairlead", pattern=NAMESPACE_PATTERN, description="The namespace, which exists.")
    distribution: Distribution = Field(
        default=Distribution.PLAIN, description="Whose Kubernetes it is: how nodes, storage and identities are named."
    )
    identity: CloudIdentity | None = Field(default=None, description="The identity of a cloud that the pods have.")
    service_account: str | None = Field(
        default=None,
        pattern=_NAME,
        description="A service account that exists; without one, each deployment gets its own.",
    )
    image_pull_secrets: tuple[str, ...] = Field(
        default=(), description="Secrets, by name, with which nodes pull the image."
    )
    node_selector: Mapping[str, str] = Field(default={}, description="More labels that nodes must have.")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="More taints that pods bear.")
    pins_instance_type: bool = Field(
        default=True, description="Whether only nodes of the placement's instance type are used, on EKS, GKE and AKS."
    )
    gpu_sharing: GpuSharing | None = Field(
        default=None, description="How nodes split a board that replicas share: `time-slicing` or `mig`."
    )
    scratch_gib: int = Field(default=1, ge=1, le=1024, description="GiB for what a replica writes while it runs.")
    scratch_class: str | None = Field(
        default=None,
        max_length=63,
        description="Storage class of a volume for it, `default` for the distribution's; without one, the node's disk.",
    )
    feature_claim: str | None = Field(
        default=None, pattern=_NAME, description="The volume claim that has the online store, where that is a file."
    )
    priority_class: str | None = Field(default=None, pattern=_NAME, description="The pods' priority class.")


def service_account(workload: Workload, settings: PodSettings) -> str:
    """Which service account the pods run as."""
    return settings.service_account or object_name(workload)


def account_manifests(workload: Workload, settings: PodSettings) -> list[Manifest]:
    """The service account, and the file by which a cloud's libraries find the token, where there are such."""
    parts = identity_parts(settings.identity, settings.distribution)
    name = object_name(workload)
    found: list[Manifest] = []
    if settings.service_account is None:
        account = manifest(
            "v1/ServiceAccount",
            workload,
            name,
            settings.namespace,
            is_revision=False,
            automountServiceAccountToken=False,
        )
        if parts.account_annotations:
            account["metadata"]["annotations"] = dict(parts.account_annotations)
        found.append(account)
    if parts.configuration is not None:
        configuration = dict(parts.configuration)
        found.append(
            manifest(
                "v1/ConfigMap",
                workload,
                _configuration_name(workload),
                settings.namespace,
                is_revision=False,
                data=configuration,
            )
        )
    return found


def pod_labels(settings: PodSettings) -> Mapping[str, str]:
    """Labels that pods need to get their identity."""
    return identity_parts(settings.identity, settings.distribution).pod_labels


def pod_spec(workload: Workload, settings: PodSettings, *, container: str = CONTAINER) -> dict[str, Any]:
    """The specification of a pod that runs one revision.

    Raises:
        InvalidInput: if there is no image, or the target's settings do not say where to run what was placed.
    """
    overlay = overlay_of(settings.distribution)
    parts = identity_parts(settings.identity, settings.distribution)
    wanted = accelerator_request(workload, overlay.accelerators, settings.gpu_sharing)
    spot_labels, spot_taints = spot_nodes(workload, settings.distribution)
    own = [each.model_dump(exclude_none=True) | _operator(each) for each in settings.tolerations]
    taints = [*own, *spot_taints, *wanted.tolerations]
    selector = {**_nodes(workload, settings), **spot_labels, **wanted.node_selector, **settings.node_selector}
    volumes = _volumes(workload, settings, parts)
    return {
        "serviceAccountName": service_account(workload, settings),
        "automountServiceAccountToken": False,
        **(
            {"imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets]}
            if settings.image_pull_secrets
            else {}
        ),
        **({"priorityClassName": settings.priority_class} if settings.priority_class else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": _ENDING_SECONDS,
        "nodeSelector": dict(sorted(selector.items())),
        **({"tolerations": taints} if taints else {}),
        **({"topologySpreadConstraints": _spread(workload)} if workload.scaling.max_replicas > 1 else {}),
        "containers": [_container(container, workload, settings, parts, wanted.resources)],
        "volumes": volumes,
    }


def image_of(workload: Workload) -> str:
    """The image that pods run.

    Raises:
        InvalidInput: if the bundle has none in the region.
    """
    if workload.image is None:
        raise InvalidInput(
            f"The bundle of {workload.model}/{workload.version} is no image in {workload.region} yet.",
            hint="Push it to the region's container registry.",
        )
    return workload.image


def memory_text(gib: float) -> str:
    """An amount of memory as Kubernetes writes it."""
    return f"{gib:g}Gi" if gib == int(gib) else f"{math.ceil(gib * 1024)}Mi"


def cpu_text(vcpus: float) -> str:
    """An amount of processors as Kubernetes writes it."""
    return f"{vcpus:g}" if vcpus == int(vcpus) else f"{math.ceil(vcpus * 1000)}m"


def _container(
    name: str, workload: Workload, settings: PodSettings, parts: IdentityParts, accelerators: Mapping[str, str]
) -> dict[str, Any]:
    needs = workload.resources
    own = {"BENTOML_HOME": f"{SCRATCH}/bentoml", "HOME": SCRATCH}
    variables = {**environment_of(workload), **own, **parts.variables}
    mounts: list[Mapping[str, Any]] = [{"name": "scratch", "mountPath": SCRATCH}, *parts.mounts()]
    if (folder := _store_folder(workload, settings)) is not None:
        mounts.append({"name": "features", "mountPath": folder, "readOnly": True})
    memory = memory_text(needs.memory_gib)
    return {
        "name": name,
        "image": image_of(workload),
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": [{"name": key, "value": value} for key, value in sorted(variables.items())],
        "resources": {
            "requests": {"cpu": cpu_text(needs.vcpus), "memory": memory},
            # No limit of processors: what is idle is free to use, and throttling costs latency.
            "limits": {"memory": memory, **accelerators},
        },
        "startupProbe": _probe("/readyz", failureThreshold=_START_SECONDS // _PROBE_SECONDS),
        "readinessProbe": _probe("/readyz"),
        "livenessProbe": _probe("/livez"),
        "lifecycle": {"preStop": {"sleep": {"seconds": _ARRIVAL_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _probe(path: str, **members: Any) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": _PROBE_SECONDS, "timeoutSeconds": 2, **members}


def _nodes(workload: Workload, settings: PodSettings) -> dict[str, str]:
    architecture = workload.resources.architecture
    is_cloud = overlay_of(settings.distribution).spot is not None
    if workload.instance_type is not None and settings.pins_instance_type and is_cloud:
        return {"node.kubernetes.io/instance-type": workload.instance_type}
    return {"kubernetes.io/arch": _ARCHITECTURES.get(architecture, architecture)}


def _operator(toleration: Toleration) -> dict[str, str]:
    return {"operator": "Exists" if toleration.value is None else "Equal"}


def _spread(workload: Workload) -> list[dict[str, Any]]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector_of(workload, is_revision=True)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def _volumes(workload: Workload, settings: PodSettings, parts: IdentityParts) -> list[Mapping[str, Any]]:
    volumes: list[Mapping[str, Any]] = [{"name": "scratch", **_scratch(settings)}]
    if (identity := parts.volume(_configuration_name(workload))) is not None:
        volumes.append(identity)
    if _store_folder(workload, settings) is not None:
        claim = {"claimName": settings.feature_claim, "readOnly": True}
        volumes.append({"name": "features", "persistentVolumeClaim": claim})
    return volumes


def _scratch(settings: PodSettings) -> Mapping[str, Any]:
    size = f"{settings.scratch_gib}Gi"
    if settings.scratch_class is None:
        return {"emptyDir": {"sizeLimit": size}}
    overlay = overlay_of(settings.distribution)
    storage_class = overlay.storage_class if settings.scratch_class == "default" else settings.scratch_class
    claim = {
        "accessModes": ["ReadWriteOnce"],
        **({} if storage_class is None else {"storageClassName": storage_class}),
        "resources": {"requests": {"storage": size}},
    }
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _store_folder(workload: Workload, settings: PodSettings) -> str | None:
    """Where an online store that is a file is mounted; None for one that is reached over the network."""
    store = workload.online_store
    if store is None or not store.startswith("/"):
        return None
    if settings.feature_claim is None:
        raise InvalidInput(
            f"The features of {workload.region} are in a file, which no pod can read.",
            hint="Use an online store reached over the network, or set feature_claim to the volume that has it.",
        )
    return str(PurePosixPath(store).parent)


def _configuration_name(workload: Workload) -> str:
    return f"{object_name(workload)}-identity"
