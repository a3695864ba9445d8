"""Every route of the real application, asked by those who may not: for want of a scope, a model, or the workspace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import ColumnElement, Table, select, true
from starlette.testclient import TestClient

from fairlead.app.http import create_app
from fairlead.app.schema import metadata
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.registry.access import OPEN_PATHS, OPEN_ROUTES, Requires
from fairlead.registry.identity import Reach, bootstrap
from fairlead.registry.permissions import SCOPES, Scope
from fairlead.registry.version_registration import VersionDraft
from fairlead.sync.store.keyring import make_key_file
from fairlead.testing.clock import ManualClock
from tests.app.test_dry_run import Call, prepare
from tests.record_world import World, unknown_id
from tests.servers.identity_issuer import loopback_issuer

SHARED = b"the same bytes in both workspaces"
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|sha256:[0-9a-f]{64}")
OF_NO_MODEL = ("/whoami", "/workspaces/{workspace}", "/environments", "/environments/{environment}", "/keys/{key_id}")
ENDLESS = {"/api/v1/work/events"}  # what `GET /work` shows, again and again
QUERIES = {
    "/resolve": "reference=churn@champion",
    "/replications/plan": "of=churn/1",
    "/lineage": "version=churn/1",
    "/registered-models/get": "name=churn",
    "/registered-models/alias": "name=churn&alias=champion",
    "/registered-models/get-latest-versions": "name=churn",
    "/model-versions/get": "name=churn&version=1",
    "/model-versions/get-download-uri": "name=churn&version=1",
    "/mlflow-artifacts/artifacts": "path=models/churn/1",
    "/history/{alias}/at": "time=2030-01-01T00:00:00Z",
    "/events": "after=0",
    "/feast/rows/{file}": "region=aws:us-east-1",
    "/uploads/{upload_id}/objects": "prefix=default/unrestricted/plain/layouts/",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route of the application, and the scope that it asks for (None: any token)."""

    method: str
    path: str
    scope: Scope | None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """A server with one of everything in one workspace, and another workspace whose things have the same names."""

    app: FastAPI
    service: Service
    world: World
    calls: dict[str, Call]
    other: World
    ids: dict[str, str]
    shared_digest: str

    def client(self, secret: str) -> TestClient:
        return TestClient(
            self.app,
            base_url="http://127.0.0.1",
            headers={"authorization": f"Bearer {secret}", "accept": "application/json"},
            raise_server_exceptions=False,
        )

    def routes(self) -> list[Route]:
        found: list[Route] = []
        for route in iter_route_contexts(self.app.routes):
            path = route.path or ""
            found.extend(
                Route(method=method, path=path, scope=scope_of(route))
                for method in sorted((route.methods or set()) - {"HEAD"})
                if path not in OPEN_PATHS and f"{method} {path}" not in OPEN_ROUTES
            )
        return found

    def address(self, route: Route) -> str:
        """Where one asks for what the first workspace has."""
        path = route.path
        for name, value in self.ids.items():
            path = path.replace("{" + name + "}", value)
        # What is new, and the first workspace has none of, is asked for by an id of nothing.
        path = re.sub(r"{[^}]*}", unknown_id(), path)
        query = next((query for suffix, query in QUERIES.items() if route.path.endswith(suffix)), "")
        return f"{path}?{query}"

    def rows(self, workspace_id: str) -> dict[str, set[str]]:
        """The rows of a workspace, and those of no workspace: what feeds brought to the server's catalog."""

        def of_it(table: Table) -> ColumnElement[bool]:
            return table.c.workspace_id == workspace_id if "workspace_id" in table.c else true()

        with self.service.database.read() as session:
            return {
                table.name: {
                    repr(row)
                    for row in session.execute(select(table).where(of_it(table)))
                    if table.name != "audit_events" or row.action != "access.deny"
                }
                for table in metadata().sorted_tables
            }


