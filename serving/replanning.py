"""Places a deployment anew: the same request, with what is known now in place of what was known then.

Where its regions are no longer all permitted, or a location is given up, prices have moved or the demand's limits are
kept more cheaply elsewhere, the answer is another one. It is only proposed: applying it is its owner's to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput
from fairlead.registry.identity import Caller
from fairlead.registry.tables import RegisteredModelRow
from fairlead.serving.deployment_plan import DeploymentPlan
from fairlead.serving.deployment_spec import DeploymentSpec, ScalingDraft
from fairlead.serving.deployments import DeploymentDraft, Deployments, find_deployment
from fairlead.serving.desired import STOPPING, regions_of
from fairlead.serving.placements import REFERENCE, Placements
from fairlead.serving.tables import DeploymentRegionRow, PlacementRow

_FOUND_OUT = ("residency", "candidate_regions", "existing_replicas", "artifact_bytes")
"""What a request with a reference has from the record; it is looked up again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A new placement of a deployment, and what applying it would change."""

    placement_id: str
    plan: DeploymentPlan


class Replanning:
    """Proposes placements for deployments that have one."""

    def __init__(self, database: Database, placements: Placements, deployments: Deployments) -> None:
        self._database = database
        self._placements = placements
        self._deployments = deployments

    def propose(self, caller: Caller, name: str) -> Proposal:
        """Solve a deployment's placement anew, and plan the answer. The deployment is left as it is.

        Raises:
            DeploymentNotFound: if the workspace has none of this name.
            InvalidInput: if it was not placed by the engine, or its placement is gone.
            PlacementInfeasible: naming what to relax.
        """
        with self._database.read() as session:
            row = find_deployment(session, caller.workspace_id, name)
            model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id)).name
            placement = session.get(PlacementRow, (row.workspace_id, row.placement_id)) if row.placement_id else None
            if placement is None:
                raise InvalidInput(
                    f"The deployment {name!r} has no placement that could be solved anew.",
                    hint="Ask for one: fairlead place, and apply it with --placement",
                )
            request: dict[str, Any] = dict(placement.request)
            spec = DeploymentSpec.from_json(row.spec)
            environment, version = row.environment, row.version
            running = [_running(each) for each in regions_of(session, row) if each.state != STOPPING]
        if REFERENCE in request:
            for member in _FOUND_OUT:
                request.pop(member, None)
        request[REFERENCE] = f"{model}@{environment}" if version is None else f"{model}/{version}"
        if current := [instance for each in running for instance in each]:
            # What the request says of that is of when it was made, perhaps by the last of these proposals.
            request["switching"] = {**request.get("switching", {}), "current": current}
        found = self._placements.create(caller, request)
        default = {each.target for each in spec.regions}
        draft = DeploymentDraft(
            model=model,
            name=name,
            environment=environment,
            version=version,
            placement_id=found.id,
            # Regions on different targets leave open which one a new region is for.
            targets={"*": default.pop()} if len(default) == 1 else {},
            scaling=ScalingDraft(),
            strategy=spec.strategy,
        )
        return Proposal(placement_id=found.id, plan=self._deployments.plan(caller, draft, placement=found))


def _running(row: DeploymentRegionRow) -> list[dict[str, Any]]:
    return [
        {"region": row.region, "sku": each["sku"], "count": each["count"], "is_spot": each["is_spot"]}
        for each in row.instances or ()
    ]
