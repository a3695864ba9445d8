"""Residency classes: where data of a class may be.

`unrestricted` may be anywhere. Every jurisdiction gives one class, in lower case (`eu`, `us`, `uk`, `ch`, `jpn` ...),
which stays inside that jurisdiction; `eea` means the EU and the rest of the EEA. A location names a region of the
catalog, and so falls under that region's jurisdiction, whoever runs the machine. Beside the classes of the clouds'
regions there is one of every other country, for private regions.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import NewType

from fairlead.catalog.catalog import bundled_tables, load_catalog
from fairlead.catalog.countries import CONTINENTS, jurisdiction_of
from fairlead.core.errors import ResidencyViolation, UnknownResidency

Residency = NewType("Residency", str)
"""`unrestricted`, or a jurisdiction in lower case."""

UNRESTRICTED = Residency("unrestricted")
_WITHIN = {"eea": frozenset({"EU", "EEA"})}


@cache
def residency_classes() -> tuple[Residency, ...]:
    """The classes of the clouds' regions, `unrestricted` first, the others in order of name."""
    jurisdictions = {region.jurisdiction.lower() for region in bundled_tables().regions_by_id.values()}
    return (UNRESTRICTED, *(Residency(name) for name in sorted(jurisdictions)))


def parse_residency(text: str) -> Residency:
    """Check a residency class; capitals do not matter.

    Raises:
        UnknownResidency: with the nearest spellings.
    """
    name = Residency(text.lower())
    classes = residency_classes()
    if name not in classes and name.upper() not in _elsewhere():
        near = difflib.get_close_matches(name[:80], classes, n=3, cutoff=0.5) or list(classes)
        raise UnknownResidency(
            f"There is no residency class {text[:80]!r}.", hint=f"Use one of: {', '.join(near)}.", residency=text[:80]
        )
    return name


@cache
def _elsewhere() -> frozenset[str]:
    """The jurisdictions of all countries."""
    return frozenset(jurisdiction_of(country) for country in CONTINENTS)


def permits(residency: Residency, jurisdiction: str) -> bool:
    """Whether data of this class may be under that jurisdiction (as the catalog writes it: `EU`, `US`, `JPN`)."""
    return residency == UNRESTRICTED or jurisdiction in _allowed(residency)


def _allowed(residency: Residency) -> frozenset[str]:
    return _WITHIN.get(residency, frozenset({residency.upper()}))


def is_within(residency: Residency, outer: Residency) -> bool:
    """Whether data of this class may be nowhere that data of the outer one may not."""
    if outer in {UNRESTRICTED, residency}:
        return True
    return residency != UNRESTRICTED and all(permits(outer, each) for each in _allowed(residency))


def check(residency: Residency, region: str) -> None:
    """Refuse a region where data of this class may not be.

    Raises:
        ResidencyViolation: naming the class, the region and its jurisdiction.
        UnknownRegion: if the catalog has no such region.
    """
    jurisdiction = load_catalog().region(region).jurisdiction
    if not permits(residency, jurisdiction):
        allowed = " and ".join(sorted(_allowed(residency), reverse=True))
        raise ResidencyViolation(
            f"Data of residency class {residency!r} must stay in {allowed}; {region} is in {jurisdiction}.",
            hint="Choose a region inside, or register the data under another residency class.",
            residency=residency,
            region=region,
            jurisdiction=jurisdiction,
        )
