"""Makes deployments true: derives what each region should run, and runs it there.

The deriver follows pointers: when a promotion or a roll-back moves an environment, the next pass makes a revision of
it, asks for the version's bundle where there is none, and requires a deploy where the bundle is READY and VERIFIED in
that very region. What runs is looked at before each pass: an endpoint that has died, that lives and does not answer,
or that somebody changed by hand is put right the same way. Until a region's new endpoint is healthy its old one goes
on serving.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import FairleadError
from fairlead.registry import work
from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow
from fairlead.serving import revisions
from fairlead.serving.artifacts import verified_replicas
from fairlead.serving.bundles import READY, want_bundle
from fairlead.serving.deployment_spec import DeploymentSpec
from fairlead.serving.desired import DELETING, DEPLOYING, RUNNING, STOPPING, WAITING, desired_of, regions_of
from fairlead.serving.leaving import leave
from fairlead.serving.measurements import Measurements
from fairlead.serving.progress import ImageOf, Progress, no_image
from fairlead.serving.recipe import BundleRules
from fairlead.serving.tables import BundleRow, DeploymentRegionRow, DeploymentRow
from fairlead.serving.tables_targets import DeploymentRevisionRow
from fairlead.serving.targets import LOCAL, DeployTarget, EndpointSpec, RunningEndpoint
from fairlead.serving.workload import Workload

DEPLOY = "deploy"
"""The work of making one region of a deployment right; its subject is `{deployment id}/{region}`."""

UNREADY_FOR = timedelta(seconds=20)
"""How long an endpoint may live without answering before it is started again."""

MEND_AGAIN = timedelta(seconds=30)
"""How long what somebody changed by hand is left alone after it was put right, so that two do not race each other."""

_OBSERVERS = 8
_log = logging.getLogger(__name__)

OnlineStoreOf = Callable[[Session, ModelVersionRow, str], str | None]
"""The path of the online store that a version reads in a region: (session, version, region); None until it is there."""

OpenTarget = Callable[[str, str], DeployTarget]
"""A target by workspace and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What was found in one place before a pass: an endpoint, nothing, or (`error`) that it cannot be asked.

    `put_at` is when the row said that something was put there; what a newer row says was not looked at.
    """

    put_at: datetime
    running: RunningEndpoint | None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where something was put: what it was, when, and on which target."""

    deployment_id: str
    region: str
    put_at: datetime
    target: str
    spec: EndpointSpec


