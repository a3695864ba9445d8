"""What the local target remembers of one place: the process that answers, the former one beside it, and what must end.

    {folder}/state.json

It is replaced atomically, and before anything is waited for: no crash leaves a process that nobody remembers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fairlead.serving.processes import ProcessRecord, descendants, read_json, write_atomically
from fairlead.serving.targets import EndpointSpec
from fairlead.serving.workload import Workload

_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A process with what it serves.

    `children` are known so that none is left when the parent is killed. `identity` is what it said of itself when it
    got ready. `started_at` is in seconds since the epoch, and its output is in the log from the byte `log_start` on.
    """

    spec: EndpointSpec
    port: int
    process: ProcessRecord
    children: tuple[ProcessRecord, ...] = ()
    identity: str | None = None
    started_at: float = 0.0
    log_start: int = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def records(self) -> tuple[ProcessRecord, ...]:
        """The process, and those below it that were seen."""
        return (self.process, *self.children)

    def with_children(self) -> Served:
        """The same, with the processes that are below it now, if it runs."""
        found = descendants(self.process)
        return replace(self, children=found) if found else self

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {
            "workspace_id": self.spec.workspace_id,
            "workload": self.spec.workload.to_json(),
            "port": self.port,
            "process": self.process.to_json(),
            "children": [child.to_json() for child in self.children],
            "identity": self.identity,
            "started_at": self.started_at,
            "log_start": self.log_start,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Served:
        """Read what `to_json` gave."""
        return Served(
            spec=EndpointSpec(workspace_id=value["workspace_id"], workload=Workload.from_json(value["workload"])),
            port=int(value["port"]),
            process=ProcessRecord.from_json(value["process"]),
            children=tuple(ProcessRecord.from_json(child) for child in value["children"]),
            identity=value["identity"],
            started_at=float(value["started_at"]),
            log_start=int(value["log_start"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceState:
    """Every process of one place: the one that answers, the former one, those that get ready, and those to be ended."""

    current: Served | None = None
    former: Served | None = None
    starting: tuple[Served, ...] = field(default=())
    leaving: tuple[Served, ...] = field(default=())

    @property
    def all(self) -> Iterator[Served]:
        """Every process that is known, whatever it is for."""
        yield from (each for each in (self.current, self.former) if each is not None)
        yield from self.starting
        yield from self.leaving


def read_state(home: Path) -> PlaceState:
    """What is remembered of a place; nothing where its file is missing or unreadable."""
    state = read_json(home / "state.json")
    if state is None or state.get("format") != _FORMAT:
        return PlaceState()

    def one(name: str) -> Served | None:
        return None if state[name] is None else Served.from_json(state[name])

    def some(name: str) -> tuple[Served, ...]:
        return tuple(Served.from_json(each) for each in state[name])

    return PlaceState(current=one("current"), former=one("former"), starting=some("starting"), leaving=some("leaving"))


def write_state(home: Path, state: PlaceState) -> None:
    """Remember it."""
    write_atomically(
        home / "state.json",
        {
            "format": _FORMAT,
            "current": None if state.current is None else state.current.to_json(),
            "former": None if state.former is None else state.former.to_json(),
            "starting": [each.to_json() for each in state.starting],
            "leaving": [each.to_json() for each in state.leaving],
        },
    )
