"""What one hop of a distribution moves, costs and takes: the price list that plans are made from.

A hop copies an artifact from one location to another, block by block, and reads it back there; only then may the next
hop leave from there. So, for a destination that lacks some bytes in some packs:

    dollars = bytes x egress tariff of the pair
            + (packs + 2) x price of a write at the destination     packs, layout and manifest are put
            + (packs + 2) x price of a read at the source           and were got there
            + (packs + 2) x price of a read at the destination      and are read back
    seconds = bytes / throughput of the pair + bytes / 600 MB/s     the copy, and the reading back

Throughput is the catalog's, or what either location is limited to where that is less. Money is whole picodollars
(10^-12 USD), so that every sum is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairlead.catalog import Catalog

PICO = 10**12
READ_BACK_BYTES_PER_SECOND = 600_000_000
"""What one core reads back, hashes included: a round figure of what was measured, and an estimate elsewhere."""

EXTRA_OBJECTS = 2
"""Layout and manifest, which are sent beside packs."""

_MICRO = 10**6
_BITS_PER_GBIT = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A location that a distribution may touch. `bytes_per_second` is what it is limited to; None: no limit is set."""

    id: str
    name: str
    region: str
    jurisdiction: str
    bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What a location lacks of an artifact: bytes to send it, and how many packs they make there."""

    bytes: int
    packs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HopPrice:
    """What a hop costs and how long it takes. An estimate where tariff or throughput of the pair is one."""

    egress_picodollars: int
    request_picodollars: int
    seconds: float
    is_estimate: bool

    @property
    def picodollars(self) -> int:
        """Egress and requests together."""
        return self.egress_picodollars + self.request_picodollars


@dataclass(frozen=True, slots=True)
class _Line:
    microdollars_per_gb: int
    bytes_per_second: float
    is_estimate: bool


class HopPrices:
    """Prices hops from a catalog; what it looked up it keeps until the catalog knows something else."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._tables = catalog.tables
        self._lines: dict[tuple[str, str], _Line] = {}
        self._requests: dict[str, Mapping[str, int]] = {}

    def price(self, source: Stop, destination: Stop, missing: Missing) -> HopPrice:
        """What bringing the missing bytes from one stop to another costs and takes.

        Raises:
            UnknownRegion: if the catalog has not one of the regions.
        """
        self._follow()
        line = self._line(source.region, destination.region)
        limits = (line.bytes_per_second, source.bytes_per_second, destination.bytes_per_second)
        speed = min(limit for limit in limits if limit is not None)
        return HopPrice(
            # USD/GB is nanodollars a byte, so microdollars/GB x bytes is thousandths of a picodollar.
            egress_picodollars=(missing.bytes * line.microdollars_per_gb + 500) // 1000,
            request_picodollars=self.requests(source.region, destination.region, missing.packs + EXTRA_OBJECTS),
            seconds=missing.bytes / speed + missing.bytes / READ_BACK_BYTES_PER_SECOND,
            is_estimate=line.is_estimate,
        )

    def requests(self, source: str, destination: str, objects: int) -> int:
        """Picodollars of the requests that so many objects take: each is got, put and read back.

        Raises:
            UnknownRegion: if the catalog has not one of the regions.
        """
        self._follow()
        here, there = self._request_prices(source), self._request_prices(destination)
        return objects * (there["write"] + there["read"] + here["read"])

    def _follow(self) -> None:
        if self._catalog.tables is not self._tables:
            self._tables = self._catalog.tables
            self._lines.clear()
            self._requests.clear()

    def _line(self, source: str, destination: str) -> _Line:
        found = self._lines.get((source, destination))
        if found is None:
            tariff = self._catalog.egress(source, destination)
            throughput = self._catalog.expected_throughput(source, destination)
            found = self._lines[source, destination] = _Line(
                microdollars_per_gb=round(Decimal(str(tariff.value)) * _MICRO),
                bytes_per_second=throughput.value * _BITS_PER_GBIT / 8,
                # Within a region nothing is charged: that is assumed, and no doubt of a plan.
                is_estimate=source != destination and (tariff.is_estimate or throughput.is_estimate),
            )
        return found

    def _request_prices(self, region: str) -> Mapping[str, int]:
        found = self._requests.get(region)
        if found is None:
            found = self._requests[region] = {
                operation: round(Decimal(str(self._catalog.request_price(region, operation).value)) * PICO / 1000)
                for operation in ("write", "read")
            }
        return found


def usd(picodollars: int) -> Decimal:
    """Picodollars as dollars, exactly."""
    return Decimal(picodollars).scaleb(-12)
