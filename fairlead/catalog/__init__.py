"""The catalog: the clouds' regions, tariffs, distances and carbon, and the residency classes built on them.

Every figure carries its unit and its source, and says so where it is an estimate. Tables are shipped with the package
(`tables/SOURCES.md`); nothing here needs more than the standard library, the network or a clock.
"""

from fairlead.catalog.catalog import Catalog, load_catalog
from fairlead.catalog.figures import Figure
from fairlead.catalog.prices import Price
from fairlead.catalog.regions import Area, Place, Region, distance_km
from fairlead.catalog.residency import (
    UNRESTRICTED,
    Residency,
    check,
    is_within,
    parse_residency,
    permits,
    residency_classes,
)

__all__ = [
    "UNRESTRICTED",
    "Area",
    "Catalog",
    "Figure",
    "Place",
    "Price",
    "Region",
    "Residency",
    "check",
    "distance_km",
    "is_within",
    "load_catalog",
    "parse_residency",
    "permits",
    "residency_classes",
]
