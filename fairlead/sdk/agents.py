"""Feature agents: who joins in which region."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import JsonObject, Transport

_AGENTS = "/api/v1/features/agents"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureAgent(Record):
    """An agent. States: REGISTERED, SERVING, AWAY (it has not said for a while that it serves), LEFT."""

    region: str
    address: str
    state: str
    certificate_sha256: str
    principal: str
    registered_by: str
    registered_at: datetime
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardSign:
    """What the registry answers an agent: itself, its workspace, and the keys that sign tickets."""

    agent: FeatureAgent
    workspace: str
    ticket_keys: tuple[bytes, ...]


class FeatureAgents:
    """Feature agents of the workspace."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[FeatureAgent]:
        """All agents, by region and address."""
        return map(FeatureAgent.from_json, self._transport.items(_AGENTS))

    def add(self, *, region: str, address: str, certificate: str, principal: str | None = None) -> FeatureAgent:
        """Say that an agent is at an address (HOST:PORT), and by what certificate (PEM) it is known.

        The certificate is its own, or its authority's. `principal` runs it; without one, the caller does. Whoever reads
        federated sends entity rows and tokens there, so only an admin may.

        Raises:
            InvalidInput, UnknownRegion, PermissionDenied.
        """
        body: dict[str, JsonValue] = {
            "region": region,
            "address": address,
            "certificate": certificate,
            "principal": principal,
        }
        return FeatureAgent.from_json(self._transport.post(_AGENTS, body))

    def remove(self, *, region: str, address: str) -> None:
        """Forget an agent.

        Raises:
            FeatureAgentNotFound: if there is none.
        """
        self._transport.request("DELETE", _AGENTS, query={"region": region, "address": address})

    def sign(self, *, region: str, address: str, certificate_sha256: str, leaves: bool = False) -> HeardSign:
        """Say, as an agent, that it serves, or leaves.

        Raises:
            FeatureAgentNotFound: if none is registered there with that certificate.
            PermissionDenied: if the caller is not who runs it.
        """
        body: dict[str, JsonValue] = {
            "region": region,
            "address": address,
            "certificate_sha256": certificate_sha256,
            "leaves": leaves,
        }
        answer = self._transport.post(f"{_AGENTS}/sign", body)
        keys = cast("list[str]", answer["ticket_keys"])
        return HeardSign(
            agent=FeatureAgent.from_json(cast("JsonObject", answer["agent"])),
            workspace=str(answer["workspace"]),
            ticket_keys=tuple(bytes.fromhex(key) for key in keys),
        )

    def report(self, crossing: Mapping[str, JsonValue]) -> None:
        """Tell, as an agent, what went through it for one call."""
        self._transport.post(f"{_AGENTS}/crossings", crossing)

    def view_version(self, digest: str) -> JsonObject:
        """The version of a view that a digest names: `{content, residency, column_residency}`.

        Raises:
            FeatureViewNotFound: if there is none.
        """
        return self._transport.get(f"/api/v1/features/view-versions/{digest}")
