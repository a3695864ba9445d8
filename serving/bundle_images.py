"""Images of bundles in the registries of regions: which are wanted, where they are, and whether they are one.

A push is desired state: a bundle's image in one registry. It is wanted by whoever asks for it, and by every deployment
on a target other than this machine, in the registries of its regions. A worker of the region makes it from the region's
own replica, pushes it and reads it back; once a day it is read back again. Images are a function of bundle and variants
alone, so workers that never meet push the same digest everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fairlead.catalog import Residency, permits
from fairlead.core.db import Database
from fairlead.core.errors import (
    BundleNotFound,
    FairleadError,
    InvalidInput,
    JsonValue,
    NotReady,
    ReplicaUnavailable,
    ResidencyViolation,
)
from fairlead.core.ids import Digest
from fairlead.core.ports import Clock
from fairlead.registry import audit, work
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_row_id
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import RegisteredModelRow
from fairlead.registry.visibility import require_change
from fairlead.serving import revisions
from fairlead.serving.artifacts import verified_replicas
from fairlead.serving.bundles import READY
from fairlead.serving.container_registries import find_registry, to_registry, variants_of
from fairlead.serving.images.image import Variant, recipe_digest
from fairlead.serving.tables import BundleRow, DeploymentRegionRow
from fairlead.serving.tables_images import BundleImageRow, ContainerRegistryRow, ImagePushRow
from fairlead.serving.tables_targets import DeploymentRevisionRow
from fairlead.serving.targets import LOCAL

PUSH_IMAGE = "push-image"
"""The work of bringing a bundle's image to a registry; its subject is `{registry}/{bundle digest}`."""

CHECK_IMAGE = "check-image"
"""The work of reading an image back; the subject as for a push."""

WANTED, VERIFIED, DRIFTED = "WANTED", "VERIFIED", "DRIFTED"
CHECK_EVERY = timedelta(days=1)
_ARCHITECTURES = {"x86_64": "linux/amd64", "amd64": "linux/amd64", "arm64": "linux/arm64", "aarch64": "linux/arm64"}
_DEFAULT_VARIANT = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantDigest:
    """One of an image's variants: the digest of its manifest, and the bytes of all that it names."""

    name: str
    platform: str
    accelerators: tuple[str, ...]
    base: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePush:
    """A bundle's image in one registry. `image` names it there by its digest; `is_current`: by today's variants."""

    registry: str
    region: str
    state: str
    image: str | None
    digest: str | None
    is_current: bool
    sent_bytes: int
    wanted_by: str
    verified_at: datetime | None
    error_code: str | None
    error_detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStatus:
    """A bundle's image everywhere. `is_one`: every registry that it is wanted in was seen to hold this very digest."""

    bundle_id: str
    reference: str
    bundle_digest: str
    residency: str
    digest: str | None
    size_bytes: int | None
    is_one: bool
    variants: tuple[VariantDigest, ...]
    registries: tuple[ImagePush, ...]


