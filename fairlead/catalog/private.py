"""Private regions: clouds and edge sites of one's own, described with the fields that the clouds' regions have.

A document says where the region is, what it costs, how it is powered and how it is connected; what it leaves out is a
gap, answered for by the same stand-ins as anywhere (the distance model, the carbon of the country) and marked as an
estimate. Its id is `CLOUD:NAME` where CLOUD is none of the bundled ones: `onprem:rotterdam-1`, `edge:store-12`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar, cast

from fairlead.catalog.ages import first_day
from fairlead.catalog.catalog import Tables
from fairlead.catalog.countries import CONTINENTS, jurisdiction_of
from fairlead.catalog.egress import Pair, Tier
from fairlead.catalog.figures import Figure
from fairlead.catalog.observations import UNITS, FigureKind
from fairlead.catalog.prices import Price, StoreOperation
from fairlead.catalog.regions import Place, Region, distance_km
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ids import RegionId

_ID = re.compile(r"[a-z][a-z0-9-]{0,20}:[a-z0-9][a-z0-9-]{0,39}")
_LEAST_MS_PER_KM = 0.0067
"""Light in a vacuum, there and back: nothing answers sooner."""
_OPERATIONS: tuple[StoreOperation, ...] = ("write", "read")

Document = Mapping[str, JsonValue]
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRegion:
    """A region of one's own, with what the catalog knows of it, and the document that says so."""

    document: Document
    region: Region
    prices: tuple[Price, ...]
    internet: Figure
    further: tuple[Tier, ...]
    egress: Mapping[Pair, Figure]
    round_trips: Mapping[Pair, Figure]
    line: Figure | None
    requests: Mapping[StoreOperation, Figure]


def read_private_region(region: str, document: Document, *, owner: str, tables: Tables) -> PrivateRegion:
    """Check the `spec` of a `Region` resource, which has the types of its schema, and read it.

    `tables` are those of the clouds: they name what destinations there are, and stand in for what is left out.

    Raises:
        InvalidInput: naming the member in the attribute `pointer`.
    """
    parsed = parse_private_id(region, tables)
    stated = _Stated(document)
    place = _place(document)
    where = jurisdiction_of(place.country)
    said = document.get("jurisdiction")
    if said is not None and said != where:
        raise _wrong("/jurisdiction", f"{place.country} is under the jurisdiction {where}, not {said}.")
    found = Region(
        id=parsed,
        cloud=parsed.partition(":")[0],
        name=parsed.partition(":")[2],
        place=place,
        jurisdiction=where,
        coordinate_source=stated.source,
        carbon=_carbon(stated, place, tables),
        carbon_free_share=stated.optional("carbon_free_share", FigureKind.CARBON_FREE_SHARE, at_most=1.0),
        pue=stated.required("pue", FigureKind.PUE, at_least=1.0, at_most=5.0),
        owner=owner,
    )
    egress = cast("Document", document["egress"])
    return PrivateRegion(
        document=document,
        region=found,
        prices=_prices(document, stated, parsed),
        internet=stated.figure(egress["internet"], "/egress/internet", FigureKind.EGRESS),
        further=_tiers(egress, stated),
        egress=MappingProxyType(
            {
                (parsed, other): stated.figure(value, f"/egress/regions/{other}", FigureKind.EGRESS)
                for other, value in _by_region(egress, "regions", "/egress/regions", tables)
            }
        ),
        round_trips=_round_trips(document, stated, found, tables),
        line=stated.optional("line_gbit_per_second", FigureKind.THROUGHPUT),
        requests=_requests(document, stated),
    )


def parse_private_id(region: str, tables: Tables) -> RegionId:
    """Check the id of a private region.

    Raises:
        InvalidInput: if it is none, or is of a cloud that the catalog has.
    """
    clouds = {each.cloud for each in tables.regions_by_id.values() if each.owner is None}
    if not _ID.fullmatch(region) or region.partition(":")[0] in clouds:
        raise InvalidInput(
            f"{region[:80]!r} is no id of a private region.",
            hint="Write CLOUD:NAME in small letters, digits and dashes, such as onprem:rotterdam-1 or edge:store-12; "
            f"{', '.join(sorted(clouds))} are the clouds' own.",
        )
    return RegionId(region)


