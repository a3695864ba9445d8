"""The routes of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query, Response, status
from pydantic import AwareDatetime

from fairlead.featurestore.api_exports import NOT_IN_REGION_HEADER
from fairlead.featurestore.applied import FeatureObject
from fairlead.featurestore.arrow_bodies import ARROW_STREAM, read_arrow_body
from fairlead.featurestore.definitions import SERVICE, VIEW
from fairlead.featurestore.duck import ArrowTable, load_arrow
from fairlead.featurestore.schemas import (
    ApplyAnswer,
    ApplyRequest,
    ChangeAnswer,
    ComparisonAnswer,
    DefinitionAnswer,
    DefinitionPage,
    MaterializeRequest,
    OnDemandViewsAnswer,
    OnlineRequest,
    OnlineRowsAnswer,
    OnlineStateAnswer,
    OnlineStatePage,
    SnapshotAnswer,
    SnapshotPage,
    SnapshotRequest,
)
from fairlead.registry.access import MayRead, MayWrite
from fairlead.registry.wire import MayRepeat, WantedPage
from fairlead.sync.api import Wake

if TYPE_CHECKING:
    from fairlead.featurestore.applied import FeatureDefinitions
    from fairlead.featurestore.comparing import Comparisons
    from fairlead.featurestore.historical import HistoricalReads
    from fairlead.featurestore.online import OnlineStores
    from fairlead.featurestore.snapshots import Snapshots


SNAPSHOT_HEADER = "X-Fairlead-Snapshot"
SERVICE_DIGEST_HEADER = "X-Fairlead-Service-Digest"

Compared = Annotated[
    str,
    Query(
        max_length=600,
        description="`SERVICE`, `SERVICE:NUMBER`, `view:NAME:NUMBER`, a snapshot's digest, or `MODEL/VERSION`.",
        examples=["diagnosis:1"],
    ),
]


def feature_routers(
    *,
    definitions: FeatureDefinitions,
    comparisons: Comparisons,
    snapshots: Snapshots,
    historical: HistoricalReads,
    online: OnlineStores,
    wake: Wake,
) -> list[APIRouter]:
    """Every router of this package, without the API's prefix."""
    return [
        definitions_router(definitions, comparisons),
        snapshots_router(snapshots, wake),
        historical_router(historical),
        online_router(online, wake),
    ]


def definitions_router(definitions: FeatureDefinitions, comparisons: Comparisons) -> APIRouter:
    """Entities, feature views and feature services."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.post("/apply")
    def apply_definitions(caller: MayWrite, body: ApplyRequest) -> ApplyAnswer:
        """Make these definitions the present ones, or say what that would change."""
        objects = [FeatureObject(kind=each.kind, spec=each.spec) for each in body.objects]
        plan = definitions.apply(
            caller, objects, dry_run=body.dry_run, force=body.force, project=body.project, prune=body.prune
        )
        return ApplyAnswer(applied=not body.dry_run, changes=[ChangeAnswer.of(planned) for planned in plan])

    @router.get("/views")
    def list_views(caller: MayRead, page: WantedPage) -> DefinitionPage:
        """Feature views, by name."""
        found = definitions.list(caller, VIEW, page).map(DefinitionAnswer.of)
        return DefinitionPage(items=list(found.items), next_page_token=found.next_page_token)

    @router.get("/services")
    def list_services(caller: MayRead, page: WantedPage) -> DefinitionPage:
        """Feature services, by name."""
        found = definitions.list(caller, SERVICE, page).map(DefinitionAnswer.of)
        return DefinitionPage(items=list(found.items), next_page_token=found.next_page_token)

    @router.get("/services/{name}")
    def get_service(caller: MayRead, name: str) -> DefinitionAnswer:
        """One feature service."""
        return DefinitionAnswer.of(definitions.get_service(caller, name))

    @router.get("/services/{name}/on-demand")
    def get_on_demand(
        caller: MayRead,
        name: str,
        digest: Annotated[str | None, Query(max_length=80, description="A version of the service.")] = None,
    ) -> OnDemandViewsAnswer:
        """Show what is computed of a service's stored features where they are read; the code in it is not run here."""
        return OnDemandViewsAnswer.of(definitions.on_demand(caller, name, digest))

    @router.get("/diff")
    def compare(caller: MayRead, before: Compared, after: Compared) -> ComparisonAnswer:
        """Show what differs between two versions of a view or service, two snapshots, or what two models pin."""
        return ComparisonAnswer.of(comparisons.compare(caller, before, after))

    return router


