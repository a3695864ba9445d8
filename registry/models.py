"""Registered models: names under which versions are registered, with who answers and who pays for them.

A model's residency class and name never change. Its owner, team and cost centre are required: they are what the
ledger is summed by and whom an auditor asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, bindparam, select
from sqlalchemy.orm import Session

from fairlead.catalog import check, load_catalog, parse_residency
from fairlead.core.db import Database
from fairlead.core.errors import AlreadyExists, Archived, InvalidInput, JsonValue, ModelNotFound
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.core.prepared import Call, Prepared
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_tags, parse_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import AliasRow, ModelTagRow, ModelVersionRow, RegisteredModelRow

Shown = Literal["active", "archived", "deleted"]
"""What a list shows: what is neither archived nor deleted, what is archived, or what can be restored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Who answers for a model and who pays for it."""

    owner: str
    team: str
    cost_centre: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A registered model, with the version that each alias and environment names.

    `regions` of None means every region that its residency class permits.
    """

    name: str
    residency: str
    regions: tuple[str, ...] | None
    description: str
    labels: Labels
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    last_version: int
    created_by: str
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange:
    """What to change of a model; None leaves a thing as it is. A tag whose value is None is removed."""

    description: str | None = None
    owner: str | None = None
    team: str | None = None
    cost_centre: str | None = None
    tags: Mapping[str, str | None] | None = None


class Models:
    """Registers models, shows them, and changes what may change of them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
        self,
        caller: Caller,
        *,
        name: str,
        labels: Labels,
        residency: str = "unrestricted",
        regions: Sequence[str] | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        key: IdempotencyKey | None = None,
    ) -> RegisteredModel:
        """Register a model.

        Raises:
            AlreadyExists: if the name is taken.
            InvalidInput: if a name, label, tag, region or the residency class is not valid.
            ResidencyViolation: if a region lies where the residency class does not permit.
        """
        now = self._clock.now()
        row = RegisteredModelRow(
            workspace_id=caller.workspace_id,
            name=parse_name(name),
            residency=parse_residency(residency),
            regions=parse_regions(regions, residency),
            description=parse_text(description, what="description"),
            last_version=0,
            created_by=caller.principal,
            created_at=now,
            updated_at=now,
            **_parse_labels(labels),
        )
        checked = parse_tags(tags or {})
        with self._database.write() as session:
            return run_once(
                session,
                caller,
                self._clock,
                key,
                result_type=RegisteredModel,
                action=lambda: self._create(session, caller, row, checked),
            )

    def get(self, caller: Caller, name: str) -> RegisteredModel:
        """One model.

        Raises:
            ModelNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            row = find_model(session, caller.workspace_id, name)
            return render_models(session, [row])[0]

    def list(
        self, caller: Caller, page: PageRequest, *, name_prefix: str = "", shown: Shown = "active"
    ) -> Page[RegisteredModel]:
        """Models in order of name; `name_prefix` is compared by code point."""
        prefix = parse_text(name_prefix, what="name prefix", max_length=255)
        query = select(RegisteredModelRow).where(
            RegisteredModelRow.workspace_id == caller.workspace_id, *is_shown(RegisteredModelRow, shown)
        )
        if prefix:
            query = query.where(RegisteredModelRow.name.startswith(prefix, autoescape=True))
        listing = ("models", caller.workspace_id, prefix, shown)
        with self._database.read() as session:
            rows = page.fetch(session, query, [RegisteredModelRow.name], listing=listing)
            return Page(items=tuple(render_models(session, rows.items)), next_page_token=rows.next_page_token)

    def update(self, caller: Caller, name: str, change: ModelChange) -> RegisteredModel:
        """Change a model's description, labels or tags.

        Raises:
            ModelNotFound: if there is none of that name.
            InvalidInput: if what it should become is not valid.
        """
        with self._database.write() as session:
            row = find_model(session, caller.workspace_id, name, lock=True)
            facts = apply_change(session, row, change, self._clock.now())
            audit.record(
                session,
                caller,
                self._clock,
                action="model.update",
                subject=row.name,
                residency=row.residency,
                facts=facts,
            )
            session.flush()
            return render_models(session, [row])[0]

    def _create(
        self, session: Session, caller: Caller, row: RegisteredModelRow, tags: dict[str, str]
    ) -> RegisteredModel:
        query = select(RegisteredModelRow).where(
            RegisteredModelRow.workspace_id == caller.workspace_id, RegisteredModelRow.name == row.name
        )
        if (taken := session.scalar(query)) is not None:
            is_deleted = taken.deleted_at is not None
            raise AlreadyExists(
                f"There is a {'deleted' if is_deleted else 'registered'} model {row.name!r} already.",
                hint=f"Restore it: fairlead model restore {row.name}"
                if is_deleted
                else f"Register a version of it, or look at it: fairlead model show {row.name}",
                model=row.name,
            )
        session.add(row)
        session.flush()
        _replace_tags(session, row, tags)
        session.flush()
        facts: dict[str, JsonValue] = {
            "owner": row.owner,
            "team": row.team,
            "cost_centre": row.cost_centre,
            "regions": None if row.regions is None else [*row.regions],
        }
        audit.record(
            session, caller, self._clock, action="model.create", subject=row.name, residency=row.residency, facts=facts
        )
        return render_models(session, [row])[0]


