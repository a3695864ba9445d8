"""What a worker does by itself to keep locations true: scrubs, collections, and old rows forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists
from sqlalchemy.orm import Session

from fairlead.registry.tables import ModelVersionRow, UploadRow
from fairlead.sync.collection import GRACE, REPACK_BELOW, Collection
from fairlead.sync.index_rebuild import IndexRebuild
from fairlead.sync.scrub import Scrub
from fairlead.sync.upkeep import Schedule, UpkeepWork, derive_upkeep
from fairlead.sync.worker import Deriver, throttled

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.locations import StoreOpener

UPLOADS_KEPT = timedelta(days=30)
"""How long an upload that came to nothing is remembered."""

_LOOK_EVERY = timedelta(minutes=1)
_FORGET_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepRules:
    """How locations are kept.

    Everything is read again within `scrub_days`. Every `collect_every`, what nothing refers to goes on by one step;
    two of those take `collect_grace` each, which is longer than an upload is open without asking anything. Packs of
    which less than the share `repack_below` is used are taken apart.
    """

    scrub_days: int = 30
    collect_every: timedelta = timedelta(hours=6)
    collect_grace: timedelta = GRACE
    repack_below: float = REPACK_BELOW


def upkeep_work(
    database: Database, clock: Clock, *, open_store: StoreOpener, signing_keys: Sequence[bytes], rules: UpkeepRules
) -> UpkeepWork:
    """The handler of `upkeep` with all its tasks."""
    return UpkeepWork(
        database,
        clock,
        tasks={
            "scrub": Scrub(database, clock, open_store=open_store, signing_keys=signing_keys),
            "collect": Collection(
                database,
                clock,
                open_store=open_store,
                grace=rules.collect_grace,
                repack_below=rules.repack_below,
            ),
            "rebuild-index": IndexRebuild(database, clock, open_store=open_store),
        },
    )


def upkeep_derivers(rules: UpkeepRules) -> Sequence[Deriver]:
    """What asks for passes by the calendar, requires their work, and forgets what came to nothing long ago."""
    schedule = Schedule(scrub_days=rules.scrub_days, collect_every=rules.collect_every)
    return [throttled(schedule, _LOOK_EVERY), derive_upkeep, throttled(forget_uploads, _FORGET_EVERY)]


def forget_uploads(session: Session, now: datetime) -> None:
    """Remove uploads that came to nothing long ago and that no version names."""
    is_named = exists().where(
        ModelVersionRow.workspace_id == UploadRow.workspace_id, ModelVersionRow.upload_id == UploadRow.id
    )
    session.execute(
        delete(UploadRow).where(
            UploadRow.state.in_(("EXPIRED", "FAILED")), UploadRow.expires_at < now - UPLOADS_KEPT, ~is_named
        ),
        execution_options={"synchronize_session": False},
    )
