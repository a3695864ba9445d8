"""Terraform: a root module for each deployment and region, with what the region's cloud runs images on.

AWS      Amazon ECS on Fargate, or on EC2 for what has an accelerator     fairlead.serving.terraform.aws
Google   Cloud Run                                                        fairlead.serving.terraform.google
Azure    Container Apps                                                   fairlead.serving.terraform.azure
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fairlead.core.errors import InvalidInput
from fairlead.serving.terraform import aws, azure, google
from fairlead.serving.terraform.module import Module, TerraformSettings, documents
from fairlead.serving.workload import Document, TargetKind, Workload

_CLOUDS: Mapping[str, Callable[[Workload, TerraformSettings], Module]] = {
    "aws": aws.render,
    "azure": azure.render,
    "gcp": google.render,
}


def render(workload: Workload, settings: TerraformSettings) -> tuple[Document, ...]:
    """The files of the module that runs a workload in its region.

    Raises:
        InvalidInput: if the region is of no cloud that modules are written for, or its platform cannot run this.
    """
    cloud = workload.region.partition(":")[0]
    if cloud not in _CLOUDS:
        raise InvalidInput(
            f"No Terraform is written for {workload.region}.", hint="Use a target of kind kubernetes in this region."
        )
    return documents(_CLOUDS[cloud](workload, settings), workload, settings)


KIND = TargetKind(name="terraform", settings=TerraformSettings, render=render)
