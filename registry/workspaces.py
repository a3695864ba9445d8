"""Workspaces: tenants of one server, made and listed by whoever holds the scope `server`.

Whoever makes a workspace gets the first token of its owner, and no other way into it: what happens in it is for the
tokens of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import AlreadyExists, Conflict, WorkspaceNotFound
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller, IssuedToken, Reach, add_workspace, issue, parse_workspace
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import WorkspaceRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace; `jurisdiction` is that of the database (None: not stated)."""

    name: str
    jurisdiction: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorkspace:
    """A workspace that was just made, and the token of its owner."""

    workspace: Workspace
    owner: IssuedToken


class Workspaces:
    """Makes workspaces, and says which there are."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, caller: Caller, name: str, *, owner: str, key: IdempotencyKey | None = None) -> NewWorkspace:
        """Make a workspace, with its environments and a token of its owner. It lies where the caller's own does.

        Raises:
            InvalidName: if no workspace or principal could have that name.
            AlreadyExists: if there is one of that name.
            Conflict: if the call is a repetition; the owner's secret cannot be shown again.
        """
        parse_workspace(name)
        inside = replace(caller, workspace_id=name)
        made: list[NewWorkspace] = []

        def create(session: Session) -> Workspace:
            # Two that make one at once wait for each other here.
            present = session.get_one(WorkspaceRow, caller.workspace_id, with_for_update=True)
            if session.get(WorkspaceRow, name) is not None:
                raise AlreadyExists(f"There is a workspace {name!r} already.", hint="See: fairlead workspace list")
            add_workspace(session, inside, self._clock, present.jurisdiction)
            issued = issue(session, inside, self._clock, name="owner", principal=owner, reach=Reach(scopes=("admin",)))
            audit.record(
                session, caller, self._clock, action="server.create-workspace", subject=name, facts={"owner": owner}
            )
            found = _to_workspace(session.get_one(WorkspaceRow, name))
            made.append(NewWorkspace(workspace=found, owner=issued))
            return found

        with self._database.write() as session:
            run_once(session, caller, self._clock, key, result_type=Workspace, action=lambda: create(session))
        if not made:
            raise Conflict(
                f"This call made the workspace {name!r} before; its owner's secret was shown then.",
                hint="If it was lost, make another workspace: nobody outside of one gets into it.",
            )
        return made[0]

    def list(self, caller: Caller, page: PageRequest) -> Page[Workspace]:
        """All workspaces of the server by name."""
        with self._database.read() as session:
            listing = ("workspaces", caller.workspace_id)
            return page.fetch(session, select(WorkspaceRow), [WorkspaceRow.workspace_id], listing=listing).map(
                _to_workspace
            )

    def get(self, caller: Caller, name: str) -> Workspace:
        """One workspace: the caller's own, or any for whoever runs the server.

        Raises:
            WorkspaceNotFound: if there is none of that name that the caller may know of.
        """
        row = None
        if parse_workspace(name) == caller.workspace_id or caller.may("server"):
            with self._database.read() as session:
                row = session.get(WorkspaceRow, name)
        if row is None:
            raise WorkspaceNotFound(f"There is no workspace {name!r}.", hint="See: fairlead whoami")
        return _to_workspace(row)


def _to_workspace(row: WorkspaceRow) -> Workspace:
    return Workspace(name=row.workspace_id, jurisdiction=row.jurisdiction, created_at=row.created_at)
