"""Applying definitions: a plan of what changes, and the change, by one and the same path.

A name stands for one definition at a time, and each definition it ever stood for is a version, named by its digest. A
view that changes makes a new version of every service that takes it, also of those that were not sent along: a service
pins its views.

Names come from Feast projects, several of which may share a workspace. What a project has no more is *gone*: the plan
says so, and it is taken away only where that was asked for. Its versions stay, and with them what pins them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import (
    FeatureServiceNotFound,
    InvalidInput,
    JsonValue,
)
from fairlead.core.ids import Digest, parse_name
from fairlead.core.ports import Clock
from fairlead.featurestore.definition_changes import (
    ApplyOptions,
    PlannedChange,
    check_residency,
    check_use,
    plan_change,
    plan_removal,
    version_content,
)
from fairlead.featurestore.definition_reading import FeatureObject, Key, ReadDefinition, by_name, read_all
from fairlead.featurestore.definitions import (
    SERVICE,
    VIEW,
    Column,
    ViewDefinition,
    view_from_content,
)
from fairlead.featurestore.feast_json import tags_of
from fairlead.featurestore.homes import home_of
from fairlead.featurestore.on_demand import ON_DEMAND
from fairlead.featurestore.services import ServiceDefinition, on_demand_digests, service_from_content
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow
from fairlead.featurestore.users import service_users
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import WorkspaceRow

LABELS = ("owner", "team", "cost_centre")


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

    @property
    def keys(self) -> tuple[Column, ...]:
        """The join keys that callers give, under the names that they give them, in the order of the views."""
        found: dict[str, Column] = {}
        for projection in self.service.projections:
            for key in self.views[projection.view].asked_keys:
                name = projection.join_key_map.get(key.name, key.name)
                found.setdefault(name, replace(key, name=name))
        return tuple(found.values())


class FeatureDefinitions:
    """Applies and shows entities, feature views, feature services and sources."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def apply(
        self,
        caller: Caller,
        objects: Sequence[FeatureObject],
        *,
        dry_run: bool = False,
        force: bool = False,
        project: str | None = None,
        prune: bool = False,
    ) -> list[PlannedChange]:
        """Make these definitions the present ones; all of them or, with an error, none.

        Names that are not sent stay as they are, but services follow their views. With a `project`, the definitions
        are all that this Feast project has; `prune` takes away what it has no more. What breaks a model that holds an
        environment is done with `force` alone. `dry_run` only says what would change.

        Raises:
            FeatureDefinitionInvalid: naming the object and what is wrong with it.
            FeaturesInUse: naming the models that take what would be gone.
            InvalidInput: if something is to be taken away of no project.
            UnknownResidency: if a view's tag `fairlead.residency` names no class.
        """
        options = ApplyOptions(
            dry_run=dry_run, force=force, project=project and parse_name(project, what="project"), prune=prune
        )
        sent = by_name(objects)
        if options.prune and options.project is None:
            raise InvalidInput(
                "What a project has no more cannot be told without the project.", hint="Apply a Feast repository."
            )
        if options.dry_run:
            with self._database.read() as session:
                return self._apply(session, caller, sent, options)
        with self._database.write() as session:
            # One apply at a time: each sees the versions that the one before it numbered. Pointers move under the same
            # lock, so a model that is being promoted is in its environment when users are looked for, or comes after.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update=True)
            return self._apply(session, caller, sent, options)

    def list(self, caller: Caller, kind: str, page: PageRequest) -> Page[Definition]:
        """The present definitions of a kind, by name."""
        query = select(FeatureDefinitionRow).where(
            FeatureDefinitionRow.workspace_id == caller.workspace_id,
            FeatureDefinitionRow.kind == kind,
            FeatureDefinitionRow.removed_at.is_(None),
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
        self, session: Session, caller: Caller, sent: Mapping[Key, Mapping[str, Any]], options: ApplyOptions
    ) -> list[PlannedChange]:
        rows = {
            (row.kind, row.name): row
            for row in session.scalars(
                select(FeatureDefinitionRow).where(FeatureDefinitionRow.workspace_id == caller.workspace_id)
            )
        }
        present = {key: row for key, row in rows.items() if row.removed_at is None}
        gone = {
            key: row
            for key, row in present.items()
            if options.project is not None and row.project == options.project and key not in sent
        }
        staying = present if not options.prune else {key: row for key, row in present.items() if key not in gone}
        found = read_all({**{key: row.spec for key, row in staying.items()}, **sent})
        users = service_users(session, caller.workspace_id)
        plan: list[PlannedChange] = []
        for key, read in found.items():
            row = rows.get(key)
            check_residency(key, read, row)
            home = _home(key, read, caller)
            planned, is_known = plan_change(session, caller, key, read, present.get(key), home=home, users=users)
            if key not in sent and planned.change == "unchanged":
                continue
            if planned.change == "changed" and not planned.differences:
                planned = replace(planned, reason=planned.reason or "what it stands on changed")
            check_use(planned, options)
            plan.append(planned)
            if not options.dry_run:
                project = options.project if key in sent else None
                self._keep(session, caller, planned, read, row, home=home, project=project, is_known=is_known)
        changed = {(planned.kind, planned.name) for planned in plan}
        for key, row in gone.items():
            if key in changed:
                continue
            planned = plan_removal(session, key, row, users, is_wanted=options.prune)
            if options.prune:
                check_use(planned, options)
                if not options.dry_run:
                    self._remove(session, caller, planned, row)
            plan.append(planned)
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
        project: str | None,
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
        else:
            is_same = row.digest == planned.digest and row.spec == read.spec and row.removed_at is None
            if is_same and project in {None, row.project}:
                return
        row.digest, row.spec, row.home, row.removed_at = planned.digest, dict(read.spec), home, None
        if planned.kind == VIEW:
            # Also of features that are gone: they may come back.
            row.column_residency = {**(row.column_residency or {}), **read.column_residency}
        row.project = project or row.project
        row.updated_by, row.updated_at = caller.principal, now
        session.flush()
        facts: dict[str, JsonValue] = {
            "change": planned.change,
            "digest": planned.digest,
            "version": planned.number,
            **({} if home is None else {"home": home}),
            **({} if row.project is None else {"project": row.project}),
            **({"breaks": list(planned.breaks), "used_by": list(planned.used_by)} if planned.used_by else {}),
        }
        self._tell(session, caller, planned, row, facts)

    def _remove(self, session: Session, caller: Caller, planned: PlannedChange, row: FeatureDefinitionRow) -> None:
        row.removed_at = row.updated_at = self._clock.now()
        row.updated_by = caller.principal
        session.flush()
        facts: dict[str, JsonValue] = {"change": planned.change, "digest": planned.digest}
        if planned.used_by:
            facts["used_by"] = list(planned.used_by)
        self._tell(session, caller, planned, row, facts)

    def _tell(
        self,
        session: Session,
        caller: Caller,
        planned: PlannedChange,
        row: FeatureDefinitionRow,
        facts: dict[str, JsonValue],
    ) -> None:
        audit.record(
            session,
            caller,
            self._clock,
            action="feature.apply",
            subject=f"{planned.kind}/{planned.name}",
            residency=row.residency,
            facts=facts,
        )


