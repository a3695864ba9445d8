"""The routes of expectations, reports and erasures, and the page that a report is written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fairlead.cli.snapshot_page import write_page
from fairlead.featurestore.recorded import feature_rows
from tests.featurestore.feature_fleet import FeatureFleet, day, open_feature_fleet
from tests.featurestore.test_api import API, EU, make_app
from tests.records import WORKSPACE

SET = f"{API}/expectations/quality"
EXPECTED = {"view": "cells", "expectations": [{"kind": "drift", "feature": "radius", "psi_at_most": 0.2}]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        fleet.cells([(number, 0, float(number)) for number in range(40)])
        fleet.genes([(1, 1, "</script><script>alert(1)</script>")])
        fleet.apply(fleet.definitions())
        yield fleet


@pytest.fixture
def http(world: FeatureFleet) -> Iterator[TestClient]:
    with TestClient(make_app(world), headers={"authorization": "Bearer admin"}) as client:
        yield client


def test_expectations_are_applied_shown_and_removed(http: TestClient) -> None:
    applied = http.put(SET, json=EXPECTED, headers={"if-match": '"0"'})
    assert applied.status_code == 200
    assert applied.json()["expectations"] == [
        {"name": "radius-drift", "kind": "drift", "severity": "error", "feature": "radius", "psi_at_most": 0.2}
    ]
    assert http.put(SET, json=EXPECTED, headers={"if-match": '"0"'}).status_code == 412
    assert [each["name"] for each in http.get(f"{API}/expectations").json()["items"]] == ["quality"]
    assert http.get(SET).headers["etag"] == '"1"'
    assert http.put(SET, json={"view": "cells", "expectations": [{"kind": "rows", "least": 1}]}).status_code == 400
    assert http.delete(SET).status_code == 204
    assert http.get(SET).json()["type"].endswith("expectations-not-found")


def test_a_report_compares_with_the_snapshot_before_and_hides_what_may_not_leave(
    http: TestClient, world: FeatureFleet
) -> None:
    http.put(SET, json=EXPECTED)
    first = world.snapshot(as_of=day(2))
    world.cells([(number, 0, 500.0 + number) for number in range(40)])
    second = world.snapshot(as_of=day(3))
    (check,) = http.get(f"{API}/snapshots/{second.id}/checks").json()["items"]
    assert (check["state"], check["is_blocking"], check["against"]) == ("FAILED", True, first.digest)
    report: dict[str, Any] = http.get(f"{API}/snapshots/{second.digest}/report").json()
    assert (report["is_released"], report["previous"]) == (False, first.digest)
    cells, genes = report["parts"]
    assert sum(bar["count"] for bar in cells["features"][0]["bars"]) == 40
    assert cells["features"][0]["ks"] == 1.0
    assert genes["features"] == []
    assert "residency class 'eu'" in genes["hidden"]
    inside = http.get(f"{API}/snapshots/{second.digest}/report", params={"region": EU}).json()
    assert inside["parts"][1]["features"][0]["bars"][0]["value"].startswith("</script>")
    page = write_page(inside)
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "KS 1.000" in page


def test_only_admins_erase_and_a_copy_of_the_record_knows_of_it(http: TestClient, world: FeatureFleet) -> None:
    body = {"entities": ["patient"], "salt": "0" * 64, "subject_hash": "1" * 64, "reason": "request 1"}
    reader = {"authorization": "Bearer reader"}
    assert http.post(f"{API}/erasures", json=body, headers=reader).status_code == 403
    keyed = {"idempotency-key": "once"}
    answers = [http.post(f"{API}/erasures", json=body, headers=keyed) for _ in range(2)]
    assert [each.status_code for each in answers] == [202, 202]
    asked = answers[0].json()
    assert asked == answers[1].json()
    assert asked["state"] == "RUNNING"
    assert [each["id"] for each in http.get(f"{API}/erasures").json()["items"]] == [asked["id"]]
    assert http.get(f"{API}/erasures/{asked['id']}/certificate").status_code == 409
    assert http.post(f"{API}/erasures", json=body | {"salt": "short"}).status_code == 400
    with world.fleet.database.read() as session:
        assert [row.residency for row in feature_rows(session, WORKSPACE) if row.table == "erasures"] == [
            "unrestricted"
        ]
