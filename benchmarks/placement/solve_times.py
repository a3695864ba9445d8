"""How long the placement engine takes: small and whole-catalog problems, with and without explanation.

.venv/bin/python benchmarks/placement/solve_times.py [--problems 12] [--seed 1] [--models 200]

Seconds are of the process's own CPU time, which one thread on an idle machine also takes by the clock.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections import Counter
from typing import Any

from fairlead.catalog import load_catalog
from fairlead.core.errors import PlacementInfeasible
from fairlead.serving.placement import place, request_from_json
from fairlead.serving.placement_fleets import FleetModel, FleetRequest, place_fleet
from fairlead.serving.placement_model import solve
from fairlead.serving.placement_options import build_problem
from fairlead.serving.placement_request import Quota

SMALL: dict[str, Any] = {
    "demand": [
        {"area": "new-york", "requests_per_second": 60, "latency_limit_ms": 60},
        {"area": "frankfurt", "requests_per_second": 40, "latency_limit_ms": 60},
    ],
    "resources": {"vcpus": 2, "memory_gib": 4, "requests_per_second_per_replica": 40, "bytes_per_request": 2048},
    "candidate_regions": ["aws:us-east-1", "gcp:europe-west4", "azure:westeurope"],
}


def random_problem(rng: random.Random) -> dict[str, Any]:
    """A request over all regions and 20 areas, with random demand, limits and weights."""
    areas = rng.sample([area.id for area in load_catalog().areas()], 20)
    return {
        "demand": [
            {
                "area": area,
                "requests_per_second": rng.randint(5, 400),
                "latency_limit_ms": rng.choice([80, 120, 200, None]),
            }
            for area in areas
        ],
        "resources": SMALL["resources"],
        "min_regions": rng.choice([1, 2, 3]),
        "carbon_price_usd_per_tonne": rng.choice([0, 100]),
    }


def measure(document: dict[str, Any]) -> tuple[float, float] | None:
    """Seconds for one exact solution, and for the whole answer with runner-up and bounds; None where infeasible."""
    request = request_from_json(document)
    began = time.process_time()
    solution = solve(build_problem(request, load_catalog()))
    solved = time.process_time() - began
    if solution is None:
        return None
    began = time.process_time()
    try:
        place(request)
    except PlacementInfeasible:
        return None
    return solved, time.process_time() - began


def measure_fleet(rng: random.Random, models: int) -> str:
    """Place so many models, half of them on T4 or L4, where half of what the five busiest quotas would take is left."""
    fleet: list[FleetModel] = []
    while len(fleet) < models:
        document = random_problem(rng)
        board = {"accelerator": rng.choice(["T4", "L4"])} if rng.random() < 0.5 else {}
        document["demand"] = document["demand"][: rng.randint(2, 8)]
        document["resources"] = {**document["resources"], **board}
        request = request_from_json(document)
        if solve(build_problem(request, load_catalog())) is not None:
            fleet.append(FleetModel(name=f"model-{len(fleet)}", request=request))
    used: Counter[tuple[str, str]] = Counter()
    for placement in place_fleet(FleetRequest(models=tuple(fleet))).placements.values():
        for choice in placement.choices:
            for each in choice.instances:
                used[choice.region, each.accelerator or each.sku] += each.count
    quotas = tuple(Quota(scope=scope, of=of, limit=count * 3 // 4) for (scope, of), count in used.most_common(5))
    began = time.process_time()
    answer = place_fleet(FleetRequest(models=tuple(fleet), quotas=quotas))
    seconds = time.process_time() - began
    gap = 100 * answer.relative_gap
    return f"{models} models, 5 quotas: {seconds:.1f} s, {answer.rounds} rounds, within {gap:.2f} % of the bound"


def main() -> None:
    """Print a table of medians and ranges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=int, default=200)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    place(request_from_json(SMALL))  # the first call loads the solver
    small = [measured for _ in range(5) if (measured := measure(SMALL)) is not None]
    large = [measured for _ in range(options.problems) if (measured := measure(random_problem(rng))) is not None]
    print(
        f"{platform.python_version()}, {platform.machine()}, seed {options.seed}, {len(large)} feasible large problems"
    )
    print("| problem | one solution, s: median (min-max) | with runner-up and bounds, s: median (min-max) |")
    print("|---|---|---|")
    for name, rows in (("3 regions, 2 areas", small), ("69 regions, 20 areas", large)):
        columns = [[row[index] for row in rows] for index in (0, 1)]
        cells = [f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})" for each in columns]
        print(f"| {name} | {cells[0]} | {cells[1]} |")
    if options.models:
        print(f"\n{measure_fleet(rng, options.models)}")


if __name__ == "__main__":
    main()
