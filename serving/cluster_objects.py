"""What is to know of a deployment's objects in a cluster: in which order they come and go, and when they are ready."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from fairlead.serving.cluster_api import PLURALS, ObjectKey
from fairlead.serving.kinds.manifests import BUNDLE_ANNOTATION, DOMAIN, Manifest, place_labels, revision_object_name
from fairlead.serving.workload import Document, Workload

HASH_ANNOTATION = f"{DOMAIN}/applied-sha256"
# Where it is built in, the one in C is ten times as fast, and what runs is looked at all the time.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ANSWERING = frozenset({"Deployment", "InferenceService", "RayService", "Model", "ModelEndpoint"})
_WAYS_IN = frozenset({"Service", "Ingress", "HTTPRoute", "Experiment"})
_SCALERS = frozenset({"HorizontalPodAutoscaler", "ScaledObject"})
# What would start pods again goes before them.
_LEAVING = (_WAYS_IN, _SCALERS, _ANSWERING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """What a workload is in a cluster. `ways_in` wait until what is in `before` answers.

    The readiness of the `answering` ones is the workload's; that of a former revision beside it is not waited for.
    """

    before: tuple[Manifest, ...]
    ways_in: tuple[Manifest, ...]
    answering: tuple[ObjectKey, ...]

    @property
    def all(self) -> tuple[Manifest, ...]:
        """All of them, each after those that it needs."""
        return (*self.before, *self.ways_in)

    @property
    def keys(self) -> frozenset[ObjectKey]:
        """Which they are."""
        return frozenset(map(ObjectKey.of, self.all))

    @property
    def sha256(self) -> str:
        """The same for the same objects."""
        hashes = [each["metadata"]["annotations"][HASH_ANNOTATION] for each in self.all]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()


def read_objects(documents: Sequence[Document], workload: Workload) -> Objects:
    """The objects among documents that are the deployment's own, which its labels say.

    Others are files for other tools (`serve.yaml`), or are the same for all deployments and need rights for the whole
    cluster (a CompositeResourceDefinition): whoever runs the cluster applies those, once.
    """
    labels = labels_of_place(workload)
    found: list[Manifest] = []
    for document in documents:
        each: Any = yaml.load(document.text, _Loader)  # noqa: S506  (a safe one)
        metadata = each.get("metadata", {})
        if labels.items() <= metadata.get("labels", {}).items() and f"{each['apiVersion']}/{each['kind']}" in PLURALS:
            digest = hashlib.sha256(document.text.encode()).hexdigest()
            metadata["annotations"] = {**metadata.get("annotations", {}), HASH_ANNOTATION: digest}
            found.append(each)
    former = None if workload.former is None else revision_object_name(workload.former)
    return Objects(
        answering=tuple(
            ObjectKey.of(each) for each in found if each["kind"] in _ANSWERING and each["metadata"]["name"] != former
        ),
        before=tuple(each for each in found if each["kind"] not in _WAYS_IN),
        ways_in=tuple(each for each in found if each["kind"] in _WAYS_IN),
    )


def labels_of_place(workload: Workload) -> dict[str, str]:
    """The labels by which the objects of a deployment in a region are found."""
    return place_labels(workload.workspace, workload.deployment, workload.region)


def in_leaving_order(keys: Iterable[ObjectKey]) -> list[list[ObjectKey]]:
    """Objects in steps: those of one are to be gone before those of the next go."""
    steps: dict[int, list[ObjectKey]] = {}
    for key in sorted(keys):
        step = next((step for step, kinds in enumerate(_LEAVING) if key.kind in kinds), len(_LEAVING))
        steps.setdefault(step, []).append(key)
    return [steps[step] for step in sorted(steps)]


def is_ready(found: Mapping[str, Any]) -> bool:
    """Whether an object says that what it was last asked for answers."""
    status: dict[str, Any] = found.get("status") or {}
    if found["kind"] == "Deployment":
        wanted: int = found["spec"].get("replicas", 1)
        updated: int = status.get("updatedReplicas", 0)
        is_through = updated >= wanted and status.get("replicas", 0) <= updated
        return _is_seen(found, status) and is_through and _condition(found, "Available").get("status") == "True"
    ready = _condition(found, "Ready")
    return _is_seen(found, status) and _is_seen(found, ready) and ready.get("status") == "True"


def failure_of(found: Mapping[str, Any]) -> str | None:
    """Why an object will not get ready by itself; None while it may."""
    condition = _condition(found, "Progressing")
    has_failed = condition.get("status") == "False" and condition.get("reason") == "ProgressDeadlineExceeded"
    return reason_of(found) if has_failed and _is_seen(found, found.get("status") or {}) else None


def reason_of(found: Mapping[str, Any]) -> str:
    """What an object says of not being ready, in its own words."""
    name = "Progressing" if found["kind"] == "Deployment" else "Ready"
    condition = _condition(found, name)
    said = str(condition.get("message") or condition.get("reason") or "it says nothing of why")
    return f"{ObjectKey.of(found)}: {said[:300]}"


def differences(wanted: Manifest, live: Manifest | None, applied: Manifest | None) -> list[str]:
    """What somebody did to an object; `applied` is what it would be if it were applied once more."""
    name = f"{wanted['kind']} {wanted['metadata']['name']}"
    if live is None:
        return [f"{name} was removed"]
    found: list[str] = []
    for annotation, what in ((BUNDLE_ANNOTATION, "the bundle"), (HASH_ANNOTATION, "what was applied")):
        mine, theirs = (each["metadata"].get("annotations", {}).get(annotation) for each in (wanted, live))
        if mine is not None and mine != theirs:
            found.append(f"{name} does not name {what}")
    if applied is not None:
        members = sorted({*live, *applied} - {"metadata", "status"})
        found += [f"{name} was edited in {member}" for member in members if live.get(member) != applied.get(member)]
    return found


def _condition(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    status: dict[str, Any] = found.get("status") or {}
    conditions: list[dict[str, Any]] = status.get("conditions") or []
    return next((each for each in conditions if each.get("type") == name), {})


def _is_seen(found: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    """Whether what is said is said of the object as it is; not every API says of which one it speaks."""
    generation = found["metadata"].get("generation", 0)
    return said.get("observedGeneration", generation) >= generation
