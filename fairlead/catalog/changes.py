"""What differs between two states of the catalog, figure by figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.catalog.figures import Figure
from fairlead.catalog.observations import FigureKey, FigureKind
from fairlead.core.ids import RegionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A figure whose value differs; None where the one state or the other has none."""

    kind: FigureKind
    region: RegionId
    item: str
    before: Figure | None
    after: Figure | None

    @property
    def percent(self) -> float | None:
        """By how much it rose; None where it came, went or was nothing."""
        if self.before is None or self.after is None or self.before.value == 0:
            return None
        return round((self.after.value / self.before.value - 1) * 100, 2)


def changes(before: Mapping[FigureKey, Figure], after: Mapping[FigureKey, Figure]) -> list[Change]:
    """The figures whose values differ, by region, kind and item. A newer date of the same value is no change."""
    found: list[Change] = []
    for key in sorted(before.keys() | after.keys(), key=lambda key: (key.region, key.kind, key.item)):
        old, new = before.get(key), after.get(key)
        if old is None or new is None or not math.isclose(old.value, new.value, rel_tol=1e-9):
            found.append(Change(kind=key.kind, region=key.region, item=key.item, before=old, after=new))
    return found
