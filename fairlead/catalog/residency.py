"""Residency classes: where data of a class may be.

`unrestricted` may be anywhere. Every jurisdiction of the catalog gives one class, in lower case (`eu`, `us`, `uk`,
`ch`, `jpn` ...), which stays inside that jurisdiction; `eea` means the EU and the rest of the EEA. A location names a
region of the catalog, and so falls under that region's jurisdiction, whoever runs the machine.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import NewType

from fairlead.catalog.catalog import load_catalog
from fairlead.core.errors import ResidencyViolation, UnknownResidency

Residency = NewType("Residency", str)
"""`unrestricted`, or a jurisdiction in lower case."""

UNRESTRICTED = Residency("unrestricted")
_WITHIN = {"eea": frozenset({"EU", "EEA"})}


@cache
def residency_classes() -> tuple[Residency, ...]:
    """Every class, `unrestricted` first, the others in order of name."""
    jurisdictions = {region.jurisdiction.lower() for region in load_catalog().regions()}
    return (UNRESTRICTED, *(Residency(name) for name in sorted(jurisdictions)))


def parse_residency(text: str) -> Residency:
    """Check a residency class; capitals do not matter.

    Raises:
        UnknownResidency: with the nearest spellings.
    """
    name = Residency(text.lower())
    classes = residency_classes()
    if name not in classes:
        near = difflib.get_close_matches(name[:80], classes, n=3, cutoff=0.5) or list(classes)
        raise UnknownResidency(
            f"There is no residency class {text[:80]!r}.", hint=f"Use one of: {', '.join(near)}.", residency=text[:80]
        )
    return name


def permits(residency: Residency, jurisdiction: str) -> bool:
    """Whether data of this class may be under that jurisdiction (as the catalog writes it: `EU`, `US`, `JPN`)."""
    return residency == UNRESTRICTED or jurisdiction in _WITHIN.get(residency, frozenset({residency.upper()}))


def check(residency: Residency, region: str) -> None:
    """Refuse a region where data of this class may not be.

    Raises:
        ResidencyViolation: naming the class, the region and its jurisdiction.
        UnknownRegion: if the catalog has no such region.
    """
    jurisdiction = load_catalog().region(region).jurisdiction
    if not permits(residency, jurisdiction):
        allowed = " and ".join(sorted(_WITHIN.get(residency, {residency.upper()}), reverse=True))
        raise ResidencyViolation(
            f"Data of residency class {residency!r} must stay in {allowed}; {region} is in {jurisdiction}.",
            hint="Choose a region inside, or register the data under another residency class.",
            residency=residency,
            region=region,
            jurisdiction=jurisdiction,
        )
