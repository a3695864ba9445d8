"""Issuers: whose identity tokens the server believes, and whom they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer(Record):
    """An issuer; the first of its `rules` whose patterns of claims all match says who calls."""

    name: str
    issuer: str
    audience: str
    rules: tuple[JsonObject, ...] = ()
    jwks_url: str | None = None
    client_id: str | None = None
    groups_claim: str | None = None
    revision: int
    updated_by: str
    updated_at: datetime


class Issuers:
    """Whose identity tokens are exchanged for API tokens."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Issuer]:
        """All issuers by name."""
        return map(Issuer.from_json, self._transport.items("/api/v1/issuers"))

    def get(self, name: str) -> Issuer:
        """One issuer.

        Raises:
            IssuerNotFound: if there is none of that name.
        """
        return Issuer.from_json(self._transport.get(_path(name)))

    def put(self, name: str, spec: Mapping[str, JsonValue], *, revision: int | None = None) -> Issuer:
        """Believe an issuer: issuer, audience, rules and, maybe, jwks_url, client_id and groups_claim.

        Raises:
            InvalidInput: if an address, a rule or a scope is not valid.
            StaleRevision: if a revision is given and the issuer is not at it (0: not there yet).
        """
        return Issuer.from_json(self._transport.request("PUT", _path(name), body=dict(spec), if_match=revision))

    def delete(self, name: str, *, revision: int | None = None) -> None:
        """Believe an issuer no longer; tokens that were exchanged for its own end in their minutes."""
        self._transport.request("DELETE", _path(name), if_match=revision)


def _path(name: str) -> str:
    return f"/api/v1/issuers/{quote(parse_name(name, what='issuer'), safe='')}"
