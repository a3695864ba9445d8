"""Images of bundles reach the registries of regions, as one digest, and are found and mended when they drift."""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fairlead.catalog import load_catalog
from fairlead.core.cloud_hosts import CloudHosts
from fairlead.core.errors import InvalidInput, PermissionDenied, ResidencyViolation
from fairlead.core.ids import Digest
from fairlead.registry import work
from fairlead.registry.paging import PageRequest
from fairlead.registry.permissions import RoleGrant, evaluate
from fairlead.registry.tables import WorkRow
from fairlead.registry.visibility import Narrowed, begin_access
from fairlead.serving.artifacts import RegionArtifacts
from fairlead.serving.bundle import LOCK
from fairlead.serving.bundle_images import (
    CHECK_EVERY,
    CHECK_IMAGE,
    PUSH_IMAGE,
    Images,
    ImageStatus,
    derive_images,
    image_for,
)
from fairlead.serving.container_registries import ContainerRegistries
from fairlead.serving.image_work import ImagePusher, RegistryConnections
from fairlead.serving.tables import BundleRow
from fairlead.serving.tables_images import ImagePushRow
from fairlead.sync.scratch import Scratch
from fairlead.sync.worker import Worker
from tests.fleet import ADMIN, BACK_OFF, open_fleet
from tests.records import WORKSPACE
from tests.servers.oci_registry import OciRegistry, put_base
from tests.serving.platform import EU_WEST, US, Platform

HOSTS = CloudHosts(hosts=("127.0.0.1",))
FACTS = {"reference": "churn/1", "artifact_digest": "sha256:" + "a" * 64, "python": "3.11"}
BUNDLE_FILES = {
    LOCK: "six==1.17.0 --hash=sha256:" + "0" * 64 + "\n",
    "src/fairlead_bundle/bundle.json": json.dumps(FACTS),
    "src/fairlead_bundle/service.py": "service = 1\n",
    "src/model/MLmodel": "flavors: {}\n",
}


def lay_out(_lock: str, destination: Path, *, platform: str, **_: Any) -> None:
    """In the place of uv, which would ask a package index."""
    for name, text in (("six.py", "x = 1\n"), ("six-1.17.0.dist-info/RECORD", platform), ("bin/tool", "#!here\n")):
        file = destination / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if name != "six.py" else f"{text}# {platform}\n")


class Harbour:
    """A platform with registries in two regions."""

    def __init__(self, platform: Platform, *registries: tuple[str, str, OciRegistry]) -> None:
        self.platform = platform
        fleet = platform.fleet
        self.registries = ContainerRegistries(fleet.database, fleet.clock, catalog=load_catalog(), cloud_hosts=HOSTS)
        self.images = Images(fleet.database, fleet.clock)
        prefix = uuid.uuid4().hex
        for name, region, registry in registries:
            url = f"{registry.url}/{prefix}"
            self.registries.add(ADMIN, name=name, region=region, url=url, provider="oci")

    def bundle(self, residency: str = "unrestricted") -> str:
        self.platform.bundle_files.update(BUNDLE_FILES)
        self.platform.create_model("churn", residency)
        version = self.platform.register("churn", {"MLmodel": b"flavors: {}", "weights.bin": b"w" * 1000})
        bundle = self.platform.bundles.request(ADMIN, f"churn/{version}")
        self.platform.settle()
        return bundle.id

    def work(self) -> None:
        fleet = self.platform.fleet
        artifacts = RegionArtifacts(fleet.database, fleet.clock, uploads=fleet.uploads, open_store=fleet.open_store)
        pusher = ImagePusher(
            fleet.database,
            fleet.clock,
            artifacts=artifacts,
            scratch=Scratch(fleet.root / "scratch"),
            connections=RegistryConnections(cloud_hosts=HOSTS, environ={}),
            unpack=lay_out,
        )
        handlers = {PUSH_IMAGE: pusher.push, CHECK_IMAGE: pusher.check}
        fleet.clock.advance(BACK_OFF)
        Worker(fleet.database, fleet.clock, regions=None, handlers=handlers, derivers=[derive_images]).run_until_idle()

    def status(self, bundle_id: str) -> ImageStatus:
        return self.images.status(ADMIN, bundle_id)

    def image_for(self, status: ImageStatus, region: str, **needs: Any) -> str | None:
        with self.platform.fleet.database.read() as session:
            return image_for(session, WORKSPACE, status.bundle_digest, region, **needs)


