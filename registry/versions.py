"""Model versions: numbered, immutable in their bytes, and READY only once every byte was read back.

A version is registered on an upload. PENDING turns into READY or FAILED in the transaction in which the upload does;
a version that is registered on a verified upload is READY at once. Numbers are never reused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import (
    AliasNotFound,
    JsonValue,
)
from fairlead.core.ids import parse_model_reference
from fairlead.core.ports import Clock
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_tags, parse_text
from fairlead.registry.models import (
    Shown,
    find_model,
    is_shown,
    merge_tags,
)
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import (
    AliasRow,
    ModelVersionRow,
)
from fairlead.registry.version_records import (
    ModelVersion,
    find_version,
    record_change,
    render_versions,
    replace_tags,
    tags_of,
)
from fairlead.registry.version_registration import VersionDraft, register_row, to_row


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedVersion:
    """The version that a reference names; `revision` is the alias's, None where the reference names a number."""

    version: ModelVersion
    revision: int | None


class Versions:
    """Registers versions, shows them, and resolves references to them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def register(
        self,
        caller: Caller,
        model: str,
        draft: VersionDraft,
        *,
        find_upload: Callable[[Session], str] | None = None,
        key: IdempotencyKey | None = None,
    ) -> ModelVersion:
        """Register the next version of a model on an upload: the draft's, or one that is found by then.

        Raises:
            ModelNotFound, UploadNotFound, ModelVersionNotFound: if the model, the upload or the parent does not exist.
            Conflict: if the upload failed or expired.
            ResidencyViolation: if the upload's residency class is not the model's.
            InvalidInput: if the draft is not valid.
        """
        row = to_row(caller, draft, self._clock.now())
        tags = parse_tags(draft.tags)

        def register(session: Session) -> ModelVersion:
            if find_upload is not None:
                row.upload_id = find_upload(session)
            return register_row(session, caller, model, row, tags)

        with self._database.write() as session:
            return run_once(
                session, caller, self._clock, key, result_type=ModelVersion, action=lambda: register(session)
            )

    def get(self, caller: Caller, model: str, version: int) -> ModelVersion:
        """One version.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
        """
        with self._database.read() as session:
            model_row = find_model(session, caller.workspace_id, model)
            return render_versions(session, model_row, [find_version(session, model_row, version)])[0]

    def list(self, caller: Caller, model: str, page: PageRequest, *, shown: Shown = "active") -> Page[ModelVersion]:
        """A model's versions, newest first.

        Raises:
            ModelNotFound: if there is no such model.
        """
        with self._database.read() as session:
            row = find_model(session, caller.workspace_id, model)
            query = select(ModelVersionRow).where(
                ModelVersionRow.workspace_id == row.workspace_id,
                ModelVersionRow.model_id == row.id,
                *is_shown(ModelVersionRow, shown),
            )
            listing = ("versions", row.workspace_id, row.id, shown)
            rows = page.fetch(session, query, [ModelVersionRow.version], listing=listing, descending=True)
            return Page(items=tuple(render_versions(session, row, rows.items)), next_page_token=rows.next_page_token)

    def update(
        self,
        caller: Caller,
        model: str,
        version: int,
        *,
        description: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> ModelVersion:
        """Change a version's description or tags; nothing else of it changes. A tag whose value is None is removed.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            InvalidInput: if what it should become is not valid.
        """
        with self._database.write() as session:
            model_row = find_model(session, caller.workspace_id, model, lock=True)
            row = find_version(session, model_row, version)
            if description is not None:
                row.description = parse_text(description, what="description")
            row.changed_at = self._clock.now()
            before = tags_of(session, model_row, [row.version]).get(row.version, {})
            replace_tags(session, row, merge_tags(before, tags or {}))
            session.flush()
            facts: dict[str, JsonValue] = {"tags": dict(tags or {}), "description": description}
            record_change(session, caller, self._clock.now(), action="version.update", of=(model_row, row), facts=facts)
            return render_versions(session, model_row, [row])[0]

    def resolve(self, caller: Caller, reference: str) -> ResolvedVersion:
        """The version that `churn/3` or `churn@production` names now.

        Raises:
            InvalidReference: if the text is neither form.
            ModelNotFound, ModelVersionNotFound, AliasNotFound: if there is no such thing.
        """
        wanted = parse_model_reference(reference)
        with self._database.read() as session:
            model = find_model(session, caller.workspace_id, wanted.name)
            number, revision = wanted.version, None
            if wanted.alias is not None:
                alias = session.get(AliasRow, (model.workspace_id, model.id, wanted.alias))
                if alias is None or alias.version is None:
                    raise AliasNotFound(
                        f"{model.name!r} has no alias {wanted.alias!r}.",
                        hint=f"See its aliases with: fairlead model show {model.name}",
                        model=model.name,
                        alias=wanted.alias,
                    )
                number, revision = alias.version, alias.revision
            row = find_version(session, model, number or 0)
            return ResolvedVersion(version=render_versions(session, model, [row])[0], revision=revision)
