"""Traffic moves by stated steps, each is watched, and what is worse than the limits goes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.core.errors import InvalidInput
from fairlead.registry.paging import PageRequest
from fairlead.serving.deployments import Deployment, DeploymentDraft
from fairlead.serving.measurements import Counts
from fairlead.serving.strategy import Strategy, strategy_from_json
from tests.fleet import ADMIN, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import EU_AZURE, EU_WEST, US, Platform, refused

CANARY = {"canary": {"steps": [5, 25, 100], "pause": "5m", "max_error_rate": 0.05, "max_p95_ms": 100}}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with open_fleet(tmp_path) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        platform.register("churn", model_files(1.0, 1.0, 1.0))
        platform.promote("churn", 1, revision=0)
        yield platform


def deploy(platform: Platform, strategy: Mapping[str, object] | None, regions: tuple[str, ...] = (US, EU_WEST)) -> None:
    draft = DeploymentDraft(
        model="churn", environment="production", regions=regions, strategy=strategy_from_json(strategy)
    )
    platform.deployments.apply(ADMIN, draft)
    platform.settle(rounds=1)


def shown(platform: Platform) -> Deployment:
    return platform.deployments.get(ADMIN, "churn")


def begin(platform: Platform, strategy: Mapping[str, object] = CANARY) -> None:
    """Version 1 runs, and version 2 has begun to get traffic."""
    deploy(platform, strategy)
    platform.register("churn", model_files(2.0, 1.0, 1.0))
    platform.promote("churn", 2, revision=1)
    platform.worker().run_until_idle()


def weights(platform: Platform) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for endpoint in platform.table()["acme:churn"].endpoints:
        found.setdefault(endpoint.region, []).append(endpoint.weight)
    return found


def answer(platform: Platform, count: int, *, errors: int = 0, milliseconds: float = 20.0) -> None:
    """As if the gateway had sent so many requests to the new revision, most of them in one region."""
    digest = shown(platform).bundle_digest or ""
    counts = platform.measured.setdefault(("acme:churn", US, digest), Counts())
    for number in range(count):
        counts.note(is_error=number < errors, milliseconds=milliseconds)


def wait(platform: Platform, **span: float) -> None:
    platform.fleet.clock.advance(timedelta(**span))
    platform.worker().run_until_idle()


def steps(platform: Platform) -> list[tuple[str, int | None, str]]:
    return [(each.action, each.traffic_percent, each.state) for each in shown(platform).steps]


def test_traffic_moves_by_the_stated_steps_and_the_old_revision_ends_last(platform: Platform) -> None:
    begin(platform)
    assert weights(platform) == {US: [5, 95], EU_WEST: [5, 95]}
    assert [each.former_version for each in shown(platform).regions] == [1, 1]
    answer(platform, 50)
    wait(platform, minutes=4)
    assert weights(platform)[US] == [5, 95]
    wait(platform, minutes=1, seconds=1)
    assert weights(platform) == {US: [25, 75], EU_WEST: [25, 75]}
    (first, *_) = [each for each in shown(platform).steps if each.action == "shift"]
    assert (first.state, first.requests, first.error_rate) == ("DONE", 50, 0.0)
    assert first.p95_ms == pytest.approx(22.2, rel=0.1)
    wait(platform, minutes=6)
    assert weights(platform) == {US: [100, 0], EU_WEST: [100, 0]}
    assert shown(platform).revision_state == "ROLLING"
    wait(platform, minutes=6)
    assert weights(platform) == {US: [100], EU_WEST: [100]}
    done = shown(platform)
    assert (done.revision_state, done.live_revision) == ("LIVE", 2)
    assert {state for _, _, state in steps(platform)} == {"DONE"}
    # Each region started each version once: the canary is what serves now.
    assert sorted(platform.target.log) == sorted([f"start {region}" for region in (US, EU_WEST)] * 2)


@pytest.mark.parametrize(
    ("requests", "errors", "milliseconds", "why"),
    [(40, 4, 20.0, "4 of 40 failed: 10.00%, where at most 5.00% may"), (40, 0, 400.0, "the 95th percentile took")],
)
def test_a_revision_that_is_worse_than_its_limits_goes_back_at_once_and_says_why(
    platform: Platform, requests: int, errors: int, milliseconds: float, why: str
) -> None:
    begin(platform)
    before = {each.region: each.url for each in platform.table()["acme:churn"].endpoints if each.weight == 95}
    answer(platform, requests, errors=errors, milliseconds=milliseconds)
    wait(platform, seconds=2)
    status = shown(platform)
    assert status.revision_state == "FAILED"
    assert why in (status.failure or "")
    assert [(each.state, each.version) for each in status.regions] == [("RUNNING", 1), ("RUNNING", 1)]
    # The old revision never stopped.
    assert {each.region: each.url for each in platform.table()["acme:churn"].endpoints} == before
    assert weights(platform) == {US: [100], EU_WEST: [100]}
    # It stays so, although the environment points at the version that failed, until somebody moves it.
    wait(platform, hours=1)
    assert [each.version for each in shown(platform).regions] == [1, 1]
    history = platform.deployments.history(ADMIN, "churn", PageRequest()).items
    assert [(each.number, each.state, each.version) for each in history] == [(1, "LIVE", 1), (2, "FAILED", 2)]
    platform.register("churn", model_files(3.0, 1.0, 1.0))
    platform.promote("churn", 3, revision=2)
    platform.worker().run_until_idle()
    assert weights(platform)[US] == [5, 95]


def test_too_few_requests_are_no_reason_to_go_back(platform: Platform) -> None:
    begin(platform)
    answer(platform, 19, errors=19)
    wait(platform, seconds=2)
    assert shown(platform).revision_state == "ROLLING"


def test_blue_green_moves_all_at_once_and_keeps_the_old_one_for_a_while(platform: Platform) -> None:
    begin(platform, {"blue_green": {"pause": "10m", "max_error_rate": 0.01}})
    assert weights(platform) == {US: [100, 0], EU_WEST: [100, 0]}
    answer(platform, 30, errors=3)
    wait(platform, minutes=1)
    assert weights(platform) == {US: [100], EU_WEST: [100]}
    assert [each.version for each in shown(platform).regions] == [1, 1]


def test_a_canary_that_dies_again_and_again_is_given_up(platform: Platform) -> None:
    begin(platform)
    platform.target.refuses = {US}
    platform.target.lose_newest(US)
    platform.settle(rounds=5)
    status = shown(platform)
    assert status.revision_state == "FAILED"
    assert [(each.state, each.version) for each in status.regions] == [("RUNNING", 1), ("RUNNING", 1)]


def test_a_new_region_waits_until_the_canary_has_passed(platform: Platform) -> None:
    deploy(platform, None)
    platform.register("churn", model_files(2.0, 1.0, 1.0))
    platform.promote("churn", 2, revision=1)
    draft = DeploymentDraft(
        model="churn",
        environment="production",
        regions=(EU_WEST, EU_AZURE),
        strategy=strategy_from_json({"canary": {"steps": [50, 100], "pause": 60}}),
    )
    platform.deployments.apply(ADMIN, draft)
    platform.worker().run_until_idle()
    # A region that is left goes last, and one that is new comes after the watched ones have moved.
    assert weights(platform) == {EU_WEST: [50, 50], US: [100]}
    for _ in range(3):
        wait(platform, seconds=61)
    assert weights(platform) == {EU_WEST: [100], EU_AZURE: [100]}
    assert shown(platform).revision_state == "LIVE"


def test_what_is_newer_takes_the_place_of_a_canary(platform: Platform) -> None:
    begin(platform)
    platform.rollbacks.move_back(ADMIN, "churn", "production", expected_revision=2, reason="not yet")
    platform.settle(rounds=1)
    assert weights(platform) == {US: [100], EU_WEST: [100]}
    assert [each.version for each in shown(platform).regions] == [1, 1]
    states = [each.state for each in platform.deployments.history(ADMIN, "churn", PageRequest()).items]
    assert states == ["SUPERSEDED", "SUPERSEDED", "LIVE"]


def test_applying_again_what_is_on_its_way_turns_no_more_requests_to_it(platform: Platform) -> None:
    begin(platform)
    deploy(platform, CANARY)
    assert weights(platform) == {US: [5, 95], EU_WEST: [5, 95]}
    assert shown(platform).revision_state == "ROLLING"
    for _ in range(3):
        wait(platform, minutes=5, seconds=1)
    assert weights(platform) == {US: [100], EU_WEST: [100]}
    assert (shown(platform).revision_state, shown(platform).live_revision) == ("LIVE", 3)


def test_what_was_counted_before_a_step_is_not_held_against_it_where_the_gateway_was_away(platform: Platform) -> None:
    begin(platform)
    answer(platform, 19, errors=19)
    platform.is_gateway_down = True
    wait(platform, minutes=5, seconds=1)
    assert weights(platform)[US] == [25, 75]
    platform.is_gateway_down = False
    wait(platform, seconds=1)
    answer(platform, 1)
    wait(platform, seconds=1)
    assert shown(platform).revision_state == "ROLLING"
    answer(platform, 20, errors=20)
    wait(platform, seconds=1)
    assert shown(platform).revision_state == "FAILED"


def test_limits_are_judged_by_what_was_seen_within_a_step() -> None:
    before, now = Counts(), Counts()
    for counts, number in ((before, 90), (now, 100)):
        for _ in range(number):
            counts.note(is_error=True, milliseconds=1.0)
    assert (now.since(before).requests, now.since(before).errors) == (10, 10)
    # A gateway that was started again counts from zero.
    assert before.since(now).requests == 90
    assert Counts.from_json(now.to_json()) == now


@pytest.mark.parametrize(
    ("strategy", "pointer"),
    [
        ({}, "/strategy"),
        ({"canary": {"steps": [5, 25]}}, "/strategy/canary/steps"),
        ({"canary": {"steps": [25, 5, 100]}}, "/strategy/canary/steps"),
        ({"canary": {"steps": [True, 100]}}, "/strategy/canary/steps"),
        ({"canary": {"steps": [100], "pause": "soon"}}, "/strategy/canary/pause"),
        ({"canary": {"steps": [100], "pause": "8000000h"}}, "/strategy/canary/pause"),
        ({"canary": {"steps": [100], "max_error_rate": 2}}, "/strategy/canary/max_error_rate"),
        ({"canary": {"steps": [100], "min_requests": 0}}, "/strategy/canary/min_requests"),
        ({"blue_green": {"steps": [100]}}, "/strategy/blue_green/steps"),
        ({"rainbow": {}}, "/strategy"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(strategy: dict[str, object], pointer: str) -> None:
    assert refused(InvalidInput, lambda: strategy_from_json(strategy)).attributes["pointer"] == pointer


def test_a_strategy_is_kept_as_it_was_said() -> None:
    read = strategy_from_json(CANARY)
    assert isinstance(read, Strategy)
    assert (read.steps, read.pause_seconds, read.max_p95_ms) == ((5, 25, 100), 300.0, 100.0)
    assert strategy_from_json(read.to_json()) == read
