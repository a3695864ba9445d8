from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.ports import RegionUser
from fairlead.registry.tables import LocationRow
from fairlead.serving.deployments import DeploymentDraft
from fairlead.serving.leaving import RegionDeployments
from tests.fleet import ADMIN, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import EU_AZURE, EU_WEST, US, Platform

LOCATIONS = {US: "virginia", EU_WEST: "eemshaven", EU_AZURE: "amsterdam"}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with open_fleet(tmp_path) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        fleet.region_use = RegionDeployments(fleet.database, load_catalog())
        version = platform.register("churn", model_files(1.0, 1.0, 1.0))
        platform.promote("churn", version, revision=0)
        yield platform


def deploy(platform: Platform, *regions: str) -> None:
    platform.deployments.apply(ADMIN, DeploymentDraft(model="churn", environment="production", regions=regions))
    platform.settle()


def states(platform: Platform) -> dict[str, str]:
    return {each.region: each.state for each in platform.deployments.get(ADMIN, "churn").regions}


def state_of_location(platform: Platform, region: str) -> str:
    platform.fleet.settle()
    with platform.fleet.database.read() as session:
        return session.query(LocationRow).filter_by(name=LOCATIONS[region]).one().state


def test_a_deployment_that_answers_elsewhere_leaves_a_region_whose_last_location_drains(platform: Platform) -> None:
    deploy(platform, US, EU_WEST)
    found = platform.fleet.retirements.retire(ADMIN, LOCATIONS[US])
    assert found.used_by == (RegionUser(name="deployment churn", goes_on_in=(EU_WEST,)),)
    platform.settle()
    assert states(platform) == {EU_WEST: "RUNNING"}
    assert [endpoint.region for endpoint in platform.table()["acme:churn"].endpoints] == [EU_WEST]
    assert platform.fleet.actions().count("deployment.leave") == 1
    assert state_of_location(platform, US) == "RETIRED"


def test_a_deployment_stays_for_as_long_as_it_answers_nowhere_else(platform: Platform) -> None:
    platform.target.refuses.add(EU_WEST)
    deploy(platform, US, EU_WEST)
    platform.fleet.retirements.retire(ADMIN, LOCATIONS[US])
    platform.settle()
    assert states(platform)[US] == "RUNNING"
    assert state_of_location(platform, US) == "DRAINING"
    platform.target.refuses.clear()
    platform.settle()
    assert states(platform) == {EU_WEST: "RUNNING"}


def test_one_that_runs_nowhere_else_is_waited_for_and_the_plan_says_what_moves_it(platform: Platform) -> None:
    deploy(platform, EU_WEST)
    (user,) = platform.fleet.retirements.retire(ADMIN, LOCATIONS[EU_WEST]).used_by
    # The nearest of the other two.
    assert user.command == f"fairlead deploy apply churn@production --name churn --region {EU_AZURE}"
    platform.settle()
    assert states(platform) == {EU_WEST: "RUNNING"}
    assert state_of_location(platform, EU_WEST) == "DRAINING"
    deploy(platform, EU_AZURE)
    assert states(platform) == {EU_AZURE: "RUNNING"}
    assert state_of_location(platform, EU_WEST) == "RETIRED"
