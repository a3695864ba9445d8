"""What was asked beyond the placement itself, as text: what if, whether to move, the front, and where choices flip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_Json = dict[str, Any]


def describe_questions(answer: _Json) -> Iterator[str]:
    """A section for each part of an answer that was asked for."""
    if answer.get("what_if"):
        yield _what_if(answer["what_if"])
    if answer.get("switching"):
        yield _switching(answer["switching"])
    if answer.get("pareto"):
        yield _pareto(answer["pareto"])
    if answer.get("sensitivity"):
        yield _sensitivity(answer["sensitivity"])


def text_grid(rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns of equal width."""
    table = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _what_if(what_if: _Json) -> str:
    difference = what_if["difference"]
    return (
        f"what if        {', '.join(what_if['changes'])}: {difference['cost_usd']:+.6f} USD/h and "
        f"{difference['carbon_g']:+.3f} gCO2e/h against {', '.join(what_if['regions_before'])}"
    )


def _switching(switching: _Json) -> str:
    return f"{'move' if switching['is_moving'] else 'stay'}           {switching['why']}"


def _pareto(points: Sequence[_Json]) -> str:
    table: list[Sequence[str]] = [("front: regions", "USD/h", "mean ms", "worst p95", "gCO2e/h", "best at")]
    for point in points:
        prices = [
            f"{point[name]:g} {unit}"
            for name, unit in (
                ("carbon_price_usd_per_tonne", "USD/t"),
                ("latency_price_usd_per_request_second", "USD/s"),
            )
            if point[name]
        ]
        table.append(
            (
                ", ".join(point["regions"]),
                f"{point['cost_usd']:.4f}",
                f"{point['mean_ms']:.1f}",
                f"{point['worst_p95_ms']:.1f}",
                f"{point['carbon_g']:.1f}",
                ", ".join(prices),
            )
        )
    return text_grid(table)


def _sensitivity(rows: Sequence[_Json]) -> str:
    table: list[Sequence[str]] = [("sensitive to", "USD/h at -10 %", "at +10 %", "flips below", "flips above")]
    table += [
        (
            row["of"].replace("_", " "),
            _cost(row["cost_usd_at_less"]),
            _cost(row["cost_usd_at_more"]),
            _flip(row["flips_below"], row["of"]),
            _flip(row["flips_above"], row["of"]),
        )
        for row in rows
    ]
    return text_grid(table)


def _cost(value: float | None) -> str:
    return "infeasible" if value is None else f"{value:.4f}"


def _flip(flip: _Json | None, of: str) -> str:
    if flip is None:
        return "-"
    at = f"{flip['factor']:g} USD/t" if of == "carbon_price" else f"{flip['factor']:g} x"
    return f"{at}: {', '.join(flip['regions'])}"
