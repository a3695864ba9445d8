from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from fairlead.core.errors import FairleadError
from fairlead.core.ids import Digest
from fairlead.core.problems import to_problem
from fairlead.registry.access import install_access, undeclared_routes
from fairlead.registry.identity import Caller, Reach, Scope, Tokens, issue
from fairlead.sync.api import sync_routers
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.writer import write_artifact
from tests.fleet import ADMIN, LABELS, Fleet, flip_a_byte, open_fleet

FILES = {"weights.bin": os.urandom(20_000)}


@dataclass(slots=True, kw_only=True)
class Api:
    """A client of the routes, and how often they woke the worker."""

    fleet: Fleet
    app: FastAPI
    wakes: list[None] = field(default_factory=list[None])

    def client(self, *scopes: Scope) -> TestClient:
        with self.fleet.database.write() as session:
            name = "-".join(scopes) + str(len(self.wakes))
            issued = issue(session, ADMIN, self.fleet.clock, name=name, principal="ana", reach=Reach(scopes=scopes))
        return TestClient(self.app, headers={"Authorization": f"Bearer {issued.secret}"})


@pytest.fixture
def api(tmp_path: Path) -> Generator[Api]:
    with open_fleet(tmp_path) as fleet:
        app = FastAPI()
        api = Api(fleet=fleet, app=app)
        install_access(app, Tokens(fleet.database, fleet.clock).authenticate)
        app.add_exception_handler(FairleadError, _answer_problem)
        for router in sync_routers(
            locations=fleet.locations,
            backfills=fleet.backfills,
            retirements=fleet.retirements,
            uploads=fleet.uploads,
            artifacts=fleet.artifacts,
            storage_access=fleet.storage_access,
            database=fleet.database,
            clock=fleet.clock,
            plans=fleet.plans,
            wake=lambda: api.wakes.append(None),
        ):
            app.include_router(router)
        yield api


def _answer_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FairleadError)
    return JSONResponse(to_problem(error), status_code=error.status)


def upload(client: TestClient, files: dict[str, bytes]) -> dict[str, Any]:
    """What the SDK does, step by step over HTTP."""
    grant = client.post("/uploads", json={"kind": "model", "labels": LABELS, "region": "aws:us-east-1"})
    assert grant.status_code == 201
    begun = grant.json()

    def known_blocks(digests: object) -> dict[Digest, StoredBlock]:
        answer = client.post(f"/uploads/{begun['id']}/known-blocks", json={"digests": digests})
        blocks = [StoredBlock(**block) for block in answer.json()["blocks"]]
        return {block.digest: block for block in blocks}

    written = write_artifact(
        open_store(begun["location"]["url"], begun["location"]["client_options"]),
        DedupDomain(**begun["domain"]),
        files,
        known_blocks=known_blocks,
    )
    done = client.post(
        f"/uploads/{begun['id']}/complete",
        json={
            "artifact_digest": written.digest,
            "layout_key": written.layout_key,
            "sent_bytes": written.sent_bytes,
        },
    )
    assert done.status_code == 200
    return done.json()


def test_every_route_says_who_may_call_it(api: Api) -> None:
    open_paths = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
    assert [route for route in undeclared_routes(api.app) if route.split()[-1] not in open_paths] == []


def test_an_upload_over_http_becomes_ready_and_is_everywhere(api: Api) -> None:
    client = api.client("read", "write")
    handed = upload(client, FILES)
    assert handed["state"] == "VERIFYING"
    assert len(api.wakes) == 1
    (waiting,) = client.get("/work").json()["items"]
    assert (waiting["kind"], waiting["state"], waiting["subject"]) == ("verify-upload", "WAITING", handed["id"])

    api.fleet.run()
    ready = client.get(f"/uploads/{handed['id']}").json()
    assert (ready["state"], ready["error"]) == ("READY", None)
    artifact = client.get(f"/artifacts/{ready['artifact_digest']}").json()
    assert {replica["state"] for replica in artifact["replicas"]} == {"VERIFIED"}
    assert {replica["location"] for replica in artifact["replicas"]} == {"virginia", "amsterdam", "eemshaven"}
    assert artifact["created_at"].endswith("Z")
    again = upload(client, FILES | {"more": b"x"})
    assert again["sent_bytes"] < 3_000


def test_what_failed_says_why(api: Api) -> None:
    client = api.client("read", "write")
    handed = upload(client, FILES)
    flip_a_byte(api.fleet.packs("virginia")[0])
    api.fleet.run()
    failed = client.get(f"/uploads/{handed['id']}").json()
    assert (failed["state"], failed["error"]["code"]) == ("FAILED", "corrupt-block")


def test_a_reader_reports_damage_and_it_is_mended(api: Api) -> None:
    digest = upload(api.client("write"), FILES)["artifact_digest"]
    api.fleet.run()
    flip_a_byte(api.fleet.packs("amsterdam")[0])
    reader = api.client("read")
    answer = reader.post(f"/artifacts/{digest}/reports", json={"location": "amsterdam", "code": "corrupt-block"})
    assert answer.status_code == 202
    states = {replica["location"]: replica["state"] for replica in answer.json()["replicas"]}
    assert states["amsterdam"] == "CORRUPT"
    api.fleet.run()
    assert api.fleet.read(digest, "amsterdam") == FILES

    assert reader.post(f"/artifacts/{digest}/verify").status_code == 403
    assert api.client("write").post(f"/artifacts/{digest}/verify").status_code == 202
    assert api.client("write").post(f"/artifacts/{digest}/verify", json={"location": "paris"}).status_code == 404


