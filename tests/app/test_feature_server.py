"""The feature server answers as Feast's own does, labelled, to those who may read, and runs no code unasked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from fairlead.app.feature_http import Listing, Serving, serve_features
from fairlead.app.feature_server import STORES_KEPT_SECONDS
from fairlead.app.kept_answers import ANSWERS_KEPT_SECONDS
from fairlead.core.errors import (
    AlreadyExists,
    FeatureServerUnavailable,
    FeaturesStale,
    InvalidInput,
    RegionNotFound,
    ResidencyViolation,
    SnapshotNotOnline,
    Unavailable,
)
from fairlead.featurestore.online_engines import StoreName
from fairlead.featurestore.online_sqlite import SqliteEngine
from fairlead.sdk.feast_objects import load_repository
from fairlead.sdk.local_reads import LocalReads
from fairlead.sdk.online_reads import OnlineFeatures, OnlineReads
from tests.app.feature_world import EU, NOW, US, WEST, FeatureWorld, Site, feature_world

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
PATH = "/get-online-features"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[FeatureWorld]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with feature_world(tmp_path_factory.mktemp("features"), "") as world:
            yield world


@pytest.fixture(scope="module")
def site(world: FeatureWorld) -> Generator[Site]:
    with world.serving(US) as site:
        yield site


@pytest.fixture(scope="module")
def feast(world: FeatureWorld) -> Generator[TestClient]:
    """Feast's own server over its own SQLite store, of the same definitions and rows."""
    from feast import FeatureStore
    from feast.feature_server import get_app

    repository = world.folder / "repository"
    store: Any = FeatureStore(repo_path=str(repository))
    store.apply(list(load_repository(repository).objects))
    store.materialize(start_date=NOW.replace(year=2000), end_date=NOW)
    with TestClient(get_app(store)) as client:
        yield client


