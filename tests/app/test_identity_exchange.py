"""A CI job's identity token opens a real server through the SDK, as its admin said by the SDK, and only there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.app.http import Server, create_app, listen
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.core.clock import SystemClock
from fairlead.core.errors import InvalidInput, JsonValue, PermissionDenied, Unauthenticated
from fairlead.sdk.client import Fairlead
from fairlead.sdk.settings import ClientSettings
from tests.servers.identity_issuer import loopback_issuer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A server's URL and its owner's token."""
    service = Service.build(ServerSettings(home=tmp_path / "home"), SystemClock(), is_embedded=True)
    listener = listen("127.0.0.1", 0)
    process = Server(create_app(service, instance="one"))
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", service.issue_owner_token()
    finally:
        process.should_exit = True
        thread.join()
        service.close()


def test_a_job_without_a_secret_is_who_its_issuer_says(server: tuple[str, str], tmp_path: Path) -> None:
    url, secret = server
    with loopback_issuer() as issuer:

        def job(**claims: Any) -> Fairlead:
            token = issuer.token(SystemClock().now(), audience=claims.pop("audience", url), **claims)
            return Fairlead.connect(ClientSettings(url=url, home=tmp_path / "job", id_token=token))

        rules: list[JsonValue] = [
            {"claims": {"repository": "acme/*"}, "principal": "ci/{repository}", "scopes": ["read"]}
        ]
        with Fairlead.connect(ClientSettings(url=url, home=tmp_path / "owner", token=secret)) as owner:
            put = owner.issuers.put("github", {"issuer": issuer.url, "audience": url, "rules": rules}, revision=0)
            assert owner.issuers.get("github") == put
            assert list(owner.issuers.list()) == [put]
            with pytest.raises(InvalidInput):
                owner.issuers.put("github", {"issuer": "http://issuer.example", "audience": url, "rules": rules})
            with job(sub="repo", repository="acme/churn") as client:
                assert client.whoami()["principal"] == "ci/acme/churn"
                assert client.whoami()["scopes"] == ["read"]
                with pytest.raises(PermissionDenied):
                    client.issuers.delete("github")
            with pytest.raises(PermissionDenied), job(sub="repo", repository="evil/churn") as client:
                client.whoami()
            with pytest.raises(Unauthenticated), job(sub="repo", audience="https://other.example") as client:
                client.whoami()
            owner.issuers.delete("github", revision=1)
            with pytest.raises(Unauthenticated), job(sub="repo", repository="acme/churn") as client:
                client.whoami()
