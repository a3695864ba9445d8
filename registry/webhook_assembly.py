"""Webhooks put together: what makes them, what tries them out, and what sends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from fairlead.core.db import Database
from fairlead.core.outbound import OutboundRules
from fairlead.core.ports import Clock
from fairlead.registry.mlflow.webhook_messages import MLFLOW_FORMAT
from fairlead.registry.openlineage import OPENLINEAGE_FORMAT
from fairlead.registry.secret_box import SecretBox
from fairlead.registry.webhook_delivery import Deliverer
from fairlead.registry.webhook_messages import EVENT_FORMAT
from fairlead.registry.webhook_tests import WebhookTests
from fairlead.registry.webhooks import Webhooks

FORMATS = {"fairlead": EVENT_FORMAT, "openlineage": OPENLINEAGE_FORMAT, "mlflow": MLFLOW_FORMAT}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookParts:
    """The use cases of webhooks, and what sends to them."""

    webhooks: Webhooks
    tests: WebhookTests
    deliverer: Deliverer


def assemble_webhooks(
    database: Database, clock: Clock, *, hosts: tuple[str, ...] | None, box: SecretBox, patience: timedelta
) -> WebhookParts:
    """Build them all. `hosts` are those that the operator lets requests go to (None: public ones, by https).

    Raises:
        InvalidInput: naming the entry that is no host.
    """
    rules = OutboundRules(setting="FAIRLEAD_WEBHOOK_HOSTS", hosts=hosts)
    return WebhookParts(
        webhooks=Webhooks(database, clock, rules=rules, box=box, formats=FORMATS),
        tests=WebhookTests(database, clock, rules=rules, box=box, formats=FORMATS),
        deliverer=Deliverer(database, clock, rules=rules, box=box, formats=FORMATS, patience=patience),
    )