class Images:
    """Asks for images and shows where they are."""

    def __init__(self, database: Database, clock: Clock, *, wake: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._clock = clock
        self._wake = wake

    def push(self, caller: Caller, bundle_id: str, *, registries: Sequence[str] | None = None) -> ImageStatus:
        """Want a bundle's image in some registries, or in all that its residency permits; asking again changes nothing.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
            NotReady: if the bundle is not READY.
            ContainerRegistryNotFound: if there is no registry of a name that is given.
            ResidencyViolation: if the image must not be there.
            InvalidInput: if nothing says what the image is laid on, or there is no registry at all.
            PermissionDenied: if the caller may deploy other models alone.
        """
        now = self._clock.now()
        with self._database.write() as session:
            bundle, model = _find(session, caller, bundle_id)
            require_change(session, model.name)
            if bundle.state != READY or bundle.digest is None:
                raise NotReady(f"The bundle of {model.name}/{bundle.version} is {bundle.state}.", hint="Wait for it.")
            if not image_variants(session, bundle):
                raise _no_base()
            rows = self._registries(session, caller, registries, bundle)
            added = [row.name for row in rows if _want(session, row, bundle, model, by=caller.principal, now=now)]
            if added:
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="image.request",
                    subject=f"{model.name}/{bundle.version}",
                    residency=bundle.residency,
                    facts={"bundle": bundle.id, "registries": list[JsonValue](added)},
                )
            session.flush()
            status = _status(session, bundle, model)
        self._wake()
        return status

    def status(self, caller: Caller, bundle_id: str) -> ImageStatus:
        """Where a bundle's image is, and whether it is the same everywhere.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
        """
        with self._database.read() as session:
            return _status(session, *_find(session, caller, bundle_id))

    def list(self, caller: Caller, page: PageRequest) -> Page[ImageStatus]:
        """Every bundle that has an image or is to have one, oldest first."""
        wanted = select(ImagePushRow.bundle_id).where(ImagePushRow.workspace_id == caller.workspace_id)
        query = select(BundleRow).where(BundleRow.workspace_id == caller.workspace_id, BundleRow.id.in_(wanted))
        with self._database.read() as session:
            found = page.fetch(session, query, [BundleRow.id], listing=("images", caller.workspace_id))
            return found.map(lambda row: _status(session, row, _model_of(session, row)))

    def check(self, caller: Caller, bundle_id: str) -> ImageStatus:
        """Have an image read back everywhere now, not when its day is over.

        Raises:
            BundleNotFound: if the workspace has no such bundle.
            PermissionDenied: if the caller may deploy other models alone.
        """
        now = self._clock.now()
        with self._database.write() as session:
            bundle, model = _find(session, caller, bundle_id)
            require_change(session, model.name)
            for row in _pushes(session, bundle):
                if row.state == VERIFIED:
                    row.check_at = now
            audit.record(
                session,
                caller,
                self._clock,
                action="image.check",
                subject=f"{model.name}/{bundle.version}",
                residency=bundle.residency,
                facts={"bundle": bundle.id},
            )
            session.flush()
            status = _status(session, bundle, model)
        self._wake()
        return status

    def _registries(
        self, session: Session, caller: Caller, names: Sequence[str] | None, bundle: BundleRow
    ) -> Sequence[ContainerRegistryRow]:
        if names is not None:
            rows = [find_registry(session, caller.workspace_id, name) for name in names]
            for row in rows:
                if not permits(Residency(bundle.residency), row.jurisdiction):
                    raise ResidencyViolation(
                        f"The image of a bundle of the class {bundle.residency} must not be in {row.region}.",
                        hint="Choose registries in its jurisdiction: fairlead images registry list",
                    )
            return rows
        query = select(ContainerRegistryRow).where(ContainerRegistryRow.workspace_id == caller.workspace_id)
        rows = [row for row in session.scalars(query) if permits(Residency(bundle.residency), row.jurisdiction)]
        if not rows:
            raise InvalidInput(
                f"There is no container registry that an image of the class {bundle.residency} may be in.",
                hint="Add one: fairlead images registry add --help",
            )
        return rows


def image_for(
    session: Session,
    workspace_id: str,
    bundle_digest: str,
    region: str,
    *,
    architecture: str = "x86_64",
    accelerator: str | None = None,
) -> str | None:
    """The image of a bundle that a region's registry was seen to hold, for what it runs on there; None until it is.

    It names the manifest of one variant by digest: `HOST/REPOSITORY@sha256:...`. With an accelerator, only a variant
    for that board will do; without, only one that needs none.
    """
    query = (
        select(ImagePushRow, ContainerRegistryRow, BundleImageRow)
        .join(
            ContainerRegistryRow,
            and_(
                ContainerRegistryRow.workspace_id == ImagePushRow.workspace_id,
                ContainerRegistryRow.name == ImagePushRow.registry_name,
            ),
        )
        .join(
            BundleImageRow,
            and_(
                BundleImageRow.workspace_id == ImagePushRow.workspace_id,
                BundleImageRow.bundle_digest == ImagePushRow.bundle_digest,
                BundleImageRow.recipe == ImagePushRow.recipe,
            ),
        )
        .where(
            ImagePushRow.workspace_id == workspace_id,
            ImagePushRow.bundle_digest == bundle_digest,
            ImagePushRow.state == VERIFIED,
            ContainerRegistryRow.region == region,
        )
        .order_by(ContainerRegistryRow.name)
    )
    platform = _ARCHITECTURES.get(architecture)
    for push, registry, image in session.execute(query).all():
        for each in image.variants:
            boards = {board.lower() for board in each["accelerators"]}
            fits = not boards if accelerator is None else accelerator.lower() in boards
            if fits and each["platform"] == platform:
                return f"{to_registry(registry).host}/{push.repository}@{each['digest']}"
    return None


