"""Erasures: one subject's rows leave every snapshot, log and online store, and a signed certificate says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.subjects import Subject
from fairlead.sdk.artifacts import wait_until
from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.sdk.transport import Transport

_PATH = "/api/v1/features/erasures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure(Record):
    """One erasure: RUNNING until every location was read and holds nothing of it, then DONE.

    `missing` says what is still to be done. The value that named the subject is in no record: `subject_hash` is a
    salted hash of it.
    """

    id: str
    keys: tuple[str, ...]
    salt: str
    subject_hash: str
    reason: str
    state: str
    until: datetime
    rows_removed: int
    missing: tuple[str, ...] = ()
    models: tuple[JsonObject, ...] = ()
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None = None


class Erasures:
    """Subjects that are to be forgotten; all of it needs the scope `admin`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def request(self, subject: Mapping[str, str | int], *, reason: str) -> Erasure:
        """Ask that a subject leaves: the values of its entities (or join keys), as `{"patient": 17}`.

        The values stay here: what is sent is a hash of them under the salt of the erasure before, or a new one, so that
        who is forgotten is found by one hash of each row. A view whose keys include these loses the subject's rows with
        event times up to now.

        Raises:
            InvalidInput: if there is no such entity.
        """
        if not subject:
            raise InvalidInput("Nobody is named.", hint="Give the values of entities, such as {'patient': 17}.")
        if empty := [entity for entity, value in subject.items() if value == ""]:
            raise InvalidInput(f"There is no value for {empty[0]!r}.", hint=f"Write {empty[0]}=VALUE.")
        before = next(self._transport.items(_PATH, page_size=1), None)
        named = Subject.of(subject, None if before is None else str(before["salt"]))
        body: dict[str, JsonValue] = {
            "entities": [*subject],
            "salt": named.salt,
            "subject_hash": named.digest,
            "reason": reason,
        }
        return Erasure.from_json(self._transport.post(_PATH, body))

    def get(self, erasure: str) -> Erasure:
        """One erasure by its id.

        Raises:
            ErasureNotFound
        """
        return Erasure.from_json(self._transport.get(f"{_PATH}/{quote(erasure, safe='')}"))

    def list(self) -> Iterator[Erasure]:
        """Erasures, newest first."""
        return map(Erasure.from_json, self._transport.items(_PATH))

    def wait(self, erasure: str, *, timeout_seconds: float) -> Erasure:
        """Wait until an erasure is done; the collector's grace alone is two days where nobody changed it."""
        seen: list[Erasure] = []

        def check() -> bool:
            seen[:] = [self.get(erasure)]
            return seen[0].state == "DONE"

        wait_until(check, "the erasure to be DONE", timeout_seconds)
        return seen[0]

    def certificate(self, erasure: str) -> JsonObject:
        """The signed certificate of an erasure that is done; `core.certificates` verifies it offline.

        Raises:
            ErasureNotFound
            NotReady: with what is missing.
        """
        return cast("JsonObject", self._transport.get(f"{_PATH}/{quote(erasure, safe='')}/certificate"))
