"""Profiles: what one replica of a bundle does on a machine, measured in a region by a worker that runs there.

Placement reads them for the throughput of a replica, and deployments for when there should be more of them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psutil
from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED
from fairlead.core.db import Database
from fairlead.core.errors import BundleNotFound, FairleadError, InvalidInput, JsonValue, NotReady, ProfileNotFound
from fairlead.core.ids import Digest
from fairlead.core.ports import Clock
from fairlead.registry import audit, work
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.limits import parse_row_id
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import RegisteredModelRow
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import RegionArtifacts, verified_replicas
from fairlead.serving.bundles import READY
from fairlead.serving.profiling import Measured, ProfileLimits, profile_bundle
from fairlead.serving.tables import BundleRow
from fairlead.serving.tables_images import BundleProfileRow
from fairlead.sync.scratch import Scratch
from fairlead.sync.worker import progress_reporter

PROFILE_BUNDLE = "profile-bundle"
"""The work of measuring a bundle; its subject is the profile's id."""

PENDING, MEASURED, FAILED = "PENDING", "MEASURED", "FAILED"
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one replica of a bundle does. Sizes are in bytes; `requests_per_second` None: no level kept the limit."""

    id: str
    reference: str
    bundle_id: str
    bundle_digest: str
    residency: str
    region: str
    state: str
    limits: Mapping[str, Any]
    instance_type: str | None
    machine: Mapping[str, Any] | None
    levels: tuple[Mapping[str, Any], ...]
    requests_per_second: float | None
    p95_ms: float | None
    cpu_ms_per_request: float | None
    peak_memory_bytes: int | None
    start_seconds: float | None
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: datetime
    finished_at: datetime | None


class Profiles:
    """Asks for profiles and shows them."""

    def __init__(self, database: Database, clock: Clock, *, wake: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._clock = clock
        self._wake = wake

    def request(
        self,
        caller: Caller,
        bundle_id: str,
        limits: ProfileLimits,
        *,
        region: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> Profile:
        """Have a bundle measured in a region (None: in one that has it). A worker of the region does it.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
            NotReady: if it is not READY.
            InvalidInput: if the region has no VERIFIED replica of it.
        """
        with self._database.write() as session:
            profile = run_once(
                session,
                caller,
                self._clock,
                key,
                result_type=Profile,
                action=lambda: self._add(session, caller, bundle_id, limits, region),
            )
        self._wake()
        return profile

    def get(self, caller: Caller, bundle_id: str, profile_id: str) -> Profile:
        """One profile of a bundle.

        Raises:
            BundleNotFound, ProfileNotFound: if there is none.
        """
        with self._database.read() as session:
            bundle, model = _find_bundle(session, caller, bundle_id)
            wanted = parse_row_id(profile_id, ProfileNotFound, what="profile")
            row = session.get(BundleProfileRow, (caller.workspace_id, wanted))
            if row is None or row.bundle_id != bundle.id:
                raise ProfileNotFound(
                    f"There is no profile {profile_id} of {model.name}/{bundle.version}.",
                    hint=f"List them with: fairlead profile list {model.name}/{bundle.version}",
                )
            return _to_profile(model.name, row)

    def list(self, caller: Caller, bundle_id: str, page: PageRequest) -> Page[Profile]:
        """The profiles of a bundle, newest first.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
        """
        with self._database.read() as session:
            bundle, model = _find_bundle(session, caller, bundle_id)
            query = select(BundleProfileRow).where(
                BundleProfileRow.workspace_id == bundle.workspace_id, BundleProfileRow.bundle_id == bundle.id
            )
            listing = ("profiles", caller.workspace_id, bundle.id)
            found = page.fetch(session, query, [BundleProfileRow.id], listing=listing, descending=True)
            return found.map(lambda row: _to_profile(model.name, row))

    def _add(
        self, session: Session, caller: Caller, bundle_id: str, limits: ProfileLimits, region: str | None
    ) -> Profile:
        bundle, model = _find_bundle(session, caller, bundle_id)
        reference = f"{model.name}/{bundle.version}"
        if bundle.state != READY or bundle.digest is None:
            raise NotReady(f"The bundle of {reference} is {bundle.state}.", hint="Wait until it is READY.")
        places = verified_replicas(session, bundle.workspace_id, bundle.residency, bundle.digest, region=region)
        if not places:
            raise InvalidInput(
                f"The bundle of {reference} has no VERIFIED replica in {region or 'any region'}.",
                hint="See which copies go on: fairlead work",
            )
        row = BundleProfileRow(
            workspace_id=bundle.workspace_id,
            bundle_id=bundle.id,
            bundle_digest=bundle.digest,
            model_id=bundle.model_id,
            version=bundle.version,
            residency=bundle.residency,
            region=region or places[0][0].region,
            state=PENDING,
            limits=asdict(limits),
            levels=[],
            created_by=caller.principal,
            created_at=self._clock.now(),
        )
        session.add(row)
        session.flush()
        audit.record(
            session,
            caller,
            self._clock,
            action="bundle.profile",
            subject=reference,
            residency=row.residency,
            facts={
                "profile": row.id,
                "bundle": bundle.id,
                "region": row.region,
                "limits": dict[str, JsonValue](row.limits),
            },
        )
        return _to_profile(model.name, row)


def measured_rate(
    session: Session, workspace_id: str, bundle_digest: str, *, instance_type: str | None = None
) -> float | None:
    """The requests a second that one replica of a bundle was last measured to answer; None if nobody measured it.

    Measured on that type of instance, where it is given and there is such a profile; else on whatever it was.
    """
    query = (
        select(BundleProfileRow)
        .where(
            BundleProfileRow.workspace_id == workspace_id,
            BundleProfileRow.bundle_digest == bundle_digest,
            BundleProfileRow.state == MEASURED,
            BundleProfileRow.requests_per_second.is_not(None),
        )
        .order_by(BundleProfileRow.finished_at.desc(), BundleProfileRow.id.desc())
        .limit(100)
    )
    rows = session.scalars(query).all()
    fitting = [row for row in rows if instance_type is not None and row.instance_type == instance_type]
    return next((row.requests_per_second for row in (*fitting, *rows)), None)


def version_rate(session: Session, workspace_id: str, model_id: str, version: int) -> float | None:
    """The requests a second that one replica of a version's newest profile answers; None if nobody measured it."""
    query = (
        select(BundleProfileRow.requests_per_second)
        .where(
            BundleProfileRow.workspace_id == workspace_id,
            BundleProfileRow.model_id == model_id,
            BundleProfileRow.version == version,
            BundleProfileRow.state == MEASURED,
            BundleProfileRow.requests_per_second.is_not(None),
        )
        .order_by(BundleProfileRow.finished_at.desc(), BundleProfileRow.id.desc())
        .limit(1)
    )
    return session.scalar(query)


