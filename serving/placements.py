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
from fairlead.registry.tables import ArtifactRow, JsonObject
from fairlead.registry.version_records import ModelVersion
from fairlead.registry.versions import Versions
from fairlead.serving.artifacts import verified_replicas
from fairlead.serving.placement import answer_of_fleet, place, request_from_json
from fairlead.serving.placement_answer import to_plain
from fairlead.serving.placement_changes import Change, apply_change, change_from_json, compare
from fairlead.serving.placement_fleets import fleet_from_json, place_fleet
from fairlead.serving.placement_pareto import pareto_front
from fairlead.serving.placement_request import PlacementRequest
from fairlead.serving.placement_sensitivity import sensitivities
from fairlead.serving.profiles import version_rate
from fairlead.serving.tables import PlacementRow

REFERENCE = "reference"
"""The member of a request that names a model version; what is known of the version then need not be said again."""
RATE = "requests_per_second_per_replica"
"""The member of `resources` that a profile of the version's bundle fills in (`fairlead profile`)."""
WHAT_IF = "what_if"
INCLUDE = "include"
PARTS = ("explanation", "pareto", "sensitivity")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlacement:
    """A placement request, as it was solved, and its answer."""

    id: str
    request: Mapping[str, Any]
    answer: Mapping[str, Any]
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFleet:
    """A fleet's answer, and the id under which each model's placement is kept."""

    placements: Mapping[str, str]
    answer: Mapping[str, Any]


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
        residency, size, the regions that have a location, those that hold a VERIFIED replica, and what one replica
        of it was measured to answer. `what_if` is a change
        (see `placement_changes.Change`): the answer is to the changed request, beside the unchanged one's. `include`
        lists the parts of the answer: `explanation` (the runner-up and what bound; the one part by default), `pareto`,
        `sensitivity`.

        Raises:
            InvalidInput: naming the member that is wrong in the attribute `pointer`.
            ModelNotFound, ModelVersionNotFound, AliasNotFound: if the reference names nothing.
            ResidencyViolation: if a replica is where the residency class forbids it.
            PlacementInfeasible: naming what to relax.
        """
        request = dict(parse_json(document, what="placement request"))
        wanted = _wanted(request.pop(INCLUDE, ["explanation"]))
        change = change_from_json(request.pop(WHAT_IF), f"/{WHAT_IF}") if WHAT_IF in request else None
        reference = request.pop(REFERENCE, None)
        request = self._filled_in(caller, request, reference, "/reference")
        parsed = request_from_json(request)
        # Solving takes a while, so no transaction is open meanwhile.
        answer = self._answer(caller, parsed, change, wanted)
        kept: dict[str, JsonValue] = request if reference is None else {**request, REFERENCE: reference}
        if change is not None:
            kept[WHAT_IF] = to_plain(change)
        row = self._row(caller, parsed.residency, kept, answer)
        with self._database.write() as session:
            self._keep(session, caller, row, reference)
            return _to_placement(row)

    def create_fleet(self, caller: Caller, document: Mapping[str, object]) -> StoredFleet:
        """Solve a fleet (`models`, `quotas`, `defaults`) and keep each model's placement under an id of its own.

        A model's `reference` fills its request in from the record, as `create` does.

        Raises:
            InvalidInput: naming the member that is wrong in the attribute `pointer`.
            ModelNotFound, ModelVersionNotFound, AliasNotFound: if a reference names nothing.
            PlacementInfeasible: naming the model, or the quotas that no mix of placements keeps.
        """
        fleet = dict(parse_json(document, what="fleet"))
        models = fleet.get("models")
        references: dict[int, JsonValue] = {}
        if isinstance(models, list):
            filled: list[JsonValue] = []
            for index, model in enumerate(models):
                if not isinstance(model, dict) or REFERENCE not in model:
                    filled.append(model)
                    continue
                references[index] = model[REFERENCE]
                own = model.get("request", {})
                request = self._filled_in(
                    caller, dict(own) if isinstance(own, dict) else {}, model[REFERENCE], f"/models/{index}/{REFERENCE}"
                )
                others: dict[str, JsonValue] = {name: value for name, value in model.items() if name != REFERENCE}
                filled.append({**others, "request": request})
            fleet["models"] = filled
        parsed = fleet_from_json(fleet)
        answer = place_fleet(parsed, self._catalog.within(caller.workspace_id))
        rows: dict[str, PlacementRow] = {}
        for index, model in enumerate(parsed.models):
            kept = cast("dict[str, JsonValue]", to_plain(model.request))
            if index in references:
                kept[REFERENCE] = references[index]
            alone = answer_of_fleet(answer.placements[model.name], answer.relative_gap).to_json()
            rows[model.name] = self._row(caller, model.request.residency, kept, alone)
        with self._database.write() as session:
            for row in rows.values():
                self._keep(session, caller, row, row.request.get(REFERENCE))
            ids = {name: row.id for name, row in rows.items()}
        return StoredFleet(placements=ids, answer=answer.to_json())

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

    def _filled_in(
        self, caller: Caller, request: dict[str, JsonValue], reference: JsonValue, pointer: str
    ) -> dict[str, JsonValue]:
        if reference is None:
            return request
        if not isinstance(reference, str):
            raise InvalidInput(f"{pointer} is not a text.", pointer=pointer)
        version = self._versions.resolve(caller, reference).version
        with self._database.read() as session:
            filled = _known_of(session, caller, version) | request
            needs = filled.get("resources")
            if isinstance(needs, dict) and RATE not in needs:
                model = find_model(session, caller.workspace_id, version.name)
                rate = version_rate(session, caller.workspace_id, model.id, version.version)
                if rate is not None:
                    filled["resources"] = {**needs, RATE: rate}
            return filled

    def _answer(
        self, caller: Caller, request: PlacementRequest, change: Change | None, wanted: frozenset[str]
    ) -> JsonObject:
        catalog = self._catalog.within(caller.workspace_id)
        changed = request if change is None else apply_change(request, change, catalog)
        answer = place(changed, catalog, explain="explanation" in wanted)
        document = answer.to_json()
        if change is not None:
            before = place(request, catalog, explain=False).placement
            document[WHAT_IF] = to_plain(compare(change, before, answer.placement))
        if "pareto" in wanted:
            document["pareto"] = to_plain(pareto_front(changed, catalog))
        if "sensitivity" in wanted:
            document["sensitivity"] = to_plain(sensitivities(changed, catalog, answer.placement.regions))
        return document

    def _row(self, caller: Caller, residency: str, request: JsonObject, answer: JsonObject) -> PlacementRow:
        return PlacementRow(
            workspace_id=caller.workspace_id,
            residency=residency,
            request=request,
            answer=answer,
            created_by=caller.principal,
            created_at=self._clock.now(),
        )

    def _keep(self, session: Session, caller: Caller, row: PlacementRow, reference: JsonValue) -> None:
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


def _wanted(value: JsonValue) -> frozenset[str]:
    names = value if isinstance(value, list) else [value]
    for index, name in enumerate(names):
        if name not in PARTS:
            detail = f"{str(name)[:80]!r} is no part of an answer."
            raise InvalidInput(detail, hint=f"Known: {', '.join(PARTS)}.", pointer=f"/{INCLUDE}/{index}")
    return frozenset(str(name) for name in names)


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
