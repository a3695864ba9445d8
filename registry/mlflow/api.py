"""MLflow's routes of models and versions, below `/api/2.0/mlflow`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from fairlead.registry.access import IsKnown, MayRead, MayWrite
from fairlead.registry.mlflow.fields import Asked
from fairlead.registry.mlflow.models import MlflowModels
from fairlead.registry.mlflow.records import Wire
from fairlead.registry.mlflow.search import Searches
from fairlead.registry.mlflow.sources import ARTIFACTS_PATH
from fairlead.registry.mlflow.versions import MlflowVersions, VersionRequest
from fairlead.registry.wire import MayRepeat

MLFLOW_PREFIX = "/api/2.0/mlflow"


def server_info_router() -> APIRouter:
    """What a client asks about the server before anything else."""
    router = APIRouter(include_in_schema=False)

    @router.get("/api/3.0/mlflow/server-info")
    @router.get("/api/3.0/mlflow/server-features")
    def server_info(caller: IsKnown) -> Response:  # noqa: ARG001  (whoever has a token may know)
        return answer(
            {
                "store_type": "SqlStore",
                "workspaces_enabled": False,
                "trace_archival_enabled": False,
                "multipart_uploads_enabled": True,
                "multipart_downloads_enabled": False,
            }
        )

    return router


def registered_models_router(models: MlflowModels, searches: Searches) -> APIRouter:  # noqa: C901  (one a route)
    """Registered models, their tags and aliases."""
    router = APIRouter(prefix=f"{MLFLOW_PREFIX}/registered-models", include_in_schema=False)

    @router.post("/create")
    def create(asked: Asked, caller: MayWrite, key: MayRepeat) -> Response:
        made = models.create(
            caller,
            name=asked.required("name"),
            description=asked.text("description") or "",
            tags=asked.tags(),
            key=key,
        )
        return answer({"registered_model": made})

    @router.get("/get")
    def get(asked: Asked, caller: MayRead) -> Response:
        return answer({"registered_model": models.get(caller, asked.required("name"))})

    @router.patch("/update")
    def update(asked: Asked, caller: MayWrite) -> Response:
        found = models.update(caller, asked.required("name"), asked.text("description") or "")
        return answer({"registered_model": found})

    @router.post("/rename")
    def rename(asked: Asked, caller: MayWrite) -> Response:
        found = models.rename(caller, asked.required("name"), asked.required("new_name"))
        return answer({"registered_model": found})

    @router.delete("/delete")
    def delete(asked: Asked, caller: MayWrite) -> Response:
        models.delete(caller, asked.required("name"))
        return answer({})

    @router.get("/search")
    @router.get("/list")
    @router.post("/search")
    def search(asked: Asked, caller: MayRead) -> Response:
        found, token = searches.models(
            caller,
            filter_text=asked.text("filter"),
            order_by=asked.texts("order_by"),
            max_results=asked.number("max_results"),
            page_token=asked.text("page_token"),
        )
        return answer(_page("registered_models", found, token))

    @router.post("/get-latest-versions")
    @router.get("/get-latest-versions")
    def get_latest_versions(asked: Asked, caller: MayRead) -> Response:
        found = models.latest_versions(caller, asked.required("name"), asked.texts("stages"))
        return answer({"model_versions": found})

    @router.post("/set-tag")
    def set_tag(asked: Asked, caller: MayWrite) -> Response:
        models.set_tag(caller, asked.required("name"), asked.required("key"), asked.text("value") or "")
        return answer({})

    @router.delete("/delete-tag")
    def delete_tag(asked: Asked, caller: MayWrite) -> Response:
        models.set_tag(caller, asked.required("name"), asked.required("key"), None)
        return answer({})

    @router.get("/alias")
    def get_by_alias(asked: Asked, caller: MayRead) -> Response:
        found = models.version_by_alias(caller, asked.required("name"), asked.required("alias"))
        return answer({"model_version": found})

    @router.post("/alias")
    def set_alias(asked: Asked, caller: MayWrite) -> Response:
        models.set_alias(caller, asked.required("name"), asked.required("alias"), asked.version())
        return answer({})

    @router.delete("/alias")
    def delete_alias(asked: Asked, caller: MayWrite) -> Response:
        models.delete_alias(caller, asked.required("name"), asked.required("alias"))
        return answer({})

    return router


def model_versions_router(versions: MlflowVersions, searches: Searches, wake: Callable[[], None]) -> APIRouter:
    """Model versions, their tags and stages, and where to download them from."""
    router = APIRouter(prefix=f"{MLFLOW_PREFIX}/model-versions", include_in_schema=False)

    @router.post("/create")
    def create(asked: Asked, caller: MayWrite, request: Request, key: MayRepeat) -> Response:
        made = versions.create(
            caller,
            VersionRequest(
                name=asked.required("name"),
                source=asked.required("source"),
                own_authority=request.url.netloc,
                run_id=asked.text("run_id"),
                run_link=asked.text("run_link"),
                description=asked.text("description") or "",
                tags=asked.tags(),
            ),
            key=key,
        )
        wake()
        return answer({"model_version": made})

    @router.get("/get")
    def get(asked: Asked, caller: MayRead) -> Response:
        return answer({"model_version": versions.get(caller, asked.required("name"), asked.version())})

    @router.patch("/update")
    def update(asked: Asked, caller: MayWrite) -> Response:
        found = versions.update(caller, asked.required("name"), asked.version(), asked.text("description") or "")
        return answer({"model_version": found})

    @router.post("/transition-stage")
    def transition_stage(asked: Asked, caller: MayWrite) -> Response:
        found = versions.transition(
            caller,
            asked.required("name"),
            asked.version(),
            asked.required("stage"),
            archive_others=asked.flag("archive_existing_versions"),
        )
        return answer({"model_version": found})

    @router.delete("/delete")
    def delete(asked: Asked, caller: MayWrite) -> Response:
        versions.delete(caller, asked.required("name"), asked.version())
        return answer({})

    @router.get("/search")
    @router.post("/search")
    def search(asked: Asked, caller: MayRead) -> Response:
        found, token = searches.versions(
            caller,
            filter_text=asked.text("filter"),
            order_by=asked.texts("order_by"),
            max_results=asked.number("max_results"),
            page_token=asked.text("page_token"),
        )
        return answer(_page("model_versions", found, token))

    @router.get("/get-download-uri")
    def get_download_uri(asked: Asked, caller: MayRead, request: Request) -> Response:
        # An address of ours, since a client resolves `mlflow-artifacts:/` against its tracking server.
        found = versions.get(caller, asked.required("name"), asked.version())
        base = f"{request.url.scheme}://{request.url.netloc}{ARTIFACTS_PATH}"
        return answer({"artifact_uri": f"{base}/models/{found['name']}/{found['version']}"})

    @router.post("/set-tag")
    def set_tag(asked: Asked, caller: MayWrite) -> Response:
        versions.set_tag(
            caller, asked.required("name"), asked.version(), asked.required("key"), asked.text("value") or ""
        )
        return answer({})

    @router.delete("/delete-tag")
    def delete_tag(asked: Asked, caller: MayWrite) -> Response:
        versions.set_tag(caller, asked.required("name"), asked.version(), asked.required("key"), None)
        return answer({})

    return router


def answer(body: Any) -> Response:
    """A JSON answer that no browser takes for anything else."""
    return Response(
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode(),
        media_type="application/json",
        headers={"X-Content-Type-Options": "nosniff"},
    )


def _page(name: str, items: list[Wire], token: str | None) -> Wire:
    return {name: items} if token is None else {name: items, "next_page_token": token}
