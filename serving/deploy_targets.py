"""Deploy targets in the record: places where deployments may run, each checked by its kind when it is applied.

`local` is always there and in no row: the processes of the machine that Fairlead runs on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.errors import Conflict, DeployTargetNotFound, InvalidInput, JsonValue
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_json
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables import WorkspaceRow
from fairlead.serving.kinds.registry import check_settings, find_delivery, find_kind
from fairlead.serving.tables import DeploymentRegionRow, DeploymentRow
from fairlead.serving.tables_targets import DeployTargetRow
from fairlead.serving.targets import LOCAL, DeployTarget, TargetParts, TargetRules
from fairlead.serving.workload import AnyKind, Document, TargetSettings, Workload

_HINT = "List them with: fairlead target list"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDraft:
    """What a target document says. `regions` None: it takes deployments in any region."""

    kind: str
    delivery: str
    regions: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    delivery_settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTarget:
    """A target and its revision; `local`, which nobody applied, is at revision 0."""

    name: str
    kind: str
    delivery: str
    regions: tuple[str, ...] | None
    settings: Mapping[str, Any]
    delivery_settings: Mapping[str, Any]
    revision: int
    updated_by: str | None
    updated_at: datetime | None


_LOCAL = AppliedTarget(
    name=LOCAL,
    kind=LOCAL,
    delivery="process",
    regions=None,
    settings={},
    delivery_settings={},
    revision=0,
    updated_by=None,
    updated_at=None,
)


class DeployTargets:
    """Applies, shows and removes targets."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog, rules: TargetRules | None = None) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._rules = rules or TargetRules()

    def list(self, caller: Caller, page: PageRequest) -> Page[AppliedTarget]:
        """Targets by name; `local` is not among them."""
        query = select(DeployTargetRow).where(DeployTargetRow.workspace_id == caller.workspace_id)
        listing = ("targets", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [DeployTargetRow.name], listing=listing).map(_to_applied)

    def get(self, caller: Caller, name: str) -> AppliedTarget:
        """One target.

        Raises:
            DeployTargetNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return find_target(session, caller.workspace_id, name)

    def put(self, caller: Caller, name: str, draft: TargetDraft, *, expected_revision: int | None) -> AppliedTarget:
        """Create a target or replace it; what runs on it is put right by the new document.

        Raises:
            InvalidInput: if the name is reserved, or the document wrong; `pointer` names the member.
            InvalidInput, PermissionDenied: if it names a folder or host that the server's operator does not permit.
            UnknownRegion: if it names a region that is in no catalog.
            StaleRevision: if it is not at the expected revision (0: not there).
            Conflict: if its kind changes, or it leaves a region, while deployments run on it there.
        """
        parse_name(name, what="target")
        if LOCAL in {name, draft.kind}:
            raise InvalidInput(
                f"The target {LOCAL!r} is always there, has nothing to set, and is the only one of its kind.",
                hint="Choose another name and kind.",
            )
        kind, settings, delivery_settings = check_draft(draft)
        if (check := find_delivery(draft.delivery, kind).check) is not None:
            check(delivery_settings, self._rules)
        for region in draft.regions or ():
            self._catalog.within(caller.workspace_id).region(region)
        with self._database.write() as session:
            # Also what was never there: two that create one target wait for each other here.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update=True)
            row = session.get(DeployTargetRow, (caller.workspace_id, name), with_for_update=True)
            _check_revision(name, 0 if row is None else row.revision, expected_revision)
            before = None if row is None else _facts(row)
            if row is None:
                row = DeployTargetRow(workspace_id=caller.workspace_id, name=name, revision=0)
                session.add(row)
            else:
                _check_users(session, row, draft)
            row.kind, row.delivery = kind.name, draft.delivery
            row.regions = None if draft.regions is None else list(dict.fromkeys(draft.regions))
            row.settings = settings.model_dump(mode="json", exclude_unset=True)
            row.delivery_settings = delivery_settings.model_dump(mode="json", exclude_unset=True)
            row.revision += 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            facts: dict[str, JsonValue] = {"revision": row.revision, "before": before, "after": _facts(row)}
            audit.record(session, caller, self._clock, action="target.apply", subject=name, facts=facts)
            return _to_applied(row)

    def delete(self, caller: Caller, name: str, *, expected_revision: int | None) -> None:
        """Remove a target that no deployment runs on, or is to run on.

        Raises:
            DeployTargetNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
            Conflict: naming the deployments that use it.
        """
        with self._database.write() as session:
            row = session.get(DeployTargetRow, (caller.workspace_id, name), with_for_update=True)
            if row is None:
                raise _missing(name)
            _check_revision(name, row.revision, expected_revision)
            if users := _users(session, caller.workspace_id, name):
                names = ", ".join(sorted({deployment for deployment, _ in users}))
                raise Conflict(
                    f"The target {name!r} is used by {names}.", hint="Destroy them, or move them to another target."
                )
            facts: dict[str, JsonValue] = {"revision": row.revision, "before": _facts(row)}
            session.delete(row)
            audit.record(session, caller, self._clock, action="target.delete", subject=name, facts=facts)


class TargetBook:
    """Opens targets by name, each once a revision. Safe to share between threads."""

    def __init__(
        self, database: Database, local: DeployTarget, folder: Path, *, rules: TargetRules | None = None
    ) -> None:
        self._database = database
        self._local = local
        self._folder = folder
        self._rules = rules or TargetRules()
        self._opened: dict[tuple[str, str], tuple[int, DeployTarget]] = {}

    def open(self, workspace_id: str, name: str) -> DeployTarget:
        """A target, ready to be asked. Reads on a connection of its own.

        Raises:
            DeployTargetNotFound: if there is none of that name.
            InvalidInput: if this installation lacks its kind or delivery.
        """
        if name == LOCAL:
            return self._local
        with self._database.read() as session:
            found = find_target(session, workspace_id, name)
        revision, target = self._opened.get((workspace_id, name), (None, None))
        if target is None or revision != found.revision:
            target = open_target(workspace_id, found, self._folder, self._rules)
            self._opened[workspace_id, name] = (found.revision, target)
        return target


def open_target(workspace_id: str, applied: AppliedTarget, folder: Path, rules: TargetRules) -> DeployTarget:
    """A target by its document; it may keep what it has to remember in a folder of its own below `folder`.

    Raises:
        InvalidInput: if the document is wrong, or this installation lacks its kind or delivery.
    """
    kind, settings, delivery_settings = check_draft(
        TargetDraft(
            kind=applied.kind,
            delivery=applied.delivery,
            settings=applied.settings,
            delivery_settings=applied.delivery_settings,
        )
    )
    parts = TargetParts(
        workspace_id=workspace_id,
        name=applied.name,
        kind=kind,
        settings=settings,
        delivery_settings=delivery_settings,
        folder=folder / workspace_id / applied.name,
        rules=rules,
    )
    return find_delivery(applied.delivery, kind).open(parts)


def check_draft(draft: TargetDraft) -> tuple[AnyKind, TargetSettings, TargetSettings]:
    """The kind of a document, with its settings and its delivery's.

    Raises:
        InvalidInput: naming the member that is wrong in the attribute `pointer`.
    """
    if draft.regions is not None and not draft.regions:
        raise InvalidInput("/regions is empty.", hint="Name regions, or leave it out for any.", pointer="/regions")
    kind = find_kind(draft.kind)
    delivery = find_delivery(draft.delivery, kind)
    settings = check_settings(kind.settings, parse_json(draft.settings, what="settings"), what="settings")
    given = parse_json(draft.delivery_settings, what="delivery_settings")
    return kind, settings, check_settings(delivery.settings, given, what="delivery_settings")


def render_workload(applied: AppliedTarget, workload: Workload) -> tuple[Document, ...]:
    """A workload in a target's words.

    Raises:
        InvalidInput: if the kind cannot express it.
    """
    kind = find_kind(applied.kind)
    return kind.render(workload, check_settings(kind.settings, applied.settings, what="settings"))


def find_target(session: Session, workspace_id: str, name: str) -> AppliedTarget:
    """One target of a workspace, `local` included.

    Raises:
        DeployTargetNotFound: if there is none of that name.
    """
    if name == LOCAL:
        return _LOCAL
    row = session.get(DeployTargetRow, (workspace_id, name))
    if row is None:
        raise _missing(name)
    return _to_applied(row)


def _missing(name: str) -> DeployTargetNotFound:
    return DeployTargetNotFound(f"There is no deploy target {name[:80]!r}.", hint=_HINT, target=name[:80])


def _check_revision(name: str, actual: int, expected: int | None) -> None:
    require_revision(f"The target {name!r}", actual, expected, hint=f"Look at it again: fairlead target show {name}")


def _users(session: Session, workspace_id: str, name: str) -> list[tuple[str, str]]:
    """The deployments that run on a target, are to, or still have to end there, with the region."""
    query = (
        select(DeploymentRow.name, DeploymentRegionRow.region)
        .join(
            DeploymentRegionRow,
            (DeploymentRegionRow.workspace_id == DeploymentRow.workspace_id)
            & (DeploymentRegionRow.deployment_id == DeploymentRow.id),
        )
        .where(DeploymentRow.workspace_id == workspace_id)
        .where(
            (DeploymentRegionRow.target == name)
            | (DeploymentRegionRow.running_target == name)
            | (DeploymentRegionRow.leaving_target == name)
        )
    )
    return [(deployment, region) for deployment, region in session.execute(query)]


def _check_users(session: Session, row: DeployTargetRow, draft: TargetDraft) -> None:
    users = _users(session, row.workspace_id, row.name)
    moves = draft.kind != row.kind or draft.delivery != row.delivery
    lost = [
        f"{deployment} in {region}"
        for deployment, region in users
        if moves or (draft.regions is not None and region not in draft.regions)
    ]
    if lost:
        raise Conflict(
            f"The target {row.name!r} runs {', '.join(lost)}, which the new document would leave behind.",
            hint="Apply it under another name, and move them there first.",
        )


def _facts(row: DeployTargetRow) -> dict[str, JsonValue]:
    return {
        "kind": row.kind,
        "delivery": row.delivery,
        "regions": None if row.regions is None else [*row.regions],
        "settings": dict(row.settings),
        "delivery_settings": dict(row.delivery_settings),
    }


def _to_applied(row: DeployTargetRow) -> AppliedTarget:
    return AppliedTarget(
        name=row.name,
        kind=row.kind,
        delivery=row.delivery,
        regions=None if row.regions is None else tuple(row.regions),
        settings=row.settings,
        delivery_settings=row.delivery_settings,
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
