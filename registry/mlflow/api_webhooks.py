"""MLflow's routes of webhooks, below `/api/2.0/mlflow/webhooks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from fairlead.core.errors import PermissionDenied
from fairlead.registry.access import MayAdmin
from fairlead.registry.identity import Caller
from fairlead.registry.mlflow.api import MLFLOW_PREFIX, answer
from fairlead.registry.mlflow.fields import Asked
from fairlead.registry.mlflow.webhooks import MlflowWebhooks


def require_whole_workspace(caller: MayAdmin) -> Caller:
    """The caller, who is an admin of every model: a webhook tells of all of them.

    Raises:
        PermissionDenied: if it is one of some models.
    """
    if not caller.may("admin"):
        raise PermissionDenied(
            f"{caller.principal!r} may not do this: webhooks tell of the whole workspace.",
            hint="Ask an admin of the workspace.",
        )
    return caller


WholeAdmin = Annotated[Caller, Depends(require_whole_workspace)]


def mlflow_webhooks_router(webhooks: MlflowWebhooks, wake: Callable[[], None]) -> APIRouter:
    """Webhooks in MLflow's form. `wake` lets what waits be sent at once."""
    router = APIRouter(prefix=f"{MLFLOW_PREFIX}/webhooks", include_in_schema=False)

    @router.post("")
    def create(asked: Asked, caller: WholeAdmin) -> Response:
        made = webhooks.create(
            caller,
            name=asked.required("name"),
            url=asked.required("url"),
            events=asked.objects("events"),
            description=asked.text("description"),
            secret=asked.text("secret"),
            status=asked.text("status"),
        )
        return answer({"webhook": made})

    @router.get("")
    def list_(asked: Asked, caller: WholeAdmin) -> Response:
        found, token = webhooks.list(
            caller, max_results=asked.number("max_results"), page_token=asked.text("page_token")
        )
        return answer({"webhooks": found} if token is None else {"webhooks": found, "next_page_token": token})

    @router.get("/{webhook_id}")
    def get(webhook_id: str, caller: WholeAdmin) -> Response:
        return answer({"webhook": webhooks.get(caller, webhook_id)})

    @router.patch("/{webhook_id}")
    def update(webhook_id: str, asked: Asked, caller: WholeAdmin) -> Response:
        changed = webhooks.update(
            caller,
            webhook_id,
            name=asked.text("name"),
            url=asked.text("url"),
            events=asked.objects("events"),
            description=asked.text("description"),
            secret=asked.text("secret"),
            status=asked.text("status"),
        )
        wake()
        return answer({"webhook": changed})

    @router.delete("/{webhook_id}")
    def delete(webhook_id: str, caller: WholeAdmin) -> Response:
        webhooks.delete(caller, webhook_id)
        return answer({})

    @router.post("/{webhook_id}/test")
    async def test(webhook_id: str, asked: Asked, caller: WholeAdmin) -> Response:
        return answer({"result": await webhooks.test(caller, webhook_id, asked.object("event"))})

    return router
