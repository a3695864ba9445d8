"""What MLflow's dialect keeps safe: paths that lead elsewhere, calls that are only rehearsed, bytes on their way."""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fairlead.app.schema import metadata
from fairlead.core.errors import PermissionDenied, Unavailable
from fairlead.registry.identity import Reach
from fairlead.registry.mlflow.sources import parse_source
from fairlead.registry.mlflow.tracking_servers import TrackingServer, tracking_rules
from fairlead.sync.staged_storing import StagedStoring
from fairlead.sync.tracking_client import TrackingClient
from tests.registry.mlflow.conftest import ARTIFACTS, MLFLOW, Dialect

FILES = {"MLmodel": b"flavors: {}\n", "data/weights.bin": b"weights" * 1000}
MULTIPART = "/api/2.0/mlflow-artifacts/mpu"

UP = (
    "..",
    "%2e%2e",
    "%2E%2e",
    "%252e%252e",
    "..%5c..",
    "..\\..",
    "%00",
    ".",
    "%23/..",
    "%3f/..",
    "a%2f..%2f..",
    "..;",
    "~",
)
"""Parts of a path that have led out of somebody's folder."""


def paths() -> Iterator[str]:
    for part in UP:
        yield f"{part}/secret"
        yield f"a/{part}/{part}/{part}/secret"
        yield f"models/iris/1/{part}/{part}/{part}/secret"
    yield from ("//etc/passwd", "/etc/passwd", "file:///etc/passwd", "c:/windows", "multipart-uploads/x/target")


def files_of(dialect: Dialect) -> set[str]:
    return {str(file) for file in dialect.service.home.rglob("*") if "fairlead.db" not in file.name}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_no_route_of_files_leads_out_of_its_folder(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    dialect.register("iris", FILES)
    secret = dialect.service.home / "secret"
    secret.write_bytes(b"do not tell")
    before = files_of(dialect)
    body = {"path": "f.bin", "num_parts": 1, "upload_id": "0" * 32}
    for path in paths():
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", f"{ARTIFACTS}/{path}", {}),
            ("PUT", f"{ARTIFACTS}/{path}", {"content": b"x"}),
            ("DELETE", f"{ARTIFACTS}/{path}", {}),
            ("GET", ARTIFACTS, {"params": {"path": path}}),
            *(("POST", f"{MULTIPART}/{step}/{path}", {"json": body}) for step in ("create", "complete", "abort")),
            ("PUT", f"{MULTIPART}/part/{path}/1", {"content": b"x"}),
            ("POST", f"{MULTIPART}/complete/a", {"json": {**body, "upload_id": path}}),
        ]
        for method, address, asked in calls:
            answer = dialect.http.request(method, address, **asked)
            assert b"do not tell" not in answer.content, (method, address)
            assert b"root:" not in answer.content, (method, address)
            assert answer.status_code < 500, (method, address, answer.text)
        for source in (
            path,
            f"mlflow-artifacts:/{path}",
            f"runs:/abc/{path}",
            f"models:/iris/1/{path}",
            f"file:{path}",
        ):
            refused = dialect.http.post(f"{MLFLOW}/model-versions/create", json={"name": "iris", "source": source})
            assert 400 <= refused.status_code < 500, source
    # Clients join an uploaded file's own name to the path; that name holds nothing but a name.
    begun = dialect.http.post(f"{MULTIPART}/create/a", json={"path": "/x/..\\..\\f.bin", "num_parts": 1})
    assert begun.status_code == 200
    new = files_of(dialect) - before
    assert all("/mlflow-uploads/" in file for file in new), new
    assert dialect.get("model-versions/search", filter="name = 'iris'")["model_versions"][0]["version"] == "1"


def state_of(dialect: Dialect) -> dict[str, Any]:
    with dialect.service.database.read() as session:
        rows = {table.name: sorted(map(repr, session.execute(select(table)))) for table in metadata().sorted_tables}
    return {**rows, "files": files_of(dialect)}


