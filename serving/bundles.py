"""Bundles: a model version becomes a Bento once, and travels like every other artifact.

A bundle is wanted by whoever asks for it and by every deployment whose version has none yet. A worker in a region with
a VERIFIED replica of the version builds it and hands it over as an upload; it is READY once that upload was read back,
and then replicates as far as its model may go. Its files are the model's own, so hardly a block of it is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import (
    BundleNotFound,
    FairleadError,
    InvalidInput,
    MissingExtra,
    NotReady,
    PickleRefused,
)
from fairlead.core.ids import Digest
from fairlead.core.ports import Clock
from fairlead.registry import audit, work
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.limits import parse_row_id
from fairlead.registry.models import find_model, to_labels
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow, UploadRow
from fairlead.registry.versions import Versions
from fairlead.registry.visibility import require_change
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import PublishedArtifact, RegionArtifacts, verified_replicas
from fairlead.serving.bundle import BuiltBundle, build_bundle
from fairlead.serving.bundle_features import BundledFeatures, bundled_features, find_service_digest
from fairlead.serving.bundle_papers import LOCK, PROVENANCE, SBOM, keep_paper, papers_of, read_paper
from fairlead.serving.bundle_policies import allows_pickle
from fairlead.serving.provenance import Build, provenance, sign_provenance
from fairlead.serving.recipe import BundleRules, BundleWish, Recipe
from fairlead.serving.requirements import parse_lock
from fairlead.serving.tables import BundleRow
from fairlead.sync.scratch import Scratch

BUILD_BUNDLE = "build-bundle"
"""The work of building a bundle; its subject is the bundle's id."""

PENDING, VERIFYING, READY, FAILED = "PENDING", "VERIFYING", "READY", "FAILED"

_FINAL = (InvalidInput, PickleRefused, MissingExtra)
"""What a build that is tried again would meet again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One bundle. Sizes are in bytes; `sent_bytes` is what its build added to the location.

    `papers` are those that there are, of `lock`, `sbom` and `provenance`.
    """

    id: str
    reference: str
    residency: str
    state: str
    recipe: str
    base_image: str | None
    papers: tuple[str, ...]
    digest: str | None
    size_bytes: int | None
    sent_bytes: int | None
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: datetime
    ready_at: datetime | None


