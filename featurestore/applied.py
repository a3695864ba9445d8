"""Applying definitions: a plan of what changes, and the change, by one and the same path.

A name stands for one definition at a time, and each definition it ever stood for is a version, named by its digest. A
view that changes makes a new version of every service that takes it, also of those that were not sent along: a service
pins its views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import (
    FeatureDefinitionInvalid,
    FeatureServiceNotFound,
    FeaturesInUse,
)
from fairlead.core.ids import Digest
from fairlead.core.ports import Clock
from fairlead.featurestore.definition_reading import FeatureObject, Key, ReadDefinition, by_name, read_all
from fairlead.featurestore.definitions import (
    RESIDENCY_TAG,
    SERVICE,
    VIEW,
    ViewDefinition,
    view_from_content,
)
from fairlead.featurestore.differences import Difference, service_differences, view_differences
from fairlead.featurestore.feast_json import tags_of
from fairlead.featurestore.homes import home_of, what_a_move_does
from fairlead.featurestore.on_demand import ON_DEMAND
from fairlead.featurestore.services import ServiceDefinition, on_demand_digests, service_from_content
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow
from fairlead.featurestore.users import ServiceUser, service_users
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import WorkspaceRow

Change = Literal["added", "changed", "unchanged"]
LABELS = ("owner", "team", "cost_centre")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChange:
    """What applying does to one name. `number` counts the name's versions from 1; `reason` says why it changes.

    `breaks` holds the features and keys that are there no more, or are of another type; `used_by` the models in
    environments that take them, as `churn/3 (production)`.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a name stands for now."""

    kind: str
    name: str
    digest: Digest
    number: int
    residency: str
    content: Mapping[str, Any]
    spec: Mapping[str, Any]
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedService:
    """One version of a service with the versions of its views, by name.

    `on_demand` holds Feast's JSON of the on-demand views that it takes; what code is in there is kept as data.
    """

    service: ServiceDefinition
    digest: Digest
    views: Mapping[str, ViewDefinition]
    view_digests: Mapping[str, Digest]
    labels: Mapping[str, str]
    on_demand: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


class FeatureDefinitions:
    """Applies and shows entities, feature views, feature services and sources."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def apply(
        self, caller: Caller, objects: Sequence[FeatureObject], *, dry_run: bool = False, force: bool = False
    ) -> list[PlannedChange]:
        """Make these definitions the present ones; all of them or, with an error, none. `dry_run` only says what would.

        Names that are not sent stay as they are, but services follow their views. What breaks a model that holds an
        environment is done with `force` alone.

        Raises:
            FeatureDefinitionInvalid: naming the object and what is wrong with it.
            FeaturesInUse: naming the models that take what would be gone.
            UnknownResidency: if a view's tag `fairlead.residency` names no class.
        """
        sent = by_name(objects)
        if dry_run:
            with self._database.read() as session:
                return self._apply(session, caller, sent, dry_run=True, force=force)
        with self._database.write() as session:
            # One apply at a time: each sees the versions that the one before it numbered.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update=True)
            return self._apply(session, caller, sent, dry_run=False, force=force)

    def list(self, caller: Caller, kind: str, page: PageRequest) -> Page[Definition]:
        """The present definitions of a kind, by name."""
        query = select(FeatureDefinitionRow).where(
            FeatureDefinitionRow.workspace_id == caller.workspace_id, FeatureDefinitionRow.kind == kind
        )
        with self._database.read() as session:
            rows = page.fetch(
                session, query, [FeatureDefinitionRow.name], listing=("features", caller.workspace_id, kind)
            )
            return rows.map(lambda row: _to_definition(session, row))

    def get_service(self, caller: Caller, name: str) -> Definition:
        """The present definition of a service.

        Raises:
            FeatureServiceNotFound: if there is none of this name.
        """
        with self._database.read() as session:
            return _to_definition(session, _find_service(session, caller.workspace_id, name))

    def on_demand(self, caller: Caller, name: str, digest: str | None = None) -> PinnedService:
        """A version of a service (the present one by default) with the on-demand views that it takes.

        Raises:
            FeatureServiceNotFound: if there is no such service or version.
        """
        with self._database.read() as session:
            return find_pinned_service(session, caller.workspace_id, name, digest)

    def _apply(
        self, session: Session, caller: Caller, sent: Mapping[Key, Mapping[str, Any]], *, dry_run: bool, force: bool
    ) -> list[PlannedChange]:
        rows = {
            (row.kind, row.name): row
            for row in session.scalars(
                select(FeatureDefinitionRow).where(FeatureDefinitionRow.workspace_id == caller.workspace_id)
            )
        }
        present = {key: row.spec for key, row in rows.items()}
        found = read_all({**present, **sent})
        users = service_users(session, caller.workspace_id)
        plan: list[PlannedChange] = []
        for key, read in found.items():
            row = rows.get(key)
            if row is None and key not in sent:
                continue
            _check_residency(key, read, row)
            home = _home(key, read, caller)
            move = None if row is None else what_a_move_does(row.home, home)
            is_same = row is not None and row.digest == read.digest
            if key not in sent and is_same:
                continue
            number, is_known = _number(session, caller.workspace_id, key, read.digest)
            broken = [] if row is None or is_same else _broken(session, row, read)
            hurt = _hurt(session, caller.workspace_id, key, broken, users) if broken else []
            planned = PlannedChange(
                kind=key[0],
                name=key[1],
                change="added" if row is None else "unchanged" if is_same and move is None else "changed",
                digest=read.digest,
                number=number,
                previous_digest=None if row is None else Digest(row.digest),
                reason=move or (None if key in sent else "what it stands on changed"),
                breaks=tuple(each.path for each in broken),
                used_by=tuple(str(user) for user in hurt),
            )
            if hurt and not force and not dry_run:
                raise _in_use(planned)
            plan.append(planned)
            if not dry_run:
                self._keep(session, caller, planned, read, row, home=home, is_known=is_known)
        return plan

    def _keep(
        self,
        session: Session,
        caller: Caller,
        planned: PlannedChange,
        read: ReadDefinition,
        row: FeatureDefinitionRow | None,
        *,
        home: str | None,
        is_known: bool,
    ) -> None:
        now = self._clock.now()
        names = {"workspace_id": caller.workspace_id, "kind": planned.kind, "name": planned.name}
        if not is_known:
            session.add(
                FeatureVersionRow(
                    **names,
                    digest=planned.digest,
                    number=planned.number,
                    content=read.content,
                    spec=dict(read.spec),
                    created_by=caller.principal,
                    created_at=now,
                )
            )
            session.flush()
        if row is None:
            row = FeatureDefinitionRow(**names, residency=read.residency)
            session.add(row)
        elif row.digest == planned.digest and row.spec == read.spec:
            return
        row.digest, row.spec, row.home = planned.digest, dict(read.spec), home
        row.updated_by, row.updated_at = caller.principal, now
        session.flush()
        audit.record(
            session,
            caller,
            self._clock,
            action="feature.apply",
            subject=f"{planned.kind}/{planned.name}",
            residency=read.residency,
            facts={
                "change": planned.change,
                "digest": planned.digest,
                "version": planned.number,
                **({} if home is None else {"home": home}),
                **({"breaks": list(planned.breaks), "used_by": list(planned.used_by)} if planned.used_by else {}),
            },
        )


