"""Webhooks by MLflow's own client: receivers written for MLflow are told what MLflow's server tells them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookEvent, WebhookStatus
from mlflow.exceptions import MlflowException
from mlflow.webhooks.types import get_payload_class_for_event

from fairlead.registry.mlflow.webhook_messages import EVENTS, example_payload
from tests.records import migrated_database
from tests.running_server import RunningServer, running_server
from tests.servers.webhook_receiver import Received, Receiver, status, webhook_receiver

SECRET = "shared with the receiver"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("webhooks")
    settings: dict[str, Any] = {"webhook_hosts": ["127.0.0.1"], "has_worker": True}
    with migrated_database(request, folder) as url, running_server(folder, url, **settings) as running:
        prepare(running)
        yield running


def prepare(running: RunningServer) -> None:
    """Have somewhere to put files."""
    running.service.ensure_embedded_locations(["aws:us-east-1"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook_receiver() as listening:
        yield listening


@pytest.fixture
def client(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", server.token)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return MlflowClient(tracking_uri=server.url, registry_uri=server.url)


def is_signed(received: Received) -> bool:
    """What a receiver does that was written for MLflow."""
    headers = received.headers
    signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.".encode() + received.body
    digest = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    return headers["x-mlflow-signature"] == f"v1,{digest}"


def wait_for(receiver: Receiver, last: str) -> list[Any]:
    """What came, up to an event."""
    deadline = time.monotonic() + 10
    entity, _, action = last.partition(".")
    while time.monotonic() < deadline and not any(
        (each.json["entity"], each.json["action"]) == (entity, action) for each in receiver.received
    ):
        time.sleep(0.02)
    assert all(is_signed(each) for each in receiver.received)
    return [each.json for each in receiver.received]


def test_webhooks_are_made_shown_changed_tested_and_removed(client: MlflowClient, receiver: Receiver) -> None:
    made = client.create_webhook(
        name="ci", url=receiver.url, events=["model_version.created"], description="builds", secret=SECRET
    )
    assert (made.name, made.url, made.description) == ("ci", receiver.url, "builds")
    assert made.events == [WebhookEvent.from_str("model_version.created")]
    assert made.status == WebhookStatus.ACTIVE
    assert client.get_webhook(made.webhook_id).webhook_id == made.webhook_id
    other = client.create_webhook(name="ci", url=receiver.url, events=["prompt.created"])
    assert {each.webhook_id for each in client.list_webhooks()} >= {made.webhook_id, other.webhook_id}
    first = client.list_webhooks(max_results=1)
    second = client.list_webhooks(max_results=1, page_token=first.token)
    assert first[0].webhook_id != second[0].webhook_id
    changed = client.update_webhook(made.webhook_id, status="DISABLED", events=["prompt.created", "prompt_tag.set"])
    assert (changed.status, changed.description, len(changed.events)) == (WebhookStatus.DISABLED, "builds", 2)
    result = client.test_webhook(made.webhook_id)
    assert (result.success, result.response_status) == (True, 204)
    assert wait_for(receiver, "prompt.created")[0]["data"] == example_payload("prompt.created")
    receiver.usual = status(500)
    assert not client.test_webhook(made.webhook_id, "prompt_tag.set").success
    for each in (made, other):
        client.delete_webhook(each.webhook_id)
    with pytest.raises(MlflowException) as gone:
        client.get_webhook(made.webhook_id)
    assert gone.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("event", EVENTS)
def test_example_payloads_have_the_members_that_mlflow_says(event: str) -> None:
    payload = get_payload_class_for_event(WebhookEvent.from_str(event))  # pyright: ignore[reportArgumentType]
    assert payload is not None
    assert set(example_payload(event)) == set(payload.__annotations__)


def test_what_cannot_be_a_webhook_is_refused_as_mlflow_does(client: MlflowClient, receiver: Receiver) -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"url": "http://169.254.169.254/latest"},
        {"url": "https://10.0.0.1/"},
        {"name": "no spaces please"},
        {"events": ["budget_policy.exceeded"]},
    )
    for wrong in wrongs:
        asked: dict[str, Any] = {"name": "ci", "url": receiver.url, "events": ["prompt.created"], **wrong}
        with pytest.raises(MlflowException) as refused:
            client.create_webhook(**asked)
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_receiver_is_told_of_models_versions_tags_and_aliases(
    server: RunningServer, client: MlflowClient, receiver: Receiver
) -> None:
    model = f"churn-{time.monotonic_ns()}"
    hook = client.create_webhook(
        name="all",
        url=receiver.url,
        events=[each for each in EVENTS if each.startswith(("model", "reg"))],
        secret=SECRET,
    )
    client.create_registered_model(model, tags={"team": "risk"}, description="who leaves")
    uploaded = httpx2.put(
        f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{model}/model.txt",
        content=b"weights",
        headers={"authorization": f"Bearer {server.token}"},
    )
    assert uploaded.status_code == 200, uploaded.text
    client.create_model_version(model, f"mlflow-artifacts:/{model}", tags={"stage": "trial"}, await_creation_for=30)
    client.set_model_version_tag(model, "1", "checked", "yes")
    client.delete_model_version_tag(model, "1", "checked")
    client.set_registered_model_alias(model, "champion", "1")
    client.delete_registered_model_alias(model, "champion")
    client.set_registered_model_tag(model, "quiet", "yes")  # of which MLflow tells nobody
    told = wait_for(receiver, "model_version_alias.deleted")
    client.delete_webhook(hook.webhook_id)
    assert [(each["entity"], each["action"]) for each in told] == [
        ("registered_model", "created"),
        ("model_version", "created"),
        ("model_version_tag", "set"),
        ("model_version_tag", "deleted"),
        ("model_version_alias", "created"),
        ("model_version_alias", "deleted"),
    ]
    assert told[0]["data"] == {"name": model, "tags": {"team": "risk"}, "description": "who leaves"}
    version = told[1]["data"]
    assert (version["name"], version["version"], version["tags"]["stage"]) == (model, "1", "trial")
    assert {"source", "run_id", "description"} <= set(version)
    assert [each["data"] for each in told[2:]] == [
        {"name": model, "version": "1", "key": "checked", "value": "yes"},
        {"name": model, "version": "1", "key": "checked"},
        {"name": model, "alias": "champion", "version": "1"},
        {"name": model, "alias": "champion"},
    ]


def test_prompts_have_events_of_their_own(client: MlflowClient, receiver: Receiver) -> None:
    name = f"greeting-{time.monotonic_ns()}"
    hook = client.create_webhook(
        name="prompts", url=receiver.url, events=[each for each in EVENTS if "." in each], secret=SECRET
    )
    client.register_prompt(name, "Hello {{ name }}", commit_message="first", tags={"tone": "warm"})
    client.set_prompt_alias(name, "live", 1)
    told = wait_for(receiver, "prompt_alias.created")
    client.delete_webhook(hook.webhook_id)
    by_event = {f"{each['entity']}.{each['action']}": each["data"] for each in told}
    assert {"prompt.created", "prompt_version.created", "prompt_alias.created"} <= set(by_event)
    assert not any(event.startswith(("model", "registered")) for event in by_event)
    assert by_event["prompt_version.created"]["template"] == "Hello {{ name }}"
    assert by_event["prompt_version.created"]["tags"]["tone"] == "warm"
    assert by_event["prompt_alias.created"] == {"name": name, "alias": "live", "version": "1"}
