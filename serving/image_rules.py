"""What the settings say of images and profiles."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairlead.core.cloud_hosts import CloudHosts


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRules:
    """Where credentials of registries may go, where wheels are from, and what this worker's machine is.

    `package_index` is a URL, None for the one that uv is configured for, or `offline`.
    """

    cloud_hosts: CloudHosts = field(default_factory=CloudHosts)
    package_index: str | None = None
    instance_type: str | None = None
