"""Routes of replica policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from fairlead.registry.access import MayAdmin, MayRead
from fairlead.registry.replica_policy import ReplicaPolicy, Retention
from fairlead.registry.schemas_replica_policies import DriftOut, MatchOut, ReplicaPolicyIn, ReplicaPolicyOut
from fairlead.registry.wire import IfMatch, Listing, WantedPage, etag, listing

if TYPE_CHECKING:
    from fairlead.registry.replica_policies import AppliedPolicy, ReplicaPolicies


def replica_policies_router(policies: ReplicaPolicies) -> APIRouter:
    """Replica policies, and what is not yet as they say."""
    router = APIRouter(tags=["replica policies"])

    @router.get("/replica-policies", response_model=Listing[ReplicaPolicyOut])
    def list_replica_policies(caller: MayRead, page: WantedPage) -> Any:
        """List the policies by name."""
        return listing(ReplicaPolicyOut, policies.list(caller, page).map(_to_out))

    @router.get("/replica-policies/{name}", response_model=ReplicaPolicyOut)
    def get_replica_policy(name: str, caller: MayRead, response: Response) -> Any:
        """Show a policy; its revision is the ETag."""
        found = policies.get(caller, name)
        response.headers.update(etag(found.revision))
        return _to_out(found)

    @router.put("/replica-policies/{name}", response_model=ReplicaPolicyOut)
    def put_replica_policy(
        name: str, body: ReplicaPolicyIn, caller: MayAdmin, expected: IfMatch, response: Response
    ) -> Any:
        """Apply a policy. With `If-Match`, only if it is still at that revision ("0": not there yet)."""
        applied = policies.put(caller, name, _to_policy(body), expected_revision=expected)
        response.headers.update(etag(applied.revision))
        return _to_out(applied)

    @router.delete("/replica-policies/{name}", status_code=204)
    def delete_replica_policy(name: str, caller: MayAdmin, expected: IfMatch) -> None:
        """Remove a policy; what it governed should be everywhere again, unless another governs it."""
        policies.delete(caller, name, expected_revision=expected)

    @router.get("/replicas/drift", response_model=Listing[DriftOut])
    def find_drift(caller: MayRead) -> Any:
        """Every replica that is not as the policies say at this moment, in one page."""
        items = [DriftOut.model_validate(entry) for entry in policies.find_drift(caller)]
        return {"items": items, "next_page_token": None}

    return router


def _to_policy(body: ReplicaPolicyIn) -> ReplicaPolicy:
    retention = body.retention
    return ReplicaPolicy(
        models=tuple(body.match.models),
        kinds=tuple(body.match.kinds),
        residency=tuple(body.match.residency),
        environments=tuple(body.match.environments),
        regions=tuple(body.regions),
        retention=None if retention is None else Retention(newest=retention.newest, days=retention.days),
    )


def _to_out(applied: AppliedPolicy) -> ReplicaPolicyOut:
    policy = applied.policy
    return ReplicaPolicyOut.model_validate(
        {
            "name": applied.name,
            "match": MatchOut.model_validate(policy),
            "regions": list(policy.regions),
            "retention": policy.retention,
            "revision": applied.revision,
            "updated_by": applied.updated_by,
            "updated_at": applied.updated_at,
        }
    )
