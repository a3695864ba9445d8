"""The chain of audit events: each holds the hash of the one before it, so that no edit goes unseen.

`sequence` counts from 1 without a gap in each workspace; `event_hash` is the sha256 of the event's canonical JSON,
which holds the sequence and the hash of the event before it. An edit, a removal, an insertion or an exchange within the
chain breaks it. Cutting off its tail leaves a shorter chain that is whole: that is what an *anchor*, a sequence and its
hash kept elsewhere, is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import InvalidInput, JsonValue

FIRST_PREVIOUS_HASH = "0" * 64
"""What the first event of a chain names as the hash before it."""

Problem = Literal["edited", "broken", "missing", "cut"]

_FORMAT = 1
HASHED = ("workspace_id", "id", "residency", "actor", "action", "subject", "facts", "happened_at")
"""What of an event is hashed, with its place in the chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A place in the chain, to be kept where whoever can change the database cannot change it."""

    sequence: int
    event_hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.event_hash}"


def parse_anchor(text: str) -> Anchor:
    """Read an anchor that was exported as `SEQUENCE:HASH`.

    Raises:
        InvalidInput: if it is not one.
    """
    number, _, event_hash = text.partition(":")
    is_number = number.isascii() and number.isdigit() and len(number) < 19
    if not is_number or len(event_hash) != 64 or set(event_hash) - set("0123456789abcdef"):
        raise InvalidInput(f"{text[:80]!r} is no anchor.", hint="Write it as SEQUENCE:HASH, as it was exported.")
    return Anchor(sequence=int(number), event_hash=event_hash)


def hash_event(event: Mapping[str, JsonValue], *, sequence: int, previous_hash: str) -> str:
    """The sha256, in hexadecimal, of an event's canonical JSON at this place of the chain.

    `event` has the members workspace_id, id, residency, actor, action, subject, facts and happened_at (RFC 3339 with
    microseconds, Z); others are passed over.

    Raises:
        InvalidInput: if one of them has no canonical form.
    """
    members: dict[str, JsonValue] = {name: event[name] for name in HASHED}
    members |= {"format": _FORMAT, "sequence": sequence, "previous_hash": previous_hash}
    return hashlib.sha256(canonical_json(members)).hexdigest()


class ChainCheck:
    """Checks a chain event by event, in the order of their sequence; memory does not grow.

    `problem` names the first thing that is wrong: `edited` (an event is not what its hash says), `broken` (it does not
    follow the one before it), `missing` (a gap in the count) or `cut` (the chain ends before the anchor, or runs
    through another event there). `sequence` says where.
    """

    def __init__(self, *, anchor: Anchor | None = None) -> None:
        self._anchor = anchor
        self._is_anchor_met = anchor is None
        self.sealed = 0
        self.head: Anchor | None = None
        self.problem: Problem | None = None
        self.sequence: int | None = None

    def add(
        self,
        event: Mapping[str, JsonValue],
        *,
        sequence: int | None,
        previous_hash: str | None,
        event_hash: str | None,
    ) -> None:
        """Take the next event of the chain."""
        self.sealed += 1
        if self.problem is None:
            self.problem = self._problem_of(event, sequence, previous_hash or "", event_hash)
            self.sequence = None if self.problem is None else self.sealed
        self.head = Anchor(sequence=sequence or 0, event_hash=event_hash or "")
        self._is_anchor_met = self._is_anchor_met or self.head == self._anchor

    def finish(self) -> bool:
        """Whether the whole chain is intact and holds the anchor, once its last event was taken."""
        if self.problem is None and self._anchor is not None and not self._is_anchor_met:
            self.problem, self.sequence = "cut", self._anchor.sequence
        return self.problem is None

    def _problem_of(
        self, event: Mapping[str, JsonValue], sequence: int | None, previous_hash: str, event_hash: str | None
    ) -> Problem | None:
        if sequence != self.sealed:
            return "missing"
        try:
            found = hash_event(event, sequence=self.sealed, previous_hash=previous_hash)
        except InvalidInput:
            # What was put in its place has no canonical form, so it was never sealed.
            return "edited"
        if found != event_hash:
            return "edited"
        expected = FIRST_PREVIOUS_HASH if self.head is None else self.head.event_hash
        return None if previous_hash == expected else "broken"
