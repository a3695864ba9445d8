"""Feature agents: who joins in a region, at which address, and by which certificate they are known.

An agent is sent entity rows and callers' tokens, so an admin says which ones there are; the agent itself then says,
every few seconds, that it serves. It is away when it has not said so for a while.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import FeatureAgentNotFound, InvalidInput, JsonValue, PermissionDenied, TicketInvalid
from fairlead.core.ports import Clock
from fairlead.featurestore.tables_agents import FeatureAgentRow
from fairlead.featurestore.tickets import Ticket, open_ticket
from fairlead.registry import audit, ledger
from fairlead.registry.identity import Caller, parse_principal
from fairlead.registry.limits import parse_row_id
from fairlead.registry.paging import Page, PageRequest

AWAY_AFTER = timedelta(seconds=15)
"""How long after it last said so an agent is taken to serve still; it says so every five seconds."""

REPORT_GRACE = timedelta(days=1)
"""How long after a ticket's end an agent that was cut off may still report what went through it."""

AgentState = Literal["SERVING", "AWAY", "LEFT", "REGISTERED"]
_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]{1,240}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5})")
_CERTIFICATE_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureAgent:
    """An agent. `certificate` (PEM) is its own or its authority's; REGISTERED until it first says that it serves."""

    region: str
    address: str
    certificate: str
    certificate_sha256: str
    state: AgentState
    principal: str
    registered_by: str
    registered_at: datetime
    seen_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """What went through an agent for one call: rows, and bytes in (from the reader) and out (back to it).

    `call` names the call, so that telling of it twice counts once.
    """

    call: str
    rows: int
    bytes_in: int
    bytes_out: int
    error: str | None


