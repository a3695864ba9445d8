"""The picture that the README shows; run in MLflow's environment, which has matplotlib.

PYTHON benchmarks/registry/plots.py RESULTS FOLDER
"""

# matplotlib is not in the project's environment.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {"Fairlead": "#0b6e4f", "MLflow, 1 worker": "#8fa3b0", "MLflow, 4 workers": "#c9d3da"}
CALLS = {"alias": "get by alias", "search": "search by tag", "create": "create version", "move": "move alias"}
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def main() -> None:
    """Draw processor time a request, one panel for each database."""
    measured = json.loads(Path(sys.argv[1]).read_text())
    plt.rcParams.update(
        {"font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "registry"}
    )
    databases = list(dict.fromkeys(each["database"] for each in measured))
    figure, panels = plt.subplots(
        1, len(databases), figsize=(5.5 * len(databases), 3.4), squeeze=False, layout="constrained"
    )
    for panel, database in zip(panels[0], databases, strict=True):
        draw(panel, database, [each for each in measured if each["database"] == database])
    figure.suptitle(
        "CPU ms a request of 16 clients at 100,000 versions, the database's among it (less is better)",
        fontsize=11,
        fontweight="bold",
    )
    target = Path(sys.argv[2]) / "registry_cpu.svg"
    figure.savefig(target, metadata={"Date": None})
    figure.savefig(target.with_suffix(".png"), dpi=150)


def draw(panel: plt.Axes, database: str, measured: list[dict]) -> None:
    """Groups of bars, one group for each call."""
    clients = 16 if any(each["clients"] == 16 for each in measured) else 64
    wanted = [
        each
        for each in measured
        if each["dialect"] == "mlflow" and each["versions"] == 100_000 and each["clients"] == clients
    ]
    height = 0.26
    for place, (server, colour) in enumerate(COLOURS.items()):
        found = {each["call"]: each["cpu_ms"] + each["database_cpu_ms"] for each in wanted if each["server"] == server}
        rows = [row + (place - 1) * height for row in range(len(CALLS))]
        bars = panel.barh(rows, [found.get(call, 0) for call in CALLS], height * 0.9, color=colour, label=server)
        panel.bar_label(bars, labels=[f"{found.get(call, 0):.1f}" for call in CALLS], padding=3, fontsize=7)
    panel.set_yticks(range(len(CALLS)), list(CALLS.values()))
    panel.invert_yaxis()
    panel.set_title(DATABASES[database], fontsize=10)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    panel.tick_params(length=0, labelbottom=False)
    panel.margins(x=0.15)
    panel.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