@pytest.fixture(scope="module")
def building(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Building]:
    folder: Path = tmp_path_factory.mktemp("building")
    clock = ManualClock()
    make_key_file(folder / "key")
    service = Service.build(ServerSettings(home=folder / "home", key_file=[folder / "key"]), clock, is_embedded=True)
    try:
        secret = service.issue_owner_token()
        world = World(
            database=service.database, clock=clock, owner_secret=secret, owner=service.tokens.authenticate(secret)
        )
        with loopback_issuer() as issuer:
            calls = prepare(service, world, folder, issuer)
        upload = world.upload()
        shared = world.verify(upload, content=SHARED)
        world.versions.register(world.owner, "churn", VersionDraft(upload_id=upload))
        world.aliases.set(world.owner, "churn", "shared", 4, expected_revision=0)
        yield Building(
            app=create_app(service, instance="one"),
            service=service,
            world=world,
            calls=calls,
            other=other_workspace(service, world),
            ids=ids_of(world, calls),
            shared_digest=shared,
        )
    finally:
        service.close()


def other_workspace(service: Service, world: World) -> World:
    """Another workspace with a model of the same name, an artifact of the same digest, an alias of the same name."""
    issued = bootstrap(service.database, world.clock, principal="ana", workspace_id="other")
    owner = service.tokens.authenticate(issued.secret)
    other = World(database=service.database, clock=world.clock, owner_secret=issued.secret, owner=owner)
    other.model()
    upload = other.upload()
    other.verify(upload, content=SHARED)
    version = other.versions.register(owner, "churn", VersionDraft(upload_id=upload))
    for alias in ("champion", "shared"):
        other.aliases.set(owner, "churn", alias, version.version, expected_revision=0)
    return other


def ids_of(world: World, calls: dict[str, Call]) -> dict[str, str]:
    """What the routes' parameters stand for in the first workspace."""

    def part(route: str, number: int) -> str:
        return calls[route].path.split("/")[number]

    with world.database.read() as session:
        tables = metadata().tables

        def first(table: str, column: str = "id") -> str:
            query = select(tables[table].c[column]).where(tables[table].c.workspace_id == world.owner.workspace_id)
            return next((str(found) for found in session.scalars(query) if found is not None), "none")

        return {
            "version": "1",
            "alias": "champion",
            "environment": "dev",
            "promotion": part("POST /promotions/{promotion}/approve", 2),
            "binding": part("DELETE /role-bindings/{binding}", 2),
            "token": part("DELETE /tokens/{token}", 2),
            "key_id": part("POST /keys/{key_id}/rotate", 2),
            "upload_id": part("POST /uploads/{upload_id}/complete", 2),
            "digest": part("POST /artifacts/{digest}/verify", 2),
            "upkeep_id": first("scrubs"),
            "reference": first("snapshots"),
            "placement_id": first("placements"),
            "bundle_id": first("bundles"),
            "workspace": "default",
            "path:path": "models/churn/1/model.bin",
            "number": "1",
            "kind": "sbom",
            "region": part("DELETE /catalog/regions/{region}", 3),
            "name": "churn",
        }


def scope_of(route: Any) -> Scope | None:
    def find(dependant: Any) -> Requires | None:
        if isinstance(dependant.call, Requires):
            return dependant.call
        return next((found for each in dependant.dependencies if (found := find(each)) is not None), None)

    found = find(route.dependant)
    assert found is not None, route.path
    return found.scope


def test_whoever_lacks_the_scope_of_a_route_is_refused_by_it(building: Building) -> None:
    """Every route, for a caller who holds every scope but its own."""
    for scope in sorted(SCOPES):
        others = [each for each in SCOPES if each != scope and (each != "admin" or scope == "server")]
        issued = building.world.tokens.create(building.world.owner, name="lacking", principal="eve", scopes=others)
        with building.client(issued.secret) as client:
            for route in building.routes():
                if route.scope == scope:
                    answer = client.request(route.method, building.address(route))
                    assert answer.status_code == 403, f"{route} without {scope}: {answer.status_code} {answer.text}"


