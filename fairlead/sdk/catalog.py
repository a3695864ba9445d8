"""The catalog: what is known of regions, private regions, and the feeds that bring newer figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport

_PATH = "/api/v1/catalog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure(Record):
    """A number with its unit and source; `date` is ISO 8601, as exact as the source gives it."""

    value: float
    unit: str
    source: str
    is_estimate: bool
    error: float | None = None
    date: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogRegion(Record):
    """A region: where it is, under which jurisdiction, how its power is made and what leaving it costs."""

    region: str
    cloud: str
    place: JsonObject
    jurisdiction: str
    coordinate_source: str
    is_private: bool
    carbon: Figure
    carbon_free_share: Figure | None = None
    pue: Figure
    internet_egress: Figure
    instance_types: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogPrice(Record):
    """An instance type in a region; `spot` is None where no source gives it."""

    region: str
    sku: str
    architecture: str
    vcpus: int
    memory_gib: float
    accelerator: str | None = None
    accelerator_count: int
    on_demand: Figure
    spot: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogGap(Record):
    """What no source says of a region, and what is answered instead."""

    region: str
    kind: str
    items: tuple[str, ...]
    stand_in: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRegion(Record):
    """A private region as it was applied."""

    region: str
    jurisdiction: str
    spec: JsonObject
    revision: int
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogRegionDetail(CatalogRegion):
    """A region with all that the catalog says of it alone; `applied` is the document of a private one."""

    internet_egress_tiers: tuple[JsonObject, ...]
    prices: tuple[CatalogPrice, ...]
    gaps: tuple[CatalogGap, ...]
    applied: AppliedRegion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogPath(Record):
    """What it takes to send bytes from one region to another; `cost` and `carbon` where a size was given."""

    source: str
    destination: str
    egress: Figure
    internet_egress: Figure
    round_trip: Figure
    throughput: Figure
    cost: Figure | None = None
    carbon: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogAge(Record):
    """How old the figures of one kind from one source are."""

    kind: str
    source: str
    licence: str
    figures: int
    oldest: str | None = None
    newest: str | None = None
    age_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogChange(Record):
    """A figure that differs between two states of the catalog; None where one of them has none."""

    kind: str
    region: str
    item: str
    before: Figure | None = None
    after: Figure | None = None
    percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFeed(Record):
    """How a feed is: whether the server can read it, and how its last refresh went."""

    feed: str
    is_configured: bool
    is_regular: bool
    figures: int
    missing: int
    attempted_at: datetime | None = None
    succeeded_at: datetime | None = None
    age_days: int | None = None
    error_code: str | None = None
    error_detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogRefresh(Record):
    """What a refresh brought: the figures that are other ones now, and what was missing."""

    feed: str
    figures: int
    changes: tuple[CatalogChange, ...]
    missing: tuple[JsonObject, ...]
    refreshed_at: datetime


class CatalogClient:
    """What the server knows of regions, and what keeps it current."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def regions(
        self,
        *,
        search: str | None = None,
        cloud: str | None = None,
        jurisdiction: str | None = None,
        private: bool | None = None,
    ) -> Iterator[CatalogRegion]:
        """The regions by id: the clouds', and the workspace's own."""
        query = {"search": search, "cloud": cloud, "jurisdiction": jurisdiction, "private": _flag(private)}
        return map(CatalogRegion.from_json, self._transport.items(f"{_PATH}/regions", **query))

    def region(self, region: str) -> CatalogRegionDetail:
        """All that the catalog says of a region alone.

        Raises:
            RegionNotFound: with the nearest spellings.
        """
        return CatalogRegionDetail.from_json(self._transport.get(_region_path(region)))

    def prices(
        self,
        *,
        region: str | None = None,
        sku: str | None = None,
        accelerator: str | None = None,
        cloud: str | None = None,
    ) -> Iterator[CatalogPrice]:
        """Prices of instance types, by region and type; `accelerator` is `any` or how a board's name begins."""
        query = {"region": region, "sku": sku, "accelerator": accelerator, "cloud": cloud}
        return map(CatalogPrice.from_json, self._transport.items(f"{_PATH}/prices", **query))

    def path(self, source: str, destination: str, *, size_bytes: int | None = None) -> CatalogPath:
        """What it takes to send bytes from one region to another.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        answer = self._transport.get(f"{_PATH}/path", source=source, destination=destination, size_bytes=size_bytes)
        return CatalogPath.from_json(answer)

    def gaps(self, *, region: str | None = None, kind: str | None = None) -> Iterator[CatalogGap]:
        """What no source says, by region and kind."""
        return map(CatalogGap.from_json, self._transport.items(f"{_PATH}/gaps", region=region, kind=kind))

    def ages(self) -> Iterator[CatalogAge]:
        """How old what the catalog says is, by kind of figure and source."""
        return map(CatalogAge.from_json, self._transport.items(f"{_PATH}/ages"))

    def changes(
        self, *, before: str = "bundled", after: str = "now", region: str | None = None, kind: str | None = None
    ) -> Iterator[CatalogChange]:
        """The figures that differ between two states: `bundled`, `now`, or a day like `2026-07-01`."""
        query = {"before": before, "after": after, "region": region, "kind": kind}
        return map(CatalogChange.from_json, self._transport.items(f"{_PATH}/changes", **query))

    def apply_region(self, region: str, spec: Mapping[str, JsonValue], *, revision: int | None = None) -> AppliedRegion:
        """Add or replace a private region.

        Raises:
            InvalidInput: naming the member that is wrong.
            StaleRevision: if a revision is given and the region is not at it (0: not there yet).
        """
        answer = self._transport.request("PUT", _region_path(region), body=dict(spec), if_match=revision)
        return AppliedRegion.from_json(answer)

    def delete_region(self, region: str, *, revision: int | None = None) -> None:
        """Forget a private region that has neither a location nor a deployment."""
        self._transport.request("DELETE", _region_path(region), if_match=revision)

    def feeds(self) -> Iterator[CatalogFeed]:
        """The feeds, and how their last refreshes went."""
        return map(CatalogFeed.from_json, self._transport.items(f"{_PATH}/feeds"))

    def refresh(self, feed: str, *, regions: Sequence[str] | None = None) -> CatalogRefresh:
        """Have the server read a feed now, and keep what it brings.

        Raises:
            FeedNotFound: if there is no such feed.
            InvalidInput: if the server has not what it needs to read it.
            FeedUnavailable: if the source does not answer as it should; the figures of the last time hold.
        """
        body: dict[str, JsonValue] = {"regions": None if regions is None else list(regions)}
        answer = self._transport.post(f"{_PATH}/feeds/{quote(feed, safe='')}/refresh", body, is_repeatable=False)
        return CatalogRefresh.from_json(answer)


def _region_path(region: str) -> str:
    return f"{_PATH}/regions/{quote(region, safe='')}"


def _flag(value: bool | None) -> str | None:  # noqa: FBT001  (a member of a query)
    return None if value is None else str(value).lower()
