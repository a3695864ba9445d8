"""Bringing versions from tracking servers: fetched once, split, stored, and from then on ours.

A version that names such a source is PENDING. A worker asks the workspace's tracking servers, in order of name, for its
files, writes them to a scratch folder, stores them in a location, and hands the upload over to be verified, which makes
the version READY. A server that does not answer is asked again later; a source that no server has makes it FAILED.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.errors import Conflict, FairleadError, InvalidInput, NotFound, PermissionDenied, Unavailable
from fairlead.registry import work
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import traffic_locations
from fairlead.registry.mlflow.sources import Source, parse_source
from fairlead.registry.mlflow.tracking_servers import TrackingServer, servers_for
from fairlead.registry.models import Labels, to_labels
from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow
from fairlead.registry.version_records import PENDING
from fairlead.registry.version_states import attach_upload, fail_pull
from fairlead.sync.tracking_client import TrackingClient
from fairlead.sync.uploading import publish

if TYPE_CHECKING:
    from pathlib import Path

    from fairlead.core.db import Database
    from fairlead.core.outbound import OutboundRules
    from fairlead.core.ports import Clock
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.uploads import Upload, Uploads
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.scratch import Scratch

PULL_VERSION = "pull-version"
"""The work of bringing a version's files from a tracking server; its subject is `MODEL_ID/VERSION`."""

GIVE_UP_AFTER = timedelta(hours=24)
_log = logging.getLogger(__name__)


def derive_pulls(session: Session, now: datetime) -> None:
    """Require the work of every version that waits for its files. A `Deriver`."""
    waiting = select(ModelVersionRow).where(
        ModelVersionRow.state == PENDING,
        ModelVersionRow.upload_id.is_(None),
        ModelVersionRow.source.is_not(None),
        ModelVersionRow.deleted_at.is_(None),
    )
    for row in session.scalars(waiting).all():
        model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
        permitted = [
            location
            for location in traffic_locations(session, row.workspace_id)
            if location.permits(row.residency, model.regions)
        ]
        if permitted:
            work.require_work(
                session,
                workspace_id=row.workspace_id,
                residency=row.residency,
                kind=PULL_VERSION,
                subject=f"{row.model_id}/{row.version}",
                region=min(permitted, key=lambda location: location.name).region,
                priority=work.URGENT,
                now=now,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    source: Source
    run_id: str | None
    created_at: datetime
    regions: list[str] | None
    labels: Labels
    servers: Sequence[TrackingServer]


class VersionPull:
    """The handler of `pull-version`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        uploads: Uploads,
        open_store: StoreOpener,
        scratch: Scratch,
        rules: OutboundRules,
    ) -> None:
        self._database = database
        self._clock = clock
        self._uploads = uploads
        self._open_store = open_store
        self._scratch = scratch
        self._rules = rules

    def __call__(self, leased: LeasedWork) -> None:
        """Fetch the files of a version, store them, and hand them over."""
        model_id, _, version = leased.subject.partition("/")
        key = (leased.workspace_id, model_id, int(version))
        job = self._job(key)
        if job is None:
            with self._database.write() as session:
                work.finish(session, leased)
            return
        try:
            handed = self._bring(leased, job)
        except Unavailable as error:
            if self._clock.now() - job.created_at < GIVE_UP_AFTER:
                raise
            self._record_failure(leased, key, error)
        except (InvalidInput, NotFound, PermissionDenied, Conflict) as error:
            self._record_failure(leased, key, error)
        else:
            self._record(leased, key, handed)

    def _job(self, key: tuple[str, str, int]) -> _Job | None:
        with self._database.read() as session:
            row = session.get(ModelVersionRow, key)
            if row is None or row.state != PENDING or row.upload_id is not None or row.source is None:
                return None
            model = session.get_one(RegisteredModelRow, key[:2])
            source = parse_source(row.source)
            return _Job(
                source=source,
                run_id=row.run_id,
                created_at=row.created_at,
                regions=model.regions,
                labels=to_labels(model),
                servers=servers_for(session, row.workspace_id, source.authority),
            )

    def _bring(self, leased: LeasedWork, job: _Job) -> Upload:
        caller = system_caller(leased.workspace_id, "worker")
        labels = job.labels
        with self._scratch.folder("pull-") as folder:
            files = folder / "files"
            self._fetch(job.servers, job.source, job.run_id, files)
            upload = self._uploads.begin(
                caller,
                kind="model",
                residency=leased.residency,
                regions=job.regions,
                labels={"owner": labels.owner, "team": labels.team, "cost_centre": labels.cost_centre},
                region=leased.region,
            )
            return publish(self._uploads, self._open_store, caller, upload, files).upload

    def _fetch(self, servers: Sequence[TrackingServer], source: Source, run_id: str | None, folder: Path) -> None:
        """Write a source's files below a folder, from the first server that has them.

        Raises:
            NotFound: if no server has them.
            Unavailable: if one that might have them does not answer.
        """
        unavailable: FairleadError | None = None
        missing: FairleadError = NotFound(
            f"No tracking server is configured that '{source.text[:200]}' could be brought from.",
            hint="Add one: fairlead tracking-server add NAME URL",
        )
        for server in servers:
            # What a server gave before it failed is not mixed with what the next one gives.
            shutil.rmtree(folder, ignore_errors=True)
            try:
                with TrackingClient.connect(server, self._rules) as client:
                    client.download(source, run_id, folder)
            except Unavailable as error:
                _log.warning("tracking server %s: %s", server.name, error)
                unavailable = error
            except (NotFound, PermissionDenied) as error:
                missing = error
            else:
                return
        raise unavailable or missing

    def _record(self, leased: LeasedWork, key: tuple[str, str, int], upload: Upload) -> None:
        with self._database.write() as session:
            row = session.get_one(ModelVersionRow, key, with_for_update=True)
            if row.state == PENDING and row.upload_id is None:
                attach_upload(session, row, upload.id, self._clock.now())
            work.finish(session, leased)

    def _record_failure(self, leased: LeasedWork, key: tuple[str, str, int], error: FairleadError) -> None:
        with self._database.write() as session:
            row = session.get_one(ModelVersionRow, key, with_for_update=True)
            if row.state == PENDING and row.upload_id is None:
                fail_pull(session, row, code=error.code, detail=str(error)[:1000], now=self._clock.now())
            work.finish(session, leased)
