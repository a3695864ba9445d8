"""Routes of expectations, checks and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Response

from fairlead.featurestore.expectations import from_json
from fairlead.featurestore.schemas_expectations import ChecksOut, ExpectationsIn, ExpectationsOut, ReportOut
from fairlead.registry.access import MayRead, MayWrite
from fairlead.registry.wire import IfMatch, Listing, WantedPage, etag, listing

if TYPE_CHECKING:
    from fairlead.featurestore.expectation_sets import ExpectationSets
    from fairlead.featurestore.snapshot_report import SnapshotReports


def expectations_router(sets: ExpectationSets, reports: SnapshotReports) -> APIRouter:
    """What is expected of snapshots, and what they are like."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.get("/expectations", response_model=Listing[ExpectationsOut])
    def list_expectations(caller: MayRead, page: WantedPage) -> Any:
        """List the sets of expectations by name."""
        return listing(ExpectationsOut, sets.list(caller, page).map(ExpectationsOut.of))

    @router.get("/expectations/{name}")
    def get_expectations(name: str, caller: MayRead, response: Response) -> ExpectationsOut:
        """Show a set of expectations; its revision is the ETag."""
        found = sets.get(caller, name)
        response.headers.update(etag(found.revision))
        return ExpectationsOut.of(found)

    @router.put("/expectations/{name}")
    def put_expectations(
        name: str, body: ExpectationsIn, caller: MayWrite, expected: IfMatch, response: Response
    ) -> ExpectationsOut:
        """Apply a set. With `If-Match`, only if it is still at that revision ("0": not there yet)."""
        wanted = from_json(body.model_dump())
        applied = sets.put(caller, name, wanted, expected_revision=expected)
        response.headers.update(etag(applied.revision))
        return ExpectationsOut.of(applied)

    @router.delete("/expectations/{name}", status_code=204)
    def delete_expectations(name: str, caller: MayWrite, expected: IfMatch) -> None:
        """Remove a set; what it asked for is asked for no longer."""
        sets.delete(caller, name, expected_revision=expected)

    @router.get("/snapshots/{reference}/checks")
    def get_snapshot_checks(caller: MayRead, reference: str) -> ChecksOut:
        """What was expected of a snapshot, and found."""
        return ChecksOut.model_validate({"items": reports.checks(caller, reference)}, from_attributes=True)

    @router.get("/snapshots/{reference}/report")
    def get_snapshot_report(
        caller: MayRead,
        reference: str,
        region: Annotated[str | None, Query(max_length=63, description="Where the report goes.")] = None,
    ) -> ReportOut:
        """How each feature of a snapshot is spread, beside the snapshot before."""
        return ReportOut.model_validate(reports.report(caller, reference, region=region), from_attributes=True)

    return router
