"""Home regions: where a view's source is read, and so where joins over it run.

A view names its home with the tag `fairlead.home`. It is no part of the view's content: moving a view changes no value
that anybody reads, so it makes no version. What was taken before stays where it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.catalog import Residency, load_catalog, permits
from fairlead.core.errors import FeatureDefinitionInvalid, ResidencyViolation, UnknownRegion
from fairlead.featurestore.definitions import HOME_TAG


def home_of(view: str, tags: Mapping[str, str], residency: Residency, workspace_id: str) -> str | None:
    """The home that a view's tags name, checked.

    Raises:
        FeatureDefinitionInvalid: if the catalog has no such region, with the nearest spellings.
        ResidencyViolation: if the view's data may not be there.
    """
    home = tags.get(HOME_TAG, "").strip()
    if not home:
        return None
    try:
        region = load_catalog().within(workspace_id).region(home)
    except UnknownRegion as error:
        raise FeatureDefinitionInvalid(
            f"View {view!r} has the home {home[:80]!r}, which is no region of the catalog.", hint=error.hint, view=view
        ) from None
    if not permits(residency, region.jurisdiction):
        raise ResidencyViolation(
            f"View {view!r} is under the residency class {residency!r} and cannot have its home in {home}, which is in "
            f"{region.jurisdiction}.",
            hint=f"Name a region inside with its tag {HOME_TAG}.",
            view=view,
            residency=residency,
            region=home,
            jurisdiction=region.jurisdiction,
        )
    return home


def what_a_move_does(before: str | None, after: str | None) -> str | None:
    """What changes for readers when a view's home does, for the plan; None where it stays."""
    if before == after:
        return None
    if after is None:
        return f"its home is {before} no more: joins run wherever the reader's region is"
    start = "its home is" if before is None else f"its home moves from {before} to"
    return f"{start} {after}: snapshots are read and joins run there from now on; earlier snapshots stay where they are"
