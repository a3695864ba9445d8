# SkyPilot is in another environment, where pyright does not look.
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
"""What SkyPilot's optimizer chooses when its catalog holds our prices: run by its own environment, JSON in and out.

Its hosted catalog is not fetched: the same price table for both is what makes the answers comparable. Input: `offers`
(cloud, region, sku, vcpus, memory_gib, accelerator, accelerator_count, usd, spot_usd), `vcpus`, `memory_gib`,
`accelerator`. Output: cloud, region, sku.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

COLUMNS = [
    "InstanceType",
    "AcceleratorName",
    "AcceleratorCount",
    "vCPUs",
    "MemoryGiB",
    "Price",
    "SpotPrice",
    "Region",
    "AvailabilityZone",
    "GpuInfo",
    "Arch",
]


def write_catalog(home: Path, schema: str, offers: list[dict[str, Any]]) -> None:
    """Write our offers where SkyPilot keeps its catalogs."""
    for cloud in sorted({offer["cloud"] for offer in offers}):
        folder = home / ".sky" / "catalogs" / schema / cloud
        folder.mkdir(parents=True)
        with (folder / "vms.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for offer in (each for each in offers if each["cloud"] == cloud):
                board = offer["accelerator"] or ""
                rows.writerow(
                    [
                        offer["sku"],
                        board,
                        offer["accelerator_count"] or "",
                        offer["vcpus"],
                        offer["memory_gib"],
                        offer["usd"],
                        offer["spot_usd"] or "",
                        offer["region"],
                        f"{offer['region']}-a",
                        "",
                        "x86_64",
                    ]
                )
        (folder / "images.csv").write_text("Tag,Region,OS,OSVersion,ImageId,CreationDate\n", encoding="utf-8")


def write_boards(home: Path, schema: str, offers: list[dict[str, Any]]) -> None:
    """Write the names of the accelerators, which SkyPilot looks up before it looks for instances."""
    folder = home / ".sky" / "catalogs" / schema / "common"
    folder.mkdir(parents=True)
    boards = sorted({offer["accelerator"] for offer in offers if offer["accelerator"]})
    lines = ["AcceleratorName,Clouds", *(f"{board},\"['AWS', 'GCP', 'Azure']\"" for board in boards)]
    (folder / "accelerators.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Read the question from standard input and print the choice."""
    question = json.load(sys.stdin)
    home = Path(tempfile.mkdtemp())
    os.environ["HOME"] = str(home)
    os.environ["SKYPILOT_DISABLE_USAGE_COLLECTION"] = "1"
    from sky.catalog import constants

    write_catalog(home, constants.CATALOG_SCHEMA_VERSION, question["offers"])
    write_boards(home, constants.CATALOG_SCHEMA_VERSION, question["offers"])
    import sky
    from sky import check, clouds, optimizer
    from sky.catalog import aws_catalog

    known = {"aws": clouds.AWS, "gcp": clouds.GCP, "azure": clouds.Azure}
    enabled = [known[name]() for name in sorted({offer["cloud"] for offer in question["offers"]})]
    check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: enabled
    # The account's names of zones need an account; regions are all that is compared.
    aws_catalog._fetch_and_apply_az_mapping = lambda frame: frame  # noqa: SLF001  (SkyPilot has no setting for it)
    wanted: dict[str, Any] = {"cpus": f"{question['vcpus']}+", "memory": f"{question['memory_gib']}+"}
    if question["accelerator"]:
        wanted["accelerators"] = {question["accelerator"]: 1}
    with sky.Dag() as dag:
        task = sky.Task(run="true")
        task.set_resources(sky.Resources(**wanted))
    dag.add(task) if task not in dag.tasks else None
    optimizer.Optimizer.optimize(dag, quiet=True)
    best = task.best_resources
    print("ANSWER " + json.dumps({"cloud": str(best.cloud).lower(), "region": best.region, "sku": best.instance_type}))


if __name__ == "__main__":
    main()
