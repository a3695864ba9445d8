"""The work of images: make one from the region's own replica of its bundle, push it, read it back, and look again.

Nothing of the bundle runs: its files and its wheels are laid out, and a base's layers are passed on. A bundle whose
image was pushed somewhere before has to come out as the same image, or nothing is pushed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Residency, check
from fairlead.core.cloud_hosts import HOSTS_SETTING, CloudHosts
from fairlead.core.db import Database
from fairlead.core.errors import FairleadError, IntegrityError, InvalidInput, NotFound
from fairlead.core.ids import Digest, RegionId
from fairlead.core.outbound import OutboundRules
from fairlead.core.ports import Clock
from fairlead.registry import audit, work
from fairlead.registry.identity import system_caller
from fairlead.registry.tables import RegisteredModelRow
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import RegionArtifacts
from fairlead.serving.bundle import LOCK
from fairlead.serving.bundle_images import CHECK_EVERY, DRIFTED, VERIFIED, image_variants
from fairlead.serving.container_registries import ContainerRegistry, find_registry, to_registry
from fairlead.serving.images.client import CHUNK_BYTES, RegistryClient
from fairlead.serving.images.credentials import ANONYMOUS, Access, access_to
from fairlead.serving.images.image import (
    Base,
    BundleImage,
    ImageReference,
    Variant,
    VariantImage,
    assemble,
    bundle_layers,
    index_of,
    packages_layer,
    recipe_digest,
)
from fairlead.serving.images.layers import Layer
from fairlead.serving.images.packages import unpack_wheels
from fairlead.serving.images.pushing import Push, check_pushed, fetch_base
from fairlead.serving.tables import BundleRow
from fairlead.serving.tables_images import BundleImageRow, ImagePushRow
from fairlead.sync.scratch import Scratch
from fairlead.sync.worker import progress_reporter

Unpack = Callable[..., None]
"""Lays a lock's wheels out below a folder, as `unpack_wheels` does."""

