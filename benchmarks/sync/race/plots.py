"""The pictures of the race that the README shows; run in the peers' environment, which has matplotlib.

PYTHON benchmarks/sync/race/plots.py RESULTS FOLDER
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

OURS, OTHERS = "#0b6e4f", "#b8c4ce"
TITLES = {"v1": "first version", "v2": "fine-tuned", "lora": "adapters merged", "header": "header changed"}
SKIPPED = ("aws s3 sync", "s5cmd")
MEGA = 1_000_000


def main() -> None:
    """Draw bytes to a destination, for each precision one picture."""
    results = json.loads(Path(sys.argv[1]).read_text())
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "race"})
    for precision, versions in results.items():
        draw(precision, versions, Path(sys.argv[2]) / f"race_{precision}.svg")


def draw(precision: str, versions: dict[str, dict[str, dict]], target: Path) -> None:
    """Horizontal bars of megabytes to one destination (the mean of three), one panel for each version."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True)
    for panel, version in zip(panels, ("v1", "v2", "lora"), strict=True):
        rows = {
            name.removesuffix(", rclone"): sum(run["sent"].values()) / len(run["sent"]) / MEGA
            for name, run in versions[version].items()
            if name not in SKIPPED
        }
        rows = dict(sorted(rows.items(), key=lambda row: -row[1]))
        bars = panel.barh(list(rows), list(rows.values()), color=[OURS if n == "Fairlead" else OTHERS for n in rows])
        panel.bar_label(bars, labels=[f"{value:.1f}" for value in rows.values()], padding=3, fontsize=8)
        panel.set_title(TITLES[version], fontsize=10)
        panel.set_xlim(0, max(rows.values()) * 1.18)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.tick_params(length=0, labelbottom=False)
        for label in panel.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() == "Fairlead" else "normal")
    figure.suptitle(f"all-MiniLM-L6-v2 in {precision.upper()}: MB sent to each cloud", fontsize=11, fontweight="bold")
    figure.savefig(target, metadata={"Date": None})
    figure.savefig(target.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
