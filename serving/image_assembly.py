"""Puts images and profiles together: their use cases, and what a worker does for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.ports import Clock
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import RegionArtifacts
from fairlead.serving.bundle_images import CHECK_IMAGE, PUSH_IMAGE, Images, derive_images
from fairlead.serving.container_registries import ContainerRegistries
from fairlead.serving.image_rules import ImageRules
from fairlead.serving.image_work import ImagePusher, RegistryConnections
from fairlead.serving.profiles import PROFILE_BUNDLE, BundleProfiler, Profiles, derive_profiles
from fairlead.sync.scratch import Scratch

if TYPE_CHECKING:
    from fastapi import APIRouter


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageParts:
    """Everything about images and profiles."""

    registries: ContainerRegistries
    images: Images
    profiles: Profiles
    handlers: Mapping[str, Callable[[LeasedWork], None]]
    derivers: Sequence[Callable[[Session, datetime], None]]

    def routers(self) -> list[APIRouter]:
        """The routes, to be mounted under `/api/v1`."""
        # FastAPI costs a second that a worker need not wait for.
        from fairlead.serving.api_images import container_registries_router, images_router, profiles_router

        return [
            container_registries_router(self.registries),
            images_router(self.registries, self.images),
            profiles_router(self.profiles),
        ]


def assemble_images(
    *,
    database: Database,
    clock: Clock,
    catalog: Catalog,
    artifacts: RegionArtifacts,
    scratch: Scratch,
    rules: ImageRules | None = None,
    wake: Callable[[], None] = lambda: None,
) -> ImageParts:
    """Images and profiles by the rules of the settings; credentials are those of this process's environment."""
    rules = rules or ImageRules()
    pusher = ImagePusher(
        database,
        clock,
        artifacts=artifacts,
        scratch=scratch,
        connections=RegistryConnections(cloud_hosts=rules.cloud_hosts, environ=os.environ),
        package_index=rules.package_index,
    )
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    profiler = BundleProfiler(
        database,
        clock,
        artifacts=artifacts,
        scratch=scratch,
        environment={name: os.environ[name] for name in kept if name in os.environ},
        instance_type=rules.instance_type,
    )
    return ImageParts(
        registries=ContainerRegistries(database, clock, catalog=catalog, cloud_hosts=rules.cloud_hosts),
        images=Images(database, clock, wake=wake),
        profiles=Profiles(database, clock, wake=wake),
        handlers={PUSH_IMAGE: pusher.push, CHECK_IMAGE: pusher.check, PROFILE_BUNDLE: profiler},
        derivers=(derive_images, derive_profiles),
    )
