"""Container registries of regions, and the variants that bundles' images have: what images are made of, and where.

A registry is in a region, and so under a jurisdiction: an image of a bundle may go exactly where the bundle may. It
keeps no secret; who a worker is there, it finds out itself (`fairlead.serving.images.credentials`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.cloud_hosts import HOSTS_SETTING, CloudHosts
from fairlead.core.db import Database
from fairlead.core.errors import (
    AlreadyExists,
    ContainerRegistryNotFound,
    ImageVariantNotFound,
    InvalidInput,
    JsonValue,
    PermissionDenied,
)
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_json
from fairlead.registry.location_settings import parse_settings
from fairlead.registry.paging import Page, PageRequest
from fairlead.serving.images.credentials import IDENTITY_SCHEMES, PROVIDERS, check_identity
from fairlead.serving.images.image import PLATFORMS, ImageReference, Variant
from fairlead.serving.tables_images import ContainerRegistryRow, ImagePushRow, ImageVariantRow

VARIANTS_MAX = 16
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_URL_MAX_LENGTH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRegistry:
    """A container registry. `url` is its origin and the path that all of its repositories begin with."""

    name: str
    region: str
    jurisdiction: str
    url: str
    provider: str
    identity: Mapping[str, Any]
    created_by: str
    created_at: datetime

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def host(self) -> str:
        """Host and port, as images are named by."""
        return urlsplit(self.url).netloc

    def repository(self, workspace_id: str, model: str) -> str:
        """The repository of a model's images."""
        plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "model"
        parts = (urlsplit(self.url).path.strip("/"), workspace_id.lower(), plain[:100].strip("-"))
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedVariant:
    """A variant of every bundle's image, and who said so."""

    name: str
    platform: str
    accelerators: tuple[str, ...]
    base: str
    updated_by: str
    updated_at: datetime


