"""Identity tokens of a loopback issuer with real keys are exchanged, and whatever is wrong with one is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from fairlead.core.errors import (
    FairleadError,
    InvalidInput,
    IssuerNotFound,
    PermissionDenied,
    StaleRevision,
    Unauthenticated,
    Unavailable,
)
from fairlead.registry.access import OPEN_ROUTES
from fairlead.registry.audit import AuditLog
from fairlead.registry.identity import IssuedToken, bootstrap
from fairlead.registry.issuers import Issuers, Rule, identify
from fairlead.registry.paging import PageRequest
from fairlead.registry.token_exchange import TokenExchange
from tests.record_world import World
from tests.servers.identity_issuer import EC, RSA, LoopbackIssuer, loopback_issuer, to_answer
from tests.servers.token_services import Answer, Request, serving

AUDIENCE = "https://fairlead.example"
RSA_NEW = RSAKey.generate_key(2048, {"kid": "new"})
RULES = (
    Rule(
        claims={"repository": "acme/*", "ref": "refs/heads/main"},
        principal="ci/{repository}",
        scopes=("read", "promote"),
    ),
    Rule(claims={"repository": "acme/churn"}, principal="builder", scopes=("read",)),
)


@dataclass(frozen=True, slots=True)
class Scene:
    world: World
    issuer: LoopbackIssuer
    issuers: Issuers
    exchange: TokenExchange

    def put(self, name: str = "github", **more: Any) -> None:
        wanted: dict[str, Any] = {"issuer": self.issuer.url, "audience": AUDIENCE, "rules": RULES, **more}
        self.issuers.put(self.world.owner, name, **wanted)

    def token(self, key: Any = RSA, **more: Any) -> str:
        claims: dict[str, Any] = {
            "audience": AUDIENCE,
            "sub": "repo:acme/churn",
            "repository": "acme/churn",
            "ref": "refs/heads/main",
        }
        return self.issuer.token(self.world.clock.now(), key=key, **{**claims, **more})

    def events(self, action: str) -> list[Any]:
        log = AuditLog(self.world.database)
        return list(log.list(self.world.owner, PageRequest(), action=action).items)


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    with loopback_issuer() as issuer:
        made = Scene(world, issuer, Issuers(world.database, world.clock), TokenExchange(world.database, world.clock))
        made.put()
        yield made


def test_keys_are_fetched_only_from_hosts_that_the_operator_lists_and_never_from_metadata_services(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchange(*hosts: str) -> IssuedToken:
        return TokenExchange(scene.world.database, scene.world.clock, hosts=hosts).exchange(scene.token())

    with pytest.raises(Unavailable, match="cannot be had"):
        exchange("login.example.com")
    assert scene.issuer.asked == []
    assert exchange("127.0.0.1").secret

    def look_up(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]  # what a name stands for now

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(Unavailable, match="cannot be had"):
        TokenExchange(scene.world.database, scene.world.clock).exchange(scene.token())


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_a_job_gets_a_short_lived_token_with_its_rules_principal_and_scopes(scene: Scene, key: Any) -> None:
    issued = scene.exchange.exchange(scene.token(key))
    caller = scene.world.tokens.authenticate(issued.secret)
    assert (caller.principal, caller.scopes) == ("ci/acme/churn", {"read", "promote"})
    assert caller.workspace_id == scene.world.owner.workspace_id
    scene.world.clock.advance(timedelta(seconds=301))  # it ends with the job's own
    with pytest.raises(Unauthenticated, match="expired"):
        scene.world.tokens.authenticate(issued.secret)
    (event,) = scene.events("token.exchange")
    assert event.actor == "fairlead:token-exchange"
    assert (event.facts["issuer"], event.facts["subject"], event.facts["rule"]) == (
        scene.issuer.url,
        "repo:acme/churn",
        1,
    )


def test_no_token_lives_longer_than_a_quarter_of_an_hour_and_one_may_be_exchanged_again(scene: Scene) -> None:
    token = scene.token(exp=int(scene.world.clock.now().timestamp()) + 86_400, aud=["other", AUDIENCE])
    for _ in range(2):
        issued = scene.exchange.exchange(token)
        assert issued.token.expires_at == scene.world.clock.now() + timedelta(minutes=15)


def test_the_first_rule_that_matches_says_who_it_is_and_without_one_nobody_is(scene: Scene) -> None:
    branch = scene.exchange.exchange(scene.token(ref="refs/heads/try"))
    assert (branch.token.principal, branch.token.scopes) == ("builder", ("read",))
    for claims in ({"repository": "evil/churn"}, {"repository": None}, {"repository": ["acme/churn"]}):
        with pytest.raises(PermissionDenied, match="No rule"):
            scene.exchange.exchange(scene.token(**claims))
    with pytest.raises(PermissionDenied, match="makes no principal"):
        identify([Rule(claims={"a": "*"}, principal="{a}", scopes=("read",))], {"a": "fairlead:worker"})
    with pytest.raises(PermissionDenied, match="not there"):
        identify([Rule(claims={"a": "*"}, principal="ci/{b}", scopes=("read",))], {"a": "x"})
    assert identify([Rule(claims={"a": "true"}, principal="p", scopes=("read",))], {"a": True}).number == 1


def test_claims_that_are_wrong_or_missing_are_refused(scene: Scene) -> None:
    cases: list[dict[str, Any]] = [
        {"aud": "https://other.example"}, {"aud": None}, {"iss": "https://other.example"}, {"iss": None},
        {"iss": "a\0"}, {"sub": None}, {"sub": ""}, {"sub": 7}, {"exp": None}, {"exp": 1}, {"exp": "soon"},
        {"exp": 10**30}, {"exp": True}, {"iat": None}, {"iat": 2**33 - 1}, {"nbf": 2**33 - 1},
    ]  # fmt: skip
    for wrong in cases:
        with pytest.raises(Unauthenticated):
            scene.exchange.exchange(scene.token(**wrong))


def test_an_issuers_clock_may_be_a_minute_ahead_but_nothing_is_added_to_the_end(scene: Scene) -> None:
    now = int(scene.world.clock.now().timestamp())
    scene.exchange.exchange(scene.token(iat=now + 59))
    for wrong in ({"iat": now + 62}, {"exp": now}):
        with pytest.raises(Unauthenticated):
            scene.exchange.exchange(scene.token(**wrong))


def test_signatures_that_are_not_the_issuers_are_refused(scene: Scene) -> None:
    stranger = RSAKey.generate_key(2048, {"kid": "rsa"})
    head, body, signature = scene.token().split(".")
    other_body = scene.token(repository="acme/other").split(".")[1]
    public = RSA.as_pem(private=False)
    for token in (
        scene.token(stranger),
        scene.token(stranger, header={"jwk": stranger.as_dict(private=False)}),
        scene.token(EC, header={"kid": "rsa"}),
        f"{head}.{other_body}.{signature}",
        f"{head}.{body}.",
        f"{_segment({'alg': 'none'})}.{body}.",
        f"{_segment({'alg': 'none', 'kid': 'rsa'})}.{body}.{signature}",
        f"{_segment({'alg': ['RS256'], 'kid': 'rsa'})}.{body}.{signature}",
        f"{_segment({'alg': 'RS256'})}.{body}.{signature}",
        _hmac(public, {"alg": "HS256", "kid": "rsa"}, body),
        f"{head}.{_segment({'iss': chr(0xD800), 'aud': AUDIENCE})}.{signature}",
        "a.b",
        "....",
        f"{head}.{_encode(b'[' * 9000)}.{signature}",
        "x" * 20_000,
    ):
        with pytest.raises(Unauthenticated) as refused:
            scene.exchange.exchange(token)
        assert signature not in str(refused.value.detail)
    assert scene.events("token.exchange") == []


def test_the_address_of_keys_that_a_token_names_is_never_asked(scene: Scene) -> None:
    stranger = RSAKey.generate_key(2048, {"kid": "theirs"})
    evil = LoopbackIssuer(keys=[stranger])
    with serving(evil) as url:
        header = {"jku": f"{url}/keys", "x5u": f"{url}/cert"}
        with pytest.raises(Unauthenticated, match="has no key 'theirs'"):
            scene.exchange.exchange(scene.token(stranger, header=header))
    assert evil.asked == []


def test_keys_are_kept_and_a_new_one_is_looked_for_once_a_minute(scene: Scene) -> None:
    for _ in range(3):
        scene.exchange.exchange(scene.token())
    assert scene.issuer.asked == ["/.well-known/openid-configuration", "/keys"]
    scene.issuer.keys = [RSA_NEW]
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="has no key 'new'"):
            scene.exchange.exchange(scene.token(RSA_NEW))
    assert len(scene.issuer.asked) == 2
    scene.world.clock.advance(timedelta(seconds=61))
    scene.exchange.exchange(scene.token(RSA_NEW))
    with pytest.raises(Unauthenticated):  # and what the issuer withdrew is gone
        scene.exchange.exchange(scene.token())


@pytest.mark.parametrize(
    "answer",
    [
        (302, {"Location": "/keys"}, b""), (500, {}, b""), (200, {}, b"no"), (200, {}, b"[]"), (200, {}, b"{}"),
        (200, {}, b" " * 300_000), (200, {}, b'{"issuer":"https://other.example","jwks_uri":"https://other.example"}'),
    ],
)  # fmt: skip
def test_an_issuer_that_answers_otherwise_is_not_believed(scene: Scene, answer: Answer) -> None:
    scene.issuer.answer_as = answer
    for _ in range(2):
        with pytest.raises(Unavailable):
            scene.exchange.exchange(scene.token())
    assert len(scene.issuer.asked) == 1


def test_keys_at_another_host_need_an_admins_word(scene: Scene) -> None:
    keys = LoopbackIssuer()
    with serving(keys) as url:
        scene.issuer.answer_as = to_answer({"issuer": scene.issuer.url, "jwks_uri": f"{url}/keys"})
        with pytest.raises(Unavailable):
            scene.exchange.exchange(scene.token())
        assert keys.asked == []
        scene.put(jwks_url=f"{url}/keys")
        scene.exchange.exchange(scene.token())
        assert keys.asked == ["/keys"]


def test_where_two_workspaces_believe_the_same_issuer_and_audience_neither_is_chosen(scene: Scene) -> None:
    world = scene.world
    other = bootstrap(world.database, world.clock, principal="eve", workspace_id=f"{world.owner.workspace_id[:40]}-o")
    eve = world.tokens.authenticate(other.secret)
    scene.issuers.put(eve, "hers", issuer=scene.issuer.url, audience="https://hers.example", rules=RULES)
    scene.exchange.exchange(scene.token())
    issued = scene.exchange.exchange(scene.token(aud="https://hers.example"))
    assert world.tokens.authenticate(issued.secret).workspace_id == eve.workspace_id
    both = scene.token(aud=[AUDIENCE, "https://hers.example"])
    with pytest.raises(Unauthenticated, match="More than one workspace"):
        scene.exchange.exchange(both)
    for caller in (world.owner, eve):
        issued = scene.exchange.exchange(both, workspace=caller.workspace_id)
        assert world.tokens.authenticate(issued.secret).workspace_id == caller.workspace_id
    with pytest.raises(Unauthenticated, match="no issuer"):
        scene.exchange.exchange(both, workspace="elsewhere")


def test_an_issuer_is_applied_under_a_fence_and_audited(scene: Scene) -> None:
    owner = scene.world.owner
    scene.put()
    assert scene.issuers.get(owner, "github").revision == 1  # nothing changed
    with pytest.raises(StaleRevision):
        scene.put(audience="https://two.example", expected_revision=0)
    scene.put(audience="https://two.example", expected_revision=1)
    assert [each.revision for each in scene.issuers.list(owner, PageRequest()).items] == [2]
    with pytest.raises(StaleRevision):
        scene.issuers.delete(owner, "github", expected_revision=1)
    scene.issuers.delete(owner, "github", expected_revision=2)
    with pytest.raises(IssuerNotFound):
        scene.issuers.get(owner, "github")
    with pytest.raises(Unauthenticated, match="no issuer"):
        scene.exchange.exchange(scene.token())
    assert len(scene.events("issuer.put")) == 2
    assert len(scene.events("issuer.delete")) == 1


def test_an_issuer_that_could_not_be_believed_safely_is_refused(scene: Scene) -> None:
    cases: list[dict[str, Any]] = [
        {"issuer": "http://issuer.example"}, {"issuer": "https://a:b@issuer.example"}, {"issuer": "https://x/?a=b"},
        {"issuer": "https://"}, {"issuer": "https://x:y"}, {"issuer": "file:///etc/passwd"}, {"issuer": "https://x y"},
        {"jwks_url": "http://issuer.example/keys"}, {"audience": ""}, {"audience": "a\0"}, {"rules": ()},
        {"rules": [Rule(claims={}, principal="p", scopes=("read",))]},
        {"rules": [Rule(claims={"a": ""}, principal="p", scopes=("read",))]},
        {"rules": [Rule(claims={"a": "*"}, principal="{a", scopes=("read",))]},
        {"rules": [Rule(claims={"a": "*"}, principal="{}", scopes=("read",))]},
        {"rules": [Rule(claims={"a": "*"}, principal="fairlead:{a}", scopes=("read",))]},
        {"rules": [Rule(claims={"a": "*"}, principal="p", scopes=())]},
    ]  # fmt: skip
    for wrong in cases:
        with pytest.raises(InvalidInput):
            scene.put("wrong", **wrong)


def test_two_routes_alone_are_open_beside_what_describes_the_server() -> None:
    assert {"POST /api/v1/tokens/exchange", "GET /api/v1/login"} == OPEN_ROUTES


def test_a_slow_issuer_holds_no_transaction(scene: Scene) -> None:
    """While the issuer is asked, others write."""
    started, goes_on = threading.Event(), threading.Event()
    answer = scene.issuer.__call__

    def slow(request: Request) -> Answer:
        started.set()
        assert goes_on.wait(5)
        return answer(request)

    outcome: list[object] = []

    def run(token: str) -> None:
        try:
            outcome.append(scene.exchange.exchange(token))
        except FairleadError as error:
            outcome.append(error)

    with serving(slow) as url:
        scene.put(jwks_url=f"{url}/keys")
        thread = threading.Thread(target=run, args=(scene.token(),))
        thread.start()
        assert started.wait(5)
        scene.put(rules=RULES[1:], jwks_url=f"{url}/keys")
        goes_on.set()
        thread.join(10)
    # What was read before the change is not what is believed after it.
    assert isinstance(outcome[0], Unauthenticated)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _segment(value: object) -> str:
    return _encode(json.dumps(value).encode())


def _hmac(secret: bytes, header: dict[str, Any], body: str) -> str:
    signed = f"{_segment(header)}.{body}"
    return f"{signed}.{_encode(hmac.digest(secret, signed.encode(), hashlib.sha256))}"
