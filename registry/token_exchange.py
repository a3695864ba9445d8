"""A workload's identity token, exchanged for a short-lived API token.

Nobody has to be known to ask: the token itself says who asks, once its signature, issuer, audience and times are
verified. Its issuer and audience choose the row that believes it, and with it the workspace; where several workspaces
believe the same, the caller says which is meant. The token is neither logged nor kept. While it lives it may be
exchanged again; what is issued never outlives it.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import select

from fairlead.core.db import Database
from fairlead.core.errors import InvalidName, JsonValue, Unauthenticated
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import EXCHANGE, GROUPS_MAX, IssuedToken, Reach, issue, system_caller
from fairlead.registry.issuer_keys import ALGORITHMS, IssuerKeys
from fairlead.registry.issuers import Issuer, identify, to_issuer
from fairlead.registry.limits import parse_text
from fairlead.registry.tables_governance import IssuerRow

TOKEN_MAX_LENGTH = 16_384
LIFETIME_MAX = timedelta(minutes=15)
LEEWAY_SECONDS = 60
"""How far an issuer's clock may be ahead of ours. Nothing is added to the end of a token's life."""

_TEXT_MAX_LENGTH = 500
_TIME_MAX = 2**33


class TokenExchange:
    """Exchanges identity tokens of configured issuers."""

    def __init__(self, database: Database, clock: Clock, *, hosts: tuple[str, ...] | None = None) -> None:
        self._database = database
        self._clock = clock
        self._keys = IssuerKeys(clock, hosts=hosts)

    def exchange(self, token: str, *, workspace: str | None = None) -> IssuedToken:
        """Issue an API token to whoever an identity token stands for, in the one workspace that believes its issuer.

        Raises:
            Unauthenticated: if the token is not valid, or not of one configured issuer.
            PermissionDenied: if no rule of the issuer is about it.
            Unavailable: if the issuer's keys cannot be had.
        """
        header, claims = _read(token)
        workspace_id, issuer = self._find_issuer(claims, workspace)
        # No transaction is open while the issuer is asked.
        claims = self._verify(token, header, issuer)
        now = self._clock.now()
        ends = _check_claims(claims, issuer, now)
        identified = identify(issuer.rules, claims)
        caller = system_caller(workspace_id, EXCHANGE)
        groups = _groups(claims, issuer.groups_claim)
        with self._database.write() as session:
            row = session.get(IssuerRow, (workspace_id, issuer.name), with_for_update={"read": True})
            if row is None or row.revision != issuer.revision:
                raise Unauthenticated(f"The issuer {issuer.name!r} was just changed.", hint="Try again.")
            issued = issue(
                session,
                caller,
                self._clock,
                name=issuer.name,
                principal=identified.principal,
                reach=Reach(
                    scopes=identified.rule.scopes,
                    groups=groups,
                    by_roles=identified.rule.by_roles,
                    models=identified.rule.models,
                    environments=identified.rule.environments,
                ),
                expires_in=min(LIFETIME_MAX, ends - now),
            )
            facts: dict[str, JsonValue] = {
                "name": issuer.name,
                "issuer": issuer.issuer,
                "subject": cast("str", claims["sub"]),
                "rule": identified.number,
                "revision": issuer.revision,
                "principal": identified.principal,
            }
            audit.record(session, caller, self._clock, action="token.exchange", subject=issued.token.id, facts=facts)
        return issued

    def _find_issuer(self, claims: Mapping[str, Any], workspace: str | None) -> tuple[str, Issuer]:
        address, audiences = claims.get("iss"), _audiences(claims)
        if not isinstance(address, str) or not address.isprintable() or not audiences:
            raise _refuse("it names no issuer or audience")
        with self._database.read() as session:
            believed = select(IssuerRow).where(IssuerRow.issuer == address)
            if workspace is not None:
                believed = believed.where(IssuerRow.workspace_id == parse_text(workspace, what="workspace"))
            rows = session.scalars(believed)
            found = [(row.workspace_id, to_issuer(row)) for row in rows if row.audience in audiences]
        if not found:
            raise _refuse("no issuer of that address and audience is configured here")
        if len({workspace_id for workspace_id, _ in found}) > 1:
            raise Unauthenticated(
                "More than one workspace believes that issuer and audience, and the request names none of them.",
                hint="Set FAIRLEAD_WORKSPACE, or send the member workspace.",
            )
        if len(found) > 1:
            raise _refuse("more than one issuer of that address and audience is configured here")
        return found[0]

    def _verify(self, token: str, header: Mapping[str, Any], issuer: Issuer) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jws import JWSRegistry

        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise _refuse(f"it is not signed with {' or '.join(ALGORITHMS)}")
        if not isinstance(key_id, str) or "crit" in header:
            raise _refuse("it names no key, or asks for what is not known here")
        key = self._keys.find(issuer, algorithm=algorithm, key_id=key_id)
        try:
            # Issuers put members of their own into headers; of them all, only `alg` and `kid` are used.
            registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
            return jwt.decode(token, key, algorithms=[algorithm], registry=registry).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            raise _refuse("its signature is not its issuer's") from None


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, of which nothing is verified yet."""
    parts = token.split(".")
    if len(token) > TOKEN_MAX_LENGTH or len(parts) != 3:
        raise _refuse("it is no signed JWT")
    try:
        found: list[object] = [
            json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2]
        ]
    except (ValueError, RecursionError):
        raise _refuse("it is no signed JWT") from None
    header, claims = found
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise _refuse("it is no signed JWT")
    return cast("dict[str, Any]", header), cast("dict[str, Any]", claims)


def _check_claims(claims: Mapping[str, Any], issuer: Issuer, now: datetime) -> datetime:
    """Check verified claims; when the token ends."""
    if claims.get("iss") != issuer.issuer or issuer.audience not in _audiences(claims):
        raise _refuse("it is made out for another issuer or audience")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= _TEXT_MAX_LENGTH or not subject.isprintable():
        raise _refuse("it has no subject")
    present = now.timestamp()
    ends = _time(claims, "exp")
    if ends <= present:
        raise _refuse("it has expired")
    if _time(claims, "iat") > present + LEEWAY_SECONDS:
        raise _refuse("it was issued in the future")
    if "nbf" in claims and _time(claims, "nbf") > present + LEEWAY_SECONDS:
        raise _refuse("it is not valid yet")
    return datetime.fromtimestamp(ends, UTC)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _TIME_MAX:
        raise _refuse(f"its claim {name!r} is no time")
    return value


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    named = claims.get("aud")
    listed: list[object] = cast("list[object]", named) if isinstance(named, list) else [named]
    return [each for each in listed if isinstance(each, str)]


def _groups(claims: Mapping[str, Any], claim: str | None) -> list[str]:
    """The groups that a claim names, the first of them if there are many; those that no group can be called are not."""
    named = None if claim is None else claims.get(claim)
    listed = cast("list[object]", named) if isinstance(named, list) else [named]
    found: list[str] = []
    for each in listed:
        if isinstance(each, str):
            with contextlib.suppress(InvalidName):
                # Some name groups by their path, such as `/risk`.
                found.append(parse_name(each.removeprefix("/"), what="group"))
    return sorted(set(found))[:GROUPS_MAX]


def _refuse(reason: str) -> Unauthenticated:
    return Unauthenticated(
        f"The identity token is not believed: {reason}.",
        hint="Ask an admin which issuers and audiences are configured: fairlead issuer list",
    )