def derive_profiles(session: Session, now: datetime) -> None:
    """Require every profile that has not been taken. A `Deriver`."""
    for row in session.scalars(select(BundleProfileRow).where(BundleProfileRow.state == PENDING)).all():
        work.require_work(
            session,
            workspace_id=row.workspace_id,
            residency=row.residency,
            kind=PROFILE_BUNDLE,
            subject=row.id,
            region=row.region,
            priority=work.URGENT,
            now=now,
        )


class BundleProfiler:
    """The handler of `profile-bundle`. `instance_type` is that of this worker's machine, None where nobody says."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        artifacts: RegionArtifacts,
        scratch: Scratch,
        environment: Mapping[str, str],
        instance_type: str | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._artifacts = artifacts
        self._scratch = scratch
        self._environment = environment
        self._instance_type = instance_type

    def __call__(self, leased: LeasedWork) -> None:
        """Measure the bundle from the region's own replica; what fails three times is FAILED."""
        with self._database.read() as session:
            row = session.get(BundleProfileRow, (leased.workspace_id, leased.subject))
            wanted = None if row is None or row.state != PENDING else (Digest(row.bundle_digest), dict(row.limits))
        if wanted is None:
            with self._database.write() as session:
                work.finish(session, leased)
            return
        digest, limits = wanted
        try:
            with self._scratch.folder("profile-") as folder:
                bundle = folder / "bundle"
                self._artifacts.download(leased.workspace_id, leased.residency, digest, leased.region, bundle)
                measured = profile_bundle(
                    bundle,
                    folder,
                    ProfileLimits(**limits),
                    environment=self._environment,
                    report=progress_reporter(self._database, leased, phase="measure"),
                )
        except FairleadError as error:
            self._note(leased, error)
            if leased.attempt < _ATTEMPTS and not isinstance(error, InvalidInput):
                raise
            return
        self._record(leased, measured)

    def _record(self, leased: LeasedWork, measured: Measured) -> None:
        best = measured.best
        with self._database.write() as session:
            row = session.get_one(BundleProfileRow, (leased.workspace_id, leased.subject), with_for_update=True)
            row.state, row.finished_at = MEASURED, self._clock.now()
            row.instance_type, row.machine = self._instance_type, machine()
            row.levels = [each.to_json() for each in measured.levels]
            row.requests_per_second = None if best is None else best.requests_per_second
            row.p95_ms = None if best is None else best.p95_ms
            row.cpu_ms_per_request = None if best is None else best.cpu_ms_per_request
            row.peak_memory_bytes, row.start_seconds = measured.peak_memory_bytes, measured.start_seconds
            row.error_code = row.error_detail = None
            model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
            audit.record_at(
                session,
                system_caller(row.workspace_id, "worker"),
                self._clock.now(),
                action="bundle.profiled",
                subject=f"{model.name}/{row.version}",
                residency=row.residency,
                facts={"profile": row.id, "region": row.region, "bundle": row.bundle_digest},
            )
            work.finish(session, leased)

    def _note(self, leased: LeasedWork, error: FairleadError) -> None:
        is_final = leased.attempt >= _ATTEMPTS or isinstance(error, InvalidInput)
        with self._database.write() as session:
            work.check_lease(session, leased)
            row = session.get_one(BundleProfileRow, (leased.workspace_id, leased.subject), with_for_update=True)
            # A log may quote data, and the record may lie outside of its jurisdiction.
            said = str(error) if row.residency == UNRESTRICTED else f"It failed ({error.code}); see the worker's log."
            row.error_code, row.error_detail = error.code, said[:2000]
            if is_final:
                row.state, row.finished_at = FAILED, self._clock.now()
                work.finish(session, leased)


