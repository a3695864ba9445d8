"""What was refused to callers who are known: audited, but not as often as somebody cares to ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fairlead.core.errors import FairleadError
from fairlead.registry import audit

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.identity import Caller

EACH = timedelta(minutes=1)
"""A caller's refusals of one minute are one event: the first of them."""

_CALLERS_MAX = 10_000
_PATH_MAX_LENGTH = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A request that was answered with 403."""

    caller: Caller
    method: str
    path: str


class Denials:
    """Records refusals; safe to share between threads. Each process counts for itself."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._last: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._unrecorded: dict[tuple[str, str], int] = {}

    def record(self, denial: Denial) -> None:
        """Record a refusal, unless one of this caller was within the minute: then it is counted with the next one."""
        caller, now = denial.caller, self._clock.now()
        key = (caller.workspace_id, caller.token_id or caller.principal)
        with self._lock:
            last = self._last.get(key)
            if last is not None and now - last < EACH:
                self._unrecorded[key] = self._unrecorded.get(key, 0) + 1
                return
            self._last[key] = now
            self._last.move_to_end(key)
            if len(self._last) > _CALLERS_MAX:
                forgotten, _ = self._last.popitem(last=False)
                self._unrecorded.pop(forgotten, None)
            more = self._unrecorded.pop(key, 0)
        facts = {"method": denial.method, "path": denial.path[:_PATH_MAX_LENGTH], "more_before": more}
        try:
            with self._database.write() as session:
                audit.record_at(
                    session, caller, now, action="access.deny", subject=caller.token_id or "", facts={**facts}
                )
        except FairleadError:
            # The answer has been given; where the record cannot be written, nothing else can be done either.
            return
