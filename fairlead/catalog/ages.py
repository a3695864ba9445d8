"""How old what the catalog says is: by kind of figure and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from fairlead.catalog.figures import Figure
from fairlead.catalog.observations import FigureKey, FigureKind
from fairlead.catalog.sources import find_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """The figures of one kind that one source gives. Dates are as exact as the source gives them; None: it gives none.

    `age_days` counts from the first day that the newest date may mean.
    """

    kind: FigureKind
    source: str
    licence: str
    figures: int
    oldest: str | None
    newest: str | None
    age_days: int | None


def ages(figures: Mapping[FigureKey, Figure], today: date) -> list[Age]:
    """The ages of all figures, by kind, the newest first."""
    groups: dict[tuple[FigureKind, str, str], list[Figure]] = {}
    for key, figure in figures.items():
        source = find_source(figure.source)
        name = figure.source if source is None else source.begins_with
        groups.setdefault((key.kind, name, figure.licence or "not stated"), []).append(figure)
    found = [_age(kind, name, licence, group, today) for (kind, name, licence), group in groups.items()]
    return sorted(found, key=lambda age: (age.kind, age.age_days is None, age.age_days, age.source))


def _age(kind: FigureKind, source: str, licence: str, group: list[Figure], today: date) -> Age:
    dates = sorted(figure.date for figure in group if figure.date is not None)
    newest = dates[-1] if dates else None
    return Age(
        kind=kind,
        source=source,
        licence=licence,
        figures=len(group),
        oldest=dates[0] if dates else None,
        newest=newest,
        age_days=None if newest is None else (today - first_day(newest)).days,
    )


def first_day(text: str) -> date:
    """The first day that a date may mean: 2024 is 2024-01-01, 2024-03 is 2024-03-01."""
    return date.fromisoformat(text + "-01-01"[3 * text.count("-") :])
