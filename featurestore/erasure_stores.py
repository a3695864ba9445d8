"""Online stores and logs of an erasure: each forgets the subject where it is.

Who the subject is, is learnt in the region itself: from the artifacts that were rewritten and that may be there, from
the keys that a store can list, and from rows that were pushed and not sealed yet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from fairlead.catalog import Residency, load_catalog, permits
from fairlead.core.errors import NotReady
from fairlead.featurestore.definitions import VIEW, ViewDefinition, view_from_content
from fairlead.featurestore.duck import fetch_rows, open_duckdb, quote_name, quote_text
from fairlead.featurestore.erasure_rows import DONE, GIVEN_UP, LOG, REPLACED, artifacts_of, stores_of
from fairlead.featurestore.forgotten import Forgotten, is_forgotten, pick_forgotten, to_forgotten
from fairlead.featurestore.logged_rows import unsealed_rows
from fairlead.featurestore.online_desired import MATERIALIZE
from fairlead.featurestore.replica_rows import ArtifactName, ReplicaRows
from fairlead.featurestore.tables import FeatureVersionRow
from fairlead.featurestore.tables_erasures import ErasedStoreRow, ErasureRow
from fairlead.registry import work
from fairlead.registry.tables import WorkRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.featurestore.event_logs import EventLogs
    from fairlead.featurestore.online_choice import OnlineEngines
    from fairlead.featurestore.online_engines import OnlineEngine, StoreName
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.scratch import Scratch

_Values = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    forgotten: Forgotten
    region: str
    service: str
    artifacts: Sequence[tuple[ArtifactName, ViewDefinition]]
    has_come_back: bool


class EraseStoreHandler:
    """Has the online stores of one service in one region forget the subject; for work of the kind `erase-store`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        engines: OnlineEngines,
        logs: EventLogs,
        replicas: ReplicaRows,
        scratch: Scratch,
    ) -> None:
        self._database = database
        self._clock = clock
        self._engines = engines
        self._logs = logs
        self._replicas = replicas
        self._scratch = scratch

    def __call__(self, leased: LeasedWork) -> None:
        """Learn who the subject is, and have the engine forget it.

        Raises:
            LeaseLost: if another worker took over.
            NotReady: while a store of the service is being written there; it is tried again.
            ReplicaUnavailable, Unavailable: if the rows cannot be read, or the engine's server does not answer.
        """
        task = self._load(leased)
        if task is None:
            return
        engine = self._engines.of(task.region)
        names = [each for each in engine.stores(leased.workspace_id, task.region) if each.service == task.service]
        if task.has_come_back:
            # What it holds is old, and who is meant nobody knows by now: it is made again from what is left.
            for name in names:
                engine.drop(name)
            self._note(leased, {"engine": engine.kind, "stores": len(names), "dropped": True})
            return
        removed, can_list = 0, True
        with self._scratch.folder("erase-") as folder:
            known = self._pushed(leased, task)
            for artifact, view in task.artifacts:
                known |= self._find(task, artifact, view)
            for name in names:
                count, is_listed = forget_subject(engine, name, task.forgotten, known, scratch=folder)
                removed, can_list = removed + count, can_list and is_listed
        self._note(
            leased,
            {
                "engine": engine.kind,
                "stores": len(names),
                "rows_removed": removed,
                "keys_are_listed": can_list,
                "forgets_keys": engine.forgets_keys,
            },
        )

    def _load(self, leased: LeasedWork) -> _Task | None:
        erasure_id, region, service = leased.subject.split("/", 2)
        with self._database.write() as session:
            erasure = session.get(ErasureRow, (leased.workspace_id, erasure_id))
            row = session.get(ErasedStoreRow, (leased.workspace_id, erasure_id, region, service))
            if erasure is None or row is None or row.state == DONE:
                work.finish(session, leased)
                return None
            _check_writers(session, leased.workspace_id, region, service)
            return _Task(
                forgotten=to_forgotten(erasure),
                region=region,
                service=service,
                artifacts=_readable(session, erasure, region),
                has_come_back=row.state == GIVEN_UP,
            )

    def _find(self, task: _Task, artifact: ArtifactName, view: ViewDefinition) -> set[_Values]:
        """The subject's values in an artifact that was rewritten."""
        path = self._replicas.fetch(artifact, near=task.region)
        keys = ", ".join(map(quote_name, task.forgotten.subject.keys))
        condition = is_forgotten(task.forgotten, view.source.timestamp_field)
        with self._scratch.folder("erase-") as folder, open_duckdb(folder) as connection:
            query = f"SELECT DISTINCT {keys} FROM read_parquet({quote_text(str(path))}) WHERE {condition}"  # noqa: S608
            return {tuple(row) for row in fetch_rows(connection, query)}

    def _pushed(self, leased: LeasedWork, task: _Task) -> set[_Values]:
        """The subject's values in rows of this machine's logs that are not sealed yet."""
        found: set[_Values] = set()
        for log in self._logs.local():
            if (log.workspace_id, log.region) == (leased.workspace_id, task.region):
                for batch in unsealed_rows(log):
                    found |= _values(task.forgotten, batch.rows)
        return found

    def _note(self, leased: LeasedWork, facts: dict[str, Any]) -> None:
        erasure_id, region, service = leased.subject.split("/", 2)
        with self._database.write() as session:
            key = (leased.workspace_id, erasure_id, region, service)
            row = session.get(ErasedStoreRow, key, with_for_update=True)
            if row is not None:
                row.state, row.changed_at, row.facts = DONE, self._clock.now(), facts
            work.finish(session, leased)