def find_pinned_service(session: Session, workspace_id: str, name: str, digest: str | None = None) -> PinnedService:
    """A version of a service (the present one by default) with its views.

    Raises:
        FeatureServiceNotFound: if there is no such service or version.
    """
    present = _find_service(session, workspace_id, name)
    wanted = digest or present.digest
    content = _content(session, workspace_id, SERVICE, name, wanted)
    if content is None:
        raise FeatureServiceNotFound(
            f"The feature service {name!r} has no version {wanted}.", hint=f"See: fairlead features show {name}"
        )
    service, view_digests = service_from_content(content)
    views: dict[str, ViewDefinition] = {}
    for view, view_digest in view_digests.items():
        row = session.get(FeatureDefinitionRow, (workspace_id, VIEW, view))
        found = _content(session, workspace_id, VIEW, view, view_digest)
        assert row is not None  # noqa: S101  (definitions and versions are never removed)
        assert found is not None  # noqa: S101
        views[view] = view_from_content(found, row.residency, row.home)
    tags = tags_of(SERVICE, present.spec)
    labels = {label: tags[label] for label in LABELS if label in tags}
    on_demand = {
        each: session.get_one(FeatureVersionRow, (workspace_id, ON_DEMAND, each, version)).spec or {}
        for each, version in on_demand_digests(content).items()
    }
    return PinnedService(
        service=service,
        digest=Digest(wanted),
        views=views,
        view_digests=view_digests,
        labels=labels,
        on_demand=on_demand,
    )


