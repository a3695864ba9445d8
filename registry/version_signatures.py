"""Signatures of versions in the record: verified when they come, kept as they came, and verified again when asked for.

The private key never comes here. A signer asks which statement is next (`statement`), signs it, and hands the envelope
in. Its sequence must be above every one of the model, so that neither an envelope that was there before nor one that
was made before another counts as new.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import FairleadError, SignatureInvalid, SignatureReplayed
from fairlead.core.ports import Clock
from fairlead.core.signatures import (
    ENVELOPE_MAX_BYTES,
    RecordedSignature,
    Statement,
    check_signature,
    count_signatures,
    read_statement,
)
from fairlead.registry import audit
from fairlead.registry.aliases import require_ready
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_json
from fairlead.registry.models import find_model
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.signers import trusted_signers
from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow
from fairlead.registry.tables_signatures import VersionSignatureRow
from fairlead.registry.versions import find_version


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSignature:
    """A signature of a version. `refusal` says why it does not count now; None where it does."""

    id: str
    reference: str
    sequence: int
    artifact_digest: str
    signer: str
    envelope: Mapping[str, Any]
    refusal: str | None
    created_by: str
    created_at: datetime


class VersionSignatures:
    """Says what is to be signed, takes signatures, and shows them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def statement(self, caller: Caller, model: str, version: int) -> Statement:
        """The statement that is to be signed next about a version.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            NotReady: if its bytes are not verified.
        """
        with self._database.read() as session:
            model_row = find_model(session, caller.workspace_id, model)
            row = find_version(session, model_row, version)
            require_ready(model_row, row)
            return Statement(
                model=model_row.name,
                version=row.version,
                digest=row.artifact_digest or "",
                sequence=_last_sequence(session, model_row) + 1,
            )

    def record(
        self,
        caller: Caller,
        model: str,
        version: int,
        envelope: Mapping[str, Any],
        *,
        key: IdempotencyKey | None = None,
    ) -> VersionSignature:
        """Take a signature, if it counts.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            NotReady: if the version's bytes are not verified.
            SignatureInvalid: if it is no envelope of a statement about a version.
            SignatureReplayed: if it is about another version or other bytes, or its sequence is not above the last.
            SignerNotTrusted: if no signer of the workspace made it who counts for this model now.
        """
        checked = parse_json(envelope, what="envelope")
        if len(json.dumps(checked)) > ENVELOPE_MAX_BYTES:
            raise SignatureInvalid(f"The envelope is larger than {ENVELOPE_MAX_BYTES // 1024} KiB.", hint="Sign anew.")

        def record(session: Session) -> VersionSignature:
            model_row = find_model(session, caller.workspace_id, model, lock=True)
            version_row = find_version(session, model_row, version)
            require_ready(model_row, version_row)
            now = self._clock.now()
            counted = check_signature(
                RecordedSignature(envelope=checked, recorded_at=now),
                trusted_signers(session, caller.workspace_id),
                model=model_row.name,
                version=version_row.version,
                digest=version_row.artifact_digest or "",
            )
            last = _last_sequence(session, model_row)
            if counted.sequence <= last:
                raise SignatureReplayed(
                    f"The signature is of sequence {counted.sequence}, and {model_row.name} is at {last} already.",
                    hint=f"Sign anew: fairlead model sign {model_row.name}/{version} --key FILE",
                    sequence=last,
                )
            row = VersionSignatureRow(
                workspace_id=caller.workspace_id,
                model_id=model_row.id,
                version=version_row.version,
                sequence=counted.sequence,
                artifact_digest=version_row.artifact_digest,
                signer=counted.signer,
                envelope=checked,
                created_by=caller.principal,
                created_at=now,
            )
            session.add(row)
            session.flush()
            audit.record_at(
                session,
                caller,
                now,
                action="version.sign",
                subject=f"{model_row.name}/{version_row.version}",
                residency=model_row.residency,
                facts={"signer": row.signer, "sequence": row.sequence, "digest": row.artifact_digest},
            )
            return _to_signature(model_row, row, refusal=None)

        with self._database.write() as session:
            return run_once(
                session, caller, self._clock, key, result_type=VersionSignature, action=lambda: record(session)
            )

    def list(self, caller: Caller, model: str, version: int, page: PageRequest) -> Page[VersionSignature]:
        """A version's signatures, oldest first, each with whether it counts now.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
        """
        with self._database.read() as session:
            model_row = find_model(session, caller.workspace_id, model)
            version_row = find_version(session, model_row, version)
            signers = trusted_signers(session, caller.workspace_id)

            def render(row: VersionSignatureRow) -> VersionSignature:
                refusal = None
                try:
                    check_signature(
                        RecordedSignature(envelope=row.envelope, recorded_at=row.created_at),
                        signers,
                        model=model_row.name,
                        version=version_row.version,
                        digest=version_row.artifact_digest or "",
                    )
                except FairleadError as error:
                    refusal = error.detail
                return _to_signature(model_row, row, refusal=refusal)

            listing = ("signatures", model_row.workspace_id, model_row.id, version_row.version)
            query = select(VersionSignatureRow).where(*_of_version(model_row, version_row))
            return page.fetch(session, query, [VersionSignatureRow.sequence], listing=listing).map(render)


def signature_facts(
    session: Session, model: RegisteredModelRow, version: ModelVersionRow, now: datetime
) -> dict[str, dict[str, Any]]:
    """The signatures of a version that count, by signer, as gates see them. Each is verified again."""
    query = select(VersionSignatureRow).where(*_of_version(model, version)).order_by(VersionSignatureRow.sequence)
    rows = session.scalars(query).all()
    if not rows:
        return {}
    counted, _ = count_signatures(
        [RecordedSignature(envelope=row.envelope, recorded_at=row.created_at) for row in rows],
        trusted_signers(session, model.workspace_id),
        model=model.name,
        version=version.version,
        digest=version.artifact_digest or "",
    )
    by_sequence = {_sequence_of(row): row for row in rows}
    return {
        signer: {
            "sequence": float(each.sequence),
            "age": max(now - by_sequence[each.sequence].created_at, timedelta(0)),
            "by": by_sequence[each.sequence].created_by,
        }
        for signer, each in counted.items()
        if each.sequence in by_sequence
    }


def _sequence_of(row: VersionSignatureRow) -> int | None:
    # The envelope's own word: the column beside it is nobody's statement.
    try:
        return read_statement(row.envelope).sequence
    except SignatureInvalid:
        return None


def _last_sequence(session: Session, model: RegisteredModelRow) -> int:
    query = select(func.max(VersionSignatureRow.sequence)).where(
        VersionSignatureRow.workspace_id == model.workspace_id, VersionSignatureRow.model_id == model.id
    )
    return session.scalar(query) or 0


def _of_version(model: RegisteredModelRow, version: ModelVersionRow) -> tuple[Any, ...]:
    return (
        VersionSignatureRow.workspace_id == model.workspace_id,
        VersionSignatureRow.model_id == model.id,
        VersionSignatureRow.version == version.version,
    )


def _to_signature(model: RegisteredModelRow, row: VersionSignatureRow, *, refusal: str | None) -> VersionSignature:
    return VersionSignature(
        id=row.id,
        reference=f"{model.name}/{row.version}",
        sequence=row.sequence,
        artifact_digest=row.artifact_digest,
        signer=row.signer,
        envelope=row.envelope,
        refusal=refusal,
        created_by=row.created_by,
        created_at=row.created_at,
    )
