"""Names as platforms take them, made from names as people give them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairlead.core.ids import RegionId
    from fairlead.serving.workload import Workload

_OTHER = re.compile(r"[^a-z0-9]+")
_MARK_LENGTH = 6


def platform_name(text: str, *, longest: int) -> str:
    """A name of lower-case letters, digits and single hyphens that begins with a letter.

    Different texts have different names: what is lost on the way stands as a mark of six digits at the end.
    """
    name = _OTHER.sub("-", text.lower()).strip("-")
    if not name[:1].isalpha():
        name = f"m-{name}".rstrip("-")
    if name == text and len(name) <= longest:
        return name
    mark = hashlib.sha256(text.encode()).hexdigest()[:_MARK_LENGTH]
    return f"{name[: longest - _MARK_LENGTH - 1].rstrip('-')}-{mark}"


def deployment_name(workload: Workload, suffix: str = "", *, longest: int) -> str:
    """What a deployment is called where those of all workspaces are; those of the default one by their own name."""
    workspace = "" if workload.workspace == "default" else f"{workload.workspace}:"
    return platform_name(f"{workspace}{workload.deployment}{suffix}", longest=longest)


def regional_name(workload: Workload, *, longest: int) -> str:
    """What a deployment in one region is called where those of all regions are."""
    return deployment_name(workload, f":{workload.region}", longest=longest)


def region_name(region: RegionId) -> str:
    """A region as a part of a path, such as `aws-us-east-1`."""
    cloud, _, place = region.partition(":")
    return platform_name(region if "-" in cloud else f"{cloud}-{place}", longest=80)


def revision_name(workload: Workload, content: str) -> str:
    """What tells a revision from those beside it: the version, and eight digits of whatever else sets it apart."""
    return f"v{workload.version}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def tags_of(workload: Workload) -> dict[str, str]:
    """What everything that belongs to a deployment is tagged with, by name in order."""
    ours = {
        "managed-by": "fairlead",
        "fairlead-workspace": workload.workspace,
        "fairlead-deployment": workload.deployment,
        "fairlead-model": workload.model,
        **({} if workload.environment is None else {"fairlead-environment": workload.environment}),
    }
    return dict(sorted({**workload.labels, **ours}.items()))
