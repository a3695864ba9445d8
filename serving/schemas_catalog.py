"""The wire models of the catalog."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from fairlead.catalog.observations import FigureKind
from fairlead.registry.wire import AnswerModel, RequestModel, Time

Short = Annotated[str, StringConstraints(min_length=1, max_length=63)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Day = Annotated[
    str,
    # YAML reads a year alone as a number.
    BeforeValidator(lambda value: str(value) if type(value) is int else value, json_schema_input_type=str | int),
    StringConstraints(pattern=r"^20\d\d(-[01]\d(-[0-3]\d)?)?$"),
    Field(examples=["2026-10-01"]),
]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(examples=["NLD"])]
RegionId = Annotated[str, StringConstraints(min_length=3, max_length=63), Field(examples=["aws:eu-central-1"])]


class StatedIn(RequestModel):
    """A figure with a source of its own."""

    value: float
    source: Line | None = None
    date: Day | None = None
    licence: Line | None = None
    is_estimate: bool = False


Stated = float | StatedIn
"""A number, or one with a source of its own."""


class PlaceIn(RequestModel):
    """Where a region is; degrees north and east."""

    name: Line
    country: Country
    latitude: Annotated[float, Field(ge=-90, le=90)]
    longitude: Annotated[float, Field(ge=-180, le=180)]


class InstanceIn(RequestModel):
    """An instance type that a region offers; prices are US dollars an hour."""

    sku: Short
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    vcpus: Annotated[int, Field(ge=1, le=100_000)]
    memory_gib: Annotated[float, Field(gt=0, le=1e6)]
    accelerator: Short | None = None
    accelerator_count: Annotated[int, Field(ge=0, le=1000)] = 0
    on_demand: Stated
    spot: Stated | None = None
    idle_watts: Annotated[float | None, Field(ge=0, le=1e6)] = None
    full_watts: Annotated[float | None, Field(ge=0, le=1e6)] = None


class TierIn(RequestModel):
    """A step of the internet tariff."""

    from_gb: Annotated[float, Field(gt=0, le=1e12)]
    usd_per_gb: Stated


class EgressIn(RequestModel):
    """What leaving bytes cost, in US dollars a gigabyte; `regions` for destinations with a tariff of their own."""

    internet: Stated
    tiers: Annotated[list[TierIn], Field(max_length=20)] = Field(default_factory=list[TierIn])
    regions: Annotated[dict[RegionId, Stated], Field(max_length=500)] = Field(default_factory=dict[RegionId, Stated])


class RequestPricesIn(RequestModel):
    """What 1000 requests to the region's object stores cost, in US dollars."""

    write: Stated | None = None
    read: Stated | None = None


class PrivateRegionIn(RequestModel):
    """A private cloud or an edge site: the `spec` of a resource of kind `Region`."""

    place: PlaceIn
    jurisdiction: Annotated[str | None, Field(max_length=16, description="Checked against the country's.")] = None
    source: Annotated[Line, Field(description="Who says what follows.")]
    date: Day
    licence: Line | None = None
    carbon: Annotated[Stated | None, Field(description="gCO2e/kWh; left out: of the nearest known in the country.")] = (
        None
    )
    carbon_free_share: Stated | None = None
    pue: Stated
    instances: Annotated[list[InstanceIn], Field(max_length=200)] = Field(default_factory=list[InstanceIn])
    egress: EgressIn
    round_trips: Annotated[dict[RegionId, Stated], Field(max_length=500, description="ms, measured.")] = Field(
        default_factory=dict[RegionId, Stated]
    )
    line_gbit_per_second: Stated | None = None
    request_prices: RequestPricesIn | None = None


class FigureOut(AnswerModel):
    """A figure with its unit and source; `date` is ISO 8601, as exact as the source gives it."""

    value: float
    unit: str
    source: str
    is_estimate: bool
    error: float | None = None
    date: str | None = None
    licence: str | None = None


class PlaceOut(AnswerModel):
    """A point on the map."""

    name: str
    country: str
    continent: str
    latitude: float
    longitude: float


class TierOut(AnswerModel):
    """A step of the internet tariff, for what is sent beyond so many gigabytes in a month."""

    from_gb: float
    tariff: FigureOut


class PriceOut(AnswerModel):
    """An instance type in a region; `spot` is null where no source gives it."""

    region: str
    sku: str
    architecture: str
    vcpus: int
    memory_gib: float
    accelerator: str | None
    accelerator_count: int
    on_demand: FigureOut
    spot: FigureOut | None


class GapOut(AnswerModel):
    """What no source says of a region, and what is answered instead."""

    region: str
    kind: str
    items: list[str]
    stand_in: str


class RegionOut(AnswerModel):
    """A region of the catalog."""

    region: str
    cloud: str
    place: PlaceOut
    jurisdiction: str
    coordinate_source: str
    is_private: bool
    carbon: FigureOut
    carbon_free_share: FigureOut | None
    pue: FigureOut
    internet_egress: FigureOut
    instance_types: int


class AppliedRegionOut(AnswerModel):
    """A private region as it was applied."""

    region: str
    jurisdiction: str
    spec: dict[str, Any]
    revision: int
    updated_by: str
    updated_at: Time


class RegionDetailOut(RegionOut):
    """A region with all that the catalog says of it alone; `applied` is the document of a private one."""

    internet_egress_tiers: list[TierOut]
    prices: list[PriceOut]
    gaps: list[GapOut]
    applied: AppliedRegionOut | None


class PathOut(AnswerModel):
    """What it takes to send bytes from one region to another."""

    source: str
    destination: str
    egress: FigureOut
    internet_egress: FigureOut
    round_trip: FigureOut
    throughput: FigureOut
    cost: FigureOut | None
    carbon: FigureOut | None


class AgeOut(AnswerModel):
    """How old the figures of one kind from one source are."""

    kind: FigureKind
    source: str
    licence: str
    figures: int
    oldest: str | None
    newest: str | None
    age_days: int | None


class ChangeOut(AnswerModel):
    """A figure that differs between two states of the catalog; null where one of them has none."""

    kind: FigureKind
    region: str
    item: str
    before: FigureOut | None
    after: FigureOut | None
    percent: float | None


class FeedOut(AnswerModel):
    """How a feed is; `is_configured`: this server has what it needs to read it, `is_regular`: it does so by and by."""

    feed: str
    is_configured: bool
    is_regular: bool
    figures: int
    missing: int
    attempted_at: Time | None
    succeeded_at: Time | None
    age_days: int | None
    error_code: str | None
    error_detail: str | None


class MissingOut(AnswerModel):
    """What a feed had nothing to say of."""

    region: str
    item: str
    reason: str


class RefreshIn(RequestModel):
    """Which regions to refresh; none given: all."""

    regions: Annotated[list[RegionId] | None, Field(min_length=1, max_length=500)] = None


class RefreshOut(AnswerModel):
    """What a refresh brought: the catalog's figures that are other ones now, and what was missing."""

    feed: str
    figures: int
    changes: list[ChangeOut]
    missing: list[MissingOut]
    refreshed_at: Time
