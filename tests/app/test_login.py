"""People log in to a real server at a real provider, by the command line, and may do what their groups' roles give."""

from __future__ import annotations

import json
import stat
import threading
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.app.http import Server, create_app, listen
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.cli.main import run
from fairlead.core.clock import SystemClock
from fairlead.core.errors import JsonValue, PermissionDenied, Unauthenticated
from fairlead.sdk.client import Fairlead
from fairlead.sdk.logins import Logins
from fairlead.sdk.settings import ClientSettings
from tests.servers.login_provider import CLIENT, LoginProvider, login_provider

LABELS = {"owner": "ana", "team": "risk", "cost_centre": "cc-7"}
RULES: list[JsonValue] = [
    {"claims": {"email": "*@example.org"}, "principal": "{email}", "scopes": ["admin"], "by_roles": True}
]
Command = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server's URL and its owner's token."""
    service = Service.build(
        ServerSettings(home=tmp_path_factory.mktemp("login") / "home"), SystemClock(), is_embedded=True
    )
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


@pytest.fixture
def owner(server: tuple[str, str], tmp_path: Path) -> Iterator[Fairlead]:
    with Fairlead.connect(ClientSettings(url=server[0], home=tmp_path / "owner", token=server[1])) as client:
        yield client


@pytest.fixture
def provider(owner: Fairlead) -> Iterator[LoginProvider]:
    """A provider that the workspace believes, for the time of a test."""
    with login_provider() as running:
        spec: dict[str, JsonValue] = {"issuer": running.url, "audience": CLIENT, "rules": RULES}
        owner.issuers.put("staff", {**spec, "client_id": CLIENT, "groups_claim": "groups"})
        yield running
        owner.issuers.delete("staff")


@pytest.fixture
def fairlead(
    server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command line of a person with a browser; exit code, data and messages."""
    monkeypatch.setenv("FAIRLEAD_URL", server[0])
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path / "person"))
    monkeypatch.setattr(webbrowser, "open", browse)

    def command(*arguments: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = run([*arguments, "--output", "json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return command


def browse(url: str) -> bool:
    with urllib.request.urlopen(url) as page:
        return b"close this window" in page.read()


@pytest.mark.usefixtures("provider")
def test_somebody_logs_in_with_the_browser_and_may_do_what_the_roles_of_a_group_give(
    fairlead: Command, owner: Fairlead, tmp_path: Path
) -> None:
    for name in ("login-churn", "login-fraud"):
        owner.models.create(name, labels=LABELS)
    code, done, _ = fairlead("login")
    assert (code, done["principal"], done["workspace"], done["issuer"]) == (0, "ana@example.org", "default", "staff")

    code, answer, _ = fairlead("whoami")
    assert (answer["groups"], answer["scopes"], answer["grants"], answer["roles"]) == (["risk"], [], [], [])
    assert answer["expires_at"] is not None
    assert fairlead("model", "list")[0] == 4

    bound = owner.role_bindings.bind("group:risk", "viewer", models="login-c*")
    assert [each["name"] for each in fairlead("model", "list")[1]] == ["login-churn"]
    assert fairlead("model", "show", "login-fraud")[0] == 3
    assert fairlead("model", "alias", "set", "login-churn", "x", "1")[0] in {2, 4}
    code, answer, _ = fairlead("whoami")
    assert answer["roles"] == ["viewer login-c* *"]
    assert answer["grants"] == [{"scopes": ["read"], "models": ["login-c*"], "environments": []}]
    owner.role_bindings.unbind(bound.id)
    assert fairlead("model", "list")[0] == 4

    kept = tmp_path / "person" / "logins.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert fairlead("logout")[0] == 0
    assert "fl_" not in kept.read_text()
    assert fairlead("whoami")[0] == 4


def test_somebody_without_a_browser_enters_a_code(provider: LoginProvider, fairlead: Command) -> None:
    code, done, said = fairlead("login", "--device")
    assert (code, done["principal"]) == (0, "ana@example.org")
    assert "ABCD-EFGH" in said
    assert provider.asked.count("/token") == 2, "at first nobody had entered it"
    provider.is_refusing = True
    code, _, said = fairlead("login", "--device")
    assert code == 4
    assert "access_denied" in said


def test_an_ended_token_is_renewed_silently_once_for_all_that_use_it(
    provider: LoginProvider, fairlead: Command, owner: Fairlead, server: tuple[str, str], tmp_path: Path
) -> None:
    fairlead("login")
    first = fairlead("whoami")[1]["token_id"]
    settings = ClientSettings(url=server[0], home=tmp_path / "person")
    with Fairlead.connect(settings) as one, Fairlead.connect(settings) as two:
        owner.tokens.revoke(first)
        asked = provider.asked.count("/token")
        second = one.whoami()["token_id"]
        assert two.whoami()["token_id"] == second != first
        assert provider.asked.count("/token") == asked + 1
        provider.refresh_tokens.clear()
        owner.tokens.revoke(str(second))
        with pytest.raises(Unauthenticated, match="invalid_grant"):
            one.whoami()


def test_a_login_that_cannot_be_renewed_says_to_log_in_again(
    provider: LoginProvider, fairlead: Command, owner: Fairlead
) -> None:
    provider.has_offline_access = False
    assert fairlead("login")[1]["is_renewed"] is False
    owner.tokens.revoke(fairlead("whoami")[1]["token_id"])
    code, _, said = fairlead("whoami")
    assert code == 4
    assert "fairlead login" in said


def test_an_answer_to_another_question_lets_nobody_in(
    provider: LoginProvider, fairlead: Command, tmp_path: Path, server: tuple[str, str]
) -> None:
    attacks: dict[str, Any] = {"forges_state": True, "says_iss": "https://evil.example", "is_refusing": True}
    for name, value in attacks.items():
        before = getattr(provider, name)
        setattr(provider, name, value)
        assert fairlead("login")[0] == 4
        setattr(provider, name, before)
    assert provider.asked.count("/token") == 0
    assert Logins(tmp_path / "person").find(server[0]) is None


def test_where_there_are_several_places_to_log_in_one_is_chosen(
    provider: LoginProvider, fairlead: Command, owner: Fairlead, server: tuple[str, str], tmp_path: Path
) -> None:
    """Two workspaces believe the same provider: each person says which one is meant."""
    made = owner.workspaces.create("side", owner="bea")
    assert made.owner is not None
    settings = ClientSettings(url=server[0], home=tmp_path / "bea", token=made.owner.secret)
    with Fairlead.connect(settings) as bea:
        spec: dict[str, JsonValue] = {"issuer": provider.url, "audience": CLIENT, "rules": RULES, "client_id": CLIENT}
        bea.issuers.put("staff", spec)
        code, _, said = fairlead("login")
        assert code == 2
        assert "staff of default, staff of side" in said
        assert fairlead("login", "--workspace", "side")[1]["workspace"] == "side"
        assert fairlead("whoami")[1]["workspace_id"] == "side"
        assert fairlead("login", "--issuer", "elsewhere")[0] == 2
        bea.issuers.delete("staff")


def test_a_service_account_of_kubernetes_is_a_principal(
    provider: LoginProvider, owner: Fairlead, server: tuple[str, str], tmp_path: Path
) -> None:
    """Its token names it as `system:serviceaccount:NAMESPACE:NAME`, and in a claim of Kubernetes' own by parts."""
    rule: dict[str, JsonValue] = {
        "claims": {"sub": "system:serviceaccount:training:*", "kubernetes.io/namespace": "training"},
        "principal": "k8s/{kubernetes.io/namespace}/{kubernetes.io/serviceaccount/name}",
        "scopes": ["read", "write"],
        "models": ["churn*"],
    }
    audience = "https://fairlead.example"
    keys = f"{provider.url}/keys"
    owner.issuers.put("cluster", {"issuer": provider.url, "audience": audience, "rules": [rule], "jwks_url": keys})
    file = tmp_path / "token"

    def project(namespace: str) -> None:
        """Put a token where Kubernetes puts it."""
        account = {"name": "trainer", "uid": "1"}
        claims: dict[str, Any] = {
            "sub": f"system:serviceaccount:{namespace}:trainer",
            "kubernetes.io": {"namespace": namespace, "serviceaccount": account, "pod": {"name": "job-1", "uid": "2"}},
        }
        file.write_text(provider.token(SystemClock().now(), audience=audience, **claims) + "\n")

    settings = ClientSettings(url=server[0], home=tmp_path / "pod", id_token_file=file)
    with pytest.raises(Unauthenticated, match="cannot be read"):
        Fairlead.connect(settings)
    project("training")
    with Fairlead.connect(settings) as client:
        answer = client.whoami()
        owner.tokens.revoke(str(answer["token_id"]))
        project("training")
        assert client.whoami()["principal"] == answer["principal"] == "k8s/training/trainer"
    assert answer["grants"] == [{"scopes": ["read", "write"], "models": ["churn*"], "environments": []}]
    project("default")
    with pytest.raises(PermissionDenied, match="No rule"):
        Fairlead.connect(settings)
    owner.issuers.delete("cluster")