def with_private_regions(tables: Tables, regions: Iterable[PrivateRegion]) -> Tables:
    """Tables that know these regions beside the clouds'. Areas keep the nearest region of a cloud."""
    added = sorted(regions, key=lambda each: each.region.id)
    if not added:
        return tables
    tariffs, trips = tables.egress_tariffs, tables.round_trips
    by_id = {**tables.regions_by_id, **{each.region.id: each.region for each in added}}
    return replace(
        tables,
        regions_by_id=MappingProxyType(dict(sorted(by_id.items()))),
        prices_by_region=_joined(tables.prices_by_region, ((each.region.id, each.prices) for each in added)),
        egress_tariffs=replace(
            tariffs,
            pairs=_joined(tariffs.pairs, (pair for each in added for pair in each.egress.items())),
            internet=_joined(tariffs.internet, ((each.region.id, each.internet) for each in added)),
            further=_joined(tariffs.further, ((each.region.id, each.further) for each in added)),
        ),
        round_trips=replace(
            trips, stated=_joined(trips.stated, (pair for each in added for pair in each.round_trips.items()))
        ),
        throughputs=replace(
            tables.throughputs,
            lines=_joined(
                tables.throughputs.lines, ((each.region.id, each.line) for each in added if each.line is not None)
            ),
        ),
        request_prices=_joined(
            tables.request_prices,
            (((str(each.region.id), name), price) for each in added for name, price in each.requests.items()),
        ),
        private_regions=_joined(tables.private_regions, ((each.region.id, each) for each in added)),
    )


