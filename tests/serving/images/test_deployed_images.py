"""A bundle that is deployed to a target of images is pushed because it is needed, and runs by its digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fairlead.catalog import load_catalog
from fairlead.serving.assembly import image_of
from fairlead.serving.deploy_targets import DeployTargets, TargetDraft, open_target
from fairlead.serving.deployments import DeploymentDraft
from fairlead.serving.targets import DeployTarget, TargetRules
from tests.fleet import ADMIN, open_fleet
from tests.servers.oci_registry import OciRegistry, put_base
from tests.serving.images.test_bundle_images import Harbour
from tests.serving.platform import US, Platform


class Shipyard(Platform):
    """A platform whose second target is a folder of Kubernetes objects, and whose deployments know images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.image_of = image_of

    @property
    def manifests(self) -> Path:
        return self.fleet.root / "manifests"

    @property
    def targets(self) -> DeployTargets:
        return DeployTargets(self.fleet.database, self.fleet.clock, catalog=load_catalog(), rules=self._rules)

    @property
    def _rules(self) -> TargetRules:
        return TargetRules(folders=(self.fleet.root,))

    def open_target(self, workspace_id: str, name: str) -> DeployTarget:
        applied = self.targets.get(ADMIN, name)
        return open_target(workspace_id, applied, self.fleet.root / "server", self._rules)


@pytest.fixture
def shipyard(tmp_path: Path) -> Iterator[Shipyard]:
    with open_fleet(tmp_path) as fleet:
        yield Shipyard(fleet=fleet)


def test_a_deployment_has_its_image_pushed_and_names_the_digest_that_the_registry_holds(
    shipyard: Shipyard, registry: OciRegistry
) -> None:
    harbour = Harbour(shipyard, ("virginia", US, registry))
    harbour.registries.set_variant(
        ADMIN, "cpu", platform="linux/amd64", accelerators=(), base=put_base(registry, "linux/amd64")
    )
    draft = TargetDraft(
        kind="kubernetes",
        delivery="folder",
        settings={"namespace": "models"},
        delivery_settings={"path": str(shipyard.manifests)},
    )
    shipyard.targets.put(ADMIN, "cluster", draft, expected_revision=0)
    bundle = harbour.bundle()
    shipyard.deployments.apply(
        ADMIN, DeploymentDraft(model="churn", version=1, regions=(US,), targets={"*": "cluster"})
    )
    shipyard.settle(rounds=1)
    assert not list(shipyard.manifests.rglob("*.yaml"))

    harbour.work()
    shipyard.settle(rounds=1)
    status = harbour.status(bundle)
    assert status.is_one
    (image,) = {
        container["image"]
        for path in shipyard.manifests.rglob("deployment-*.yaml")
        for container in yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["template"]["spec"]["containers"]
    }
    assert image == harbour.image_for(status, US)
    repository, _, digest = image.removeprefix(f"{registry.host}/").partition("@")
    assert registry.client().read_manifest(repository, digest)[1]
    assert [each.state for each in shipyard.deployments.get(ADMIN, "churn").regions] == ["RUNNING"]