class Bundles:
    """Asks for bundles and shows them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        rules: BundleRules | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._versions = Versions(database, clock)
        self._rules = rules or BundleRules()
        self._wake = wake

    def request(self, caller: Caller, reference: str, wish: BundleWish | None = None) -> Bundle:
        """Ask for the bundle of a version; the one there is already is the answer. Building goes on in a worker.

        One that has FAILED is tried again.

        Raises:
            InvalidReference: if the text is no reference.
            InvalidInput: if what is wished for makes no sense.
            ModelNotFound, ModelVersionNotFound, AliasNotFound: if there is no such version.
            NotReady: if the version's bytes are not verified yet.
            PermissionDenied: if the caller may deploy other models alone.
        """
        resolved = self._versions.resolve(caller, reference).version
        with self._database.write() as session:
            model = find_model(session, caller.workspace_id, resolved.name)
            version = session.get_one(ModelVersionRow, (model.workspace_id, model.id, resolved.version))
            if version.state != READY:
                raise NotReady(
                    f"{resolved.reference} is {version.state}, so it cannot be bundled.",
                    hint=f"Wait until it is READY: fairlead model show {resolved.name}",
                )
            recipe = (wish or BundleWish()).apply(recipe_of(session, model, version, self._rules))
            before = _find_by_recipe(session, model, version, recipe)
            row = before or _want(session, model, version, recipe, by=caller.principal, now=self._clock.now())
            is_again = row.state == FAILED
            if is_again:
                row.state = PENDING
                row.error_code = row.error_detail = None
            if before is None or is_again:
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="bundle.request",
                    subject=resolved.reference,
                    residency=row.residency,
                    facts={"bundle": row.id, "recipe": row.recipe},
                )
            bundle = _to_bundle(session, model.name, row)
        self._wake()
        return bundle

    def get(self, caller: Caller, bundle_id: str) -> Bundle:
        """One bundle.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
        """
        with self._database.read() as session:
            row = session.get(BundleRow, (caller.workspace_id, parse_row_id(bundle_id, BundleNotFound, what="bundle")))
            if row is None:
                raise BundleNotFound(f"There is no bundle {bundle_id}.", hint="List them with: fairlead bundle")
            return _to_bundle(session, _name_of(session, row), row)

    def paper(self, caller: Caller, bundle_id: str, kind: str) -> str:
        """A paper of a bundle, as text.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
            NotReady: if it is not built yet, or was built before papers were kept.
        """
        with self._database.read() as session:
            row = session.get(BundleRow, (caller.workspace_id, parse_row_id(bundle_id, BundleNotFound, what="bundle")))
            if row is None:
                raise BundleNotFound(f"There is no bundle {bundle_id}.", hint="List them with: fairlead bundle")
            content = read_paper(session, row, kind)
            if content is None:
                reference = f"{_name_of(session, row)}/{row.version}"
                raise NotReady(
                    f"The bundle of {reference} is {row.state} and has no {kind}.",
                    hint=f"Ask for it by the present recipe: fairlead bundle {reference}",
                )
            return content

    def list(self, caller: Caller, page: PageRequest, *, reference: str | None = None) -> Page[Bundle]:
        """Bundles, oldest first; with `reference`, those of one version."""
        query = select(BundleRow).where(BundleRow.workspace_id == caller.workspace_id)
        wanted = None if reference is None else self._versions.resolve(caller, reference).version
        with self._database.read() as session:
            if wanted is not None:
                model = find_model(session, caller.workspace_id, wanted.name)
                query = query.where(BundleRow.model_id == model.id, BundleRow.version == wanted.version)
            listing = ("bundles", caller.workspace_id, None if wanted is None else wanted.reference)
            found = page.fetch(session, query, [BundleRow.id], listing=listing)
            names = {row.id: _name_of(session, row) for row in found.items}
            return found.map(lambda row: _to_bundle(session, names[row.id], row))


def recipe_of(session: Session, model: RegisteredModelRow, version: ModelVersionRow, rules: BundleRules) -> Recipe:
    """What a READY version's bundle is made of, where nobody wishes for something else."""
    return rules.recipe(
        reference=f"{model.name}/{version.version}",
        artifact_digest=version.artifact_digest or "",
        feature_service=version.feature_service,
        feature_service_digest=find_service_digest(session, version),
        allows_pickle=allows_pickle(session, model, rules),
    )


def find_bundle(session: Session, model: RegisteredModelRow, version: ModelVersionRow) -> BundleRow | None:
    """The bundle that a deployment of a version runs: the newest READY one, or the newest; None where there is none.

    A newer release or another setting leaves it: what was tested and runs is replaced when somebody asks for it.
    """
    return session.scalars(
        select(BundleRow)
        .where(
            BundleRow.workspace_id == model.workspace_id,
            BundleRow.model_id == model.id,
            BundleRow.version == version.version,
        )
        .order_by(BundleRow.state != READY, BundleRow.id.desc())
        .limit(1)
    ).one_or_none()


def want_bundle(
    session: Session,
    model: RegisteredModelRow,
    version: ModelVersionRow,
    rules: BundleRules | None = None,
    *,
    by: str,
    now: datetime,
) -> BundleRow:
    """The bundle that a deployment of a READY version runs; asked for by the rules, if nobody did yet."""
    found = find_bundle(session, model, version)
    if found is not None:
        return found
    return _want(session, model, version, recipe_of(session, model, version, rules or BundleRules()), by=by, now=now)


def _find_by_recipe(
    session: Session, model: RegisteredModelRow, version: ModelVersionRow, recipe: Recipe
) -> BundleRow | None:
    return session.scalars(
        select(BundleRow).where(
            BundleRow.workspace_id == model.workspace_id,
            BundleRow.model_id == model.id,
            BundleRow.version == version.version,
            BundleRow.recipe == recipe.digest,
        )
    ).one_or_none()


