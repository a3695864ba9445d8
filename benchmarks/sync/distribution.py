"""What distribution trees save against direct copies on the real tariff grid, and how long the exact planner takes.

    .venv/bin/python benchmarks/sync/distribution.py [--sets 40] [--gigabytes 14] [--seed 1]

One region of the catalog holds an artifact and some others want it, all drawn at random from a fixed seed; every
region of the catalog may be a relay. Costs are list prices: egress by pair at the first tier, and requests. A second
table asks for the same with a deadline, in multiples of what the quickest way to the farthest destination takes.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fairlead.catalog import UNRESTRICTED, load_catalog
from fairlead.core.errors import DistributionInfeasible
from fairlead.sync.distribution import Distribution, DistributionRequest, plan_distribution
from fairlead.sync.hops import HopPrices, Missing, Stop

GB = 10**9
PACK_BYTES = 32 * 2**20
DESTINATIONS = (3, 5, 8, 20, 60)
SLACK = (1.0, 1.5, 3.0)


@dataclass(frozen=True)
class Measured:
    """One plan, and how long it took to make, in seconds."""

    plan: Distribution
    seconds: float

    @property
    def saving(self) -> float:
        """The share of the direct copies' dollars that the tree saves."""
        return float(self.plan.saved_usd / self.plan.direct.usd)

    @property
    def gap(self) -> float:
        """How far the plan is from what is proved, as a share of its dollars."""
        return float((self.plan.tree.usd - self.plan.bound_usd) / self.plan.tree.usd)


def measure(request: DistributionRequest, prices: HopPrices) -> Measured:
    """Make one plan."""
    began = time.perf_counter()
    plan = plan_distribution(request, prices)
    return Measured(plan, time.perf_counter() - began)


def quickest(request: DistributionRequest, prices: HopPrices) -> float:
    """How long the quickest way to the farthest destination takes, as the refusal of a microsecond says."""
    try:
        plan_distribution(replace(request, deadline_seconds=1e-6), prices)
    except DistributionInfeasible as refusal:
        # Rounded to a millisecond on its way.
        return float(str(refusal.attributes["seconds"])) + 0.001
    raise AssertionError("a microsecond was enough")


def draw(stops: Sequence[Stop], destinations: int, missing: Missing, rng: random.Random) -> DistributionRequest:
    """A request with one source."""
    source, *others = rng.sample(stops, destinations + 1)
    return DistributionRequest(
        residency=UNRESTRICTED, sources=[source], destinations=others, relays=stops, missing=lambda _stop: missing
    )


def percent(values: Sequence[float]) -> str:
    """Mean, and from least to most."""
    return f"{100 * statistics.mean(values):.1f} % ({100 * min(values):.0f} to {100 * max(values):.0f})"


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--gigabytes", type=int, default=14)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    catalog = load_catalog()
    prices = HopPrices(catalog)
    stops = [
        Stop(id=region.id, name=region.id, region=region.id, jurisdiction=region.jurisdiction)
        for region in catalog.regions()
    ]
    size = options.gigabytes * GB
    missing = Missing(bytes=size, packs=-(-size // PACK_BYTES))
    rng = random.Random(options.seed)
    print(
        f"{platform.python_version()}, {platform.machine()}, seed {options.seed}, {options.sets} sets a row, "
        f"{options.gigabytes} GB, {len(stops)} regions\n"
    )
    print("| destinations | saved: mean (least to most) | relays used | proved | s: median | s: max |")
    print("|---|---|---|---|---|---|")
    plan_distribution(draw(stops, 60, missing, random.Random(0)), prices)  # looks all prices up
    drawn = {count: [draw(stops, count, missing, rng) for _ in range(options.sets)] for count in DESTINATIONS}
    for count, requests in drawn.items():
        rows = [measure(request, prices) for request in requests]
        assert all(row.plan.saved_usd >= 0 for row in rows)
        relays = sum(any(hop.is_relay for hop in row.plan.tree.hops) for row in rows)
        seconds = [row.seconds for row in rows]
        print(
            f"| {count} | {percent([row.saving for row in rows])} | in {relays} of {len(rows)} "
            f"| {sum(row.plan.is_optimal for row in rows)} of {len(rows)} "
            f"| {statistics.median(seconds):.3f} | {max(seconds):.3f} |"
        )
    print(
        "\n| destinations | deadline / quickest | saved: mean (least, most) | proved | largest gap | s: median | max |"
    )
    print("|---|---|---|---|---|---|---|")
    for count, requests in drawn.items():
        for slack in SLACK:
            some = requests[: max(1, options.sets // 8)]
            rows = [
                measure(replace(request, deadline_seconds=slack * quickest(request, prices)), prices)
                for request in some
            ]
            seconds = [row.seconds for row in rows]
            gap = max(row.gap for row in rows)
            print(
                f"| {count} | {slack:g} | {percent([row.saving for row in rows])} "
                f"| {sum(row.plan.is_optimal for row in rows)} of {len(rows)} | {100 * gap:.1f} % "
                f"| {statistics.median(seconds):.2f} | {max(seconds):.2f} |"
            )


if __name__ == "__main__":
    main()
