"""Models and versions as MLflow shows them, and the rows behind them; what was deleted is not there."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Select, Text, bindparam, cast, func, select, tuple_
from sqlalchemy.orm import Session, aliased

from fairlead.core.errors import AliasNotFound, ModelNotFound, ModelVersionNotFound
from fairlead.core.ids import NAME_MAX_LENGTH
from fairlead.core.prepared import Prepared
from fairlead.registry.models import RegisteredModel
from fairlead.registry.tables import AliasRow, ModelTagRow, ModelVersionRow, RegisteredModelRow, VersionTagRow
from fairlead.registry.version_records import ModelVersion

NO_STAGE = "None"
_STATUS = {"PENDING": "PENDING_REGISTRATION", "READY": "READY", "FAILED": "FAILED_REGISTRATION"}
_LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-zA-Z]{1,60})")
_ROWS_AT_ONCE = 400

SHOWN = (
    ModelVersionRow.workspace_id,
    ModelVersionRow.model_id,
    ModelVersionRow.version,
    ModelVersionRow.state,
    ModelVersionRow.description,
    ModelVersionRow.source,
    ModelVersionRow.stage,
    ModelVersionRow.run_id,
    ModelVersionRow.run_link,
    ModelVersionRow.error_detail,
    ModelVersionRow.created_by,
    ModelVersionRow.created_at,
    ModelVersionRow.ready_at,
    ModelVersionRow.changed_at,
)
"""The columns that MLflow's form of a version is made of."""

Pair = tuple[RegisteredModelRow, ModelVersionRow]
Wire = dict[str, Any]


def find_model(session: Session, workspace_id: str, name: str, *, lock: bool = False) -> RegisteredModelRow:
    """The row of a model that is not deleted.

    Raises:
        ModelNotFound: if there is none of that name.
    """
    wanted = {"in_workspace": workspace_id, "called": _storable(name)}
    row = session.scalars(_MODEL_LOCKED if lock else _MODEL, wanted).one_or_none()
    if row is None:
        raise model_not_found(name)
    return row


def find_version(session: Session, workspace_id: str, name: str, version: int) -> Pair:
    """The rows of a version that is not deleted, in one query.

    Raises:
        ModelVersionNotFound: if there is none.
    """
    wanted = {"in_workspace": workspace_id, "called": _storable(name), "numbered": version}
    found = session.execute(_VERSION, wanted).one_or_none()
    if found is None:
        raise _version_not_found(name, version)
    return found[0], found[1]


def find_files(session: Session, workspace_id: str, name: str, version: int) -> tuple[str, str | None]:
    """The state and the upload of a version that is not deleted.

    Raises:
        ModelVersionNotFound: if there is none.
    """
    wanted = {"in_workspace": workspace_id, "called": _storable(name), "numbered": version}
    found = _FILES.first(session, **wanted)
    if found is None:
        raise _version_not_found(name, version)
    return found.state, found.upload_id


def find_by_alias(session: Session, workspace_id: str, name: str, alias: str) -> Pair:
    """The rows of the version that an alias, or an environment, points to.

    Raises:
        ModelNotFound, AliasNotFound: if there is no such thing.
    """
    query = (
        pairs(workspace_id)
        .join(
            AliasRow,
            (AliasRow.workspace_id == ModelVersionRow.workspace_id)
            & (AliasRow.model_id == ModelVersionRow.model_id)
            & (AliasRow.version == ModelVersionRow.version),
        )
        .where(RegisteredModelRow.name == _storable(name), AliasRow.name == _storable(alias))
    )
    found = session.execute(query).one_or_none()
    if found is None:
        find_model(session, workspace_id, name)
        raise AliasNotFound(f"Registered model alias {alias[:80]} not found.")
    return found[0], found[1]


def pairs(workspace_id: Any) -> Select[RegisteredModelRow, ModelVersionRow]:
    """A query of every version that is not deleted, with its model."""
    return (
        select(RegisteredModelRow, ModelVersionRow)
        .join(
            ModelVersionRow,
            (ModelVersionRow.workspace_id == RegisteredModelRow.workspace_id)
            & (ModelVersionRow.model_id == RegisteredModelRow.id),
        )
        .where(
            RegisteredModelRow.workspace_id == workspace_id,
            RegisteredModelRow.deleted_at.is_(None),
            ModelVersionRow.deleted_at.is_(None),
        )
    )


