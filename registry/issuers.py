"""Issuers whose tokens are believed: applied, shown, removed; and whom the claims of such a token stand for.

An issuer is named by its address and the audience that its tokens must be made out to. Its rules are asked in order,
and the first whose patterns all match says who calls and what they may do; where none matches, nobody calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, InvalidName, IssuerNotFound, JsonValue, PermissionDenied
from fairlead.core.ids import parse_name
from fairlead.core.loopback import is_loopback
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import Caller, check_may_issue, parse_principal, parse_scopes
from fairlead.registry.limits import parse_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.permissions import Scope, parse_patterns
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables import WorkspaceRow
from fairlead.registry.tables_governance import IssuerRow

RULES_MAX = 50
CLAIMS_MAX = 20
TEXT_MAX_LENGTH = 500

_CLAIM = re.compile(r"\{([^{}]*)\}")
_URL = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Patterns of claims, and the principal (with `{claim}` in it, or not) and reach of a token that matches all.

    `scopes` are the most that is given; `by_roles` gives what the roles of the principal and its groups give beneath
    them. `models` and `environments` are patterns that it is limited to (None: to none).
    """

    claims: Mapping[str, str]
    principal: str
    scopes: tuple[Scope, ...]
    by_roles: bool = False
    models: tuple[str, ...] | None = None
    environments: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer as it was applied; `jwks_url` is None where its keys are found by discovery.

    People log in at an issuer that has a `client_id`. `groups_claim` names the claim that lists a principal's groups.
    """

    name: str
    issuer: str
    audience: str
    rules: tuple[Rule, ...]
    jwks_url: str | None
    client_id: str | None
    groups_claim: str | None
    revision: int
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Where the people of a workspace log in."""

    workspace: str
    name: str
    issuer: str
    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """Whom a token stands for, and which rule (its number counts from 1) says so."""

    principal: str
    rule: Rule
    number: int


class Issuers:
    """Applies, shows and removes issuers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def list(self, caller: Caller, page: PageRequest) -> Page[Issuer]:
        """Issuers by name."""
        query = select(IssuerRow).where(IssuerRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [IssuerRow.name], listing=("issuers", caller.workspace_id)).map(to_issuer)

    def get(self, caller: Caller, name: str) -> Issuer:
        """One issuer.

        Raises:
            IssuerNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return to_issuer(_find(session, caller, name))

    def put(
        self,
        caller: Caller,
        name: str,
        *,
        issuer: str,
        audience: str,
        rules: Sequence[Rule],
        jwks_url: str | None = None,
        client_id: str | None = None,
        groups_claim: str | None = None,
        expected_revision: int | None = None,
    ) -> Issuer:
        """Believe an issuer: create it or replace it. One that is there already, word for word, keeps its revision.

        Raises:
            InvalidInput: if an address, a rule or a scope is not valid.
            PermissionDenied: if a rule gives what the caller may not give.
            StaleRevision: if it is not at the expected revision (0: not there).
        """
        parse_name(name, what="issuer")
        for rule in rules:
            check_may_issue(caller, rule.scopes)
        settings = {"jwks_url": jwks_url, "client_id": client_id, "groups_claim": groups_claim}
        after = _to_document(issuer, audience, rules, settings)
        with self._database.write() as session:
            # Also what was never there: two that create one issuer wait for each other here.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update={"key_share": True})
            row = session.get(IssuerRow, (caller.workspace_id, name), with_for_update=True)
            _check_revision(name, 0 if row is None else row.revision, expected_revision)
            before = None if row is None else _row_document(row)
            if row is not None and before == after:
                return to_issuer(row)
            if row is None:
                row = IssuerRow(workspace_id=caller.workspace_id, name=name, revision=0)
                session.add(row)
            row.issuer, row.audience = issuer, audience
            row.rules = cast("list[dict[str, Any]]", after["rules"])
            row.settings = cast("dict[str, Any]", after["settings"])
            row.revision += 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            facts: Mapping[str, JsonValue] = {"revision": row.revision, "before": before, "after": after}
            audit.record(session, caller, self._clock, action="issuer.put", subject=name, facts=facts)
            return to_issuer(row)

    def logins(self, *, workspace: str | None = None) -> list[Login]:
        """Where people log in, of one workspace or of all; nobody has to be known to ask."""
        query = select(IssuerRow).order_by(IssuerRow.workspace_id, IssuerRow.name)
        if workspace is not None:
            query = query.where(IssuerRow.workspace_id == parse_text(workspace, what="workspace", max_length=63))
        with self._database.read() as session:
            return [
                Login(workspace=row.workspace_id, name=row.name, issuer=row.issuer, client_id=row.settings["client_id"])
                for row in session.scalars(query)
                if row.settings.get("client_id")
            ]

    def delete(self, caller: Caller, name: str, *, expected_revision: int | None = None) -> None:
        """Believe an issuer no longer; tokens that were exchanged for its own end in their minutes.

        Raises:
            IssuerNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
        """
        with self._database.write() as session:
            row = _find(session, caller, name, lock=True)
            _check_revision(name, row.revision, expected_revision)
            facts: Mapping[str, JsonValue] = {"revision": row.revision, "before": _row_document(row)}
            session.delete(row)
            session.flush()
            audit.record(session, caller, self._clock, action="issuer.delete", subject=name, facts=facts)