def test_without_a_token_no_route_answers(building: Building) -> None:
    with building.client("fl_" + 43 * "A") as client:
        for route in building.routes():
            assert client.request(route.method, building.address(route)).status_code == 401, route


def test_models_that_a_token_is_not_for_are_as_if_they_were_not_there(building: Building) -> None:
    """Every route that reads, for a caller who may do everything, but with other models only."""
    hidden = ids_in(str(building.rows(building.world.owner.workspace_id)))
    reach = Reach(scopes=["admin"], models=["plan-*", "chur?*n"])
    issued = building.world.tokens.create(building.world.owner, name="narrow", principal="eve", reach=reach)
    with building.client(issued.secret) as client:
        for route in building.routes():
            if route.method != "GET" or route.path.endswith(OF_NO_MODEL):
                continue
            answer = client.get(building.address(route))
            if answer.status_code == 200:
                assert not ids_in(answer.text) & hidden - {issued.token.id}, f"{route}: {answer.text}"
                assert "churn" not in answer.text, f"{route}: {answer.text}"
            else:
                assert answer.status_code in {403, 404}, f"{route}: {answer.status_code} {answer.text}"
        assert client.get("/api/v1/models/churn").json()["type"] == "urn:fairlead:error:model-not-found"
        assert client.get("/api/v1/models").json()["items"] == []


def test_nothing_of_models_that_a_token_is_not_for_is_changed_with_it(building: Building) -> None:
    """Every route that changes something, with a body that would."""
    before = building.rows(building.world.owner.workspace_id)
    reach = Reach(scopes=["admin"], models=["plan-*"])
    issued = building.world.tokens.create(building.world.owner, name="narrow", principal="eve", reach=reach)
    allowed = {"uploads", "tokens", "audit_events", "idempotency"}
    with building.client(issued.secret) as client:
        for route, call in sorted(building.calls.items()):
            if route == "POST /tokens/exchange":
                continue
            fence = {} if call.if_match is None else {"if-match": f'"{call.if_match}"'}
            body: dict[str, Any] = {"json": call.body} if call.content is None else {"content": call.content}
            answer = client.request(route.partition(" ")[0], f"/api/v1{call.path}", headers=fence, **body)
            is_own = route == "POST /uploads"
            assert answer.status_code in ({201} if is_own else {400, 403, 404}), f"{route}: {answer.text}"
    after = building.rows(building.world.owner.workspace_id)
    assert {name for name, rows in after.items() if rows != before[name]} <= allowed


def test_mlflows_dialect_hides_and_keeps_what_a_token_is_not_for(building: Building) -> None:
    """Every route of the dialect that takes a body, about a model that the caller may not see."""
    before = building.rows(building.world.owner.workspace_id)
    reach = Reach(scopes=["read", "write"], models=["plan-*"])
    issued = building.world.tokens.create(building.world.owner, name="narrow", principal="eve", reach=reach)
    asked = {"name": "churn", "version": "1", "key": "k", "value": "v", "alias": "x", "new_name": "plan-1"}
    asked |= {"source": "models:/churn/1", "stage": "Production", "description": "mine"}
    with building.client(issued.secret) as client:
        for route in building.routes():
            if "/mlflow/" in route.path and route.method != "GET" and "webhooks" not in route.path:
                answer = client.request(route.method, building.address(route), json=asked)
                is_empty = answer.status_code == 200 and "churn" not in answer.text
                is_hidden = answer.status_code in {403, 404}
                assert is_empty if route.path.endswith("search") else is_hidden, f"{route}: {answer.text}"
        own = client.post(
            "/api/2.0/mlflow/registered-models/create", json={"name": "plan-own"}, headers={"fairlead-dry-run": "true"}
        )
        assert own.json()["registered_model"]["name"] == "plan-own"
    after = building.rows(building.world.owner.workspace_id)
    assert {name for name, rows in after.items() if rows != before[name]} <= {"tokens", "audit_events"}


