"""Sources: who published a figure, when, and under which licence.

A figure names its source in a few words; `tables/sources.csv` says more of each by how those words begin. The date is
ISO 8601, as exact as the source gives it: a year, a month or a day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from fairlead.catalog.figures import Figure
from fairlead.catalog.rows import table_rows

_DATE = re.compile(r"\b(20\d\d(?:-[01]\d(?:-[0-3]\d)?)?)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source as the shipped tables name it; `begins_with` is how its figures begin to say where they come from."""

    begins_with: str
    title: str
    url: str
    licence: str
    date: str | None


@cache
def sources() -> tuple[Source, ...]:
    """Every source of the shipped tables."""
    return tuple(
        Source(
            begins_with=row["begins_with"],
            title=row["title"],
            url=row["url"],
            licence=row["licence"],
            date=row["date"] or None,
        )
        for row in table_rows("sources")
    )


@cache
def find_source(text: str) -> Source | None:
    """The source that a figure names, the one that says most of it; None for one of no shipped table."""
    named = [each for each in sources() if text.startswith(each.begins_with)]
    return max(named, key=lambda each: len(each.begins_with), default=None)


def with_source(figure: Figure) -> Figure:
    """A figure of the shipped tables with the date and the licence of its source."""
    found = find_source(figure.source)
    if found is None or figure.licence is not None:
        return figure
    return replace(figure, licence=found.licence, date=_date_of(figure.source) or found.date)


@cache
def _date_of(text: str) -> str | None:
    said = _DATE.search(text)
    return None if said is None else said[1]
