from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fairlead.core.ids import RegionId
from fairlead.serving.routing import Endpoint, Route, read_table, write_table
from tests.servers.process import running_server
from tests.serving.endpoints import FakeEndpoint, endpoints

US, EU_WEST, EU_AZURE = "aws:us-east-1", "gcp:europe-west4", "azure:westeurope"
BODY = {"entities": {"sample_id": ["a"]}}


def route(*running: FakeEndpoint, residency: str = "unrestricted") -> Route:
    return Route(
        residency=residency,
        endpoints=tuple(
            Endpoint(region=RegionId(each.region), url=each.url, bundle_digest="sha256:b", order=number)
            for number, each in enumerate(running)
        ),
    )


@contextmanager
def gateway(state: Path) -> Generator[httpx2.Client]:
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "fairlead.serving.gateway", "--state", str(state), "--port", str(port)]

    with (
        running_server("gateway", command, state.with_suffix(".log")) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Path, httpx2.Client]]:
    """One gateway for the tests of this file; each writes the table it needs."""
    state = tmp_path_factory.mktemp("gateway") / "routes.json"
    write_table(state, {})
    with gateway(state) as client:
        yield state, client


@pytest.fixture
def routes(shared: tuple[Path, httpx2.Client]) -> Callable[[dict[str, Route]], httpx2.Client]:
    def install(table: dict[str, Route]) -> httpx2.Client:
        write_table(shared[0], table)
        return shared[1]

    return install


Install = Callable[[dict[str, Route]], httpx2.Client]


def predict(client: httpx2.Client, name: str = "churn", **headers: str) -> httpx2.Response:
    return client.post(f"/{name}/predict", json=BODY, headers={key.replace("_", "-"): headers[key] for key in headers})


def test_a_trace_goes_on_through_the_gateway_and_credentials_do_not(routes: Install) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with endpoints(US) as (us,):
        predict(routes({"churn": route(us)}), traceparent=parent, tracestate="acme=1", authorization="Bearer secret")
        (_, _, headers) = us.requests[0]
    sent = {name.lower(): value for name, value in headers.items()}
    assert (sent["traceparent"], sent["tracestate"]) == (parent, "acme=1")
    assert "authorization" not in sent