_MODEL = select(RegisteredModelRow).where(
    RegisteredModelRow.workspace_id == bindparam("in_workspace"),
    RegisteredModelRow.name == bindparam("called"),
    RegisteredModelRow.deleted_at.is_(None),
)
_MODEL_LOCKED = _MODEL.with_for_update(key_share=True)
_VERSION = pairs(bindparam("in_workspace")).where(
    RegisteredModelRow.name == bindparam("called"), ModelVersionRow.version == bindparam("numbered")
)
_FILES = Prepared(_VERSION.with_only_columns(ModelVersionRow.state, ModelVersionRow.upload_id))


def latest_of_each_stage(session: Session, models: Sequence[RegisteredModelRow]) -> dict[str, list[Pair]]:
    """The newest version of each stage of some models, by the model's id."""
    found: defaultdict[str, list[Pair]] = defaultdict(list)
    for part in _parts(models):
        by_id = {model.id: model for model in part}
        stage = func.coalesce(ModelVersionRow.stage, NO_STAGE)
        newest = (
            select(ModelVersionRow.model_id, func.max(ModelVersionRow.version))
            .where(
                ModelVersionRow.workspace_id == part[0].workspace_id,
                ModelVersionRow.model_id.in_(by_id),
                ModelVersionRow.deleted_at.is_(None),
                ModelVersionRow.archived_at.is_(None),
            )
            .group_by(ModelVersionRow.model_id, stage)
        )
        query = (
            select(ModelVersionRow)
            .where(
                ModelVersionRow.workspace_id == part[0].workspace_id,
                tuple_(ModelVersionRow.model_id, ModelVersionRow.version).in_(newest),
            )
            .order_by(ModelVersionRow.version)
        )
        for row in session.scalars(query):
            found[row.model_id].append((by_id[row.model_id], row))
    return found


def render_models(session: Session, models: Sequence[RegisteredModelRow]) -> list[Wire]:
    """Models as MLflow's `RegisteredModel`."""
    tags: defaultdict[str, list[Wire]] = defaultdict(list)
    aliases: defaultdict[str, list[Wire]] = defaultdict(list)
    for part in _parts(models):
        workspace_id, ids = part[0].workspace_id, [model.id for model in part]
        of_tags = select(ModelTagRow).where(ModelTagRow.workspace_id == workspace_id, ModelTagRow.model_id.in_(ids))
        for tag in session.scalars(of_tags.order_by(ModelTagRow.key)):
            tags[tag.model_id].append({"key": tag.key, "value": tag.value})
        of_aliases = select(AliasRow).where(AliasRow.workspace_id == workspace_id, AliasRow.model_id.in_(ids))
        for alias in session.scalars(of_aliases.where(AliasRow.version.is_not(None)).order_by(AliasRow.name)):
            aliases[alias.model_id].append({"alias": alias.name, "version": str(alias.version)})
    latest = latest_of_each_stage(session, models)
    shown = render_versions(session, [pair for model in models for pair in latest.get(model.id, ())])
    versions: defaultdict[str, list[Wire]] = defaultdict(list)
    for version in shown:
        versions[version["name"]].append(version)
    return [
        {
            "name": model.name,
            "creation_timestamp": to_millis(model.created_at),
            "last_updated_timestamp": to_millis(model.updated_at),
            "user_id": model.created_by,
            "description": model.description,
            "latest_versions": versions[model.name],
            "tags": tags[model.id],
            "aliases": aliases[model.id],
        }
        for model in models
    ]


def render_versions(session: Session, found: Sequence[Pair]) -> list[Wire]:
    """Versions as MLflow's `ModelVersion`."""
    tags: defaultdict[tuple[str, int], list[Wire]] = defaultdict(list)
    aliases: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for part in _parts(found):
        workspace_id = part[0][0].workspace_id
        keys = [(row.model_id, row.version) for _, row in part]
        of_tags = select(VersionTagRow).where(
            VersionTagRow.workspace_id == workspace_id, tuple_(VersionTagRow.model_id, VersionTagRow.version).in_(keys)
        )
        for tag in session.scalars(of_tags.order_by(VersionTagRow.key)):
            tags[tag.model_id, tag.version].append({"key": tag.key, "value": tag.value})
        of_aliases = select(AliasRow).where(
            AliasRow.workspace_id == workspace_id, tuple_(AliasRow.model_id, AliasRow.version).in_(keys)
        )
        for alias in session.scalars(of_aliases.order_by(AliasRow.name)):
            aliases[alias.model_id, alias.version or 0].append(alias.name)
    return [
        render_version(model.name, row, tags[row.model_id, row.version], aliases[row.model_id, row.version])
        for model, row in found
    ]