def find_pinned_service(session: Session, workspace_id: str, name: str, digest: str | None = None) -> PinnedService:
    """A version of a service (the present one by default) with its views.

    Raises:
        FeatureServiceNotFound: if there is no such service or version.
    """
    present = _find_service(session, workspace_id, name, is_pinned=digest is not None)
    wanted = digest or present.digest
    content = version_content(session, workspace_id, SERVICE, name, wanted)
    if content is None:
        raise FeatureServiceNotFound(
            f"The feature service {name!r} has no version {wanted}.", hint=f"See: fairlead features show {name}"
        )
    service, view_digests = service_from_content(content)
    views: dict[str, ViewDefinition] = {}
    for view, view_digest in view_digests.items():
        row = session.get(FeatureDefinitionRow, (workspace_id, VIEW, view))
        found = version_content(session, workspace_id, VIEW, view, view_digest)
        assert row is not None  # noqa: S101  (definitions and versions are never removed)
        assert found is not None  # noqa: S101
        views[view] = view_from_content(found, row.residency, row.home, row.column_residency)
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


def _home(key: Key, read: ReadDefinition, caller: Caller) -> str | None:
    return home_of(key[1], tags_of(VIEW, read.spec), read.residency, caller.workspace_id) if key[0] == VIEW else None


def _find_service(session: Session, workspace_id: str, name: str, *, is_pinned: bool = False) -> FeatureDefinitionRow:
    """A service's present definition; of what is pinned, also of one that was taken away."""
    row = session.get(FeatureDefinitionRow, (workspace_id, SERVICE, name))
    if row is None or (row.removed_at is not None and not is_pinned):
        raise FeatureServiceNotFound(
            f"There is no feature service {name[:80]!r}.",
            hint="Apply it: fairlead features apply PATH",
            service=name[:80],
        )
    return row


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
