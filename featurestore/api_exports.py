"""The routes of restoring snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse

from fairlead.registry.access import MayRead

if TYPE_CHECKING:
    from fairlead.featurestore.exports import SnapshotExports

PARQUET = "application/vnd.apache.parquet"
NOT_IN_REGION_HEADER = "X-Fairlead-Not-In-Region"


def exports_router(exports: SnapshotExports) -> APIRouter:
    """Rows of snapshots."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.get(
        "/snapshots/{reference}/views/{view}/rows",
        response_class=FileResponse,
        responses={200: {"content": {PARQUET: {}}, "description": "The view's rows, as Parquet."}},
    )
    def export_rows(
        caller: MayRead,
        reference: str,
        view: str,
        region: Annotated[str | None, Query(description="Where the rows go.")] = None,
        leave_out: Annotated[  # noqa: FBT002  (a query parameter)
            bool, Query(description="Leave out features that may not be there, in place of refusing.")
        ] = False,
    ) -> FileResponse:
        """Restore one view of a snapshot: its rows as they were read from the source, in canonical order."""
        found = exports.export(caller, reference, view, region=region, leave_out=leave_out)
        headers = {"X-Fairlead-Snapshot": found.snapshot, NOT_IN_REGION_HEADER: ",".join(found.not_in_region)}
        return FileResponse(found.path, media_type=PARQUET, headers=headers)

    return router