def wire_of_model(model: RegisteredModel) -> Wire:
    """A model that was just registered, which has no version yet, as MLflow's `RegisteredModel`."""
    return {
        "name": model.name,
        "creation_timestamp": to_millis(model.created_at),
        "last_updated_timestamp": to_millis(model.updated_at),
        "user_id": model.created_by,
        "description": model.description,
        "latest_versions": [],
        "tags": [{"key": key, "value": value} for key, value in sorted(model.tags.items())],
        "aliases": [],
    }


def wire_of_version(version: ModelVersion, *, changed_at: datetime | None = None) -> Wire:
    """A version as the call that made or changed it knows it, as MLflow's `ModelVersion`.

    So it is not read again, and can be shown by a dry run, which keeps nothing that could be read.
    """
    error = version.error.detail if version.error else None
    row = SimpleNamespace(
        **{each.name: getattr(version, each.name) for each in fields(version)},
        changed_at=changed_at,
        error_detail=error,
    )
    tags = [{"key": key, "value": value} for key, value in sorted(version.tags.items())]
    return render_version(version.name, row, tags, list(version.aliases))


def collected(version: Any, *, is_sqlite: bool) -> tuple[Any, Any]:
    """What a statement about versions also asks for: their tags and aliases, each as one JSON text."""
    collect, pair = (func.json_group_array, func.json_array) if is_sqlite else (func.json_agg, func.json_build_array)
    tags = select(cast(collect(pair(VersionTagRow.key, VersionTagRow.value)), Text)).where(
        VersionTagRow.workspace_id == version.workspace_id,
        VersionTagRow.model_id == version.model_id,
        VersionTagRow.version == version.version,
    )
    pointer = aliased(AliasRow)
    aliases = select(cast(collect(pointer.name), Text)).where(
        pointer.workspace_id == version.workspace_id,
        pointer.model_id == version.model_id,
        pointer.version == version.version,
    )
    return tags.scalar_subquery().label("tags"), aliases.scalar_subquery().label("aliases")


def read_collected(row: Any) -> tuple[dict[str, str], list[str]]:
    """The tags and aliases that `collected` found, in order."""
    tags: list[tuple[str, str]] = json.loads(row.tags or "[]")
    aliases: list[str] = json.loads(row.aliases or "[]")
    return dict(sorted(tags)), sorted(aliases)


def render_found(row: Any) -> Wire:
    """A version as MLflow's `ModelVersion`, from a row of `SHOWN`, `model_name` and what `collected` adds."""
    tags, aliases = read_collected(row)
    return render_version(row.model_name, row, [{"key": key, "value": value} for key, value in tags.items()], aliases)


def to_millis(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def own_source(model: str, version: int) -> str:
    """The path that a version's files have among ours."""
    return f"mlflow-artifacts:/models/{model}/{version}"


def model_not_found(name: str) -> ModelNotFound:
    """That there is no such model."""
    return ModelNotFound(f"Registered Model with name={name[:80]} not found.")


def _version_not_found(name: str, version: int) -> ModelVersionNotFound:
    return ModelVersionNotFound(f"Model Version (name={name[:80]}, version={version}) not found.")


def render_version(model: str, row: Any, tags: list[Wire], aliases: list[str]) -> Wire:
    """A version as MLflow's `ModelVersion`; `row` has the attributes of a `ModelVersionRow`."""
    source = row.source or own_source(model, row.version)
    logged = _LOGGED_MODEL.fullmatch(source)
    shown: Wire = {
        "name": model,
        "version": str(row.version),
        "creation_timestamp": to_millis(row.created_at),
        "last_updated_timestamp": to_millis(row.changed_at or row.ready_at or row.created_at),
        "user_id": row.created_by,
        "current_stage": row.stage or NO_STAGE,
        "description": row.description,
        "source": source,
        "run_id": row.run_id or "",
        "status": _STATUS[row.state],
        "status_message": row.error_detail or "",
        "tags": tags,
        "run_link": row.run_link or "",
        "aliases": aliases,
    }
    if logged:
        shown["model_id"] = logged[1]
    return shown


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _ROWS_AT_ONCE):
        yield items[start : start + _ROWS_AT_ONCE]


def _storable(name: str) -> str:
    """A name to look for: one that no row can have is not sent to the database."""
    is_storable = len(name) <= NAME_MAX_LENGTH and "\0" not in name and name.isprintable()
    return name if is_storable else ""