def apply_change(session: Session, row: RegisteredModelRow, change: ModelChange, now: datetime) -> dict[str, JsonValue]:
    """Change a locked model's row and tags; what an audit event says of that.

    Raises:
        InvalidInput: if what it should become is not valid.
    """
    if change.description is not None:
        row.description = parse_text(change.description, what="description")
    labels = Labels(
        owner=row.owner if change.owner is None else change.owner,
        team=row.team if change.team is None else change.team,
        cost_centre=row.cost_centre if change.cost_centre is None else change.cost_centre,
    )
    for label, value in _parse_labels(labels).items():
        setattr(row, label, value)
    tags = merge_tags(_tags_of(session, [row]).get(row.id, {}), change.tags or {})
    _replace_tags(session, row, tags)
    row.updated_at = now
    return {**_parse_labels(labels), "tags": dict(tags)}


def render_model(session: Session, row: RegisteredModelRow) -> RegisteredModel:
    """A model, as its rows say."""
    return render_models(session, [row])[0]


_BY_NAME = select(RegisteredModelRow).where(
    RegisteredModelRow.workspace_id == bindparam("in_workspace"), RegisteredModelRow.name == bindparam("called")
)
# Rows that refer to the model may be inserted meanwhile; only movers wait.
_BY_NAME_LOCKED = _BY_NAME.with_for_update(key_share=True)


def find_model(session: Session, workspace_id: str, name: str, *, lock: bool = False) -> RegisteredModelRow:
    """The row of a model that is not deleted. Locking it is how everything that moves below one model takes turns.

    Raises:
        ModelNotFound: if there is none of that name.
        InvalidName: if none could have that name.
    """
    row = find_any_model(session, workspace_id, name, lock=lock)
    _require_undeleted(row, name)
    return row


def lock_model(session: Session, workspace_id: str, name: str) -> Any:
    """As `find_model` with a lock; the row has what registering a version and moving a pointer ask of a model.

    Raises:
        ModelNotFound: if there is none of that name.
        InvalidName: if none could have that name.
    """
    statement, values = locking(workspace_id, name)
    return require_model(statement.first(session, **values), name)


def locking(workspace_id: str, name: str) -> Call:
    """What `lock_model` asks, to be sent with more; the answer is for `require_model`.

    Raises:
        InvalidName: if no model could have that name.
    """
    return _LOCKED, {"in_workspace": workspace_id, "called": parse_name(name)}


def require_model(row: Any, name: str) -> Any:
    """The row of a model that was looked for by its name.

    Raises:
        ModelNotFound: if there is none, or it was deleted.
    """
    if row is None:
        raise _not_found(name)
    _require_undeleted(row, name)
    return row


_LOCKED = Prepared(
    _BY_NAME_LOCKED.with_only_columns(
        RegisteredModelRow.workspace_id,
        RegisteredModelRow.id,
        RegisteredModelRow.name,
        RegisteredModelRow.residency,
        RegisteredModelRow.last_version,
        RegisteredModelRow.archived_at,
        RegisteredModelRow.deleted_at,
    )
)


def find_any_model(session: Session, workspace_id: str, name: str, *, lock: bool = False) -> RegisteredModelRow:
    """The row of a model, also of one that is deleted.

    Raises:
        ModelNotFound: if there was never one of that name.
        InvalidName: if none could have that name.
    """
    wanted = {"in_workspace": workspace_id, "called": parse_name(name)}
    row = session.scalars(_BY_NAME_LOCKED if lock else _BY_NAME, wanted).one_or_none()
    if row is None:
        raise _not_found(name)
    return row


def _require_undeleted(row: Any, name: str) -> None:
    if row.deleted_at is not None:
        raise ModelNotFound(
            f"There is no registered model {name[:255]!r}: it was deleted.",
            hint=f"Whoever may change it restores it with: fairlead model restore {name[:255]}",
            model=name[:255],
        )