def test_every_changing_call_can_be_rehearsed(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris", tags=[{"key": "a", "value": "1"}])
    dialect.register("iris", FILES)
    dialect.post("registered-models/alias", name="iris", alias="champion", version="1")
    dialect.upload("next", FILES)
    version = {"name": "iris", "version": "1"}
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "registered-models/create", {"name": "lily", "description": "white"}),
        ("PATCH", "registered-models/update", {"name": "iris", "description": "new"}),
        ("POST", "registered-models/set-tag", {"name": "iris", "key": "b", "value": "2"}),
        ("DELETE", "registered-models/delete-tag", {"name": "iris", "key": "a"}),
        ("POST", "registered-models/alias", {"name": "iris", "alias": "other", "version": "1"}),
        ("DELETE", "registered-models/alias", {"name": "iris", "alias": "champion"}),
        ("POST", "model-versions/create", {"name": "iris", "source": "mlflow-artifacts:/next"}),
        ("POST", "model-versions/create", {"name": "iris", "source": "models:/iris/1"}),
        ("PATCH", "model-versions/update", {**version, "description": "new"}),
        ("POST", "model-versions/transition-stage", {**version, "stage": "Staging"}),
        ("POST", "model-versions/set-tag", {**version, "key": "b", "value": "2"}),
        ("DELETE", "model-versions/delete", version),
        ("DELETE", "registered-models/delete", {"name": "iris"}),
    ]
    before = state_of(dialect)
    answers: dict[str, Any] = {}
    for method, path, body in calls:
        answer = dialect.http.request(method, f"{MLFLOW}/{path}", json=body, headers={"fairlead-dry-run": "true"})
        assert (answer.status_code, answer.headers["fairlead-dry-run"]) == (200, "true"), (path, answer.text)
        assert state_of(dialect) == before, path
        answers[f"{method} {path}"] = answer.json()
    assert answers["POST registered-models/create"]["registered_model"]["description"] == "white"
    assert answers["PATCH registered-models/update"]["registered_model"]["description"] == "new"
    assert answers["POST model-versions/create"]["model_version"]["version"] == "2"
    assert answers["PATCH model-versions/update"]["model_version"]["description"] == "new"
    dialect.send("DELETE", "registered-models/delete", name="iris")
    again = dialect.http.post(
        f"{MLFLOW}/registered-models/create", json={"name": "iris"}, headers={"fairlead-dry-run": "true"}
    )
    assert again.json()["registered_model"]["tags"] == []
    assert dialect.refused("GET", "registered-models/get", name="iris")[0] == 404