class RolloutDeriver:
    """The deriver of deployments (see `fairlead.sync.worker.PreparedDeriver`)."""

    def __init__(
        self,
        database: Database,
        open_target: OpenTarget,
        online_store: OnlineStoreOf,
        *,
        measure: Callable[[], Measurements | None] = lambda: None,
        bundle_rules: BundleRules | None = None,
        image_of: ImageOf = no_image,
        follow_routes: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._open_target = open_target
        self._online_store = online_store
        self._measure = measure
        self._bundle_rules = bundle_rules
        self._image_of = image_of
        self._follow_routes = follow_routes
        self._seen: Mapping[tuple[str, str], _Seen] = {}
        self._measured: Measurements | None = None

    def prepare(self, _now: datetime) -> None:
        """Look at everything that runs, and at what the gateway counted where somebody wants to know."""
        self._follow_routes()
        with self._database.read() as session:
            places = [
                _Place(
                    deployment_id=row.deployment_id,
                    region=row.region,
                    put_at=row.updated_at,
                    target=row.running_target or LOCAL,
                    spec=spec,
                )
                for row in session.scalars(select(DeploymentRegionRow).where(DeploymentRegionRow.state == RUNNING))
                if (spec := _put_there(row)) is not None
            ]
            rolling = select(DeploymentRevisionRow.number).where(DeploymentRevisionRow.state == revisions.ROLLING)
            is_rolling = session.scalars(rolling.limit(1)).first() is not None
        self._measured = self._measure() if is_rolling else None
        if not places:
            self._seen = {}
            return
        with ThreadPoolExecutor(min(_OBSERVERS, len(places)), "fairlead-observe") as pool:
            found = pool.map(self._look, places)
            self._seen = {(place.deployment_id, place.region): seen for place, seen in zip(places, found, strict=True)}

    def _look(self, place: _Place) -> _Seen:
        try:
            running = self._open_target(place.spec.workspace_id, place.target).observe(place.spec)
        except FairleadError as error:
            return _Seen(put_at=place.put_at, running=None, error=str(error))
        except Exception as error:  # noqa: BLE001  (one target that breaks holds up no other)
            _log.exception("the target %s in %s could not be asked", place.target, place.region)
            return _Seen(put_at=place.put_at, running=None, error=type(error).__name__)
        return _Seen(put_at=place.put_at, running=running)

    def __call__(self, session: Session, now: datetime) -> None:
        """Require a deploy for every region that does not run what it should."""
        query = select(DeploymentRow).order_by(DeploymentRow.workspace_id, DeploymentRow.id).with_for_update()
        for row in session.scalars(query).all():
            what = f"{row.name} of {row.workspace_id}"
            try:
                with session.begin_nested():
                    self._look_after(session, row, now)
            except DBAPIError:
                raise
            except Exception:  # noqa: BLE001  (one deployment that breaks holds up no other)
                _log.exception("the deployment %s could not be looked after", what)

    def _look_after(self, session: Session, row: DeploymentRow, now: datetime) -> None:
        # A handler that records what it did meanwhile comes before this pass or after it.
        regions = regions_of(session, row, lock=True)
        if row.state == DELETING:
            for each in regions:
                each.state = STOPPING
            if not regions:
                revisions.forget(session, row)
                session.delete(row)
        else:
            if row.revision == 0:
                revisions.adopt(session, row, now)
            if left := leave(session, row, regions, now):
                revisions.without_regions(session, row, left)
            for each in regions:
                if each.state == RUNNING:
                    self._note_health(each, now)
            self._derive(session, row, now)
            regions = regions_of(session, row)
        for each in regions:
            if each.state == STOPPING:
                _require(session, row, each, now)

    def _derive(self, session: Session, row: DeploymentRow, now: datetime) -> None:
        model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
        desired = desired_of(session, model, row.environment, row.version)
        version = desired.version
        if version is not None and version.state == READY:
            bundle = desired.bundle or want_bundle(
                session, model, version, self._bundle_rules, by="fairlead:worker", now=now
            )
            self._follow(session, row, version, bundle, pointer_revision=desired.revision, now=now)
        wishes = {each.region: each.wanted_workload for each in regions_of(session, row)}
        if self._advance(session, row, now):
            # It was given up, and the one before it is what should run from now on.
            self._advance(session, row, now)
        for each in regions_of(session, row):
            if each.wanted_workload != wishes.get(each.region):
                # What it failed on, if it did, may have changed.
                work.hasten(session, workspace_id=row.workspace_id, kind=DEPLOY, subject=subject_of(each), now=now)
            self._bring_about(session, row, each, now)

    def _advance(self, session: Session, row: DeploymentRow, now: datetime) -> bool:
        """Carry the newest revision forward, or keep up the one that is LIVE; whether it was given up."""
        active = revisions.active_revision(session, row)
        if active is not None and active.state == revisions.PENDING:
            # Until the bundle is there, what was LIVE before is kept as it is.
            active = revisions.live_revision(session, row)
        if active is None or active.bundle_digest is None or active.version is None:
            return False
        places = verified_replicas(session, row.workspace_id, row.residency, active.bundle_digest)
        version = session.get_one(ModelVersionRow, (row.workspace_id, row.model_id, active.version))

        def store_of(region: str) -> str | None:
            return self._online_store(session, version, region)

        Progress(
            session=session,
            row=row,
            revision=active,
            here=frozenset(location.region for location, _ in places),
            store_of=store_of,
            image_of=self._image_of,
            is_right=lambda each: self._is_right(each, now),
            measured=self._measured,
            now=now,
        ).advance()
        return active.state == revisions.FAILED

    def _follow(
        self,
        session: Session,
        row: DeploymentRow,
        version: ModelVersionRow,
        bundle: BundleRow,
        *,
        pointer_revision: int,
        now: datetime,
    ) -> None:
        """Make a revision where the pointer has moved, and begin it once its bundle is READY."""
        newest = revisions.find_revision(session, row, row.revision)
        digest = bundle.digest if bundle.state == READY else None
        if newest is None:
            return
        if newest.state != revisions.PENDING:
            has_moved = newest.version != version.version or (digest is not None and newest.bundle_digest != digest)
            # A revision that failed is tried again when somebody moves the pointer there again.
            is_asked_again = newest.state == revisions.FAILED and newest.pointer_revision != pointer_revision
            if not has_moved and not is_asked_again:
                newest.pointer_revision = pointer_revision
                return
            spec = DeploymentSpec.from_json(row.spec)
            newest = revisions.add_revision(session, row, spec, cause="follow", by="fairlead:worker", now=now)
        newest.version, newest.pointer_revision = version.version, pointer_revision
        if digest is not None:
            newest.bundle_digest = digest
            revisions.begin(session, row, newest, now)

    def _bring_about(self, session: Session, row: DeploymentRow, each: DeploymentRegionRow, now: datetime) -> None:
        """Require a deploy of a region that is not right."""
        if each.state == STOPPING or each.wanted_workload is None or self._is_right(each, now):
            return
        if each.state in {WAITING, RUNNING}:
            each.state, each.updated_at = DEPLOYING, now
        _require(session, row, each, now)

    def _note_health(self, each: DeploymentRegionRow, now: datetime) -> None:
        seen = self._seen.get((each.deployment_id, each.region))
        if seen is None or seen.put_at != each.updated_at:
            return
        running = seen.running
        if seen.error is not None:
            health = "unknown"
        elif running is None or running.url != each.url or running.former_url != each.former_url:
            health = "down"
        else:
            health = "up" if running.is_ready else "unready"
        differences = [] if running is None else list(running.differences)
        if (each.health, each.differences or []) != (health, differences):
            each.health, each.differences = health, differences or None
        if health != "unready":
            each.unready_since = None
        elif each.unready_since is None:
            each.unready_since = now

    def _is_right(self, each: DeploymentRegionRow, now: datetime) -> bool:
        if each.state != RUNNING or each.workload != each.wanted_workload:
            return False
        if (each.running_target or LOCAL) != each.target or each.leaving_target is not None:
            return False
        if each.health == "down":
            return False
        if each.unready_since is not None and now - each.unready_since >= UNREADY_FOR:
            return False
        return not each.differences or now - each.updated_at < MEND_AGAIN


def subject_of(each: DeploymentRegionRow) -> str:
    """The subject of a region's work."""
    return f"{each.deployment_id}/{each.region}"


def _put_there(row: DeploymentRegionRow) -> EndpointSpec | None:
    if row.workload is None:
        return None
    with contextlib.suppress(KeyError, TypeError):
        return EndpointSpec(workspace_id=row.workspace_id, workload=Workload.from_json(row.workload))
    return None


def _require(session: Session, row: DeploymentRow, each: DeploymentRegionRow, now: datetime) -> None:
    work.require_work(
        session,
        workspace_id=row.workspace_id,
        residency=row.residency,
        kind=DEPLOY,
        subject=subject_of(each),
        region=each.region,
        priority=work.URGENT,
        now=now,
    )
