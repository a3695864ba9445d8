"""Searches: MLflow's filter and order as SQL, page by page from where the last page ended."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Float, Integer, Select, and_, bindparam, func, or_, select, text, tuple_

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
from fairlead.registry.mlflow.records import SHOWN, Wire, collected, pairs, render_found, render_models
from fairlead.registry.models import is_shown
from fairlead.registry.tables import (
    INDEXED_TAG_LENGTH,
    SHORT_TAG,
    ModelTagRow,
    ModelVersionRow,
    RegisteredModelRow,
    VersionTagRow,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.registry.identity import Caller

MODELS_DEFAULT, MODELS_MAX = 100, 1_000
VERSIONS_DEFAULT, VERSIONS_MAX = 10_000, 200_000
_SHORT = "short"
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
        asked = _Asked.of(clauses, order, caller.workspace_id, is_sqlite=self._database.is_sqlite)
        bound_to = _fingerprint("models", caller.workspace_id, filter_text, order)
        with self._database.read() as session:
            statement = _models_statement(asked.shape, bool(page_token), self._database.is_sqlite)
            keys = [(_MODEL_KEYS[key], is_ascending) for key, is_ascending in order]
            rows, token = _fetch(session, statement, asked.values, keys, size, page_token, bound_to)
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
        asked = _Asked.of(clauses, order, caller.workspace_id, is_sqlite=self._database.is_sqlite)
        bound_to = _fingerprint("versions", caller.workspace_id, filter_text, order)
        with self._database.read() as session:
            statement = _versions_statement(asked.shape, bool(page_token), self._database.is_sqlite)
            keys = [(_VERSION_KEYS[key], is_ascending) for key, is_ascending in order]
            rows, token = _fetch(session, statement, asked.values, keys, size, page_token, bound_to)
            return [render_found(row) for row in rows], token


class _Shape(NamedTuple):
    """All of a search but what it compares with: searches of one shape are one statement."""

    clauses: tuple[Clause, ...]
    order: tuple[tuple[str, bool], ...]
    is_of_prompts: bool


class _Asked(NamedTuple):
    """A search, as its shape and the values of its parameters."""

    shape: _Shape
    values: dict[str, Any]

    @classmethod
    def of(
        cls, clauses: Sequence[Clause], order: Sequence[tuple[str, bool]], workspace_id: str, *, is_sqlite: bool
    ) -> _Asked:
        """Take the values, and the keys of tags, out of the clauses."""
        values: dict[str, Any] = {"asked_workspace": workspace_id}
        bare: list[Clause] = []
        compared = [clause for clause in clauses if not (clause.kind == "tag" and clause.key == PROMPT_TAG)]
        for place, clause in enumerate(compared):
            value, key = clause.value, clause.key
            if clause.comparator == "LIKE":
                # SQLite's LIKE ignores case; its GLOB does not.
                value = _to_glob(str(value)) if is_sqlite else _to_like(str(value))
            elif clause.comparator == "ILIKE":
                value = _to_like(str(value).lower())
            values[f"asked_value_{place}"] = list(value) if isinstance(value, tuple) else value
            if clause.kind == "tag":
                values[f"asked_key_{place}"] = key
                key = _SHORT if len(str(value)) <= INDEXED_TAG_LENGTH else ""
            bare.append(replace(clause, key=key, value=0.0 if isinstance(value, float) else ""))
        return cls(_Shape(tuple(bare), tuple(order), asks_for_prompts(clauses)), values)


@lru_cache(maxsize=128)
def _models_statement(shape: _Shape, is_after: bool, is_sqlite: bool) -> Select[Any]:  # noqa: FBT001
    statement = select(RegisteredModelRow).where(
        RegisteredModelRow.workspace_id == bindparam("asked_workspace"), *is_shown(RegisteredModelRow, "active")
    )
    statement = statement.where(*_conditions(shape, is_sqlite=is_sqlite, of_versions=False))
    return _ordered(statement, [(_MODEL_KEYS[key], is_ascending) for key, is_ascending in shape.order], is_after)


@lru_cache(maxsize=128)
def _versions_statement(shape: _Shape, is_after: bool, is_sqlite: bool) -> Select[Any]:  # noqa: FBT001
    keys = [(_VERSION_KEYS[key], is_ascending) for key, is_ascending in shape.order]
    statement = pairs(bindparam("asked_workspace")).where(
        RegisteredModelRow.archived_at.is_(None),
        ModelVersionRow.archived_at.is_(None),
        *_conditions(shape, is_sqlite=is_sqlite, of_versions=True),
    )
    statement = statement.with_only_columns(RegisteredModelRow.name.label("model_name"), *SHOWN)
    page = _ordered(statement, keys, is_after).subquery("page")
    order = [page.c[f"order_{place}"] for place in range(len(keys))]
    # What is collected for each row is collected for those of the page alone.
    return select(page, *collected(page.c, is_sqlite=is_sqlite)).order_by(
        *(key.asc() if is_ascending else key.desc() for key, (_, is_ascending) in zip(order, keys, strict=True))
    )


def _ordered(statement: Any, keys: Sequence[tuple[Any, bool]], is_after: bool) -> Select[Any]:  # noqa: FBT001
    if is_after:
        last = [bindparam(f"asked_last_{place}", type_=key.type) for place, (key, _) in enumerate(keys)]
        statement = statement.where(_after(keys, last))
    ordered = statement.order_by(*(key.asc() if is_ascending else key.desc() for key, is_ascending in keys))
    extra = [key.label(f"order_{place}") for place, (key, _) in enumerate(keys)]
    return ordered.add_columns(*extra).limit(bindparam("rows", type_=Integer))


def _conditions(shape: _Shape, *, is_sqlite: bool, of_versions: bool) -> list[ColumnElement[bool]]:
    conditions = [
        _compare(_ATTRIBUTES[clause.key], clause, place, is_sqlite=is_sqlite)
        if clause.kind == "attribute"
        else _has_tag(clause, place, is_sqlite=is_sqlite, of_versions=of_versions)
        for place, clause in enumerate(shape.clauses)
    ]
    prompts = select(ModelTagRow.model_id).where(
        ModelTagRow.workspace_id == bindparam("asked_workspace"),
        ModelTagRow.key == PROMPT_TAG,
        func.lower(ModelTagRow.value) == "true",
    )
    model_id = ModelVersionRow.model_id if of_versions else RegisteredModelRow.id
    conditions.append(model_id.in_(prompts) if shape.is_of_prompts else model_id.not_in(prompts))
    return conditions


def _has_tag(clause: Clause, place: int, *, is_sqlite: bool, of_versions: bool) -> ColumnElement[bool]:
    # As a set, so that the database may begin with the tag where few rows have it.
    tag: Any = VersionTagRow if of_versions else ModelTagRow
    conditions = [
        tag.workspace_id == bindparam("asked_workspace"),
        tag.key == bindparam(f"asked_key_{place}"),
        _compare(tag.value, clause, place, is_sqlite=is_sqlite),
    ]
    if of_versions and clause.comparator == "=" and clause.key == _SHORT:
        conditions.append(text(SHORT_TAG))
    if of_versions:
        owners = select(VersionTagRow.model_id, VersionTagRow.version).where(*conditions)
        return tuple_(ModelVersionRow.model_id, ModelVersionRow.version).in_(owners)
    return RegisteredModelRow.id.in_(select(ModelTagRow.model_id).where(*conditions))


def _compare(column: Any, clause: Clause, place: int, *, is_sqlite: bool) -> ColumnElement[bool]:
    is_list = clause.comparator in {"IN", "NOT IN"}
    value = bindparam(
        f"asked_value_{place}", type_=Float() if isinstance(clause.value, float) else column.type, expanding=is_list
    )
    if clause.comparator == "LIKE":
        return column.op("GLOB")(value) if is_sqlite else column.like(value, escape="\\")
    if clause.comparator == "ILIKE":
        return func.lower(column).like(value, escape="\\")
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
    statement: Select[Any],
    values: dict[str, Any],
    keys: Sequence[tuple[Any, bool]],
    size: int,
    token: str | None,
    bound_to: str,
) -> tuple[list[Any], str | None]:
    """One page in the order of the keys (each with whether it ascends), which together are unique."""
    given = {**values, "rows": size + 1}
    if token:
        given |= {f"asked_last_{place}": value for place, value in enumerate(_decode(token, bound_to, keys))}
    rows = session.execute(statement, given).all()
    shown = rows[:size]
    if len(rows) <= size:
        return list(shown), None
    last = shown[-1]
    return list(shown), _encode(bound_to, [getattr(last, f"order_{place}") for place in range(len(keys))])


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
