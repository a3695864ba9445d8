"""Forgotten subjects: whose rows are left out of what is written, and how they are found where there are rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from fairlead.core.clock import format_time
from fairlead.core.subjects import Subject
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.duck import ArrowTable, load_arrow, quote_name, quote_text
from fairlead.featurestore.tables_erasures import ErasureRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """A subject, and the event time up to which its rows are erased."""

    subject: Subject
    until: datetime

    def names(self, keys: Iterable[Column]) -> bool:
        """Whether rows with these join keys can be the subject's."""
        return set(self.subject.keys) <= {key.name for key in keys}


def forgotten_of(session: Session, workspace_id: str, view: ViewDefinition) -> tuple[Forgotten, ...]:
    """Every subject that was asked to be forgotten whom rows of a view may be of, whether or not that is done yet."""
    rows = session.scalars(select(ErasureRow).where(ErasureRow.workspace_id == workspace_id).order_by(ErasureRow.id))
    return tuple(each for each in map(to_forgotten, rows) if each.names(view.keys))


def to_forgotten(row: ErasureRow) -> Forgotten:
    """The subject of an erasure."""
    subject = Subject(keys=tuple(row.keys), salt=row.salt, digest=row.subject_hash)
    return Forgotten(subject=subject, until=row.until)


def is_forgotten(forgotten: Forgotten, event_timestamp: str) -> str:
    """SQL that is true of a row of the subject, up to the time; keys and times are there in every row of a view."""
    subject = forgotten.subject
    hashed = _hash_sql(subject.keys, subject.salt)
    return f"({hashed} = {quote_text(subject.digest)} AND {quote_name(event_timestamp)} <= {_until(forgotten)})"


def is_kept(forgotten: Sequence[Forgotten], event_timestamp: str) -> str:
    """SQL that is true of a row that is nobody's who is forgotten; it costs one hash for each salt."""
    by_salt: dict[tuple[tuple[str, ...], str], list[Forgotten]] = {}
    for each in forgotten:
        by_salt.setdefault((each.subject.keys, each.subject.salt), []).append(each)
    conditions: list[str] = []
    for (keys, salt), subjects in by_salt.items():
        listed = ", ".join(f"({quote_text(each.subject.digest)}, {_until(each)})" for each in subjects)
        conditions.append(
            f"NOT EXISTS (SELECT 1 FROM (VALUES {listed}) AS forgotten(__forgotten, __until) "  # noqa: S608
            f"WHERE __forgotten = {_hash_sql(keys, salt)} AND {quote_name(event_timestamp)} <= __until)"
        )
    return " AND ".join(conditions) or "TRUE"


def _hash_sql(keys: Sequence[str], salt: str) -> str:
    told = [quote_text(salt)]
    for key in keys:
        text = f"CAST({quote_name(key)} AS VARCHAR)"
        told += [f"CAST(strlen({text}) AS VARCHAR)", "':'", text]
    return f"sha256({' || '.join(told)})"


def _until(forgotten: Forgotten) -> str:
    return f"TIMESTAMPTZ {quote_text(format_time(forgotten.until))}"


def pick_forgotten(forgotten: Forgotten, rows: ArrowTable) -> Any:
    """A mask that is true of the subject's rows, whenever they happened."""
    columns = [rows.column(key).to_pylist() for key in forgotten.subject.keys]
    is_meant = [forgotten.subject.is_meant(values) for values in zip(*columns, strict=True)]
    arrow = load_arrow()
    return arrow.array(is_meant, arrow.bool_())
