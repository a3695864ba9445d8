"""What crosses the wire about passes over locations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.registry.wire import AnswerModel, RequestModel, Time
from fairlead.sync.upkeep import Task, Upkeep, UpkeepState

_SLICES_MAX = 3650


class UpkeepRequest(RequestModel):
    """A pass to make over a location, or over every storage location.

    A scrub reads all of it unless `sample` (a share) or `slice` and `of` (the n-th of so many parts) are given. A
    rebuild with `is_quick` goes by the packs' own indexes and changes nothing.
    """

    task: Task
    location: str | None = None
    sample: Annotated[float, Field(gt=0, le=1)] | None = None
    slice: Annotated[int, Field(ge=1, le=_SLICES_MAX)] | None = None
    of: Annotated[int, Field(ge=1, le=_SLICES_MAX)] | None = None
    is_quick: bool = False
    is_dry_run: bool = False

    def scope(self) -> dict[str, JsonValue]:
        """What of the location is looked at, and how.

        Raises:
            InvalidInput: if the members do not go together.
        """
        parts = (self.sample, self.slice, self.of)
        if self.task != "scrub" and any(part is not None for part in parts):
            raise InvalidInput("Only a scrub reads a part.", hint="Leave `sample`, `slice` and `of` out.")
        if (self.slice is None) != (self.of is None) or (self.sample is not None and self.slice is not None):
            raise InvalidInput("A scrub reads a sample, or one slice of so many, or all.", hint="Give one of them.")
        if self.slice is not None and self.of is not None and self.slice > self.of:
            raise InvalidInput(f"There is no slice {self.slice} of {self.of}.")
        if self.is_quick and self.task != "rebuild-index":
            raise InvalidInput("Only a comparison of the index can be quick.", hint="Leave `is_quick` out.")
        given = {"sample": self.sample, "slice": self.slice, "of": self.of}
        scope: dict[str, JsonValue] = {name: value for name, value in given.items() if value is not None}
        return scope | ({"is_quick": True} if self.is_quick else {}) | ({"is_dry_run": True} if self.is_dry_run else {})


class UpkeepAnswer(AnswerModel):
    """A pass and what it found: of each object a code, what is wrong or why it goes, and what was done."""

    id: str
    task: Task
    location: str
    region: str
    scope: dict[str, Any]
    state: UpkeepState
    checked_objects: int
    checked_bytes: int
    outcome: dict[str, Any]
    findings: list[dict[str, Any]]
    requested_by: str
    requested_at: Time
    finished_at: Time | None

    @classmethod
    def of(cls, upkeep: Upkeep) -> UpkeepAnswer:
        """Render a record."""
        return cls(
            id=upkeep.id,
            task=upkeep.task,
            location=upkeep.location.name,
            region=upkeep.location.region,
            scope=dict(upkeep.scope),
            state=upkeep.state,
            checked_objects=upkeep.checked_objects,
            checked_bytes=upkeep.checked_bytes,
            outcome=dict(upkeep.outcome),
            findings=[dict(finding) for finding in upkeep.findings],
            requested_by=upkeep.requested_by,
            requested_at=upkeep.requested_at,
            finished_at=upkeep.finished_at,
        )


class UpkeepPage(AnswerModel):
    """Some passes, newest first."""

    items: list[UpkeepAnswer]
    next_page_token: str | None


class UpkeepsAnswer(AnswerModel):
    """The passes that were asked for, one for each location."""

    items: list[UpkeepAnswer]
