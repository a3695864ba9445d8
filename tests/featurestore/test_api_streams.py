"""The routes of streams, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fairlead.catalog import load_catalog
from fairlead.core.errors import FairleadError, InvalidInput, ResidencyViolation
from fairlead.featurestore.event_logs import EventLogs
from fairlead.featurestore.pushed_rows import columns_of_json
from fairlead.featurestore.pushes import FeaturePushes
from tests.featurestore.feature_fleet import FeatureFleet, day, entity_rows, open_feature_fleet
from tests.featurestore.test_api import API, ipc, make_app
from tests.featurestore.test_streams import EU, US, arrow, definitions, row
from tests.fleet import ADMIN

ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
PUSH = f"{API}/push/measurements?region={US}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path_factory.mktemp("streams")) as fleet:
        fleet.cells([(1, 0, 1.0)])
        fleet.genes([(1, 1, "a")])
        fleet.apply(definitions(fleet))
        yield fleet


@pytest.fixture
def http(world: FeatureFleet) -> Iterator[TestClient]:
    with TestClient(make_app(world), headers={"authorization": "Bearer admin"}) as client:
        yield client


def test_rows_are_pushed_as_json_or_arrow(http: TestClient) -> None:
    body = {"rows": [row(1, 5, 1.5), row(2, 5, 2.5)], "event_ids": ["a", "b"]}
    taken = http.post(PUSH, json=body).json()
    assert (taken["source"], taken["region"]) == ("measurements", US)
    assert [(each["view"], each["accepted"], each["is_online"]) for each in taken["views"]] == [("cells", 2, False)]
    table = entity_rows([(2, 5), (3, 5)], radius=arrow.array([2.5, 3.5]), event_id=["b", "c"])
    again = http.post(PUSH, content=ipc(table), headers=ARROW).json()["views"][0]
    assert (again["accepted"], again["duplicates"]) == (1, 1)
    offline = http.post(f"{PUSH}&to=offline", json={"rows": [row(4, 5, 4.5)]}).json()["views"][0]
    assert offline["is_online"] is None
    (log,) = http.get(f"{API}/views/cells/logs").json()["items"]
    assert (log["region"], log["rows"]) == (US, 4)
    assert [(each["region"], each["behind_rows"]) for each in log["regions"]] == [(US, 0), (EU, 4)]


def test_rows_that_do_not_fit_are_named_and_none_is_taken(http: TestClient) -> None:
    answer = http.post(PUSH, json={"rows": [row(1, 5, 1.0), row(2, 5, "secret")]})
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "urn:fairlead:error:feature-rows-invalid")
    assert problem["rows"] == [{"row": 1, "column": "radius", "reason": "is no FLOAT"}]
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"rows": 1}', b'{"rows": [1]}', b'{"rows": [{}], "more": 1}', b"\xff\xfe"]
)
def test_a_body_that_is_not_of_rows_is_refused(http: TestClient, body: bytes) -> None:
    assert http.post(PUSH, content=body, headers={"content-type": "application/json"}).status_code in {400, 422}
    assert http.post(PUSH, content=body, headers=ARROW).status_code == 400


def test_a_push_source_says_its_topic_and_its_views(http: TestClient) -> None:
    assert http.get(f"{API}/push/measurements").json() == {
        "name": "measurements",
        "kind": "PUSH_SOURCE",
        "topic": "measurements",
        "format": None,
        "views": ["cells"],
        "transformed": [],
    }
    assert http.get(f"{API}/push/nothing").status_code == 404
    assert http.get(f"{API}/views/nothing/logs").status_code == 404


def test_only_who_may_write_pushes_and_nobody_of_another_workspace(http: TestClient) -> None:
    body = json.dumps({"rows": [row(1, 5, 1.0)]})
    for token, status in (("reader", 403), ("stranger", 404)):
        assert http.post(PUSH, content=body, headers={"authorization": f"Bearer {token}"}).status_code == status


@pytest.mark.parametrize(
    ("home", "source", "region", "refused"),
    [
        (None, "measurements", US, None),
        (None, "measurements", None, InvalidInput),
        (None, "sequencer", EU, ResidencyViolation),
        (EU, "sequencer", None, None),
        (US, "sequencer", None, ResidencyViolation),
        (US, "measurements", None, None),
        (US, "measurements", EU, InvalidInput),
    ],
)
def test_a_server_takes_rows_where_it_says_it_is(
    world: FeatureFleet,
    tmp_path: Path,
    *,
    home: str | None,
    source: str,
    region: str | None,
    refused: type[FairleadError] | None,
) -> None:
    fleet = world.fleet
    pushes = FeaturePushes(
        fleet.database,
        fleet.clock,
        catalog=load_catalog(),
        logs=EventLogs(fleet.database, fleet.clock, folder=tmp_path),
        apply_online=lambda _log, _taken: True,
        home_region=home,
        is_anywhere=False,
    )
    features: dict[str, Any] = {"radius": 1.0} if source == "measurements" else {"marker": "b"}
    columns = columns_of_json([{"patient_id": 1, "event_timestamp": day(5).isoformat(), **features}])
    if refused is None:
        assert pushes.push(ADMIN, source, columns, region=region).region == (region or home)
        return
    with pytest.raises(refused) as caught:
        pushes.push(ADMIN, source, columns, region=region)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())
