from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fairlead.core.errors import IntegrityError, Unavailable
from fairlead.core.ids import Digest, RegionId, digest_hex
from fairlead.serving.bundled.bodies import BODY_MAX_BYTES
from fairlead.serving.gateway import BODY_MAX_BYTES as GATEWAY_S_MAX_BYTES
from fairlead.serving.local_target import LocalTarget
from fairlead.serving.processes import ProcessRecord, launch_detached, listens, read_json
from fairlead.serving.targets import EndpointKey, EndpointSpec, NoLongerWanted, RunningEndpoint
from fairlead.sync.store.manifest import build_manifest
from fairlead.testing.target_conformance import ensured, make_spec
from tests.serving.endpoints import endpoints
from tests.serving.models import COLUMNS, SNAPSHOT, expected, write_online_store

pytestmark = pytest.mark.timeout(300)
SECRETS = {"FAIRLEAD_TOKEN", "FAIRLEAD_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"}
REGION = RegionId("gcp:europe-west4")
ROWS = {"a": (1.0, 2.0, 3.0), "b": (0.0, 1.0, None)}


class Depot:
    """Where the target's bundles come from: folders, by digest."""

    def __init__(self, folder: Path) -> None:
        self.bundles: dict[str, Path] = {}
        self.downloads = 0
        self.folder = folder
        self.target = LocalTarget(folder, self.download)

    def add(self, bundle: Path) -> Digest:
        digest = build_manifest(bundle).digest
        self.bundles[digest] = bundle
        return digest

    def download(self, spec: EndpointSpec, destination: Path) -> None:
        self.downloads += 1
        shutil.copytree(self.bundles[spec.bundle_digest], destination)


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory) -> Generator[Depot]:
    """Leaves no process behind, whatever fails."""
    depot = Depot(tmp_path_factory.mktemp("deployments"))
    yield depot
    for deployment in ("churn", "replaced", "broken"):
        depot.target.stop(EndpointKey("default", deployment, REGION))