def test_a_request_goes_to_the_first_endpoint_and_says_where_it_was_answered(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        answer = predict(routes({"churn": route(us, eu)}))
    assert answer.status_code == 200
    assert answer.json()["region"] == US
    assert answer.headers["x-fairlead-region"] == US
    assert answer.headers["x-fairlead-bundle"] == "sha256:b"
    assert answer.headers["x-fairlead-attempts"] == "1"
    assert us.requests[0][:2] == ("/predict", BODY)


def test_a_request_is_answered_from_the_next_region_when_an_endpoint_is_gone(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        client = routes({"churn": route(us, eu)})
        us.stop()
        answers = [predict(client) for _ in range(5)]
    assert [answer.json()["region"] for answer in answers] == [EU_WEST] * 5
    # The first one met the failure, the gateway remembered it.
    assert answers[0].headers["x-fairlead-attempts"] in {"1", "2"}
    assert answers[-1].headers["x-fairlead-attempts"] == "1"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_tried_again_elsewhere(routes: Install, status: int) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        us.status = status
        answer = predict(routes({"churn": route(us, eu)}))
        assert answer.status_code == 200
        assert answer.json()["region"] == EU_WEST


def test_a_mistake_of_the_caller_is_answered_once_and_not_repeated(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        us.status = 404
        answer = predict(routes({"churn": route(us, eu)}))
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:fairlead:error:invalid-input"
        assert not eu.requests


def test_an_error_of_every_endpoint_comes_back_as_a_problem(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        us.status = eu.status = 500
        answer = predict(routes({"churn": route(us, eu)}))
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-fairlead-attempts"] == "2"


def test_a_connection_that_closes_under_a_request_is_no_reason_to_give_up_its_endpoint(routes: Install) -> None:
    with endpoints(US) as (us,):
        client = routes({"churn": route(us)})
        assert predict(client).status_code == 200
        us.drops = 1
        answer = predict(client)
        assert answer.status_code == 200
        assert len(us.requests) == 3
        assert client.get("/churn").json()["endpoints"][0]["is_healthy"]


def test_a_request_that_always_ends_its_connection_is_answered_elsewhere(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        us.drops = 100
        assert predict(routes({"churn": route(us, eu)})).json()["region"] == EU_WEST
        assert len(us.requests) == 2


def test_an_answer_that_cannot_be_read_counts_as_none_and_the_health_checks_go_on(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        client = routes({"churn": route(us, eu)})
        us.headers = {"content-encoding": "gzip"}
        assert predict(client).json()["region"] == EU_WEST
        us.headers = {}
        assert until(lambda: predict(client).json()["region"] == US)
        us.stop()
        assert until(lambda: not client.get("/churn").json()["endpoints"][0]["is_healthy"])


def test_an_answer_without_end_is_not_taken_into_memory(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        us.padding = 33 * 2**20
        assert predict(routes({"churn": route(us, eu)})).json()["region"] == EU_WEST


def test_what_one_endpoint_wants_remembered_never_reaches_another(routes: Install) -> None:
    with endpoints(EU_WEST, US) as (eu, us):
        client = routes({"eu-model": route(eu, residency="eu"), "churn": route(us)})
        eu.headers = {"set-cookie": "patient=ana; Path=/"}
        assert predict(client, "eu-model").status_code == 200
        assert predict(client, "churn").status_code == 200
        assert not {key.lower() for key in us.requests[0][2]} & {"cookie"}


def test_an_endpoint_is_used_again_once_it_is_back(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        client = routes({"churn": route(us, eu)})
        us.stop()
        assert predict(client).json()["region"] == EU_WEST
        back = FakeEndpoint(US, us.port)
        try:
            assert until(lambda: predict(client).json()["region"] == US)
        finally:
            back.stop()


def test_the_health_checks_find_a_dead_endpoint_before_a_request_does(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        client = routes({"churn": route(us, eu)})
        us.stop()
        assert until(lambda: not client.get("/churn").json()["endpoints"][0]["is_healthy"])
        assert predict(client).headers["x-fairlead-attempts"] == "1"


def test_an_eu_only_deployment_is_never_answered_from_outside_the_eu(routes: Install) -> None:
    with endpoints(US, EU_WEST, EU_AZURE) as (us, west, azure):
        client = routes({"eu-model": route(us, west, azure, residency="eu")})
        assert predict(client, "eu-model").json()["region"] == EU_WEST
        west.stop()
        assert predict(client, "eu-model", x_fairlead_prefer=US).json()["region"] == EU_AZURE
        azure.stop()
        answer = predict(client, "eu-model")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:fairlead:error:endpoint-unavailable"
        assert US not in answer.json()["regions"]
        assert not us.requests


def test_the_caller_may_name_a_region_or_the_area_it_is_in(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        client = routes({"churn": route(us, eu)})
        assert predict(client, x_fairlead_prefer=EU_WEST).json()["region"] == EU_WEST
        assert predict(client, x_fairlead_area="new-york").json()["region"] == US
        assert predict(client, x_fairlead_area="paris").json()["region"] == EU_WEST
        assert predict(client, x_fairlead_area="atlantis").json()["type"] == "urn:fairlead:error:unknown-area"


def test_a_changed_table_is_followed_by_the_next_request_and_a_damaged_one_is_not(
    routes: Install, shared: tuple[Path, httpx2.Client]
) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        assert predict(routes({"churn": route(us)})).json()["region"] == US
        client = routes({"churn": route(eu)})
        assert predict(client).json()["region"] == EU_WEST
        shared[0].write_text("{ not json")
        assert predict(client).json()["region"] == EU_WEST
        shared[0].unlink()
        assert predict(client).json()["region"] == EU_WEST


def test_what_does_not_exist_is_named(routes: Install) -> None:
    client = routes({})
    assert predict(client, "nothing").json()["type"] == "urn:fairlead:error:deployment-not-found"
    assert client.post("/churn/metrics", json={}).json()["type"] == "urn:fairlead:error:invalid-input"


def test_a_page_of_another_origin_is_refused(routes: Install) -> None:
    with endpoints(US) as (us,):
        client = routes({"churn": route(us)})
        for headers in (
            {"origin": "https://evil.example"},
            {"host": "evil.example"},
            {"host": "localhost.evil.example"},
        ):
            assert client.post("/churn/predict", json=BODY, headers=headers).status_code == 403
        assert not us.requests


def test_the_caller_s_credentials_do_not_reach_the_endpoint(routes: Install) -> None:
    with endpoints(US) as (us,):
        predict(routes({"churn": route(us)}), authorization="Bearer fl_secret", cookie="a=b")
        sent = {key.lower() for key in us.requests[0][2]}
    assert not sent & {"authorization", "cookie"}


def test_a_table_read_back_is_the_table_that_was_written_less_what_residency_forbids(tmp_path: Path) -> None:
    def endpoint(region: str) -> Endpoint:
        return Endpoint(region=RegionId(region), url="http://127.0.0.1:1", bundle_digest="sha256:b")

    path = tmp_path / "routes.json"
    everywhere = Route(residency="unrestricted", endpoints=(endpoint(US), endpoint(EU_WEST)))
    write_table(path, {"a": everywhere, "b": Route(residency="eu", endpoints=everywhere.endpoints)})
    assert read_table(path) == {"a": everywhere, "b": Route(residency="eu", endpoints=(endpoint(EU_WEST),))}
    raw: dict[str, Any] = json.loads(path.read_text())
    raw["deployments"]["b"]["residency"] = "atlantis"
    path.write_text(json.dumps(raw))
    assert read_table(path) is None


def until(is_true: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_true():
            return True
        time.sleep(0.05)
    return False


def split(name: str, running: list[FakeEndpoint], weights: list[int], **members: Any) -> dict[str, Route]:
    found = tuple(
        Endpoint(region=RegionId(each.region), url=each.url, bundle_digest=f"sha256:{number}", weight=weight, **members)
        for number, (each, weight) in enumerate(zip(running, weights, strict=True))
    )
    return {name: Route(residency="unrestricted", endpoints=found)}


def test_two_revisions_of_a_region_share_its_requests_by_weight_and_a_key_always_gets_the_same(
    routes: Install,
) -> None:
    with endpoints(US, US) as running:
        client = routes(split("split", running, [25, 75]))
        answers = [predict(client, "split", x_fairlead_key=str(number)) for number in range(200)]
        given = [answer.headers["x-fairlead-bundle"] for answer in answers]
        again = [predict(client, "split", x_fairlead_key=str(number)) for number in range(20)]
    assert 30 <= given.count("sha256:0") <= 70
    assert [answer.headers["x-fairlead-bundle"] for answer in again] == given[:20]


def test_a_revision_that_fails_is_measured_and_the_other_one_answers(routes: Install) -> None:
    with endpoints(US, US) as (new, old):
        new.status = 500
        client = routes(split("measured", [new, old], [50, 50]))
        statuses = {predict(client, "measured").status_code for _ in range(40)}
        measured = client.get("/-/measurements").json()["items"]
    assert statuses == {200}
    found = {each["bundle_digest"]: each for each in measured if each["deployment"] == "measured"}
    assert found["sha256:0"]["requests"] == found["sha256:0"]["errors"] > 0
    assert (found["sha256:1"]["requests"], found["sha256:1"]["errors"]) == (40, 0)
    assert sum(found["sha256:1"]["latencies"].values()) == 40


def test_an_endpoint_that_calls_itself_something_else_each_time_is_counted_as_what_it_is(routes: Install) -> None:
    with endpoints(US) as (one,):
        client = routes(split("many", [one], [100]))
        for number in range(0x21, 0xA1):
            one.headers["x-fairlead-endpoint"] = f"many/sha256:{chr(number)}"
            predict(client, "many")
        measured = [each for each in client.get("/-/measurements").json()["items"] if each["deployment"] == "many"]
    assert sum(each["requests"] for each in measured) == 128
    assert len(measured) <= 65


def test_a_revision_without_a_share_gets_nothing_unless_nothing_else_answers(routes: Install) -> None:
    with endpoints(US, US) as (new, old):
        client = routes(split("blue", [new, old], [100, 0]))
        assert {predict(client, "blue").headers["x-fairlead-bundle"] for _ in range(20)} == {"sha256:0"}
        new.stop()
        assert predict(client, "blue").headers["x-fairlead-bundle"] == "sha256:1"


def test_a_placement_s_shares_of_an_area_decide_between_regions(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        shares = [{"new-york": 0.5, "paris": 1.0}, {"new-york": 0.5}]
        placed = tuple(
            Endpoint(region=RegionId(each.region), url=each.url, bundle_digest="sha256:b", shares=share)
            for each, share in zip((us, eu), shares, strict=True)
        )
        client = routes({"placed": Route(residency="unrestricted", endpoints=placed)})
        regions = [predict(client, "placed", x_fairlead_area="new-york").json()["region"] for _ in range(60)]
        # Paris is nearer to the other one, and the placement says otherwise.
        assert {predict(client, "placed", x_fairlead_area="paris").json()["region"] for _ in range(10)} == {US}
    assert 10 <= regions.count(EU_WEST) <= 50


def test_an_endpoint_that_says_it_is_another_gets_no_requests(routes: Install) -> None:
    with endpoints(US, EU_WEST) as (us, eu):
        us.headers["x-fairlead-endpoint"] = "default/churn/aws:us-east-1/sha256:0"
        eu.headers["x-fairlead-endpoint"] = "default/other/gcp:europe-west4/sha256:1"
        found = tuple(
            Endpoint(
                region=RegionId(each.region),
                url=each.url,
                bundle_digest=f"sha256:{number}",
                order=1 - number,
                identity=f"default/churn/{each.region}/sha256:{number}",
            )
            for number, each in enumerate((us, eu))
        )
        client = routes({"named": Route(residency="unrestricted", endpoints=found)})
        answers = [predict(client, "named") for _ in range(5)]
        assert {answer.json()["region"] for answer in answers} == {US}
        # At most the first request was sent there, and its answer was thrown away.
        assert len(eu.requests) <= 1
        described = client.get("/named").json()["endpoints"]
    assert {each["region"]: each["is_healthy"] for each in described} == {US: True, EU_WEST: False}
    assert [each["error"] for each in described if not each["is_healthy"]] == ["SomebodyElse"]