def by_name(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


@pytest.mark.parametrize(
    "question",
    [
        {"feature_service": "profile"},
        {"feature_service": "profile", "full_feature_names": True},
        {"features": ["cells:word", "cells:radius"]},
        {"features": ["cells:area"], "full_feature_names": True},
    ],
)
def test_answers_are_those_of_feasts_own_server(site: Site, feast: TestClient, question: dict[str, Any]) -> None:
    body = {**question, "entities": {"patient_id": [2, 3, 5, 2, 99, 12]}}
    ours, theirs = site.http.post(PATH, json=body), feast.post(PATH, json=body)
    assert (ours.status_code, theirs.status_code) == (200, 200)
    answer = ours.json()
    labels = answer["metadata"].pop("fairlead")
    # Feast gives the features of a view in whatever order a set has.
    assert by_name(answer) == by_name(theirs.json())
    assert set(answer) == set(theirs.json())
    assert labels["region"] == ours.headers["x-fairlead-region"] == US
    assert labels["snapshot"] == ours.headers["x-fairlead-snapshot"]
    assert 0 < labels["age_seconds"] < 600


@pytest.mark.parametrize(
    ("question", "entities"),
    [
        ({"feature_service": "market"}, {"__dummy_id": [""]}),
        ({"feature_service": "market"}, {"anything": [1, 2]}),
        ({"feature_service": "priced"}, {"patient_id": [2, 99]}),
        ({"features": ["rates:rate", "cells:word"], "full_feature_names": True}, {"patient_id": [2, 99]}),
    ],
)
def test_views_without_an_entity_are_answered_as_feasts_own_server_does(
    site: Site, feast: TestClient, question: dict[str, Any], entities: dict[str, Any]
) -> None:
    ours, theirs = (each.post(PATH, json={**question, "entities": entities}) for each in (site.http, feast))
    assert (ours.status_code, theirs.status_code) == (200, 200), ours.text
    assert by_name(ours.json()) == by_name(theirs.json())
    assert "__dummy_id" not in ours.json()["metadata"]["feature_names"]


def test_where_no_view_has_an_entity_none_need_be_named(world: FeatureWorld, site: Site) -> None:
    answer = site.http.post(PATH, json={"feature_service": "market", "entities": {}}).json()
    assert (answer["metadata"]["feature_names"], answer["results"][0]["values"]) == (["rate"], [0.25])
    refused = site.http.post(PATH, json={"feature_service": "priced", "entities": {}})
    assert (refused.status_code, "'patient_id' is missing" in refused.text) == (400, True)
    client = world.client
    assert client.features.online("market", {}, region=US)["rows"] == [{"_status": {"rates": "present"}, "rate": 0.25}]
    with client.features.reader("market", near=US) as reader:
        assert reader.read({}).rows == [{"rate": 0.25}]


def test_keys_are_answered_as_the_numbers_that_they_are(site: Site, feast: TestClient) -> None:
    body = {"features": ["cells:word"], "entities": {"patient_id": ["2", 3.0, True, 4]}}
    ours, theirs = (each.post(PATH, json=body).json()["results"] for each in (site.http, feast))
    assert json.dumps(ours[0]["values"]) == json.dumps(theirs[0]["values"]) == "[2, 3, 1, 4]"
    assert ours[1]["values"] == theirs[1]["values"]
    huge = site.http.post(PATH, json={"features": ["cells:word"], "entities": {"patient_id": [10**30, None]}}).json()
    assert (huge["results"][0]["values"], huge["results"][1]["values"]) == ([1e30, None], [None, None])


def test_what_is_too_old_is_said_to_be_and_not_given_out(site: Site) -> None:
    answer = site.http.post(PATH, json={"features": ["cells:count"], "entities": {"patient_id": [20]}}).json()
    assert answer["results"][1]["values"] == [None]
    assert answer["results"][1]["statuses"] == ["OUTSIDE_MAX_AGE"]
    assert answer["results"][1]["event_timestamps"][0].startswith(str(NOW.year - 2)[:2])


def test_what_may_not_be_in_the_region_is_named(world: FeatureWorld, site: Site) -> None:
    body = {"feature_service": "diagnosis", "entities": {"patient_id": [1]}}
    answer = site.http.post(PATH, json=body).json()
    assert answer["metadata"]["feature_names"] == ["patient_id", "radius", "marker"]
    assert answer["results"][2]["values"] == [None]
    assert answer["metadata"]["fairlead"]["missing_views"] == ["genes"]
    with world.serving(EU) as inside:
        assert inside.http.post(PATH, json=body).json()["results"][2]["values"] == ["m1"]


def test_code_runs_only_where_somebody_said_so_and_is_named(world: FeatureWorld, site: Site, feast: TestClient) -> None:
    body = {"feature_service": "scaled", "entities": {"patient_id": [2, 4], "factor": [2.0, 10.0]}}
    refused = site.http.post(PATH, json=body)
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:fairlead:error:code-refused")
    assert "scaling" in refused.json()["detail"]
    with world.serving(US, run_code=True, is_listed=False) as trusting:
        answer = trusting.http.post(PATH, json=body).json()
        del answer["metadata"]["fairlead"]
        theirs = feast.post(PATH, json=body).json()
        assert answer["metadata"] == theirs["metadata"]
        assert [each["values"] for each in answer["results"]] == [each["values"] for each in theirs["results"]]
        assert trusting.http.get("/ready").json()["code"] == {"scaled": ["scaling"]}
        wrong = trusting.http.post(PATH, json={**body, "entities": {"patient_id": [2]}})
        assert (wrong.status_code, "'factor'" in wrong.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "not JSON"),
        (b"[]", "an object"),
        (b'{"entities": {"patient_id": [1]}}', "neither"),
        (b'{"feature_service": "profile", "features": ["cells:word"], "entities": {"patient_id": [1]}}', "both"),
        (b'{"feature_service": "profile"}', "#/entities"),
        (b'{"feature_service": "profile", "entities": {"patient_id": 1}}', "#/entities/patient_id"),
        (b'{"feature_service": "profile", "entities": {"patient_id": [1], "x": [1, 2]}}', "different lengths"),
        (b'{"feature_service": "profile", "entities": {"other": [1]}}', "'patient_id' is missing"),
        (b'{"feature_service": "profile", "entities": {"patient_id": ["x"]}}', "a whole number"),
        (
            b'{"feature_service": "profile", "entities": {"patient_id": [1]}, "full_feature_names": "yes"}',
            "#/full_feature_names",
        ),
        (b'{"features": ["word"], "entities": {"patient_id": [1]}}', "VIEW:FEATURE"),
        (b'{"features": ["cells:nothing"], "entities": {"patient_id": [1]}}', "No service"),
        (b'{"feature_service": "../profile", "entities": {"patient_id": [1]}}', "name"),
        (b'{"feature_service": "profile@x", "entities": {"patient_id": [1]}}', "digest"),
    ],
)
def test_wrong_questions_are_refused_with_the_member_that_is_wrong(site: Site, body: bytes, detail: str) -> None:
    answer = site.http.post(PATH, content=body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert detail in answer.json()["detail"]


def test_other_paths_and_methods_are_refused_likewise(site: Site) -> None:
    assert site.http.get("/nothing").json()["type"] == "urn:fairlead:error:not-found"
    assert site.http.get(PATH).json()["type"] == "urn:fairlead:error:method-not-allowed"
    unknown = site.http.post(PATH, json={"feature_service": "nothing", "entities": {"patient_id": [1]}})
    assert (unknown.status_code, unknown.json()["type"]) == (409, "urn:fairlead:error:not-ready")
    large = site.http.post(PATH, content=b" " * (8 * 2**20 + 1))
    assert large.json()["type"] == "urn:fairlead:error:body-too-large"


def test_only_those_who_may_read_are_answered(world: FeatureWorld, site: Site) -> None:
    body = {"feature_service": "profile", "entities": {"patient_id": [1]}}
    for header, status in (("", 401), ("Bearer nonsense", 401), ("Basic abc", 401)):
        answer = site.http.post(PATH, json=body, headers={"authorization": header})
        assert answer.status_code == status
        assert answer.headers["www-authenticate"] == "Bearer"
    issued = world.client.tokens.create(name="mover", principal="mover", scopes=["promote"])
    refused = site.http.post(PATH, json=body, headers={"authorization": f"Bearer {issued.secret}"})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:fairlead:error:permission-denied")
    issued = world.client.tokens.create(name="reader", principal="reader", scopes=["read"])
    assert site.http.post(PATH, json=body, headers={"authorization": f"Bearer {issued.secret}"}).status_code == 200


def test_while_the_registry_is_away_known_tokens_go_on_for_a_while(world: FeatureWorld) -> None:
    now = [0.0]
    body = {"feature_service": "profile", "entities": {"patient_id": [1]}}
    with world.serving(US, is_listed=False, monotonic=lambda: now[0], offline_seconds=600) as site:
        assert site.http.post(PATH, json=body).status_code == 200

        site.away.set()
        now[0] += ANSWERS_KEPT_SECONDS + 1
        assert site.http.post(PATH, json=body).status_code == 200
        assert site.http.post(PATH, json=body, headers={"authorization": "Bearer new"}).status_code == 503
        now[0] += 600
        assert site.http.post(PATH, json=body).status_code == 503


def test_stores_of_other_machines_are_read_likewise(world: FeatureWorld, site: Site) -> None:
    class Elsewhere(SqliteEngine):
        kind = "elsewhere"

    engine = Elsewhere({}, world.server.service.features.online_engines.folder)
    body = {"feature_service": "profile", "entities": {"patient_id": [1, 99]}}
    with world.serving(US, is_listed=False, engine=engine) as other:
        assert other.http.post(PATH, json=body).json()["results"] == site.http.post(PATH, json=body).json()["results"]


def test_while_stores_cannot_be_reached_that_is_said_and_counted(world: FeatureWorld) -> None:
    class Away(SqliteEngine):
        """Its server does not answer, once it is away."""

        kind, is_away = "elsewhere", False

        def stores(self, workspace_id: str, region: str) -> list[StoreName]:
            if self.is_away:
                raise Unavailable("Nobody answers.")
            return super().stores(workspace_id, region)

    engine = Away({}, world.server.service.features.online_engines.folder)
    now = [0.0]
    with world.serving(US, is_listed=False, engine=engine, monotonic=lambda: now[0]) as site:
        assert site.http.get("/ready").status_code == 200
        engine.is_away = True
        now[0] += STORES_KEPT_SECONDS
        assert (site.http.get("/ready").status_code, site.http.get("/health").status_code) == (503, 200)
        told = site.http.get("/metrics")
        assert told.status_code == 200
        assert 'fairlead_feature_server_errors_total{code="unavailable"} 1' in told.text


def test_many_entities_are_answered_as_few_are(site: Site) -> None:
    few = site.http.post(PATH, json={"feature_service": "profile", "entities": {"patient_id": [1, 2]}}).json()
    many = {"feature_service": "profile", "entities": {"patient_id": [1, 2] * 2000}}
    for ours, theirs in zip(site.http.post(PATH, json=many).json()["results"], few["results"], strict=True):
        assert ours["values"] == theirs["values"] * 2000


def test_a_server_at_an_address_of_another_region_does_not_pass_for_that_one(world: FeatureWorld) -> None:
    url = "http://127.0.0.1:7"
    listed = world.client.features.servers.register(region=EU, url=url)
    with pytest.raises(AlreadyExists, match=EU):
        Listing(world.client, region=US, url=url).tell()
    world.client.features.servers.remove(listed.id)


def test_health_and_measurements_are_told(world: FeatureWorld, site: Site) -> None:
    assert site.http.get("/health").json() == {"status": "ok", "region": US}
    assert {each["service"] for each in site.http.get("/ready").json()["services"]} == {
        "profile",
        "diagnosis",
        "scaled",
        "market",
        "priced",
    }
    text = site.http.get("/metrics").text
    assert 'fairlead_feature_server_requests_total{service="profile"}' in text
    assert 'fairlead_feature_server_rows_total{service="profile",status="not_found"}' in text
    assert 'fairlead_feature_server_snapshot_age_seconds{service="profile",slot=""}' in text
    listed = {each.region: each.is_alive for each in world.client.features.servers.list()}
    assert listed[US]


def read_once(reader: OnlineReads | LocalReads, entities: dict[str, list[int]]) -> OnlineFeatures:
    """The answer of a reader that is closed after it."""
    with reader:
        return reader.read(entities)


@pytest.mark.usefixtures("site")
def test_a_reader_is_answered_by_the_nearest_region_and_fails_over(world: FeatureWorld) -> None:
    with world.serving(WEST) as west, world.serving(EU) as inside:
        with world.client.features.reader("profile", near=WEST) as reader:
            assert reader.read({"patient_id": [1, 2]}).region == WEST
            seen: list[str] = []
            for turn in range(40):
                if turn == 10:
                    west.stop()
                seen.append(reader.read({"patient_id": [turn % 20 + 1]}).region)
        # No read failed, and every answer says who gave it.
        assert (seen[0], seen[-1], set(seen)) == (WEST, US, {WEST, US})
        assert read_once(world.client.features.reader("profile", near=EU), {"patient_id": [1]}).region == EU
        inside.stop()
        answer = read_once(world.client.features.reader("profile", near=EU), {"patient_id": [4]})
        assert (answer.region, answer.rows[0]["count"]) == (US, 4)


@pytest.mark.usefixtures("site")
def test_keys_may_be_those_of_a_frame_and_wrong_ones_are_refused(world: FeatureWorld) -> None:
    with world.client.features.reader("profile", near=US) as reader:
        assert reader.read({"patient_id": [*np.array([2, 4])]}).to_dict()["count"] == [2, 4]
        for wrong in (float("nan"), NOW, np.array([1, 2])):
            with pytest.raises(InvalidInput, match="join key"):
                reader.read({"patient_id": [wrong]})


def test_a_server_of_a_region_that_nobody_knows_does_not_start(world: FeatureWorld) -> None:
    serving = Serving(region="aws:nowhere", host="127.0.0.1", port=0, offline_seconds=0)
    with pytest.raises(RegionNotFound, match="aws:nowhere"):
        serve_features(world.client, world.server.service.settings, serving)


@pytest.mark.usefixtures("site")
def test_reads_stay_inside_the_residency_class(world: FeatureWorld) -> None:
    features = world.client.features
    with world.serving(WEST), world.serving(EU) as inside:
        assert read_once(features.reader("diagnosis", near=EU), {"patient_id": [1]}).rows[0]["marker"] == "m1"
        # Whoever is outside is answered outside, without what may not leave.
        assert read_once(features.reader("diagnosis", near=US), {"patient_id": [1]}).rows[0]["marker"] is None
        assert set(features.servers.routes("diagnosis", near=US).left_out) == {EU}
        assert set(features.servers.routes("diagnosis", near=EU).left_out) == {US, WEST}
        inside.stop()
        with pytest.raises(FeatureServerUnavailable, match="outside 'eu'"):
            read_once(features.reader("diagnosis", near=EU), {"patient_id": [1]})
        with pytest.raises(ResidencyViolation, match="where it comes from"):
            read_once(features.reader("diagnosis"), {"patient_id": [1]})
    with pytest.raises(FeatureServerUnavailable, match="no feature server is listed"):
        read_once(features.reader("diagnosis", near=EU), {"patient_id": [1]})


@pytest.mark.usefixtures("site")
def test_data_that_is_too_old_everywhere_is_an_error_that_names_the_freshest(world: FeatureWorld) -> None:
    with pytest.raises(FeaturesStale, match=US) as caught:
        read_once(world.client.features.reader("profile", near=EU, max_staleness=timedelta(0)), {"patient_id": [1]})
    assert caught.value.attributes["snapshot"]
    answer = read_once(world.client.features.reader("profile", max_staleness=timedelta(days=1)), {"patient_id": [1]})
    assert answer.age_seconds < 86400


@pytest.mark.usefixtures("site")
def test_a_snapshot_is_read_by_its_digest_where_it_is_online(world: FeatureWorld) -> None:
    features = world.client.features
    digest = read_once(features.reader("profile"), {"patient_id": [1]}).snapshot
    assert read_once(features.reader(f"profile@{digest}"), {"patient_id": [1]}).snapshot == digest
    other = read_once(features.reader("diagnosis", near=US), {"patient_id": [1]}).snapshot
    with pytest.raises(SnapshotNotOnline, match="keeps the snapshot") as caught:
        read_once(features.reader(f"profile@{other}"), {"patient_id": [1]})
    assert f"materialize profile --snapshot {other}" in (caught.value.hint or "")
    with pytest.raises(SnapshotNotOnline):
        read_once(features.local_reader(f"profile@{other}", region=US), {"patient_id": [1]})


def test_a_process_in_the_region_reads_without_a_server(world: FeatureWorld) -> None:
    settings = world.server.service.settings
    with world.server.connect() as client:
        object.__setattr__(client.features, "_settings", type(client.settings)(home=settings.folder, region=EU))
        answer = read_once(client.features.local_reader("diagnosis"), {"patient_id": [2, 99]})
        with client.features.local_reader("market") as reader:
            assert reader.read({}).rows == [{"rate": 0.25}]
    assert answer.to_dict() == {"patient_id": [2, 99], "radius": [pytest.approx(0.2), None], "marker": ["m2", None]}
    assert (answer.region, answer.statuses[1]) == (EU, ("PRESENT", "NOT_FOUND"))
    with pytest.raises(InvalidInput, match="No region"):
        world.client.features.local_reader("diagnosis")
