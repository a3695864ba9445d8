"""The worker's side of checks of online stores: one region's own store, or log, against its own verified replica."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED, load_catalog
from fairlead.core.db import Database
from fairlead.core.errors import JsonValue, NotReady
from fairlead.core.ports import Clock
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.online_checks import DONE, PARITY, PENDING
from fairlead.featurestore.online_choice import OnlineEngines
from fairlead.featurestore.online_engines import StoreContents, StoreName
from fairlead.featurestore.online_layout import KeptView, kept_views
from fairlead.featurestore.online_parity import compare_view
from fairlead.featurestore.online_reader import OnlineStoreError
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.served_log import ServedFolder
from fairlead.featurestore.serving_skew import SkewLimits, measure_skew
from fairlead.featurestore.snapshot_views import SnapshotView, snapshot_view
from fairlead.featurestore.snapshots import find_snapshot
from fairlead.featurestore.tables import OnlineStateRow
from fairlead.featurestore.tables_servers import FeatureCheckRegionRow, FeatureCheckRow
from fairlead.registry import work
from fairlead.registry.work import LeasedWork
from fairlead.sync.scratch import Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    kind: str
    name: StoreName
    found: SnapshotView
    settings: dict[str, Any]


class OnlineCheckHandler:
    """Does one region's part of a check; a handler for work of the kind `online-check`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        replicas: ReplicaRows,
        engines: OnlineEngines,
        served: ServedFolder,
        scratch: Scratch,
    ) -> None:
        self._database = database
        self._clock = clock
        self._replicas = replicas
        self._engines = engines
        self._served = served
        self._scratch = scratch

    def __call__(self, leased: LeasedWork) -> None:
        """Compare, and note what was found.

        Raises:
            LeaseLost: if another worker took over.
            NotReady, ReplicaUnavailable, Unavailable: if it cannot be done now; it is tried again.
        """
        region, _, check = leased.subject.partition("/")
        task = self._load(leased, region, check)
        if task is None:
            return
        findings: dict[str, JsonValue] | None = None
        problem = None
        with self._scratch.folder("check-") as scratch:
            views = self._views(task)
            if task.kind == PARITY:
                try:
                    findings = self._compare(task, views, scratch)
                except FileNotFoundError:
                    problem = "its store is not there"
                except OnlineStoreError as error:
                    problem = str(error)
            else:
                findings = self._measure(task, views, scratch)
        with self._database.write() as session:
            part = session.get(FeatureCheckRegionRow, (leased.workspace_id, check, region), with_for_update=True)
            if part is not None:
                part.state, part.findings, part.error_detail = DONE, findings, problem
                part.finished_at = self._clock.now()
            work.finish(session, leased)

    def _load(self, leased: LeasedWork, region: str, check: str) -> _Task | None:
        with self._database.write() as session:
            part = session.get(FeatureCheckRegionRow, (leased.workspace_id, check, region))
            row = session.get(FeatureCheckRow, (leased.workspace_id, check))
            if part is None or row is None or part.state != PENDING:
                work.finish(session, leased)
                return None
            digest = row.slot or _wanted(session, row, region)
            return _Task(
                kind=row.kind,
                name=StoreName(workspace_id=row.workspace_id, service=row.service, region=region),
                found=snapshot_view(session, find_snapshot(session, row.workspace_id, digest)),
                settings=dict(row.settings),
            )

    def _views(self, task: _Task) -> list[KeptView]:
        rows: dict[str, list[ViewRows]] = {}
        for part in task.found.permitted(load_catalog().region(task.name.region).jurisdiction):
            path = self._replicas.fetch(part.artifact, only=task.name.region)
            rows.setdefault(part.name, []).append(ViewRows(view=part.view, path=path))
        pinned = task.found.pinned
        return kept_views(StoreContents(service=pinned.service, views=pinned.views, rows=rows, meta={}))

    def _compare(self, task: _Task, views: list[KeptView], scratch: Path) -> dict[str, JsonValue]:
        reader = self._engines.of(task.name.region).reader(task.name)
        try:
            meta, stored = reader.meta, {view.alias: view for view in reader.views}
            findings: dict[str, JsonValue] = {"served": meta["snapshot"], "expected": task.found.digest, "views": []}
            # What serves another version of the service has other columns; that alone is the finding.
            if meta["service_digest"] == task.found.pinned.digest:
                compared = [
                    compare_view(
                        view,
                        stored.get(view.projection.alias),
                        reader,
                        seed=str(task.settings["seed"]),
                        sample=int(task.settings["sample"]),
                        scratch=scratch,
                    )
                    for view in views
                ]
                findings["views"] = [
                    found.to_json(is_restricted=_is_restricted(task.found, view.view.name))
                    for view, found in zip(views, compared, strict=True)
                    # Of what may not be here, only that it is not.
                    if found.differences or not view.is_missing
                ]
            if reader.meta["snapshot"] != meta["snapshot"]:
                raise NotReady(
                    f"{task.name.region} went on to another snapshot while it was compared.",
                    hint="It is compared again by itself.",
                )
        finally:
            reader.close()
        return findings

    def _measure(self, task: _Task, views: list[KeptView], scratch: Path) -> dict[str, JsonValue]:
        name = task.name
        files = self._served.files(name.region, name.workspace_id, name.service)
        limits = SkewLimits(psi=float(task.settings["psi"]), ks=float(task.settings["ks"]))
        return {
            "snapshot": task.found.digest,
            "files": len(files),
            "features": [
                each.to_json(is_restricted=is_restricted)
                for view in views
                for is_restricted in [_is_restricted(task.found, view.view.name)]
                for each in measure_skew([view], files, limits, scratch=scratch)
            ],
        }


def _is_restricted(found: SnapshotView, view: str) -> bool:
    return any(part.residency != UNRESTRICTED for part in found.parts if part.name == view)


def _wanted(session: Session, row: FeatureCheckRow, region: str) -> str:
    state = session.get(OnlineStateRow, (row.workspace_id, row.service, region))
    return row.snapshot_digest if state is None else state.wanted_snapshot