@pytest.fixture
def platform(database_url: str, tmp_path: Path) -> Iterator[Platform]:
    with open_fleet(tmp_path, database_url) as fleet:
        yield Platform(fleet=fleet)


@pytest.fixture
def harbour(platform: Platform, registry: OciRegistry, other_registry: OciRegistry) -> Harbour:
    found = Harbour(platform, ("virginia", US, registry), ("eemshaven", EU_WEST, other_registry))
    base = put_base(registry, "linux/amd64", "linux/arm64")
    found.registries.set_variant(ADMIN, "cpu", platform="linux/amd64", accelerators=(), base=base)
    return found


def test_one_digest_is_in_every_registry_and_each_was_read_back(
    harbour: Harbour, registry: OciRegistry, other_registry: OciRegistry
) -> None:
    bundle = harbour.bundle()
    asked = harbour.images.push(ADMIN, bundle)
    assert {each.state for each in asked.registries} == {"WANTED"}
    assert not asked.is_one
    harbour.work()
    status = harbour.status(bundle)
    assert status.is_one
    assert {each.digest for each in status.registries} == {status.digest}
    assert {each.region for each in status.registries} == {US, EU_WEST}
    found = harbour.image_for(status, US)
    assert found == f"{registry.host}/{_repository(status, 'virginia')}@{status.variants[0].digest}"
    assert harbour.image_for(status, EU_WEST) == str(found).replace(registry.host, other_registry.host)
    assert harbour.image_for(status, "azure:westeurope") is None
    assert harbour.image_for(status, US, architecture="arm64") is None
    assert harbour.image_for(status, US, accelerator="L4") is None


def test_an_image_is_the_base_the_packages_the_model_and_the_service(harbour: Harbour, registry: OciRegistry) -> None:
    bundle = harbour.bundle()
    harbour.images.push(ADMIN, bundle, registries=["virginia"])
    harbour.work()
    status = harbour.status(bundle)
    client, repository = registry.client(), _repository(status, "virginia")
    manifest = json.loads(client.read_manifest(repository, status.variants[0].digest)[1])
    named = manifest["config"]
    config = json.loads(b"".join(client.read_blob(repository, Digest(named["digest"]), named["size"])))
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"][:4] == ["python3", "-m", "bentoml", "serve"]
    assert config["config"]["Labels"]["org.opencontainers.image.title"] == "churn"
    assert "PYTHON_VERSION=3.11.9" in config["config"]["Env"]
    assert [each["digest"] for each in manifest["layers"]] == config["rootfs"]["diff_ids"]
    names: list[str] = []
    for layer in manifest["layers"][1:]:
        content = b"".join(client.read_blob(repository, Digest(layer["digest"]), layer["size"]))
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            names += [each.name for each in archive if each.isfile()]
            assert {(each.mtime, each.uid, each.gid, each.uname) for each in archive} == {(0, 0, 0, "")}
    assert names == [
        "opt/fairlead/site-packages/six.py",
        "opt/fairlead/bundle/src/model/MLmodel",
        "opt/fairlead/bundle/bento.yaml",
        f"opt/fairlead/bundle/{LOCK}",
        "opt/fairlead/bundle/src/fairlead_bundle/bundle.json",
        "opt/fairlead/bundle/src/fairlead_bundle/service.py",
    ]


