"""Copies of the record: each location holds, signed, what is needed to serve and to restore when the registry is gone.

A copy goes up to an event of the sealed audit log, so whatever changes the record gets out: a location whose copy is
older gets the rows as of now. Only documents that differ from those that lie there are written. Rows of data that may
not be at a location, names of models among them, are not in its copy.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, select, update
from sqlalchemy.orm import Session

from fairlead.core.data_keys import WrappedKey
from fairlead.core.ids import Digest, sha256_digest
from fairlead.registry import work
from fairlead.registry.keys import active_key_id
from fairlead.registry.locations import Location, get_location
from fairlead.registry.tables import AuditEventRow, LocationRow, WorkspaceRow
from fairlead.registry.tables_bytes import EncryptionKeyRow
from fairlead.sync.record_rows import MODEL, SETTINGS, RecordedRow, RecordSource
from fairlead.sync.shelves import open_location
from fairlead.sync.store.record import (
    WORKSPACE,
    Document,
    RecordIndex,
    directory_bytes,
    directory_of,
    document_bytes,
    document_key,
    index_key,
    list_sequences,
    write_document,
    write_index,
)

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.work import LeasedWork

PUBLISH_RECORD = "publish-record"
"""The work of bringing a location's copy of the record up to now; its subject is the location's id."""

_EVERY = timedelta(seconds=5)
_COST_SHARE = 20

KEPT_COPIES = 8
_DELETED_AT_ONCE = 16
"""How many copies back a reader may be, that began to read one before a newer one was made."""


def derive_record_publications(session: Session, now: datetime) -> None:
    """Require work for every location whose copy of the record is older than the sealed audit log."""
    sealed = (
        select(AuditEventRow.workspace_id, func.max(AuditEventRow.sequence).label("sequence"))
        .group_by(AuditEventRow.workspace_id)
        .subquery()
    )
    behind = (
        select(LocationRow)
        .join(WorkspaceRow, WorkspaceRow.workspace_id == LocationRow.workspace_id)
        .join(sealed, sealed.c.workspace_id == LocationRow.workspace_id)
        .where(
            LocationRow.kind == "storage",
            LocationRow.state != "RETIRED",
            LocationRow.published_record_sequence < WorkspaceRow.record_base + sealed.c.sequence,
        )
    )
    for location in session.scalars(behind).all():
        work.require_work(
            session,
            workspace_id=location.workspace_id,
            residency="unrestricted",
            kind=PUBLISH_RECORD,
            subject=location.id,
            region=location.region,
            priority=work.USUAL,
            now=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordState:
    """The record of a workspace as far as a location may know it. `index` has no directories yet."""

    index: RecordIndex
    documents: tuple[Document, ...]


def collect_record(
    session: Session, workspace_id: str, location: Location, sources: Sequence[RecordSource], now: datetime
) -> RecordState:
    """Every row that may be known at a location, as of the last sealed event."""
    # Read first: what commits between is then published once more, instead of not at all.
    head = session.execute(
        select(AuditEventRow.sequence, AuditEventRow.event_hash)
        .where(AuditEventRow.workspace_id == workspace_id, AuditEventRow.sequence.is_not(None))
        .order_by(AuditEventRow.sequence.desc())
        .limit(1)
    ).one_or_none()
    workspace = session.get_one(WorkspaceRow, workspace_id)
    rows = [each for source in sources for each in source(session, workspace_id)]
    documents = _permitted_documents(rows, location)
    index = RecordIndex(
        workspace=workspace_id,
        sequence=workspace.record_base + (0 if head is None else head[0] or 0),
        refs_revision=workspace.refs_revision,
        issued_at=now,
        anchor=None if head is None else f"{head[0]}:{head[1]}",
        key_id=active_key_id(session, workspace_id),
        keys=_wrapped_keys(session, workspace_id),
        directories={},
    )
    return RecordState(index=index, documents=documents)


def _permitted_documents(rows: Sequence[RecordedRow], location: Location) -> tuple[Document, ...]:
    found: defaultdict[tuple[str, str], defaultdict[str, list[Mapping[str, Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    withheld = {each.name for each in rows if each.kind == MODEL and not location.permits(each.residency, None)}
    for each in rows:
        if not location.permits(each.residency, None):
            continue
        # A policy that names a model is known only where the model may be.
        if each.kind == SETTINGS and withheld:
            text = json.dumps(each.row, ensure_ascii=False, default=str)
            if any(name in text for name in withheld):
                continue
        found[each.kind, each.name][each.table].append(each.row)
    return tuple(Document(kind=kind, name=name, rows=tables) for (kind, name), tables in sorted(found.items()))


class RecordPublication:
    """The handler of `publish-record`. `signing_key` is an Ed25519 private key, as its 32 raw bytes."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        open_store: StoreOpener,
        signing_key: bytes,
        sources: Sequence[RecordSource],
    ) -> None:
        self._database = database
        self._clock = clock
        self._open_store = open_store
        self._signing_key = signing_key
        self._sources = tuple(sources)
        # Per location, as of which sequence: the objects of its last copies, newest last.
        self._held: dict[str, tuple[int, deque[frozenset[str]]]] = {}
        self._cost_seconds = 0.0
        self._due: datetime | None = None

    def derive(self, session: Session, now: datetime) -> None:
        """Require copies now and then: no more often than costs this process a twentieth of a core."""
        if self._due is None or now >= self._due:
            derive_record_publications(session, now)
            self._due = now + max(_EVERY, _COST_SHARE * timedelta(seconds=self._cost_seconds))

    def __call__(self, leased: LeasedWork) -> None:
        """Bring one location's copy up to now, and record how far it goes.

        Raises:
            LeaseLost: if another worker took over.
            StaleRevision: if the location holds a newer copy than the record has (which an old backup may cause).
            KeyUnavailable: if the workspace encrypts and the key cannot be had; it is tried again.
            LocationUnavailable, PermissionDenied, StorageFull: from the location; it is tried again.
        """
        began = time.thread_time()
        with self._database.read() as session:
            location = get_location(session, leased.workspace_id, leased.subject)
            state = collect_record(session, leased.workspace_id, location, self._sources, self._clock.now())
            row = session.get_one(LocationRow, (leased.workspace_id, location.id))
            published = row.published_record_sequence
        if state.index.sequence > 0:
            self._publish(open_location(self._open_store, location), leased, published, state)
        self._cost_seconds = time.thread_time() - began
        with self._database.write() as session:
            session.execute(
                update(LocationRow)
                .where(and_(LocationRow.workspace_id == leased.workspace_id, LocationRow.id == location.id))
                .values(published_record_sequence=state.index.sequence)
            )
            work.finish(session, leased)

    def _publish(self, store: ObjectStore, leased: LeasedWork, published: int, state: RecordState) -> None:
        location_id = leased.subject
        index, objects = build_copy(state)
        known, held = self._held.get(location_id, (None, deque[frozenset[str]]()))
        if known != published:
            # Written by another process, or never: what lies there is seen by looking.
            prefix = f"{index.workspace}/record/{index.key_id}/"
            held = deque([frozenset(item.key for item in store.list(prefix))])
        # A location that is suspected of having lost something gets all of it again.
        present = frozenset[str]() if published < 0 else held[-1]
        for key, data in objects.items():
            if key not in present:
                write_document(store, index.workspace, index.key_id, data)
        write_index(store, index, self._signing_key)
        held.append(frozenset(objects))
        self._held[location_id] = (index.sequence, held)
        self._forget(store, leased, held)

    def _forget(self, store: ObjectStore, leased: LeasedWork, held: deque[frozenset[str]]) -> None:
        """Remove what only older copies than the last few are made of.

        Raises:
            LeaseLost: if another worker took over: what it writes may be made of these again.
        """
        workspace = leased.workspace_id
        doomed = [index_key(workspace, sequence) for sequence in list_sequences(store, workspace)[KEPT_COPIES:]]
        while len(held) > KEPT_COPIES:
            oldest = held.popleft()
            doomed += sorted(oldest.difference(*held))
        for number, key in enumerate(doomed):
            if number % _DELETED_AT_ONCE == 0:
                with self._database.write() as session:
                    work.check_lease(session, leased)
            store.delete(key)


