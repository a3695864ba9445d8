"""A model that runs in three regions, each of which needs neither the metadata service nor another region."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fairlead.core.ids import Digest
from fairlead.serving.processes import free_port
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from tests.acceptance.command_line import kill
from tests.acceptance.world import REGIONS, WEIGHTS, World, is_ready, predictions, true_predictions, when
from tests.fleet import flip_a_byte
from tests.serving.models import expected

pytestmark = pytest.mark.timeout(500)


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_predicts_the_same_when_everything_else_is_gone(world: World, region: str, tmp_path: Path) -> None:
    before = world.wait_healthy()
    others = [each for each in REGIONS if each != region]
    url, pid = str(before[region]["endpoint_url"]), int(before[region]["process_id"])
    assert predictions(url) == pytest.approx(true_predictions())
    answered = predictions(url)

    kill(
        int(world.fairlead.address["pid"]),
        gateway_pid(world),
        *(int(before[each]["process_id"]) for each in others),
    )
    with gone(world, others):
        assert predictions(url) == answered
        kill(pid)
        with restarted_from_its_own_disk(world, region, tmp_path) as again:
            assert predictions(again) == answered

    after = world.wait_healthy()
    assert {each: predictions(str(after[each]["endpoint_url"])) for each in REGIONS} == dict.fromkeys(REGIONS, answered)
    endpoint = str(world.status()["endpoint"])
    answers = {each: predictions(endpoint, prefer=each) for each in REGIONS}
    assert answers == dict.fromkeys(REGIONS, answered)
    for digest in (world.version["artifact_digest"], world.bundle["digest"]):
        assert {each["state"] for each in world.replicas(digest).values()} == {"VERIFIED"}


@pytest.mark.parametrize("what", ["bundle", "snapshot"])
def test_damaged_bundles_and_snapshots_are_mended_too(world: World, what: str) -> None:
    region = "gcp:europe-west4"
    digest: str = world.bundle["digest"] if what == "bundle" else world.snapshot["artifacts"][0]["digest"]
    before = world.replicas(digest)[region]
    location = world.location(region) / "default" / "unrestricted" / "plain"
    name = digest.removeprefix("sha256:")
    for file in (*location.glob(f"layouts/{name}/*.json.gz"), location / "manifests" / f"{name}.json"):
        flip_a_byte(file)
    asked = httpx2.post(
        f"{world.fairlead.address['url']}/api/v1/artifacts/{digest}/verify",
        headers={"authorization": f"Bearer {world.fairlead.token}"},
        json={"location": "gcp-europe-west4"},
        trust_env=False,
    )
    assert asked.status_code == 202, asked.text

    def is_mended() -> dict[str, Any] | None:
        found = world.replicas(digest)[region]
        return found if found["state"] == "VERIFIED" and found["verified_at"] > before["verified_at"] else None

    when(is_mended, seconds=60)
    assert {each["state"] for each in world.replicas(digest).values()} == {"VERIFIED"}


def test_a_deployment_is_planned_applied_asked_and_destroyed(world: World, tmp_path: Path) -> None:
    fairlead, region = world.fairlead, "gcp:europe-west4"
    plan = fairlead.json("deploy", "plan", "triage/1", "--region", region, "--name", "trial")
    assert [(step["region"], step["action"]) for step in plan["steps"]] == [(region, "start")]
    assert fairlead.json("deploy", "apply", "triage/1", "--region", region, "--name", "trial", "--dry-run") == plan
    assert "trial" not in {each["name"] for each in fairlead.json("deploy", "status")}
    applied = fairlead.json("deploy", "apply", "triage/1", "--region", region, "--name", "trial")
    assert [each["state"] for each in applied["regions"]] == ["RUNNING"]
    assert applied["bundle_digest"] == world.bundle["digest"]
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps({"rows": [{"radius": 1, "texture": 2, "age": 3}]}))
    answer = fairlead.json("predict", "trial", "--rows", rows)
    assert answer["predictions"] == pytest.approx([expected((1, 2, 3), *WEIGHTS)])
    assert answer["served_by"] == region
    fairlead("deploy", "destroy", "trial")
    when(lambda: True if "trial" not in fairlead("deploy", "status", "-o", "quiet").stdout.split() else None)
    fairlead.refused("predict", "trial", "--rows", rows, code=3)


def test_a_deployment_is_asked_by_entity_and_says_what_it_lacks(world: World) -> None:
    fairlead = world.fairlead
    answer = fairlead.json("predict", "triage", "--entity", "sample_id=1,2,3")
    assert answer["predictions"] == pytest.approx(true_predictions())
    assert answer["served_by"] in REGIONS
    unknown = fairlead.refused("predict", "triage", "--entity", "sample_id=1,99", code=3)
    assert unknown["type"] == "urn:fairlead:error:entity-not-found"
    fairlead.refused("predict", "triage", "--entity", "nonsense=1", code=2)
    assert "triage" in fairlead("deploy", "status").stdout
    assert fairlead.json("bundle", "triage/1")["digest"] == world.bundle["digest"]


@contextmanager
def gone(world: World, regions: Sequence[str]) -> Generator[None]:
    """Rename all that the regions have on disk, and the record with it, while the block runs."""
    folders = [
        folder
        for region in regions
        for folder in (world.location(region), world.online_store(region), world.endpoint_folder(region))
    ]
    folders += sorted(world.home.glob("fairlead.db*"))
    for folder in folders:
        folder.rename(folder.with_name(f"{folder.name}.away"))
    try:
        yield
    finally:
        for folder in folders:
            folder.with_name(f"{folder.name}.away").rename(folder)


@contextmanager
def restarted_from_its_own_disk(world: World, region: str, folder: Path) -> Generator[str]:
    """A new process, from the bundle and model bytes in the region's bucket and the region's online store alone."""
    store, domain = open_store(world.location(region).as_uri()), DedupDomain("default", "unrestricted")
    ArtifactReader.open(store, domain, Digest(world.bundle["digest"])).download(folder / "bundle")
    ArtifactReader.open(store, domain, Digest(world.version["artifact_digest"])).download(folder / "model")
    for file in (path for path in world.model.rglob("*") if path.is_file()):
        name = file.relative_to(world.model)
        assert (folder / "model" / name).read_bytes() == file.read_bytes()
        assert (folder / "bundle" / "src" / "model" / name).read_bytes() == file.read_bytes()
    port = free_port()
    command = ["-m", "bentoml", "serve", str(folder / "bundle"), "--host", "127.0.0.1", "--port", str(port)]
    variables = {
        "BENTOML_HOME": str(folder / "bentoml"),
        "FAIRLEAD_REGION": region,
        "FAIRLEAD_ONLINE_STORE": str(world.online_store(region) / "default" / "diagnosis.sqlite"),
    }
    (folder / "bentoml").mkdir()
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=os.environ | variables,
        )
    try:
        when(lambda: True if is_ready(port) else None, seconds=90)
        yield f"http://127.0.0.1:{port}"
    finally:
        kill(process.pid)
        process.wait()


def gateway_pid(world: World) -> int:
    return int(json.loads((world.home / "serving" / "gateway.json").read_text())["process"]["pid"])
