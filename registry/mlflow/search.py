"""Searches: MLflow's filter and order as SQL, page by page from where the last page ended."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_

from fairlead.core.db import UtcDateTime
from fairlead.core.errors import InvalidInput, InvalidPageToken
from fairlead.registry.mlflow.filters import (
    MODELS,
    PROMPT_TAG,
    VERSIONS,
    Clause,
    asks_for_prompts,
    parse_filter,
    parse_order_by,
)
from fairlead.registry.mlflow.records import Wire, pairs, render_models, render_versions
from fairlead.registry.tables import ModelTagRow, ModelVersionRow, RegisteredModelRow, VersionTagRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.registry.identity import Caller

MODELS_DEFAULT, MODELS_MAX = 100, 1_000
VERSIONS_DEFAULT, VERSIONS_MAX = 10_000, 200_000
_CHANGED = func.coalesce(ModelVersionRow.changed_at, ModelVersionRow.ready_at, ModelVersionRow.created_at)
_MODEL_KEYS: dict[str, Any] = {
    "name": RegisteredModelRow.name,
    "creation_timestamp": RegisteredModelRow.created_at,
    "last_updated_timestamp": RegisteredModelRow.updated_at,
}
_VERSION_KEYS: dict[str, Any] = {
    "name": RegisteredModelRow.name,
    "version_number": ModelVersionRow.version,
    "creation_timestamp": ModelVersionRow.created_at,
    "last_updated_timestamp": _CHANGED,
}
_ATTRIBUTES: dict[str, Any] = {
    "name": RegisteredModelRow.name,
    "run_id": func.coalesce(ModelVersionRow.run_id, ""),
    "source_path": func.coalesce(ModelVersionRow.source, ""),
    "version_number": ModelVersionRow.version,
}
_OPERATORS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "IN": lambda column, values: column.in_(values),
    "NOT IN": lambda column, values: column.not_in(values),
}


class Searches:
    """Finds models and versions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def models(
        self,
        caller: Caller,
        *,
        filter_text: str | None,
        order_by: Sequence[str],
        max_results: int | None,
        page_token: str | None,
    ) -> tuple[list[Wire], str | None]:
        """A page of models, and the token of the next one.

        Raises:
            InvalidInput: if the filter, the order, the size or the token is not valid.
        """
        clauses = parse_filter(filter_text, MODELS)
        order = [*parse_order_by(order_by, MODELS)]
        if "name" not in dict(order):
            order.append(("name", True))
        size = _page_size(max_results, MODELS_DEFAULT, MODELS_MAX)
        with self._database.read() as session:
            is_sqlite = session.get_bind().dialect.name == "sqlite"
            query = select(RegisteredModelRow).where(
                RegisteredModelRow.workspace_id == caller.workspace_id, RegisteredModelRow.deleted_at.is_(None)
            )
            query = query.where(*_conditions(clauses, caller.workspace_id, is_sqlite=is_sqlite, of_versions=False))
            keys = [(_MODEL_KEYS[key], is_ascending) for key, is_ascending in order]
            bound_to = _fingerprint("models", caller.workspace_id, filter_text, order)
            rows, token = _fetch(session, query, keys, size, page_token, bound_to)
            return render_models(session, [row[0] for row in rows]), token

    def versions(
        self,
        caller: Caller,
        *,
        filter_text: str | None,
        order_by: Sequence[str],
        max_results: int | None,
        page_token: str | None,
    ) -> tuple[list[Wire], str | None]:
        """A page of versions, and the token of the next one.

        Raises:
            InvalidInput: if the filter, the order, the size or the token is not valid.
        """
        clauses = parse_filter(filter_text, VERSIONS)
        order = [*(parse_order_by(order_by, VERSIONS) or (("last_updated_timestamp", False),))]
        if "name" not in dict(order):
            order.append(("name", True))
        if "version_number" not in dict(order):
            order.append(("version_number", False))
        size = _page_size(max_results, VERSIONS_DEFAULT, VERSIONS_MAX)
        with self._database.read() as session:
            is_sqlite = session.get_bind().dialect.name == "sqlite"
            query = pairs(caller.workspace_id)
            query = query.where(*_conditions(clauses, caller.workspace_id, is_sqlite=is_sqlite, of_versions=True))
            keys = [(_VERSION_KEYS[key], is_ascending) for key, is_ascending in order]
            bound_to = _fingerprint("versions", caller.workspace_id, filter_text, order)
            rows, token = _fetch(session, query, keys, size, page_token, bound_to)
            return render_versions(session, [(row[0], row[1]) for row in rows]), token


def _conditions(
    clauses: Sequence[Clause], workspace_id: str, *, is_sqlite: bool, of_versions: bool
) -> list[ColumnElement[bool]]:
    conditions = [
        _compare(_ATTRIBUTES[clause.key], clause, is_sqlite=is_sqlite)
        if clause.kind == "attribute"
        else _has_tag(clause, workspace_id, is_sqlite=is_sqlite, of_versions=of_versions)
        for clause in clauses
        if not (clause.kind == "tag" and clause.key == PROMPT_TAG)
    ]
    prompts = select(ModelTagRow.model_id).where(
        ModelTagRow.workspace_id == workspace_id,
        ModelTagRow.key == PROMPT_TAG,
        func.lower(ModelTagRow.value) == "true",
    )
    model_id = ModelVersionRow.model_id if of_versions else RegisteredModelRow.id
    conditions.append(model_id.in_(prompts) if asks_for_prompts(clauses) else model_id.not_in(prompts))
    return conditions