@pytest.fixture(scope="module")
def spec(depot: Depot, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> EndpointSpec:
    store = write_online_store(tmp_path_factory.mktemp("online") / "diagnosis.sqlite", ROWS, REGION)
    return make_spec(deployment="churn", residency="eu", bundle_digest=depot.add(bundle), online_store=str(store))


@pytest.fixture(scope="module")
def endpoint(depot: Depot, spec: EndpointSpec) -> RunningEndpoint:
    """A real endpoint that the tests of this file share; the server that starts it holds secrets."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, "secret")
        return ensured(depot.target, spec)


def post(endpoint: RunningEndpoint, method: str, body: Any) -> httpx2.Response:
    return httpx2.post(f"{endpoint.url}/{method}", json=body, timeout=30, trust_env=False)


def test_an_endpoint_predicts_from_the_features_of_its_region(
    endpoint: RunningEndpoint, spec: EndpointSpec, weights: tuple[float, ...]
) -> None:
    answer = post(endpoint, "predict", {"entities": {"sample_id": ["a", "b"]}})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "predictions": pytest.approx([expected((1, 2, 3), *weights), expected((0, 1, 0), *weights)]),
        "model": "Churn EU/2",
        "artifact_digest": "sha256:" + "ab" * 32,
        "bundle_digest": spec.bundle_digest,
        "snapshot": SNAPSHOT,
        "region": REGION,
    }


def test_an_endpoint_predicts_for_rows_that_are_sent(endpoint: RunningEndpoint, weights: tuple[float, ...]) -> None:
    answer = post(endpoint, "predict_rows", {"rows": [dict(zip(COLUMNS, (1.0, 2.0, 3.0), strict=True))]})
    assert answer.json()["predictions"] == pytest.approx([expected((1, 2, 3), *weights)])
    assert answer.json()["snapshot"] is None


def test_an_unknown_entity_is_a_404_that_names_it(endpoint: RunningEndpoint) -> None:
    answer = post(endpoint, "predict", {"entities": {"sample_id": ["a", "nobody"]}})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:fairlead:error:entity-not-found"
    assert '{"sample_id": "nobody"}' in problem["detail"]
    assert problem["missing"] == [1]
    assert problem["views"] == {"cells": "not_found"}


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("predict", {"entities": {}}),
        ("predict", {"entities": {"sample_id": []}}),
        ("predict", {"entities": {"patient": ["a"]}}),
        ("predict", {"entities": {"sample_id": ["a"] * 10_001}}),
        ("predict", {"wrong": 1}),
        ("predict_rows", {"rows": []}),
        ("predict_rows", {"rows": [{"radius": 1.0}]}),
        ("predict_rows", {"rows": [{"radius": "x", "texture": 1.0, "age": 1.0}]}),
    ],
)
def test_a_wrong_question_is_the_caller_s_mistake(endpoint: RunningEndpoint, method: str, body: Any) -> None:
    assert post(endpoint, method, body).status_code == 400


def test_a_body_that_is_larger_than_the_gateway_s_is_not_read(endpoint: RunningEndpoint) -> None:
    size = BODY_MAX_BYTES + 1
    assert GATEWAY_S_MAX_BYTES == BODY_MAX_BYTES

    def chunks() -> Generator[bytes]:
        for _ in range(size // 2**20 + 1):
            yield b" " * 2**20

    with httpx2.Client(timeout=30, trust_env=False) as client:
        for body in (b" " * size, chunks()):
            answer = client.post(f"{endpoint.url}/predict", content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["type"]) == (413, "urn:fairlead:error:body-too-large")
        rows = [dict.fromkeys(COLUMNS, 1.0)] * 20_000
        assert client.post(f"{endpoint.url}/predict_rows", json={"rows": rows}).status_code == 200


def test_an_endpoint_says_what_it_runs_and_loads_neither_feast_nor_mlflow(endpoint: RunningEndpoint) -> None:
    info = post(endpoint, "info", {}).json()
    assert info["loaded_with"] == "loader_module"
    assert not {"feast", "mlflow"} & set(info["loaded_libraries"])
    assert [each["name"] for each in info["inputs"]] == list(COLUMNS)
    assert info["feature_service"] == "diagnosis"


def test_an_endpoint_gets_no_secret_of_the_server(endpoint: RunningEndpoint) -> None:
    environment = Path(f"/proc/{endpoint.process_id}/environ").read_text().split("\0")
    names = {line.partition("=")[0] for line in environment}
    assert not names & SECRETS


def test_a_server_that_starts_again_adopts_the_endpoint(
    endpoint: RunningEndpoint, depot: Depot, spec: EndpointSpec
) -> None:
    again = Depot(depot.folder)
    switched: list[RunningEndpoint] = []
    assert again.target.observe(spec) == endpoint
    assert again.target.ensure(spec, switched.append) == endpoint
    assert switched == [endpoint]
    assert again.downloads == 0


def test_serving_leaves_the_bundle_s_files_as_they_were(
    endpoint: RunningEndpoint, depot: Depot, spec: EndpointSpec
) -> None:
    post(endpoint, "predict_rows", {"rows": [{"radius": 1.0, "texture": 1.0, "age": 1.0}]})
    (folder,) = (path for path in depot.folder.rglob("*") if path.is_dir() and len(path.name) == 64)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    mine = {name: path for name, path in files.items() if "__pycache__" not in name}
    assert build_manifest(mine).digest == spec.bundle_digest


def test_an_answer_from_a_port_that_is_somebody_else_s_is_no_sign_of_health() -> None:
    with endpoints(REGION) as (other,):
        me = ProcessRecord.of(os.getpid())
        assert me is not None
        assert listens(me, other.port)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            child = ProcessRecord.of(process.pid)
            assert child is not None
            assert not listens(child, other.port)
            process.communicate(b"\n")


def test_a_process_id_that_was_used_again_is_not_taken_for_the_endpoint() -> None:
    me = ProcessRecord.of(os.getpid())
    assert me is not None
    assert me.is_alive
    assert not ProcessRecord(pid=me.pid, began_at=me.began_at - 60).is_alive


def test_an_endpoint_is_replaced_without_a_request_that_fails(
    depot: Depot, spec: EndpointSpec, bundle: Path, tmp_path: Path
) -> None:
    """Also: the old one was killed meanwhile, its bundle altered, and nothing of it is left."""
    other = tmp_path / "bundle"
    shutil.copytree(bundle, other)
    described = json.loads((other / "src/fairlead_bundle/bundle.json").read_text())
    (other / "src/fairlead_bundle/bundle.json").write_text(json.dumps(described | {"reference": "Churn EU/3"}))
    mine = make_spec(deployment="replaced", residency="eu", bundle_digest=spec.bundle_digest, online_store=None)
    table: list[RunningEndpoint] = []
    first = ensured(depot.target, mine, table.append)
    statuses: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = post(table[-1], "info", {})
            statuses.append((answer.status_code, answer.json()["model"]))
            time.sleep(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        second = ensured(
            depot.target,
            make_spec(deployment="replaced", residency="eu", bundle_digest=depot.add(other), online_store=None),
            table.append,
        )
        time.sleep(0.3)
    finally:
        stop.set()
        asking.join()
    assert {status for status, _ in statuses} == {200}
    assert {model for _, model in statuses} == {"Churn EU/2", "Churn EU/3"}
    assert second.url != first.url
    assert ProcessRecord.of(first.process_id or 0) is None
    assert post(second, "predict", {"entities": {"sample_id": ["a"]}}).status_code == 409

    assert second.process_id is not None
    home = depot.folder / "default" / "replaced" / "gcp-europe-west4"
    state = read_json(home / "state.json")
    assert state is not None
    left = [ProcessRecord.from_json(child) for child in state["current"]["children"]]
    # As if a server had been killed just after it started an endpoint: nothing says that it runs.
    stray = launch_detached(
        [sys.executable, "-m", "bentoml", "serve", home / digest_hex(second.spec.bundle_digest), "--port", "0"],
        folder=home,
        environment=os.environ,
        log=tmp_path / "stray.log",
    )
    (home / ".half.partial").mkdir()
    os.kill(second.process_id, signal.SIGKILL)
    assert until(lambda: depot.target.observe(mine) is None)
    assert any(record.is_alive for record in left)
    third = ensured(depot.target, second.spec, table.append)
    assert third.process_id != second.process_id
    assert post(third, "info", {}).json()["model"] == "Churn EU/3"
    assert not any(record.is_alive for record in left)
    assert ProcessRecord.of(stray) is None
    assert not (home / ".half.partial").exists()
    depot.target.stop(mine.key)
    assert ProcessRecord.of(third.process_id or 0) is None
    assert depot.target.observe(mine) is None


@pytest.mark.parametrize("residency", ["unrestricted", "eu"])
def test_an_endpoint_that_cannot_start_says_why_within_the_jurisdiction_and_leaves_no_process(
    depot: Depot, bundle: Path, tmp_path: Path, residency: str
) -> None:
    broken = tmp_path / "bundle"
    shutil.copytree(bundle, broken)
    (broken / "src/model/code/tiny_head.py").write_text("raise RuntimeError('the head is missing')\n")
    mine = make_spec(deployment="broken", residency=residency, bundle_digest=depot.add(broken), online_store=None)
    with pytest.raises(Unavailable) as refused:
        ensured(depot.target, mine, lambda _: pytest.fail("nothing to switch to"))
    # What the log quotes may be restricted, and the error goes into the record.
    assert ("the head is missing" in str(refused.value)) == (residency == "unrestricted")
    assert depot.target.observe(mine) is None
    state = read_json(depot.folder / "default" / "broken" / "gcp-europe-west4" / "state.json")
    assert state is not None
    assert not any(
        ProcessRecord.from_json(each["process"]).is_alive for each in [*state["starting"], *state["leaving"]]
    )


def test_an_endpoint_that_is_wanted_no_more_ends_before_it_is_ready(depot: Depot, bundle: Path, tmp_path: Path) -> None:
    hanging = tmp_path / "bundle"
    shutil.copytree(bundle, hanging)
    (hanging / "src/model/code/tiny_head.py").write_text("import time\ntime.sleep(600)\n")
    mine = make_spec(deployment="broken", residency="eu", bundle_digest=depot.add(hanging), online_store=None)
    with pytest.raises(NoLongerWanted):
        depot.target.ensure(mine, lambda _: pytest.fail("nothing to switch to"), lambda: False)
    assert depot.target.observe(mine) is None
    state = read_json(depot.folder / "default" / "broken" / "gcp-europe-west4" / "state.json")
    assert state is not None
    assert not any(
        ProcessRecord.from_json(each["process"]).is_alive for each in [*state["starting"], *state["leaving"]]
    )


def test_a_bundle_that_arrives_altered_is_never_started(depot: Depot, spec: EndpointSpec, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(depot.bundles[spec.bundle_digest], other)
    (other / "src/model/MLmodel").write_text("{}")
    liar = Depot(tmp_path / "deployments")
    liar.bundles[spec.bundle_digest] = other
    with pytest.raises(IntegrityError):
        liar.target.ensure(spec, lambda _: pytest.fail("nothing to switch to"))


def until(claim: Any, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
