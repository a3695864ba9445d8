"""Workers and replicas of the API that change one deployment at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from fairlead.catalog import load_catalog
from fairlead.registry import work
from fairlead.serving import revisions
from fairlead.serving.bundles import derive_bundles
from fairlead.serving.deployer import Deployer
from fairlead.serving.deployment_spec import DeploymentSpec
from fairlead.serving.deployments import DeploymentDraft
from fairlead.serving.rollout import DEPLOY, subject_of
from fairlead.serving.tables import BundleRow, DeploymentRegionRow, DeploymentRow
from tests.fleet import ADMIN, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import US, Platform


@pytest.fixture
def platform(postgres_database: str, tmp_path: Path) -> Iterator[Platform]:
    with open_fleet(tmp_path, postgres_database) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        platform.register("churn", model_files(1.0, 1.0, 1.0))
        platform.promote("churn", 1, revision=0)
        platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", environment="production", regions=(US,)))
        platform.settle(rounds=1)
        yield platform


def test_a_region_that_is_wanted_again_while_it_stops_is_not_forgotten(platform: Platform) -> None:
    database, clock = platform.fleet.database, platform.fleet.clock
    with database.write() as session:
        row = session.scalars(select(DeploymentRegionRow)).one()
        row.state = "STOPPING"
        work.require_work(
            session,
            workspace_id=row.workspace_id,
            residency="unrestricted",
            kind=DEPLOY,
            subject=subject_of(row),
            region=US,
            priority=1,
            now=clock.now(),
        )
    ttl = timedelta(minutes=1)
    leased = work.lease(database, clock, kinds={DEPLOY}, regions=None, holder="tests", ttl=ttl)
    assert leased is not None
    deployer = Deployer(
        database, clock, catalog=load_catalog(), open_target=platform.open_target, routes=platform.routes
    )
    stopping = threading.Thread(target=deployer, args=(leased,), daemon=True)
    with database.write() as session:
        deployment = session.scalars(select(DeploymentRow).with_for_update()).one()
        revisions.lay_out(session, deployment, DeploymentSpec.from_json(deployment.spec), clock.now())
        stopping.start()
        # It has ended the endpoint, and waits for this transaction.
        deadline = time.monotonic() + 10
        while f"stop {US}" not in platform.target.log and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
    stopping.join(10)
    platform.settle(rounds=2)
    (region,) = platform.deployments.get(ADMIN, "churn").regions
    assert (region.region, region.state, region.health) == (US, "RUNNING", "up")


def test_two_workers_record_once_that_a_bundle_is_ready(platform: Platform) -> None:
    database, clock = platform.fleet.database, platform.fleet.clock
    with database.write() as session:
        session.scalars(select(BundleRow)).one().state = "VERIFYING"

    def derive() -> None:
        with database.write() as session:
            derive_bundles(session, clock.now())

    before = platform.fleet.actions().count("bundle.ready")
    other = threading.Thread(target=derive, daemon=True)
    with database.write() as session:
        derive_bundles(session, clock.now())
        session.flush()
        other.start()
        time.sleep(0.3)
    other.join(10)
    assert platform.fleet.actions().count("bundle.ready") == before + 1
