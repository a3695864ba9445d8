"""Feature servers in the record: which there are, where, and when each last said that it answers.

Clients send their tokens to the servers that are listed, so an admin lists them; a server itself only says that it is
still there. One that has said nothing for `SILENT_SECONDS` is asked last.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.errors import AlreadyExists, FeatureServerNotFound, InvalidInput
from fairlead.core.ids import new_row_id
from fairlead.core.loopback import is_loopback
from fairlead.core.ports import Clock
from fairlead.featurestore.tables_servers import FeatureServerRow
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.paging import Page, PageRequest

SILENT_SECONDS = 30.0
"""After how long without a word a server counts as away."""

_URL_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureServer:
    """One feature server. `is_alive` is whether it was heard of lately."""

    id: str
    region: str
    url: str
    is_alive: bool
    registered_by: str
    registered_at: datetime
    seen_at: datetime


class FeatureServers:
    """Lists feature servers and hears from them."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog

    def register(self, caller: Caller, *, region: str, url: str) -> FeatureServer:
        """List a server, or answer the one that is listed under that address.

        Raises:
            UnknownRegion: if the region is not in the catalog.
            InvalidInput: if the address is none that tokens may be sent to.
            AlreadyExists: if the address is listed for another region.
        """
        place, address = self._catalog.region(region).id, _check_url(url)
        now = self._clock.now()
        with self._database.write() as session:
            query = select(FeatureServerRow).where(
                FeatureServerRow.workspace_id == caller.workspace_id, FeatureServerRow.url == address
            )
            row = session.scalars(query).one_or_none()
            if row is not None and row.region != place:
                raise AlreadyExists(
                    f"{address} is listed as a feature server in {row.region}.",
                    hint=f"Take it off the list first: fairlead features servers remove {row.id}",
                )
            if row is None:
                row = FeatureServerRow(
                    workspace_id=caller.workspace_id,
                    id=new_row_id(),
                    region=place,
                    url=address,
                    registered_by=caller.principal,
                    registered_at=now,
                    seen_at=now,
                )
                session.add(row)
                facts = {"region": place, "url": address}
                audit.record(session, caller, self._clock, action="feature-server.add", subject=row.id, facts={**facts})
            row.seen_at = now
            session.flush()
            return _to_server(row, now)

    def hear(self, caller: Caller, server: str) -> FeatureServer:
        """Note that a server answers; that it does so again is audited.

        Raises:
            FeatureServerNotFound: if none is listed under the id.
        """
        now = self._clock.now()
        with self._database.write() as session:
            row = _find(session, caller, server)
            if not _is_alive(row, now):
                audit.record(
                    session, caller, self._clock, action="feature-server.back", subject=row.id, facts={"url": row.url}
                )
            row.seen_at = now
            return _to_server(row, now)

    def remove(self, caller: Caller, server: str) -> None:
        """Take a server off the list; clients find it no longer.

        Raises:
            FeatureServerNotFound: if none is listed under the id.
        """
        with self._database.write() as session:
            row = _find(session, caller, server)
            audit.record(
                session, caller, self._clock, action="feature-server.remove", subject=row.id, facts={"url": row.url}
            )
            session.delete(row)

    def list(self, caller: Caller, page: PageRequest) -> Page[FeatureServer]:
        """Servers, in the order in which they were listed."""
        now = self._clock.now()
        with self._database.read() as session:
            query = select(FeatureServerRow).where(FeatureServerRow.workspace_id == caller.workspace_id)
            listing = ["feature-servers", caller.workspace_id]
            return page.fetch(session, query, [FeatureServerRow.id], listing=listing).map(
                lambda row: _to_server(row, now)
            )


def servers_by_region(session: Session, workspace_id: str, now: datetime) -> dict[str, list[FeatureServer]]:
    """The servers of each region, those first that were heard of lately."""
    query = select(FeatureServerRow).where(FeatureServerRow.workspace_id == workspace_id)
    found: dict[str, list[FeatureServer]] = {}
    for row in session.scalars(query.order_by(FeatureServerRow.id)):
        found.setdefault(row.region, []).append(_to_server(row, now))
    return {region: sorted(each, key=lambda server: not server.is_alive) for region, each in found.items()}


def _find(session: Session, caller: Caller, server: str) -> FeatureServerRow:
    row = session.get(FeatureServerRow, (caller.workspace_id, server), with_for_update=True)
    if row is None:
        raise FeatureServerNotFound(
            f"No feature server {server[:80]!r} is listed.", hint="List them: fairlead features servers list"
        )
    return row


def _is_alive(row: FeatureServerRow, now: datetime) -> bool:
    return now - row.seen_at <= timedelta(seconds=SILENT_SECONDS)


def _to_server(row: FeatureServerRow, now: datetime) -> FeatureServer:
    return FeatureServer(
        id=row.id,
        region=row.region,
        url=row.url,
        is_alive=_is_alive(row, now),
        registered_by=row.registered_by,
        registered_at=row.registered_at,
        seen_at=row.seen_at,
    )


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        is_address, parts = False, urlsplit("")
    if not is_address or not url.isprintable() or len(url) > _URL_MAX or parts.scheme not in {"http", "https"}:
        raise InvalidInput(f"{url[:120]!r} is not the address of a server.", hint="Write https://HOST:PORT.")
    if parts.scheme == "http" and not is_loopback(url):
        raise InvalidInput(
            f"{url[:120]!r} is not encrypted, and clients send it their tokens.",
            hint="Serve with --tls-certificate and --tls-key, and list https://HOST:PORT.",
        )
    return url.rstrip("/")
