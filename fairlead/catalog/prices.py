"""What an instance costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fairlead.catalog.figures import Figure
from fairlead.core.ids import RegionId

StoreOperation = Literal["write", "read"]
"""What object stores charge requests by: PUT and LIST (class A), or GET and HEAD (class B)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """An instance type in a region, in US dollars an hour; `spot` is None where no source gives a figure.

    `architecture` is `x86_64` or `arm64`. `accelerator` is a model such as `T4` or `A100-80` (the number is its GB of
    memory), `accelerator_count` how many of them one instance has; None and 0 for an instance without. `idle_watts` and
    `full_watts` are what its owner says that it draws; None for a cloud's.
    """

    region: RegionId
    sku: str
    architecture: str
    vcpus: int
    memory_gib: float
    accelerator: str | None
    accelerator_count: int
    on_demand: Figure
    spot: Figure | None
    idle_watts: float | None = None
    full_watts: float | None = None
