"""The block index: which blocks a location holds in a dedup domain, and where.

Only blocks of packs that were read back stand here, so what an upload or a copy builds on was once seen whole. It is an
index and no more: it can be rebuilt from the packs, a reader never trusts it, and a pack that is found damaged leaves
it at once, so that its blocks are sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from fairlead.registry.batches import batches
from fairlead.registry.tables import PLAIN_KEY_ID
from fairlead.registry.tables_bytes import BlockRow

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShelf:
    """One dedup domain at one location: the only place where equal blocks stand in for each other."""

    workspace_id: str
    residency: str
    location_id: str
    key_id: str = PLAIN_KEY_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlace:
    """Where one block is. `pack` and `stored_sha256` are hexadecimal; offset and lengths are in bytes."""

    digest: str
    pack: str
    offset: int
    stored_length: int
    stored_sha256: str
    plain_length: int
    codec: str
    base: str | None = None


def find_blocks(session: Session, shelf: BlockShelf, digests: Sequence[str]) -> list[BlockPlace]:
    """Those of the blocks that the shelf holds, in order of digest."""
    found: list[BlockPlace] = []
    for some in batches(sorted(set(digests))):
        rows = session.scalars(select(BlockRow).where(*_on(shelf), BlockRow.block_digest.in_(some)))
        found.extend(_to_place(row) for row in rows)
    return sorted(found, key=lambda place: place.digest)


def add_blocks(session: Session, shelf: BlockShelf, places: Iterable[BlockPlace]) -> None:
    """Enter blocks that were just read back; one that stood elsewhere before now stands here."""
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    # In one order, so that two workers that enter the same blocks wait for each other instead of locking up.
    for some in batches(sorted(places, key=lambda place: place.digest)):
        insert = dialect.insert(BlockRow).values([_to_values(shelf, place) for place in some])
        session.execute(
            insert.on_conflict_do_update(
                index_elements=["workspace_id", "residency", "key_id", "location_id", "block_digest"],
                set_={
                    name: insert.excluded[name]
                    for name in ("pack", "pack_offset", "stored_length", "stored_sha256", "plain_length", "codec")
                }
                | {"base_digest": insert.excluded.base_digest},
            )
        )


def drop_packs(session: Session, shelf: BlockShelf, packs: Collection[str]) -> int:
    """Forget every block of these packs (hexadecimal), and what stands on those blocks; how many there were.

    A block whose base is not in the index is of no use to whoever would build on it.
    """
    dropped: list[str] = []
    for some in batches(sorted(packs)):
        dropped += _drop(session, shelf, BlockRow.pack.in_(some))
    return len(dropped) + _drop_dependents(session, shelf, dropped)


def drop_blocks(session: Session, shelf: BlockShelf, digests: Collection[str]) -> int:
    """Forget blocks, and what stands on them; how many there were."""
    dropped: list[str] = []
    for some in batches(sorted(digests)):
        dropped += _drop(session, shelf, BlockRow.block_digest.in_(some))
    return len(dropped) + _drop_dependents(session, shelf, dropped)


def _drop_dependents(session: Session, shelf: BlockShelf, bases: Sequence[str]) -> int:
    count = 0
    while bases:
        dependents: list[str] = []
        for some in batches(sorted(bases)):
            dependents += _drop(session, shelf, BlockRow.base_digest.in_(some))
        count += len(dependents)
        bases = dependents
    return count


def _drop(session: Session, shelf: BlockShelf, which: ColumnElement[bool]) -> list[str]:
    statement = delete(BlockRow).where(*_on(shelf), which).returning(BlockRow.block_digest)
    return list(session.scalars(statement, execution_options={"synchronize_session": False}))


def list_packs(session: Session, shelf: BlockShelf) -> list[str]:
    """Every pack that the index names, in order."""
    return list(session.scalars(select(BlockRow.pack).where(*_on(shelf)).distinct().order_by(BlockRow.pack)))


def list_blocks(session: Session, shelf: BlockShelf) -> list[BlockPlace]:
    """Everything that the index says of a shelf."""
    return [_to_place(row) for row in session.scalars(select(BlockRow).where(*_on(shelf)))]


def _on(shelf: BlockShelf) -> tuple[ColumnElement[bool], ...]:
    return (
        BlockRow.workspace_id == shelf.workspace_id,
        BlockRow.residency == shelf.residency,
        BlockRow.key_id == shelf.key_id,
        BlockRow.location_id == shelf.location_id,
    )


def _to_values(shelf: BlockShelf, place: BlockPlace) -> dict[str, object]:
    return {
        "workspace_id": shelf.workspace_id,
        "residency": shelf.residency,
        "key_id": shelf.key_id,
        "location_id": shelf.location_id,
        "block_digest": place.digest,
        "pack": place.pack,
        "pack_offset": place.offset,
        "stored_length": place.stored_length,
        "stored_sha256": place.stored_sha256,
        "plain_length": place.plain_length,
        "codec": place.codec,
        "base_digest": place.base,
    }


def _to_place(row: BlockRow) -> BlockPlace:
    return BlockPlace(
        digest=row.block_digest,
        pack=row.pack,
        offset=row.pack_offset,
        stored_length=row.stored_length,
        stored_sha256=row.stored_sha256,
        plain_length=row.plain_length,
        codec=row.codec,
        base=row.base_digest,
    )
