"""What the regions of a workspace lack of a snapshot, and which rule says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from fairlead.catalog import Residency, check
from fairlead.core.errors import ResidencyViolation
from fairlead.featurestore.tables import SnapshotPartRow
from fairlead.registry.locations import all_locations


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionLack:
    """Features of a view that may not be in a region. No features: none that the view has."""

    region: str
    view: str
    features: tuple[str, ...]
    residency: str
    reason: str


def workspace_regions(session: Session, workspace_id: str) -> list[str]:
    """The regions in which a workspace has locations, by name."""
    found = {each.region for each in all_locations(session, workspace_id) if each.state != "RETIRED"}
    return sorted(found)


def lacks(regions: Iterable[str], parts: Sequence[SnapshotPartRow]) -> tuple[RegionLack, ...]:
    """What each region may not hold of a snapshot's parts, by region."""
    found: list[RegionLack] = []
    for region in regions:
        for part in parts:
            try:
                check(Residency(part.residency), region)
            except ResidencyViolation as error:
                found.append(
                    RegionLack(
                        region=region,
                        view=part.view,
                        features=tuple(part.features or ()),
                        residency=part.residency,
                        reason=error.detail,
                    )
                )
    return tuple(found)
