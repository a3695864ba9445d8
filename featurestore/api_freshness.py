"""The route that tells Prometheus how fresh online stores are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from fairlead.registry.access import MayRead

if TYPE_CHECKING:
    from fairlead.featurestore.freshness import OnlineMetrics
    from fairlead.featurestore.log_lag import LogLags

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def freshness_router(metrics: OnlineMetrics, lags: LogLags) -> APIRouter:
    """What monitoring reads."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus's text format."}
        },
    )
    def read_metrics(caller: MayRead) -> Response:
        """What each region serves of each feature service, how fresh it is, and how far it is behind logs."""
        return Response(metrics.render(caller) + lags.render(caller), media_type=PROMETHEUS_TEXT)

    return router
