"""Events in MLflow's words: which of MLflow's webhook events an audit event is, its payload, and MLflow's headers.

One audit event may be several of MLflow's, such as one for each tag that was set. What MLflow puts into a payload that
the audit log does not keep (description and tags of what was created) is as it is when the message is sent. Prompts are
models with MLflow's tag; their events have names of their own. Restricted events are not sent: MLflow's payloads are
facts, and its webhooks do not say where their receiver is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.registry.mlflow.filters import PROMPT_TAG
from fairlead.registry.mlflow.records import own_source
from fairlead.registry.tables import ModelTagRow, ModelVersionRow, RegisteredModelRow, VersionTagRow
from fairlead.registry.webhook_messages import Format, Message, Telling

_PROMPT_TEXT_TAG = "mlflow.prompt.text"
_INTERNAL_TAGS = frozenset({PROMPT_TAG, "_mlflow_prompt_type"})

EVENTS = (
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_tag.deleted",
    "prompt_version_tag.set",
    "prompt_version_tag.deleted",
    "prompt_alias.created",
    "prompt_alias.deleted",
)
"""What a webhook may ask for. MLflow has one more, of budgets of its gateway, which is not ours."""


def render_mlflow(session: Session, telling: Telling) -> Sequence[Mapping[str, Any]]:
    """The bodies of MLflow's events that an audit event is, those that are asked for. A `Render`."""
    event = telling.event
    name = event.subject.partition("/")[0].partition("@")[0]
    model = session.scalars(
        select(RegisteredModelRow).where(
            RegisteredModelRow.workspace_id == telling.workspace_id, RegisteredModelRow.name == name
        )
    ).one_or_none()
    if model is None or not telling.has_facts:
        return []
    tags = _model_tags(session, model)
    is_prompt = tags.get(PROMPT_TAG, "").lower() == "true"
    found = _found(session, telling, model, tags, is_prompt=is_prompt)
    return [to_mlflow_body(name, payload, event.happened_at) for name, payload in found if name in telling.events]


def to_mlflow_body(event: str, payload: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """The body of one of MLflow's events."""
    entity, _, action = event.partition(".")
    return {"entity": entity, "action": action, "timestamp": moment.isoformat(), "data": dict(payload)}


def sign_mlflow(message: Message, now: datetime, keys: Sequence[bytes]) -> dict[str, str]:
    """MLflow's headers; its secret is used as it is written."""
    timestamp = str(int(now.timestamp()))
    headers = {
        "content-type": "application/json",
        "X-MLflow-Delivery-Id": message.id,
        "X-MLflow-Timestamp": timestamp,
    }
    if keys:
        signed = f"{message.id}.{timestamp}.".encode() + message.body
        digest = hmac.digest(keys[0], signed, hashlib.sha256)
        headers["X-MLflow-Signature"] = "v1," + base64.b64encode(digest).decode()
    return headers


def example_payload(event: str) -> dict[str, Any]:
    """What a test message of an event carries."""
    entity, _, action = event.partition(".")
    thing = "prompt" if entity.startswith("prompt") else "model"
    payload: dict[str, Any] = {"name": f"example_{thing}"}
    if entity in {"registered_model", "prompt"}:
        return {**payload, "tags": {"example_key": "example_value"}, "description": f"An example {thing}"}
    if entity in {"model_version", "prompt_version"}:
        own = {"template": "Hello {{name}}"} if thing == "prompt" else {"source": "models:/example", "run_id": None}
        payload |= {"version": "1", **own, "tags": {"example_key": "example_value"}}
        return {**payload, "description": f"An example version of a {thing}"}
    if entity.endswith("alias"):
        return {**payload, "alias": "example_alias", **({"version": "1"} if action == "created" else {})}
    if entity != "prompt_tag":
        payload["version"] = "1"
    return {**payload, "key": "example_key", **({"value": "example_value"} if action == "set" else {})}


def _found(
    session: Session, telling: Telling, model: RegisteredModelRow, tags: Mapping[str, str], *, is_prompt: bool
) -> list[tuple[str, dict[str, Any]]]:
    event, facts = telling.event, telling.event.facts
    number = event.subject.rpartition("/")[2]
    of_version = "prompt_version" if is_prompt else "model_version"
    alias = "prompt_alias" if is_prompt else "model_version_alias"
    if event.action == "model.create":
        shown = {key: value for key, value in tags.items() if not (is_prompt and key in _INTERNAL_TAGS)}
        payload = {"name": model.name, "tags": shown, "description": model.description or None}
        return [("prompt.created" if is_prompt else "registered_model.created", payload)]
    if event.action in {"version.register", "version.import"}:
        return [(f"{of_version}.created", _version_payload(session, model, int(number), is_prompt=is_prompt))]
    if event.action == "version.update":
        about = {"name": model.name, "version": number}
        return [_tag_event(f"{of_version}_tag", about, key, value) for key, value in _changed_tags(facts)]
    if event.action == "model.update" and is_prompt:
        return [_tag_event("prompt_tag", {"name": model.name}, key, value) for key, value in _changed_tags(facts)]
    if event.action in {"alias.set", "model.promote", "model.rollback"}:
        payload = {"name": model.name, "alias": facts.get("alias"), "version": str(facts.get("to"))}
        return [(f"{alias}.created", payload)]
    if event.action == "alias.delete":
        return [(f"{alias}.deleted", {"name": model.name, "alias": facts.get("alias")})]
    return []


def _version_payload(session: Session, model: RegisteredModelRow, number: int, *, is_prompt: bool) -> dict[str, Any]:
    row = session.get_one(ModelVersionRow, (model.workspace_id, model.id, number))
    found = session.scalars(
        select(VersionTagRow)
        .where(
            VersionTagRow.workspace_id == model.workspace_id,
            VersionTagRow.model_id == model.id,
            VersionTagRow.version == number,
        )
        .order_by(VersionTagRow.key)
    )
    tags = {tag.key: tag.value for tag in found}
    payload: dict[str, Any] = {"name": model.name, "version": str(number)}
    if is_prompt:
        payload["template"] = tags.pop(_PROMPT_TEXT_TAG, None)
        payload["tags"] = {key: value for key, value in tags.items() if key not in _INTERNAL_TAGS}
    else:
        payload["source"] = row.source or own_source(model.name, number)
        payload |= {"run_id": row.run_id, "tags": tags}
    return {**payload, "description": row.description or None}


def _changed_tags(facts: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    tags = facts.get("tags")
    return list(cast("dict[str, str | None]", tags).items()) if isinstance(tags, dict) else []


def _tag_event(entity: str, about: Mapping[str, Any], key: str, value: str | None) -> tuple[str, dict[str, Any]]:
    if value is None:
        return f"{entity}.deleted", {**about, "key": key}
    return f"{entity}.set", {**about, "key": key, "value": value}


def _model_tags(session: Session, model: RegisteredModelRow) -> dict[str, str]:
    found = session.scalars(
        select(ModelTagRow)
        .where(ModelTagRow.workspace_id == model.workspace_id, ModelTagRow.model_id == model.id)
        .order_by(ModelTagRow.key)
    )
    return {tag.key: tag.value for tag in found}


MLFLOW_FORMAT = Format(
    actions=(
        "model.create",
        "model.update",
        "model.promote",
        "model.rollback",
        "version.register",
        "version.import",
        "version.update",
        "alias.set",
        "alias.delete",
    ),
    has_own_words=True,
    render=render_mlflow,
    sign=sign_mlflow,
)
