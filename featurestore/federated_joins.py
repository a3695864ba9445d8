"""Joins that this service makes itself for a federated read: those of a reader's own region that has no agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from fairlead.core.db import Database
from fairlead.core.errors import FeatureViewNotFound, TicketInvalid
from fairlead.core.ports import Clock
from fairlead.featurestore.definitions import VIEW, ViewDefinition, view_from_content
from fairlead.featurestore.duck import ArrowTable, bounded
from fairlead.featurestore.replica_rows import ArtifactName, ReplicaRows
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow
from fairlead.featurestore.ticket_joins import TicketJoins
from fairlead.featurestore.tickets import Ticket, TicketPart, TicketView, open_ticket
from fairlead.registry.identity import Caller
from fairlead.sync.scratch import Scratch

_SECONDS = 600.0
_ANSWER_BYTES = 2**30


class ViewVersions:
    """Looks up versions of views by their digests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, caller: Caller, digest: str) -> ViewDefinition:
        """The view that a digest names.

        Raises:
            FeatureViewNotFound: if the workspace has none.
        """
        return self.find(caller.workspace_id, digest)

    def find(self, workspace_id: str, digest: str) -> ViewDefinition:
        """As `get`, for work that Fairlead does itself."""
        query = select(FeatureVersionRow).where(
            FeatureVersionRow.workspace_id == workspace_id,
            FeatureVersionRow.kind == VIEW,
            FeatureVersionRow.digest == digest,
        )
        with self._database.read() as session:
            version = session.scalars(query).first()
            if version is None:
                raise FeatureViewNotFound(
                    f"There is no version {digest[:80]} of a feature view.", hint="See: fairlead features list"
                )
            row = session.get_one(FeatureDefinitionRow, (workspace_id, VIEW, version.name))
            return view_from_content(version.content, row.residency, row.home, row.column_residency)


class FederatedJoins:
    """Joins tickets that are for this service."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        replicas: ReplicaRows,
        sources: Sources,
        scratch: Scratch,
        public_keys: Sequence[bytes],
        region: str | None = None,
    ) -> None:
        self._clock = clock
        self._scratch = scratch
        self._public_keys = tuple(public_keys)
        self._joins = TicketJoins(_RecordWorld(ViewVersions(database), replicas), sources=sources, region=region)

    def join(self, caller: Caller, ticket: str, entity_rows: ArrowTable, *, token_sha256: str) -> ArrowTable:
        """The features that a ticket of this caller's says, by row number.

        Raises:
            TicketInvalid: if the ticket is no longer good, or another's, or an agent's.
            FairleadError: as `TicketJoins.join` says.
        """
        shown = open_ticket(ticket, self._public_keys, now=self._clock.now())
        is_theirs = shown.workspace_id == caller.workspace_id and shown.token_sha256 == token_sha256
        if not is_theirs or shown.region is not None:
            raise TicketInvalid("The ticket is not this caller's, or is an agent's.", hint="Plan the read again.")
        with self._scratch.folder("federate-") as folder, bounded(seconds=_SECONDS, answer_bytes=_ANSWER_BYTES):
            return self._joins.join(shown, entity_rows, scratch=folder)


class _RecordWorld:
    """What the service reads itself: definitions from the record, rows from the replica nearest to the reader."""

    def __init__(self, versions: ViewVersions, replicas: ReplicaRows) -> None:
        self._versions = versions
        self._replicas = replicas

    def definition(self, ticket: Ticket, view: TicketView) -> ViewDefinition:
        return self._versions.find(ticket.workspace_id, view.view_digest)

    def rows(self, ticket: Ticket, part: TicketPart) -> Path:
        name = ArtifactName(workspace_id=ticket.workspace_id, residency=part.residency, digest=part.digest or "")
        return self._replicas.fetch(name, near=ticket.reader_region)
