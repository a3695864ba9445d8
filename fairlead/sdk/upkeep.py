"""Passes over locations: scrubs, collections, and comparisons of the block index."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport

_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep(Record):
    """One pass over a location. `outcome` holds counts; each of `findings` an object, a code and what was done.

    The findings are the first thousand.
    """

    id: str
    task: str
    location: str
    region: str
    state: str
    scope: JsonObject = field(default_factory=dict[str, Any])
    checked_objects: int = 0
    checked_bytes: int = 0
    outcome: JsonObject = field(default_factory=dict[str, Any])
    findings: tuple[JsonObject, ...] = ()
    requested_by: str = ""
    requested_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is DONE or FAILED."""
        return self.state in {"DONE", "FAILED"}


class Upkeeps:
    """Keeps locations true: each call asks for a pass over a location, or over every storage location."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def scrub(
        self,
        location: str | None = None,
        *,
        sample: float | None = None,
        part: tuple[int, int] | None = None,
        dry_run: bool = False,
    ) -> list[Upkeep]:
        """Read what is there and have what is damaged mended: all, a share by chance, or the n-th part of so many.

        Raises:
            LocationNotFound, InvalidInput.
        """
        number, count = part or (None, None)
        return self._request("scrub", location, sample=sample, slice=number, of=count, is_dry_run=dry_run)

    def collect(self, location: str | None = None, *, dry_run: bool = False) -> list[Upkeep]:
        """Let what nothing refers to go on by one step towards its deletion, and repack what is mostly dead.

        Raises:
            LocationNotFound.
        """
        return self._request("collect", location, is_dry_run=dry_run)

    def rebuild_index(self, location: str | None = None, *, dry_run: bool = False, quick: bool = False) -> list[Upkeep]:
        """Make the block index again from packs alone; `quick` compares only, by the packs' own indexes.

        Raises:
            LocationNotFound.
        """
        return self._request("rebuild-index", location, is_dry_run=dry_run, is_quick=quick)

    def list(self) -> Iterator[Upkeep]:
        """All passes, newest first."""
        return map(Upkeep.from_json, self._transport.items("/api/v1/upkeep"))

    def get(self, upkeep_id: str) -> Upkeep:
        """One pass.

        Raises:
            UpkeepNotFound.
        """
        return Upkeep.from_json(self._transport.get(f"/api/v1/upkeep/{quote(upkeep_id, safe='')}"))

    def wait(self, passes: Sequence[Upkeep], *, timeout_seconds: float | None = None) -> list[Upkeep]:
        """Wait until passes are over.

        Raises:
            TimeoutError: if the time is up first; they go on.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        wait, present = _FIRST_WAIT_SECONDS, list(passes)
        while not all(each.is_over for each in present):
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("The passes go on; see: fairlead store passes")
            time.sleep(wait)
            wait = min(wait * 1.5, _LONGEST_WAIT_SECONDS)
            present = [each if each.is_over else self.get(each.id) for each in present]
        return present

    def _request(self, task: str, location: str | None, **scope: JsonValue) -> list[Upkeep]:
        body = {"task": task, "location": location, **scope}
        given: dict[str, JsonValue] = {name: value for name, value in body.items() if value is not None}
        answer = self._transport.post("/api/v1/upkeep", given)
        items = answer["items"]
        return [Upkeep.from_json(item) for item in items if isinstance(item, dict)] if isinstance(items, list) else []