_DOCKER_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConnections:
    """Opens connections to registries under the operator's rules, with the identity of this process."""

    cloud_hosts: CloudHosts
    environ: Mapping[str, str]

    @contextlib.contextmanager
    def to(self, registry: ContainerRegistry) -> Generator[tuple[RegistryClient, Access]]:
        """A connection to a registry of the record, while the block runs; checked again before anything is sent.

        Raises:
            InvalidInput: if credentials may not, or no longer, be sent there.
        """
        self.cloud_hosts.check_registry(registry.provider, registry.url, registry.identity)
        rules = self._rules((*self.cloud_hosts.hosts, registry.host))
        access = access_to(registry.provider, registry.origin, registry.identity, self.environ, rules)
        client = RegistryClient(
            origin=registry.origin,
            rules=rules,
            open_rules=self._rules(("*", *self.cloud_hosts.hosts)),
            login=access.login,
            # Google's takes a blob in one request alone.
            chunk_bytes=None if registry.provider == "artifact-registry" else CHUNK_BYTES,
        )
        with contextlib.closing(client):
            yield client, access

    @contextlib.contextmanager
    def to_public(self, host: str) -> Generator[RegistryClient]:
        """A connection without credentials to whatever registry has a base."""
        rules = self._rules(("*", *self.cloud_hosts.hosts))
        name = host.rpartition(":")[0] if ":" in host else host
        scheme = "http" if name in {"127.0.0.1", "localhost"} and self.cloud_hosts.allows(name) else "https"
        origin = f"{scheme}://{_DOCKER_HUB.get(host, host)}"
        client = RegistryClient(origin=origin, rules=rules, open_rules=rules, login=lambda: ANONYMOUS)
        with contextlib.closing(client):
            yield client

    @staticmethod
    def _rules(hosts: tuple[str, ...]) -> OutboundRules:
        return OutboundRules(setting=HOSTS_SETTING, hosts=hosts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    registry: ContainerRegistry
    bundle_digest: Digest
    reference: str
    repository: str
    tag: str
    recipe: Digest
    variants: tuple[Variant, ...]
    digest: str | None
    expected: str | None
    mounts: tuple[str, ...] = field(default=())


class ImagePusher:
    """The handlers of `push-image` and `check-image`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        artifacts: RegionArtifacts,
        scratch: Scratch,
        connections: RegistryConnections,
        package_index: str | None = None,
        unpack: Unpack = unpack_wheels,
    ) -> None:
        self._database = database
        self._clock = clock
        self._artifacts = artifacts
        self._scratch = scratch
        self._connections = connections
        self._package_index = package_index
        self._unpack = unpack

    def push(self, leased: LeasedWork) -> None:
        """Make an image, bring it to its registry, and count it once all of it was read back."""
        job = self._job(leased)
        if job is None:
            return
        try:
            # Asked again where it counts: nothing goes outside its class, whatever a row says.
            check(Residency(leased.residency), RegionId(job.registry.region))
            with self._scratch.folder("image-") as folder, ExitStack() as stack:
                client, access = stack.enter_context(self._connections.to(job.registry))
                image, bases = self._make(leased, job, folder, client, stack)
                if job.expected is not None and job.expected != image.digest:
                    raise IntegrityError(
                        f"The image of {job.reference} came out as {image.digest} here, and as {job.expected} before.",
                        hint="Run the same release of Fairlead in every region.",
                    )
                access.make_repository(job.repository)
                push = Push(
                    client=client,
                    repository=job.repository,
                    tag=job.tag,
                    image=image,
                    bases=bases,
                    mounts=job.mounts,
                )
                sent = push.run(progress_reporter(self._database, leased, phase="push"))
                report = progress_reporter(self._database, leased, phase="read back")
                check_pushed(client, job.repository, image.digest, job.tag, report)
        except FairleadError as error:
            self._note(leased, error)
            raise
        self._record(leased, job, image, sent)

    def check(self, leased: LeasedWork) -> None:
        """Read an image back; one that is not as it was pushed has drifted, and is pushed again."""
        job = self._job(leased)
        if job is None:
            return
        if job.digest is None:
            # It was wanted anew since, and is pushed before there is anything to look at.
            with self._database.write() as session:
                work.finish(session, leased)
            return
        drift: FairleadError | None = None
        try:
            with self._connections.to(job.registry) as (client, _):
                report = progress_reporter(self._database, leased, phase="read back")
                check_pushed(client, job.repository, Digest(job.digest), job.tag, report)
        except (IntegrityError, NotFound) as error:
            drift = error
        now = self._clock.now()
        with self._database.write() as session:
            row = _row(session, leased)
            # What was pushed meanwhile was read back by whoever did.
            if row is not None and row.digest == job.digest:
                row.check_at = now + CHECK_EVERY
                if drift is not None:
                    row.state, row.error_code, row.error_detail = DRIFTED, drift.code, str(drift)[:2000]
                    self._audit(session, leased, job, "image.drift", {"digest": job.digest, "error": drift.code})
                else:
                    row.verified_at, row.error_code, row.error_detail = now, None, None
            work.finish(session, leased)

    def _job(self, leased: LeasedWork) -> _Job | None:
        """What there is to do; None, and the work is gone, where nothing is."""
        with self._database.write() as session:
            row = _row(session, leased)
            bundle = None if row is None else session.get(BundleRow, (row.workspace_id, row.bundle_id))
            variants = [] if bundle is None else image_variants(session, bundle)
            if row is None or bundle is None or not variants:
                work.finish(session, leased)
                return None
            recipe = recipe_digest(variants)
            known = session.get(BundleImageRow, (row.workspace_id, row.bundle_digest, recipe))
            model = session.get_one(RegisteredModelRow, (row.workspace_id, bundle.model_id))
            others = select(ImagePushRow.repository).where(
                ImagePushRow.workspace_id == row.workspace_id,
                ImagePushRow.registry_name == row.registry_name,
                ImagePushRow.residency == row.residency,
                ImagePushRow.state == VERIFIED,
                ImagePushRow.repository != row.repository,
            )
            return _Job(
                registry=to_registry(find_registry(session, row.workspace_id, row.registry_name)),
                bundle_digest=Digest(row.bundle_digest),
                reference=f"{model.name}/{bundle.version}",
                repository=row.repository,
                tag=f"v{bundle.version}-{row.bundle_digest.partition(':')[2][:12]}",
                recipe=recipe,
                variants=tuple(variants),
                digest=row.digest,
                expected=None if known is None else known.digest,
                mounts=tuple(session.scalars(others.distinct().limit(5))),
            )

    def _make(
        self, leased: LeasedWork, job: _Job, folder: Path, client: RegistryClient, stack: ExitStack
    ) -> tuple[BundleImage, dict[str, tuple[RegistryClient, str]]]:
        bundle = folder / "bundle"
        self._artifacts.download(leased.workspace_id, leased.residency, job.bundle_digest, job.registry.region, bundle)
        facts = json.loads((bundle / "src" / "fairlead_bundle" / "bundle.json").read_text(encoding="utf-8"))
        lock, python = bundle / LOCK, str(facts.get("python", ""))
        if not lock.exists() or not python:
            raise InvalidInput(
                f"The bundle of {job.reference} was built before bundles had locks with hashes.",
                hint=f"Build it again: fairlead bundle {job.reference}",
            )
        model, service = bundle_layers(bundle)
        labels = {
            "org.opencontainers.image.title": str(facts["reference"]).rpartition("/")[0],
            "org.opencontainers.image.version": str(facts["reference"]).rpartition("/")[2],
            "org.fairlead.artifact": str(facts["artifact_digest"]),
        }
        sources: dict[str, tuple[RegistryClient, str]] = {}
        packages: dict[str, Layer] = {}
        images: list[VariantImage] = []
        for variant in job.variants:
            reference = ImageReference.parse(variant.base)
            if reference.host == job.registry.host:
                source = client
            else:
                source = stack.enter_context(self._connections.to_public(reference.host))
            sources[variant.base] = (source, reference.repository)
            base = fetch_base(source, reference, variant.platform)
            _check_python(base, python, variant)
            if variant.platform not in packages:
                place = folder / f"packages-{variant.platform.rpartition('/')[2]}"
                self._unpack(
                    lock.read_text(encoding="utf-8"),
                    place,
                    platform=variant.platform,
                    python=python,
                    index=self._package_index,
                )
                packages[variant.platform] = packages_layer(place)
            layers = [("packages", packages[variant.platform]), ("model", model), ("service", service)]
            images.append(assemble(variant, base, layers=layers, bundle_digest=job.bundle_digest, labels=labels))
        return index_of(images, job.bundle_digest), sources

    def _record(self, leased: LeasedWork, job: _Job, image: BundleImage, sent: int) -> None:
        now = self._clock.now()
        with self._database.write() as session:
            work.check_lease(session, leased)
            known = session.get(BundleImageRow, (leased.workspace_id, job.bundle_digest, job.recipe))
            if known is None:
                session.add(
                    BundleImageRow(
                        workspace_id=leased.workspace_id,
                        bundle_digest=job.bundle_digest,
                        recipe=job.recipe,
                        residency=leased.residency,
                        digest=image.digest,
                        size_bytes=sum(each.size for each in image.variants),
                        variants=[
                            {**each.variant.facts(), "digest": each.descriptor.digest, "size_bytes": each.size}
                            for each in image.variants
                        ],
                        created_at=now,
                    )
                )
            row = _row(session, leased)
            if row is not None:
                row.state, row.recipe, row.digest = VERIFIED, job.recipe, image.digest
                row.sent_bytes, row.verified_at, row.check_at = sent, now, now + CHECK_EVERY
                row.error_code = row.error_detail = None
                self._audit(session, leased, job, "image.push", {"digest": image.digest, "sent_bytes": sent})
            work.finish(session, leased)

    def _note(self, leased: LeasedWork, error: FairleadError) -> None:
        with self._database.write() as session:
            work.check_lease(session, leased)
            row = _row(session, leased)
            if row is not None:
                row.error_code, row.error_detail = error.code, str(error)[:2000]

    def _audit(
        self, session: Session, leased: LeasedWork, job: _Job, action: str, facts: Mapping[str, str | int]
    ) -> None:
        audit.record_at(
            session,
            system_caller(leased.workspace_id, "worker"),
            self._clock.now(),
            action=action,
            subject=job.reference,
            residency=leased.residency,
            facts={"registry": job.registry.name, "bundle": job.bundle_digest, **facts},
        )


def _row(session: Session, leased: LeasedWork) -> ImagePushRow | None:
    registry, _, digest = leased.subject.partition("/")
    return session.get(ImagePushRow, (leased.workspace_id, registry, digest))


def _check_python(base: Base, python: str, variant: Variant) -> None:
    if base.python is not None and base.python != python:
        raise InvalidInput(
            f"The base of the variant {variant.name!r} has Python {base.python}, and the bundle wants {python}.",
            hint=f"Name a base with it: fairlead images variant set {variant.name} --base ...",
        )
