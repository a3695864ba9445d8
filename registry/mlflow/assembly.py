"""The dialect put together: its use cases and routes on the record's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fairlead.registry.aliases import Aliases
from fairlead.registry.models import Models
from fairlead.registry.versions import Versions

if TYPE_CHECKING:
    from fastapi import APIRouter

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, DeploymentIndex
    from fairlead.registry.mlflow.ports import VersionFiles
    from fairlead.registry.mlflow.staging import Staging
    from fairlead.registry.mlflow.tracking_servers import TrackingServers
    from fairlead.registry.webhook_assembly import WebhookParts


def mlflow_routers(
    database: Database,
    clock: Clock,
    *,
    tracking_servers: TrackingServers,
    staging: Staging,
    files: VersionFiles,
    wake: Callable[[], None],
    webhooks: WebhookParts,
    deployments: DeploymentIndex | None = None,
) -> list[APIRouter]:
    """Every route of MLflow's dialect; their paths are whole. `wake` makes workers look for what there is to do."""
    from fairlead.registry.mlflow.api import model_versions_router, registered_models_router, server_info_router
    from fairlead.registry.mlflow.api_artifacts import artifacts_router
    from fairlead.registry.mlflow.api_webhooks import mlflow_webhooks_router
    from fairlead.registry.mlflow.artifacts import MlflowArtifacts
    from fairlead.registry.mlflow.models import MlflowModels
    from fairlead.registry.mlflow.multipart import Multipart
    from fairlead.registry.mlflow.search import Searches
    from fairlead.registry.mlflow.versions import MlflowVersions
    from fairlead.registry.mlflow.webhooks import MlflowWebhooks

    searches = Searches(database)
    models = MlflowModels(database, clock, Models(database, clock), Aliases(database, clock), deployments)
    versions = MlflowVersions(database, clock, Versions(database, clock), tracking_servers, staging, files, deployments)
    artifacts = MlflowArtifacts(database, staging, files)
    return [
        server_info_router(),
        registered_models_router(models, searches),
        model_versions_router(versions, searches, wake),
        artifacts_router(artifacts, staging, Multipart(staging)),
        mlflow_webhooks_router(MlflowWebhooks(webhooks.webhooks, webhooks.tests), webhooks.deliverer.wake),
    ]
