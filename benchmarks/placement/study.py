"""Fairlead's placement against the nearest region, the cheapest region and SkyPilot's optimizer, on the bundled tables.

.venv/bin/python benchmarks/placement/study.py [--skypilot .tools/skypilot/bin/python] [--plot FILE.svg]

All choices are priced by the same model, without their limits where they break them; SkyPilot runs in an environment of
its own, which is no part of the project:

    .tools/uv/bin/uv venv .tools/skypilot
    .tools/uv/bin/uv pip install --python .tools/skypilot/bin/python skypilot==0.14.1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from fairlead.catalog import Residency, load_catalog
from fairlead.core.errors import PlacementInfeasible
from fairlead.core.ids import RegionId
from fairlead.serving.placement import Demand, Placement, PlacementRequest, Resources, place
from fairlead.serving.placement_options import build_problem
from fairlead.serving.placement_pareto import mean_ms

CATALOG = load_catalog()
CPU = Resources(vcpus=2, memory_gib=4, requests_per_second_per_replica=40, bytes_per_request=20_000)
GPU = replace(CPU, vcpus=4, memory_gib=16, accelerator="T4", requests_per_second_per_replica=100)
WORLD = ("new-york", "london", "frankfurt", "tokyo", "singapore", "sao-paulo", "sydney", "mumbai")
EUROPE = ("london", "paris", "frankfurt", "madrid", "stockholm", "warsaw")
HERE = Path(__file__).parent


def demand(areas: tuple[str, ...], limit: float | None) -> tuple[Demand, ...]:
    """A hundred requests a second from each area that the catalog has."""
    known = {area.id for area in CATALOG.areas()}
    return tuple(Demand(area=area, requests_per_second=100, latency_limit_ms=limit) for area in areas if area in known)


SCENARIOS = {
    "world, CPU, no limit": PlacementRequest(demand=demand(WORLD, None), resources=CPU),
    "world, CPU, 100 ms": PlacementRequest(demand=demand(WORLD, 100), resources=CPU),
    "world, T4, 150 ms": PlacementRequest(demand=demand(WORLD, 150), resources=GPU),
    "Europe, CPU, in the EU, 50 ms, 100 USD/t": PlacementRequest(
        demand=demand(EUROPE, 50), resources=CPU, residency=Residency("eu"), carbon_price_usd_per_tonne=100
    ),
}


def free_of_limits(request: PlacementRequest) -> PlacementRequest:
    """The request as those see it who know neither limits nor residency nor carbon."""
    groups = tuple(replace(group, latency_limit_ms=None) for group in request.demand)
    return replace(request, demand=groups, residency=Residency("unrestricted"), carbon_price_usd_per_tonne=0.0)


def nearest(request: PlacementRequest) -> Placement:
    """Every area is answered by its nearest region, at the least cost there."""
    return place(replace(free_of_limits(request), order=("latency", "cost"), order_slack=0.0), explain=False).placement


def cheapest(request: PlacementRequest) -> Placement:
    """Everything in the region with the least rent for a replica."""
    problem = build_problem(free_of_limits(request), CATALOG)
    rents = [
        (min(each.usd_per_hour / each.replicas for each in option.instances), option.region.id)
        for option in problem.regions
    ]
    return place(replace(free_of_limits(request), candidate_regions=(min(rents)[1],)), explain=False).placement


def skypilot(request: PlacementRequest, python: Path) -> Placement | None:
    """Everything where SkyPilot's optimizer would put one task of this size, or None where it gives no answer."""
    needs = request.resources
    offers = [
        {
            "cloud": region.cloud,
            "region": region.id.partition(":")[2],
            "sku": price.sku,
            "vcpus": price.vcpus,
            "memory_gib": price.memory_gib,
            "accelerator": price.accelerator,
            "accelerator_count": price.accelerator_count,
            "usd": price.on_demand.value,
            "spot_usd": None if price.spot is None else price.spot.value,
        }
        for region in CATALOG.regions()
        for price in CATALOG.prices(region.id)
        if price.architecture == "x86_64" and price.accelerator == needs.accelerator
    ]
    question = {
        "offers": offers,
        "vcpus": needs.vcpus,
        "memory_gib": needs.memory_gib,
        "accelerator": needs.accelerator,
    }
    ran = subprocess.run(
        [str(python), str(HERE / "skypilot_choice.py")],
        input=json.dumps(question), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    answers = [line for line in ran.stdout.splitlines() if line.startswith("ANSWER ")]
    if not answers:
        print(ran.stderr.strip().splitlines()[-1:], file=sys.stderr)
        return None
    choice = json.loads(answers[-1].removeprefix("ANSWER "))
    request = free_of_limits(request)
    request = replace(
        request,
        candidate_regions=(RegionId(f"{choice['cloud']}:{choice['region']}"),),
        resources=replace(needs, instance_types=(choice["sku"],)),
    )
    return place(request, explain=False).placement


def row(scenario: str, name: str, request: PlacementRequest, found: Placement) -> str:
    """One line of the table; a violation is a request answered over its limit or outside the residency class."""
    limits = {group.area: group.latency_limit_ms for group in request.demand}
    total = late = 0.0
    for group in found.groups:
        total += group.requests_per_second
        limit = limits[group.area]
        late += sum(
            share * group.requests_per_second
            for region, share in group.shares.items()
            if limit is not None and group.round_trips[region].value > limit
        )
    regions = ", ".join(found.regions) if len(found.regions) <= 3 else f"{len(found.regions)} regions"
    terms = found.terms
    return (
        f"| {scenario} | {name} | {regions} | {terms.cost_usd:.3f} | {terms.serving_egress_usd:.3f} "
        f"| {terms.carbon_g:.0f} | {mean_ms(found):.0f} | {100 * late / total:.0f} % |"
    )


def carbon_against_latency() -> list[tuple[float, float, float]]:
    """(limit in ms, mean latency in ms, gCO2e/h): the cleanest placement under ever looser latency limits."""
    points: list[tuple[float, float, float]] = []
    for limit in (20, 30, 40, 60, 80, 100, 150, 200, 300):
        request = PlacementRequest(
            demand=demand(WORLD, float(limit)), resources=CPU, order=("carbon", "cost"), order_slack=0.0
        )
        try:
            found = place(request, explain=False).placement
        except PlacementInfeasible:
            continue
        points.append((float(limit), mean_ms(found), found.terms.carbon_g))
    return points


def draw(points: list[tuple[float, float, float]]) -> str:
    """Carbon against the latency limit as SVG."""
    width, height, margin = 520, 320, 60
    most_x, most_y = max(each[0] for each in points), max(each[2] for each in points) * 1.05

    def at(point: tuple[float, float, float]) -> tuple[float, float]:
        across = margin + point[0] / most_x * (width - margin - 20)
        return across, height - margin - point[2] / most_y * (height - margin - 20)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, points))
    font = 'font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {font}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M {margin} 20 V {height - margin} H {width - 20}" fill="none" stroke="#999999"/>',
        f'<polyline points="{line}" fill="none" stroke="#1f6fb2" stroke-width="2"/>',
        f'<text x="{width / 2:g}" y="{height - 16}" text-anchor="middle">latency limit, ms</text>',
        f'<text transform="translate(16 {height / 2:g}) rotate(-90)" text-anchor="middle">gCO2e/h</text>',
    ]
    for point in points:
        x, y = at(point)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f6fb2"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - margin + 14}" text-anchor="middle">{point[0]:g}</text>')
        parts.append(f'<text x="{x + 4:.1f}" y="{y - 6:.1f}">{point[2]:.0f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Print the tables, and draw the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skypilot", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    print("| request | choice by | regions | USD/h | of it egress | gCO2e/h | mean ms | over the limit |")
    print("|---|---|---|---|---|---|---|---|")
    for scenario, request in SCENARIOS.items():
        print(row(scenario, "Fairlead", request, place(request, explain=False).placement))
        print(row(scenario, "nearest region", request, nearest(request)))
        print(row(scenario, "cheapest region", request, cheapest(request)))
        if options.skypilot is not None:
            found = skypilot(request, options.skypilot)
            print(
                f"| {scenario} | SkyPilot | no answer |" if found is None else row(scenario, "SkyPilot", request, found)
            )
    points = carbon_against_latency()
    print("\n| latency limit, ms | mean latency, ms | gCO2e/h |\n|---|---|---|")
    for limit, mean, grams in points:
        print(f"| {limit:g} | {mean:.0f} | {grams:.0f} |")
    if options.plot is not None:
        options.plot.write_text(draw(points), encoding="utf-8")


if __name__ == "__main__":
    main()