def machine() -> dict[str, JsonValue]:
    """What this process runs on, as far as it matters to how fast a model answers."""
    return {
        "architecture": platform.machine(),
        "vcpus": psutil.cpu_count() or 1,
        "memory_bytes": int(psutil.virtual_memory().total),
        "python": platform.python_version(),
    }


def _find_bundle(session: Session, caller: Caller, bundle_id: str) -> tuple[BundleRow, RegisteredModelRow]:
    row = session.get(BundleRow, (caller.workspace_id, parse_row_id(bundle_id, BundleNotFound, what="bundle")))
    if row is None:
        raise BundleNotFound(f"There is no bundle {bundle_id}.", hint="List them with: fairlead bundle")
    return row, session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))


def _to_profile(name: str, row: BundleProfileRow) -> Profile:
    return Profile(
        id=row.id,
        reference=f"{name}/{row.version}",
        bundle_id=row.bundle_id,
        bundle_digest=row.bundle_digest,
        residency=row.residency,
        region=row.region,
        state=row.state,
        limits=row.limits,
        instance_type=row.instance_type,
        machine=row.machine,
        levels=tuple(row.levels),
        requests_per_second=row.requests_per_second,
        p95_ms=row.p95_ms,
        cpu_ms_per_request=row.cpu_ms_per_request,
        peak_memory_bytes=row.peak_memory_bytes,
        start_seconds=row.start_seconds,
        error_code=row.error_code,
        error_detail=row.error_detail,
        created_by=row.created_by,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
