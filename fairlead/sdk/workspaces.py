"""Workspaces: tenants of one server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.sdk.records import Record, Token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace(Record):
    """A workspace; `owner` is the token of its owner, whose secret is shown once, where it was just made."""

    name: str
    jurisdiction: str | None = None
    created_at: datetime
    owner: Token | None = None


class Workspaces:
    """Makes workspaces and shows them, for whoever runs the server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, *, owner: str = "owner") -> Workspace:
        """Make a workspace, and the first token of its owner.

        Raises:
            AlreadyExists: if there is one of that name.
        """
        return Workspace.from_json(self._transport.post("/api/v1/workspaces", {"name": name, "owner": owner}))

    def list(self) -> Iterator[Workspace]:
        """All workspaces of the server, by name."""
        return map(Workspace.from_json, self._transport.items("/api/v1/workspaces"))

    def get(self, name: str) -> Workspace:
        """One workspace: one's own, or any for whoever runs the server.

        Raises:
            WorkspaceNotFound: if there is none that the caller may know of.
        """
        return Workspace.from_json(self._transport.get(f"/api/v1/workspaces/{quote(name, safe='')}"))
