"""From a registered version to answers through the gateway, with real bundles, endpoints and a real gateway."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.orm import Session

from fairlead.catalog import load_catalog
from fairlead.core.clock import SystemClock
from fairlead.core.ids import RegionId
from fairlead.registry.identity import DEFAULT_WORKSPACE, Caller, bootstrap
from fairlead.registry.locations import Locations
from fairlead.registry.models import Labels, Models
from fairlead.registry.tables import ModelVersionRow
from fairlead.registry.uploads import Uploads
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.serving.assembly import Serving, assemble_serving
from fairlead.serving.deployments import Deployment, DeploymentDraft
from fairlead.serving.processes import ProcessRecord
from fairlead.serving.targets import EndpointKey
from fairlead.sync.duties import sync_duties
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.refs import generate_signing_key
from fairlead.sync.store.writer import write_artifact
from fairlead.sync.worker import Worker
from tests.fleet import REGIONS, flip_a_byte
from tests.records import open_record
from tests.serving.models import expected, model_files, write_online_store

pytestmark = pytest.mark.timeout(400)
CALLER = Caller(workspace_id=DEFAULT_WORKSPACE, principal="ana", scopes=frozenset({"admin"}))
EU = ("gcp:europe-west4", "azure:westeurope")
WEIGHTS = (0.5, -0.25, 0.125)
MODEL_BYTES = 4 * 2**20
BODY = {"entities": {"sample_id": ["a"]}}


@contextmanager
def running_server(root: Path) -> Generator[tuple[Serving, Worker, Callable[[str], None]]]:
    """What a server is without its routes. Leaving it is what the server's death is to the endpoints: nothing."""
    clock = SystemClock()
    with open_record(f"sqlite:///{root / 'fairlead.db'}") as database:
        bootstrap(database, clock, principal="ana")
        locations = Locations(database, clock, catalog=load_catalog(), open_store=open_store)
        for name, region in REGIONS.items():
            locations.add(CALLER, name=name, region=region, url=(root / name).as_uri())
        uploads = Uploads(database, clock, catalog=load_catalog())

        def online_store(_session: Session, _version: ModelVersionRow, region: str) -> str | None:
            path = root / "online" / f"{region.replace(':', '-')}.sqlite"
            return str(path) if path.exists() else None

        serving = assemble_serving(
            database=database,
            clock=clock,
            catalog=load_catalog(),
            uploads=uploads,
            open_store=open_store,
            folder=root / "serving",
            online_store=online_store,
        )
        duties = sync_duties(
            database, clock, catalog=load_catalog(), open_store=open_store, signing_key=generate_signing_key()
        )
        worker = Worker(
            database,
            clock,
            regions=None,
            handlers={**duties.handlers, **serving.handlers},
            derivers=[*duties.derivers, *serving.derivers],
        )

        def register(name: str) -> None:
            labels = Labels(owner="ana", team="risk", cost_centre="cc-7")
            Models(database, clock).create(CALLER, name=name, labels=labels, residency="eu")
            upload = uploads.begin(CALLER, kind="model", residency="eu", region=EU[0])
            domain = DedupDomain(DEFAULT_WORKSPACE, "eu")
            files = model_files(*WEIGHTS, extra_bytes=MODEL_BYTES)
            written = write_artifact(open_store(upload.location.url), domain, files)
            uploads.complete(
                CALLER,
                upload.id,
                artifact_digest=written.digest,
                layout_key=written.layout_key,
                sent_bytes=written.sent_bytes,
            )
            draft = VersionDraft(upload_id=upload.id, feature_service="diagnosis")
            Versions(database, clock).register(CALLER, name, draft)

        yield serving, worker, register


