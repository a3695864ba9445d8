"""What the gateway measures of each revision in each region, and how a rollout reads it.

Counts only grow while a gateway runs, so what happened within a step is the difference between two readings. A gateway
that began again counts from zero: a reading that is lower than the one before is taken as it is. Latencies are counted
in classes whose bounds are a quarter apart, so a percentile is at most a quarter too high.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BOUNDS_MS: tuple[float, ...] = tuple(round(1.25**power, 3) for power in range(48))
"""The upper bounds of the classes of latency, 1 ms to 36 s; one more class has no bound."""

PERCENTILE = 0.95


@dataclass(slots=True, kw_only=True)
class Counts:
    """Requests that a revision was given, how many of them failed, and how long the others took."""

    requests: int = 0
    errors: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))

    def note(self, *, is_error: bool, milliseconds: float) -> None:
        """Count one request; an endpoint's own error, silence or refusal is one that failed."""
        self.requests += 1
        if is_error:
            self.errors += 1
        else:
            self.latencies[bisect_left(BOUNDS_MS, milliseconds)] += 1

    @property
    def error_rate(self) -> float:
        """The share of the requests that failed; 0 where there were none."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def p95_ms(self) -> float | None:
        """The upper bound of the class that holds the 95th percentile; None where nothing was answered."""
        answered, seen = sum(self.latencies), 0
        if not answered:
            return None
        for bound, count in zip((*BOUNDS_MS, math.inf), self.latencies, strict=True):
            seen += count
            if seen >= PERCENTILE * answered:
                return bound
        return math.inf

    def since(self, before: Counts) -> Counts:
        """What was counted after an earlier reading."""
        if before.requests > self.requests:
            return self
        return Counts(
            requests=self.requests - before.requests,
            errors=max(0, self.errors - before.errors),
            latencies=[max(0, now - then) for now, then in zip(self.latencies, before.latencies, strict=True)],
        )

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON; classes without an answer are left out."""
        latencies = {str(number): count for number, count in enumerate(self.latencies) if count}
        return {"requests": self.requests, "errors": self.errors, "latencies": latencies}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Counts:
        """Read what `to_json` gave."""
        counts = Counts(requests=int(value["requests"]), errors=int(value["errors"]))
        for number, count in value["latencies"].items():
            counts.latencies[int(number)] = int(count)
        return counts


def total(counts: Iterable[Counts]) -> Counts:
    """Several counts as one."""
    found = list(counts)
    return Counts(
        requests=sum(each.requests for each in found),
        errors=sum(each.errors for each in found),
        latencies=[sum(column) for column in zip(*(each.latencies for each in found), strict=True)]
        if found
        else Counts().latencies,
    )


Measurements = Mapping[tuple[str, str, str], Counts]
"""Counts by deployment (as the gateway calls it), region and bundle digest."""


def measurements_to_json(measured: Measurements) -> list[dict[str, Any]]:
    """What the gateway answers."""
    return [
        {"deployment": deployment, "region": region, "bundle_digest": digest, **counts.to_json()}
        for (deployment, region, digest), counts in sorted(measured.items())
    ]


def measurements_from_json(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], Counts]:
    """Read what `measurements_to_json` gave."""
    return {
        (str(row["deployment"]), str(row["region"]), str(row["bundle_digest"])): Counts.from_json(row) for row in rows
    }
