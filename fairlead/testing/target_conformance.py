# ruff: noqa: S101  (tests assert)
"""What every deploy target promises, as one class of tests.

A behaviour that is not tested here is not promised. To check a target, subclass and give it a `target` fixture that
opens an empty one, and a `reopen` that opens the same one again, as another process would:

    class TestMyTarget(DeployTargetSuite):
        @pytest.fixture
        def target(self, tmp_path) -> DeployTarget:
            return MyTarget(tmp_path)

        @pytest.fixture
        def reopen(self, tmp_path) -> Callable[[], DeployTarget]:
            return lambda: MyTarget(tmp_path)

A target that starts real bundles overrides `bundles` with the digests of two that it can start.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from fairlead.core.errors import FairleadError, LeaseLost
from fairlead.core.ids import Digest, RegionId
from fairlead.serving.targets import (
    DeployTarget,
    EndpointKey,
    EndpointSpec,
    NoLongerWanted,
    RunningEndpoint,
    StillStarting,
)
from fairlead.serving.workload import ReplicaResources, Scaling, Workload

ONE, TWO = Digest("sha256:" + "11" * 32), Digest("sha256:" + "22" * 32)
REGION = RegionId("gcp:europe-west4")
_PATIENCE_SECONDS = 120.0


def make_spec(
    *,
    bundle_digest: Digest,
    deployment: str = "churn",
    region: RegionId = REGION,
    residency: str = "unrestricted",
    version: int = 1,
    online_store: str | None = None,
    traffic_percent: int = 100,
    former: EndpointSpec | None = None,
) -> EndpointSpec:
    """A specification for tests, of one small replica."""
    workload = Workload(
        workspace="default",
        deployment=deployment,
        model="churn",
        version=version,
        environment="production",
        region=region,
        residency=residency,
        bundle_digest=bundle_digest,
        image=f"registry.example.org/bundles/churn@{bundle_digest}",
        resources=ReplicaResources(vcpus=1.0, memory_gib=2.0),
        scaling=Scaling(min_replicas=1, max_replicas=1),
        traffic_percent=traffic_percent,
        online_store=online_store,
        variables={},
        labels={"owner": "ana", "team": "growth", "cost_centre": "cc-42"},
        former=None if former is None else former.workload,
    )
    return EndpointSpec(workspace_id="default", workload=workload)


def ensured(
    target: DeployTarget,
    spec: EndpointSpec,
    switch: Callable[[RunningEndpoint], None] = lambda _: None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> RunningEndpoint:
    """Call `ensure` until it is done, as a worker does.

    Raises:
        StillStarting: if it is not in two minutes.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return target.ensure(spec, switch, is_wanted)
        except StillStarting:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def stopped(target: DeployTarget, key: EndpointKey) -> None:
    """Call `stop` until it is done, as a worker does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(StillStarting):
            target.stop(key)
            return
        time.sleep(0.05)


class DeployTargetSuite:
    """The conformance tests of `DeployTarget`."""

    @pytest.fixture
    def target(self) -> DeployTarget:
        """An empty target; subclasses override it."""
        raise NotImplementedError

    @pytest.fixture
    def reopen(self) -> Callable[[], DeployTarget]:
        """Opens the same target again; subclasses override it."""
        raise NotImplementedError

    @pytest.fixture
    def bundles(self) -> tuple[Digest, Digest]:
        """Two bundles that the target can run."""
        return ONE, TWO

    @pytest.fixture
    def one(self, bundles: tuple[Digest, Digest]) -> EndpointSpec:
        """A first version in one place."""
        return make_spec(bundle_digest=bundles[0])

    @pytest.fixture
    def two(self, bundles: tuple[Digest, Digest]) -> EndpointSpec:
        """A second version in the same place."""
        return make_spec(bundle_digest=bundles[1], version=2)

    def test_where_nothing_was_put_nothing_runs(self, target: DeployTarget, one: EndpointSpec) -> None:
        """And ending it is no mistake."""
        assert target.observe(one) is None
        target.stop(one.key)
        assert target.observe(one) is None

    def test_what_was_put_there_runs_and_is_seen_by_others(
        self, target: DeployTarget, reopen: Callable[[], DeployTarget], one: EndpointSpec
    ) -> None:
        """Asking again changes nothing, whoever asks; `switch` is told each time."""
        told: list[RunningEndpoint] = []
        running = ensured(target, one, told.append)
        assert told[-1] == running
        assert running.spec == one
        seen = target.observe(one)
        assert seen is not None
        assert (seen.spec.bundle_digest, seen.url, seen.differences) == (one.bundle_digest, running.url, ())
        assert seen.is_ready
        again = ensured(reopen(), one, told.append)
        assert (again.url, again.process_id) == (running.url, running.process_id)
        assert len(told) >= 2

    def test_traffic_moves_before_what_ran_there_ends(
        self, target: DeployTarget, reopen: Callable[[], DeployTarget], one: EndpointSpec, two: EndpointSpec
    ) -> None:
        """And afterwards only the new one is there."""
        ensured(target, one)
        seen: list[RunningEndpoint | None] = []
        running = ensured(target, two, lambda _: seen.append(reopen().observe(one)))
        assert seen
        assert seen[-1] is not None
        assert running.spec.bundle_digest == two.bundle_digest
        now = target.observe(two)
        assert now is not None
        assert now.spec.bundle_digest == two.bundle_digest
        assert now.former_url is None

    def test_a_worker_that_dies_at_the_switch_has_taken_nothing_away(
        self, target: DeployTarget, reopen: Callable[[], DeployTarget], one: EndpointSpec, two: EndpointSpec
    ) -> None:
        """The next one goes on from there."""

        def die(_: RunningEndpoint) -> None:
            raise LeaseLost("another worker took over")

        ensured(target, one)
        with pytest.raises(LeaseLost):
            ensured(target, two, die)
        assert reopen().observe(one) is not None
        assert ensured(reopen(), two).spec.bundle_digest == two.bundle_digest

    def test_two_revisions_run_side_by_side_while_traffic_moves(
        self, target: DeployTarget, one: EndpointSpec, two: EndpointSpec
    ) -> None:
        """Shares change without a restart; then the new one is alone, or the old one is again."""
        before = ensured(target, one)

        def beside(percent: int) -> EndpointSpec:
            workload = replace(two.workload, traffic_percent=percent, former=one.workload)
            return EndpointSpec(workspace_id="default", workload=workload)

        first = ensured(target, beside(5))
        seen = target.observe(beside(5))
        assert seen is not None
        assert seen.spec.former is not None
        assert seen.spec.former.bundle_digest == one.bundle_digest
        if first.former_url is not None:
            # The old one is the same as it was: nobody restarted it.
            assert first.former_url == before.url
        second = ensured(target, beside(50))
        assert (second.url, second.former_url) == (first.url, first.former_url)
        assert second.spec.workload.traffic_percent == 50
        back = ensured(target, one)
        assert back.url == before.url
        seen = target.observe(one)
        assert seen is not None
        assert (seen.spec.bundle_digest, seen.spec.former, seen.former_url) == (one.bundle_digest, None, None)
        ensured(target, beside(100))
        assert ensured(target, two).former_url is None

    def test_what_is_wanted_no_more_is_given_up_and_what_ran_goes_on(
        self, target: DeployTarget, one: EndpointSpec, two: EndpointSpec
    ) -> None:
        """A target that has nothing to wait for may be done before it asks."""
        ensured(target, one)
        try:
            ensured(target, two, is_wanted=lambda: False)
        except NoLongerWanted:
            seen = target.observe(one)
            assert seen is not None
            assert seen.spec.bundle_digest == one.bundle_digest

    def test_what_was_stopped_is_gone_and_may_come_back(
        self, target: DeployTarget, reopen: Callable[[], DeployTarget], one: EndpointSpec, two: EndpointSpec
    ) -> None:
        """Also where two revisions ran."""
        ensured(target, one)
        both = replace(two.workload, traffic_percent=50, former=one.workload)
        ensured(target, EndpointSpec(workspace_id="default", workload=both))
        stopped(target, one.key)
        assert target.observe(one) is None
        stopped(reopen(), one.key)
        assert ensured(target, one).spec == one

    def test_places_know_nothing_of_each_other(self, target: DeployTarget, bundles: tuple[Digest, Digest]) -> None:
        """Neither those of other deployments nor those of other regions."""
        here = make_spec(bundle_digest=bundles[0])
        there = make_spec(bundle_digest=bundles[1], region=RegionId("azure:westeurope"))
        other = make_spec(bundle_digest=bundles[1], deployment="churn-two")
        for spec in (here, there, other):
            ensured(target, spec)
        stopped(target, there.key)
        assert target.observe(there) is None
        for spec in (here, other):
            seen = target.observe(spec)
            assert seen is not None
            assert seen.spec.bundle_digest == spec.bundle_digest

    @pytest.fixture(autouse=True)
    def nothing_left(self, target: DeployTarget) -> object:
        """Ends what a test put there."""
        yield
        for deployment in ("churn", "churn-two"):
            for region in (REGION, RegionId("azure:westeurope")):
                with contextlib.suppress(FairleadError):
                    stopped(target, EndpointKey("default", deployment, region))
