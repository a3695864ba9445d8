"""What platform engineers and auditors ask for: environments, tokens, audit, ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from fairlead.sdk.records import AuditEvent, Environment, LedgerEntry, Token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.audit_export import CheckedExport
    from fairlead.sdk.transport import JsonObject, Transport


class Environments:
    """dev, staging, production: protected aliases with a policy."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Environment]:
        """Environments in their order."""
        found = [Environment.from_json(item) for item in self._transport.items("/api/v1/environments")]
        return sorted(found, key=lambda environment: environment.rank)

    def get(self, name: str) -> Environment:
        """One environment, with the policy's revision."""
        return Environment.from_json(self._transport.get(f"/api/v1/environments/{quote(name, safe='')}"))

    def set_policy(self, name: str, policy: Mapping[str, JsonValue], *, revision: int | None = None) -> Environment:
        """Replace an environment's policy: gates, required_regions, approvals, previous_environment.

        Raises:
            StaleRevision: if someone changed it first.
        """
        present = self.get(name)
        body: JsonObject = {"rank": present.rank, "policy": dict(policy)}
        answer = self._transport.request(
            "PUT",
            f"/api/v1/environments/{quote(name, safe='')}",
            body=body,
            if_match=present.revision if revision is None else revision,
        )
        return Environment.from_json(answer)


class Tokens:
    """API tokens."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        *,
        principal: str,
        scopes: Sequence[str],
        groups: Sequence[str] = (),
        by_roles: bool = False,
        models: Sequence[str] | None = None,
        environments: Sequence[str] | None = None,
        expires_in_seconds: int | None = None,
    ) -> Token:
        """Make a token for a principal; its `secret` is shown this once.

        Scopes are read, write, promote, approve, deploy, admin (which implies these) and server (which makes
        workspaces). With `by_roles` they are the most that the roles of the principal and its groups give. `models` and
        `environments` are patterns that it is limited to.
        """
        body: dict[str, JsonValue] = {
            "name": name,
            "principal": principal,
            "scopes": list(scopes),
            "groups": list(groups),
            "by_roles": by_roles,
            "models": None if models is None else list(models),
            "environments": None if environments is None else list(environments),
            "expires_in_seconds": expires_in_seconds,
        }
        return Token.from_json(self._transport.post("/api/v1/tokens", body))

    def list(self) -> Iterator[Token]:
        """All tokens, without their secrets."""
        return map(Token.from_json, self._transport.items("/api/v1/tokens"))

    def rotate(self, token_id: str, *, overlap_seconds: int = 86_400) -> Token:
        """Make a successor of a token, whose `secret` is shown this once; the old one ends after the overlap."""
        path = f"/api/v1/tokens/{quote(token_id, safe='')}/rotate"
        return Token.from_json(self._transport.post(path, {"overlap_seconds": overlap_seconds}))

    def revoke(self, token_id: str) -> None:
        """End a token at once."""
        self._transport.request("DELETE", f"/api/v1/tokens/{quote(token_id, safe='')}")


class Audit:
    """Who did what; sealed into a hash chain."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, subject: str | None = None, action: str | None = None, newest_first: bool = False
    ) -> Iterator[AuditEvent]:
        """Events in their order, oldest first unless `newest_first`."""
        events = self._transport.items("/api/v1/audit", subject=subject, action=action, newest_first=newest_first)
        return map(AuditEvent.from_json, events)

    def verify(self, *, anchor: str | None = None) -> JsonObject:
        """Recompute the chain; finds any edited, removed, inserted or reordered event.

        The answer's `anchor` (SEQUENCE:HASH) is the chain's head. Given again later, it also shows whether the tail
        was cut off since.
        """
        return self._transport.get("/api/v1/audit/verification", anchor=anchor)

    def export(self, file: Path) -> CheckedExport:
        """Write all sealed events into one new file, which `fairlead.sdk.audit_export.check_export` checks anywhere.

        Keep the answer's `anchor` elsewhere.

        Raises:
            InvalidInput: if there is something at `file`.
            PermissionDenied: if the caller may not see every event.
            IntegrityError: if the chain was changed; nothing is written.
        """
        from fairlead.sdk.audit_export import write_export

        workspace = str(self._transport.get("/api/v1/whoami")["workspace_id"])
        return write_export(file, workspace, self._sealed())

    def _sealed(self) -> Iterator[JsonObject]:
        after, is_last = 0, False
        while not is_last:
            page = self._transport.get("/api/v1/events", after=after, limit=500)
            yield from cast("list[JsonObject]", page["items"])
            after, is_last = cast("int", page["next_after"]), bool(page["is_last"])


class Ledger:
    """What every move and deployment cost."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, subject: str | None = None, kind: str | None = None, newest_first: bool = False
    ) -> Iterator[LedgerEntry]:
        """Entries, oldest first unless `newest_first`."""
        entries = self._transport.items("/api/v1/ledger", subject=subject, kind=kind, newest_first=newest_first)
        return map(LedgerEntry.from_json, entries)

    def summary(self, *, by: str = "kind") -> list[JsonObject]:
        """Sums of bytes, dollars and grams by kind, region, or a label such as `team`."""
        return list(self._transport.items("/api/v1/ledger/summary", by=by))
