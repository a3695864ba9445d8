"""Whom the plug-in speaks to, and to whom it says who is calling."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from fairlead.core.errors import InvalidInput
from fairlead.mlflow_plugin.connections import server_url
from fairlead.mlflow_plugin.registry_store import FairleadRegistryStore
from fairlead.mlflow_plugin.request_providers import FairleadAuth, calling
from fairlead.sdk.client import Fairlead
from fairlead.sdk.settings import ClientSettings
from fairlead.sdk.transport import Transport
from tests.sdk.scripted_server import Answer, Asked, scripted_server

MODEL = {"registered_model": {"name": "iris"}}


@pytest.fixture(autouse=True)
def _client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FAIRLEAD_HOME": str(tmp_path),
        "FAIRLEAD_TOKEN": "fl_ours",
        "MLFLOW_TRACKING_TOKEN": "theirs",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("fairlead://", None),
        ("fairlead:///models/churn/1", None),
        ("fairlead://registry.example", "https://registry.example"),
        ("fairlead://registry.example:8470/models/churn/1", "https://registry.example:8470"),
        ("fairlead://127.0.0.1:8470", "http://127.0.0.1:8470"),
        ("fairlead://[::1]:8470", "http://[::1]:8470"),
        ("fairlead+https://localhost:8470", "https://localhost:8470"),
        ("fairlead+http://registry.lan", "http://registry.lan"),
    ],
)
def test_an_address_names_a_server_by_tls_unless_it_is_this_machine(uri: str, url: str | None) -> None:
    assert server_url(uri) == url


@pytest.mark.parametrize("uri", ["http://registry.example", "fairlead://ana:secret@registry.example", "fairlead://a:b"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        server_url(uri)
    assert "secret" not in str(refused.value)
    with pytest.raises(MlflowException) as named:
        FairleadRegistryStore(uri)
    assert named.value.error_code == "INVALID_PARAMETER_VALUE"


def test_an_address_with_a_path_is_refused() -> None:
    with pytest.raises(MlflowException, match="has a path"):
        FairleadRegistryStore("fairlead://registry.example/prefix")


def headers_of(asked: list[Asked]) -> list[tuple[str | None, bool]]:
    return [(each.headers.get("authorization"), "idempotency-key" in each.headers) for each in asked]


def test_each_server_is_told_its_own_token_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server([Answer(body=MODEL)]) as ours, scripted_server([Answer(body={"run": {}})]) as theirs:
        registry = ours.url.replace("http://", "fairlead://")
        client = MlflowClient(tracking_uri=theirs.url, registry_uri=registry)
        client.create_registered_model("iris")
        client.get_registered_model("iris")
        client.get_run("a1")
        assert headers_of(ours.asked) == [("Bearer fl_ours", True), ("Bearer fl_ours", False)]
        assert headers_of(theirs.asked) == [("Bearer theirs", False)]
        assert "fairlead/" in ours.asked[0].headers["user-agent"]
        assert "fairlead/" not in theirs.asked[0].headers["user-agent"]

        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "fairlead")
        monkeypatch.setenv("FAIRLEAD_URL", ours.url)
        client = MlflowClient(tracking_uri=theirs.url, registry_uri=ours.url)
        client.get_registered_model("iris")
        client.get_run("a1")
        assert headers_of(ours.asked[2:]) == [("Bearer fl_ours", False)]
        assert headers_of(theirs.asked[1:]) == [(None, False)]


def test_an_artifacts_address_leads_to_no_server_that_is_not_configured() -> None:
    mlflow.set_registry_uri("fairlead://127.0.0.1:9")
    try:
        with scripted_server([Answer()]) as theirs:
            uri = theirs.url.replace("http://", "fairlead://") + "/models/churn/1"
            with pytest.raises(MlflowException, match="is told no token") as refused:
                get_artifact_repository(uri).list_artifacts()
            assert refused.value.error_code == "PERMISSION_DENIED"
            assert theirs.asked == []
    finally:
        mlflow.set_registry_uri(None)  # pyright: ignore[reportArgumentType]


def test_a_token_that_the_server_knows_no_longer_is_renewed_once_and_never_sent_elsewhere(tmp_path: Path) -> None:
    unknown = Answer(status=401, body={"error_code": "UNAUTHENTICATED"})
    tokens = iter(["fl_second", "fl_third"])
    with scripted_server([unknown, Answer(body=MODEL), unknown]) as ours, scripted_server([unknown]) as theirs:
        transport = Transport(ours.url, "fl_first", timeout_seconds=5, renew=lambda: next(tokens))
        client = Fairlead(transport, ClientSettings(url=ours.url, home=tmp_path))
        with calling(client, is_creating=False):
            assert requests.get(ours.url, auth=FairleadAuth(), timeout=5).json() == MODEL
            assert requests.get(ours.url, auth=FairleadAuth(), timeout=5).status_code == 401
            requests.get(theirs.url, auth=FairleadAuth(), timeout=5)
        told = [authorization for authorization, _ in headers_of(ours.asked)]
        assert told == ["Bearer fl_first", "Bearer fl_second", "Bearer fl_second", "Bearer fl_third"]
        assert headers_of(theirs.asked) == [(None, False)]
        client.close()


@pytest.mark.parametrize("path", ["../2", "a/../../b", "/etc/passwd", "a//b", "./a"])
def test_a_path_leads_nowhere_but_down(path: str, tmp_path: Path) -> None:
    repository = get_artifact_repository("fairlead:///models/churn/1")
    with pytest.raises(MlflowException, match="leads to no files of a version") as refused:
        repository.download_artifacts(path, str(tmp_path))
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(MlflowException, match="never change"):
        repository.log_artifact(str(tmp_path / "file"))
