"""Wire models of feature servers, and of routes to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from fairlead.featurestore.feature_servers import FeatureServer
from fairlead.featurestore.online_routes import LeftOut, OnlineRoute, OnlineRoutes


class FeatureServerRequest(BaseModel):
    """A feature server that clients may be sent to."""

    region: Annotated[str, Field(max_length=63, examples=["aws:eu-west-1"])]
    url: Annotated[str, Field(max_length=500, description="Where it answers; clients send it their tokens.")]


class FeatureServerAnswer(BaseModel):
    """A feature server, and when it last said that it answers."""

    id: str
    region: str
    url: str
    is_alive: bool
    registered_by: str
    registered_at: datetime
    seen_at: datetime

    @classmethod
    def of(cls, server: FeatureServer) -> FeatureServerAnswer:
        """Render a server."""
        return cls(
            id=server.id,
            region=server.region,
            url=server.url,
            is_alive=server.is_alive,
            registered_by=server.registered_by,
            registered_at=server.registered_at,
            seen_at=server.seen_at,
        )


class FeatureServerPage(BaseModel):
    """Some feature servers."""

    items: list[FeatureServerAnswer]
    next_page_token: str | None = None


class OnlineRouteAnswer(BaseModel):
    """A region that may answer, and what it served when the record last heard of it."""

    region: str
    urls: Annotated[list[str], Field(description="Its feature servers, those first that were heard of lately.")]
    round_trip_ms: Annotated[float | None, Field(description="From the region `near`.")]
    snapshot: str
    as_of: datetime
    age_seconds: float
    missing_views: list[str]

    @classmethod
    def of(cls, route: OnlineRoute) -> OnlineRouteAnswer:
        """Render a route."""
        return cls(
            region=route.region,
            urls=list(route.urls),
            round_trip_ms=route.round_trip_ms,
            snapshot=route.snapshot,
            as_of=route.as_of,
            age_seconds=route.age_seconds,
            missing_views=list(route.missing_views),
        )


class LeftOutAnswer(BaseModel):
    """A region that serves the service and may not answer this caller."""

    region: str
    reason: str

    @classmethod
    def of(cls, left: LeftOut) -> LeftOutAnswer:
        """Render it."""
        return cls(region=left.region, reason=left.reason)


class OnlineRoutesAnswer(BaseModel):
    """Where a service may be read, nearest first, and where not."""

    service: str
    routes: list[OnlineRouteAnswer]
    left_out: list[LeftOutAnswer]

    @classmethod
    def of(cls, found: OnlineRoutes) -> OnlineRoutesAnswer:
        """Render routes."""
        return cls(
            service=found.service,
            routes=[OnlineRouteAnswer.of(each) for each in found.routes],
            left_out=[LeftOutAnswer.of(each) for each in found.left_out],
        )
