"""The worker's side of erasures: artifacts are looked through, and written anew without the subject.

Whoever does it finds the subject by its hash, in a region that has the rows. It may be done again at any point: what
was written and not noted is an artifact that nothing refers to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.catalog import Residency, permits
from fairlead.core.errors import CorruptSnapshot, IntegrityError, ObjectNotFound, ReplicaUnavailable
from fairlead.core.ids import Digest, digest_hex
from fairlead.featurestore.definitions import VIEW, ViewDefinition, view_from_content
from fairlead.featurestore.duck import fetch_number, fetch_rows, load_arrow, open_duckdb, quote_text
from fairlead.featurestore.erasure_rows import DROPPED, SNAPSHOT, UNTOUCHED, VERIFYING, WAITING, was_stray
from fairlead.featurestore.erasure_steps import rewritten_before
from fairlead.featurestore.forgotten import Forgotten, is_forgotten, is_kept, to_forgotten
from fairlead.featurestore.replica_rows import ArtifactName, ReplicaRows
from fairlead.featurestore.row_files import RowWriter, WrittenRows, columns_of, iter_groups
from fairlead.featurestore.row_statistics import measure_rows
from fairlead.featurestore.rows import ROWS_FILE, row_columns
from fairlead.featurestore.stored_rows import Successor, write_base, write_successor
from fairlead.featurestore.strays import claim
from fairlead.featurestore.tables import FeatureVersionRow
from fairlead.featurestore.tables_erasures import ErasedArtifactRow, ErasureRow
from fairlead.registry import work
from fairlead.registry.identity import system_caller
from fairlead.registry.tables import ArtifactRow, WorkspaceRow
from fairlead.sync.shelves import domain_of_upload, open_for_writing
from fairlead.sync.store.blocks import no_blocks
from fairlead.sync.store.layout import blocks_of_newest_layout
from fairlead.sync.store.manifest import read_manifest
from fairlead.sync.store.writer import write_artifact

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.uploads import Uploads
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.scratch import Scratch
    from fairlead.sync.store.blocks import KnownBlocks
    from fairlead.sync.store.domain import DedupDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    artifact: ArtifactName
    before: ArtifactName | None
    kind: str
    view: ViewDefinition
    labels: Mapping[str, str]
    forgotten: Forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rewritten:
    rows: int
    removed: int
    written: WrittenRows | None
    statistics: dict[str, Any]


class EraseRowsHandler:
    """Looks through one artifact, and writes it anew if it holds the subject; for work of the kind `erase-rows`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        uploads: Uploads,
        open_store: StoreOpener,
        replicas: ReplicaRows,
        scratch: Scratch,
    ) -> None:
        self._database = database
        self._clock = clock
        self._uploads = uploads
        self._open_store = open_store
        self._replicas = replicas
        self._scratch = scratch

    def __call__(self, leased: LeasedWork) -> None:
        """Note that the subject is not in it, or hand the artifact without it over to be verified.

        Raises:
            LeaseLost: if another worker took over.
            ReplicaUnavailable, StorageFull, Unavailable: if it cannot be done now; it is tried again.
        """
        task = self._load(leased)
        if task is None:
            return
        if isinstance(task, ArtifactName):
            self._note(leased, state=DROPPED, blocks=self._blocks(task, leased))
            return
        stored = self._replicas.fetch_stored(task.artifact, near=leased.region)
        with self._scratch.folder("erase-") as folder, open_duckdb(folder) as connection:
            if not any(_count(connection, path, task) for path in stored.files.values()):
                self._note(leased, state=UNTOUCHED)
                return
            flat = self._replicas.fetch(task.artifact, near=leased.region)
            path = folder / ROWS_FILE
            done = _rewrite(connection, flat, path, task)
            blocks = self._blocks(task.artifact, leased)
            successor = self._successor(leased, task, path, done.written, folder)
            upload_id, digest = self._upload(leased, task, successor.files)
        facts = {
            "rows": done.rows,
            "rows_digest": None if done.written is None else done.written.digest,
            "deltas": successor.deltas,
            "statistics": self._told(leased, task, done),
        }
        self._note(
            leased,
            state=VERIFYING,
            upload_id=upload_id,
            new_digest=digest,
            rows_removed=done.removed,
            told=facts,
            blocks=blocks,
        )

    def _load(self, leased: LeasedWork) -> _Task | ArtifactName | None:
        """What is to be done; a stray by its name alone, since it is not looked through."""
        with self._database.write() as session:
            row = _find_artifact(session, leased)
            erasure = None if row is None else session.get(ErasureRow, (leased.workspace_id, row.erasure_id))
            if row is None or erasure is None or row.state != WAITING:
                work.finish(session, leased)
                return None
            facts = row.facts or {}
            artifact = ArtifactName(workspace_id=row.workspace_id, residency=row.residency, digest=row.digest)
            if was_stray(row):
                return artifact
            version = session.get_one(FeatureVersionRow, (row.workspace_id, VIEW, facts["view"], facts["view_digest"]))
            return _Task(
                artifact=artifact,
                before=rewritten_before(session, row),
                kind=row.kind,
                view=view_from_content(version.content, row.residency),
                labels=_labels_of(session, row),
                forgotten=to_forgotten(erasure),
            )

    def _blocks(self, artifact: ArtifactName, leased: LeasedWork) -> bytes:
        """The names of the blocks that an artifact is stored in, which its packs are told by."""
        blocks = self._replicas.block_digests(artifact, near=leased.region)
        return b"".join(bytes.fromhex(digest_hex(each)) for each in sorted(blocks))

    def _successor(
        self, leased: LeasedWork, task: _Task, flat: Path, written: WrittenRows | None, folder: Path
    ) -> Successor:
        """The rows as a base, or as what the snapshot before was written anew as with a delta."""
        if task.before is None or written is None:
            return write_base(flat)
        try:
            before = self._replicas.fetch_stored(task.before, only=leased.region)
            flat_before = self._replicas.fetch(task.before, only=leased.region)
        except (ReplicaUnavailable, CorruptSnapshot):
            return write_base(flat)  # A base needs nothing.
        by = [*(key.name for key in task.view.keys), task.view.source.timestamp_field]
        return write_successor(before, flat_before, flat, written, folder, by=by)

    def _upload(self, leased: LeasedWork, task: _Task, files: Mapping[str, Path]) -> tuple[str, str]:
        caller = system_caller(leased.workspace_id, "worker")
        upload = self._uploads.begin(
            caller, kind=task.kind, residency=task.artifact.residency, labels=task.labels, region=leased.region
        )
        store = open_for_writing(self._open_store, upload.location, residency=upload.residency)
        domain = domain_of_upload(upload, leased.workspace_id)
        # On nothing else that is there already: that is on its way out.
        written = write_artifact(store, domain, files, known_blocks=_blocks_of(store, domain, task.before))
        self._uploads.complete(
            caller,
            upload.id,
            artifact_digest=written.digest,
            layout_key=written.layout_key,
            sent_bytes=written.sent_bytes,
        )
        return upload.id, written.digest

    def _told(self, leased: LeasedWork, task: _Task, done: _Rewritten) -> dict[str, Any]:
        """Of rows that must stay elsewhere, the record holds how many there are and no more."""
        with self._database.read() as session:
            jurisdiction = session.get_one(WorkspaceRow, leased.workspace_id).jurisdiction or ""
        return done.statistics if permits(Residency(task.artifact.residency), jurisdiction) else {"rows": done.rows}

    def _note(self, leased: LeasedWork, *, state: str, told: dict[str, Any] | None = None, **values: Any) -> None:
        with self._database.write() as session:
            row = _find_artifact(session, leased)
            if row is not None and row.state == WAITING:
                if (upload_id := values.get("upload_id")) is not None:
                    claim(session, leased.workspace_id, upload_id)
                row.state, row.changed_at = state, self._clock.now()
                row.rows_removed = 0
                row.facts = {**(row.facts or {}), **(told or {})}
                for name, value in values.items():
                    setattr(row, name, value)
            work.finish(session, leased)


