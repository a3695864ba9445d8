"""What the modules of every cloud have in common: files, settings, and what is asked of a workload."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.names import deployment_name, region_name
from fairlead.serving.terraform.hcl import Block, Body, Named, to_text
from fairlead.serving.terraform.providers import versions_file
from fairlead.serving.workload import Document, TargetSettings, Workload

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:/=+@-]*")


class TerraformSettings(TargetSettings):
    """How a deployment's module is written."""

    backend: Literal["azurerm", "gcs", "http", "pg", "remote", "s3"] | None = Field(
        default=None,
        description="Where Terraform keeps the state, each module's in a place of its own; bucket and identity come "
        "with `terraform init -backend-config`.",
    )
    exposure: Literal["internal", "public"] = Field(
        default="internal", description="Whether the address is reached from the network of the cloud alone."
    )
    launch_type: Literal["fargate", "ec2"] | None = Field(
        default=None, description="What runs tasks on AWS; without it EC2 for what has an accelerator, else Fargate."
    )
    request_seconds: float = Field(
        default=0.1,
        gt=0,
        le=3600,
        description="Seconds that a request takes; Cloud Run is told from it how many an instance answers at once.",
    )
    values: Mapping[str, str | int | bool | list[str]] = Field(
        default={}, description="Values of the module's variables, written to `terraform.tfvars`."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A root module by its files' blocks."""

    provider: str
    main: Named
    variables: Named
    outputs: Named


def documents(module: Module, workload: Workload, settings: TerraformSettings) -> tuple[Document, ...]:
    """The files of the module that runs a workload.

    Raises:
        InvalidInput: if a value is set for a variable that the module does not have.
    """
    known = [block.labels[0] for _, block in module.variables]
    if unknown := sorted(set(settings.values) - set(known)):
        raise InvalidInput(
            f"The module has no variable {unknown[0][:80]!r}.", hint=f"Its variables are {', '.join(known)}."
        )
    state = f"fairlead/{region_name(workload.region)}/{deployment_name(workload, longest=80)}"
    files = {
        "versions.tf": versions_file(module.provider, backend=settings.backend, state=state),
        "variables.tf": to_text(module.variables),
        "main.tf": to_text(module.main),
        "outputs.tf": to_text(module.outputs),
    }
    if settings.values:
        given: Body = {name: settings.values[name] for name in known if name in settings.values}
        files["terraform.tfvars"] = _assignments(given)
    return tuple(Document(path=path, text=text) for path, text in files.items())


def share_of(workload: Workload, *, is_former: bool) -> int:
    """The percentage of the region's requests that the newest revision gets, or the former one."""
    return 100 - workload.traffic_percent if is_former else workload.traffic_percent


def smallest(sizes: Sequence[tuple[float, float]], vcpus: float, memory_gib: float) -> tuple[float, float] | None:
    """The first of some sizes (vCPUs, GiB) that has room."""
    return next((size for size in sizes if size[0] >= vcpus and size[1] >= memory_gib), None)


def too_large(workload: Workload, platform: str, largest: str) -> InvalidInput:
    """What to say of a replica that no size of a platform has room for."""
    asked = workload.resources
    return InvalidInput(
        f"A replica of {workload.deployment!r} asks for {asked.vcpus:g} vCPUs and {asked.memory_gib:g} GiB; {platform} "
        f"gives {largest} at most.",
        hint="Use a target of kind kubernetes in this region.",
    )


def label_value(text: str) -> str:
    """A tag's value as all three clouds take it, at most 128 characters."""
    return text[:128] if _TAG.fullmatch(text) else re.sub(r"[^A-Za-z0-9 _.:/=+@-]", "-", text)[:128]


def _assignments(values: Body) -> str:
    """A file of values of variables."""
    body = to_text([("values", Block(values))])
    return "".join(line.removeprefix("  ") + "\n" for line in body.splitlines()[1:-1])