def image_variants(session: Session, bundle: BundleRow) -> list[Variant]:
    """The variants that a bundle's image is to have: the workspace's, or one on the base that the bundle names."""
    variants = variants_of(session, bundle.workspace_id)
    base = (bundle.recipe_facts or {}).get("base_image")
    if not variants and base:
        host = str(base).partition("/")[0]
        named = str(base) if "." in host or ":" in host else f"docker.io/{base}"
        variants = [Variant(name=_DEFAULT_VARIANT, platform="linux/amd64", accelerators=(), base=named)]
    return variants


def derive_images(session: Session, now: datetime) -> None:
    """Want what deployments need, and require the pushes and read-backs that are due. A `Deriver`."""
    registries = session.scalars(select(ContainerRegistryRow)).all()
    if not registries:
        return
    for registry in registries:
        for bundle in _deployed(session, registry):
            if permits(Residency(bundle.residency), registry.jurisdiction) and image_variants(session, bundle):
                _want(session, registry, bundle, _model_of(session, bundle), by="fairlead:worker", now=now)
    by_name = {(each.workspace_id, each.name): each for each in registries}
    for row in session.scalars(select(ImagePushRow)).all():
        registry = by_name.get((row.workspace_id, row.registry_name))
        if registry is None:
            # It was added after they were read.
            continue
        bundle = session.get_one(BundleRow, (row.workspace_id, row.bundle_id))
        variants = image_variants(session, bundle)
        kind = PUSH_IMAGE
        if not variants:
            _explain(row, _no_base())
            continue
        if row.state == VERIFIED and row.recipe == recipe_digest(variants):
            _explain(row, None)
            if row.check_at is None or row.check_at > now:
                continue
            kind = CHECK_IMAGE
        elif not verified_replicas(session, row.workspace_id, row.residency, row.bundle_digest, region=registry.region):
            _explain(row, _no_replica(registry.region))
            continue
        work.require_work(
            session,
            workspace_id=row.workspace_id,
            residency=row.residency,
            kind=kind,
            subject=f"{row.registry_name}/{row.bundle_digest}",
            region=registry.region,
            priority=work.URGENT if kind == PUSH_IMAGE else work.USUAL,
            now=now,
        )


def _deployed(session: Session, registry: ContainerRegistryRow) -> Sequence[BundleRow]:
    """The bundles that deployments in a registry's region run or are to run, on targets that take images."""
    deployed = (
        select(DeploymentRevisionRow.bundle_digest)
        .join(
            DeploymentRegionRow,
            and_(
                DeploymentRegionRow.workspace_id == DeploymentRevisionRow.workspace_id,
                DeploymentRegionRow.deployment_id == DeploymentRevisionRow.deployment_id,
            ),
        )
        .where(
            DeploymentRevisionRow.workspace_id == registry.workspace_id,
            DeploymentRevisionRow.state.in_((revisions.PENDING, revisions.ROLLING, revisions.LIVE)),
            DeploymentRegionRow.region == registry.region,
            DeploymentRegionRow.target != LOCAL,
        )
    )
    query = select(BundleRow).where(
        BundleRow.workspace_id == registry.workspace_id, BundleRow.state == READY, BundleRow.digest.in_(deployed)
    )
    return session.scalars(query).all()


