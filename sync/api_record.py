"""The route of the record's copies: where they are, and whose signatures to believe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import select

from fairlead.registry.access import MayRead
from fairlead.registry.locations import to_location
from fairlead.registry.tables import LocationRow
from fairlead.sync.store.refs import public_keys_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.registry.locations import Location


class CopyAnswer(BaseModel):
    """A location that holds a copy of the record, up to an event of the audit log (`sequence`; -1: none yet)."""

    location: str
    region: str
    url: str
    options: dict[str, Any]
    sequence: int


class RecordAnswer(BaseModel):
    """Where the copies of a workspace's record are, nearest first, and the keys (hexadecimal) that sign them."""

    workspace: str
    public_keys: dict[str, str]
    copies: list[CopyAnswer]


def record_router(database: Database, catalog: Catalog, signing_keys: Sequence[bytes]) -> APIRouter:
    """Copies of the record. `signing_keys` are the one that signs them and those that are believed beside it."""
    router = APIRouter(prefix="/record", tags=["record"])
    public_keys = {key_id: key.hex() for key_id, key in public_keys_of(signing_keys).items()}

    @router.get("")
    def show_copies(
        caller: MayRead,
        region: Annotated[str | None, Query(description="Where the caller is: the nearest copy comes first.")] = None,
    ) -> RecordAnswer:
        """Say where the copies of the record are; clients keep this for when the server is away."""
        query = select(LocationRow).where(
            LocationRow.workspace_id == caller.workspace_id,
            LocationRow.kind == "storage",
            LocationRow.state != "RETIRED",
        )
        with database.read() as session:
            found = [(to_location(row), row.published_record_sequence) for row in session.scalars(query)]
        return RecordAnswer(
            workspace=caller.workspace_id,
            public_keys=public_keys,
            copies=[_to_answer(*each) for each in _by_nearness(catalog, region, found)],
        )

    return router


def _by_nearness(
    catalog: Catalog, region: str | None, found: Sequence[tuple[Location, int]]
) -> list[tuple[Location, int]]:
    near = None if region is None else catalog.region(region).id

    def distance(each: tuple[Location, int]) -> tuple[float, str]:
        location = each[0]
        if near is None or near == location.region:
            return 0.0, location.name
        return catalog.round_trip(near, location.region).value, location.name

    return sorted(found, key=distance)


def _to_answer(location: Location, sequence: int) -> CopyAnswer:
    return CopyAnswer(
        location=location.name,
        region=location.region,
        url=location.url,
        options=dict(location.client_options),
        sequence=sequence,
    )
