"""Smoke tests of bundles, as work: asked for, run by a worker where the bundle is VERIFIED, and seen by the gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED
from fairlead.core.db import Database
from fairlead.core.errors import BundleNotFound, FairleadError, NotReady
from fairlead.core.ids import parse_digest
from fairlead.core.ports import Clock
from fairlead.registry import audit, work
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.limits import parse_row_id
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import RegisteredModelRow
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import RegionArtifacts, verified_replicas
from fairlead.serving.bundles import READY
from fairlead.serving.recipe import BundleRules
from fairlead.serving.smoke_run import SmokeResult, run_smoke_test
from fairlead.serving.tables import BundleRow
from fairlead.serving.tables_bundles import BundleTestRow
from fairlead.sync.scratch import Scratch

TEST_BUNDLE = "test-bundle"
"""The work of testing a bundle; its subject is the test's id."""

PENDING, PASSED, FAILED = "PENDING", "PASSED", "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleTest:
    """One smoke test. `answered` and `compared` count predictions; `error_...` say what failed or is waited for."""

    id: str
    bundle_id: str
    reference: str
    state: str
    answered: int | None
    compared: int | None
    largest_difference: float | None
    seconds: float | None
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: datetime
    finished_at: datetime | None


class BundleTests:
    """Asks for smoke tests and shows them."""

    def __init__(self, database: Database, clock: Clock, *, wake: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._clock = clock
        self._wake = wake

    def request(self, caller: Caller, bundle_id: str) -> BundleTest:
        """Ask for a test of a READY bundle; one that has not finished yet is the answer.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
            NotReady: if it is not built yet.
        """
        with self._database.write() as session:
            bundle, name = _find_bundle(session, caller, bundle_id)
            if bundle.state != READY:
                raise NotReady(
                    f"The bundle of {name}/{bundle.version} is {bundle.state}, so it cannot be tested.",
                    hint=f"See what it waits for: fairlead bundle show {name}/{bundle.version}",
                )
            of_bundle = select(BundleTestRow).where(
                BundleTestRow.workspace_id == bundle.workspace_id, BundleTestRow.bundle_id == bundle.id
            )
            row = session.scalars(of_bundle.where(BundleTestRow.state == PENDING).limit(1)).first()
            if row is None:
                row = BundleTestRow(
                    workspace_id=bundle.workspace_id,
                    bundle_id=bundle.id,
                    model_id=bundle.model_id,
                    residency=bundle.residency,
                    state=PENDING,
                    created_by=caller.principal,
                    created_at=self._clock.now(),
                )
                session.add(row)
                session.flush()
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="bundle.test",
                    subject=f"{name}/{bundle.version}",
                    residency=bundle.residency,
                    facts={"bundle": bundle.id, "test": row.id},
                )
            test = _to_test(f"{name}/{bundle.version}", row)
        self._wake()
        return test

    def list(self, caller: Caller, bundle_id: str, page: PageRequest) -> Page[BundleTest]:
        """The tests of a bundle, newest first.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
        """
        with self._database.read() as session:
            bundle, name = _find_bundle(session, caller, bundle_id)
            query = select(BundleTestRow).where(
                BundleTestRow.workspace_id == bundle.workspace_id, BundleTestRow.bundle_id == bundle.id
            )
            listing = ("bundle-tests", caller.workspace_id, bundle.id)
            found = page.fetch(session, query, [BundleTestRow.id], listing=listing, descending=True)
            return found.map(lambda row: _to_test(f"{name}/{bundle.version}", row))


def derive_bundle_tests(session: Session, now: datetime) -> None:
    """Require every test that has not finished, in a region where its bundle is VERIFIED. A `Deriver`."""
    for row in session.scalars(select(BundleTestRow).where(BundleTestRow.state == PENDING)).all():
        bundle = session.get_one(BundleRow, (row.workspace_id, row.bundle_id))
        sources = verified_replicas(session, row.workspace_id, row.residency, bundle.digest or "")
        if sources:
            work.require_work(
                session,
                workspace_id=row.workspace_id,
                residency=row.residency,
                kind=TEST_BUNDLE,
                subject=row.id,
                region=sources[0][0].region,
                priority=work.URGENT,
                now=now,
            )


