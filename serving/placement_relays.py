"""Relays as a programme holds them: of one region's relays those that cost the same are one way, whoever sends.

There are as many relays as pairs of regions, and tariffs know only a handful of prices. So a way costs what its relays
do, and can be taken as soon as one of its senders is used and was fed straight from a holder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fairlead.core.ids import RegionId
from fairlead.serving.placement_copies import Copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Relays of one cargo to one region at one cost, by the region that sends."""

    cargo: str
    destination: RegionId
    relays: tuple[Copy, ...]

    @property
    def senders(self) -> tuple[RegionId, ...]:
        """The regions that may send, in order."""
        return tuple(relay.source for relay in self.relays)


def ways_of(relays: Iterable[Copy], saving: Callable[[Copy], float], *, step: float) -> tuple[Way, ...]:
    """The relays as ways.

    Args:
        relays: those that may be taken.
        saving: what taking one changes in the objective.
        step: how far apart (in the objective's unit) two relays of one way may be at most; 0: not at all.
    """
    found: dict[tuple[str, RegionId, float], list[Copy]] = {}
    for relay in relays:
        change = saving(relay)
        found.setdefault((relay.cargo, relay.destination, round(change / step) if step else change), []).append(relay)
    return tuple(
        Way(cargo=cargo, destination=destination, relays=tuple(sorted(each, key=lambda relay: relay.source)))
        for (cargo, destination, _), each in found.items()
    )
