"""How long the placement engine takes: small and whole-catalog problems, with and without explanation.

.venv/bin/python benchmarks/placement/solve_times.py [--problems 12] [--seed 1]
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from typing import Any

from fairlead.catalog import load_catalog
from fairlead.core.errors import PlacementInfeasible
from fairlead.serving.placement import place, request_from_json
from fairlead.serving.placement_model import solve
from fairlead.serving.placement_options import build_problem

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
    began = time.perf_counter()
    solution = solve(build_problem(request, load_catalog()))
    solved = time.perf_counter() - began
    if solution is None:
        return None
    began = time.perf_counter()
    try:
        place(request)
    except PlacementInfeasible:
        return None
    return solved, time.perf_counter() - began


def main() -> None:
    """Print a table of medians and ranges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
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


if __name__ == "__main__":
    main()
