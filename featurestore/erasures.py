"""Erasures in the record: asked for, shown, and certified.

An erasure is desired state: that no replica, log or online store holds a row of one subject up to now. The subject is
named by a salted hash alone, by which whoever has the rows finds it; the value never reaches the record. Steps follow
from what is there (`erasure_steps`), each may be repeated, and a certificate says in the end what was done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import ErasureNotFound, InvalidInput, NotReady
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.core.subjects import SALT_DIGITS
from fairlead.featurestore.definitions import DUMMY_ENTITY, DUMMY_KEY, ENTITY, VIEW
from fairlead.featurestore.erasure_missing import missing_of
from fairlead.featurestore.tables import FeatureVersionRow, SnapshotRow
from fairlead.featurestore.tables_erasures import ErasedArtifactRow, ErasedPartRow, ErasureRow
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import REASON_MAX_LENGTH, parse_row_id, parse_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import AliasRow, EnvironmentRow, ModelVersionRow, RegisteredModelRow

ErasureState = Literal["RUNNING", "DONE"]

KEYS_MAX = 10
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model version that pins a snapshot with rows of the subject; `environments` that it holds now."""

    model: str
    version: int
    snapshot: str
    environments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One erasure. `missing` says what is still to be done; `rows_removed` counts the rows of rewritten artifacts."""

    id: str
    keys: tuple[str, ...]
    salt: str
    subject_hash: str
    reason: str
    state: ErasureState
    until: datetime
    rows_removed: int
    missing: tuple[str, ...]
    models: tuple[TrainedModel, ...]
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None


class Erasures:
    """Asks for erasures and shows them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def request(
        self,
        caller: Caller,
        *,
        entities: Sequence[str],
        salt: str,
        subject_hash: str,
        reason: str,
        key: IdempotencyKey | None = None,
    ) -> Erasure:
        """Ask that a subject's rows leave every region, up to now.

        Args:
            caller: who asks.
            entities: entities or join keys whose values name the subject, in the order in which they are hashed.
            salt: 32 random bytes, as hexadecimal digits.
            subject_hash: of the values under the salt; see `fairlead.core.subjects`.
            reason: why, for the certificate. It should not name the subject.
            key: of the request, for repeating it.

        Raises:
            InvalidInput: if an entity is unknown, keys no view, or something is not in its form.
        """
        text = parse_text(reason, what="reason", max_length=REASON_MAX_LENGTH)
        if not _HEX.fullmatch(salt) or len(salt) != SALT_DIGITS or not _HEX.fullmatch(subject_hash):
            raise InvalidInput("The salt and the hash are 64 hexadecimal digits each.", hint="Let the SDK make them.")
        if not 0 < len(entities) <= KEYS_MAX or len(set(entities)) != len(entities):
            raise InvalidInput(f"A subject is named by 1 to {KEYS_MAX} different entities.", hint="Give ENTITY=VALUE.")
        now = self._clock.now()

        def act(session: Session) -> Erasure:
            keys = [_join_key(session, caller.workspace_id, parse_name(each, what="entity")) for each in entities]
            if len(set(keys)) != len(keys):
                raise InvalidInput("Two of the entities have one join key.", hint="Give each join key once.")
            row = ErasureRow(
                workspace_id=caller.workspace_id,
                keys=keys,
                salt=salt,
                subject_hash=subject_hash,
                reason=text,
                state="RUNNING",
                until=now,
                requested_by=caller.principal,
                requested_at=now,
            )
            session.add(row)
            session.flush()
            audit.record(
                session,
                caller,
                self._clock,
                action="erasure.request",
                subject=row.id,
                facts={"keys": [*keys], "reason": text},
            )
            return _to_erasure(session, row)

        with self._database.write() as session:
            return run_once(session, caller, self._clock, key, result_type=Erasure, action=lambda: act(session))

    def get(self, caller: Caller, erasure: str) -> Erasure:
        """One erasure.

        Raises:
            ErasureNotFound: if there is none of this id.
        """
        with self._database.read() as session:
            return _to_erasure(session, _find(session, caller, erasure))

    def list(self, caller: Caller, page: PageRequest) -> Page[Erasure]:
        """Erasures, newest first."""
        query = select(ErasureRow).where(ErasureRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            listing = ("erasures", caller.workspace_id)
            rows = page.fetch(session, query, [ErasureRow.id], listing=listing, descending=True)
            return rows.map(lambda row: _to_erasure(session, row))

    def certificate(self, caller: Caller, erasure: str) -> Mapping[str, Any]:
        """The signed certificate of an erasure that is done.

        Raises:
            ErasureNotFound: if there is none of this id.
            NotReady: if it is not done; with what is missing.
        """
        with self._database.read() as session:
            row = _find(session, caller, erasure)
            if row.certificate is None:
                missing = missing_of(session, row)
                raise NotReady(
                    f"The erasure {row.id} is {row.state}.",
                    hint=f"It still lacks: {'; '.join(missing[:3]) or 'its certificate'}. Ask again later.",
                    state=row.state,
                )
            return row.certificate


def trained_models(session: Session, erasure: ErasureRow) -> list[TrainedModel]:
    """The model versions that pin a snapshot which this erasure took rows out of, by name and number."""
    query = (
        select(RegisteredModelRow.name, ModelVersionRow.version, SnapshotRow.digest, RegisteredModelRow.id)
        .join(
            ModelVersionRow,
            and_(
                ModelVersionRow.workspace_id == RegisteredModelRow.workspace_id,
                ModelVersionRow.model_id == RegisteredModelRow.id,
            ),
        )
        .join(
            SnapshotRow,
            and_(
                SnapshotRow.workspace_id == ModelVersionRow.workspace_id,
                SnapshotRow.digest == ModelVersionRow.snapshot_digest,
            ),
        )
        .join(
            ErasedPartRow,
            and_(ErasedPartRow.workspace_id == SnapshotRow.workspace_id, ErasedPartRow.snapshot_id == SnapshotRow.id),
        )
        .where(
            ErasedPartRow.workspace_id == erasure.workspace_id,
            ErasedPartRow.erasure_id == erasure.id,
            # Where a later delta had taken the rows out already, nobody could train on them.
            ErasedPartRow.rows_removed > 0,
        )
        .distinct()
        .order_by(RegisteredModelRow.name, ModelVersionRow.version)
    )
    found: list[TrainedModel] = []
    for name, version, digest, model_id in session.execute(query).all():
        holding = (
            select(AliasRow.name)
            .join(
                EnvironmentRow,
                and_(EnvironmentRow.workspace_id == AliasRow.workspace_id, EnvironmentRow.name == AliasRow.name),
            )
            .where(
                AliasRow.workspace_id == erasure.workspace_id,
                AliasRow.model_id == model_id,
                AliasRow.version == version,
            )
            .order_by(AliasRow.name)
        )
        environments = tuple(session.scalars(holding))
        found.append(TrainedModel(model=name, version=version, snapshot=digest or "", environments=environments))
    return found


def _join_key(session: Session, workspace_id: str, entity: str) -> str:
    versions = select(FeatureVersionRow.content).where(
        FeatureVersionRow.workspace_id == workspace_id,
        FeatureVersionRow.kind == ENTITY,
        FeatureVersionRow.name == entity,
    )
    join_keys = sorted({str(content["join_key"]) for content in session.scalars(versions)})
    if len(join_keys) > 1:
        raise InvalidInput(
            f"The entity {entity!r} had the join keys {', '.join(join_keys)}: there can be rows under each of them.",
            hint="Erase by each of them: " + "; ".join(f"fairlead features erase {key}=VALUE" for key in join_keys),
        )
    if join_keys:
        return join_keys[0]
    if entity in {DUMMY_ENTITY, DUMMY_KEY.name}:
        raise InvalidInput(
            f"{entity!r} stands for no entity: rows of views without one are about nobody.",
            hint="Erase by the entity whose value names the subject: fairlead features erase ENTITY=VALUE",
        )
    views = select(FeatureVersionRow.content).where(
        FeatureVersionRow.workspace_id == workspace_id, FeatureVersionRow.kind == VIEW
    )
    if any(key["name"] == entity for content in session.scalars(views) for key in cast("Any", content)["keys"]):
        return entity
    hint = "See what views are keyed by: fairlead features show SERVICE"
    raise InvalidInput(f"There is no entity and no join key {entity[:80]!r}.", hint=hint)


def _find(session: Session, caller: Caller, erasure: str) -> ErasureRow:
    identity = (caller.workspace_id, parse_row_id(erasure, ErasureNotFound, what="erasure"))
    row = session.get(ErasureRow, identity)
    if row is None:
        raise ErasureNotFound(f"There is no erasure {erasure!r}.", hint="See: fairlead features erasures")
    return row


def _to_erasure(session: Session, row: ErasureRow) -> Erasure:
    removed = select(ErasedArtifactRow.rows_removed).where(
        ErasedArtifactRow.workspace_id == row.workspace_id, ErasedArtifactRow.erasure_id == row.id
    )
    return Erasure(
        id=row.id,
        keys=tuple(row.keys),
        salt=row.salt,
        subject_hash=row.subject_hash,
        reason=row.reason,
        state=cast("ErasureState", row.state),
        until=row.until,
        rows_removed=sum(count or 0 for count in session.scalars(removed)),
        missing=() if row.state == "DONE" else tuple(missing_of(session, row)),
        models=tuple(trained_models(session, row)),
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        finished_at=row.finished_at,
    )