class ForgettingLogs:
    """A deriver for the machine that keeps logs of pushed rows: rows of a subject that are not sealed yet go."""

    def __init__(self, logs: EventLogs) -> None:
        self._logs = logs

    def __call__(self, session: Session, now: datetime) -> None:
        """Have every log of this machine forget, after the online stores have: these learn from it who is meant."""
        query = (
            select(ErasedStoreRow, ErasureRow)
            .join(
                ErasureRow,
                (ErasureRow.workspace_id == ErasedStoreRow.workspace_id) & (ErasureRow.id == ErasedStoreRow.erasure_id),
            )
            .where(ErasedStoreRow.state != DONE, ErasedStoreRow.service.startswith(LOG))
        )
        waiting = [
            (row, each) for row, each in session.execute(query).all() if _has_no_store(session, each, row.region)
        ]
        logs = {log.id: log for log in self._logs.local()} if waiting else {}
        for row, erasure in waiting:
            log = logs.get(row.service.removeprefix(LOG))
            if log is not None:
                forgotten = to_forgotten(erasure)
                removed = log.forget(partial(pick_forgotten, forgotten))
                row.state, row.facts, row.changed_at = DONE, {"rows_removed": removed}, now


def _has_no_store(session: Session, erasure: ErasureRow, region: str) -> bool:
    """Whether no online store is still to forget, of those that a log in a region waits for."""
    return all(
        row.state == DONE or row.service.startswith(LOG) or (row.state == GIVEN_UP and row.region != region)
        for row in stores_of(session, erasure)
    )


def _check_writers(session: Session, workspace_id: str, region: str, service: str) -> None:
    """Refuse while a worker may be writing old rows into a store of the service.

    Raises:
        NotReady
    """
    query = select(WorkRow.subject).where(
        WorkRow.workspace_id == workspace_id, WorkRow.kind == MATERIALIZE, WorkRow.lease_holder.is_not(None)
    )
    if any(subject.partition("@")[0] == f"{region}/{service}" for subject in session.scalars(query)):
        raise NotReady(
            f"An online store of {service!r} is just being written in {region}.", hint="It is tried again by itself."
        )


def _readable(session: Session, erasure: ErasureRow, region: str) -> list[tuple[ArtifactName, ViewDefinition]]:
    """The old artifacts that may be read in a region, and their views."""
    jurisdiction = load_catalog().region(region).jurisdiction
    found: list[tuple[ArtifactName, ViewDefinition]] = []
    for row in artifacts_of(session, erasure):
        if row.state == REPLACED and permits(Residency(row.residency), jurisdiction):
            facts = row.facts or {}
            version = session.get_one(FeatureVersionRow, (row.workspace_id, VIEW, facts["view"], facts["view_digest"]))
            artifact = ArtifactName(workspace_id=row.workspace_id, residency=row.residency, digest=row.digest)
            found.append((artifact, view_from_content(version.content, row.residency)))
    return found


def _values(forgotten: Forgotten, rows: Any) -> set[_Values]:
    if not set(forgotten.subject.keys) <= set(rows.column_names):
        return set()
    meant = rows.filter(pick_forgotten(forgotten, rows))
    return set(zip(*(meant.column(key).to_pylist() for key in forgotten.subject.keys), strict=True))


def forget_subject(
    engine: OnlineEngine, name: StoreName, forgotten: Forgotten, known: Collection[_Values], *, scratch: Path
) -> tuple[int, bool]:
    """Have one store forget; how many rows there were, and whether its keys could be listed to see that.

    `known` are values that are known to be the subject's. What an engine cannot find by them is taken away whole: the
    store is made again from what is left.
    """
    keys = forgotten.subject.keys
    reader = engine.reader(name)
    try:
        widths = {len(view.keys) for view in reader.views if set(keys) <= {own for _, _, own in view.keys}}
        listed = [_listed(reader, view, forgotten) for view in reader.views]
    except FileNotFoundError:
        return 0, True
    finally:
        reader.close()
    found: set[_Values] = set(known)
    for each in listed:
        found |= each or set[_Values]()
    if not found:
        return 0, None not in listed
    # Engines forget by one key, which others may share where several name the subject; and one that cannot find a row
    # by a part of its key keeps those.
    if len(keys) != 1 or not (engine.forgets_keys or widths <= {1}):
        engine.drop(name)
        return len(found), None not in listed
    values = sorted({value for each in found for value in each}, key=str)
    removed = sum(engine.forget_entity(name, keys[0], value, scratch=scratch) for value in values)
    return removed, None not in listed


def _listed(reader: Any, view: Any, forgotten: Forgotten) -> set[_Values] | None:
    """The subject's values among the keys of a stored view; None where they cannot be listed."""
    own = [own for _, _, own in view.keys]
    if not set(forgotten.subject.keys) <= set(own):
        return set()
    stored = reader.keys(view.alias)
    if stored is None:
        return None
    places = [own.index(key) for key in forgotten.subject.keys]
    found = (tuple(each[place] for place in places) for each in stored)
    return {each for each in found if forgotten.subject.is_meant(each)}
