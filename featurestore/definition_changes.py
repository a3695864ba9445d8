"""What applying a definition does to one name: which version it becomes, what differs, and whom that breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fairlead.core.errors import FeatureDefinitionInvalid, FeaturesInUse
from fairlead.core.ids import Digest
from fairlead.featurestore.definition_reading import Key, ReadDefinition
from fairlead.featurestore.definitions import SERVICE, VIEW
from fairlead.featurestore.differences import Difference, definition_differences
from fairlead.featurestore.homes import what_a_move_does
from fairlead.featurestore.on_demand import ON_DEMAND
from fairlead.featurestore.residency_tags import RESIDENCY_TAG, changed_class, feature_names
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow
from fairlead.featurestore.users import ServiceUser
from fairlead.registry.identity import Caller

Change = Literal["added", "changed", "unchanged", "gone", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChange:
    """What applying does to one name. `number` counts the name's versions from 1; `reason` says why it changes.

    `gone` is what the project has no more and stays as it is. `breaks` holds the features and keys that are there no
    more, or are of another type; `used_by` the models in environments that take them, as `churn/3 (production)`.
    """

    kind: str
    name: str
    change: Change
    digest: Digest
    number: int
    previous_digest: Digest | None
    reason: str | None
    breaks: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions:
    """How to apply.

    Args:
        dry_run: only say what would change.
        force: also what breaks a model that holds an environment.
        project: the Feast project that all of this is, by name; None: just some definitions.
        prune: take away what the project has no more.
    """

    dry_run: bool = False
    force: bool = False
    project: str | None = None
    prune: bool = False


def check_residency(key: Key, read: ReadDefinition, row: FeatureDefinitionRow | None) -> None:
    """Refuse to move what is there, or was, to another residency class.

    Raises:
        FeatureDefinitionInvalid
    """
    if row is None:
        return
    if row.residency != read.residency:
        raise FeatureDefinitionInvalid(
            f"View {key[1]!r} is under the residency class {row.residency!r}, which cannot become {read.residency!r}: "
            "its earlier snapshots lie where that class let them.",
            hint=f"Keep its tag {RESIDENCY_TAG}, or give the view another name.",
            view=key[1],
        )
    known = row.column_residency
    if known is None:
        # From before features had classes of their own.
        known = dict.fromkeys(feature_names(row.spec), row.residency) if key[0] == VIEW else {}
    if (feature := changed_class(known, read.column_residency)) is not None:
        raise FeatureDefinitionInvalid(
            f"Feature {feature!r} of view {key[1]!r} is under the residency class {known[feature]!r}, which cannot "
            f"become {read.column_residency[feature]!r}: its earlier snapshots lie where that class let them.",
            hint=f"Keep its tag {RESIDENCY_TAG}, or give the feature another name.",
            view=key[1],
        )


def plan_change(
    session: Session,
    caller: Caller,
    key: Key,
    read: ReadDefinition,
    row: FeatureDefinitionRow | None,
    *,
    home: str | None,
    users: Sequence[ServiceUser],
) -> tuple[PlannedChange, bool]:
    """What becomes of one name, and whether the version is there already; `row` is what it stands for now."""
    move = None if row is None else what_a_move_does(row.home, home)
    is_same = row is not None and row.digest == read.digest
    number, is_known = _number(session, caller.workspace_id, key, read.digest)
    found = [] if row is None or is_same else _differences(session, row, read)
    broken = [each for each in found if each.effect == "breaks"]
    hurt = _hurt(session, caller.workspace_id, key, broken, users) if broken else []
    planned = PlannedChange(
        kind=key[0],
        name=key[1],
        change="added" if row is None else "unchanged" if is_same and move is None else "changed",
        digest=read.digest,
        number=number,
        previous_digest=None if row is None else Digest(row.digest),
        reason=move,
        breaks=tuple(each.path for each in broken),
        used_by=tuple(str(user) for user in hurt),
        differences=tuple(found),
    )
    return planned, is_known


def plan_removal(
    session: Session, key: Key, row: FeatureDefinitionRow, users: Sequence[ServiceUser], *, is_wanted: bool
) -> PlannedChange:
    """What becomes of a name that its project has no more; `is_wanted`: it is to be taken away."""
    everything = Difference(path=f"{key[0]} {key[1]}", effect="breaks", before=row.digest, after=None)
    hurt = _hurt(session, row.workspace_id, key, [everything], users) if is_wanted else []
    number, _ = _number(session, row.workspace_id, key, Digest(row.digest))
    return PlannedChange(
        kind=key[0],
        name=key[1],
        change="removed" if is_wanted else "gone",
        digest=Digest(row.digest),
        number=number,
        previous_digest=Digest(row.digest),
        reason=f"the project {row.project!r} has it no more",
        breaks=(everything.path,) if is_wanted else (),
        used_by=tuple(str(user) for user in hurt),
    )


def check_use(planned: PlannedChange, options: ApplyOptions) -> None:
    """Refuse to break what models in environments take, unless it is forced.

    Raises:
        FeaturesInUse
    """
    if planned.used_by and not options.force and not options.dry_run:
        raise FeaturesInUse(
            f"{planned.kind} {planned.name!r} would lose what models take: {', '.join(planned.breaks[:5])}. "
            f"They are {', '.join(planned.used_by[:20])}.",
            hint="Add a view or service of another name beside it, or apply it with --force.",
            name=planned.name,
            breaks=list(planned.breaks),
            used_by=list(planned.used_by),
        )


def _differences(session: Session, row: FeatureDefinitionRow, read: ReadDefinition) -> list[Difference]:
    """What differs between the present definition and the new one; of a service's views, the views say it."""
    before = version_content(session, row.workspace_id, row.kind, row.name, row.digest)
    return [] if before is None else definition_differences(row.kind, before, read.content)


def _hurt(
    session: Session, workspace_id: str, key: Key, broken: Sequence[Difference], users: Sequence[ServiceUser]
) -> list[ServiceUser]:
    """The users that take any of what is broken; a broken key concerns everybody who takes the view."""
    features = {each.feature for each in broken}
    kind, name = key
    member = {VIEW: "views", ON_DEMAND: "on_demand"}.get(kind)
    hurt: list[ServiceUser] = []
    for user in users:
        content = version_content(session, workspace_id, SERVICE, user.service, user.service_digest) or {}
        if kind == SERVICE:
            taken = [*content.get("views", []), *content.get("on_demand", [])] if user.service == name else []
        else:
            taken = [view for view in content.get(member or "", []) if view["view"] == name]
        if any(None in features or not features.isdisjoint(view["features"]) for view in taken):
            hurt.append(user)
    return hurt


def _number(session: Session, workspace_id: str, key: Key, digest: Digest) -> tuple[int, bool]:
    """The number of a version, and whether it exists already."""
    known = session.get(FeatureVersionRow, (workspace_id, *key, digest))
    if known is not None:
        return known.number, True
    newest = session.scalar(
        select(func.max(FeatureVersionRow.number)).where(
            FeatureVersionRow.workspace_id == workspace_id,
            FeatureVersionRow.kind == key[0],
            FeatureVersionRow.name == key[1],
        )
    )
    return (newest or 0) + 1, False


def version_content(session: Session, workspace_id: str, kind: str, name: str, digest: str) -> dict[str, Any] | None:
    """The content of a version; None if there is none."""
    row = session.get(FeatureVersionRow, (workspace_id, kind, name, digest))
    return None if row is None else row.content