class BundleTester:
    """The handler of `test-bundle`."""

    def __init__(
        self, database: Database, clock: Clock, artifacts: RegionArtifacts, scratch: Scratch, *, rules: BundleRules
    ) -> None:
        self._database = database
        self._clock = clock
        self._artifacts = artifacts
        self._scratch = scratch
        self._rules = rules

    def __call__(self, leased: LeasedWork) -> None:
        """Run the bundle from the region's own replica in processes of its own, and write down what came of it."""
        digest = self._digest(leased)
        if digest is None:
            with self._database.write() as session:
                work.finish(session, leased)
            return
        try:
            result = self._run(leased, digest)
        except FairleadError as error:
            with self._database.write() as session:
                work.check_lease(session, leased)
                row = session.get_one(BundleTestRow, (leased.workspace_id, leased.subject), with_for_update=True)
                row.error_code, row.error_detail = error.code, str(error)[:2000]
            raise
        with self._database.write() as session:
            row = session.get_one(BundleTestRow, (leased.workspace_id, leased.subject), with_for_update=True)
            _record(session, row, result, self._clock.now())
            work.finish(session, leased)

    def _digest(self, leased: LeasedWork) -> str | None:
        with self._database.read() as session:
            row = session.get(BundleTestRow, (leased.workspace_id, leased.subject))
            if row is None or row.state != PENDING:
                return None
            return session.get_one(BundleRow, (row.workspace_id, row.bundle_id)).digest

    def _run(self, leased: LeasedWork, digest: str) -> SmokeResult:
        with self._scratch.folder("smoke-test-") as scratch:
            bundle = scratch / "bundle"
            self._artifacts.download(leased.workspace_id, leased.residency, parse_digest(digest), leased.region, bundle)
            return run_smoke_test(
                bundle,
                scratch,
                seconds=self._rules.test_seconds,
                memory_bytes=self._rules.test_memory_bytes,
                index=self._rules.package_index,
            )


def _record(session: Session, row: BundleTestRow, result: SmokeResult, now: datetime) -> None:
    row.state = PASSED if result.failure is None else FAILED
    row.answered, row.compared = result.answered, result.compared
    row.largest_difference, row.seconds, row.finished_at = result.largest_difference, result.seconds, now
    row.error_code = None if result.failure is None else "smoke-test-failed"
    # The record may lie outside the jurisdiction of what a failure quotes.
    is_said = row.residency == UNRESTRICTED or not result.is_of_data
    row.error_detail = (
        None if result.failure is None else result.failure[:2000] if is_said else "It stays in the region."
    )
    bundle = session.get_one(BundleRow, (row.workspace_id, row.bundle_id))
    name = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id)).name
    audit.record_at(
        session,
        system_caller(row.workspace_id, "worker"),
        now,
        action="bundle.tested",
        subject=f"{name}/{bundle.version}",
        residency=row.residency,
        facts={"bundle": bundle.id, "test": row.id, "state": row.state, "compared": row.compared},
    )


def _find_bundle(session: Session, caller: Caller, bundle_id: str) -> tuple[BundleRow, str]:
    row = session.get(BundleRow, (caller.workspace_id, parse_row_id(bundle_id, BundleNotFound, what="bundle")))
    if row is None:
        raise BundleNotFound(f"There is no bundle {bundle_id}.", hint="List them with: fairlead bundle")
    return row, session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id)).name


def _to_test(reference: str, row: BundleTestRow) -> BundleTest:
    return BundleTest(
        id=row.id,
        bundle_id=row.bundle_id,
        reference=reference,
        state=row.state,
        answered=row.answered,
        compared=row.compared,
        largest_difference=row.largest_difference,
        seconds=row.seconds,
        error_code=row.error_code,
        error_detail=row.error_detail,
        created_by=row.created_by,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