class FeatureAgents:
    """Registers agents, hears that they serve, and what went through them.

    `public_keys` are those of the keys that sign tickets.
    """

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog, public_keys: Sequence[bytes]) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._public_keys = tuple(public_keys)

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """What an agent verifies tickets with."""
        return self._public_keys

    def register(
        self, caller: Caller, *, region: str, address: str, certificate: str, principal: str | None = None
    ) -> FeatureAgent:
        """Say that an agent of a region is at an address, and what it is known by; doing so again replaces that.

        Raises:
            InvalidInput: if the address is no HOST:PORT or the certificate no PEM.
            UnknownRegion: if the catalog has no such region.
        """
        self._catalog.within(caller.workspace_id).region(region)
        values = {
            "certificate": certificate,
            "certificate_sha256": fingerprint(certificate),
            "principal": parse_principal(principal) if principal else caller.principal,
            "registered_by": caller.principal,
            "registered_at": self._clock.now(),
        }
        with self._database.write() as session:
            row = session.get(FeatureAgentRow, (caller.workspace_id, region, parse_address(address)))
            if row is None:
                row = FeatureAgentRow(workspace_id=caller.workspace_id, region=region, address=address)
                session.add(row)
            elif row.certificate == certificate and row.principal == values["principal"]:
                return self._to_agent(row)
            for name, value in values.items():
                setattr(row, name, value)
            row.state, row.seen_at = "REGISTERED", None
            session.flush()
            self._audit(session, caller, "feature-agent.register", row)
            return self._to_agent(row)

    def hear(self, caller: Caller, *, region: str, address: str, certificate_sha256: str, leaves: bool) -> FeatureAgent:
        """Note that an agent serves, or that it stops.

        Raises:
            FeatureAgentNotFound: if none is registered there with that certificate.
            PermissionDenied: if the caller is not who runs it.
        """
        with self._database.write() as session:
            row = session.get(FeatureAgentRow, (caller.workspace_id, region, address))
            if row is None or row.certificate_sha256 != certificate_sha256:
                raise _no_agent(region, address)
            self._check_runs(caller, row)
            state = "LEFT" if leaves else "SERVING"
            if row.state != state:
                row.state = state
                self._audit(session, caller, "feature-agent.leave" if leaves else "feature-agent.serve", row)
            row.seen_at = self._clock.now()
            session.flush()
            return self._to_agent(row)

    def list(self, caller: Caller, page: PageRequest) -> Page[FeatureAgent]:
        """Agents, by region and address."""
        query = select(FeatureAgentRow).where(FeatureAgentRow.workspace_id == caller.workspace_id)
        order = [FeatureAgentRow.region, FeatureAgentRow.address]
        with self._database.read() as session:
            listing = ("feature-agents", caller.workspace_id)
            return page.fetch(session, query, order, listing=listing).map(self._to_agent)

    def remove(self, caller: Caller, *, region: str, address: str) -> None:
        """Forget an agent: no plan sends anything there any more.

        Raises:
            FeatureAgentNotFound: if there is none.
        """
        with self._database.write() as session:
            row = session.get(FeatureAgentRow, (caller.workspace_id, region, address))
            if row is None:
                raise _no_agent(region, address)
            self._audit(session, caller, "feature-agent.remove", row)
            session.delete(row)

    def serving(self, session: Session, workspace_id: str) -> dict[str, FeatureAgent]:
        """By region, the agent that was heard of last and serves."""
        query = select(FeatureAgentRow).where(
            FeatureAgentRow.workspace_id == workspace_id, FeatureAgentRow.state == "SERVING"
        )
        found: dict[str, FeatureAgent] = {}
        for row in session.scalars(query.order_by(FeatureAgentRow.seen_at)):
            agent = self._to_agent(row)
            if agent.state == "SERVING":
                found[agent.region] = agent
        return found

    def report(self, caller: Caller, ticket: str, crossing: Crossing) -> None:
        """Note what went through an agent for a ticket: in the ledger, each way, and in the audit log.

        Raises:
            TicketInvalid: if this registry did not sign the ticket for that workspace and an agent.
            PermissionDenied: if the caller runs no agent of the ticket's region.
        """
        now = self._clock.now()
        shown = open_ticket(ticket, self._public_keys, now=now, grace=REPORT_GRACE)
        region = shown.region
        if shown.workspace_id != caller.workspace_id or region is None:
            raise TicketInvalid("The ticket is not of an agent of this workspace.", hint="Report what it did itself.")
        parse_row_id(crossing.call, InvalidInput, what="call")
        with self._database.write() as session:
            query = select(FeatureAgentRow).where(
                FeatureAgentRow.workspace_id == caller.workspace_id, FeatureAgentRow.region == region
            )
            rows = session.scalars(query).all()
            if not caller.may("admin") and caller.principal not in {row.principal for row in rows}:
                raise _not_theirs(caller, region)
            facts = self._enter(session, shown, region, crossing, now)
            if facts is not None:
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="feature.federate",
                    subject=f"{shown.service}/{shown.read}",
                    residency=shown.residency,
                    facts=facts,
                )

    def _enter(
        self, session: Session, ticket: Ticket, region: str, crossing: Crossing, now: datetime
    ) -> dict[str, JsonValue] | None:
        """Both ways in the ledger; what the audit log says of it, or None if it was told before."""
        catalog, usd, is_new = self._catalog.within(ticket.workspace_id), Decimal(0), False
        reader = ticket.reader_region or region
        ways = (
            ("out", reader, region, ticket.planned_out, crossing.bytes_in),
            ("back", region, reader, ticket.planned_back, crossing.bytes_out),
        )
        for way, source, destination, planned, moved in ways:
            actual = ledger.transfer_cost(catalog, source_region=source, region=destination, size_bytes=moved)
            usd += actual.usd
            is_new = ledger.record(
                session,
                workspace_id=ticket.workspace_id,
                residency=ticket.residency,
                cause=f"federate:{crossing.call}:{way}",
                kind="federate",
                subject=f"{ticket.service}/{ticket.read}",
                source_region=source,
                region=destination,
                planned_bytes=planned,
                moved_bytes=moved,
                planned=ledger.transfer_cost(catalog, source_region=source, region=destination, size_bytes=planned),
                actual=actual,
                labels=ticket.labels,
                now=now,
            )
        if not is_new:
            return None
        return {
            "region": region,
            "reader": ticket.principal,
            "reader_region": ticket.reader_region,
            "views": [view.view for view in ticket.views],
            "rows": crossing.rows,
            "bytes_in": crossing.bytes_in,
            "bytes_out": crossing.bytes_out,
            "usd": ledger.decimal_text(usd),
            **({} if crossing.error is None else {"error": crossing.error}),
        }

    def _check_runs(self, caller: Caller, row: FeatureAgentRow) -> None:
        if caller.principal != row.principal and not caller.may("admin"):
            raise _not_theirs(caller, row.region)

    def _audit(self, session: Session, caller: Caller, action: str, row: FeatureAgentRow) -> None:
        facts: Mapping[str, JsonValue] = {
            "certificate_sha256": row.certificate_sha256,
            "principal": row.principal,
            "at": format_time(self._clock.now()),
        }
        subject = f"{row.region}/{row.address}"
        audit.record(session, caller, self._clock, action=action, subject=subject, facts=facts)

    def _to_agent(self, row: FeatureAgentRow) -> FeatureAgent:
        is_away = row.state == "SERVING" and (row.seen_at is None or row.seen_at + AWAY_AFTER < self._clock.now())
        return FeatureAgent(
            region=row.region,
            address=row.address,
            certificate=row.certificate,
            certificate_sha256=row.certificate_sha256,
            state=cast("AgentState", "AWAY" if is_away else row.state),
            principal=row.principal,
            registered_by=row.registered_by,
            registered_at=row.registered_at,
            seen_at=row.seen_at,
        )


def parse_address(text: str) -> str:
    """Check an address, as HOST:PORT.

    Raises:
        InvalidInput: if it is none.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[1]) < 65536:
        raise InvalidInput(f"{text[:80]!r} is no address of an agent.", hint="Write HOST:PORT.")
    return text


def fingerprint(certificate: str) -> str:
    """The sha256 (hexadecimal) of a certificate's DER, given as PEM.

    Raises:
        InvalidInput: if it is no certificate in PEM.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificate(certificate[:_CERTIFICATE_MAX].encode())
    except ValueError:
        raise InvalidInput(
            "That is no certificate in PEM.", hint="Give the agent's own certificate, or that of its authority."
        ) from None
    return hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()


def _no_agent(region: str, address: str) -> FeatureAgentNotFound:
    return FeatureAgentNotFound(
        f"No feature agent of {region[:80]} is registered at {address[:80]!r} with this certificate.",
        hint="An admin registers it: fairlead agent add --region REGION --address HOST:PORT --certificate FILE",
    )


def _not_theirs(caller: Caller, region: str) -> PermissionDenied:
    return PermissionDenied(
        f"{caller.principal!r} runs no feature agent of {region}.",
        hint="An admin says who does: fairlead agent add --principal NAME",
    )
