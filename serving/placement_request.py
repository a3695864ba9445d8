"""What a placement is asked for: who calls from where, what a replica needs, where it may run, what matters.

Field names carry their units and are the same in Python and in JSON, so the pointer in an error names both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fairlead.catalog import UNRESTRICTED, Residency
from fairlead.core.ids import RegionId

ARCHITECTURES = ("x86_64", "arm64")
AIMS = ("compliance", "latency", "cost", "carbon")
SURVIVABLE = ("region", "cloud")

Aim = Literal["compliance", "latency", "cost", "carbon"]
Survivable = Literal["region", "cloud"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Requests from the users of one area.

    At least `share_within_limit` of them are answered within `latency_limit_ms`: network round trip plus the model's
    own `processing_ms`. 1 holds every request to it, 0.95 makes it a limit of the 95th percentile.
    """

    area: str
    requests_per_second: float
    latency_limit_ms: float | None = None
    share_within_limit: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one replica of the model needs, and what it then answers.

    `accelerator` names a board (`T4`, `L4`, `A100-80` ...) and `accelerator_share` how many of them one replica has:
    1, a whole number more, or less than 1 where replicas share a board. `bytes_per_request` is the size of an answer:
    what leaves the region. `processing_ms` is the 95th percentile of the model's own time, without the network. One
    bundle is deployed everywhere, so all instances have one `architecture`: `x86_64` or `arm64`. `instance_types`
    narrows the types that may be rented.
    """

    vcpus: float
    memory_gib: float
    requests_per_second_per_replica: float
    bytes_per_request: int = 0
    accelerator: str | None = None
    accelerator_share: float = 1.0
    architecture: str = "x86_64"
    instance_types: tuple[str, ...] | None = None
    processing_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The features that the model reads in its region: a first copy of `bytes`, and what changes in an hour.

    A region among `existing_replicas` has them and is fed already.
    """

    bytes: int
    bytes_per_hour: float = 0.0
    existing_replicas: tuple[RegionId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """How much of the replicas' room may and must be on spot instances, and what interruptions are taken to cost.

    No cloud promises a rate of interruptions, so it is an assumption: a spot instance is taken away
    `interruptions_per_hour` times an hour and missing for `recovery_minutes` each time; so much
    less of its room counts.
    """

    max_share: float
    min_share: float = 0.0
    interruptions_per_hour: float = 0.05
    recovery_minutes: float = 10.0

    @property
    def present(self) -> float:
        """The share of the time that a spot instance is there."""
        return 1.0 / (1.0 + self.interruptions_per_hour * self.recovery_minutes / 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """At most `limit` of something in a scope: a region, a cloud, or everywhere (`*`).

    `of` is `vcpus`, an accelerator board (counted in boards) or an instance type (counted in instances).
    """

    scope: str
    of: str
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningInstances:
    """So many instances of one type that run in a region now."""

    region: RegionId
    sku: str
    count: int
    is_spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Switching:
    """What it costs to leave the placement that runs now, all of it once, and over how long that has to pay off.

    A new instance runs beside what it replaces for `overlap_hours`. The set of regions changes only where that gains
    at least `least_gain_usd_per_hour` after the cost of moving, spread over `horizon_hours`.
    """

    current: tuple[RunningInstances, ...]
    horizon_hours: float = 168.0
    start_region_usd: float = 0.0
    stop_region_usd: float = 0.0
    overlap_hours: float = 1.0
    least_gain_usd_per_hour: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRequest:
    """One placement problem; all that is not stated is free.

    `candidate_regions` are those with a location, or None for the whole catalog; `allowed_...` and `denied_...` narrow
    them further. `survive` asks that after the loss of any one region, or of any one cloud, the rest has the room for
    all demand within its limits. A chosen region that is not among `existing_replicas` pays for its copy of
    `artifact_bytes`, from the cheapest region that has or gets one, spread over `amortization_hours`; with
    `deadline_hours` the copy must be there by then.

    `carbon_price_usd_per_tonne` and `latency_price_usd_per_request_second` (the worth of one request waiting one second
    less) put carbon and waiting beside dollars in the one objective. Or `order` ranks the aims, and each is made as
    small as it can be while those before it stay within `order_slack` of their least. Budgets bound dollars and grams
    alone.
    """

    demand: tuple[Demand, ...]
    resources: Resources
    residency: Residency = UNRESTRICTED
    candidate_regions: tuple[RegionId, ...] | None = None
    allowed_regions: tuple[RegionId, ...] | None = None
    denied_regions: tuple[RegionId, ...] = ()
    allowed_clouds: tuple[str, ...] | None = None
    denied_clouds: tuple[str, ...] = ()
    min_replicas: int = 1
    min_regions: int = 1
    min_clouds: int = 1
    survive: Survivable | None = None
    existing_replicas: tuple[RegionId, ...] = ()
    artifact_bytes: int = 0
    features: Features | None = None
    amortization_hours: float = 720.0
    deadline_hours: float | None = None
    spot: Spot | None = None
    quotas: tuple[Quota, ...] = ()
    carbon_price_usd_per_tonne: float = 0.0
    latency_price_usd_per_request_second: float = 0.0
    order: tuple[Aim, ...] = ()
    order_slack: float = 0.01
    budget_usd_per_hour: float | None = None
    carbon_budget_g_per_hour: float | None = None
    switching: Switching | None = None