def test_an_eu_model_is_served_by_one_bundle_in_two_regions_and_survives_the_loss_of_either(tmp_path: Path) -> None:
    for region in EU:
        path = tmp_path / "online" / f"{region.replace(':', '-')}.sqlite"
        write_online_store(path, {"a": (1.0, 2.0, 3.0)}, region)
    with running_server(tmp_path) as (serving, worker, register):
        try:
            register("triage")
            worker.run_until_idle()
            worker.start()
            serving.tend_gateway()
            assert serving.gateway.address is None, "nothing is deployed"
            serving.deployments.apply(CALLER, DeploymentDraft(model="triage", version=1, regions=EU))
            when(lambda: serving.target.is_used, bool)
            serving.tend_gateway()
            address = serving.start_gateway()
            running = when(lambda: serving.deployments.get(CALLER, "triage"), is_running)
            check_bundle(serving)
            check_answers(address, running)
            check_fail_over(address, serving, running)
            check_mended_replica(tmp_path, serving, running)
            # The server dies: worker and record are gone, and the endpoints answer on.
            worker.stop()
            assert ask(address).status_code == 200
            assert serving.start_gateway() == address
        finally:
            worker.stop()
            for region in EU:
                serving.target.stop(EndpointKey(DEFAULT_WORKSPACE, "triage", RegionId(region)))
            serving.gateway.stop()


def check_bundle(serving: Serving) -> None:
    bundle = serving.bundles.request(CALLER, "triage/1")
    assert bundle.state == "READY"
    # The weights were there already: the bundle adds its service and little else.
    assert bundle.size_bytes is not None
    assert bundle.size_bytes > MODEL_BYTES
    assert bundle.sent_bytes is not None
    assert bundle.sent_bytes < 100_000


def check_answers(address: str, running: Deployment) -> None:
    answers = [ask(address, prefer=region) for region in EU]
    assert [answer.headers["x-fairlead-region"] for answer in answers] == list(EU)
    assert [answer.json()["region"] for answer in answers] == list(EU)
    one, other = (answer.json() | {"region": None} for answer in answers)
    assert one == other
    assert one["predictions"] == pytest.approx([expected((1, 2, 3), *WEIGHTS)])
    assert one["bundle_digest"] == running.bundle_digest
    assert one["model"] == "triage/1"


def check_fail_over(address: str, serving: Serving, running: Deployment) -> None:
    """Killed without a word, a region is answered for by the other one at once, and comes back by itself."""
    first = running.regions[0]
    for pid in processes_of(first.process_id):
        os.kill(pid, signal.SIGKILL)
    for _ in range(20):
        answer = ask(address, prefer=first.region)
        assert answer.status_code == 200
        assert answer.json()["region"] in EU
    again = when(lambda: serving.deployments.get(CALLER, "triage"), is_running, but_not=first.process_id)
    assert when(lambda: ask(address, prefer=first.region).json()["region"], lambda region: region == first.region)
    assert again.regions[0].version == 1


def check_mended_replica(root: Path, serving: Serving, running: Deployment) -> None:
    """A region whose replica was damaged never serves what it holds; it waits until the replica is mended."""
    serving.target.stop(EndpointKey(DEFAULT_WORKSPACE, "triage", RegionId(EU[1])))
    for pack in (root / "amsterdam").rglob("*.pack"):
        flip_a_byte(pack)
    old = running.regions[1].process_id
    when(lambda: serving.deployments.get(CALLER, "triage"), is_running, but_not=old, seconds=180)
    assert serving.deployments.get(CALLER, "triage").regions[1].bundle_digest == running.bundle_digest


def ask(address: str, prefer: str | None = None) -> httpx2.Response:
    headers = {} if prefer is None else {"x-fairlead-prefer": prefer}
    return httpx2.post(f"{address}/triage/predict", json=BODY, headers=headers, timeout=30, trust_env=False)


def is_running(deployment: Any) -> bool:
    return all(each.state == "RUNNING" and each.health == "up" for each in deployment.regions)


def processes_of(pid: int | None) -> list[int]:
    from fairlead.serving.processes import descendants

    record = ProcessRecord.of(pid or 0)
    assert record is not None
    return [record.pid, *(child.pid for child in descendants(record))]


def when(
    look: Callable[[], Any], claim: Callable[[Any], bool], *, but_not: int | None = None, seconds: float = 120
) -> Any:
    """What `look` gives once the claim holds, and no region is the process `but_not`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        is_old = but_not is not None and but_not in {each.process_id for each in found.regions}
        if claim(found) and not is_old:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
