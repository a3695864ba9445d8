"""What platforms need of a workload, and how one is refused that a platform has no words for."""

from __future__ import annotations

from fairlead.core.errors import InvalidInput
from fairlead.serving.workload import Workload


def image_of(workload: Workload) -> str:
    """The image that a platform pulls.

    Raises:
        InvalidInput: if the bundle has none.
    """
    if workload.image is None:
        raise InvalidInput(
            f"Version {workload.version} of {workload.model!r} has no image in {workload.region}, and the platform "
            "runs images.",
            hint="Name a container registry for the region, so that the bundle is pushed there as an image.",
        )
    return workload.image


def whole_boards(workload: Workload, platform: str) -> int:
    """How many accelerators a replica has to itself; 0 without.

    Raises:
        InvalidInput: if it shares one.
    """
    share = workload.resources.accelerator_share if workload.resources.accelerator is not None else 0.0
    if share != int(share):
        raise cannot(workload, f"{platform} shares no accelerator between replicas")
    return int(share)


def cannot(workload: Workload, what: str) -> InvalidInput:
    """What to say of a workload that asks for something that its platform has not got."""
    return InvalidInput(
        f"{what}, and {workload.deployment!r} should have that in {workload.region}.",
        hint="Use a target of kind kubernetes in this region, or place without it.",
    )
