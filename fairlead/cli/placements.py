"""A placement answer as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fairlead.cli.placement_questions import describe_questions, text_grid

_WIDTH = 100
_NAMED_AT_MOST = 8
_EXACT_PERCENT = 0.001

_Json = dict[str, Any]


def describe_placement(row: _Json, *, is_brief: bool = False) -> str:
    """The chosen regions, whom they serve, what an hour costs and emits, what bound it, and what came second.

    `row` is a kept placement: `id`, `request` and the `answer` of the placement engine. A `~` marks a figure that
    nobody measured or published. A brief text leaves out methods, rejected regions and the sources of estimates.
    """
    answer: _Json = row["answer"]
    placement: _Json = answer["placement"]
    terms: _Json = placement["terms"]
    count = len(placement["regions"])
    regions = f"{count} region{'' if count == 1 else 's'}"
    sections = [
        f"placement {row['id']}: {regions}, {_usd(terms['cost_usd'])} USD/h, {_grams(terms['carbon_g'])} gCO2e/h",
        text_grid(_choices(placement)),
        text_grid(_groups(placement)),
        _availability(placement, answer),
        "\n".join(_terms(terms, {} if is_brief else answer["methods"])),
        "\n".join(_bounds(answer["bounds"])) if answer.get("is_explained", True) else "",
        "\n".join(_runner_up(answer["runner_up"])) if answer.get("is_explained", True) else "",
        *describe_questions(answer),
    ]
    if not is_brief:
        sections += ["\n".join(_rejected(answer["rejected"])), "\n".join(_estimates(placement))]
    return "\n\n".join(section for section in sections if section) + "\n"


def _choices(placement: _Json) -> Iterator[Sequence[str]]:
    yield ("region", "runs", "load/room req/s", "USD/h", "gCO2e/h", "copied from")
    for choice in placement["choices"]:
        usd = choice["compute_usd"] + choice["serving_egress_usd"] + choice["replication_usd"]
        grams = choice["compute_g"] + choice["serving_egress_g"] + choice["replication_g"]
        yield (
            choice["region"],
            ", ".join(f"{each['count']} x {each['sku']}{_accelerator(each)}" for each in choice["instances"]),
            f"{choice['load_requests_per_second']:g}/{choice['capacity_requests_per_second']:g}",
            _usd(usd),
            _grams(grams),
            choice["replicate_from"] or "is there",
        )


def _accelerator(instance: _Json) -> str:
    said = [instance["accelerator"]] if instance["accelerator"] is not None else []
    said += ["spot"] if instance["is_spot"] else []
    if instance["shared_with"]:
        said.append(f"{100 * instance['part']:.3g} %, with {', '.join(instance['shared_with'])}")
    return f" ({'; '.join(said)})" if said else ""


def _availability(placement: _Json, answer: _Json) -> str:
    expected = 100 * placement["availability"]["expected"]
    gap = 100 * answer["relative_gap"]
    proof = "no placement is better" if gap < _EXACT_PERCENT else f"no placement is better by more than {gap:.2g} %"
    return f"available      ~{expected:.6f} % expected of service level agreements\nproven         {proof}"


def _groups(placement: _Json) -> Iterator[Sequence[str]]:
    yield ("users in", "req/s", "served by", "p50", "p95", "limit")
    for group in placement["groups"]:
        trips: _Json = group["round_trips"]
        is_estimate = any(trip["is_estimate"] for trip in trips.values())
        limit = group["latency_limit_ms"]
        yield (
            group["area"],
            f"{group['requests_per_second']:g}",
            ", ".join(f"{region} {100 * share:.4g} %" for region, share in group["shares"].items()),
            f"{'~' if is_estimate else ''}{group['p50_ms']:g} ms",
            f"{'~' if is_estimate else ''}{group['p95_ms']:g} ms",
            "none" if limit is None else f"{limit:g} ms",
        )


def _terms(terms: _Json, methods: _Json) -> Iterator[str]:
    yield f"an hour costs  {_addends(terms, 'usd', _usd)} = {_usd(terms['cost_usd'])} USD"
    if terms["carbon_usd"] or terms["latency_usd"] or terms["switching_usd"]:
        yield (
            f"weighed too    carbon {_usd(terms['carbon_usd'])}, waiting {_usd(terms['latency_usd'])}, "
            f"moving {_usd(terms['switching_usd'])}; "
            f"the objective is {_usd(terms['objective_usd'])} USD/h"
        )
    yield f"and emits      {_addends(terms, 'g', _grams)} = {_grams(terms['carbon_g'])} gCO2e"
    for name in ("compute_power", "network_energy"):
        if name in methods:
            yield _wrap(f"{name.replace('_', ' ')}: {methods[name]}", first=15, rest=17)


def _addends(terms: _Json, unit: str, show: Callable[[float], str]) -> str:
    parts = (("compute", "compute"), ("egress", "serving_egress"), ("replication", "replication"))
    return " + ".join(f"{word} {show(terms[f'{term}_{unit}'])}" for word, term in parts)


def _bounds(bounds: Sequence[_Json]) -> Iterator[str]:
    yield "bound by       nothing" if not bounds else "bound by"
    for bound in bounds:
        saving = _usd(bound["saves_usd_per_hour"])
        yield _wrap(f"{bound['limit']}. {bound['detail']}, and {saving} USD/h less.", first=2, rest=4)


def _runner_up(runner_up: _Json | None) -> Iterator[str]:
    if runner_up is None:
        yield "runner-up      none: no other set of regions satisfies every limit"
        return
    terms = runner_up["placement"]["terms"]
    yield _wrap(
        f"runner-up      {', '.join(runner_up['placement']['regions'])}: "
        f"{_usd(terms['cost_usd'])} USD/h, {_grams(terms['carbon_g'])} gCO2e/h. {runner_up['why']}",
        first=0,
        rest=15,
    )


def _rejected(rejected: Sequence[_Json]) -> Iterator[str]:
    by_reason: dict[tuple[str, str], list[str]] = {}
    for each in rejected:
        by_reason.setdefault((each["rule"], each["detail"]), []).append(each["region"])
    if by_reason:
        yield "not chosen"
    for (rule, detail), regions in sorted(by_reason.items(), key=lambda item: len(item[1])):
        is_short = len(regions) <= _NAMED_AT_MOST
        names = ", ".join(regions) if is_short else f"{len(regions)} regions (named with --output json)"
        yield _wrap(f"{names}: {detail} [{rule}]", first=2, rest=4)


def _estimates(placement: _Json) -> Iterator[str]:
    found: dict[str, None] = {}
    for choice in placement["choices"]:
        for instance in choice["instances"]:
            for what in ("price", "power"):
                _note(found, f"{what} of {instance['sku']}", instance[what])
        for what, title in (
            ("grid", "grid carbon"),
            ("pue", "PUE"),
            ("internet_egress", "egress tariff"),
            ("replication_tariff", "replication tariff"),
        ):
            _note(found, f"{title} of {choice['region']}", choice[what])
    for group in placement["groups"]:
        for region, trip in group["round_trips"].items():
            _note(found, f"round trip {group['area']} to {region}", trip)
    if not found:
        yield "estimates      none: every figure was measured or published"
        return
    yield "estimates"
    for line in found:
        yield _wrap(line, first=2, rest=4)


def _note(found: dict[str, None], what: str, figure: _Json | None) -> None:
    if figure is not None and figure["is_estimate"]:
        error = f" +-{figure['error']:g}" if "error" in figure else ""
        found[f"{what}: ~{figure['value']:g}{error} {figure['unit']} ({figure['source']})"] = None


def _wrap(text: str, *, first: int, rest: int) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=" " * first, subsequent_indent=" " * rest, break_on_hyphens=False)


def _usd(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _grams(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def describe_fleet(row: _Json) -> str:
    """Where each model of a fleet runs, what all of it costs, and what the shared quotas are worth.

    `row` has the ids of the placements by model, and the fleet's `answer`.
    """
    answer: _Json = row["answer"]
    table: list[Sequence[str]] = [("model", "regions", "runs", "USD/h", "gCO2e/h", "placement")]
    for model, placement in answer["placements"].items():
        runs = [
            f"{each['count']} x {each['sku']}{_accelerator(each)}"
            for choice in placement["choices"]
            for each in choice["instances"]
        ]
        terms = placement["terms"]
        table.append(
            (
                model,
                ", ".join(placement["regions"]),
                ", ".join(runs),
                _usd(terms["cost_usd"]),
                _grams(terms["carbon_g"]),
                row["placements"][model],
            )
        )
    quotas: list[Sequence[str]] = [("quota", "in", "used", "limit", "one more saves USD/h")]
    quotas += [
        (
            each["quota"]["of"],
            each["quota"]["scope"],
            f"{each['used']:g}",
            f"{each['quota']['limit']:g}",
            _usd(each["price_usd_per_hour"]),
        )
        for each in answer["quotas"]
    ]
    proof = f"proven within {100 * answer['relative_gap']:.2g} % of the least there is"
    count = len(answer["placements"])
    total = f"{count} models, {_usd(answer['cost_usd'])} USD/h, {_grams(answer['carbon_g'])} gCO2e/h"
    sections = [f"fleet: {total}, {proof}", text_grid(table), text_grid(quotas) if len(quotas) > 1 else ""]
    return "\n\n".join(section for section in sections if section) + "\n"
