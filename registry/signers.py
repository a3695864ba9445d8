"""Signers: whose signatures of versions count in a workspace, for which models, from when until when.

A signer is a public key, or an identity that a sigstore instance vouches for. To rotate a key, add the new one under a
name of its own before the old one's `not_after`: between the two, both count. What was signed while a signer was
trusted goes on counting after `not_after`; once a signer is revoked, nothing of it counts. A name keeps its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import Conflict, InvalidInput, JsonValue, SignerNotFound
from fairlead.core.ids import NAME_MAX_LENGTH, parse_name
from fairlead.core.keyless import parse_trusted_root
from fairlead.core.ports import Clock
from fairlead.core.signatures import TrustedSigner, parse_public_key
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_json, parse_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables import WorkspaceRow
from fairlead.registry.tables_signatures import SignerRow

PATTERNS_MAX = 100
PUBLIC_KEY_MAX_LENGTH = 2_000
IDENTITY_MAX_LENGTH = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerDraft:
    """A signer as it is to be: a public key (PEM), or an identity with its issuer and the instance's trusted root."""

    public_key: str | None = None
    identity: str | None = None
    issuer: str | None = None
    trusted_root: Mapping[str, Any] | None = None
    models: Sequence[str] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A signer as the record has it. `key_id` is the sha256 of the public key's DER form."""

    name: str
    public_key: str | None
    key_id: str | None
    identity: str | None
    issuer: str | None
    trusted_root: Mapping[str, Any] | None
    models: tuple[str, ...]
    not_before: datetime | None
    not_after: datetime | None
    revoked_at: datetime | None
    revision: int
    updated_by: str
    updated_at: datetime