def _has_tag(clause: Clause, workspace_id: str, *, is_sqlite: bool, of_versions: bool) -> ColumnElement[bool]:
    # As a set, so that the database may begin with the tag where few rows have it.
    if of_versions:
        owners = select(VersionTagRow.model_id, VersionTagRow.version).where(
            VersionTagRow.workspace_id == workspace_id,
            VersionTagRow.key == clause.key,
            _compare(VersionTagRow.value, clause, is_sqlite=is_sqlite),
        )
        return tuple_(ModelVersionRow.model_id, ModelVersionRow.version).in_(owners)
    of_models = select(ModelTagRow.model_id).where(
        ModelTagRow.workspace_id == workspace_id,
        ModelTagRow.key == clause.key,
        _compare(ModelTagRow.value, clause, is_sqlite=is_sqlite),
    )
    return RegisteredModelRow.id.in_(of_models)


def _compare(column: Any, clause: Clause, *, is_sqlite: bool) -> ColumnElement[bool]:
    value, text = clause.value, str(clause.value)
    if clause.comparator == "LIKE":
        # SQLite's LIKE ignores case; its GLOB does not.
        return column.op("GLOB")(_to_glob(text)) if is_sqlite else column.like(_to_like(text), escape="\\")
    if clause.comparator == "ILIKE":
        return func.lower(column).like(_to_like(text.lower()), escape="\\")
    return _OPERATORS[clause.comparator](column, value)


def _to_like(pattern: str) -> str:
    """The pattern, with backslashes standing for themselves."""
    return pattern.replace("\\", "\\\\")


def _to_glob(pattern: str) -> str:
    wild = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(wild.get(character, character) for character in pattern)


def _page_size(wanted: int | None, default: int, most: int) -> int:
    size = default if wanted is None else wanted
    if not 1 <= size <= most:
        raise InvalidInput(
            f"Invalid value {size} for parameter 'max_results' supplied: it must be at least 1 and at most {most}.",
            hint="Ask for less, and for further pages with page_token.",
        )
    return size


def _fetch(  # noqa: PLR0917  (a page's parts)
    session: Session,
    query: Any,
    keys: Sequence[tuple[Any, bool]],
    size: int,
    token: str | None,
    bound_to: str,
) -> tuple[list[Any], str | None]:
    """One page in the order of the keys (each with whether it ascends), which together are unique."""
    if token:
        query = query.where(_after(keys, _decode(token, bound_to, keys)))
    ordered = query.order_by(*(key.asc() if is_ascending else key.desc() for key, is_ascending in keys))
    extra = [key.label(f"key_{place}") for place, (key, _) in enumerate(keys)]
    rows = session.execute(ordered.add_columns(*extra).limit(size + 1)).all()
    shown = rows[:size]
    if len(rows) <= size:
        return list(shown), None
    return list(shown), _encode(bound_to, list(shown[-1])[-len(keys) :])


def _after(keys: Sequence[tuple[Any, bool]], last: Sequence[Any]) -> ColumnElement[bool]:
    steps: list[ColumnElement[bool]] = []
    for place, ((key, is_ascending), value) in enumerate(zip(keys, last, strict=True)):
        same = [earlier == before for (earlier, _), before in zip(keys[:place], last[:place], strict=True)]
        steps.append(and_(*same, key > value if is_ascending else key < value))
    return or_(*steps)


def _fingerprint(*listing: object) -> str:
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def _encode(bound_to: str, values: Sequence[Any]) -> str:
    texts = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([bound_to, *texts]).encode()).decode()


def _decode(token: str, bound_to: str, keys: Sequence[tuple[Any, bool]]) -> list[Any]:
    wrong = InvalidPageToken("Invalid page token.", hint="Begin again without page_token.")
    try:
        members = cast("object", json.loads(base64.b64decode(token[:4000], altchars=b"-_", validate=True)))
    except (ValueError, binascii.Error, RecursionError):
        raise wrong from None
    found = cast("list[object]", members) if isinstance(members, list) else []
    if len(found) != len(keys) + 1 or found[0] != bound_to:
        raise wrong
    values: list[Any] = []
    for (key, _), value in zip(keys, found[1:], strict=True):
        kind = datetime if isinstance(key.type, UtcDateTime) else key.type.python_type
        if kind is datetime and isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                raise wrong from None
            if moment.tzinfo is None:
                raise wrong
            values.append(moment)
        elif isinstance(value, kind) and not isinstance(value, bool) and _is_key(value):
            values.append(value)
        else:
            raise wrong
    return values


def _is_key(value: object) -> bool:
    return value.isprintable() if isinstance(value, str) else isinstance(value, int) and abs(value) < 2**31
