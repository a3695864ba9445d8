"""What the manifests of every Kubernetes API have in common: names, labels, annotations, and how they are written down.

Objects that outlive a revision are called by the deployment (`churn`), those of one revision by that too
(`churn-v8-1f0c2a9b`). All of one deployment in one region are found by three labels, and by nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import JsonValue
from fairlead.core.ids import RegionId
from fairlead.serving.kinds.names import platform_name, revision_name
from fairlead.serving.kinds.yaml_text import manifest_text
from fairlead.serving.workload import Document, Workload, environment_of

Manifest = dict[str, Any]
"""One object as its API takes it."""

MANAGER = "fairlead"
DOMAIN = "fairlead.dev"
BUNDLE_ANNOTATION = f"{DOMAIN}/bundle-digest"
NAMESPACE_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"

# What operators append to it (`-predictor-00001`) has to stay within the 63 letters of a label of DNS.
_NAME_LENGTH = 36
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def object_name(workload: Workload) -> str:
    """What the objects that outlive a revision are called."""
    return platform_name(workload.deployment, longest=_NAME_LENGTH)


def revision_object_name(workload: Workload) -> str:
    """What the objects of this revision are called: other pods, another name."""
    pods: dict[str, JsonValue] = {
        "image": workload.image or workload.bundle_digest,
        "bundle": workload.bundle_digest,
        "environment": {**environment_of(workload)},
    }
    return f"{object_name(workload)}-{revision_name(workload, canonical_json(pods).decode())}"


def place_labels(workspace: str, deployment: str, region: RegionId) -> dict[str, str]:
    """The labels that all objects of one deployment in one region have, and no others do."""
    return {
        "app.kubernetes.io/managed-by": MANAGER,
        f"{DOMAIN}/workspace": label_value(workspace),
        f"{DOMAIN}/deployment": label_value(deployment),
        f"{DOMAIN}/region": label_value(region.replace(":", ".")),
    }


def labels_of(workload: Workload, *, is_revision: bool = False) -> dict[str, str]:
    """The labels of an object, by name in order; of one that belongs to a single revision with its version."""
    labels = {
        "app.kubernetes.io/name": object_name(workload),
        "app.kubernetes.io/component": "model-endpoint",
        "app.kubernetes.io/part-of": label_value(workload.model),
        **place_labels(workload.workspace, workload.deployment, workload.region),
    }
    if is_revision:
        labels["app.kubernetes.io/instance"] = revision_object_name(workload)
        labels["app.kubernetes.io/version"] = str(workload.version)
    return dict(sorted(labels.items()))


def annotations_of(workload: Workload) -> dict[str, str]:
    """What an object of one revision says of itself in full: digests are longer than labels may be."""
    said = {
        BUNDLE_ANNOTATION: workload.bundle_digest,
        f"{DOMAIN}/model-version": f"{workload.model}/{workload.version}",
        f"{DOMAIN}/residency": workload.residency,
        **({} if workload.environment is None else {f"{DOMAIN}/environment": workload.environment}),
        **{f"{DOMAIN}/{platform_name(name, longest=40)}": text for name, text in workload.labels.items()},
    }
    return dict(sorted(said.items()))


def selector_of(workload: Workload, *, is_revision: bool) -> dict[str, str]:
    """Which pods are a revision's, or of any revision of the deployment in its region."""
    if is_revision:
        return {"app.kubernetes.io/instance": revision_object_name(workload)}
    return place_labels(workload.workspace, workload.deployment, workload.region)


def label_value(text: str) -> str:
    """A text as the value of a label; one that cannot be is brought to a form that no other text has."""
    return text if _LABEL.fullmatch(text) else platform_name(text, longest=63)


def manifest(
    api: str, workload: Workload, name: str, namespace: str | None, *, is_revision: bool, **members: Any
) -> Manifest:
    """An object: `api` is its version and kind, `apps/v1/Deployment`. Members that are None are left out."""
    version, _, kind = api.rpartition("/")
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": name,
            **({} if namespace is None else {"namespace": namespace}),
            "labels": labels_of(workload, is_revision=is_revision),
            **({"annotations": annotations_of(workload)} if is_revision else {}),
        },
        **without_none(members),
    }


def revisions_of(workload: Workload) -> tuple[tuple[Workload, int], ...]:
    """The revisions that run, the newest first, each with its percentage of the requests."""
    if workload.former is None:
        return ((workload, 100),)
    return ((workload, workload.traffic_percent), (workload.former, 100 - workload.traffic_percent))


def to_documents(manifests: Sequence[Manifest]) -> tuple[Document, ...]:
    """One file for each object, called by its kind and name."""
    return tuple(
        Document(path=f"{each['kind'].lower()}-{each['metadata']['name']}.yaml", text=manifest_text(each))
        for each in manifests
    )


def without_none(value: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are not None."""
    return {name: member for name, member in value.items() if member is not None}
