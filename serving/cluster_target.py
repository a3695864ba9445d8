"""The delivery `cluster`: what a kind has written is applied to a Kubernetes API, and watched until it answers.

Objects are applied by the server's side, under the manager `fairlead`: it owns the members that the kind writes, and a
member that somebody else set is a conflict, not a fight. What is new runs first; ways in (Services, routes) are turned
to it once it is ready; then what only an earlier revision had is deleted.

A ConfigMap beside the objects is the record of a place: what runs there, what is on its way and since when, and which
kinds of objects there ever were. It comes before all others and leaves after them, so any process can go on from it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from fairlead.core.errors import Conflict, EndpointUnavailable, InvalidInput, PermissionDenied, Unavailable
from fairlead.serving.cluster_api import CLUSTER_NAME, ClusterApi, ObjectKey, check_cluster, open_cluster
from fairlead.serving.cluster_objects import (
    Objects,
    differences,
    failure_of,
    in_leaving_order,
    is_ready,
    labels_of_place,
    read_objects,
    reason_of,
)
from fairlead.serving.kinds.manifests import Manifest, place_labels
from fairlead.serving.kinds.names import platform_name, region_name
from fairlead.serving.targets import (
    Delivery,
    EndpointKey,
    EndpointSpec,
    NoLongerWanted,
    RunningEndpoint,
    StillStarting,
    TargetParts,
    TargetRules,
)
from fairlead.serving.workload import TargetSettings, Workload

_LOOK_SECONDS = 10.0
"""How long an answer of `observe` may be old: it is asked for every second, and costs two requests an object."""
_SLICE_SECONDS = 8.0
"""How long a call goes on: with the last request's patience it stays within the port's fifteen seconds."""


class ClusterSettings(TargetSettings):
    """The cluster that the objects of a target of delivery `cluster` are applied to."""

    cluster: str = Field(
        pattern=CLUSTER_NAME,
        description="A cluster that the operator lists, by its name; `in-cluster` for the one that Fairlead runs in.",
    )
    namespace: str | None = Field(
        default=None,
        pattern=r"^([a-z0-9]|\{region\})([a-z0-9-]|\{region\})*$",
        max_length=63,
        description="A namespace that exists, in place of the one in `settings`; `{region}` stands for the region, "
        "where one cluster serves several.",
    )
    overwrite: bool = Field(
        default=False, description="Whether members that somebody else set are taken over when they are applied."
    )
    start_seconds: int = Field(
        default=1800, ge=10, le=86_400, description="Seconds after which a revision that is not ready has failed."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What the ConfigMap of a place says; `version` is the one that was read, None before there is any."""

    key: ObjectKey
    workspace_id: str
    workspace: str
    running: Workload | None = None
    running_sha256: str = ""
    attempt_sha256: str = ""
    attempt_since: float = 0.0
    apis: frozenset[str] = frozenset()
    version: str | None = None

    def to_manifest(self, place: EndpointKey) -> Manifest:
        """The record as an object, for the version that was read."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.key.name,
                "namespace": self.key.namespace,
                "labels": place_labels(self.workspace, place.deployment, place.region),
                **({} if self.version is None else {"resourceVersion": self.version}),
            },
            "data": {
                "workspace-id": self.workspace_id,
                "workspace": self.workspace,
                "running": json.dumps(None if self.running is None else self.running.to_json(), sort_keys=True),
                "running-sha256": self.running_sha256,
                "attempt-sha256": self.attempt_sha256,
                "attempt-since": str(self.attempt_since),
                "apis": "\n".join(sorted(self.apis)),
            },
        }

    @staticmethod
    def read(found: Mapping[str, Any], key: ObjectKey) -> _Record:
        """Read what `to_manifest` gave.

        Raises:
            Conflict: if it is another thing of that name.
        """
        try:
            data = found["data"]
            running = json.loads(data["running"])
            return _Record(
                key=key,
                workspace_id=data["workspace-id"],
                workspace=data["workspace"],
                running=None if running is None else Workload.from_json(running),
                running_sha256=data["running-sha256"],
                attempt_sha256=data["attempt-sha256"],
                attempt_since=float(data["attempt-since"]),
                apis=frozenset(data["apis"].split()),
                version=found["metadata"].get("resourceVersion"),
            )
        except (KeyError, ValueError, TypeError, AttributeError):
            raise Conflict(
                f"{key} is no record of Fairlead's, or somebody changed it.",
                hint="Remove it, or choose another namespace.",
            ) from None


class ClusterTarget:
    """Keeps the objects of endpoints in a cluster. Implements `DeployTarget`."""

    def __init__(self, api: ClusterApi, parts: TargetParts, settings: ClusterSettings) -> None:
        self._api = api
        self._parts = parts
        self._settings = settings
        self._seen: dict[EndpointKey, tuple[float, RunningEndpoint | None]] = {}
        self._lock = threading.Lock()

    def ensure(
        self,
        spec: EndpointSpec,
        switch: Callable[[RunningEndpoint], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> RunningEndpoint:
        """See `DeployTarget.ensure`; a member that somebody else set is taken over only where the target says so.

        Raises:
            StillStarting: if it is not ready yet.
            NoLongerWanted: once `is_wanted` says no.
            EndpointUnavailable: if it does not get ready.
            Conflict: if somebody else set what would be applied, or an object belongs to another place.
            Unavailable, PermissionDenied: if the cluster cannot be asked.
            InvalidInput: if the kind has no words for the workload, or the cluster does not take them.
        """
        end = time.monotonic() + _SLICE_SECONDS
        wanted = self._objects(spec.workload)
        record = self._record(spec.key) or self._new_record(spec)
        if not is_wanted():
            self._go_back(spec.key, record)
            raise NoLongerWanted
        record = self._begin(spec, record, wanted, end)
        answering = self._apply(wanted.before, end)
        self._await(spec, record, [answering[key] for key in wanted.answering])
        self._apply(wanted.ways_in, end)
        if record.attempt_sha256 or record.running_sha256 != wanted.sha256 or record.running != spec.workload:
            done = replace(record, running=spec.workload, running_sha256=wanted.sha256, attempt_sha256="")
            record = self._write(spec.key, done)
        running = RunningEndpoint(spec=spec, url=None)
        self._remember(spec.key, running)
        switch(running)
        self._prune(spec.key, record, wanted)
        return running

    def observe(self, spec: EndpointSpec) -> RunningEndpoint | None:
        """See `DeployTarget.observe`; the answer may be some seconds old."""
        with self._lock:
            seen = self._seen.get(spec.key)
        if seen is not None and time.monotonic() - seen[0] < _LOOK_SECONDS:
            return seen[1]
        try:
            running = self._look(spec.key)
        except PermissionDenied as error:
            raise Unavailable(error.detail, hint=error.hint) from None
        self._remember(spec.key, running)
        return running

    def stop(self, key: EndpointKey) -> None:
        """See `DeployTarget.stop`; what leads requests in goes first, the record last."""
        record = self._record(key)
        if record is None:
            self._remember(key, None)
            return
        end = time.monotonic() + _SLICE_SECONDS
        for step in in_leaving_order(self._present(key, record)):
            for each in step:
                self._api.delete(each)
            if any(self._api.get(each) is not None for each in step) or time.monotonic() > end:
                raise StillStarting
        self._api.delete(record.key)
        self._remember(key, None)

    def _begin(self, spec: EndpointSpec, record: _Record, wanted: Objects, end: float) -> _Record:
        """Write down what is on its way, once the cluster takes all of it and nothing belongs to somebody else."""
        if wanted.sha256 in {record.attempt_sha256, record.running_sha256 if not record.attempt_sha256 else ""}:
            return record
        for each in wanted.all:
            _check_time(end)
            self._check_owner(each, spec.workload)
            self._api.apply(each, force=self._settings.overwrite, dry_run=True)
        begun = replace(
            record,
            attempt_sha256=wanted.sha256,
            attempt_since=time.time(),
            apis=record.apis | {key.api for key in wanted.keys},
        )
        return self._write(spec.key, begun)

    def _apply(self, manifests: tuple[Manifest, ...], end: float) -> dict[ObjectKey, Manifest]:
        found: dict[ObjectKey, Manifest] = {}
        for each in manifests:
            _check_time(end)
            found[ObjectKey.of(each)] = self._api.apply(each, force=self._settings.overwrite)
        return found

    def _await(self, spec: EndpointSpec, record: _Record, answering: list[Manifest]) -> None:
        """Go on where all are ready.

        Raises:
            StillStarting: if one is not, and may still get so.
            EndpointUnavailable: if one will not, or has taken too long; what ran before is as it was.
        """
        late = [each for each in answering if not is_ready(each)]
        if not late:
            return
        if not record.attempt_sha256:
            # It ran, and does not any more: from now on it is awaited like something new.
            begun = replace(record, attempt_sha256=record.running_sha256, attempt_since=time.time())
            record = self._write(spec.key, begun)
        why = next((reason for reason in map(failure_of, late) if reason is not None), None)
        if why is None and time.time() - record.attempt_since > self._settings.start_seconds:
            why = f"after {self._settings.start_seconds} s, {reason_of(late[0])}"
        if why is None:
            raise StillStarting
        self._go_back(spec.key, record)
        raise EndpointUnavailable(
            f"{spec.deployment} does not get ready in {spec.region}: {why}.",
            hint="Look at its pods and their events in the cluster.",
        )

    def _go_back(self, place: EndpointKey, record: _Record) -> None:
        """Have what ran before run as it did, and nothing else."""
        if record.version is None:
            return
        if record.running is None:
            for step in in_leaving_order(self._present(place, record)):
                for each in step:
                    self._api.delete(each)
            self._api.delete(record.key)
            return
        before = self._objects(record.running)
        for each in before.all:
            # What somebody else holds on to is theirs, now as then.
            with contextlib.suppress(Conflict):
                self._api.apply(each, force=self._settings.overwrite)
        self._prune(place, record, before)
        self._write(place, replace(record, attempt_sha256=""))

    def _prune(self, place: EndpointKey, record: _Record, wanted: Objects) -> None:
        for step in in_leaving_order(key for key in self._present(place, record) if key not in wanted.keys):
            for each in step:
                self._api.delete(each)

    def _present(self, place: EndpointKey, record: _Record) -> list[ObjectKey]:
        """The objects of a place that are in the cluster, without its record."""
        labels = place_labels(record.workspace, place.deployment, place.region)
        namespace = record.key.namespace
        found = (each for api in sorted(record.apis) for each in self._api.list(api, namespace, labels))
        # What has an owner is a controller's, which copies labels, and goes when its owner does.
        ours = (ObjectKey.of(each) for each in found if not each["metadata"].get("ownerReferences"))
        return [key for key in ours if key != record.key]

    def _look(self, place: EndpointKey) -> RunningEndpoint | None:
        record = self._record(place)
        if record is None or record.running is None:
            return None
        spec = EndpointSpec(workspace_id=record.workspace_id, workload=record.running)
        try:
            wanted = self._objects(record.running)
        except InvalidInput as error:
            return RunningEndpoint(spec=spec, url=None, is_ready=False, differences=(error.detail,))
        found: list[str] = []
        live = {ObjectKey.of(each): self._api.get(ObjectKey.of(each)) for each in wanted.all}
        for each in wanted.all:
            now, applied = live[ObjectKey.of(each)], None
            if now is not None:
                try:
                    applied = self._api.apply(each, dry_run=True)
                except (Conflict, InvalidInput) as error:
                    found.append(error.detail)
            changed = differences(each, now, applied)
            if changed and applied is not None:
                # Autoscalers change objects meanwhile: what counts is what still differs.
                changed = differences(each, self._api.get(ObjectKey.of(each)), applied)
            found += changed
        states = [live[key] for key in wanted.answering]
        return RunningEndpoint(
            spec=spec,
            url=None,
            is_ready=all(each is not None and is_ready(each) for each in states),
            differences=tuple(found),
        )

    def _check_owner(self, wanted: Manifest, workload: Workload) -> None:
        live = self._api.get(ObjectKey.of(wanted))
        labels: dict[str, str] = {} if live is None else live["metadata"].get("labels") or {}
        if live is not None and not labels_of_place(workload).items() <= labels.items():
            raise Conflict(
                f"{ObjectKey.of(wanted)} is there already and belongs to something else.",
                hint="Give each region and workspace a namespace of its own: `namespace` in delivery_settings.",
            )

    def _objects(self, workload: Workload) -> Objects:
        settings = self._parts.kind.settings.model_validate(
            self._parts.settings.model_dump(exclude_unset=True) | self._namespace_member(workload.region)
        )
        return read_objects(self._parts.kind.render(workload, settings), workload)

    def _namespace_member(self, region: Any) -> dict[str, str]:
        """The member of the kind's settings that says the namespace, and what it says here."""
        kept = self._parts.settings.model_dump()
        member = "claim_namespace" if "claim_namespace" in kept else "namespace"
        if self._settings.namespace is None:
            return {member: kept[member]}
        return {member: platform_name(self._settings.namespace.replace("{region}", region_name(region)), longest=63)}

    def _record_key(self, place: EndpointKey) -> ObjectKey:
        (namespace,) = self._namespace_member(place.region).values()
        return ObjectKey("v1/ConfigMap", namespace, f"{platform_name(place.deployment, longest=36)}-fairlead")

    def _record(self, place: EndpointKey) -> _Record | None:
        key = self._record_key(place)
        found = self._api.get(key)
        if found is None:
            return None
        record = _Record.read(found, key)
        labels = place_labels(record.workspace, place.deployment, place.region)
        if record.workspace_id == place.workspace_id and labels.items() <= found["metadata"].get("labels", {}).items():
            return record
        raise Conflict(
            f"{key} belongs to another workspace's deployment, or to another region's.",
            hint="Give each of them a namespace of its own: `namespace` in delivery_settings, with {region}.",
        )

    def _new_record(self, spec: EndpointSpec) -> _Record:
        return _Record(
            key=self._record_key(spec.key), workspace_id=spec.workspace_id, workspace=spec.workload.workspace
        )

    def _write(self, place: EndpointKey, record: _Record) -> _Record:
        # With the version that was read, so that two workers never write over each other.
        written = self._api.apply(record.to_manifest(place), force=True)
        return replace(record, version=written["metadata"]["resourceVersion"])

    def _remember(self, key: EndpointKey, running: RunningEndpoint | None) -> None:
        with self._lock:
            self._seen[key] = time.monotonic(), running


def _check_time(end: float) -> None:
    if time.monotonic() > end:
        raise StillStarting


def _check_settings(settings: ClusterSettings, rules: TargetRules) -> None:
    check_cluster(rules.clusters, settings.cluster)


def _open(parts: TargetParts) -> ClusterTarget:
    settings = ClusterSettings.model_validate(parts.delivery_settings.model_dump())
    return ClusterTarget(open_cluster(parts.rules.clusters, settings.cluster), parts, settings)


DELIVERIES: Mapping[str, Delivery] = {
    "cluster": Delivery(name="cluster", settings=ClusterSettings, open=_open, check=_check_settings),
}
