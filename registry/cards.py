"""Model cards: what people say of a model or a version, in Markdown.

A card is kept and answered as text. Nothing here turns it into HTML, so nothing in it runs anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ids import sha256_digest
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.limits import parse_text
from fairlead.registry.models import find_model, to_labels
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables_governance import EvaluationRow
from fairlead.registry.tables_lifecycle import ModelCardRow
from fairlead.registry.version_records import find_version, render_versions

if TYPE_CHECKING:
    from fairlead.registry.identity import Caller
    from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow

CARD_MAX_BYTES = 256 * 1024
_OF_MODEL = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card; without one the text is empty and the revision 0."""

    reference: str
    text: str
    revision: int
    updated_by: str | None
    updated_at: datetime | None


class Cards:
    """Shows, writes and drafts cards. `version` None means the model's own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def get(self, caller: Caller, model: str, version: int | None = None) -> Card:
        """A card.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
        """
        with self._database.read() as session:
            of = _find(session, caller, model, version)
            return _to_card(of, session.get(ModelCardRow, _key(of)))

    def put(
        self, caller: Caller, model: str, text: str, *, version: int | None = None, expected_revision: int | None = None
    ) -> Card:
        """Write a card; an empty text takes it away. The same text again keeps its revision.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            InvalidInput: if the text is larger than 256 KiB, or no plain Unicode text.
            StaleRevision: if the card is not at the expected revision (0: there was never one).
        """
        checked = parse_text(text, what="card", max_length=CARD_MAX_BYTES)
        if len(checked.encode()) > CARD_MAX_BYTES:
            raise InvalidInput(f"The card is larger than {CARD_MAX_BYTES // 1024} KiB.", hint="Link to what is long.")
        with self._database.write() as session:
            of = _find(session, caller, model, version, lock=True)
            row = session.get(ModelCardRow, _key(of))
            require_revision(
                f"The card of {_reference(of)}",
                0 if row is None else row.revision,
                expected_revision,
                hint=f"Look at it and try again: fairlead model card show {_reference(of)}",
            )
            if row is None:
                workspace_id, model_id, number = _key(of)
                row = ModelCardRow(workspace_id=workspace_id, model_id=model_id, version=number, text="", revision=0)
                session.add(row)
            elif row.text == checked:
                return _to_card(of, row)
            row.text, row.revision = checked, row.revision + 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            facts: dict[str, JsonValue] = {"revision": row.revision, "digest": sha256_digest(checked.encode())}
            audit.record(
                session,
                caller,
                self._clock,
                action="model.card" if version is None else "version.card",
                subject=_reference(of),
                residency=of[0].residency,
                facts=facts,
            )
            return _to_card(of, row)

    def draft(self, caller: Caller, model: str, version: int | None = None) -> str:
        """The text of a card that is yet to be written, filled with what the record knows.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
        """
        with self._database.read() as session:
            found, row = _find(session, caller, model, version)
            facts = _model_facts(found) if row is None else _version_facts(session, found, row)
        lines = [f"# {_reference((found, row))}", "", *facts]
        for title, asked in _SECTIONS:
            lines += ["", f"## {title}", "", f"_{asked}_"]
        return "\n".join(lines) + "\n"


_SECTIONS = (
    ("Intended use", "What is it for, and for whom? What is it not for?"),
    ("Training data", "What was it trained on, from when until when, and what is missing in it?"),
    ("Evaluation", "How was it measured, on what, and how well does it do for whom?"),
    ("Limits and risks", "When is it wrong, and what follows from that?"),
    ("Contact", "Whom to ask, and whom to call at night."),
)


def _model_facts(model: RegisteredModelRow) -> list[str]:
    labels = to_labels(model)
    return _table(
        ("Owner", labels.owner),
        ("Team", labels.team),
        ("Cost centre", labels.cost_centre),
        ("Residency", model.residency),
        ("Newest version", str(model.last_version)),
        ("Description", model.description),
    )


def _version_facts(session: Session, model: RegisteredModelRow, row: ModelVersionRow) -> list[str]:
    version = render_versions(session, model, [row])[0]
    newest = select(EvaluationRow).where(
        EvaluationRow.workspace_id == row.workspace_id,
        EvaluationRow.model_id == row.model_id,
        EvaluationRow.version == row.version,
    )
    evaluations = {each.name: each for each in session.scalars(newest.order_by(EvaluationRow.id))}
    parent = None if version.parent_version is None else f"{model.name}/{version.parent_version}"
    lines = _table(
        ("Digest", version.artifact_digest),
        ("Flavour", version.flavor),
        ("Registered", f"{version.created_at:%Y-%m-%d} by {version.created_by}"),
        ("Owner", model.owner),
        ("Residency", version.residency),
        ("Parent", parent),
        ("Training run", version.run_id),
        ("Code commit", row.code_commit),
        ("Feature service", version.feature_service),
        ("Feature snapshot", version.snapshot_digest),
        ("Description", version.description),
    )
    measured = [("", name, value) for name, value in sorted(version.metrics.items())]
    measured += [
        (name, metric, value)
        for name, each in sorted(evaluations.items())
        for metric, value in sorted(each.metrics.items())
    ]
    if measured:
        lines += ["", "| evaluation | metric | value |", "| --- | --- | --- |"]
        lines += [f"| {_cell(name)} | {_cell(metric)} | {value} |" for name, metric, value in measured]
    return lines


def _table(*facts: tuple[str, str | None]) -> list[str]:
    known = [f"| {name} | {_cell(value)} |" for name, value in facts if value]
    return ["| | |", "| --- | --- |", *known]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _find(
    session: Session, caller: Caller, model: str, version: int | None, *, lock: bool = False
) -> tuple[RegisteredModelRow, ModelVersionRow | None]:
    found = find_model(session, caller.workspace_id, model, lock=lock)
    return found, None if version is None else find_version(session, found, version)


def _key(of: tuple[RegisteredModelRow, ModelVersionRow | None]) -> tuple[str, str, int]:
    model, version = of
    return model.workspace_id, model.id, _OF_MODEL if version is None else version.version


def _reference(of: tuple[RegisteredModelRow, ModelVersionRow | None]) -> str:
    model, version = of
    return model.name if version is None else f"{model.name}/{version.version}"


def _to_card(of: tuple[RegisteredModelRow, ModelVersionRow | None], row: ModelCardRow | None) -> Card:
    return Card(
        reference=_reference(of),
        text="" if row is None else row.text,
        revision=0 if row is None else row.revision,
        updated_by=None if row is None else row.updated_by,
        updated_at=None if row is None else row.updated_at,
    )
