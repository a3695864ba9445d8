"""Versions that are imported from another registry: with the number, source, stage and time that they had there.

What was imported is found again by the tag `fairlead.imported_from`, so that an import may be repeated: what is here is
brought up to date, what failed is tried again, and what somebody deleted here since stays deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput
from fairlead.core.ids import VERSION_MAX
from fairlead.core.ports import Clock
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_tags, parse_text
from fairlead.registry.models import find_model
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow, VersionTagRow
from fairlead.registry.version_records import FAILED, ModelVersion, render_version
from fairlead.registry.version_registration import Origin, VersionDraft, change_imported, register_row, to_row

IMPORTED_TAG = "fairlead.imported_from"
ORIGIN_MAX_LENGTH = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Outcome = Literal["created", "changed", "unchanged", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedVersion:
    """A version that came from elsewhere, and what this call made of it.

    `deleted`: it was imported before and then deleted here, and stays so.
    """

    outcome: Outcome
    version: ModelVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownImport:
    """What came from `origin` before."""

    origin: str
    version: int
    state: str
    is_deleted: bool
    description: str
    stage: str | None
    tags: dict[str, str]


class Imports:
    """Brings versions of another registry in, and says which ones came before."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def bring(
        self, caller: Caller, model: str, draft: VersionDraft, origin: Origin, *, key: IdempotencyKey | None = None
    ) -> ImportedVersion:
        """Import a version, or bring the one that came from there before up to date.

        Description, stage and the origin's tags are then what the draft says; nothing else of a version changes.

        Raises:
            ModelNotFound, UploadNotFound: if the model or the upload does not exist.
            Conflict: if the upload failed or expired.
            ResidencyViolation: if the upload's residency class is not the model's.
            InvalidInput: if the draft is not valid, or a version that has files is new and has no upload.
        """
        if not 1 <= origin.number <= VERSION_MAX:
            raise InvalidInput(f"{origin.number} is no version's number.", hint=f"Numbers are 1 to {VERSION_MAX}.")
        now = self._clock.now()
        if origin.created_at < _EPOCH:
            raise InvalidInput(f"No version was made at {origin.created_at}.", hint="Send when it was made.")
        name = parse_text(origin.key, what="origin", max_length=ORIGIN_MAX_LENGTH)
        # Another machine's clock may be ahead.
        marked = replace(origin, key=name, created_at=min(origin.created_at, now))
        row = to_row(caller, draft, now)
        tags = parse_tags({**draft.tags, IMPORTED_TAG: marked.key})

        def bring(session: Session) -> ImportedVersion:
            model_row = find_model(session, caller.workspace_id, model, lock=True)
            earlier = _find_earlier(session, model_row, marked.key)
            if earlier is not None and earlier.deleted_at is not None:
                return ImportedVersion(outcome="deleted", version=render_version(session, earlier))
            if earlier is not None:
                is_changed = change_imported(
                    session, caller, earlier, now, description=row.description, stage=marked.stage, tags=tags
                )
                return ImportedVersion(
                    outcome="changed" if is_changed else "unchanged", version=render_version(session, earlier)
                )
            if draft.has_files and draft.upload_id is None:
                raise InvalidInput(
                    f"{marked.key[:80]!r} was not imported yet, and its files are not here.",
                    hint="Upload them first, and name the upload.",
                )
            made = register_row(session, caller, model, row, tags, origin=marked)
            return ImportedVersion(outcome="created", version=made)

        with self._database.write() as session:
            return run_once(
                session, caller, self._clock, key, result_type=ImportedVersion, action=lambda: bring(session)
            )

    def list(self, caller: Caller, model: str, page: PageRequest) -> Page[KnownImport]:
        """What was imported into a model before, by number; also what FAILED or was deleted since.

        Raises:
            ModelNotFound: if there is no such model.
        """
        with self._database.read() as session:
            row = find_model(session, caller.workspace_id, model)
            marks = select(VersionTagRow.version).where(
                VersionTagRow.workspace_id == row.workspace_id,
                VersionTagRow.model_id == row.id,
                VersionTagRow.key == IMPORTED_TAG,
            )
            query = select(ModelVersionRow).where(
                ModelVersionRow.workspace_id == row.workspace_id,
                ModelVersionRow.model_id == row.id,
                ModelVersionRow.version.in_(marks),
            )
            listing = ("imports", row.workspace_id, row.id)
            found = page.fetch(session, query, [ModelVersionRow.version], listing=listing)
            of_page = select(VersionTagRow).where(
                VersionTagRow.workspace_id == row.workspace_id,
                VersionTagRow.model_id == row.id,
                VersionTagRow.version.in_([each.version for each in found.items]),
            )
            tags: dict[int, dict[str, str]] = {}
            for tag in session.scalars(of_page):
                tags.setdefault(tag.version, {})[tag.key] = tag.value
            return found.map(lambda each: _to_known(each, tags.get(each.version, {})))


def _find_earlier(session: Session, model: RegisteredModelRow, origin: str) -> ModelVersionRow | None:
    """The newest version that came from an origin; one that FAILED is none, because it may be tried again."""
    of_model = (VersionTagRow.workspace_id == model.workspace_id, VersionTagRow.model_id == model.id)
    versions = select(VersionTagRow.version).where(
        *of_model, VersionTagRow.key == IMPORTED_TAG, VersionTagRow.value == origin
    )
    query = (
        select(ModelVersionRow)
        .where(
            ModelVersionRow.workspace_id == model.workspace_id,
            ModelVersionRow.model_id == model.id,
            ModelVersionRow.state != FAILED,
            ModelVersionRow.version.in_(versions),
        )
        .order_by(ModelVersionRow.version.desc())
    )
    return session.scalars(query.limit(1)).one_or_none()


def _to_known(row: ModelVersionRow, tags: dict[str, str]) -> KnownImport:
    return KnownImport(
        origin=tags.get(IMPORTED_TAG, ""),
        version=row.version,
        state=row.state,
        is_deleted=row.deleted_at is not None,
        description=row.description,
        stage=row.stage,
        tags=tags,
    )
