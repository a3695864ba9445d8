"""Who calls: API tokens and the callers they stand for.

A token's secret is `fl_` and 256 random bits. Only its sha256 is kept, so neither the database nor a backup of it lets
anyone in, and finding a token by that hash leaks no timing about the secret. A token belongs to one workspace and
names one principal; its scopes say what it may do, and it may expire or be revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import parse_residency
from fairlead.core.db import Database
from fairlead.core.errors import Conflict, InvalidInput, InvalidName, JsonValue, TokenNotFound, Unauthenticated
from fairlead.core.ids import NAME_MAX_LENGTH, parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.limits import parse_row_id
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import EnvironmentRow, TokenRow, WorkspaceRow

Scope = Literal["read", "write", "promote", "approve", "deploy", "admin"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
SECRET_PREFIX = "fl_"  # noqa: S105  (what every secret begins with, so that scanners find leaked ones)
DEFAULT_WORKSPACE = "default"
DEFAULT_ENVIRONMENTS = {"dev": 10, "staging": 20, "production": 30}

_SECRET = re.compile(r"fl_[A-Za-z0-9_-]{43}")
_FORBIDDEN_IN_PRINCIPALS = frozenset('\\:%#?"<>|*')
_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, in which workspace, and what they may do. `token_id` is None for work that Fairlead does itself."""

    workspace_id: str
    principal: str
    scopes: frozenset[Scope]
    token_id: str | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the caller holds a scope; `admin` implies all others."""
        return scope in self.scopes or "admin" in self.scopes


def system_caller(workspace_id: str, name: str) -> Caller:
    """Fairlead itself, such as `fairlead:worker`; no token can carry such a principal, since theirs hold no colon."""
    return Caller(workspace_id=workspace_id, principal=f"fairlead:{name}", scopes=frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is known of a token; never its secret."""

    id: str
    name: str
    principal: str
    scopes: tuple[Scope, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A new token and its secret, which is shown this once."""

    token: Token
    secret: str


def parse_principal(text: str) -> str:
    """Check a principal: who a token stands for, such as `ana`, `ana@example.org` or `team/ci`.

    Raises:
        InvalidName: with the rule that was broken.
    """
    name = unicodedata.normalize("NFC", text)
    if not name or len(name) > NAME_MAX_LENGTH or name != name.strip():
        reason = f"it holds 1 to {NAME_MAX_LENGTH} characters and neither begins nor ends with white space"
    elif any(unicodedata.category(character).startswith("C") for character in name):
        reason = "it holds no control or unassigned character"
    elif forbidden := sorted(_FORBIDDEN_IN_PRINCIPALS & set(name)):
        reason = f"it does not hold {forbidden[0]!r}"
    else:
        return name
    raise InvalidName(f"{name[:80]!r} cannot be a principal: {reason}.", hint="Use a user name or an e-mail address.")


def parse_scopes(scopes: Iterable[str]) -> tuple[Scope, ...]:
    """Check scopes and put them in order.

    Raises:
        InvalidInput: if there is none, or one that does not exist.
    """
    found = set(scopes)
    unknown = sorted(found - SCOPES)
    if unknown or not found:
        wrong = f"{unknown[0][:40]!r}, which is no scope" if unknown else "no scope at all"
        raise InvalidInput(f"The token asks for {wrong}.", hint=f"Choose from: {', '.join(get_args(Scope))}.")
    return tuple(scope for scope in cast("tuple[Scope, ...]", get_args(Scope)) if scope in found)


class Tokens:
    """Issues, lists, revokes and recognises API tokens."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
        self,
        caller: Caller,
        *,
        name: str,
        principal: str,
        scopes: Iterable[str],
        expires_in: timedelta | None = None,
        key: IdempotencyKey | None = None,
    ) -> IssuedToken:
        """Issue a token. Its secret is in the answer and nowhere else.

        Raises:
            InvalidInput: if the name, principal, scopes or life time are not valid.
            Conflict: if the call is a repetition; the secret cannot be shown again.
        """
        issued: list[IssuedToken] = []

        def create(session: Session) -> Token:
            issued.append(
                issue(
                    session, caller, self._clock, name=name, principal=principal, scopes=scopes, expires_in=expires_in
                )
            )
            return issued[0].token

        with self._database.write() as session:
            token = run_once(session, caller, self._clock, key, result_type=Token, action=lambda: create(session))
        if not issued:
            raise Conflict(
                f"This call issued the token {token.name!r} before; its secret was shown then.",
                hint=f"If it was lost, run: fairlead token revoke {token.id}, and create another.",
                token=token.id,
            )
        return issued[0]

    def list(self, caller: Caller, page: PageRequest) -> Page[Token]:
        """The workspace's tokens, oldest first, the revoked and expired ones too."""
        query = select(TokenRow).where(TokenRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            listing = ("tokens", caller.workspace_id)
            return page.fetch(session, query, [TokenRow.id], listing=listing).map(_to_token)

    def revoke(self, caller: Caller, token_id: str) -> Token:
        """End a token at once; revoking it again changes nothing.

        Raises:
            TokenNotFound: if the workspace has no such token.
        """
        with self._database.write() as session:
            key = (caller.workspace_id, parse_row_id(token_id, TokenNotFound, what="token"))
            row = session.get(TokenRow, key, with_for_update=True)
            if row is None:
                raise TokenNotFound(
                    f"There is no token {token_id!r}.", hint="List them with: fairlead token list", token=token_id
                )
            if row.revoked_at is None:
                row.revoked_at = self._clock.now()
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="token.revoke",
                    subject=row.id,
                    facts={"name": row.name, "principal": row.principal},
                )
            return _to_token(row)

    def authenticate(self, secret: str) -> Caller:
        """The caller whose secret this is.

        Raises:
            Unauthenticated: if no token has this secret, or it expired or was revoked.
        """
        hint = "Set FAIRLEAD_TOKEN to a valid token; an admin issues one with: fairlead token create"
        if not _SECRET.fullmatch(secret):
            raise Unauthenticated("That is not a Fairlead token.", hint=hint)
        digest = _hash(secret)
        with self._database.read() as session:
            row = session.scalars(select(TokenRow).where(TokenRow.secret_sha256 == digest)).one_or_none()
        if row is None or not hmac.compare_digest(row.secret_sha256, digest):
            raise Unauthenticated("The token is not known here.", hint=hint)
        if row.revoked_at is not None:
            raise Unauthenticated(f"The token {row.name!r} was revoked.", hint=hint)
        if row.expires_at is not None and row.expires_at <= self._clock.now():
            raise Unauthenticated(f"The token {row.name!r} has expired.", hint=hint)
        return Caller(
            workspace_id=row.workspace_id,
            principal=row.principal,
            scopes=frozenset(cast("list[Scope]", row.scopes)),
            token_id=row.id,
        )


