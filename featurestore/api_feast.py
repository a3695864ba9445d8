"""The routes of Feast repositories over regions: a compiled registry, the rows it names, what was materialized."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, status
from fastapi.responses import FileResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from fairlead.core.errors import NotFound
from fairlead.featurestore.feast_repo import CompiledRegistry, FeastRepositories, MaterializedInterval
from fairlead.registry.access import MayRead, MayWrite

if TYPE_CHECKING:
    from fairlead.registry.identity import Caller

PARQUET = "application/vnd.apache.parquet"

Region = Annotated[
    str, Query(max_length=63, description="The region, and where the rows go.", examples=["aws:us-east-1"])
]
Store = Annotated[str | None, Query(max_length=36, description="Whose intervals the registry has; none: nobody's.")]


class FeastRegistryAnswer(BaseModel):
    """A Feast registry (`registry`: its protobuf, in base64) over rows that are fetched by their names in `rows`.

    `online_path` is the region's online store where it is a file of the server's machine; only admins are told.
    """

    service: str
    service_digest: str
    snapshot: str
    region: str
    registry: str
    rows: list[str]
    online_path: str | None

    @classmethod
    def of(cls, compiled: CompiledRegistry, caller: Caller) -> FeastRegistryAnswer:
        """Render a record."""
        return cls(
            service=compiled.service,
            service_digest=compiled.service_digest,
            snapshot=compiled.snapshot,
            region=compiled.region,
            registry=base64.b64encode(compiled.content).decode(),
            rows=list(compiled.rows),
            online_path=compiled.online_path if caller.may("admin") else None,
        )


class IntervalRequest(BaseModel):
    """Event times of a view that were materialized from a snapshot."""

    model_config = ConfigDict(extra="forbid")

    view: Annotated[str, Field(max_length=255)]
    snapshot: Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
    start: AwareDatetime
    end: AwareDatetime


class MaterializedRequest(BaseModel):
    """What Feast materialized in a region into one online store, which is told apart by `store`."""

    model_config = ConfigDict(extra="forbid")

    region: Annotated[str, Field(max_length=63)]
    store: Annotated[str, Field(min_length=1, max_length=36)]
    intervals: Annotated[list[IntervalRequest], Field(max_length=1000)]


def feast_router(repositories: FeastRepositories) -> APIRouter:
    """Feast repositories."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.get("/services/{name}/feast")
    def compile_registry(caller: MayRead, name: str, region: Region, store: Store = None) -> FeastRegistryAnswer:
        """Compile a Feast registry of what a region serves of a service."""
        return FeastRegistryAnswer.of(repositories.compile(caller, name, region, store=store), caller)

    @router.get(
        "/services/{name}/feast/rows/{file}",
        response_class=FileResponse,
        responses={200: {"content": {PARQUET: {}}, "description": "The rows of a view, as Parquet."}},
    )
    def read_rows(caller: MayRead, name: str, file: str, region: Region) -> FileResponse:
        """Rows of a view that a compiled registry names."""
        path = repositories.compile(caller, name, region).rows.get(f"rows/{file}")
        if path is None:
            raise NotFound(
                f"The region serves no rows {file[:80]!r} of {name!r} now.", hint="Compile the registry again."
            )
        return FileResponse(path, media_type=PARQUET)

    @router.post("/services/{name}/feast/materialized", status_code=status.HTTP_204_NO_CONTENT)
    def report_materialized(caller: MayWrite, name: str, body: MaterializedRequest) -> None:
        """Tell what Feast materialized from a region; what was told before is kept once."""
        intervals = [
            MaterializedInterval(
                view=each.view, store=body.store, snapshot=each.snapshot, start=each.start, end=each.end
            )
            for each in body.intervals
        ]
        repositories.report(caller, name, body.region, intervals)

    return router