class ContainerRegistries:
    """Adds, shows and removes container registries, and says which variants images have."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog, cloud_hosts: CloudHosts) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._cloud_hosts = cloud_hosts

    def add(
        self,
        caller: Caller,
        *,
        name: str,
        region: str,
        url: str,
        provider: str,
        identity: Mapping[str, JsonValue] | None = None,
        key: IdempotencyKey | None = None,
    ) -> ContainerRegistry:
        """Keep a registry; images that deployments in its region need are pushed to it from now on.

        Raises:
            UnknownRegion: if the catalog has no such region.
            InvalidInput: if the URL, provider or identity is not valid, or credentials may not be sent there.
            AlreadyExists: if the name is taken.
        """
        if not _NAME.fullmatch(parse_name(name, what="container registry")):
            raise InvalidInput(f"{name[:80]!r} is no name of a registry.", hint="Use lower-case letters, digits and -.")
        if provider not in PROVIDERS:
            raise InvalidInput(f"{provider[:40]!r} is no provider.", hint=f"Use one of: {', '.join(PROVIDERS)}.")
        found = self._catalog.within(caller.workspace_id).region(region)
        checked_url, checked_identity = self._parse_url(url), _parse_identity(provider, identity)
        self._cloud_hosts.check_registry(provider, checked_url, checked_identity)

        def keep(session: Session) -> ContainerRegistry:
            if session.get(ContainerRegistryRow, (caller.workspace_id, name)) is not None:
                raise AlreadyExists(
                    f"There is a container registry {name!r} already.", hint="See: fairlead images registry list"
                )
            row = ContainerRegistryRow(
                workspace_id=caller.workspace_id,
                name=name,
                region=found.id,
                jurisdiction=found.jurisdiction,
                url=checked_url,
                provider=provider,
                identity=checked_identity,
                created_by=caller.principal,
                created_at=self._clock.now(),
            )
            session.add(row)
            session.flush()
            facts: dict[str, JsonValue] = {"region": row.region, "url": row.url, "provider": provider}
            facts["identity"] = dict(checked_identity)
            audit.record(session, caller, self._clock, action="container-registry.add", subject=name, facts=facts)
            return to_registry(row)

        with self._database.write() as session:
            return run_once(
                session, caller, self._clock, key, result_type=ContainerRegistry, action=lambda: keep(session)
            )

    def list(self, caller: Caller, page: PageRequest) -> Page[ContainerRegistry]:
        """Registries by name."""
        query = select(ContainerRegistryRow).where(ContainerRegistryRow.workspace_id == caller.workspace_id)
        listing = ("container-registries", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [ContainerRegistryRow.name], listing=listing).map(to_registry)

    def get(self, caller: Caller, name: str) -> ContainerRegistry:
        """One registry.

        Raises:
            ContainerRegistryNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return to_registry(find_registry(session, caller.workspace_id, name))

    def remove(self, caller: Caller, name: str) -> None:
        """Forget a registry and what was pushed to it; the images stay there.

        Raises:
            ContainerRegistryNotFound: if there is none of that name.
        """
        with self._database.write() as session:
            row = find_registry(session, caller.workspace_id, name)
            of_it = (ImagePushRow.workspace_id == caller.workspace_id, ImagePushRow.registry_name == name)
            session.execute(delete(ImagePushRow).where(*of_it))
            session.delete(row)
            facts: dict[str, JsonValue] = {"region": row.region, "url": row.url}
            audit.record(session, caller, self._clock, action="container-registry.remove", subject=name, facts=facts)

    def list_variants(self, caller: Caller, page: PageRequest) -> Page[AppliedVariant]:
        """Variants by name."""
        query = select(ImageVariantRow).where(ImageVariantRow.workspace_id == caller.workspace_id)
        listing = ("image-variants", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [ImageVariantRow.name], listing=listing).map(_to_applied)

    def set_variant(
        self, caller: Caller, name: str, *, platform: str, accelerators: tuple[str, ...], base: str
    ) -> AppliedVariant:
        """Make a variant or replace it. Images are made anew where they are wanted; what was pushed stays there.

        Raises:
            InvalidInput: if the platform is not one that wheels are taken for, or the base is not named by its digest.
            PermissionDenied: if the base is another workspace's image.
        """
        if not _NAME.fullmatch(parse_name(name, what="variant")):
            raise InvalidInput(f"{name[:80]!r} is no name of a variant.", hint="Use lower-case letters, digits and -.")
        if platform not in PLATFORMS:
            raise InvalidInput(f"{platform[:40]!r} is no platform.", hint=f"Use one of: {', '.join(PLATFORMS)}.")
        for each in accelerators:
            parse_name(each, what="accelerator")
        parsed = ImageReference.parse(base)
        reference = str(parsed)
        with self._database.write() as session:
            _refuse_foreign(session, caller.workspace_id, parsed)
            present = variants_of(session, caller.workspace_id)
            if len(present) >= VARIANTS_MAX and name not in {each.name for each in present}:
                raise InvalidInput(f"An image has at most {VARIANTS_MAX} variants.", hint="Delete one first.")
            row = session.get(ImageVariantRow, (caller.workspace_id, name))
            if row is None:
                row = ImageVariantRow(workspace_id=caller.workspace_id, name=name)
                session.add(row)
            row.platform, row.accelerators, row.base = platform, sorted(set(accelerators)), reference
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            facts: dict[str, JsonValue] = {"platform": platform, "base": reference}
            facts["accelerators"] = list(row.accelerators)
            audit.record(session, caller, self._clock, action="image-variant.set", subject=name, facts=facts)
            return _to_applied(row)

    def delete_variant(self, caller: Caller, name: str) -> None:
        """Have images made without a variant from now on.

        Raises:
            ImageVariantNotFound: if there is none of that name.
        """
        with self._database.write() as session:
            row = session.get(ImageVariantRow, (caller.workspace_id, name))
            if row is None:
                raise ImageVariantNotFound(
                    f"There is no variant {name[:80]!r} of images.", hint="See: fairlead images variant list"
                )
            session.delete(row)
            audit.record(session, caller, self._clock, action="image-variant.delete", subject=name)

    def _parse_url(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port, parts = "", None, urlsplit("")
        path = parts.path.strip("/")
        is_whole = (
            host
            and parts.scheme in {"http", "https"}
            and parts.netloc == (host if port is None else f"{host}:{port}")
            and not parts.query
            and not parts.fragment
            and (not path or _PREFIX.fullmatch(path))
            and len(url) <= _URL_MAX_LENGTH
        )
        if not is_whole:
            raise InvalidInput(
                f"{url[:120]!r} is no address of a container registry.",
                hint="Write https://HOST[:PORT][/PREFIX], in lower case.",
            )
        if parts.scheme == "http" and not self._cloud_hosts.allows(host):
            raise InvalidInput(
                f"{url[:120]!r} is not encrypted.",
                hint=f"Use https, or let whoever runs the server list the host in {HOSTS_SETTING}.",
            )
        return f"{parts.scheme}://{parts.netloc}" + (f"/{path}" if path else "")


def find_registry(session: Session, workspace_id: str, name: str) -> ContainerRegistryRow:
    """The row of a registry.

    Raises:
        ContainerRegistryNotFound: if there is none of that name.
    """
    row = session.get(ContainerRegistryRow, (workspace_id, name))
    if row is None:
        raise ContainerRegistryNotFound(
            f"There is no container registry {name[:80]!r}.", hint="See: fairlead images registry list"
        )
    return row


def _refuse_foreign(session: Session, workspace_id: str, base: ImageReference) -> None:
    """Refuse images of other workspaces: what reads a base may open theirs too, where they share a registry.

    Raises:
        PermissionDenied: if the base lies where another workspace's images are.
    """
    for row in session.scalars(select(ContainerRegistryRow).where(ContainerRegistryRow.workspace_id != workspace_id)):
        theirs = to_registry(row)
        folder = theirs.repository(row.workspace_id, "model").rpartition("/")[0]
        if _server(theirs.host) == _server(base.host) and base.repository.startswith(f"{folder}/"):
            raise PermissionDenied(
                f"The image {str(base)[:200]} is not one of this workspace.",
                hint="Name a base that is of no workspace, or of this one.",
            )


def _server(host: str) -> str:
    """A host and port without what only says the same in other words."""
    name, _, port = host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "")
    return name.rstrip(".") + ("" if port in {"", "80", "443"} else f":{port}")