def _find_artifact(session: Session, leased: LeasedWork) -> ErasedArtifactRow | None:
    erasure_id, residency, digest = leased.subject.split("/")
    key = (leased.workspace_id, erasure_id, residency, f"sha256:{digest}")
    return session.get(ErasedArtifactRow, key, with_for_update=True)


def _blocks_of(store: ObjectStore, domain: DedupDomain, artifact: ArtifactName | None) -> KnownBlocks:
    """The blocks that a location has of an artifact, if it has it."""
    try:
        if artifact is not None:
            return blocks_of_newest_layout(store, domain, read_manifest(store, domain, Digest(artifact.digest)))
    except (ObjectNotFound, IntegrityError):
        pass
    return no_blocks


def _labels_of(session: Session, row: ErasedArtifactRow) -> Mapping[str, str]:
    """Who has the artifact and pays for it, which the one in its place goes on saying."""
    artifact = session.get_one(ArtifactRow, (row.workspace_id, row.residency, row.digest))
    return {name: str(value) for name, value in artifact.labels.items()}


def _count(connection: DuckDBPyConnection, path: Path, task: _Task) -> int:
    """How many rows of the subject are in one file of an artifact."""
    file = f"read_parquet({quote_text(str(path))})"
    columns = {str(row[0]) for row in fetch_rows(connection, f"DESCRIBE SELECT * FROM {file}")}  # noqa: S608
    if not set(task.forgotten.subject.keys) <= columns:
        return 0  # which rows a delta takes out, by their places
    condition = is_forgotten(task.forgotten, task.view.source.timestamp_field)
    return fetch_number(connection, f"SELECT count(*) FROM {file} WHERE {condition}")  # noqa: S608