def issue(
    session: Session,
    caller: Caller,
    clock: Clock,
    *,
    name: str,
    principal: str,
    scopes: Iterable[str],
    expires_in: timedelta | None = None,
) -> IssuedToken:
    """Issue a token within a transaction that is open."""
    now = clock.now()
    if expires_in is not None and not timedelta(0) < expires_in <= timedelta(days=3660):
        raise InvalidInput("A token lives for more than no time and at most ten years.", hint="Leave it out for ever.")
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    row = TokenRow(
        workspace_id=caller.workspace_id,
        name=parse_name(name, what="token"),
        principal=parse_principal(principal),
        secret_sha256=_hash(secret),
        scopes=list(parse_scopes(scopes)),
        created_at=now,
        created_by=caller.principal,
        expires_at=None if expires_in is None else now + expires_in,
    )
    session.add(row)
    session.flush()
    facts: dict[str, JsonValue] = {"name": row.name, "principal": row.principal, "scopes": [*row.scopes]}
    audit.record(session, caller, clock, action="token.create", subject=row.id, facts=facts)
    return IssuedToken(token=_to_token(row), secret=secret)


def bootstrap(
    database: Database,
    clock: Clock,
    *,
    principal: str,
    workspace_id: str = DEFAULT_WORKSPACE,
    jurisdiction: str | None = None,
) -> IssuedToken:
    """Create a workspace with its default environments unless it exists, and issue an owner's token for it.

    The workspace and its environments may be created again without effect; each call issues one more token.
    `jurisdiction` is that of the database (None: not stated), and stays what it was when the workspace was created.

    Raises:
        UnknownResidency: if there is no such jurisdiction.
        InvalidName: if the workspace's id is not lower-case letters, digits and dashes, 1 to 63 of them.
    """
    if not _WORKSPACE.fullmatch(workspace_id):
        raise InvalidName(
            f"{workspace_id[:80]!r} cannot be a workspace.", hint="Use 1 to 63 lower-case letters, digits and dashes."
        )
    caller = system_caller(workspace_id, "bootstrap")
    with database.write() as session:
        if session.get(WorkspaceRow, workspace_id, with_for_update=True) is None:
            _create_workspace(session, caller, clock, jurisdiction)
        return issue(session, caller, clock, name="owner", principal=principal, scopes=("admin",))


def _create_workspace(session: Session, caller: Caller, clock: Clock, jurisdiction: str | None) -> None:
    now = clock.now()
    where = None if jurisdiction is None else parse_residency(jurisdiction).upper()
    session.add(WorkspaceRow(workspace_id=caller.workspace_id, jurisdiction=where, created_at=now))
    session.flush()
    for name, rank in DEFAULT_ENVIRONMENTS.items():
        session.add(
            EnvironmentRow(
                workspace_id=caller.workspace_id,
                name=name,
                rank=rank,
                policy={},
                revision=1,
                updated_by=caller.principal,
                updated_at=now,
            )
        )
    audit.record(session, caller, clock, action="workspace.create", subject=caller.workspace_id)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _to_token(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        principal=row.principal,
        scopes=tuple(cast("list[Scope]", row.scopes)),
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
