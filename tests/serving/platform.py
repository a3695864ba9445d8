"""Serving without processes, over a record, content store and replication that are real."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy.orm import Session

from fairlead.catalog import load_catalog
from fairlead.core.errors import EndpointUnavailable, FairleadError, Unavailable
from fairlead.registry.identity import bootstrap
from fairlead.registry.models import Labels, Models
from fairlead.registry.promotion import Promotions
from fairlead.registry.rollback import Rollbacks
from fairlead.registry.tables import ModelVersionRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import PublishedArtifact, RegionArtifacts
from fairlead.serving.bundles import BUILD_BUNDLE, BundleBuilder, Bundles, derive_bundles
from fairlead.serving.deploy_targets import DeployTargets
from fairlead.serving.deployer import Deployer
from fairlead.serving.deployment_drift import DeploymentDrifts
from fairlead.serving.deployment_index import FollowingDeployments
from fairlead.serving.deployments import Deployments
from fairlead.serving.measurements import Counts
from fairlead.serving.placements import Placements
from fairlead.serving.progress import ImageOf, no_image
from fairlead.serving.replanning import Replanning
from fairlead.serving.rollout import DEPLOY, RolloutDeriver
from fairlead.serving.route_book import RouteBook
from fairlead.serving.routing import Route, read_table
from fairlead.serving.targets import (
    LOCAL,
    DeployTarget,
    EndpointKey,
    EndpointSpec,
    NoLongerWanted,
    RunningEndpoint,
    TargetRules,
)
from fairlead.sync.scratch import Scratch
from fairlead.sync.worker import Worker
from tests.fleet import ADMIN, BACK_OFF, Fleet
from tests.records import WORKSPACE

US, EU_WEST, EU_AZURE = "aws:us-east-1", "gcp:europe-west4", "azure:westeurope"


class MemoryTarget:
    """A deploy target without processes. `refuses` holds regions where nothing starts, `hangs` where nothing answers.

    `meanwhile` is called once, while the next endpoint gets ready. `differences` are what somebody changed by hand.
    """

    def __init__(self) -> None:
        self.running: dict[tuple[str, str, str], RunningEndpoint] = {}
        self.refuses: set[str] = set()
        self.hangs: set[str] = set()
        self.is_down = False
        self.differences: dict[str, tuple[str, ...]] = {}
        self.log: list[str] = []
        self.meanwhile: Callable[[], None] | None = None
        self._next_port = 10_000

    def ensure(
        self,
        spec: EndpointSpec,
        switch: Callable[[RunningEndpoint], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> RunningEndpoint:
        if self.is_down:
            raise Unavailable("The target cannot be reached.")
        key = spec.key
        before = self.running.get(key)
        found = {} if before is None else self._addresses(before)
        former = spec.former
        if former is not None and former.bundle_digest not in found:
            raise EndpointUnavailable(f"The former endpoint in {spec.region} did not start.")
        self.differences.pop(spec.region, None)
        if spec.bundle_digest in found and found[spec.bundle_digest][1] == spec.online_store and not self._hangs(spec):
            kept = replace(
                self.running[key],
                spec=spec,
                url=found[spec.bundle_digest][0],
                former_url=None if former is None else found[former.bundle_digest][0],
            )
            switch(kept)
            self.running[key] = kept
            return kept
        if spec.region in self.refuses:
            raise EndpointUnavailable(f"The endpoint in {spec.region} did not start.")
        if self.meanwhile is not None:
            happen, self.meanwhile = self.meanwhile, None
            happen()
        if not is_wanted():
            raise NoLongerWanted
        self._next_port += 1
        started = RunningEndpoint(
            spec=spec,
            url=f"http://127.0.0.1:{self._next_port}",
            process_id=self._next_port,
            former_url=None if former is None else found[former.bundle_digest][0],
        )
        self.log.append(f"start {spec.region}")
        switch(started)
        self.running[key] = started
        return started

    def observe(self, spec: EndpointSpec) -> RunningEndpoint | None:
        if self.is_down:
            raise Unavailable("The target cannot be reached.")
        found = self.running.get(spec.key)
        if found is None:
            return None
        differences = self.differences.get(spec.region, ())
        return replace(found, is_ready=spec.region not in self.hangs, differences=differences)

    def stop(self, key: EndpointKey) -> None:
        self.log.append(f"stop {key.region}")
        self.running.pop(key, None)

    def _hangs(self, spec: EndpointSpec) -> bool:
        was_hung = spec.region in self.hangs
        self.hangs.discard(spec.region)
        return was_hung

    def _addresses(self, running: RunningEndpoint) -> dict[str, tuple[str, str | None]]:
        found = {running.spec.bundle_digest: (running.url or "", running.spec.online_store)}
        if running.spec.former is not None and running.former_url is not None:
            found[running.spec.former.bundle_digest] = (running.former_url, running.spec.former.online_store)
        return {str(digest): place for digest, place in found.items()}

    def lose_newest(self, region: str) -> None:
        """As if the newer of two processes had died: only the former one is left, and answers for its place."""
        for key, running in list(self.running.items()):
            if key[2] == region and running.spec.former is not None:
                self.running[key] = RunningEndpoint(spec=running.spec.former, url=running.former_url)

    def kill(self, region: str) -> None:
        for key in [key for key in self.running if key[2] == region]:
            del self.running[key]


class QuickBuilder(BundleBuilder):
    """Publishes a folder that stands for the bundle; building a real one is tested where it is built."""

    def _build(self, leased: LeasedWork, job: object) -> PublishedArtifact:
        folder = Path(self.scratch) / leased.subject
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bento.yaml").write_text(f"{job}")
        for path, text in self.more_files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return self.artifacts.publish_bundle(
            leased.workspace_id, folder, residency=leased.residency, regions=None, labels={}, region=leased.region
        )

    scratch: Path
    artifacts: RegionArtifacts
    more_files: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class Platform:
    """Serving over a fleet, with its own part of the worker."""

    fleet: Fleet
    target: MemoryTarget = field(default_factory=MemoryTarget)
    other: MemoryTarget = field(default_factory=MemoryTarget)
    stores: dict[str, str] = field(default_factory=dict[str, str])
    bundle_files: dict[str, str] = field(default_factory=dict[str, str])
    measured: dict[tuple[str, str, str], Counts] = field(default_factory=dict[tuple[str, str, str], Counts])
    is_gateway_down: bool = False
    image_of: ImageOf = no_image

    def __post_init__(self) -> None:
        bootstrap(self.fleet.database, self.fleet.clock, principal="ana", workspace_id="other")
        with self.fleet.database.write() as session:
            for name, rank in (("dev", 10), ("production", 30)):
                session.add(environment_row(name, rank, self.fleet))

    @property
    def deployments(self) -> Deployments:
        return Deployments(self.fleet.database, self.fleet.clock, catalog=load_catalog())

    @property
    def targets(self) -> DeployTargets:
        rules = TargetRules(folders=None)
        return DeployTargets(self.fleet.database, self.fleet.clock, catalog=load_catalog(), rules=rules)

    @property
    def drifts(self) -> DeploymentDrifts:
        return DeploymentDrifts(self.fleet.database, self.open_target)

    @property
    def replanning(self) -> Replanning:
        return Replanning(self.fleet.database, self.placements, self.deployments)

    def open_target(self, _workspace_id: str, name: str) -> DeployTarget:
        return self.target if name == LOCAL else self.other

    @property
    def bundles(self) -> Bundles:
        return Bundles(self.fleet.database, self.fleet.clock)

    @property
    def placements(self) -> Placements:
        return Placements(self.fleet.database, self.fleet.clock, catalog=load_catalog())

    @property
    def promotions(self) -> Promotions:
        return Promotions(
            self.fleet.database, self.fleet.clock, load_catalog(), FollowingDeployments(self.fleet.database)
        )

    @property
    def rollbacks(self) -> Rollbacks:
        return Rollbacks(self.fleet.database, self.fleet.clock)

    @property
    def routes(self) -> RouteBook:
        return RouteBook(self.fleet.database, self.fleet.root / "routes.json")

    def table(self) -> Mapping[str, Route]:
        return read_table(self.routes.path) or {}

    def worker(self) -> Worker:
        database, clock = self.fleet.database, self.fleet.clock
        artifacts = RegionArtifacts(database, clock, uploads=self.fleet.uploads, open_store=self.fleet.open_store)
        builder = QuickBuilder(database, clock, artifacts, Scratch(self.fleet.root / "scratch"))
        builder.scratch, builder.artifacts = self.fleet.root / "builds", artifacts
        builder.more_files = self.bundle_files
        deployer = Deployer(database, clock, catalog=load_catalog(), open_target=self.open_target, routes=self.routes)

        def online_store(_session: Session, version: ModelVersionRow, region: str) -> str | None:
            return self.stores.get(f"{version.feature_service} in {region}")

        duties = self.fleet.duties
        return Worker(
            database,
            clock,
            regions=None,
            handlers={**duties.handlers, BUILD_BUNDLE: builder, DEPLOY: deployer},
            derivers=[
                *duties.derivers,
                derive_bundles,
                RolloutDeriver(
                    database,
                    self.open_target,
                    online_store,
                    measure=lambda: None if self.is_gateway_down else self.measured,
                    image_of=self.image_of,
                    follow_routes=self.routes.follow,
                ),
            ],
        )

    def settle(self, rounds: int = 3) -> None:
        """Work until nothing changes, letting back-offs pass."""
        for _ in range(rounds):
            self.worker().run_until_idle()
            self.fleet.clock.advance(BACK_OFF)

    def register(self, name: str, files: Mapping[str, bytes], *, feature_service: str | None = None) -> int:
        """One more version of a model, READY."""
        model = Models(self.fleet.database, self.fleet.clock).get(ADMIN, name)
        near = "virginia" if model.residency == "unrestricted" else "eemshaven"
        upload_id, _ = self.fleet.register(files, residency=model.residency, near=near)
        draft = VersionDraft(upload_id=upload_id, feature_service=feature_service)
        version = Versions(self.fleet.database, self.fleet.clock).register(ADMIN, name, draft)
        self.worker().run_until_idle()
        return version.version

    def create_model(self, name: str, residency: str = "unrestricted") -> None:
        labels = Labels(owner="ana", team="risk", cost_centre="cc-7")
        Models(self.fleet.database, self.fleet.clock).create(ADMIN, name=name, labels=labels, residency=residency)

    def promote(self, name: str, version: int, environment: str = "production", *, revision: int) -> None:
        self.promotions.request(ADMIN, name, version, environment, expected_revision=revision)


def environment_row(name: str, rank: int, fleet: Fleet) -> object:
    from fairlead.registry.tables import EnvironmentRow

    return EnvironmentRow(
        workspace_id=WORKSPACE,
        name=name,
        rank=rank,
        policy={},
        revision=1,
        updated_by="ana",
        updated_at=fleet.clock.now(),
    )


def refused(error: type[FairleadError], action: Callable[[], object]) -> FairleadError:
    """The error of the class that an action raises."""
    try:
        action()
    except error as found:
        return found
    raise AssertionError(f"nothing raised {error.__name__}")