def variants_of(session: Session, workspace_id: str) -> list[Variant]:
    """The variants that a workspace's images have, by name."""
    rows = session.scalars(
        select(ImageVariantRow).where(ImageVariantRow.workspace_id == workspace_id).order_by(ImageVariantRow.name)
    )
    return [
        Variant(name=row.name, platform=row.platform, accelerators=tuple(row.accelerators), base=row.base)
        for row in rows
    ]


def to_registry(row: ContainerRegistryRow) -> ContainerRegistry:
    """The registry that a row says."""
    return ContainerRegistry(
        name=row.name,
        region=row.region,
        jurisdiction=row.jurisdiction,
        url=row.url,
        provider=row.provider,
        identity=row.identity,
        created_by=row.created_by,
        created_at=row.created_at,
    )


def _to_applied(row: ImageVariantRow) -> AppliedVariant:
    return AppliedVariant(
        name=row.name,
        platform=row.platform,
        accelerators=tuple(row.accelerators),
        base=row.base,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )


def _parse_identity(provider: str, identity: Mapping[str, JsonValue] | None) -> dict[str, JsonValue]:
    scheme = IDENTITY_SCHEMES.get(provider)
    if scheme is None:
        given = parse_json(identity or {"kind": "anonymous"}, what="identity of a container registry")
        check_identity(given)
        return dict(given)
    wanted: dict[str, JsonValue] = {"identity": dict(identity or {"kind": "workload"})}
    checked = parse_settings(parse_json(wanted, what="identity of a container registry"), scheme=scheme, kind="storage")
    found = checked["identity"]
    return found if isinstance(found, dict) else {}
