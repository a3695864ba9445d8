"""Placement questions and the answers they got, kept so that a deployment can say why it runs where it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, JsonValue, NotFound
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_json, parse_row_id
from fairlead.registry.locations import traffic_locations
from fairlead.registry.models import find_model
from fairlead.registry.tables import ArtifactRow
from fairlead.registry.versions import ModelVersion, Versions
from fairlead.serving.artifacts import verified_replicas
from fairlead.serving.placement import place, request_from_json
from fairlead.serving.tables import PlacementRow

REFERENCE = "reference"
"""The member of a request that names a model version; what is known of the version then need not be said again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlacement:
    """A placement request, as it was solved, and its answer."""

    id: str
    request: Mapping[str, Any]
    answer: Mapping[str, Any]
    created_by: str
    created_at: datetime


class Placements:
    """Solves and keeps placements."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._versions = Versions(database, clock)

    def create(self, caller: Caller, document: Mapping[str, object]) -> StoredPlacement:
        """Solve a request (see `PlacementRequest` for its members) and keep it with its answer.

        With `reference` (`churn/2`, `churn@production`), members that are left out are filled in from the record:
        residency, size, the regions that have a location, and those that hold a VERIFIED replica.

        Raises:
            InvalidInput: naming the member that is wrong in the attribute `pointer`.
            ModelNotFound, ModelVersionNotFound, AliasNotFound: if the reference names nothing.
            ResidencyViolation: if a replica is where the residency class forbids it.
            PlacementInfeasible: naming what to relax.
        """
        request = dict(parse_json(document, what="placement request"))
        reference = request.pop(REFERENCE, None)
        if reference is not None:
            if not isinstance(reference, str):
                raise InvalidInput("/reference is not a text.", pointer="/reference")
            version = self._versions.resolve(caller, reference).version
            with self._database.read() as session:
                request = _known_of(session, caller, version) | request
        parsed = request_from_json(request)
        # Solving takes a while, so no transaction is open meanwhile.
        answer = place(parsed, self._catalog.within(caller.workspace_id)).to_json()
        kept: dict[str, JsonValue] = request if reference is None else {**request, REFERENCE: reference}
        row = PlacementRow(
            workspace_id=caller.workspace_id,
            residency=parsed.residency,
            request=kept,
            answer=answer,
            created_by=caller.principal,
            created_at=self._clock.now(),
        )
        with self._database.write() as session:
            session.add(row)
            session.flush()
            regions = cast("list[JsonValue]", [choice["region"] for choice in row.answer["placement"]["choices"]])
            audit.record(
                session,
                caller,
                self._clock,
                action="placement.create",
                subject=row.id,
                residency=row.residency,
                facts={"reference": reference, "regions": regions},
            )
            return _to_placement(row)

    def get(self, caller: Caller, placement_id: str) -> StoredPlacement:
        """One placement.

        Raises:
            NotFound: if the workspace has none with this id.
        """
        row_id = parse_row_id(placement_id, NotFound, what="placement")
        with self._database.read() as session:
            row = session.get(PlacementRow, (caller.workspace_id, row_id))
        if row is None:
            raise NotFound(f"There is no placement {row_id}.", hint="Ask for one: fairlead place", placement=row_id)
        return _to_placement(row)


def _known_of(session: Session, caller: Caller, version: ModelVersion) -> dict[str, JsonValue]:
    model = find_model(session, caller.workspace_id, version.name)
    permitted = {
        location.region
        for location in traffic_locations(session, caller.workspace_id)
        if location.permits(model.residency, model.regions)
    }
    known: dict[str, JsonValue] = {
        "residency": model.residency,
        "candidate_regions": cast("list[JsonValue]", sorted(permitted)),
    }
    if version.artifact_digest is not None:
        found = verified_replicas(session, caller.workspace_id, model.residency, version.artifact_digest)
        artifact = session.get(ArtifactRow, (caller.workspace_id, model.residency, version.artifact_digest))
        known["existing_replicas"] = cast("list[JsonValue]", sorted({location.region for location, _ in found}))
        known["artifact_bytes"] = 0 if artifact is None else artifact.size_bytes
    return known


def _to_placement(row: PlacementRow) -> StoredPlacement:
    return StoredPlacement(
        id=row.id, request=row.request, answer=row.answer, created_by=row.created_by, created_at=row.created_at
    )