@pytest.mark.parametrize(
    "reach",
    [
        Reach(scopes=["read"], models=["ch*"]),
        Reach(scopes=["read"], models=["churn", "plan-*"], environments=["dev"]),
        Reach(scopes=["read"]),
    ],
)
def test_models_that_a_token_is_for_are_all_there(building: Building, reach: Reach) -> None:
    issued = building.world.tokens.create(building.world.owner, name="reader", principal="eve", reach=reach)
    with building.client(issued.secret) as client, building.client(building.world.owner_secret) as owner:
        for route in building.routes():
            # Lists of all models show others too.
            is_of_model = "/models/{name}" in route.path or "/mlflow" in route.path
            is_of_model = is_of_model and not route.path.endswith(("/list", "/search"))
            if route.method == "GET" and is_of_model and route.scope == "read":
                seen, all_ = (each.get(building.address(route)) for each in (client, owner))
                assert (seen.status_code, seen.text) == (all_.status_code, all_.text), route


def test_another_workspace_is_not_there(building: Building) -> None:
    """Every route that reads, for the owner of another workspace, with ids and names of the first one."""
    foreign = ids_in(str(building.rows(building.world.owner.workspace_id)))
    foreign -= ids_in(str(building.rows("other")))
    own_names = {"churn", "champion", "dev", "1", building.ids["path:path"]}
    with building.client(building.other.owner_secret) as client:
        for route in building.routes():
            if route.method != "GET" or route.path in ENDLESS:
                continue
            answer = client.get(building.address(route))
            named = set(re.findall(r"{([a-z_:]+)}", route.path))
            if any(building.ids.get(name) not in own_names for name in named):
                assert answer.status_code in {403, 404}, f"{route}: {answer.status_code} {answer.text}"
            else:
                # The other workspace's own version has bytes nowhere.
                assert answer.status_code in {200, 400, 403, 404, 503}, f"{route}: {answer.status_code} {answer.text}"
            if answer.status_code == 200:
                assert not ids_in(answer.text) & foreign, f"{route}: {answer.text}"


def test_nothing_of_another_workspace_is_changed_from_outside(building: Building) -> None:
    """Every route that changes something, with ids, names and idempotency keys of the first workspace."""
    before = building.rows(building.world.owner.workspace_id)
    with building.client(building.other.owner_secret) as client:
        for route, call in sorted(building.calls.items()):
            if route == "POST /tokens/exchange":  # it says by itself which workspace it is of
                continue
            fence = {} if call.if_match is None else {"if-match": f'"{call.if_match}"'}
            body: dict[str, Any] = {"json": call.body} if call.content is None else {"content": call.content}
            headers = {**fence, "idempotency-key": "one"}
            answer = client.request(route.partition(" ")[0], f"/api/v1{call.path}", headers=headers, **body)
            assert answer.status_code < 500 or answer.status_code == 503, f"{route}: {answer.text}"
    assert building.rows(building.world.owner.workspace_id) == before


def test_what_both_have_is_each_ones_own(building: Building) -> None:
    found: list[list[str]] = []
    for world, region in ((building.world, "aws:us-east-1"), (building.other, "gcp:europe-west4")):
        world.replica(world.versions.resolve(world.owner, "churn@shared").version, region)
        with building.client(world.owner_secret) as client:
            answer = client.get(f"/api/v1/artifacts/{building.shared_digest}").json()
        found.append([each["region"] for each in answer["replicas"]])
    assert found == [["aws:us-east-1"], ["gcp:europe-west4"]]


def test_a_page_token_of_one_workspace_is_refused_in_another(building: Building) -> None:
    with building.client(building.world.owner_secret) as client:
        token = client.get("/api/v1/audit?page_size=1").json()["next_page_token"]
    with building.client(building.other.owner_secret) as client:
        answer = client.get("/api/v1/audit", params={"page_token": token})
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:fairlead:error:invalid-page-token")


def ids_in(text: str) -> set[str]:
    return set(ID.findall(text))
