"""Where deployments run: the port that every way of delivering a workload implements, and the words it speaks.

A *target* is a place that somebody named (`eks-virginia`, `local`). It has a *kind*, which says how a workload is
written in the platform's words (`serving.kinds`), and a *delivery*, which brings what was written there and says what
became of it:

    process    processes of this machine                     fairlead.serving.local_target
    cluster    a Kubernetes API, by server-side apply        fairlead.serving.cluster_target
    folder     files below a folder, for whatever reads it   fairlead.serving.repository_target
    git        commits on a branch                           fairlead.serving.repository_target

Each of these modules has a mapping `DELIVERIES` of `Delivery` by name. What every delivery promises is in
`DeployTarget`, and is tested by `fairlead.testing.target_conformance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from fairlead.core.ids import Digest, RegionId
from fairlead.core.outbound import OutboundRules
from fairlead.serving.workload import AnyKind, TargetSettings, Workload

LOCAL = "local"
"""The target that is always there."""

NO_GIT_HOSTS = OutboundRules(setting="FAIRLEAD_GIT_HOSTS", hosts=())
"""For servers whose operator lists no host of repositories."""


class EndpointKey(NamedTuple):
    """The place of one endpoint on its target: there is never more than one of a deployment in a region."""

    workspace_id: str
    deployment: str
    region: RegionId


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """What should run in one place. While traffic moves, `workload.former` runs beside it and gets the rest.

    `note` says who wanted it and why, for targets that keep a history; specifications are equal whatever it says.
    """

    workspace_id: str
    workload: Workload
    note: str = field(default="", compare=False)

    @property
    def key(self) -> EndpointKey:
        """The place that it is for."""
        return EndpointKey(self.workspace_id, self.workload.deployment, self.workload.region)

    @property
    def deployment(self) -> str:
        """The deployment's name."""
        return self.workload.deployment

    @property
    def region(self) -> RegionId:
        """The region that it runs in."""
        return self.workload.region

    @property
    def residency(self) -> str:
        """The class that says where its data may be."""
        return self.workload.residency

    @property
    def bundle_digest(self) -> Digest:
        """The bundle that answers."""
        return self.workload.bundle_digest

    @property
    def online_store(self) -> str | None:
        """Where the region's features are read; None for a model without."""
        return self.workload.online_store

    @property
    def former(self) -> EndpointSpec | None:
        """What should go on running beside it, as a specification of its own."""
        if self.workload.former is None:
            return None
        return EndpointSpec(workspace_id=self.workspace_id, workload=self.workload.former)

    def answers_like(self, other: EndpointSpec) -> bool:
        """Whether one process can serve for both: the same bundle with the same features, in the same place."""
        mine, others = (
            (each.key, each.residency, each.bundle_digest, each.online_store, dict(each.workload.variables))
            for each in (self, other)
        )
        return mine == others


def identity_of(spec: EndpointSpec) -> str:
    """What an endpoint says of itself in the header `x-fairlead-endpoint` of every answer, readiness included.

    It reaches the process as `FAIRLEAD_ENDPOINT`. The gateway passes nothing on to an endpoint that says it is another.
    """
    place = "/".join(quote(part, safe=":") for part in spec.key)
    return f"{place}/{spec.bundle_digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEndpoint:
    """What runs in one place.

    `spec` is what it was started with. `url` is None where nobody can say an address; `former_url` is that of the
    former revision where requests can be sent to each of the two, and None where the platform splits traffic itself.
    `process_id` is None where the target has no processes of its own. `is_ready` is False for one that is there and
    does not answer. `identity` is what it was found to say of itself, None for one that says nothing. `differences`
    name what somebody changed since it was put there, one each, in the platform's words.
    """

    spec: EndpointSpec
    url: str | None
    process_id: int | None = None
    former_url: str | None = None
    is_ready: bool = True
    identity: str | None = None
    former_identity: str | None = None
    differences: tuple[str, ...] = ()


class NoLongerWanted(Exception):
    """What was being started is wanted no more; nothing of it is left, and what ran before still runs."""


class StillStarting(Exception):
    """What was asked for is on its way and goes on by itself; the same call, a little later, waits on for it."""


class DeployTarget(Protocol):
    """Runs one endpoint in each place (workspace, deployment, region).

    Every call may be repeated, by any process, after any crash: `ensure` and `stop` do nothing where their wish is true
    already. None is called within a transaction, and none takes longer than about fifteen seconds: what takes longer
    raises `StillStarting` and goes on meanwhile. `observe` is called every second: where it costs something, it answers
    what was so a few seconds ago. `Unavailable` may be retried; `ReplicaUnavailable` and
    `IntegrityError` may be retried once the region's replica is mended; `InvalidInput` is final.
    """

    def ensure(
        self,
        spec: EndpointSpec,
        switch: Callable[[RunningEndpoint], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> RunningEndpoint:
        """Make exactly this run, beside `spec.workload.former` where there is one, and answer.

        What runs there by another specification goes on until the new one is ready; `switch` is called then, and
        before anything ends, so that traffic has moved by then. It is also called where all is right already, and for a
        specification that differs in nothing but its share of traffic. `is_wanted` is asked while something new gets
        ready, so that nothing newer waits for one that is slow, or hangs. An endpoint that is there and does not answer
        is replaced, and what somebody changed by hand is put right.

        Raises:
            StillStarting: if it is not ready yet.
            NoLongerWanted: once `is_wanted` says no; what was new has ended.
            EndpointUnavailable: if it does not get ready; what was new has ended, what ran before still runs.
        """
        ...

    def observe(self, spec: EndpointSpec) -> RunningEndpoint | None:
        """What runs now in the place of `spec`, and how it differs from what was last put there; None: nothing.

        Raises:
            Unavailable: if the target cannot be asked, which says nothing of what runs there.
        """
        ...

    def stop(self, key: EndpointKey) -> None:
        """End whatever runs in a place, the former revision too, letting it finish the requests it has begun.

        Raises:
            StillStarting: if it has not ended yet.
            Unavailable: if the target cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRules:
    """What whoever runs the server permits targets, whatever their documents say: nothing, unless it is said here.

    `folders` may be written to, and hold repositories; None permits any. Credentials of `environ`, this process's
    environment, are shown only to hosts that `git_hosts` lists. `clusters` is a folder of kubeconfigs by name.
    """

    folders: tuple[Path, ...] | None = ()
    git_hosts: OutboundRules = NO_GIT_HOSTS
    environ: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    clusters: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetParts:
    """What a delivery opens a target from: its document, checked, and a folder of the server's that is its own."""

    workspace_id: str
    name: str
    kind: AnyKind
    settings: TargetSettings
    delivery_settings: TargetSettings
    folder: Path
    rules: TargetRules = field(default_factory=TargetRules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A way in which what a kind has written gets to its platform.

    `settings` checks the member `delivery_settings` of a target document; credentials are named there (a file, a
    context, a variable), never held. `open` may be called often, and asks nothing of anybody. `check`, where there is
    one, refuses what the operator does not permit as soon as a target is applied.
    """

    name: str
    settings: type[Any]
    open: Callable[[TargetParts], DeployTarget]
    check: Callable[[Any, TargetRules], None] | None = None