class Signers:
    """Adds, changes, shows and revokes signers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def put(self, caller: Caller, name: str, draft: SignerDraft, *, expected_revision: int | None) -> Signer:
        """Trust a signer, or change for which models and how long. One that is as asked for keeps its revision.

        Raises:
            InvalidInput: if the key, the identity, a pattern or a time is not valid.
            Conflict: if the name has another key or identity, or is revoked.
            StaleRevision: if it is not at the expected revision (0: not there).
            MissingExtra: for an identity, if the server lacks `fairlead[sigstore]`.
        """
        wanted = _parse(parse_name(name, what="signer"), draft)
        with self._database.write() as session:
            # Two that add the same name wait for each other here.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update={"key_share": True})
            row = session.get(SignerRow, (caller.workspace_id, name), with_for_update=True)
            _check_revision(name, 0 if row is None else row.revision, expected_revision)
            if row is None:
                row = SignerRow(workspace_id=caller.workspace_id, name=name, revision=0)
                session.add(row)
            elif row.revoked_at is not None or any(getattr(row, part) != wanted[part] for part in _WHO):
                raise Conflict(
                    f"The signer {name!r} is "
                    f"{'another one' if row.revoked_at is None else 'revoked'}; a name keeps its key.",
                    hint="Add the new one under a name of its own: fairlead signer add NEW-NAME ...",
                )
            elif all(getattr(row, part) == value for part, value in wanted.items()):
                return _to_signer(row)
            for part, value in wanted.items():
                setattr(row, part, value)
            self._change(session, caller, row, "signer.put")
            return _to_signer(row)

    def revoke(self, caller: Caller, name: str, *, reason: str = "", expected_revision: int | None = None) -> Signer:
        """Let nothing count that a signer ever signed. Revoking it again changes nothing.

        Raises:
            SignerNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
        """
        said = parse_text(reason, what="reason", max_length=2_000)
        with self._database.write() as session:
            row = _find(session, caller, name, lock=True)
            _check_revision(name, row.revision, expected_revision)
            if row.revoked_at is None:
                row.revoked_at = self._clock.now()
                self._change(session, caller, row, "signer.revoke", reason=said)
            return _to_signer(row)

    def get(self, caller: Caller, name: str) -> Signer:
        """One signer.

        Raises:
            SignerNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return _to_signer(_find(session, caller, name))

    def list(self, caller: Caller, page: PageRequest) -> Page[Signer]:
        """Signers by name, revoked ones among them."""
        query = select(SignerRow).where(SignerRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            listing = ("signers", caller.workspace_id)
            return page.fetch(session, query, [SignerRow.name], listing=listing).map(_to_signer)

    def _change(self, session: Session, caller: Caller, row: SignerRow, action: str, **more: JsonValue) -> None:
        row.revision += 1
        row.updated_by, row.updated_at = caller.principal, self._clock.now()
        session.flush()
        facts: dict[str, JsonValue] = {
            "key": row.key_id,
            "identity": row.identity,
            "issuer": row.issuer,
            "models": [*row.models],
            "not_before": None if row.not_before is None else format_time(row.not_before),
            "not_after": None if row.not_after is None else format_time(row.not_after),
            "revision": row.revision,
        }
        audit.record(session, caller, self._clock, action=action, subject=row.name, facts={**facts, **more})


def trusted_signers(session: Session, workspace_id: str) -> list[TrustedSigner]:
    """Every signer of a workspace, by name; each says itself when and for what it counts."""
    rows = session.scalars(select(SignerRow).where(SignerRow.workspace_id == workspace_id).order_by(SignerRow.name))
    return [
        TrustedSigner(
            name=row.name,
            public_key=row.public_key,
            identity=row.identity,
            issuer=row.issuer,
            trusted_root=row.trusted_root,
            models=tuple(row.models),
            not_before=row.not_before,
            not_after=row.not_after,
            revoked_at=row.revoked_at,
        )
        for row in rows
    ]


_WHO = ("key_id", "identity", "issuer")


def _parse(name: str, draft: SignerDraft) -> dict[str, Any]:
    has_key, has_identity = draft.public_key is not None, draft.identity is not None
    if has_key == has_identity or has_identity != (draft.issuer is not None):
        raise InvalidInput(
            f"The signer {name!r} needs either a public key, or an identity and its issuer.",
            hint="fairlead signer add NAME --public-key FILE, or --identity EMAIL --issuer URL --trusted-root FILE",
        )
    if has_identity and draft.trusted_root is None:
        raise InvalidInput(
            f"The signer {name!r} needs the trusted root of the sigstore instance that vouches for it.",
            hint="Give it with: --trusted-root trusted_root.json",
        )
    if draft.not_before is not None and draft.not_after is not None and draft.not_before >= draft.not_after:
        raise InvalidInput(f"The signer {name!r} would be trusted until before it is.", hint="Exchange the two times.")
    if len(draft.models) > PATTERNS_MAX or any(not 0 < len(each) <= NAME_MAX_LENGTH for each in draft.models):
        raise InvalidInput(f"A signer has at most {PATTERNS_MAX} patterns of 1 to {NAME_MAX_LENGTH} characters.")
    key, key_id = (None, None) if draft.public_key is None else parse_public_key(draft.public_key)
    root = draft.trusted_root
    return {
        "public_key": key,
        "key_id": key_id,
        "identity": _text(draft.identity, "identity"),
        "issuer": _text(draft.issuer, "issuer"),
        "trusted_root": None if root is None or has_key else parse_json(parse_trusted_root(root), what="trusted root"),
        "models": [parse_text(each, what="pattern") for each in draft.models],
        "not_before": draft.not_before,
        "not_after": draft.not_after,
    }


def _text(value: str | None, what: str) -> str | None:
    return None if value is None else parse_text(value, what=what, max_length=IDENTITY_MAX_LENGTH)


def _find(session: Session, caller: Caller, name: str, *, lock: bool = False) -> SignerRow:
    key = (caller.workspace_id, parse_name(name, what="signer"))
    row = session.get(SignerRow, key, with_for_update=lock or None)
    if row is None:
        raise SignerNotFound(f"There is no signer {name[:80]!r}.", hint="See: fairlead signer list")
    return row


def _check_revision(name: str, actual: int, expected: int | None) -> None:
    require_revision(
        f"The signer {name!r}", actual, expected, hint=f"Look at it and try again: fairlead signer show {name}"
    )


def _to_signer(row: SignerRow) -> Signer:
    return Signer(
        name=row.name,
        public_key=row.public_key,
        key_id=row.key_id,
        identity=row.identity,
        issuer=row.issuer,
        trusted_root=row.trusted_root,
        models=tuple(row.models),
        not_before=row.not_before,
        not_after=row.not_after,
        revoked_at=row.revoked_at,
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
