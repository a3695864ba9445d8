"""What runs in one region, said without the words of any one platform: what every kind of deploy target renders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from fairlead.core.ids import Digest, RegionId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaResources:
    """What one replica asks for.

    `accelerator` is a board's name in the catalog (`L4`); `accelerator_share` counts boards: below 1 the replica shares
    one with others, 0 without an accelerator.
    """

    vcpus: float
    memory_gib: float
    accelerator: str | None = None
    accelerator_share: float = 0.0
    architecture: str = "x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many replicas run, and when there are more: one for each `requests_per_second_per_replica` that come in.

    `min_replicas` 0 lets a target that can do so end the last one. None for the rate: a fixed number, `min_replicas`.
    """

    min_replicas: int
    max_replicas: int
    requests_per_second_per_replica: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One revision of one deployment in one region.

    `image` names the bundle's OCI image by digest, None where the bundle's own files are run. `traffic_percent` is what
    of the region's requests this revision gets; while traffic moves, `former` is the revision that runs beside it and
    gets the rest, and a kind writes both. `bento` is the bundle's name and version to BentoML. `online_store` is where
    the region's features are read. `variables` reach the process's environment; none of them is a secret. `labels`
    holds owner, team, cost_centre and what else the model's record says.
    """

    workspace: str
    deployment: str
    model: str
    version: int
    environment: str | None
    region: RegionId
    residency: str
    bundle_digest: Digest
    image: str | None
    bento: str | None = None
    resources: ReplicaResources
    scaling: Scaling
    instance_type: str | None = None
    is_spot: bool = False
    traffic_percent: int = 100
    online_store: str | None = None
    variables: Mapping[str, str]
    labels: Mapping[str, str]
    former: Workload | None = None

    def to_json(self) -> dict[str, Any]:
        """The workload as JSON, `former` within it."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Workload:
        """Read what `to_json` gave."""
        members = dict(value)
        former = members.pop("former")
        members["resources"] = ReplicaResources(**members["resources"])
        members["scaling"] = Scaling(**members["scaling"])
        return Workload(**members, former=None if former is None else Workload.from_json(former))


PORT = 3000
"""Where a bundle's image answers: requests, `/livez`, `/readyz` and `/metrics`."""


def environment_of(workload: Workload) -> dict[str, str]:
    """The variables of the process's environment, by name in order; what Fairlead says wins over `variables`."""
    ours = {
        "BENTOML_DO_NOT_TRACK": "true",
        "FAIRLEAD_BUNDLE_DIGEST": workload.bundle_digest,
        "FAIRLEAD_DEPLOYMENT": workload.deployment,
        "FAIRLEAD_REGION": workload.region,
    }
    if workload.online_store is not None:
        ours["FAIRLEAD_ONLINE_STORE"] = workload.online_store
    return dict(sorted({**workload.variables, **ours}.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file of a rendered workload; `path` is relative and the same for equal workloads."""

    path: str
    text: str


class TargetSettings(BaseModel):
    """What a kind of target lets its owner say in the `settings` of a target document; unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


CLUSTER_DELIVERIES = ("cluster", "folder", "git")
"""The ways to a platform whose documents are objects of a Kubernetes API."""

Settings = TypeVar("Settings", bound=TargetSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetKind(Generic[Settings]):
    """A kind of platform: what may be set, and how a workload is written in its words.

    `deliveries` are the ways in which its documents get there: `cluster` (a Kubernetes API), `folder`, `git`.
    """

    name: str
    settings: type[Settings]
    render: Callable[[Workload, Settings], tuple[Document, ...]]
    deliveries: tuple[str, ...] = ("folder", "git")


AnyKind = TargetKind[Any]
