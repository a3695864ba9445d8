"""The join that a ticket stands for: what an agent does for a call, and the service for a reader's own region.

Nothing is taken from the caller but entity rows and the ticket, which the registry signed: definitions are looked up
by the digests in it. What comes back is the row number and the columns that were asked for, in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fairlead.catalog import Residency, check
from fairlead.core.errors import InvalidInput, ResidencyViolation
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.duck import ArrowSchema, ArrowTable, load_arrow
from fairlead.featurestore.joins import EVENT_TIMESTAMP, ViewRows, join_point_in_time
from fairlead.featurestore.rows import ROWS_FILE, write_rows
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.tickets import Ticket, TicketPart, TicketView

ROW_NUMBER = "__row_number"
"""The column by which answers are put together: which of the entity rows a row is of."""


class JoinWorld(Protocol):
    """Where a joiner finds what a ticket names. Both may be asked again at any time."""

    def definition(self, ticket: Ticket, view: TicketView) -> ViewDefinition:
        """The view of that digest.

        Raises:
            FeatureViewNotFound: if there is none.
            Unavailable: if the registry is away, and it was not looked up before.
        """
        ...

    def rows(self, ticket: Ticket, part: TicketPart) -> Path:
        """The Parquet file of a part's rows, in canonical order, each byte verified.

        Raises:
            ReplicaUnavailable: if no verified replica that may be read here can be.
        """
        ...


class TicketJoins:
    """Joins what tickets say.

    Args:
        world: where views and rows are found.
        sources: reads views' sources, for live reads; None where that is not done.
        region: where this runs; None where nobody says.
    """

    def __init__(self, world: JoinWorld, *, sources: Sources | None, region: str | None) -> None:
        self._world = world
        self._sources = sources
        self._region = region

    def join(self, ticket: Ticket, entity_rows: ArrowTable, *, scratch: Path) -> ArrowTable:
        """The row numbers with the columns of `Ticket.as_service`, in the order of the rows.

        Raises:
            InvalidInput: if the entity rows have more rows or other columns than the ticket says, or do not fit.
            ResidencyViolation: if a class forbids this region, or the reader's.
            FeatureSourceInvalid, ReplicaUnavailable, Unavailable: from what is read.
        """
        self.check_residency(ticket)
        definitions = self.check_columns(ticket, entity_rows.schema)
        if entity_rows.num_rows > ticket.rows:
            raise InvalidInput(f"There are more entity rows than the {ticket.rows} that were planned.")
        views: dict[str, list[ViewRows]] = {}
        taken: set[tuple[str, str]] = set()
        for view, definition in zip(ticket.views, definitions, strict=True):
            for part in view.parts:
                # Two projections of one view share the parts that both have.
                if (view.view, part.residency) not in taken:
                    taken.add((view.view, part.residency))
                    views.setdefault(view.view, []).append(self._rows(ticket, part, definition, scratch))
        service = ticket.as_service()
        joined = join_point_in_time(entity_rows.drop_columns([ROW_NUMBER]), service, views, scratch=scratch)
        columns = [view.column(feature) for view in ticket.views for feature in view.features]
        arrow = load_arrow()
        return arrow.table(
            [entity_rows.column(ROW_NUMBER), *(joined.column(name) for name in columns)], names=[ROW_NUMBER, *columns]
        )

    def check_columns(self, ticket: Ticket, schema: ArrowSchema) -> list[ViewDefinition]:
        """Judge what entity rows are going to be, before any of them is read; the definitions of the ticket's views.

        Raises:
            InvalidInput: if they have any column but keys, times and row numbers, or one that unfolds when it is read.
            FeatureViewNotFound, Unavailable: if a definition cannot be looked up.
        """
        definitions = [self._world.definition(ticket, view) for view in ticket.views]
        check_entity_rows(ticket, schema, definitions)
        return definitions

    def check_residency(self, ticket: Ticket) -> None:
        """Judge anew what the plan judged: the entity rows here, and every feature here and where it goes.

        Raises:
            ResidencyViolation: naming the rule, the class and the region.
        """
        try:
            if self._region is not None:
                check(Residency(ticket.residency), self._region)
        except ResidencyViolation as error:
            error.attributes["rule"] = "entity-rows"
            raise
        for view in ticket.views:
            for part in view.parts:
                for region in (self._region, ticket.reader_region):
                    try:
                        if region is not None:
                            check(Residency(part.residency), region)
                    except ResidencyViolation as error:
                        error.attributes |= {"rule": "results", "view": view.view}
                        raise

    def _rows(self, ticket: Ticket, part: TicketPart, definition: ViewDefinition, scratch: Path) -> ViewRows:
        view = replace(
            definition,
            features=tuple(column for column in definition.features if column.name in part.features),
            residency=Residency(part.residency),
            column_residency={},
        )
        if part.digest is not None:
            return ViewRows(view=view, path=self._world.rows(ticket, part))
        if self._sources is None or ticket.live_until is None:
            raise InvalidInput(
                f"The source of view {view.name!r} is not read here.",
                hint="Read a snapshot, or run a feature agent where the source can be reached.",
            )
        folder = scratch / f"live-{view.name}-{part.residency}"
        folder.mkdir()
        path = folder / ROWS_FILE
        write_rows(view, as_of=ticket.live_until, sources=self._sources, destination=path, scratch=folder)
        return ViewRows(view=view, path=path)


def check_entity_rows(ticket: Ticket, schema: ArrowSchema, definitions: Collection[ViewDefinition]) -> None:
    """Refuse entity rows with any column that no view of the ticket needs: nothing else is to come here.

    What is there holds each value by itself: one that is stored once for many rows is larger than it looks.

    Raises:
        InvalidInput: naming how many there are, and no column's name.
    """
    keys = {
        view.join_key_map.get(key.name, key.name)
        for view, definition in zip(ticket.views, definitions, strict=True)
        for key in definition.asked_keys
    }
    names: list[str] = schema.names
    if strangers := set(names) - keys - {EVENT_TIMESTAMP, ROW_NUMBER}:
        raise InvalidInput(
            f"{len(strangers)} columns of the entity rows are no keys of these views.",
            hint="Send keys, event_timestamp and the row number alone; the SDK does.",
        )
    types = load_arrow().types
    if ROW_NUMBER not in names or not types.is_integer(schema.field(ROW_NUMBER).type):
        raise InvalidInput(f"The entity rows have no numbers {ROW_NUMBER!r}.", hint="Number them from 0.")
    is_plain = (types.is_primitive, types.is_string, types.is_large_string, types.is_decimal, types.is_null)
    if folded := [each.type for each in schema if not any(is_kind(each.type) for is_kind in is_plain)]:
        raise InvalidInput(
            f"A column of the entity rows is {folded[0]}, which is not taken here.",
            hint="Send keys as whole numbers or texts, one for each row; the SDK does.",
        )
