"""Routes of webhooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from fairlead.registry.access import MayAdmin
from fairlead.registry.schemas_webhooks import (
    DeliveryOut,
    RedeliveryIn,
    RedeliveryOut,
    RotationIn,
    SecretWebhookOut,
    WebhookIn,
    WebhookOut,
    WebhookPatch,
    WebhookTestOut,
)
from fairlead.registry.webhook_tests import WebhookTests
from fairlead.registry.webhooks import WebhookChange, WebhookDraft, Webhooks
from fairlead.registry.wire import IfMatch, Listing, MayRepeat, WantedPage, etag, listing


def webhooks_router(webhooks: Webhooks, tests: WebhookTests, wake: Callable[[], None]) -> APIRouter:
    """Where events are sent to. `wake` lets what waits be sent at once."""
    router = APIRouter(prefix="/webhooks", tags=["webhooks"])

    @router.post("", status_code=201, response_model=SecretWebhookOut)
    def create_webhook(body: WebhookIn, caller: MayAdmin, key: MayRepeat) -> Any:
        """Make a webhook; its secret is in this answer only."""
        members: dict[str, Any] = body.model_dump()
        members["events"] = tuple(body.events)
        made, secret = webhooks.create(caller, WebhookDraft(**members), key=key)
        wake()
        return {**asdict(made), "secret": secret}

    @router.get("", response_model=Listing[WebhookOut])
    def list_webhooks(caller: MayAdmin, page: WantedPage) -> Any:
        """List webhooks by name."""
        return listing(WebhookOut, webhooks.list(caller, page))

    @router.get("/{name}", response_model=WebhookOut)
    def get_webhook(name: str, caller: MayAdmin, response: Response) -> Any:
        """Show a webhook; its revision is the ETag."""
        found = webhooks.get(caller, name)
        response.headers.update(etag(found.revision))
        return found

    @router.patch("/{name}", response_model=WebhookOut)
    def update_webhook(name: str, body: WebhookPatch, caller: MayAdmin, expected: IfMatch) -> Any:
        """Change a webhook. With `If-Match`, only if it is still at that revision."""
        members: dict[str, Any] = body.model_dump()
        members["events"] = None if body.events is None else tuple(body.events)
        changed = webhooks.update(caller, name, WebhookChange(**members), expected_revision=expected)
        wake()
        return changed

    @router.delete("/{name}", status_code=204)
    def delete_webhook(name: str, caller: MayAdmin) -> None:
        """Remove a webhook and what is known of its deliveries."""
        webhooks.delete(caller, name)

    @router.post("/{name}/rotate-secret", response_model=SecretWebhookOut)
    def rotate_secret(name: str, body: RotationIn, caller: MayAdmin) -> Any:
        """Make a new secret, in this answer only; the old one signs beside it for a while."""
        changed, secret = webhooks.rotate_secret(caller, name, overlap=timedelta(seconds=body.overlap_seconds))
        return {**asdict(changed), "secret": secret}

    @router.post("/{name}/test", response_model=WebhookTestOut)
    async def test_webhook(name: str, caller: MayAdmin) -> Any:
        """Send an event `webhook.test` now, once, and say what the receiver answered."""
        return await tests.send(caller, name)

    @router.get("/{name}/deliveries", response_model=Listing[DeliveryOut])
    def list_deliveries(
        name: str,
        caller: MayAdmin,
        page: WantedPage,
        state: Annotated[Literal["PENDING", "DELIVERED", "DEAD"] | None, Query()] = None,
    ) -> Any:
        """List what became of events, newest first."""
        return listing(DeliveryOut, webhooks.deliveries(caller, name, page, state=state))

    @router.post("/{name}/redeliver", response_model=RedeliveryOut)
    def redeliver(name: str, body: RedeliveryIn, caller: MayAdmin) -> Any:
        """Send deliveries again, or all dead letters, beside the order of events."""
        count = webhooks.redeliver(caller, name, body.deliveries)
        wake()
        return {"count": count}

    return router
