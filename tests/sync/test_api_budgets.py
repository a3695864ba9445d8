from __future__ import annotations

import json
import os
from datetime import timedelta

import pytest

from fairlead.cli.budget import parse_rate
from fairlead.cli.work import describe, in_bytes, in_time
from fairlead.core.errors import InvalidInput
from fairlead.registry import work
from fairlead.registry.replicas import REPLICATE
from tests.fleet import ADMIN, REGIONS
from tests.sync import test_api
from tests.sync.test_api import Api

api = test_api.api
OCEAN = {"source_region": REGIONS["virginia"], "limit_usd": "0.000001", "period": "day"}


def test_a_budget_is_set_shown_and_deleted_and_wakes_the_worker(api: Api) -> None:
    client = api.client("admin")
    made = client.put("/budgets/ocean", json=OCEAN, headers={"If-Match": '"0"'})
    assert made.status_code == 200
    assert made.headers["etag"] == '"1"'
    (shown,) = client.get("/budgets").json()["items"]
    assert shown == made.json() == client.get("/budgets/ocean").json()
    assert (shown["limit_usd"], shown["spent_usd"], shown["region"]) == ("0.000001", "0", None)
    assert client.put("/budgets/ocean", json=OCEAN, headers={"If-Match": '"0"'}).status_code == 412
    assert client.put("/budgets/ocean", json={}).status_code == 400
    assert client.delete("/budgets/ocean").status_code == 204
    assert client.get("/budgets/ocean").status_code == 404
    assert len(api.wakes) == 2


def test_who_may_only_read_sets_no_budget(api: Api) -> None:
    client = api.client("read", "write")
    assert client.put("/budgets/ocean", json=OCEAN).status_code == 403
    assert client.delete("/budgets/ocean").status_code == 403
    assert client.get("/budgets").status_code == 200


def test_work_says_why_it_waits_and_until_when(api: Api) -> None:
    api.client("admin").put("/budgets/all", json={"limit_usd": "0", "period": "day"})
    api.fleet.register({"weights.bin": os.urandom(20_000)})
    api.fleet.run()
    items = api.client("read").get("/work").json()["items"]
    held_up = [item for item in items if item["error_code"] == "budget-exhausted"]
    assert held_up
    assert all(item["kind"] == REPLICATE and item["not_before"].endswith("T00:00:00.000000Z") for item in held_up)
    assert "'all'" in held_up[0]["error_detail"]


def test_work_is_streamed_as_events(api: Api) -> None:
    with api.fleet.database.write() as session:
        work.require_work(
            session,
            workspace_id=ADMIN.workspace_id,
            residency="unrestricted",
            kind=REPLICATE,
            subject="a",
            region=REGIONS["virginia"],
            priority=work.USUAL,
            now=api.fleet.clock.now(),
        )
    leased = work.lease(
        api.fleet.database,
        api.fleet.clock,
        kinds={REPLICATE},
        regions=None,
        holder="one",
        ttl=timedelta(minutes=1),
    )
    assert leased is not None
    work.report_progress(api.fleet.database, leased, 250, 1000, phase="copy", bytes_per_second=50)
    answer = api.client("read").get("/work/events", params={"seconds": 0})
    assert answer.headers["content-type"].startswith("text/event-stream")
    kind, data, *_ = answer.text.splitlines()
    assert kind == "event: work"
    (item,) = json.loads(data.removeprefix("data: "))
    assert (item["progress_bytes"], item["bytes_per_second"], item["eta_seconds"]) == (250, 50, 15)
    shown = describe(item)
    assert shown["progress"] == "copy 250 B of 1.0 kB (25 %)"
    assert (shown["speed"], shown["to go"], shown["next"]) == ("50 B/s", "15 s", None)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100MB/s", 100_000_000),
        ("64 MiB/s", 64 * 2**20),
        ("800Mbit/s", 100_000_000),
        ("1.5GB/s", 1_500_000_000),
        ("500", None),
        ("fast", None),
        ("0.1bit/s", 0),
    ],
)
def test_rates_are_read_as_people_write_them(text: str, rate: int | None) -> None:
    if rate is None:
        with pytest.raises(InvalidInput):
            parse_rate(text)
    else:
        assert parse_rate(text) == rate


def test_bytes_and_times_are_shown_in_units_that_suit_them() -> None:
    assert [in_bytes(count) for count in (0, 999, 1000, 2_500_000, 10**15, 10**19)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "1.0 PB",
        "10000.0 PB",
    ]
    assert [in_time(seconds) for seconds in (5, 65, 3700)] == ["5 s", "1 min 5 s", "1 h 1 min"]
