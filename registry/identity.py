"""Who calls: API tokens and the callers they stand for.

A token's secret is `fl_` and 256 random bits. Only its sha256 is kept, so neither the database nor a backup of it lets
anyone in, and finding a token by that hash leaks no timing about the secret. A token belongs to one workspace and
names one principal; its scopes say what it may do, and it may expire or be revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast, get_args

from sqlalchemy import Text, bindparam, case, delete, func, literal, or_, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

from fairlead.catalog import parse_residency
from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import (
    Conflict,
    InvalidInput,
    InvalidName,
    JsonValue,
    PermissionDenied,
    TokenNotFound,
    Unauthenticated,
)
from fairlead.core.ids import NAME_MAX_LENGTH, parse_name
from fairlead.core.ports import Clock
from fairlead.core.prepared import Prepared
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.limits import parse_row_id
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.permissions import (
    OF_ENVIRONMENTS,
    SCOPES,
    Grant,
    RoleGrant,
    Scope,
    evaluate,
    is_match,
    parse_patterns,
)
from fairlead.registry.tables import EnvironmentRow, TokenRow, WorkspaceRow
from fairlead.registry.tables_governance import RoleBindingRow

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Select

GROUP_PREFIX = "group:"
GROUPS_MAX = 200
SECRET_PREFIX = "fl_"  # noqa: S105  (what every secret begins with, so that scanners find leaked ones)
DEFAULT_WORKSPACE = "default"
EXCHANGE = "token-exchange"
"""What of Fairlead issues tokens for exchanged identities."""

OVERLAP_MAX = timedelta(days=90)
DEFAULT_ENVIRONMENTS = {"dev": 10, "staging": 20, "production": 30}

_SECRET = re.compile(r"fl_[A-Za-z0-9_-]{43}")
_FORBIDDEN_IN_PRINCIPALS = frozenset('\\:%#?"<>|*')
_KEPT_AFTER_END = timedelta(days=7)
_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, in which workspace, and what they may do. `token_id` is None for work that Fairlead does itself.

    `scopes` are held for every model and environment of the workspace, `grants` for some.
    """

    workspace_id: str
    principal: str
    scopes: frozenset[Scope]
    token_id: str | None = None
    groups: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    expires_at: datetime | None = None

    def may(self, scope: Scope, *, model: str | None = None, environment: str | None = None) -> bool:
        """Whether the caller holds a scope: everywhere, or else for a model (None: for every one).

        `admin` implies all others, but not `server`.
        """
        if scope in self.scopes or ("admin" in self.scopes and scope != "server"):
            return True
        return model is not None and any(
            scope in grant.scopes
            and is_match(grant.models, model)
            and (environment is None or scope not in OF_ENVIRONMENTS or is_match(grant.environments, environment))
            for grant in self.grants
        )

    def may_somewhere(self, scope: Scope) -> bool:
        """Whether the caller holds a scope for any model at all."""
        return self.may(scope) or any(scope in grant.scopes for grant in self.grants)

    def holders(self) -> list[str]:
        """What role bindings may call the caller: by name, and by each group."""
        return [self.principal, *(f"{GROUP_PREFIX}{group}" for group in self.groups)]


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
    groups: tuple[str, ...]
    by_roles: bool
    models: tuple[str, ...] | None
    environments: tuple[str, ...] | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a token may be used for: at most these scopes, and only for what matches a pattern (None: for all).

    Where it goes `by_roles`, only what the roles of its principal and groups give beneath that.
    """

    scopes: Sequence[str]
    groups: Sequence[str] = ()
    by_roles: bool = False
    models: Sequence[str] | None = None
    environments: Sequence[str] | None = None


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


def parse_groups(groups: Iterable[str]) -> list[str]:
    """Check the groups of a principal, and put them in order.

    Raises:
        InvalidInput: if there are too many.
        InvalidName: if one could not be a group.
    """
    found = sorted({parse_name(group, what="group") for group in groups})
    if len(found) > GROUPS_MAX:
        raise InvalidInput(f"A token names at most {GROUPS_MAX} groups.", hint="Name those that roles are bound to.")
    return found


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
        self._by_secret = Prepared(_by_secret(is_sqlite=database.is_sqlite))

    def create(
        self,
        caller: Caller,
        *,
        name: str,
        principal: str,
        scopes: Sequence[str] = (),
        reach: Reach | None = None,
        expires_in: timedelta | None = None,
        key: IdempotencyKey | None = None,
    ) -> IssuedToken:
        """Issue a token with scopes, or with a whole reach. Its secret is in the answer and nowhere else.

        Raises:
            InvalidInput: if the name, principal, reach or life time are not valid.
            PermissionDenied: if it would reach further than the caller.
            Conflict: if the call is a repetition; the secret cannot be shown again.
        """
        wanted = reach or Reach(scopes=scopes)
        issued: list[IssuedToken] = []

        def create(session: Session) -> Token:
            check_may_issue(caller, wanted.scopes)
            issued.append(
                issue(session, caller, self._clock, name=name, principal=principal, reach=wanted, expires_in=expires_in)
            )
            return issued[0].token

        with self._database.write() as session:
            token = run_once(session, caller, self._clock, key, result_type=Token, action=lambda: create(session))
        return _only_once(issued, token)

    def list(self, caller: Caller, page: PageRequest) -> Page[Token]:
        """The workspace's tokens, oldest first, the revoked and expired ones too."""
        query = select(TokenRow).where(TokenRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            listing = ("tokens", caller.workspace_id)
            return page.fetch(session, query, [TokenRow.id], listing=listing).map(_to_token)

    def rotate(
        self, caller: Caller, token_id: str, *, overlap: timedelta, key: IdempotencyKey | None = None
    ) -> IssuedToken:
        """Issue another token of the same reach; the old one ends after the overlap, or when it would have anyway.

        The new one lives as long from now as the old one was to live when it was made.

        Raises:
            TokenNotFound: if the workspace has no such token.
            Conflict: if it has ended already, or the call is a repetition.
            PermissionDenied: if it reaches further than the caller.
        """
        if not timedelta(0) <= overlap <= OVERLAP_MAX:
            raise InvalidInput(f"The overlap lasts 0 to {OVERLAP_MAX.days} days.", hint="Such as --overlap 24h")
        issued: list[IssuedToken] = []

        def rotate(session: Session) -> Token:
            now = self._clock.now()
            row = _find_token(session, caller, token_id)
            if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
                raise Conflict(f"The token {row.name!r} has ended.", hint="Make another: fairlead token create")
            check_may_issue(caller, row.scopes)
            issued.append(
                issue(
                    session,
                    caller,
                    self._clock,
                    name=row.name,
                    principal=row.principal,
                    reach=_reach_of(row),
                    expires_in=None if row.expires_at is None else row.expires_at - row.created_at,
                )
            )
            ends = now + overlap
            ends = ends if row.expires_at is None else min(ends, row.expires_at)
            row.expires_at = ends
            facts: dict[str, JsonValue] = {
                "name": row.name,
                "principal": row.principal,
                "successor": issued[0].token.id,
                "ends_at": format_time(ends),
            }
            audit.record(session, caller, self._clock, action="token.rotate", subject=row.id, facts=facts)
            return issued[0].token

        with self._database.write() as session:
            token = run_once(session, caller, self._clock, key, result_type=Token, action=lambda: rotate(session))
        return _only_once(issued, token)

    def revoke(self, caller: Caller, token_id: str) -> Token:
        """End a token at once; revoking it again changes nothing.

        Raises:
            TokenNotFound: if the workspace has no such token.
        """
        with self._database.write() as session:
            row = _find_token(session, caller, token_id)
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

    def roles(self, caller: Caller) -> list[str]:
        """The roles of a caller, as `ROLE MODELS ENVIRONMENTS`."""
        query = select(RoleBindingRow.role, RoleBindingRow.models, RoleBindingRow.environments).where(
            RoleBindingRow.workspace_id == caller.workspace_id, RoleBindingRow.principal.in_(caller.holders())
        )
        with self._database.read() as session:
            return sorted({" ".join(found) for found in session.execute(query)})

    def authenticate(self, secret: str) -> Caller:
        """The caller whose secret this is.

        Raises:
            Unauthenticated: if no token has this secret, or it expired or was revoked.
        """
        hint = "Set FAIRLEAD_TOKEN to a valid token; an admin issues one with: fairlead token create"
        if not _SECRET.fullmatch(secret):
            raise Unauthenticated("That is not a Fairlead token.", hint=hint)
        digest = _hash(secret)
        row = self._database.first(self._by_secret, digest=digest)
        if row is None or not hmac.compare_digest(row.secret_sha256, digest):
            raise Unauthenticated("The token is not known here.", hint=hint)
        if row.revoked_at is not None:
            raise Unauthenticated(f"The token {row.name!r} was revoked.", hint=hint)
        if row.expires_at is not None and row.expires_at <= self._clock.now():
            raise Unauthenticated(f"The token {row.name!r} has expired.", hint=hint)
        held = [RoleGrant(*role) for role in json.loads(row.roles or "[]")] if row.by_roles else None
        scopes, grants = evaluate(row.scopes, models=row.models, environments=row.environments, roles=held)
        return Caller(
            workspace_id=row.workspace_id,
            principal=row.principal,
            scopes=scopes,
            token_id=row.id,
            groups=tuple(row.groups),
            grants=grants,
            expires_at=row.expires_at,
        )


def issue(
    session: Session,
    caller: Caller,
    clock: Clock,
    *,
    name: str,
    principal: str,
    reach: Reach,
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
        scopes=list(parse_scopes(reach.scopes)),
        groups=parse_groups(reach.groups),
        by_roles=reach.by_roles,
        models=parse_patterns(reach.models, what="models"),
        environments=parse_patterns(reach.environments, what="environments"),
        created_at=now,
        created_by=caller.principal,
        expires_at=None if expires_in is None else now + expires_in,
    )
    if "server" in row.scopes and (row.by_roles or row.models is not None or row.environments is not None):
        raise InvalidInput(
            "A token for the whole server is limited to nothing.", hint="Leave the scope server out, or the limits."
        )
    session.add(row)
    session.flush()
    facts: dict[str, JsonValue] = {"name": row.name, "principal": row.principal, "scopes": [*row.scopes]}
    if row.groups:
        facts["groups"] = [*row.groups]
    if row.by_roles:
        facts["by_roles"] = True
    if row.models is not None:
        facts["models"] = [*row.models]
    if row.environments is not None:
        facts["environments"] = [*row.environments]
    audit.record(session, caller, clock, action="token.create", subject=row.id, facts=facts)
    return IssuedToken(token=_to_token(row), secret=secret)


def bootstrap(
    database: Database,
    clock: Clock,
    *,
    principal: str,
    workspace_id: str = DEFAULT_WORKSPACE,
    jurisdiction: str | None = None,
    is_server_admin: bool = False,
) -> IssuedToken:
    """Create a workspace with its default environments unless it exists, and issue an owner's token for it.

    The workspace and its environments may be created again without effect; each call issues one more token.
    `jurisdiction` is that of the database (None: not stated), and stays what it was when the workspace was created. The
    token of a server's admin may also make other workspaces.

    Raises:
        UnknownResidency: if there is no such jurisdiction.
        InvalidName: if the workspace's id is not lower-case letters, digits and dashes, 1 to 63 of them.
    """
    caller = system_caller(parse_workspace(workspace_id), "bootstrap")
    scopes = ("admin", "server") if is_server_admin else ("admin",)
    with database.write() as session:
        if session.get(WorkspaceRow, workspace_id, with_for_update=True) is None:
            add_workspace(session, caller, clock, jurisdiction)
        return issue(session, caller, clock, name="owner", principal=principal, reach=Reach(scopes=scopes))


def parse_workspace(text: str) -> str:
    """Check a workspace's id.

    Raises:
        InvalidName: if it is not lower-case letters, digits and dashes, 1 to 63 of them.
    """
    if not _WORKSPACE.fullmatch(text):
        raise InvalidName(
            f"{text[:80]!r} cannot be a workspace.", hint="Use 1 to 63 lower-case letters, digits and dashes."
        )
    return text


def check_may_issue(caller: Caller, scopes: Iterable[str]) -> None:
    """Refuse to give the whole server into the hands of others, unless the caller holds it.

    Raises:
        PermissionDenied: if the caller does not.
    """
    if "server" in scopes and not caller.may("server"):
        raise PermissionDenied(
            f"{caller.principal!r} may not give the scope 'server': it holds none itself.", scope="server"
        )


def forget_ended_tokens(database: Database, clock: Clock) -> int:
    """Drop the tokens of exchanged identities that ended a week ago; the audit log goes on to tell of them."""
    ended = delete(TokenRow).where(
        TokenRow.created_by == f"fairlead:{EXCHANGE}", TokenRow.expires_at < clock.now() - _KEPT_AFTER_END
    )
    with database.write() as session:
        return cast("CursorResult[Any]", session.execute(ended)).rowcount


def add_workspace(session: Session, caller: Caller, clock: Clock, jurisdiction: str | None) -> None:
    """Make the caller's workspace, with its environments, within a transaction that is open."""
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


def _find_token(session: Session, caller: Caller, token_id: str) -> TokenRow:
    key = (caller.workspace_id, parse_row_id(token_id, TokenNotFound, what="token"))
    row = session.get(TokenRow, key, with_for_update=True)
    if row is None:
        raise TokenNotFound(
            f"There is no token {token_id!r}.", hint="List them with: fairlead token list", token=token_id
        )
    return row


def _only_once(issued: list[IssuedToken], token: Token) -> IssuedToken:
    if not issued:
        raise Conflict(
            f"This call issued the token {token.name!r} before; its secret was shown then.",
            hint=f"If it was lost, run: fairlead token revoke {token.id}, and create another.",
            token=token.id,
        )
    return issued[0]


def _by_secret(*, is_sqlite: bool) -> Select[*tuple[Any, ...]]:
    """The token of a secret and, where it goes by roles, those of its principal and groups as JSON: one statement."""
    binding = RoleBindingRow
    if is_sqlite:
        group = func.json_each(TokenRow.groups).table_valued("value").c.value
        roles = func.json_group_array(func.json_array(binding.role, binding.models, binding.environments))
    else:
        group = func.jsonb_array_elements_text(TokenRow.groups).table_valued("value").c.value
        roles = func.json_agg(func.json_build_array(binding.role, binding.models, binding.environments))
    is_of_group = binding.principal.in_(select(literal(GROUP_PREFIX) + sql_cast(group, Text)))
    held = (
        select(sql_cast(roles, Text))
        .where(binding.workspace_id == TokenRow.workspace_id, or_(binding.principal == TokenRow.principal, is_of_group))
        .correlate(TokenRow)
        .scalar_subquery()
    )
    # Columns, and not a row of the ORM's: this is asked with every request.
    return select(*TokenRow.__table__.columns, case((TokenRow.by_roles, held), else_=None).label("roles")).where(
        TokenRow.secret_sha256 == bindparam("digest")
    )


def _reach_of(row: TokenRow) -> Reach:
    return Reach(
        scopes=row.scopes, groups=row.groups, by_roles=row.by_roles, models=row.models, environments=row.environments
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _to_token(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        principal=row.principal,
        scopes=tuple(cast("list[Scope]", row.scopes)),
        groups=tuple(row.groups),
        by_roles=row.by_roles,
        models=None if row.models is None else tuple(row.models),
        environments=None if row.environments is None else tuple(row.environments),
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