def _not_found(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"There is no registered model {name[:255]!r}.",
        hint="List them with: fairlead model list",
        model=name[:255],
    )


def is_shown(table: type[RegisteredModelRow | ModelVersionRow], shown: Shown) -> tuple[ColumnElement[bool], ...]:
    """The conditions of a list of models or versions."""
    if shown == "deleted":
        return (table.deleted_at.is_not(None),)
    return (
        table.deleted_at.is_(None),
        table.archived_at.is_(None) if shown == "active" else table.archived_at.is_not(None),
    )


def require_unarchived(model: Any, version: Any = None) -> None:
    """Refuse what is archived; both have the attributes of their rows.

    Raises:
        Archived: with the command that takes it out of the archive.
    """
    if model.archived_at is not None:
        raise Archived(f"The model {model.name!r} is archived.", hint=f"Run: fairlead model unarchive {model.name}")
    if version is not None and version.archived_at is not None:
        reference = f"{model.name}/{version.version}"
        raise Archived(f"{reference} is archived.", hint=f"Run: fairlead model unarchive {reference}")


def parse_regions(regions: Sequence[str] | None, residency: str) -> list[str] | None:
    """Check the regions where something should be, and put them in order; None means all that residency permits.

    Raises:
        UnknownRegion: if the catalog has not one of them.
        ResidencyViolation: if one lies where the residency class does not permit.
        InvalidInput: if the list is empty.
    """
    if regions is None:
        return None
    if not regions:
        raise InvalidInput("The list of regions is empty.", hint="Leave it out to allow every permitted region.")
    wanted = parse_residency(residency)
    for region in regions:
        load_catalog().region(region)
        check(wanted, region)
    return sorted(set(regions))


def merge_tags(before: Mapping[str, str], change: Mapping[str, str | None]) -> dict[str, str]:
    """Tags after a change; one whose value is None goes away.

    Raises:
        InvalidInput: if the outcome is not valid.
    """
    merged = {**before, **change}
    return parse_tags({key: value for key, value in merged.items() if value is not None})


def to_labels(row: RegisteredModelRow) -> Labels:
    """A model's labels."""
    return Labels(owner=row.owner, team=row.team, cost_centre=row.cost_centre)


def _parse_labels(labels: Labels) -> dict[str, str]:
    values = {"owner": labels.owner, "team": labels.team, "cost_centre": labels.cost_centre}
    for label, value in values.items():
        if not parse_text(value, what=label, max_length=255).strip():
            raise InvalidInput(
                f"The model's {label} is empty.", hint="Every model names its owner, team and cost centre."
            )
    return values


def _tags_of(session: Session, rows: Sequence[RegisteredModelRow]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    if rows:
        query = (
            select(ModelTagRow)
            .where(ModelTagRow.workspace_id == rows[0].workspace_id, ModelTagRow.model_id.in_([row.id for row in rows]))
            .order_by(ModelTagRow.key)
        )
        for tag in session.scalars(query):
            found.setdefault(tag.model_id, {})[tag.key] = tag.value
    return found


def _replace_tags(session: Session, row: RegisteredModelRow, tags: Mapping[str, str]) -> None:
    query = select(ModelTagRow).where(ModelTagRow.workspace_id == row.workspace_id, ModelTagRow.model_id == row.id)
    existing = {tag.key: tag for tag in session.scalars(query)}
    for key, value in tags.items():
        if key in existing:
            existing[key].value = value
        else:
            session.add(ModelTagRow(workspace_id=row.workspace_id, model_id=row.id, key=key, value=value))
    for key in existing.keys() - tags.keys():
        session.delete(existing[key])


def render_models(session: Session, rows: Sequence[RegisteredModelRow]) -> list[RegisteredModel]:
    """Models as the record has them, with tags and aliases."""
    tags = _tags_of(session, rows)
    aliases: dict[str, dict[str, int]] = {}
    if rows:
        query = (
            select(AliasRow)
            .where(AliasRow.workspace_id == rows[0].workspace_id, AliasRow.model_id.in_([row.id for row in rows]))
            .order_by(AliasRow.name)
        )
        for alias in session.scalars(query):
            if alias.version is not None:
                aliases.setdefault(alias.model_id, {})[alias.name] = alias.version
    return [
        RegisteredModel(
            name=row.name,
            residency=row.residency,
            regions=None if row.regions is None else tuple(row.regions),
            description=row.description,
            labels=to_labels(row),
            tags=tags.get(row.id, {}),
            aliases=aliases.get(row.id, {}),
            last_version=row.last_version,
            created_by=row.created_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
            archived_at=row.archived_at,
            deleted_at=row.deleted_at,
        )
        for row in rows
    ]