def test_locations_are_added_by_admins_and_listed_in_pages(api: Api, tmp_path: Path) -> None:
    body = {"name": "dublin", "region": "aws:eu-west-1", "url": (tmp_path / "dublin").as_uri()}
    assert api.client("write").post("/locations", json=body).status_code == 403
    admin = api.client("admin")
    headers = {"Idempotency-Key": "one"}
    first = admin.post("/locations", json=body, headers=headers)
    assert first.status_code == 201
    assert admin.post("/locations", json=body, headers=headers).json() == first.json()
    assert admin.post("/locations", json=body).status_code == 409

    page = admin.get("/locations", params={"page_size": 3}).json()
    assert [item["name"] for item in page["items"]] == ["amsterdam", "dublin", "eemshaven"]
    rest = admin.get("/locations", params={"page_size": 3, "page_token": page["next_page_token"]}).json()
    assert ([item["name"] for item in rest["items"]], rest["next_page_token"]) == (["virginia"], None)


def test_a_location_is_priced_added_changed_and_given_up_over_http(api: Api, tmp_path: Path) -> None:
    digest = upload(api.client("write"), FILES)["artifact_digest"]
    api.fleet.run()
    admin = api.client("admin")
    body = {"name": "dublin", "region": "aws:eu-west-1", "url": (tmp_path / "dublin").as_uri()}
    plan = admin.post("/locations/backfill-plan", json=body).json()
    assert (plan["location"]["name"], plan["wanted"], len(plan["sources"])) == ("dublin", 1, 1)
    assert float(plan["usd"]) > 0
    assert admin.post("/locations", json=body).json()["state"] == "WARMING"
    assert admin.get("/locations/dublin/backfill").json()["verified"] == 0
    api.fleet.run()
    assert admin.get("/locations/dublin").json()["state"] == "ACTIVE"

    limited = {"settings": {"rate_limit_bytes_per_second": 10**9}}
    assert api.client("write").patch("/locations/dublin", json=limited).status_code == 403
    assert admin.patch("/locations/dublin", json=limited).json()["settings"] == limited["settings"]
    assert admin.patch("/locations/dublin", json={"settings": {"url": "x"}}).status_code == 400
    replicas = admin.get(f"/artifacts/{digest}").json()["replicas"]
    assert {replica["location_state"] for replica in replicas} == {"ACTIVE"}
    assert {str(replica["options"]) for replica in replicas} == {"{}"}

    assert admin.get("/locations/dublin/retirement").json()["replicas"] == 1
    retired = admin.post("/locations/dublin/retirement").json()
    assert (retired["location"]["state"], retired["last_replica_count"]) == ("DRAINING", 0)
    assert admin.delete("/locations/dublin/retirement").json()["state"] == "WARMING"
    api.fleet.run()
    assert admin.get("/locations/dublin").json()["state"] == "ACTIVE"
    assert admin.get("/locations/paris/retirement").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/locations", {"name": "x", "region": "aws:us-east-1", "url": "s3://b", "options": {"secret": "x"}}, 400),
        ("/locations", {"name": "x", "region": "mars:1", "url": "s3://b"}, 400),
        ("/locations", {"name": "x", "region": "aws:us-east-1"}, 422),
        ("/locations", {"name": "x", "region": "aws:us-east-1", "url": "s3://b", "extra": 1}, 422),
        ("/uploads", {"kind": "cake"}, 422),
        ("/uploads", {"kind": "model", "residency": "jpn"}, 422),
        ("/uploads", {"kind": "model", "residency": "eu", "regions": ["aws:us-east-1"]}, 422),
        ("/uploads/x/complete", {"artifact_digest": "x", "layout_key": "y", "sent_bytes": -1}, 422),
        ("/uploads/x/complete", {"artifact_digest": "sha256:" + "0" * 64, "layout_key": "y", "sent_bytes": 1}, 404),
        ("/uploads/x/known-blocks", {"digests": ["sha256:" + "0" * 64]}, 404),
        ("/artifacts/x/verify", None, 400),
        ("/artifacts/sha256:" + "0" * 64 + "/verify", None, 404),
    ],
)
def test_bad_requests_get_the_right_status(api: Api, path: str, body: object, status: int) -> None:
    assert api.client("admin").post(path, json=body).status_code == status


def test_nobody_is_served_without_a_token(api: Api) -> None:
    client = TestClient(api.app)
    for path in ("/locations", "/uploads/x", "/artifacts/x", "/work"):
        assert client.get(path).status_code == 401


def test_a_caller_of_another_workspace_sees_nothing(api: Api) -> None:
    digest = upload(api.client("write"), FILES)["artifact_digest"]
    api.fleet.run()
    stranger = Caller(workspace_id="other", principal="eve", scopes=frozenset({"admin"}))
    api.app.state.authenticate = lambda _secret: stranger  # pyright: ignore[reportUnknownLambdaType]
    client = TestClient(api.app, headers={"Authorization": "Bearer x"})
    assert client.get(f"/artifacts/{digest}").status_code == 404
    assert client.get("/locations").json()["items"] == []
    assert client.get("/work").json()["items"] == []