def build_copy(state: RecordState) -> tuple[RecordIndex, dict[str, bytes]]:
    """The index of a copy, and its documents and directories by object key; directories come last."""
    index = state.index
    directories: defaultdict[str, dict[str, Digest]] = defaultdict(dict)
    objects: dict[str, bytes] = {}

    def keep(data: bytes) -> Digest:
        digest = sha256_digest(data)
        objects[document_key(index.workspace, index.key_id, digest)] = data
        return digest

    directories[WORKSPACE] = {}
    for document in state.documents:
        directory = directory_of(document.name) if document.kind == MODEL else WORKSPACE
        directories[directory][document.name] = keep(document_bytes(document))
    named = {name: keep(directory_bytes(entries)) for name, entries in sorted(directories.items())}
    return (
        RecordIndex(
            workspace=index.workspace,
            sequence=index.sequence,
            refs_revision=index.refs_revision,
            issued_at=index.issued_at,
            anchor=index.anchor,
            key_id=index.key_id,
            keys=index.keys,
            directories=named,
        ),
        objects,
    )


def _wrapped_keys(session: Session, workspace_id: str) -> tuple[WrappedKey, ...]:
    query = select(EncryptionKeyRow).where(EncryptionKeyRow.workspace_id == workspace_id).order_by(EncryptionKeyRow.id)
    return tuple(
        WrappedKey(
            workspace=workspace_id,
            key_id=row.id,
            provider=row.provider,
            provider_key=row.provider_key,
            wrapped=row.wrapped_key,
        )
        for row in session.scalars(query)
    )