def snapshots_router(snapshots: Snapshots, wake: Wake) -> APIRouter:
    """Snapshots."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.post("/services/{name}/snapshots", status_code=status.HTTP_202_ACCEPTED)
    def take_snapshot(caller: MayWrite, name: str, body: SnapshotRequest, key: MayRepeat) -> SnapshotAnswer:
        """Ask for a service's data as of a time; a worker reads it, stores it and reads it back."""
        taken = snapshots.take(caller, name, as_of=body.as_of, key=key)
        wake()
        return SnapshotAnswer.of(taken)

    @router.get("/snapshots")
    def list_snapshots(
        caller: MayRead,
        page: WantedPage,
        service: str | None = None,
        until: Annotated[AwareDatetime | None, Query(description="As of this time or before.")] = None,
    ) -> SnapshotPage:
        """Snapshots, newest first."""
        found = snapshots.list(caller, page, service=service, until=until).map(SnapshotAnswer.of)
        return SnapshotPage(items=list(found.items), next_page_token=found.next_page_token)

    @router.get("/snapshots/{reference}")
    def get_snapshot(caller: MayRead, reference: str) -> SnapshotAnswer:
        """One snapshot, by its id or its digest."""
        return SnapshotAnswer.of(snapshots.get(caller, reference))

    return router


def historical_router(historical: HistoricalReads) -> APIRouter:
    """Training sets."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.post(
        "/historical",
        response_class=Response,
        responses={200: {"content": {ARROW_STREAM: {}}, "description": "The entity rows with features, as Arrow."}},
        openapi_extra={"requestBody": {"content": {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def join_features(  # noqa: PLR0917  (a route's parts)
        caller: MayRead,
        entity_rows: Annotated[ArrowTable, Depends(read_arrow_body)],
        snapshot: Annotated[str | None, Query(description="A snapshot's digest or id.")] = None,
        service: Annotated[str | None, Query(description="A service, whose newest snapshot is read.")] = None,
        as_of: Annotated[
            AwareDatetime | None, Query(description="Read the service's newest snapshot as of this time or before.")
        ] = None,
        region: Annotated[str | None, Query(description="Where the result goes.")] = None,
        leave_out: Annotated[  # noqa: FBT002  (a query parameter)
            bool, Query(description="Leave out features that may not be there, in place of refusing.")
        ] = False,
    ) -> Response:
        """Join features to entity rows as of each row's `event_timestamp`; an Arrow IPC stream both ways."""
        joined = historical.join(
            caller, entity_rows, snapshot=snapshot, service=service, as_of=as_of, region=region, leave_out=leave_out
        )
        arrow = load_arrow()
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, joined.rows.schema) as writer:
            writer.write_table(joined.rows)
        return Response(
            content=sink.getvalue().to_pybytes(),
            media_type=ARROW_STREAM,
            headers={
                SNAPSHOT_HEADER: joined.snapshot,
                SERVICE_DIGEST_HEADER: joined.service_digest,
                NOT_IN_REGION_HEADER: ",".join(joined.not_in_region),
            },
        )

    return router


def online_router(online: OnlineStores, wake: Wake) -> APIRouter:
    """Online stores."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.post("/services/{name}/materialize", status_code=status.HTTP_202_ACCEPTED)
    def materialize(caller: MayWrite, name: str, body: MaterializeRequest) -> OnlineStatePage:
        """Want a service online; each region makes it so from its own replica."""
        states = online.materialize(caller, name, snapshot=body.snapshot, regions=body.regions)
        wake()
        return OnlineStatePage(items=[OnlineStateAnswer.of(state) for state in states])

    @router.get("/services/{name}/online")
    def list_online_states(caller: MayRead, name: str) -> OnlineStatePage:
        """What each region serves of a service."""
        items = [
            OnlineStateAnswer.of(state, online.address(caller, name, state.region) if caller.may("admin") else None)
            for state in online.states(caller, name)
        ]
        return OnlineStatePage(items=items)

    @router.post("/online")
    def read_online(caller: MayRead, body: OnlineRequest) -> OnlineRowsAnswer:
        """Features of entities from one region's online store."""
        return OnlineRowsAnswer.of(online.read(caller, body.service, body.entities, region=body.region))

    return router
