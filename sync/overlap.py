"""Copies that would bring the same blocks to the same place: one goes, and the others bring the rest when it has ended.

Only a copy that has said so (it has reserved what it may cost) is waited for, and who waits has given its lease back
and holds nothing: so nobody waits for somebody who waits. A copy that dies is waited for no longer than its lease. More
urgent work waits for nobody less urgent, and of those that wait the oldest goes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import select

from fairlead.registry.replicas import REPLICATE, ReplicaKey
from fairlead.registry.tables import ArtifactRow, LocationRow, ReplicaRow, WorkRow
from fairlead.sync.missing import ContentsReader, VerifiedReplica
from fairlead.sync.sources import find_sources

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.blocks import BlockShelf
    from fairlead.registry.locations import Location, StoreOpener
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.store.copy import CopyPlan

# Sharing less than this part of what has to be moved is not worth waiting for.
_WORTH_WAITING = 1 / 16
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A copy under way to the same shelf, and where its artifact can be read."""

    digest: str
    replicas: tuple[VerifiedReplica, ...]


class Overlaps:
    """Tells which copies under way bring much of what another one has to move. Safe to share between threads."""

    def __init__(self, *, catalog: Catalog, open_store: StoreOpener) -> None:
        self._catalog = catalog
        self._contents = ContentsReader(open_store)

    def unless_rivalled(
        self,
        database: Database,
        leased: LeasedWork,
        *,
        shelf: BlockShelf,
        destination: Location,
        plan: CopyPlan,
        clock: Clock,
        action: Callable[[Session], _T],
    ) -> _T | Rival:
        """Do something in a transaction in which no copy worth waiting for is under way; or give the one that is."""
        is_worth: dict[str, bool] = {}
        while True:
            with database.write() as session:
                rivals = self._find_rivals(session, leased, shelf, destination, clock.now())
                unknown = [rival for rival in rivals if rival.digest not in is_worth]
                if not unknown:
                    waited_for = next((rival for rival in rivals if is_worth[rival.digest]), None)
                    return action(session) if waited_for is None else waited_for
            for rival in unknown:
                is_worth[rival.digest] = self._is_worth_waiting(rival, shelf, plan)

    def _find_rivals(
        self, session: Session, leased: LeasedWork, shelf: BlockShelf, destination: Location, now: datetime
    ) -> list[Rival]:
        """The copies that are being made to a shelf and are at least as urgent.

        The location's row stays locked until the transaction ends, so that of two copies that ask at once the second
        one finds the first.
        """
        place = select(LocationRow.id).where(
            LocationRow.workspace_id == shelf.workspace_id, LocationRow.id == shelf.location_id
        )
        session.execute(place.with_for_update(key_share=True))
        running = select(WorkRow.subject).where(
            WorkRow.workspace_id == shelf.workspace_id,
            WorkRow.residency == shelf.residency,
            WorkRow.kind == REPLICATE,
            WorkRow.subject.endswith(f"/{shelf.location_id}", autoescape=True),
            WorkRow.id != leased.id,
            WorkRow.priority <= leased.priority,
            WorkRow.lease_expires_at > now,
            WorkRow.reserved_usd.is_not(None),
        )
        keys = [ReplicaKey.from_subject(shelf.workspace_id, subject) for subject in session.scalars(running).all()]
        return [
            Rival(digest=key.artifact_digest, replicas=self._replicas(session, key, destination, now))
            for key in keys
            if _key_id(session, key) == shelf.key_id
        ]

    def _is_worth_waiting(self, rival: Rival, shelf: BlockShelf, plan: CopyPlan) -> bool:
        """Whether a rival brings so much of what a plan moves that it is cheaper to wait for it; reads its layout."""
        contents = self._contents.read(shelf.workspace_id, shelf.residency, rival.digest, rival.replicas)
        if contents is None:
            return False
        shared = sum(block.stored_length for block in plan.moved.values() if block.digest in contents.stored_lengths)
        return shared > plan.bytes * _WORTH_WAITING

    def _replicas(
        self, session: Session, key: ReplicaKey, destination: Location, now: datetime
    ) -> tuple[VerifiedReplica, ...]:
        row = session.get(ReplicaRow, (key.workspace_id, key.residency, key.artifact_digest, key.location_id))
        if row is None:
            return ()
        sources = find_sources(session, self._catalog, row, destination, now)
        return tuple(
            VerifiedReplica(location=source.location, layout_key=source.layout_key, stored_bytes=0)
            for source in sources.ranked
        )


def _key_id(session: Session, key: ReplicaKey) -> str | None:
    row = session.get(ArtifactRow, (key.workspace_id, key.residency, key.artifact_digest))
    return None if row is None else row.key_id
