"""How the demo tells what it does: numbered steps, what each did, how many bytes, how long."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fairlead.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from fairlead.sdk.records import Record

_MEGA = 1_000_000


class Narrator:
    """Prints the story to stdout, one step after another."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._number = 0
        self._output = Output("human")
        self.steps: list[dict[str, Any]] = []

    @contextmanager
    def step(self, title: str) -> Generator[None]:
        """One numbered step; tells how long it took."""
        self._number += 1
        self.say(f"\n{self._number}. {title}", indent=0)
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.steps.append({"step": self._number, "what": title, "seconds": f"{seconds:.1f}"})
        self.say(f"({seconds:.1f} s)")

    def say(self, text: str, *, indent: int = 3) -> None:
        """One line of the story."""
        for line in text.splitlines():
            sys.stdout.write(f"{' ' * indent}{line}\n")
        if not text:
            sys.stdout.write("\n")
        sys.stdout.flush()

    def table(self, items: Iterable[Record | dict[str, Any]], columns: Sequence[str]) -> None:
        """A table in the story."""
        self._output.table(items, columns)
        sys.stdout.flush()

    @property
    def seconds(self) -> float:
        """How long the story has taken so far."""
        return time.monotonic() - self._started


def megabytes(size_bytes: int | None) -> str:
    """A size as a person reads it, in decimal megabytes (or bytes below ten thousand)."""
    if size_bytes is None:
        return "-"
    return f"{size_bytes / _MEGA:.2f} MB" if size_bytes >= 10_000 else f"{size_bytes} bytes"