def _want(
    session: Session,
    registry: ContainerRegistryRow,
    bundle: BundleRow,
    model: RegisteredModelRow,
    *,
    by: str,
    now: datetime,
) -> bool:
    """Want an image in a registry; True if nobody did before."""
    if session.get(ImagePushRow, (registry.workspace_id, registry.name, bundle.digest)) is not None:
        return False
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    insert = dialect.insert(ImagePushRow).values(
        workspace_id=registry.workspace_id,
        registry_name=registry.name,
        bundle_digest=bundle.digest or "",
        bundle_id=bundle.id,
        residency=bundle.residency,
        state=WANTED,
        repository=to_registry(registry).repository(registry.workspace_id, model.name),
        sent_bytes=0,
        wanted_by=by,
        created_at=now,
    )
    # Workers and callers may want it at the same time.
    insert = insert.on_conflict_do_nothing(index_elements=["workspace_id", "registry_name", "bundle_digest"])
    return session.execute(insert.returning(ImagePushRow.registry_name)).first() is not None


def _explain(row: ImagePushRow, waits_for: FairleadError | None) -> None:
    """Say why an image is not made, until it is."""
    code, detail = (None, None) if waits_for is None else (waits_for.code, str(waits_for)[:2000])
    if (row.error_code, row.error_detail) != (code, detail):
        row.error_code, row.error_detail = code, detail


def _no_base() -> InvalidInput:
    return InvalidInput(
        "Nothing says which base images are laid on.",
        hint="Name one: fairlead images variant set cpu --platform linux/amd64 --base HOST/NAME@sha256:...",
    )


def _no_replica(region: str) -> ReplicaUnavailable:
    return ReplicaUnavailable(
        f"An image is made from the region's own replica of its bundle, and {region} has no VERIFIED one yet.",
        hint="It is made once there is one: see fairlead location list, and fairlead replicate plan.",
    )


def _find(session: Session, caller: Caller, bundle_id: str) -> tuple[BundleRow, RegisteredModelRow]:
    row = session.get(BundleRow, (caller.workspace_id, parse_row_id(bundle_id, BundleNotFound, what="bundle")))
    if row is None:
        raise BundleNotFound(f"There is no bundle {bundle_id}.", hint="List them with: fairlead bundle")
    return row, _model_of(session, row)


def _model_of(session: Session, row: BundleRow) -> RegisteredModelRow:
    return session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))


def _pushes(session: Session, bundle: BundleRow) -> Sequence[ImagePushRow]:
    query = select(ImagePushRow).where(
        ImagePushRow.workspace_id == bundle.workspace_id, ImagePushRow.bundle_id == bundle.id
    )
    return session.scalars(query.order_by(ImagePushRow.registry_name)).all()


def _status(session: Session, bundle: BundleRow, model: RegisteredModelRow) -> ImageStatus:
    recipe = recipe_digest(image_variants(session, bundle))
    image = session.get(BundleImageRow, (bundle.workspace_id, bundle.digest, recipe))
    pushes = [_to_push(session, row, recipe) for row in _pushes(session, bundle)]
    is_one = bool(pushes) and all(
        each.state == VERIFIED and image is not None and each.digest == image.digest for each in pushes
    )
    return ImageStatus(
        bundle_id=bundle.id,
        reference=f"{model.name}/{bundle.version}",
        bundle_digest=bundle.digest or "",
        residency=bundle.residency,
        digest=None if image is None else image.digest,
        size_bytes=None if image is None else image.size_bytes,
        is_one=is_one,
        variants=() if image is None else tuple(_to_variant(each) for each in image.variants),
        registries=tuple(pushes),
    )


def _to_variant(facts: dict[str, Any]) -> VariantDigest:
    return VariantDigest(
        name=facts["name"],
        platform=facts["platform"],
        accelerators=tuple(facts["accelerators"]),
        base=facts["base"],
        digest=facts["digest"],
        size_bytes=facts["size_bytes"],
    )


def _to_push(session: Session, row: ImagePushRow, recipe: str) -> ImagePush:
    registry = to_registry(find_registry(session, row.workspace_id, row.registry_name))
    return ImagePush(
        registry=row.registry_name,
        region=registry.region,
        state=row.state,
        image=None if row.digest is None else f"{registry.host}/{row.repository}@{row.digest}",
        digest=None if row.digest is None else Digest(row.digest),
        is_current=row.recipe == recipe,
        sent_bytes=row.sent_bytes,
        wanted_by=row.wanted_by,
        verified_at=row.verified_at,
        error_code=row.error_code,
        error_detail=row.error_detail,
    )
