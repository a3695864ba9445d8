from __future__ import annotations

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.testclient import TestClient

from fairlead.registry.access import MayRead, requires, undeclared_routes
from fairlead.registry.identity import Caller
from fairlead.registry.permissions import SCOPES, WORKSPACE_SCOPES, Scope
from tests.record_world import World, make_app


def test_every_route_of_the_record_declares_its_permission(world: World) -> None:
    assert undeclared_routes(make_app(world)) == []


def test_a_route_without_a_permission_is_found_wherever_it_hides() -> None:
    app, inner, deep, mounted = FastAPI(), APIRouter(), APIRouter(), FastAPI(openapi_url=None)

    def nothing() -> None: ...

    async def listen() -> None: ...

    def declared(_caller: MayRead) -> None: ...

    app.add_api_route("/plain", nothing)
    app.add_api_route("/declared", declared)
    deep.add_api_route("/deep", nothing, methods=["DELETE"])
    inner.include_router(deep, prefix="/inner")
    app.include_router(inner, prefix="/api")
    app.add_api_websocket_route("/socket", listen)
    mounted.add_api_route("/below", nothing)
    app.mount("/mounted", mounted)
    app.add_api_route("/healthz", nothing)
    assert undeclared_routes(app) == ["GET /plain", "DELETE /api/inner/deep", "/socket", "GET /mounted/below"]


def test_a_permission_of_the_router_counts_for_its_routes() -> None:
    app, router = FastAPI(), APIRouter(dependencies=[Depends(requires("read"))])

    def nothing() -> None: ...

    router.add_api_route("/below", nothing)
    app.include_router(router)
    assert undeclared_routes(app) == []


def test_without_a_token_nothing_is_answered(world: World) -> None:
    with world.http() as client:
        for authorization in ({}, {"authorization": "Basic abc"}, {"authorization": "Bearer nonsense"}):
            client.headers.pop("authorization", None)
            answer = client.get("/api/v1/models", headers=authorization)
            assert answer.status_code == 401
            assert answer.json()["type"] == "urn:fairlead:error:unauthenticated"
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scope", sorted(WORKSPACE_SCOPES))
def test_a_scope_opens_its_own_routes_and_admin_opens_all(world: World, scope: Scope) -> None:
    app = make_app(world)

    def answer_for(needed: Scope) -> None:
        def who(caller: Caller = Depends(requires(needed))) -> str:  # noqa: B008  (an annotation cannot see `needed`)
            return caller.principal

        app.add_api_route(f"/needs/{needed}", who)

    for needed in SCOPES:
        answer_for(needed)
    headers = {"authorization": f"Bearer {world.secret('ben', scope)}"}
    with TestClient(app, headers=headers) as client:
        opened = {needed for needed in SCOPES if client.get(f"/needs/{needed}").status_code == 200}
        refused = client.get("/needs/admin")
    assert opened == (WORKSPACE_SCOPES if scope == "admin" else {scope})
    if scope != "admin":
        assert refused.status_code == 403
        assert refused.json()["scope"] == "admin"


def test_anyone_with_a_token_may_ask_who_they_are(world: World) -> None:
    with world.http(world.secret("ben", "approve")) as client:
        answer = client.get("/api/v1/whoami").json()
    assert (answer["principal"], answer["scopes"], answer["token_id"] is None) == ("ben", ["approve"], False)