def _want(
    session: Session, model: RegisteredModelRow, version: ModelVersionRow, recipe: Recipe, *, by: str, now: datetime
) -> BundleRow:
    require_change(session, model.name)
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    insert = dialect.insert(BundleRow).values(
        workspace_id=model.workspace_id,
        model_id=model.id,
        version=version.version,
        residency=version.residency,
        recipe=recipe.digest,
        recipe_facts=recipe.facts(),
        state=PENDING,
        created_by=by,
        created_at=now,
    )
    session.execute(insert.on_conflict_do_nothing(index_elements=["workspace_id", "model_id", "version", "recipe"]))
    found = _find_by_recipe(session, model, version, recipe)
    assert found is not None  # noqa: S101  (it was there, or is now)
    return found


def derive_bundles(session: Session, now: datetime) -> None:
    """Require the build of every PENDING bundle, and settle those whose upload was read back. A `Deriver`."""
    # Each is settled, and told of, by one worker.
    verifying = select(BundleRow).where(BundleRow.state == VERIFYING).order_by(BundleRow.id)
    for row in session.scalars(verifying.with_for_update(skip_locked=True)).all():
        upload = session.get(UploadRow, (row.workspace_id, row.upload_id))
        if upload is not None and upload.state == "READY":
            row.state, row.ready_at = READY, now
            row.error_code = row.error_detail = None
            _record_ready(session, row, now)
        elif upload is None or upload.state in {"FAILED", "EXPIRED"}:
            # What was stored did not read back: build and store it again.
            row.state, row.upload_id = PENDING, None
            if upload is not None:
                row.error_code, row.error_detail = upload.error_code, upload.error_detail
    for row in session.scalars(select(BundleRow).where(BundleRow.state == PENDING)).all():
        version = session.get_one(ModelVersionRow, (row.workspace_id, row.model_id, row.version))
        sources = verified_replicas(session, row.workspace_id, row.residency, version.artifact_digest or "")
        if sources:
            work.require_work(
                session,
                workspace_id=row.workspace_id,
                residency=row.residency,
                kind=BUILD_BUNDLE,
                subject=row.id,
                region=sources[0][0].region,
                priority=work.URGENT,
                now=now,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    recipe: Recipe
    lock: str | None
    regions: list[str] | None
    labels: dict[str, str]


class BundleBuilder:
    """The handler of `build-bundle`. `signing_key` are the 32 bytes that sign provenance; None: none is made."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        artifacts: RegionArtifacts,
        scratch: Scratch,
        *,
        rules: BundleRules | None = None,
        signing_key: bytes | None = None,
    ) -> None:
        self._rules = rules or BundleRules()
        self._signing_key = signing_key
        self._database = database
        self._clock = clock
        self._artifacts = artifacts
        self._scratch = scratch

    def __call__(self, leased: LeasedWork) -> None:
        """Build the bundle in a subprocess from the verified files of the version, and hand it over."""
        job = self._job(leased)
        if job is None:
            with self._database.write() as session:
                work.finish(session, leased)
            return
        started = self._clock.now()
        try:
            published = self._build(leased, job)
        except _FINAL as error:
            self._fail(leased, error)
            return
        except FairleadError as error:
            self._note(leased, error)
            raise
        with self._database.write() as session:
            row = session.get_one(BundleRow, (leased.workspace_id, leased.subject), with_for_update=True)
            row.state, row.upload_id, row.digest = VERIFYING, published.upload_id, published.digest
            row.size_bytes, row.sent_bytes = published.size_bytes, published.sent_bytes
            lock = read_paper(session, row, LOCK)
            if self._signing_key is not None and lock is not None:
                build = Build(
                    bundle_id=row.id,
                    digest=published.digest,
                    region=leased.region,
                    started_at=started,
                    finished_at=self._clock.now(),
                )
                statement = provenance(job.recipe, parse_lock(lock), build)
                envelope = json.dumps(sign_provenance(statement, self._signing_key))
                keep_paper(session, row, PROVENANCE, envelope, self._clock.now())
            work.finish(session, leased)

    def _job(self, leased: LeasedWork) -> _Job | None:
        with self._database.read() as session:
            row = session.get(BundleRow, (leased.workspace_id, leased.subject))
            if row is None or row.state != PENDING:
                return None
            model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
            version = session.get_one(ModelVersionRow, (row.workspace_id, row.model_id, row.version))
            labels = to_labels(model)
            return _Job(
                recipe=recipe_of(session, model, version, self._rules).with_facts(row.recipe_facts or {}),
                lock=read_paper(session, row, LOCK),
                regions=model.regions,
                labels={"owner": labels.owner, "team": labels.team, "cost_centre": labels.cost_centre},
            )

    def _build(self, leased: LeasedWork, job: _Job) -> PublishedArtifact:
        with self._scratch.folder("bundle-") as scratch:
            files, folder = scratch / "model", scratch / "bundle"
            self._artifacts.download(
                leased.workspace_id, leased.residency, job.recipe.artifact_digest, leased.region, files
            )
            lock = None if job.lock is None else parse_lock(job.lock)
            built = build_bundle(
                job.recipe,
                files,
                folder,
                features=self._features(leased, job.recipe),
                lock=lock,
                index=self._rules.package_index,
            )
            self._keep(leased, built)
            return self._artifacts.publish_bundle(
                leased.workspace_id,
                folder,
                residency=leased.residency,
                regions=job.regions,
                labels=job.labels,
                region=leased.region,
            )

    def _features(self, leased: LeasedWork, recipe: Recipe) -> BundledFeatures | None:
        if recipe.feature_service is None or recipe.feature_service_digest is None:
            return None
        with self._database.read() as session:
            return bundled_features(session, leased.workspace_id, recipe.feature_service, recipe.feature_service_digest)

    def _keep(self, leased: LeasedWork, built: BuiltBundle) -> None:
        """Record the lock before anything is published by it: a build that starts over is by the same one."""
        now = self._clock.now()
        with self._database.write() as session:
            work.check_lease(session, leased)
            row = session.get_one(BundleRow, (leased.workspace_id, leased.subject), with_for_update=True)
            keep_paper(session, row, LOCK, built.lock.text, now)
            keep_paper(session, row, SBOM, built.sbom, now)

    def _fail(self, leased: LeasedWork, error: FairleadError) -> None:
        with self._database.write() as session:
            row = session.get_one(BundleRow, (leased.workspace_id, leased.subject), with_for_update=True)
            row.state, row.error_code, row.error_detail = FAILED, error.code, str(error)[:2000]
            work.finish(session, leased)

    def _note(self, leased: LeasedWork, error: FairleadError) -> None:
        with self._database.write() as session:
            work.check_lease(session, leased)
            row = session.get_one(BundleRow, (leased.workspace_id, leased.subject), with_for_update=True)
            row.error_code, row.error_detail = error.code, str(error)[:2000]


def _record_ready(session: Session, row: BundleRow, now: datetime) -> None:
    audit.record_at(
        session,
        system_caller(row.workspace_id, "worker"),
        now,
        action="bundle.ready",
        subject=f"{_name_of(session, row)}/{row.version}",
        residency=row.residency,
        facts={"bundle": row.id, "digest": row.digest, "size_bytes": row.size_bytes, "sent_bytes": row.sent_bytes},
    )


def _name_of(session: Session, row: BundleRow) -> str:
    return session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id)).name


def _to_bundle(session: Session, name: str, row: BundleRow) -> Bundle:
    return Bundle(
        id=row.id,
        reference=f"{name}/{row.version}",
        residency=row.residency,
        state=row.state,
        recipe=row.recipe,
        base_image=(row.recipe_facts or {}).get("base_image"),
        papers=papers_of(session, row),
        digest=None if row.digest is None else Digest(row.digest),
        size_bytes=row.size_bytes,
        sent_bytes=row.sent_bytes,
        error_code=row.error_code,
        error_detail=row.error_detail,
        created_by=row.created_by,
        created_at=row.created_at,
        ready_at=row.ready_at,
    )
