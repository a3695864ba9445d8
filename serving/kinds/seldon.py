"""Seldon Core 2: a Model that one of the cluster's inference servers loads.

Core 2 cannot run just any image: a Model is a folder that an agent downloads (by rclone) and has a server load, over
the model repository calls of the Open Inference Protocol. MLServer and Triton speak it, a bundle's own service does
not. So what runs is the model within the bundle, `src/model`, an MLflow folder, in MLServer's `mlflow` runtime: without
the bundle's service, so no features are looked up by key, and nobody compares digests. Whoever runs the cluster puts
the bundle's files below `storage_uri`, in a folder named by the bundle's digest. An MLServer image of one's own is that
of a Server of the cluster, which `server` names. While traffic moves, an Experiment shares requests out.
"""

from __future__ import annotations

from pydantic import Field

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import digest_hex
from fairlead.serving.kinds.manifests import (
    NAMESPACE_PATTERN,
    Manifest,
    manifest,
    object_name,
    revision_object_name,
    revisions_of,
    to_documents,
    without_none,
)
from fairlead.serving.kinds.pods import memory_text
from fairlead.serving.workload import CLUSTER_DELIVERIES, Document, TargetKind, TargetSettings, Workload

_API = "mlops.seldon.io/v1alpha1"


class SeldonSettings(TargetSettings):
    """How a deployment is written for Seldon Core 2."""

    namespace: str = Field(default="seldon-mesh", pattern=NAMESPACE_PATTERN, description="The namespace, which exists.")
    storage_uri: str = Field(
        pattern=r"^[a-z0-9]+://[A-Za-z0-9._/-]+$",
        description="Where bundles' files are, below their digests; rclone reads it with the cluster's own secrets.",
    )
    requirements: tuple[str, ...] = Field(
        default=("mlflow",), min_length=1, description="What a server has to be capable of."
    )
    server: str | None = Field(
        default=None, pattern=NAMESPACE_PATTERN, description="The Server to load it on; without one, any capable one."
    )


def render(workload: Workload, settings: SeldonSettings) -> tuple[Document, ...]:
    """The Model of each revision, and while traffic moves the Experiment that shares requests out.

    Raises:
        InvalidInput: if the model asks for an accelerator or features, which a Model cannot say.
    """
    if workload.resources.accelerator is not None or workload.online_store is not None:
        missing = "features by their keys" if workload.online_store is not None else "accelerators"
        raise InvalidInput(
            f"A Model of Seldon Core 2 knows no {missing}, which {workload.deployment} needs.",
            hint="Use a target of kind kubernetes or kserve.",
        )
    revisions = revisions_of(workload)
    found = [_model(revision, settings) for revision, _ in revisions]
    if workload.former is not None:
        found.append(_experiment(workload, settings))
    return to_documents(found)


def _model(workload: Workload, settings: SeldonSettings) -> Manifest:
    scaling = workload.scaling
    least = max(1, scaling.min_replicas)
    spec = {
        "storageUri": f"{settings.storage_uri.rstrip('/')}/{digest_hex(workload.bundle_digest)}/src/model",
        "requirements": list(settings.requirements),
        "memory": memory_text(workload.resources.memory_gib),
        "server": settings.server,
        "replicas": least,
        "minReplicas": least if scaling.max_replicas > least else None,
        "maxReplicas": scaling.max_replicas if scaling.max_replicas > least else None,
    }
    name = revision_object_name(workload)
    return manifest(f"{_API}/Model", workload, name, settings.namespace, is_revision=True, spec=without_none(spec))


def _experiment(workload: Workload, settings: SeldonSettings) -> Manifest:
    candidates = [
        {"name": revision_object_name(revision), "weight": percent} for revision, percent in revisions_of(workload)
    ]
    # Requests for the model that answered before are shared out between both.
    spec = {"default": candidates[-1]["name"], "candidates": candidates}
    return manifest(
        f"{_API}/Experiment", workload, object_name(workload), settings.namespace, is_revision=False, spec=spec
    )


KIND = TargetKind(name="seldon", settings=SeldonSettings, render=render, deliveries=CLUSTER_DELIVERIES)