def _rewrite(connection: DuckDBPyConnection, flat: Path, destination: Path, task: _Task) -> _Rewritten:
    """Write the rows of all others, in the order in which they are."""
    arrow = load_arrow()
    event = task.view.source.timestamp_field
    file = f"read_parquet({quote_text(str(flat))}, file_row_number = true)"
    before = fetch_number(connection, f"SELECT count(*) FROM {file}")  # noqa: S608
    places = fetch_rows(
        connection,
        f"SELECT file_row_number FROM {file} WHERE {is_forgotten(task.forgotten, event)} ORDER BY 1",  # noqa: S608
    )
    gone = [int(row[0]) for row in places]
    if task.kind == SNAPSHOT:
        written = _write_rows(flat, destination, gone)
        sub_view = _with_columns(task.view, arrow.parquet.read_schema(destination).names)
        measured = measure_rows(connection, sub_view, destination, written, left_out=0)
        statistics = measured.to_json()
    else:
        _write_segment(flat, destination, gone)
        written, statistics = None, {"rows": before - len(gone)}
    left = fetch_number(
        connection,
        f"SELECT count(*) FROM read_parquet({quote_text(str(destination))}) "  # noqa: S608
        f"WHERE NOT ({is_kept([task.forgotten], event)})",
    )
    assert left == 0  # noqa: S101  (what was just written is what is certified)
    return _Rewritten(rows=before - len(gone), removed=len(gone), written=written, statistics=statistics)


def _write_rows(flat: Path, destination: Path, gone: Sequence[int]) -> WrittenRows:
    with RowWriter(destination, columns_of(load_arrow().parquet.read_schema(flat))) as writer:
        for table in _without(flat, gone):
            writer.write(table)
        return writer.finish()


def _write_segment(flat: Path, destination: Path, gone: Sequence[int]) -> None:
    parquet = load_arrow().parquet
    schema = parquet.read_schema(flat)
    with parquet.ParquetWriter(destination, schema, compression="none", use_dictionary=False, version="2.6") as writer:
        for table in _without(flat, gone):
            writer.write_table(table.combine_chunks())


def _without(flat: Path, gone: Sequence[int]) -> Any:
    import numpy as np

    arrow, places, position = load_arrow(), np.array(gone, np.int64), 0
    for table in iter_groups(flat):
        mask = np.ones(table.num_rows, np.bool_)
        here = places[(places >= position) & (places < position + table.num_rows)] - position
        mask[here] = False
        position += table.num_rows
        yield table.filter(arrow.array(mask)) if len(here) else table


def _with_columns(view: ViewDefinition, names: Sequence[str]) -> ViewDefinition:
    """The sub-view that has the features of a file."""
    kept = {column.name for column in row_columns(view)} & set(names)
    return replace(view, features=tuple(each for each in view.features if each.name in kept))