def test_variants_are_of_one_index_and_are_chosen_by_architecture_and_board(
    harbour: Harbour, registry: OciRegistry
) -> None:
    base = put_base(registry, "linux/amd64", "linux/arm64")
    harbour.registries.set_variant(ADMIN, "arm", platform="linux/arm64", accelerators=(), base=base)
    harbour.registries.set_variant(ADMIN, "gpu", platform="linux/amd64", accelerators=("L4", "T4"), base=base)
    bundle = harbour.bundle()
    harbour.images.push(ADMIN, bundle)
    harbour.work()
    status = harbour.status(bundle)
    by_name = {each.name: each.digest for each in status.variants}
    assert [*by_name] == ["arm", "cpu", "gpu"]
    assert (harbour.image_for(status, US, architecture="arm64") or "").endswith(by_name["arm"])
    assert (harbour.image_for(status, US, accelerator="l4") or "").endswith(by_name["gpu"])
    assert (harbour.image_for(status, US) or "").endswith(by_name["cpu"])
    harbour.registries.delete_variant(ADMIN, "gpu")
    before = status.digest
    assert not harbour.status(bundle).is_one
    harbour.work()
    after = harbour.status(bundle)
    assert after.is_one
    assert after.digest != before
    assert [each.name for each in after.variants] == ["arm", "cpu"]


def test_an_image_that_drifted_is_found_and_pushed_again(harbour: Harbour, registry: OciRegistry) -> None:
    bundle = harbour.bundle()
    harbour.images.push(ADMIN, bundle)
    harbour.work()
    status = harbour.status(bundle)
    repository = _repository(status, "virginia")
    index = registry.client().read_manifest(repository, str(status.digest))[1]
    registry.client().write_manifest(repository, _tag(status), "application/vnd.oci.image.index.v1+json", index + b"\n")
    harbour.platform.fleet.clock.advance(CHECK_EVERY)
    harbour.work()
    assert harbour.status(bundle).is_one
    actions = [action for action in harbour.platform.fleet.actions() if action.startswith("image.")]
    assert actions.count("image.drift") == 1
    assert actions.count("image.push") == 3
    with_tag = registry.client().read_manifest(repository, _tag(status))[1]
    assert with_tag == index


def test_an_image_that_nothing_says_a_base_of_waits_and_says_so(harbour: Harbour) -> None:
    bundle = harbour.bundle()
    harbour.images.push(ADMIN, bundle)
    harbour.work()
    harbour.registries.delete_variant(ADMIN, "cpu")
    fleet = harbour.platform.fleet
    for _ in range(2):
        with fleet.database.write() as session:
            derive_images(session, fleet.clock.now())
            assert not session.scalars(select(WorkRow.kind).where(WorkRow.kind == PUSH_IMAGE)).all()
    status = harbour.status(bundle)
    assert not status.is_one
    assert ["which base images" in (each.error_detail or "") for each in status.registries] == [True, True]


def test_an_image_says_what_it_waits_for_where_its_bundle_is_not(harbour: Harbour, registry: OciRegistry) -> None:
    harbour.registries.add(ADMIN, name="tokyo", region="aws:ap-northeast-1", url=f"{registry.url}/x", provider="oci")
    bundle = harbour.bundle()
    harbour.images.push(ADMIN, bundle)
    harbour.work()
    (waiting,) = (each for each in harbour.status(bundle).registries if each.registry == "tokyo")
    assert (waiting.state, waiting.error_code) == ("WANTED", "replica-unavailable")
    assert "aws:ap-northeast-1" in (waiting.error_detail or "")


def test_a_check_of_what_is_to_be_pushed_anew_is_done_with(harbour: Harbour) -> None:
    bundle = harbour.bundle()
    digest = harbour.images.push(ADMIN, bundle, registries=["virginia"]).bundle_digest
    fleet = harbour.platform.fleet
    with fleet.database.write() as session:
        subject, now = f"virginia/{digest}", fleet.clock.now()
        work.require_work(
            session,
            workspace_id=WORKSPACE,
            residency="unrestricted",
            kind=CHECK_IMAGE,
            subject=subject,
            region=US,
            priority=1,
            now=now,
        )
    harbour.work()
    with fleet.database.read() as session:
        assert not session.scalars(select(WorkRow.subject).where(WorkRow.kind == CHECK_IMAGE)).all()


