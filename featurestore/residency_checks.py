"""Whether parts of a snapshot may go where somebody reads them, before anything of them is fetched."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.catalog import UNRESTRICTED, Residency, check
from fairlead.core.errors import ResidencyViolation
from fairlead.featurestore.snapshot_views import SnapshotPartName


def readable_parts(
    parts: Sequence[SnapshotPartName], region: str | None, home_region: str | None, *, leave_out: bool = False
) -> list[SnapshotPartName]:
    """The parts that may be read here, for somebody in a region.

    Args:
        parts: what is asked for.
        region: where the result goes; None where the request does not say.
        home_region: where this process runs; None where nothing places it.
        leave_out: leave out what may not be read, in place of refusing.

    Raises:
        ResidencyViolation: if a part may not be read.
        UnknownRegion: if the catalog has no such region.
    """
    found: list[SnapshotPartName] = []
    for part in parts:
        try:
            _check(part, region, home_region)
        except ResidencyViolation:
            if not leave_out:
                raise
        else:
            found.append(part)
    return found


def _check(part: SnapshotPartName, region: str | None, home_region: str | None) -> None:
    residency = Residency(part.residency)
    if residency == UNRESTRICTED:
        if region is not None:
            check(UNRESTRICTED, region)
        return
    if region is None:
        raise ResidencyViolation(
            f"{', '.join(feature.name for feature in part.view.features[:5])} of view {part.name!r} is under the "
            f"residency class {residency!r}, and the request does not say where the result goes.",
            hint="State the region that you read from: region=REGION.",
            view=part.name,
            residency=residency,
        )
    check(residency, region)
    if home_region is not None:
        check(residency, home_region)
