"""A CI job says who it is with its own identity token, against loopback stubs of GitHub and of the exchange."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import InvalidInput, Unauthenticated
from fairlead.sdk.client import Fairlead
from fairlead.sdk.identity_tokens import IdentitySource, exchange
from fairlead.sdk.settings import ClientSettings
from tests.sdk.scripted_server import Answer, scripted_server

WHO = Answer(body={"principal": "ci"})


def settings(tmp_path: Path, url: str, **more: Any) -> ClientSettings:
    return ClientSettings(url=url, home=tmp_path, timeout_seconds=5, **more)


def test_a_github_job_asks_for_a_token_for_the_server_and_exchanges_it(tmp_path: Path) -> None:
    with (
        scripted_server([Answer(body={"value": "aaa.bbb.ccc"})]) as github,
        scripted_server([Answer(status=201, body={"secret": "fl_short"}), WHO]) as server,
    ):
        asked = settings(
            tmp_path, server.url, actions_request_url=f"{github.url}/token?v=1", actions_request_token="request"
        )
        with Fairlead.connect(asked) as client:
            assert client.whoami() == {"principal": "ci"}
        (wanted,) = github.asked
        assert wanted.headers["authorization"] == "Bearer request"
        assert "v=1" in wanted.path
        assert "audience=http%3A%2F%2F127.0.0.1" in wanted.path
        exchanged, who = server.asked
        assert (exchanged.method, exchanged.path) == ("POST", "/api/v1/tokens/exchange")
        assert json.loads(exchanged.body) == {"token": "aaa.bbb.ccc"}
        assert who.headers["authorization"] == "Bearer fl_short"


def test_a_gitlab_job_exchanges_the_token_in_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAIRLEAD_ID_TOKEN", "ddd.eee.fff")
    monkeypatch.delenv("FAIRLEAD_TOKEN", raising=False)
    with scripted_server([Answer(body={"secret": "fl_short"}), WHO]) as server:
        with Fairlead.connect(ClientSettings.read(url=server.url, home=tmp_path)) as client:
            client.whoami()
        assert json.loads(server.asked[0].body) == {"token": "ddd.eee.fff"}


def test_a_token_that_is_set_goes_first(tmp_path: Path) -> None:
    with scripted_server([WHO]) as server:
        with Fairlead.connect(settings(tmp_path, server.url, token="fl_own", id_token="a.b.c")) as client:
            client.whoami()
        (asked,) = server.asked
        assert asked.headers["authorization"] == "Bearer fl_own"


def test_a_job_that_waits_longer_than_its_token_lives_gets_another(tmp_path: Path) -> None:
    expired = Answer(status=401, body={"type": "urn:fairlead:error:unauthenticated", "detail": "It has expired."})
    with scripted_server([Answer(body={"secret": "fl_1"}), expired, Answer(body={"secret": "fl_2"}), WHO]) as server:
        with Fairlead.connect(settings(tmp_path, server.url, id_token="a.b.c")) as client:
            assert client.whoami() == {"principal": "ci"}
        assert [asked.headers.get("authorization") for asked in server.asked] == [
            None,
            "Bearer fl_1",
            None,
            "Bearer fl_2",
        ]


def test_an_identity_is_not_shown_where_others_can_see_it() -> None:
    with pytest.raises(InvalidInput, match="does not speak TLS"):
        exchange("http://fairlead.example", IdentitySource(id_token="a.b.c"))


def test_an_issuer_that_is_not_believed_is_said_so() -> None:
    refused = Answer(status=401, body={"type": "urn:fairlead:error:unauthenticated", "detail": "Unknown issuer."})
    with scripted_server([refused]) as server, pytest.raises(Unauthenticated, match="Unknown issuer"):
        exchange(server.url, IdentitySource(id_token="a.b.c"))


def test_a_job_without_the_permission_learns_which_one() -> None:
    with scripted_server([Answer(status=403, body={})]) as github:
        source = IdentitySource(request_url=github.url, request_token="r")
        with pytest.raises(Unauthenticated) as refused:
            source.token("https://fairlead.example")
        assert "id-token: write" in (refused.value.hint or "")