def identify(rules: Sequence[Rule], claims: Mapping[str, object]) -> Identified:
    """Whom verified claims stand for, by the first rule that they match.

    Raises:
        PermissionDenied: if they match none, or the rule's principal cannot be made of them.
    """
    for number, rule in enumerate(rules, 1):
        if all(_is_match(_find_claim(claims, name), pattern) for name, pattern in rule.claims.items()):
            return Identified(principal=_principal(rule.principal, claims, number), rule=rule, number=number)
    raise PermissionDenied(
        "No rule of the issuer is about this identity.",
        hint="Ask an admin for a rule that matches the token's claims: fairlead issuer put",
    )


def to_issuer(row: IssuerRow) -> Issuer:
    """A row as a record."""
    return Issuer(
        name=row.name,
        issuer=row.issuer,
        audience=row.audience,
        rules=tuple(
            Rule(
                claims=rule["claims"],
                principal=rule["principal"],
                scopes=tuple(rule["scopes"]),
                by_roles=rule.get("by_roles", False),
                models=_to_patterns(rule.get("models")),
                environments=_to_patterns(rule.get("environments")),
            )
            for rule in row.rules
        ),
        jwks_url=row.settings.get("jwks_url"),
        client_id=row.settings.get("client_id"),
        groups_claim=row.settings.get("groups_claim"),
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )


def is_trusted_address(url: str) -> bool:
    """Whether keys may be had from an address: https, or http on this machine; no user, query or fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_plain = not (parts.query or parts.fragment or "@" in parts.netloc or "?" in url or "#" in url)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))
    return bool(parts.hostname) and port != 0 and is_plain and is_safe and _URL.fullmatch(url) is not None


def is_same_origin(one: str, other: str) -> bool:
    """Whether two addresses have scheme, host and port in common."""
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _find_claim(claims: Mapping[str, object], name: str) -> object:
    """A claim, or what it holds: `kubernetes.io/namespace` is the member `namespace` of `kubernetes.io`."""
    found: object = claims.get(name)
    if found is None and "/" in name:
        found = claims
        for part in name.split("/"):
            found = _member(found, part)
    return found


def _member(value: object, name: str) -> object:
    return cast("Mapping[str, object]", value).get(name) if isinstance(value, Mapping) else None


def _is_match(value: object, pattern: str) -> bool:
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int):
        value = str(value)
    return isinstance(value, str) and fnmatchcase(value, pattern)


def _principal(template: str, claims: Mapping[str, object], rule: int) -> str:
    def fill(found: re.Match[str]) -> str:
        value = _find_claim(claims, found[1])
        if not isinstance(value, str) or not value:
            raise PermissionDenied(f"Rule {rule} names the principal by the claim {found[1]!r}, which is not there.")
        return value

    try:
        return parse_principal(_CLAIM.sub(fill, template))
    except InvalidName as error:
        raise PermissionDenied(
            f"Rule {rule} makes no principal of these claims: {error.detail}", hint="Name it by another claim."
        ) from None


def _to_patterns(found: list[str] | None) -> tuple[str, ...] | None:
    return None if found is None else tuple(found)


def _to_document(
    issuer: str, audience: str, rules: Sequence[Rule], settings: Mapping[str, str | None]
) -> dict[str, JsonValue]:
    jwks_url, client_id = settings["jwks_url"], settings["client_id"]
    for url in (issuer, *(() if jwks_url is None else (jwks_url,))):
        if len(url) > TEXT_MAX_LENGTH or not is_trusted_address(url):
            raise InvalidInput(
                f"{url[:80]!r} is no address of an issuer.",
                hint="Give https://HOST/PATH, as the tokens' claim iss has it.",
            )
    if not audience or len(audience) > TEXT_MAX_LENGTH or not audience.isprintable():
        raise InvalidInput(
            "The issuer has no audience.", hint="Give the address of this server, which clients ask for."
        )
    if any(text is not None and not (text and text.isprintable()) for text in settings.values()):
        raise InvalidInput("A setting of the issuer is empty.", hint="Leave out what the issuer does not have.")
    if client_id not in {None, audience}:
        # Identity tokens of people are made out to the client that they log in with.
        raise InvalidInput(
            "People log in with a client_id that is not the issuer's audience.", hint="Give the same for both."
        )
    if not 1 <= len(rules) <= RULES_MAX:
        raise InvalidInput(f"An issuer has 1 to {RULES_MAX} rules.", hint="Say whom its tokens stand for.")
    return {
        "issuer": issuer,
        "audience": audience,
        "rules": [_check_rule(number, rule) for number, rule in enumerate(rules, 1)],
        "settings": {name: text for name, text in settings.items() if text is not None},
    }


def _check_rule(number: int, rule: Rule) -> dict[str, JsonValue]:
    # Without a claim a rule would believe whoever has an account there.
    if not 1 <= len(rule.claims) <= CLAIMS_MAX or not all(
        text and text.isprintable() for member in rule.claims.items() for text in member
    ):
        raise InvalidInput(
            f"Rule {number} has to ask for 1 to {CLAIMS_MAX} claims.", hint="Such as repository: acme/churn"
        )
    literal = _CLAIM.sub(lambda found: "x" if found[1] else "{", rule.principal)
    if "{" in literal or "}" in literal:
        raise InvalidInput(f"The principal of rule {number} has a brace too many.", hint="Such as ci/{repository}")
    parse_principal(literal)
    checked: dict[str, JsonValue] = {
        "claims": dict(rule.claims),
        "principal": rule.principal,
        "scopes": [*parse_scopes(rule.scopes)],
    }
    if rule.by_roles:
        checked["by_roles"] = True
    for name, patterns in (("models", rule.models), ("environments", rule.environments)):
        limits = parse_patterns(patterns, what=name)
        if limits is not None:
            checked[name] = [*limits]
    return checked


def _row_document(row: IssuerRow) -> dict[str, JsonValue]:
    return {"issuer": row.issuer, "audience": row.audience, "rules": [*row.rules], "settings": dict(row.settings)}


def _find(session: Session, caller: Caller, name: str, *, lock: bool = False) -> IssuerRow:
    row = session.get(IssuerRow, (caller.workspace_id, parse_name(name, what="issuer")), with_for_update=lock or None)
    if row is None:
        raise IssuerNotFound(f"There is no issuer {name[:80]!r}.", hint="See: fairlead issuer list")
    return row


def _check_revision(name: str, actual: int, expected: int | None) -> None:
    require_revision(f"The issuer {name!r}", actual, expected, hint="Look at it and try again: fairlead issuer list")
