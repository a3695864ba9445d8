"""Garbage: objects that nothing refers to, on their way out, and how whoever needs one after all gets it back.

An object goes MARKED -> WITHDRAWN -> DELETING -> DELETED, each step in a transaction of its own, and only the third is
followed by a delete at the store. Two rules make that safe without a lock on anything:

- Whoever makes a layout referred to (a verified upload, a copy, a repack) calls `rescue` in the same transaction, with
  every object that the layout stands on. That takes MARKED and WITHDRAWN rows away. The collector looks for references
  only after a row is WITHDRAWN, and then moves it on only if it still is: a reference is either seen, or has taken the
  row away.
- Once DELETING, the object is lost to newcomers: `rescue` refuses, and the whole reading back begins again. The row of
  a deleted object stays, as its grave, until nobody can still be acting on what was read before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fairlead.core.errors import BeingCollected
from fairlead.registry.batches import batches
from fairlead.registry.tables_bytes import GarbageRow

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from fairlead.registry.blocks import BlockShelf

GarbageState = Literal["MARKED", "WITHDRAWN", "DELETING", "DELETED"]

REQUEST_MAX = timedelta(minutes=15)
"""No request to a store is still under way after this long, whatever became of the process that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """One object on its way out. Size is in bytes; `changed_at` is when it came into its state."""

    object_key: str
    size_bytes: int
    reason: str
    state: GarbageState
    marked_at: datetime
    changed_at: datetime


def pack_object_key(shelf: BlockShelf, pack: str) -> str:
    """The object key of a pack (hexadecimal) on a shelf."""
    return f"{shelf.workspace_id}/{shelf.residency}/{shelf.key_id}/packs/{pack[:2]}/{pack}.pack"


def list_garbage(session: Session, workspace_id: str, location_id: str) -> list[Garbage]:
    """Everything of a location that is on its way out, by key."""
    query = select(GarbageRow).where(*_at(workspace_id, location_id)).order_by(GarbageRow.object_key)
    return [_to_garbage(row) for row in session.scalars(query)]


def find_graves(session: Session, workspace_id: str, location_id: str, now: datetime) -> frozenset[str]:
    """The objects whose deletion is over: whoever reads one of these keys from now on reads what was written since.

    Asked before reading, and handed to `rescue` after it.
    """
    over = select(GarbageRow.object_key).where(
        *_at(workspace_id, location_id), GarbageRow.state == "DELETED", GarbageRow.changed_at <= now - REQUEST_MAX
    )
    return frozenset(session.scalars(over))


def rescue(
    session: Session, workspace_id: str, location_id: str, keys: Collection[str], graves: Collection[str] = frozenset()
) -> None:
    """Keep these objects: called in every transaction that makes something refer to them.

    `graves` is what `find_graves` said before they were read back.

    Raises:
        BeingCollected: if one of them is being deleted, or was deleted since it may have been read.
    """
    has_any = select(GarbageRow.object_key).where(*_at(workspace_id, location_id)).limit(1)
    if session.scalar(has_any) is None:
        return
    for some in batches(sorted(keys)):
        kept = or_(
            GarbageRow.state.in_(("MARKED", "WITHDRAWN")),
            and_(GarbageRow.state == "DELETED", GarbageRow.object_key.in_([key for key in some if key in graves])),
        )
        named = (*_at(workspace_id, location_id), GarbageRow.object_key.in_(some))
        session.execute(delete(GarbageRow).where(*named, kept), execution_options={"synchronize_session": False})
        if (lost := session.scalar(select(GarbageRow.object_key).where(*named).limit(1))) is not None:
            raise BeingCollected(
                f"The object {lost!r} is just being deleted as garbage.", hint="It is tried again by itself.", key=lost
            )


def touch_packs(session: Session, shelf: BlockShelf, packs: Collection[str]) -> None:
    """Let packs (hexadecimal) that an upload was just told of age afresh, if they were marked at all."""
    for some in batches(sorted({pack_object_key(shelf, pack) for pack in packs})):
        session.execute(
            delete(GarbageRow).where(
                *_at(shelf.workspace_id, shelf.location_id),
                GarbageRow.object_key.in_(some),
                GarbageRow.state == "MARKED",
            ),
            execution_options={"synchronize_session": False},
        )


def mark(
    session: Session,
    workspace_id: str,
    location_id: str,
    found: Iterable[tuple[str, int, str]],
    *,
    now: datetime,
) -> None:
    """Enter objects (key, size in bytes, reason) that nothing refers to; one that is entered already is left as is."""
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    for some in batches(sorted(found)):
        rows = [
            {
                "workspace_id": workspace_id,
                "location_id": location_id,
                "object_key": key,
                "size_bytes": size,
                "reason": reason,
                "state": "MARKED",
                "marked_at": now,
                "changed_at": now,
            }
            for key, size, reason in some
        ]
        session.execute(dialect.insert(GarbageRow).values(rows).on_conflict_do_nothing())


def advance(
    session: Session,
    workspace_id: str,
    location_id: str,
    garbage: Sequence[Garbage],
    *,
    state: GarbageState,
    now: datetime,
) -> list[str]:
    """Move objects on to a state, those that are still as they were when they were listed; their keys, in order."""
    moved: list[str] = []
    for some in batches(sorted(garbage, key=lambda each: (each.state, each.object_key))):
        for before in {each.state for each in some}:
            alike = [each for each in some if each.state == before]
            statement = (
                update(GarbageRow)
                .where(
                    *_at(workspace_id, location_id),
                    GarbageRow.object_key.in_([each.object_key for each in alike]),
                    GarbageRow.state == before,
                    GarbageRow.changed_at <= max(each.changed_at for each in alike),
                )
                .values(state=state, changed_at=now)
                .returning(GarbageRow.object_key)
            )
            moved.extend(session.scalars(statement, execution_options={"synchronize_session": False}))
    return sorted(moved)


def bury(session: Session, workspace_id: str, location_id: str, keys: Iterable[str], now: datetime) -> None:
    """Say of objects that were DELETING that they are gone."""
    for some in batches(sorted(keys)):
        session.execute(
            update(GarbageRow)
            .where(*_at(workspace_id, location_id), GarbageRow.object_key.in_(some), GarbageRow.state == "DELETING")
            .values(state="DELETED", changed_at=now),
            execution_options={"synchronize_session": False},
        )


def unmark(session: Session, workspace_id: str, location_id: str, garbage: Sequence[Garbage]) -> None:
    """Forget objects that are still in the state that they were listed in."""
    for some in batches(sorted(garbage, key=lambda each: each.object_key)):
        for before in {each.state for each in some}:
            session.execute(
                delete(GarbageRow).where(
                    *_at(workspace_id, location_id),
                    GarbageRow.object_key.in_([each.object_key for each in some if each.state == before]),
                    GarbageRow.state == before,
                ),
                execution_options={"synchronize_session": False},
            )


def _at(workspace_id: str, location_id: str) -> tuple[ColumnElement[bool], ...]:
    return GarbageRow.workspace_id == workspace_id, GarbageRow.location_id == location_id


def _to_garbage(row: GarbageRow) -> Garbage:
    return Garbage(
        object_key=row.object_key,
        size_bytes=row.size_bytes,
        reason=row.reason,
        state=cast("GarbageState", row.state),
        marked_at=row.marked_at,
        changed_at=row.changed_at,
    )
