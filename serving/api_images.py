"""Routes of container registries, of bundles' images, and of their profiles."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from fairlead.registry.access import MayAdmin, MayDeploy, MayRead
from fairlead.registry.wire import Listing, MayRepeat, WantedPage, listing
from fairlead.serving.bundle_images import Images
from fairlead.serving.container_registries import ContainerRegistries
from fairlead.serving.profiles import Profiles
from fairlead.serving.schemas_images import (
    ContainerRegistryIn,
    ContainerRegistryOut,
    ImagePushIn,
    ImageStatusOut,
    ImageVariantIn,
    ImageVariantOut,
    ProfileIn,
    ProfileOut,
)


def container_registries_router(registries: ContainerRegistries) -> APIRouter:
    """Where images are pushed to."""
    router = APIRouter(prefix="/container-registries", tags=["images"])

    @router.post("", status_code=201, response_model=ContainerRegistryOut)
    def add_registry(body: ContainerRegistryIn, caller: MayAdmin, repeat: MayRepeat) -> Any:
        """Add a container registry; images that deployments in its region need are pushed there."""
        return registries.add(
            caller,
            name=body.name,
            region=body.region,
            url=body.url,
            provider=body.provider,
            identity=body.identity,
            key=repeat,
        )

    @router.get("", response_model=Listing[ContainerRegistryOut])
    def list_registries(caller: MayRead, page: WantedPage) -> Any:
        """List the container registries by name."""
        return listing(ContainerRegistryOut, registries.list(caller, page))

    @router.get("/{name}", response_model=ContainerRegistryOut)
    def get_registry(name: str, caller: MayRead) -> Any:
        """Show a container registry."""
        return registries.get(caller, name)

    @router.delete("/{name}", status_code=204)
    def remove_registry(name: str, caller: MayAdmin) -> None:
        """Forget a container registry; images stay in it."""
        registries.remove(caller, name)

    return router


def images_router(registries: ContainerRegistries, images: Images) -> APIRouter:
    """Images of bundles, and the variants that they have."""
    router = APIRouter(tags=["images"])

    @router.get("/image-variants", response_model=Listing[ImageVariantOut])
    def list_variants(caller: MayRead, page: WantedPage) -> Any:
        """List the variants that every image has, by name."""
        return listing(ImageVariantOut, registries.list_variants(caller, page))

    @router.put("/image-variants/{name}", response_model=ImageVariantOut)
    def set_variant(name: str, body: ImageVariantIn, caller: MayAdmin) -> Any:
        """Set a variant; images are made anew with it where they are wanted."""
        return registries.set_variant(
            caller, name, platform=body.platform, accelerators=tuple(body.accelerators), base=body.base
        )

    @router.delete("/image-variants/{name}", status_code=204)
    def delete_variant(name: str, caller: MayAdmin) -> None:
        """Delete a variant; images are made anew without it where they are wanted."""
        registries.delete_variant(caller, name)

    @router.get("/images", response_model=Listing[ImageStatusOut])
    def list_images(caller: MayRead, page: WantedPage) -> Any:
        """List the images of bundles, oldest bundle first, with where each is."""
        return listing(ImageStatusOut, images.list(caller, page))

    @router.get("/bundles/{bundle_id}/image", response_model=ImageStatusOut)
    def get_image(bundle_id: str, caller: MayRead) -> Any:
        """Where a bundle's image is, and whether it is the same everywhere."""
        return images.status(caller, bundle_id)

    @router.post("/bundles/{bundle_id}/image", status_code=202, response_model=ImageStatusOut)
    def push_image(bundle_id: str, body: ImagePushIn, caller: MayDeploy) -> Any:
        """Want a bundle's image in registries; asking again changes nothing."""
        return images.push(caller, bundle_id, registries=body.registries)

    @router.post("/bundles/{bundle_id}/image/check", status_code=202, response_model=ImageStatusOut)
    def check_image(bundle_id: str, caller: MayDeploy) -> Any:
        """Have a bundle's image read back everywhere now."""
        return images.check(caller, bundle_id)

    return router


def profiles_router(profiles: Profiles) -> APIRouter:
    """Profiles of bundles."""
    router = APIRouter(prefix="/bundles/{bundle_id}/profiles", tags=["profiles"])

    @router.post("", status_code=202, response_model=ProfileOut)
    def request_profile(bundle_id: str, body: ProfileIn, caller: MayDeploy, repeat: MayRepeat) -> Any:
        """Have a bundle measured by a worker of a region."""
        return profiles.request(caller, bundle_id, body.limits, region=body.region, key=repeat)

    @router.get("", response_model=Listing[ProfileOut])
    def list_profiles(bundle_id: str, caller: MayRead, page: WantedPage) -> Any:
        """List the profiles of a bundle, newest first."""
        return listing(ProfileOut, profiles.list(caller, bundle_id, page))

    @router.get("/{profile_id}", response_model=ProfileOut)
    def get_profile(bundle_id: str, profile_id: str, caller: MayRead) -> Any:
        """Show a profile."""
        return profiles.get(caller, bundle_id, profile_id)

    return router
