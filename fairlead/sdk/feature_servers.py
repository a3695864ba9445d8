"""Feature servers in the record, and the routes to those that may answer this client."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fairlead.sdk.transport import Transport

_PATH = "/api/v1/features/servers"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureServer(Record):
    """A feature server. `is_alive` is whether the record heard of it lately."""

    id: str
    region: str
    url: str
    is_alive: bool
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRoute(Record):
    """A region that may answer, its feature servers, and what it served when the record last heard of it."""

    region: str
    urls: tuple[str, ...]
    round_trip_ms: float | None
    snapshot: str
    as_of: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRoutes:
    """Where a service may be read, nearest first; `left_out` says by region why it may not answer this client."""

    routes: tuple[OnlineRoute, ...]
    left_out: dict[str, str]


class FeatureServers:
    """Feature servers of the workspace."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[FeatureServer]:
        """Every server, in the order in which they were listed."""
        return map(FeatureServer.from_json, self._transport.items(_PATH))

    def register(self, *, region: str, url: str) -> FeatureServer:
        """List a server; clients find it and send it their tokens, so it takes an admin.

        Raises:
            UnknownRegion, InvalidInput: if the address is none that tokens may be sent to.
            AlreadyExists: if the address is listed for another region.
        """
        return FeatureServer.from_json(self._transport.request("PUT", _PATH, body={"region": region, "url": url}))

    def hear(self, server: str) -> FeatureServer:
        """Say that a listed server answers.

        Raises:
            FeatureServerNotFound
        """
        return FeatureServer.from_json(self._transport.post(f"{_PATH}/{quote(server, safe='')}/heartbeat"))

    def remove(self, server: str) -> None:
        """Take a server off the list.

        Raises:
            FeatureServerNotFound
        """
        self._transport.request("DELETE", f"{_PATH}/{quote(server, safe='')}")

    def routes(self, service: str, *, near: str | None = None, snapshot: str | None = None) -> OnlineRoutes:
        """Where a service (or a snapshot of it) may be read, from the nearest region to `near` on.

        Raises:
            FeatureServiceNotFound, UnknownRegion
            ResidencyViolation: if data under a class is served, and `near` is not said.
        """
        name = quote(parse_name(service, what="feature service"), safe="")
        said: Any = self._transport.get(f"/api/v1/features/services/{name}/routes", near=near, snapshot=snapshot)
        return OnlineRoutes(
            routes=tuple(map(OnlineRoute.from_json, said["routes"])),
            left_out={each["region"]: each["reason"] for each in said["left_out"]},
        )
