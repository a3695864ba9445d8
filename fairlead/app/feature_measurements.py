"""What a feature server counts, and its text for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Measurements:
    """Counts of questions, entities, statuses and errors, and how long answers took."""

    def __init__(self) -> None:
        self._questions: Counter[str] = Counter()
        self._entities: Counter[str] = Counter()
        self._statuses: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[str] = Counter()
        self._buckets: Counter[int] = Counter()
        self._seconds = 0.0
        self.code: dict[str, Sequence[str]] = {}

    def answered(self, service: str, *, entities: int, statuses: Iterable[str], seconds: float) -> None:
        """Count an answer."""
        self._questions[service] += 1
        self._entities[service] += entities
        for status, number in Counter(statuses).items():
            self._statuses[service, status] += number
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def failed(self, code: str) -> None:
        """Count an error."""
        self._errors[code] += 1

    def loaded(self, service: str, names: Sequence[str]) -> None:
        """Note which code a service runs here."""
        self.code[service] = names

    def to_text(self, services: Sequence[Mapping[str, Any]]) -> str:
        """The text that Prometheus reads; `services` are what stores say of themselves."""
        lines = [
            *_family("requests_total", "counter", "Questions that were answered.", {
                f'{{service="{service}"}}': number for service, number in self._questions.items()
            }),
            *_family("entities_total", "counter", "Entities that were asked for.", {
                f'{{service="{service}"}}': number for service, number in self._entities.items()
            }),
            *_family("rows_total", "counter", "Rows of views that were looked up, by what was found.", {
                f'{{service="{service}",status="{status}"}}': number
                for (service, status), number in self._statuses.items()
            }),
            *_family("errors_total", "counter", "Questions that were refused or failed.", {
                f'{{code="{code}"}}': number for code, number in self._errors.items()
            }),
            *_family("snapshot_age_seconds", "gauge", "How long ago the time is that a store is as of.", {
                f'{{service="{each["service"]}",slot="{each["slot"]}"}}': each["age_seconds"] for each in services
            }),
        ]  # fmt: skip
        name = "fairlead_feature_server_answer_seconds"
        lines += [f"# HELP {name} How long answers took.", f"# TYPE {name} histogram"]
        total = 0
        for index, bound in enumerate(_BOUNDS):
            total += self._buckets[index]
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        total += self._buckets[len(_BOUNDS)]
        lines += [f'{name}_bucket{{le="+Inf"}} {total}', f"{name}_sum {self._seconds:.6f}", f"{name}_count {total}"]
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, help_text: str, samples: Mapping[str, float]) -> list[str]:
    full = f"fairlead_feature_server_{name}"
    return [
        f"# HELP {full} {help_text}",
        f"# TYPE {full} {kind}",
        *(f"{full}{labels} {number}" for labels, number in sorted(samples.items())),
    ]