def _check_residency(key: Key, read: ReadDefinition, row: FeatureDefinitionRow | None) -> None:
    if row is not None and row.residency != read.residency:
        raise FeatureDefinitionInvalid(
            f"View {key[1]!r} is under the residency class {row.residency!r}, which cannot become {read.residency!r}: "
            "its earlier snapshots lie where that class let them.",
            hint=f"Keep its tag {RESIDENCY_TAG}, or give the view another name.",
            view=key[1],
        )


def _home(key: Key, read: ReadDefinition, caller: Caller) -> str | None:
    return home_of(key[1], tags_of(VIEW, read.spec), read.residency, caller.workspace_id) if key[0] == VIEW else None


def _broken(session: Session, row: FeatureDefinitionRow, read: ReadDefinition) -> list[Difference]:
    """What a reader of the present definition finds no more, or of another type, in the new one."""
    before = _content(session, row.workspace_id, row.kind, row.name, row.digest)
    if before is None or row.kind not in {VIEW, SERVICE}:
        return []
    # What changes in a service's views is said of the views.
    found = (
        view_differences(before, read.content)
        if row.kind == VIEW
        else service_differences(before, read.content, {}, {})
    )
    return [each for each in found if each.effect == "breaks"]


def _hurt(
    session: Session, workspace_id: str, key: Key, broken: Sequence[Difference], users: Sequence[ServiceUser]
) -> list[ServiceUser]:
    """The users that take any of what is broken; a broken key concerns everybody who takes the view."""
    features = {each.feature for each in broken}
    hurt: list[ServiceUser] = []
    for user in users:
        content = _content(session, workspace_id, SERVICE, user.service, user.service_digest)
        for view in () if content is None else content["views"]:
            is_about = view["view"] == key[1] if key[0] == VIEW else user.service == key[1]
            if is_about and (None in features or not features.isdisjoint(view["features"])):
                hurt.append(user)
                break
    return hurt


def _in_use(planned: PlannedChange) -> FeaturesInUse:
    return FeaturesInUse(
        f"{planned.kind} {planned.name!r} would lose what models take: {', '.join(planned.breaks[:5])}. "
        f"They are {', '.join(planned.used_by[:20])}.",
        hint="Add a view or service of another name beside it, or apply it with --force.",
        name=planned.name,
        breaks=list(planned.breaks),
        used_by=list(planned.used_by),
    )


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


def _find_service(session: Session, workspace_id: str, name: str) -> FeatureDefinitionRow:
    row = session.get(FeatureDefinitionRow, (workspace_id, SERVICE, name))
    if row is None:
        raise FeatureServiceNotFound(
            f"There is no feature service {name[:80]!r}.",
            hint="Apply it: fairlead features apply PATH",
            service=name[:80],
        )
    return row


def _content(session: Session, workspace_id: str, kind: str, name: str, digest: str) -> dict[str, Any] | None:
    row = session.get(FeatureVersionRow, (workspace_id, kind, name, digest))
    return None if row is None else row.content


def _to_definition(session: Session, row: FeatureDefinitionRow) -> Definition:
    version = session.get(FeatureVersionRow, (row.workspace_id, row.kind, row.name, row.digest))
    assert version is not None  # noqa: S101  (a foreign key)
    return Definition(
        kind=row.kind,
        name=row.name,
        digest=Digest(row.digest),
        number=version.number,
        residency=row.residency,
        content=version.content,
        spec=row.spec,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