def test_two_that_want_one_image_at_once_want_it_once(harbour: Harbour) -> None:
    bundle = harbour.bundle()
    database, clock = harbour.platform.fleet.database, harbour.platform.fleet.clock
    with ThreadPoolExecutor(1) as other:
        with database.write() as session:
            row = session.get_one(BundleRow, (WORKSPACE, bundle))
            wanted = ImagePushRow(
                workspace_id=WORKSPACE,
                registry_name="virginia",
                bundle_digest=row.digest,
                bundle_id=bundle,
                residency=row.residency,
                state="WANTED",
                repository="x",
                wanted_by="fairlead:worker",
                created_at=clock.now(),
            )
            session.add(wanted)
            session.flush()
            asked = other.submit(harbour.images.push, ADMIN, bundle, registries=["virginia"])
            time.sleep(0.3)
        assert [each.wanted_by for each in asked.result(10).registries] == ["fairlead:worker"]


def test_an_image_of_restricted_data_stays_in_its_jurisdiction(harbour: Harbour) -> None:
    bundle = harbour.bundle("eu")
    with pytest.raises(ResidencyViolation, match=US):
        harbour.images.push(ADMIN, bundle, registries=["virginia"])
    status = harbour.images.push(ADMIN, bundle)
    assert [each.registry for each in status.registries] == ["eemshaven"]
    harbour.work()
    assert harbour.status(bundle).is_one


def test_whoever_may_deploy_some_models_has_no_image_of_others_pushed_or_checked(harbour: Harbour) -> None:
    bundle_id = harbour.bundle()
    roles = [RoleGrant("viewer", "*", "*"), RoleGrant("deployer", "triage", "*")]
    scopes, grants = evaluate({"read", "deploy"}, roles=roles)
    eve = replace(ADMIN, principal="eve", scopes=scopes, grants=grants)
    begin_access().narrowed = Narrowed(caller=eve, scope="deploy")
    try:
        for ask in (harbour.images.push, harbour.images.check):
            with pytest.raises(PermissionDenied):
                ask(eve, bundle_id)
        assert harbour.images.status(eve, bundle_id).registries == ()
    finally:
        begin_access()


def test_a_registry_is_one_that_credentials_may_go_to(platform: Platform) -> None:
    registries = Harbour(platform).registries
    wrong = [
        ("https://registry.example.com", "oci"),
        ("https://api.amazonaws.com/x", "ecr"),
        ("http://123456789012.dkr.ecr.us-east-1.amazonaws.com", "ecr"),
        ("https://user@127.0.0.1", "oci"),
        ("https://127.0.0.1/Upper", "oci"),
    ]
    for url, provider in wrong:
        with pytest.raises(InvalidInput):
            registries.add(ADMIN, name="wrong", region=US, url=url, provider=provider)
    host = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    added = registries.add(ADMIN, name="ecr", region=US, url=f"https://{host}/fairlead/", provider="ecr")
    assert added.url == f"https://{host}/fairlead"
    assert added.identity == {"kind": "workload"}
    assert added.repository("default", "Churn EU") == "fairlead/default/churn-eu"
    assert [each.name for each in registries.list(ADMIN, PageRequest()).items] == ["ecr"]


def _repository(status: ImageStatus, registry: str) -> str:
    (image,) = (each.image or "" for each in status.registries if each.registry == registry)
    return image.partition("/")[2].partition("@")[0]


def _tag(status: ImageStatus) -> str:
    return f"v1-{status.bundle_digest.partition(':')[2][:12]}"
