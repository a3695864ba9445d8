"""Tracking servers that a workspace's versions may be brought from: named by an admin, and asked for nothing else.

A server is an origin and, maybe, a path below it. Credentials are never kept: the row names the variable of the
worker's environment that holds them, which has to begin with `FAIRLEAD_TRACKING_`, so that no other secret of a worker
can be sent anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import AlreadyExists, InvalidInput, NotFound
from fairlead.core.ids import parse_name
from fairlead.core.outbound import OutboundRules
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables_governance import TrackingServerRow

CREDENTIALS_PREFIX = "FAIRLEAD_TRACKING_"
_VARIABLE = re.compile(r"FAIRLEAD_TRACKING_[A-Z0-9_]{1,100}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]+\]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingServer:
    """A tracking server. `credentials_env` names the variable that holds `user:password` or a token; it may be none."""

    name: str
    url: str
    credentials_env: str | None
    created_by: str
    created_at: datetime


class TrackingServers:
    """Adds, shows and removes tracking servers."""

    def __init__(self, database: Database, clock: Clock, *, rules: OutboundRules) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules

    def add(
        self,
        caller: Caller,
        *,
        name: str,
        url: str,
        credentials_env: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> TrackingServer:
        """Name a tracking server.

        Raises:
            AlreadyExists: if the name is taken.
            InvalidInput: if the name, address or variable is not valid, or the operator does not allow the host.
            PermissionDenied: if it names credentials, and the operator does not list the host by name.
        """
        if credentials_env is not None and not _VARIABLE.fullmatch(credentials_env):
            raise InvalidInput(
                f"{credentials_env[:80]!r} may not hold credentials of a tracking server.",
                hint=f"Give the worker a variable whose name begins with {CREDENTIALS_PREFIX}.",
            )
        if credentials_env is not None:
            self._rules.require_listed(url)
        row = TrackingServerRow(
            workspace_id=caller.workspace_id,
            name=parse_name(name, what="tracking server"),
            url=self._parse_url(url),
            settings={} if credentials_env is None else {"credentials_env": credentials_env},
            created_by=caller.principal,
            created_at=self._clock.now(),
        )

        def add(session: Session) -> TrackingServer:
            if session.get(TrackingServerRow, (row.workspace_id, row.name)) is not None:
                raise AlreadyExists(
                    f"There is a tracking server {row.name!r} already.",
                    hint=f"Remove it first: fairlead tracking-server remove {row.name}",
                )
            session.add(row)
            session.flush()
            audit.record(
                session,
                caller,
                self._clock,
                action="tracking-server.add",
                subject=row.name,
                residency="unrestricted",
                facts={"url": row.url},
            )
            return to_tracking_server(row)

        with self._database.write() as session:
            return run_once(session, caller, self._clock, key, result_type=TrackingServer, action=lambda: add(session))

    def list(self, caller: Caller, page: PageRequest) -> Page[TrackingServer]:
        """Tracking servers by name."""
        query = select(TrackingServerRow).where(TrackingServerRow.workspace_id == caller.workspace_id)
        listing = ("tracking-servers", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [TrackingServerRow.name], listing=listing).map(to_tracking_server)

    def remove(self, caller: Caller, name: str) -> None:
        """Forget a tracking server. What was brought from it stays.

        Raises:
            NotFound: if there is none of that name.
        """
        with self._database.write() as session:
            row = session.get(TrackingServerRow, (caller.workspace_id, parse_name(name, what="tracking server")))
            if row is None:
                raise NotFound(
                    f"There is no tracking server {name[:80]!r}.", hint="List them: fairlead tracking-server list"
                )
            session.delete(row)
            audit.record(
                session,
                caller,
                self._clock,
                action="tracking-server.remove",
                subject=row.name,
                residency="unrestricted",
                facts={"url": row.url},
            )

    def can_reach(self, workspace_id: str, authority: str | None) -> bool:
        """Whether there is a tracking server, or the one with a given host and port."""
        with self._database.read() as session:
            return bool(servers_for(session, workspace_id, authority))

    def _parse_url(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port, parts = "", None, urlsplit("")
        is_plain = (
            parts.scheme in _DEFAULT_PORTS
            and _HOST.fullmatch(f"[{host}]" if ":" in host else host) is not None
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
            and re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", parts.path) is not None
            and not {".", ".."} & set(parts.path.split("/"))
            and len(url) <= 500
        )
        if not is_plain:
            raise InvalidInput(
                f"{url[:120]!r} is no address of a tracking server.",
                hint="Write http(s)://HOST[:PORT][/PATH], without credentials or a query.",
            )
        self._rules.check(url)
        with_port = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
        shown = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{shown}{with_port}{parts.path.rstrip('/')}"


def tracking_rules(hosts: Sequence[str] | None) -> OutboundRules:
    """What may be fetched from: the listed hosts, or where none are listed any host that an admin names."""
    listed = None if hosts is None else tuple(hosts)
    return OutboundRules(setting="FAIRLEAD_TRACKING_HOSTS", hosts=listed, may_be_private=True, may_be_plain=True)


def servers_for(session: Session, workspace_id: str, authority: str | None) -> list[TrackingServer]:
    """The tracking servers that may have something, by name: all, or those with a given host and port."""
    query = select(TrackingServerRow).where(TrackingServerRow.workspace_id == workspace_id)
    found = [to_tracking_server(row) for row in session.scalars(query.order_by(TrackingServerRow.name))]
    if authority is None:
        return found
    return [server for server in found if urlsplit(server.url).netloc == authority.lower()]


def to_tracking_server(row: TrackingServerRow) -> TrackingServer:
    """A tracking server, as its row says."""
    return TrackingServer(
        name=row.name,
        url=row.url,
        credentials_env=row.settings.get("credentials_env"),
        created_by=row.created_by,
        created_at=row.created_at,
    )
