"""Tracking servers: MLflow servers that versions may be brought from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fairlead.sdk.transport import Transport

_PATH = "/api/v1/tracking-servers"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingServer(Record):
    """A tracking server; `credentials_env` names the variable of the workers that holds its credentials."""

    name: str
    url: str
    credentials_env: str | None = None
    created_by: str
    created_at: datetime


class TrackingServers:
    """MLflow servers that versions may be brought from."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[TrackingServer]:
        """All tracking servers by name."""
        return map(TrackingServer.from_json, self._transport.items(_PATH))

    def add(self, name: str, url: str, *, credentials_env: str | None = None) -> TrackingServer:
        """Name a tracking server.

        Raises:
            AlreadyExists: if the name is taken.
            InvalidInput: if the address or the variable is not valid, or the server may not fetch from that host.
        """
        body = {"name": name, "url": url, "credentials_env": credentials_env}
        return TrackingServer.from_json(self._transport.post(_PATH, {**body}))

    def remove(self, name: str) -> None:
        """Forget a tracking server; what was brought from it stays.

        Raises:
            NotFound: if there is none of that name.
        """
        self._transport.request("DELETE", f"{_PATH}/{quote(parse_name(name, what='tracking server'), safe='')}")
