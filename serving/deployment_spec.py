"""What a deployment was asked to be, as it is kept with each of its revisions, and the workload of each region.

The specification is resolved where it can be when it is asked for (a placement's regions, instances and shares), and
otherwise when it is rolled out: which version an environment points at, which bundle that is, where features are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, cast

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import Digest, RegionId
from fairlead.registry.ledger import decimal_text
from fairlead.serving.strategy import Strategy, strategy_from_json
from fairlead.serving.targets import LOCAL
from fairlead.serving.workload import ReplicaResources, Scaling, Workload

_RESOURCES = ReplicaResources(vcpus=1.0, memory_gib=2.0)
"""What a replica asks for where no placement says what its model needs."""

_ONE = Scaling(min_replicas=1, max_replicas=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingDraft:
    """How many replicas a region has at least and at most, and how many requests a second one of them answers.

    What is None is taken from the placement: as many replicas as it has room for, and their measured rate.
    """

    min_replicas: int | None = None
    max_replicas: int | None = None
    requests_per_second_per_replica: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSpec:
    """One region of a deployment, in its place in the order.

    `shares` hold, by area, the share of that area's requests which the placement sends here; `instances` what is to be
    rented for it. Dollars and grams are of an hour, as decimal text.
    """

    region: RegionId
    target: str = LOCAL
    shares: Mapping[str, float] | None = None
    instances: tuple[Mapping[str, Any], ...] | None = None
    usd_per_hour: str | None = None
    carbon_g_per_hour: str | None = None
    resources: ReplicaResources = _RESOURCES
    scaling: Scaling = _ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """What was asked for: an environment to follow or one version, the regions, and how traffic moves."""

    environment: str | None
    version: int | None
    placement_id: str | None
    regions: tuple[RegionSpec, ...]
    strategy: Strategy | None = None

    def to_json(self) -> dict[str, Any]:
        """The specification as it is kept."""
        return {
            "environment": self.environment,
            "version": self.version,
            "placement_id": self.placement_id,
            "regions": [asdict(each) for each in self.regions],
            "strategy": None if self.strategy is None else self.strategy.to_json(),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> DeploymentSpec:
        """Read what `to_json` gave."""
        return DeploymentSpec(
            environment=value["environment"],
            version=value["version"],
            placement_id=value["placement_id"],
            regions=tuple(_region_from_json(each) for each in value["regions"]),
            strategy=strategy_from_json(value["strategy"]),
        )


def listed_regions(regions: tuple[str, ...], targets: Mapping[str, str], scaling: ScalingDraft) -> list[RegionSpec]:
    """Regions that somebody listed, in that order. The target `*` is that of regions that `targets` does not name."""
    return [
        RegionSpec(region=RegionId(region), target=_target_of(region, targets), scaling=_scaling(1, None, scaling))
        for region in dict.fromkeys(regions)
    ]


def placed_regions(
    request: Mapping[str, Any], answer: Mapping[str, Any], targets: Mapping[str, str], scaling: ScalingDraft
) -> list[RegionSpec]:
    """The regions of a placement's answer, the busiest first, with what is rented there and whom it serves."""
    needs = cast("Mapping[str, Any]", request.get("resources") or {})
    rate = needs.get("requests_per_second_per_replica")
    choices = cast("list[dict[str, Any]]", answer["placement"]["choices"])
    choices = sorted(choices, key=lambda each: (-each["load_requests_per_second"], each["region"]))
    return [
        RegionSpec(
            region=RegionId(each["region"]),
            target=_target_of(each["region"], targets),
            shares=each["shares"],
            instances=tuple(_instance(one) for one in each["instances"]),
            usd_per_hour=_sum(each, "compute_usd", "serving_egress_usd"),
            carbon_g_per_hour=_sum(each, "compute_g", "serving_egress_g"),
            resources=_resources(needs),
            scaling=_scaling(_replicas(each["instances"]), None if rate is None else float(rate), scaling),
        )
        for each in choices
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a region's workload is of: one version of a deployment's model, as a bundle."""

    workspace: str
    deployment: str
    model: str
    residency: str
    labels: Mapping[str, str]
    environment: str | None
    version: int
    bundle_digest: Digest
    bento: str | None = None


def workload_of(
    subject: Subject,
    spec: RegionSpec,
    *,
    online_store: str | None,
    image: str | None,
    traffic_percent: int = 100,
    former: Workload | None = None,
) -> Workload:
    """What one region should run."""
    main = max(spec.instances or (), key=lambda each: int(each["count"]), default=None)
    return Workload(
        workspace=subject.workspace,
        deployment=subject.deployment,
        model=subject.model,
        version=subject.version,
        environment=subject.environment,
        region=spec.region,
        residency=subject.residency,
        bundle_digest=subject.bundle_digest,
        image=image,
        bento=subject.bento,
        resources=spec.resources,
        scaling=spec.scaling,
        instance_type=None if main is None else str(main["sku"]),
        is_spot=main is not None and bool(main["is_spot"]),
        traffic_percent=traffic_percent,
        online_store=online_store,
        variables={},
        labels=subject.labels,
        former=former,
    )


def _target_of(region: str, targets: Mapping[str, str]) -> str:
    return targets.get(region, targets.get("*", LOCAL))


def _instance(value: Mapping[str, Any]) -> dict[str, Any]:
    names = ("sku", "count", "replicas", "accelerator")
    return {name: value.get(name) for name in names} | {"is_spot": bool(value.get("is_spot", False))}


def _replicas(instances: list[Mapping[str, Any]]) -> int:
    return max(1, sum(int(each["count"]) * int(each["replicas"]) for each in instances))


def _resources(needs: Mapping[str, Any]) -> ReplicaResources:
    accelerator = needs.get("accelerator")
    return ReplicaResources(
        vcpus=float(needs.get("vcpus", _RESOURCES.vcpus)),
        memory_gib=float(needs.get("memory_gib", _RESOURCES.memory_gib)),
        accelerator=accelerator,
        accelerator_share=0.0 if accelerator is None else float(needs.get("accelerator_share", 1.0)),
        architecture=str(needs.get("architecture", "x86_64")),
    )


def _scaling(replicas: int, rate: float | None, draft: ScalingDraft) -> Scaling:
    least = replicas if draft.min_replicas is None else draft.min_replicas
    most = max(least, replicas) if draft.max_replicas is None else draft.max_replicas
    if not 0 <= least <= most or most < 1:
        raise InvalidInput(
            f"From {least} to {most} replicas is no range.", hint="At least 0, at most 1 or more.", pointer="/scaling"
        )
    given = draft.requests_per_second_per_replica
    found = rate if given is None else given
    if least != most and found is None:
        raise InvalidInput(
            "Nobody knows how many requests a second one replica answers, so their number cannot follow them.",
            hint="Say requests_per_second_per_replica, or measure it: fairlead profile take",
            pointer="/scaling/requests_per_second_per_replica",
        )
    return Scaling(
        min_replicas=least, max_replicas=most, requests_per_second_per_replica=None if least == most else found
    )


def _sum(choice: Mapping[str, Any], *names: str) -> str | None:
    return decimal_text(sum((Decimal(str(choice[name])) for name in names), Decimal(0)))


def _region_from_json(value: Mapping[str, Any]) -> RegionSpec:
    members = dict(value)
    members["instances"] = None if value["instances"] is None else tuple(value["instances"])
    members["resources"] = ReplicaResources(**value["resources"])
    members["scaling"] = Scaling(**value["scaling"])
    return RegionSpec(**members)