class _Stated:
    """Reads figures: a number under the document's own source, date and licence, or an object with its own."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.source = str(document["source"])
        self._date = str(document["date"])
        self._licence = str(document.get("licence") or "not stated")
        _check_date(self._date, "/date")

    def figure(
        self,
        value: JsonValue,
        pointer: str,
        kind: FigureKind,
        *,
        unit: str | None = None,
        at_least: float = 0.0,
        at_most: float = 1e9,
    ) -> Figure:
        own: Document = value if isinstance(value, dict) else {"value": value}
        number = float(cast("float", own["value"]))
        if not at_least <= number <= at_most:
            raise _wrong(pointer, f"{number:g} is not from {at_least:g} to {at_most:g}.")
        said = str(own.get("date") or self._date)
        _check_date(said, f"{pointer}/date")
        return Figure(
            value=number,
            unit=unit or UNITS[kind],
            source=str(own.get("source") or self.source),
            is_estimate=bool(own.get("is_estimate", False)),
            date=said,
            licence=str(own.get("licence") or self._licence),
        )

    def required(self, name: str, kind: FigureKind, *, at_least: float = 0.0, at_most: float = 1e9) -> Figure:
        return self.figure(self._document[name], f"/{name}", kind, at_least=at_least, at_most=at_most)

    def optional(self, name: str, kind: FigureKind, *, at_least: float = 0.0, at_most: float = 1e9) -> Figure | None:
        if self._document.get(name) is None:
            return None
        return self.required(name, kind, at_least=at_least, at_most=at_most)


def _place(document: Document) -> Place:
    place = cast("dict[str, Any]", document["place"])
    country = str(place["country"])
    _at("/place/country", lambda: jurisdiction_of(country))
    for name, most in (("latitude", 90.0), ("longitude", 180.0)):
        if not -most <= float(place[name]) <= most:
            raise _wrong(f"/place/{name}", f"{place[name]:g} is not from {-most:g} to {most:g}.")
    return Place(
        name=str(place["name"]),
        country=country,
        continent=CONTINENTS[country],
        latitude=float(place["latitude"]),
        longitude=float(place["longitude"]),
    )


def _carbon(stated: _Stated, place: Place, tables: Tables) -> Figure:
    own = stated.optional("carbon", FigureKind.CARBON, at_most=3000.0)
    if own is not None:
        return own
    inside = [each for each in tables.regions_by_id.values() if each.place.country == place.country]
    if not inside:
        raise _wrong("/carbon", f"It is left out, and the catalog has no region in {place.country} to stand in for it.")
    nearest = min(inside, key=lambda each: (distance_km(each.place, place), each.id))
    source = nearest.carbon.source.partition(",")[0]
    return replace(nearest.carbon, source=f"{source}, the nearest in the country", is_estimate=True)


def _prices(document: Document, stated: _Stated, region: RegionId) -> tuple[Price, ...]:
    offers: dict[str, Price] = {}
    for index, each in enumerate(cast("Sequence[dict[str, Any]]", document.get("instances") or ())):
        pointer = f"/instances/{index}"
        sku = str(each["sku"])
        if sku in offers:
            raise _wrong(f"{pointer}/sku", f"{sku!r} is there twice.")
        boards = int(each.get("accelerator_count") or 0)
        if (each.get("accelerator") is None) != (boards == 0):
            raise _wrong(f"{pointer}/accelerator", "An accelerator and how many of them are given together.")
        idle, full = each.get("idle_watts"), each.get("full_watts")
        if (idle is None) != (full is None) or (idle is not None and not 0 <= idle <= full):
            raise _wrong(f"{pointer}/idle_watts", "Idle and full watts are given together, the lower one first.")
        spot = each.get("spot")
        offers[sku] = Price(
            region=region,
            sku=sku,
            architecture=str(each["architecture"]),
            vcpus=int(each["vcpus"]),
            memory_gib=float(each["memory_gib"]),
            accelerator=each.get("accelerator"),
            accelerator_count=boards,
            on_demand=stated.figure(each["on_demand"], f"{pointer}/on_demand", FigureKind.ON_DEMAND),
            spot=None if spot is None else stated.figure(spot, f"{pointer}/spot", FigureKind.SPOT),
            idle_watts=idle,
            full_watts=full,
        )
    return tuple(offers[sku] for sku in sorted(offers))


def _tiers(egress: Document, stated: _Stated) -> tuple[Tier, ...]:
    found: list[Tier] = []
    for index, each in enumerate(cast("Sequence[dict[str, Any]]", egress.get("tiers") or ())):
        pointer = f"/egress/tiers/{index}"
        start = float(each["from_gb"])
        if start <= (found[-1].from_gb if found else 0.0):
            raise _wrong(f"{pointer}/from_gb", "Tiers begin above nothing, each above the one before it.")
        tariff = stated.figure(each["usd_per_gb"], f"{pointer}/usd_per_gb", FigureKind.INTERNET_EGRESS)
        found.append(Tier(from_gb=start, tariff=tariff))
    return tuple(found)


def _round_trips(document: Document, stated: _Stated, here: Region, tables: Tables) -> Mapping[Pair, Figure]:
    found: dict[Pair, Figure] = {}
    for other, value in _by_region(document, "round_trips", "/round_trips", tables):
        pointer = f"/round_trips/{other}"
        figure = stated.figure(value, pointer, FigureKind.ROUND_TRIP)
        least = distance_km(here.place, tables.regions_by_id[other].place) * _LEAST_MS_PER_KM
        if figure.value < least:
            raise _wrong(pointer, f"{figure.value:g} ms is faster than light, which needs {least:.1f} ms.")
        found[here.id, other] = figure
    return MappingProxyType(found)


def _requests(document: Document, stated: _Stated) -> Mapping[StoreOperation, Figure]:
    said = cast("Document", document.get("request_prices") or {})
    free = Figure(
        value=0.0, unit="USD/1000", source="a store of one's own charges no requests (assumed)", is_estimate=True
    )
    return MappingProxyType(
        {
            name: free
            if said.get(name) is None
            else stated.figure(said[name], f"/request_prices/{name}", FigureKind.EGRESS, unit="USD/1000")
            for name in _OPERATIONS
        }
    )


def _by_region(document: Document, name: str, pointer: str, tables: Tables) -> list[tuple[RegionId, JsonValue]]:
    found: list[tuple[RegionId, JsonValue]] = []
    for region, value in cast("Document", document.get(name) or {}).items():
        known = tables.regions_by_id.get(RegionId(region))
        if known is None:
            raise _wrong(f"{pointer}/{region[:80]}", "The catalog has no such region of a cloud.")
        found.append((known.id, value))
    return found


def _check_date(text: str, pointer: str) -> None:
    try:
        first_day(text)
    except ValueError:
        raise _wrong(pointer, f"{text[:40]!r} is no date.") from None


def _at(pointer: str, check: Callable[[], object]) -> None:
    try:
        check()
    except InvalidInput as error:
        raise InvalidInput(f"{pointer}: {error.detail}", hint=error.hint, pointer=pointer) from None


def _wrong(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput(f"{pointer}: {detail}", hint="See docs/how-to/add-a-private-region.md.", pointer=pointer)


def _joined(table: Mapping[Key, Value], added: Iterable[tuple[Key, Value]]) -> Mapping[Key, Value]:
    return MappingProxyType({**table, **dict(added)})