def test_uploaded_files_are_stored_after_the_call_and_as_they_were_then(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect.post("registered-models/create", name="iris")
    source = dialect.upload("staged", FILES)
    waiting: list[tuple[str, str]] = []
    with monkeypatch.context() as patch:

        def put_off(_storing: StagedStoring, workspace_id: str, upload_id: str) -> None:
            waiting.append((workspace_id, upload_id))

        patch.setattr(StagedStoring, "_submit", put_off)
        made = dialect.post("model-versions/create", name="iris", source=source)["model_version"]
        assert made["status"] == "PENDING_REGISTRATION"
        dialect.work()
        assert dialect.get("model-versions/get", name="iris", version="1")["model_version"]["status"] == made["status"]
        dialect.upload("staged", {"MLmodel": b"changed since", "more.txt": b"added since"})
        assert len(waiting) == 1
    # What a server that was killed then left behind, the next one stores.
    dialect.service.storing.resume()
    dialect.work()
    assert dialect.get("model-versions/get", name="iris", version="1")["model_version"]["status"] == "READY"
    listed = dialect.http.get(ARTIFACTS, params={"path": "models/iris/1"}).json()["files"]
    assert [file["path"] for file in listed] == ["MLmodel", "data"]
    assert dialect.http.get(f"{ARTIFACTS}/models/iris/1/MLmodel").content == FILES["MLmodel"]
    assert not list((dialect.service.home / "mlflow-sealed").glob("*/*"))


def test_files_that_are_still_being_sealed_are_stored_by_nobody_yet(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect.post("registered-models/create", name="iris")
    source = dialect.upload("staged", FILES)
    storing, link = dialect.service.storing, os.link
    waiting: list[str] = []

    def put_off(_storing: StagedStoring, _workspace_id: str, upload_id: str) -> None:
        waiting.append(upload_id)

    def link_while_another_process_starts(source: str, target: str, **options: Any) -> None:
        storing.resume()
        link(source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(StagedStoring, "_submit", put_off)
        patch.setattr(os, "link", link_while_another_process_starts)
        dialect.post("model-versions/create", name="iris", source=source)
    assert len(waiting) == 1
    storing.resume()
    dialect.work()
    assert dialect.get("model-versions/get", name="iris", version="1")["model_version"]["status"] == "READY"
    listed = dialect.http.get(ARTIFACTS, params={"path": "models/iris/1"}).json()["files"]
    assert [file["path"] for file in listed] == ["MLmodel", "data"]


def test_a_name_that_stands_for_another_address_later_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens at that port.
    server = TrackingServer(
        name="lab",
        url="http://mlflow.example.org:1",
        credentials_env=None,
        created_by="ana",
        created_at=datetime.now(UTC),
    )
    look_up = socket.getaddrinfo
    asked: list[str] = []

    def answer(*addresses: str) -> None:
        turn = itertools.chain(addresses, itertools.repeat("169.254.169.254"))

        def rebound(host: Any, port: Any, *more: Any, **named: Any) -> Any:
            if host != "mlflow.example.org":
                return look_up(host, port, *more, **named)
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(turn), port))]

        monkeypatch.setattr(socket, "getaddrinfo", rebound)

    rules = tracking_rules(None)
    answer("127.0.0.1")
    with TrackingClient.connect(server, rules) as client, pytest.raises(Unavailable, match="ConnectError"):
        client.download(parse_source("mlflow-artifacts:/a"), None, tmp_path / "files")
    assert asked == ["mlflow.example.org"]
    for address in ("169.254.169.254", "0.0.0.0", "224.0.0.1", "100.100.100.200"):
        answer(address)
        with pytest.raises(PermissionDenied, match="stands for an address"), TrackingClient.connect(server, rules):
            pass
    elsewhere = tracking_rules(["other.example.org"])
    with pytest.raises(PermissionDenied, match="is not one that"), TrackingClient.connect(server, elsewhere):
        pass


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_whoever_may_read_some_models_reaches_no_upload_but_their_own(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="plan-own")
    theirs = dialect.upload("1/run/artifacts/model", FILES)
    reach = Reach(scopes=["read", "write"], models=["plan-*"])
    issued = dialect.service.tokens.create(dialect.owner, name="narrow", principal="eve", reach=reach)
    dialect.http.headers["authorization"] = f"Bearer {issued.secret}"
    for source in (theirs, "mlflow-artifacts:/1"):
        found = dialect.refused("POST", "model-versions/create", name="plan-own", source=source)
        assert found == (400, "INVALID_PARAMETER_VALUE")
    assert dialect.http.get(ARTIFACTS, params={"path": "1"}).json() == {"files": []}
    assert dialect.http.put(f"{ARTIFACTS}/1/run/artifacts/model/MLmodel", content=b"changed").status_code == 200
    assert dialect.http.get(f"{ARTIFACTS}/1/run/artifacts/model/MLmodel").content == b"changed"
    assert dialect.http.delete(f"{ARTIFACTS}/1").status_code == 200
    assert dialect.register("plan-own", {"MLmodel": b"mine"}) == "1"
    dialect.http.headers["authorization"] = f"Bearer {dialect.secret}"
    assert dialect.http.get(f"{ARTIFACTS}/1/run/artifacts/model/MLmodel").content == FILES["MLmodel"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_credentials_go_to_no_tracking_server_that_the_operator_does_not_list(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_TRACKING_LAB", "let-me-in")
    servers, variable = dialect.service.tracking_servers, "FAIRLEAD_TRACKING_LAB"
    url = "http://127.0.0.1:5000"
    with pytest.raises(PermissionDenied, match="FAIRLEAD_TRACKING_HOSTS"):
        servers.add(dialect.owner, name="lab", url=url, credentials_env=variable)
    plain = servers.add(dialect.owner, name="lab", url=url)
    # Nor where it was listed when it was named.
    named = dataclasses.replace(plain, credentials_env=variable)
    with (
        pytest.raises(PermissionDenied, match="FAIRLEAD_TRACKING_HOSTS"),
        TrackingClient.connect(named, tracking_rules(None)),
    ):
        pass
    with TrackingClient.connect(named, tracking_rules(["127.0.0.1"])):
        pass
