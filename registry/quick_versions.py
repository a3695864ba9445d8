"""The version that an alias names, in one statement with the token that asks: what serving asks all the time.

It answers only what is plainly so: a token that holds its scopes for the whole workspace, by itself and not by roles,
and an alias that points to a version. Everything else, every refusal among it, is left to the usual way. The token is
read in the same statement, so one that was revoked a moment ago is refused like anywhere else.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, or_, select
from sqlalchemy.types import Text

from fairlead.core.db import UtcDateTime
from fairlead.registry.identity import Caller
from fairlead.registry.mlflow.records import collected
from fairlead.registry.permissions import evaluate
from fairlead.registry.tables import (
    AliasRow,
    ArtifactRow,
    ModelVersionRow,
    RegisteredModelRow,
    TokenRow,
    UploadRow,
)

if TYPE_CHECKING:
    from types import SimpleNamespace

    from sqlalchemy import Select

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.core.quick_reads import QuickReads


class QuickVersions:
    """Finds versions by alias."""

    def __init__(self, database: Database, reads: QuickReads, clock: Clock) -> None:
        self._reads = reads
        self._clock = clock
        self._by_alias = reads.prepare(_by_alias(is_sqlite=database.is_sqlite))

    async def by_alias(self, secret: str, model: str, alias: str) -> SimpleNamespace | None:
        """The version that an alias of a model names; None where that is not plain, or the caller may not read.

        It has what a `ModelVersionRow` has, and `model_name`, `revision`, `sent_bytes`, `size_bytes` and what
        `collected` adds.
        """
        if not (model.isprintable() and alias.isprintable()):
            return None
        digest = hashlib.sha256(secret.encode()).hexdigest()
        try:
            row = await self._by_alias.first(secret_sha256=digest, now=self._clock.now(), model=model, alias=alias)
        except self._reads.error:
            return None
        if row is None or not _may_read(row):
            return None
        return row


def _may_read(row: SimpleNamespace) -> bool:
    scopes, _ = evaluate(row.scopes, models=row.models, environments=row.environments)
    return Caller(workspace_id=row.workspace_id, principal=row.principal, scopes=scopes).may("read")


def _by_alias(*, is_sqlite: bool) -> Select[*tuple[Any, ...]]:
    of_model = (RegisteredModelRow.workspace_id == TokenRow.workspace_id) & (
        RegisteredModelRow.name == bindparam("model", type_=Text)
    )
    return (
        select(
            TokenRow.scopes.label("scopes"),
            TokenRow.principal.label("principal"),
            TokenRow.models.label("models"),
            TokenRow.environments.label("environments"),
            RegisteredModelRow.name.label("model_name"),
            AliasRow.revision.label("revision"),
            *ModelVersionRow.__table__.c,
            *collected(ModelVersionRow, is_sqlite=is_sqlite),
            UploadRow.sent_bytes.label("sent_bytes"),
            ArtifactRow.size_bytes.label("size_bytes"),
        )
        .select_from(TokenRow)
        .join(RegisteredModelRow, of_model)
        .join(
            AliasRow,
            (AliasRow.workspace_id == RegisteredModelRow.workspace_id)
            & (AliasRow.model_id == RegisteredModelRow.id)
            & (AliasRow.name == bindparam("alias", type_=Text)),
        )
        .join(
            ModelVersionRow,
            (ModelVersionRow.workspace_id == AliasRow.workspace_id)
            & (ModelVersionRow.model_id == AliasRow.model_id)
            & (ModelVersionRow.version == AliasRow.version),
        )
        .outerjoin(
            UploadRow,
            (UploadRow.workspace_id == ModelVersionRow.workspace_id) & (UploadRow.id == ModelVersionRow.upload_id),
        )
        .outerjoin(
            ArtifactRow,
            (ArtifactRow.workspace_id == ModelVersionRow.workspace_id)
            & (ArtifactRow.residency == ModelVersionRow.residency)
            & (ArtifactRow.digest == ModelVersionRow.artifact_digest),
        )
        .where(
            TokenRow.secret_sha256 == bindparam("secret_sha256", type_=Text),
            TokenRow.revoked_at.is_(None),
            or_(TokenRow.expires_at.is_(None), TokenRow.expires_at > bindparam("now", type_=UtcDateTime)),
            TokenRow.by_roles.is_(False),
            RegisteredModelRow.deleted_at.is_(None),
            ModelVersionRow.deleted_at.is_(None),
        )
    )
