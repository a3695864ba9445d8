"""Who may do what: scopes, roles, and the models and environments that they are for."""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from fairlead.core.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    ModelNotFound,
    PermissionDenied,
    TokenNotFound,
    Unauthenticated,
    WorkspaceNotFound,
)
from fairlead.registry.denials import EACH, Denial, Denials
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.identity import EXCHANGE, Caller, Reach, bootstrap, forget_ended_tokens, issue, system_caller
from fairlead.registry.paging import PageRequest
from fairlead.registry.permissions import OF_ENVIRONMENTS, ROLES, WORKSPACE_SCOPES, RoleGrant, evaluate
from fairlead.registry.role_bindings import RoleBindings
from fairlead.registry.tables import ArtifactRow, AuditEventRow, RegisteredModelRow, TokenRow, UploadRow
from fairlead.registry.visibility import Narrowed, narrow
from fairlead.registry.workspaces import Workspaces
from tests.record_world import World, unknown_id
from tests.statements import statements

NAMES = st.text("ab-%_\\.é", min_size=1, max_size=5)
PATTERNS = st.text("ab-%_\\.é*?", min_size=1, max_size=4)
SCOPES = st.sets(st.sampled_from(sorted(WORKSPACE_SCOPES)), min_size=1)


@given(
    ceiling=SCOPES,
    roles=st.lists(st.builds(RoleGrant, st.sampled_from([*ROLES, "risk-officer"]), PATTERNS, PATTERNS), max_size=3),
    models=st.none() | st.lists(PATTERNS, min_size=1, max_size=2),
    environments=st.none() | st.lists(PATTERNS, min_size=1, max_size=2),
    name=NAMES,
    environment=NAMES,
    scope=st.sampled_from(sorted(WORKSPACE_SCOPES)),
)
def test_what_is_held_is_what_ceiling_roles_and_limits_all_give(  # noqa: PLR0917  (given by name)
    ceiling: set[str],
    roles: list[RoleGrant],
    models: list[str] | None,
    environments: list[str] | None,
    name: str,
    environment: str,
    scope: str,
) -> None:
    """The law in its plainest form, asked of each model in each environment."""
    scopes, grants = evaluate(ceiling, models=models, environments=environments, roles=roles)
    caller = Caller(workspace_id="w", principal="ana", scopes=scopes, grants=grants)
    is_of_environments = scope in OF_ENVIRONMENTS
    expected = (
        (scope in ceiling or "admin" in ceiling)
        and any(fnmatchcase(name, pattern) for pattern in models or ["*"])
        and (not is_of_environments or any(fnmatchcase(environment, pattern) for pattern in environments or ["*"]))
        and any(
            scope in ROLES.get(role.role, frozenset())
            and fnmatchcase(name, role.models)
            and (not is_of_environments or fnmatchcase(environment, role.environments))
            for role in roles
        )
    )
    assert caller.may(scope, model=name, environment=environment) is expected  # type: ignore[arg-type]


def test_a_token_without_limits_holds_its_scopes_as_they_are() -> None:
    assert evaluate(["read", "admin"]) == ({"read", "admin"}, ())
    assert evaluate(["admin"], roles=[]) == (frozenset(), ())
    assert evaluate(["admin"], roles=[RoleGrant("viewer", "*", "*")]) == ({"read"}, ())
    assert evaluate(["admin"], roles=[RoleGrant("viewer", "[a]*", "*")]) == (frozenset(), ())
    assert "server" not in evaluate(["admin", "server"], models=["*"])[0]


def test_patterns_mean_the_same_to_the_database(world: World) -> None:
    names = ["a", "ab", "a_b", "axb", "é", "A", "a.b"]
    for name in names:
        world.model(name)
    for pattern in ("a*", "?", "a_*", "%", "*\\*", "é*", "A*", "*.*", "a?b"):
        grants = evaluate(["read"], models=[pattern])[1]
        caller = Caller(workspace_id=world.owner.workspace_id, principal="eve", scopes=frozenset(), grants=grants)
        with world.database.read() as session:
            narrow(session, Narrowed(caller=caller, scope="read"))
            mine = RegisteredModelRow.workspace_id == caller.workspace_id
            found = set(session.scalars(select(RegisteredModelRow.name).where(mine)))
        assert found == {name for name in names if fnmatchcase(name, pattern)}, pattern


def test_roles_of_a_group_count_at_once_and_end_at_once(world: World) -> None:
    bindings = RoleBindings(world.database, world.clock)
    reach = Reach(scopes=["admin"], groups=["risk"], by_roles=True)
    secret = world.tokens.create(world.owner, name="t", principal="eve", reach=reach).secret
    assert not world.tokens.authenticate(secret).may_somewhere("read")
    bound = bindings.bind(world.owner, principal="group:risk", role="promoter", models="churn*", environments="dev")
    caller = world.tokens.authenticate(secret)
    assert caller.groups == ("risk",)
    assert caller.may("promote", model="churn-2", environment="dev")
    assert not caller.may("promote", model="churn-2", environment="production")
    assert not caller.may("promote", model="fraud", environment="dev")
    assert not caller.may("promote")
    bindings.unbind(world.owner, bound.id)
    assert not world.tokens.authenticate(secret).may_somewhere("read")


@pytest.mark.parametrize("by_roles", [False, True])
def test_a_token_is_recognised_by_one_statement(world: World, by_roles: bool) -> None:  # noqa: FBT001  (a parameter)
    RoleBindings(world.database, world.clock).bind(world.owner, principal="group:risk", role="viewer")
    reach = Reach(scopes=["read"], groups=["risk", "it's"], by_roles=by_roles)
    secret = world.tokens.create(world.owner, name="t", principal="eve", reach=reach).secret
    with statements(world.database) as asked:
        assert world.tokens.authenticate(secret).may("read")
    assert len(asked) == 1, asked


def test_whoever_may_promote_to_one_environment_does_not_to_another(world: World) -> None:
    world.model()
    version = world.version()
    reach = Reach(scopes=["read", "promote"], models=["churn"], environments=["dev"])
    secret = world.tokens.create(world.owner, name="t", principal="eve", reach=reach).secret
    with world.http(secret) as client:

        def promote(environment: str) -> int:
            body = {"version": version.version, "environment": environment}
            answer = client.post("/api/v1/models/churn/promotions", json=body, headers={"if-match": '"0"'})
            return answer.status_code

        assert promote("staging") == 403
        assert promote("dev") == 201
        assert client.get("/api/v1/models/churn").json()["aliases"] == {"dev": 1}
        back = client.post(
            "/api/v1/models/churn/environments/staging/rollback", json={"reason": "x"}, headers={"if-match": '"0"'}
        )
        assert back.status_code in {403, 404, 409, 412}


def test_what_may_be_read_but_not_changed_is_refused_rather_than_hidden(world: World) -> None:
    for name in ("churn", "fraud"):
        world.model(name)
    bindings = RoleBindings(world.database, world.clock)
    bindings.bind(world.owner, principal="eve", role="viewer")
    bindings.bind(world.owner, principal="eve", role="contributor", models="churn")
    secret = world.tokens.create(
        world.owner, name="t", principal="eve", reach=Reach(scopes=["admin"], by_roles=True)
    ).secret
    with world.http(secret) as client:
        assert client.patch("/api/v1/models/churn", json={"description": "x"}).status_code == 200
        assert client.patch("/api/v1/models/fraud", json={"description": "x"}).status_code == 403
        assert client.patch("/api/v1/models/none", json={"description": "x"}).status_code == 404
        labels = {"owner": "eve", "team": "t", "cost_centre": "c"}
        assert client.post("/api/v1/models", json={"name": "other", "labels": labels}).status_code == 403
        assert [each["name"] for each in client.get("/api/v1/models").json()["items"]] == ["churn", "fraud"]
    with pytest.raises(ModelNotFound):
        world.models.get(world.owner, "other")


def test_nobody_sees_an_artifact_by_saying_that_it_is_what_they_upload(world: World) -> None:
    world.model()
    hidden = str(world.version().artifact_digest)
    grants = evaluate(["read", "write"], models=["plan-*"])[1]
    eve = Caller(workspace_id=world.owner.workspace_id, principal="eve", scopes=frozenset(), grants=grants)

    def sees() -> bool:
        with world.database.read() as session:
            narrow(session, Narrowed(caller=eve, scope="read"))
            return session.scalars(select(ArtifactRow).where(ArtifactRow.digest == hidden)).first() is not None

    upload = world.upload()
    with world.database.write() as session:
        row = session.get_one(UploadRow, (eve.workspace_id, upload))
        row.created_by, row.artifact_digest = "eve", hidden
    assert not sees()
    with world.database.write() as session:
        session.get_one(UploadRow, (eve.workspace_id, upload)).state = "READY"
    assert sees()


def test_roles_that_give_scopes_are_bound_for_patterns_that_databases_compare(world: World) -> None:
    bindings = RoleBindings(world.database, world.clock)
    with pytest.raises(InvalidInput, match=r"\* and \?"):
        bindings.bind(world.owner, principal="eve", role="viewer", models="[ab]*")
    bindings.bind(world.owner, principal="eve", role="risk-officer", models="[ab]*")
    for models in ([], ["[a]"], [""], ["a"] * 21):
        with pytest.raises(InvalidInput):
            world.tokens.create(world.owner, name="t", principal="eve", reach=Reach(scopes=["read"], models=models))


def test_the_server_is_given_by_those_alone_who_have_it(world: World) -> None:
    with pytest.raises(PermissionDenied):
        world.tokens.create(world.owner, name="t", principal="eve", scopes=["server"])
    issued = bootstrap(
        world.database, world.clock, principal="ana", workspace_id=world.owner.workspace_id, is_server_admin=True
    )
    admin = world.tokens.authenticate(issued.secret)
    world.tokens.create(admin, name="t", principal="eve", scopes=["server"])
    with pytest.raises(InvalidInput):
        world.tokens.create(admin, name="t", principal="eve", reach=Reach(scopes=["server"], models=["a"]))


def test_workspaces_are_made_by_whoever_runs_the_server_and_show_nothing_across(world: World) -> None:
    workspaces = Workspaces(world.database, world.clock)
    admin = world.caller("ana", "admin", "server")
    name = f"{world.owner.workspace_id[:50]}-side"
    key = IdempotencyKey(key="k", request_sha256="0" * 64)
    made = workspaces.create(admin, name, owner="bea", key=key)
    with pytest.raises(Conflict, match="before"):
        workspaces.create(admin, name, owner="bea", key=key)
    with pytest.raises(AlreadyExists):
        workspaces.create(admin, name, owner="bea")
    bea = world.tokens.authenticate(made.owner.secret)
    assert (bea.workspace_id, bea.principal, bea.may("admin"), bea.may("server")) == (name, "bea", True, False)
    world.model()
    assert world.models.list(bea, PageRequest()).items == ()
    with pytest.raises(ModelNotFound):
        world.models.get(bea, "churn")
    assert workspaces.get(bea, name).name == name
    assert workspaces.get(admin, name).name == name
    with pytest.raises(WorkspaceNotFound):
        workspaces.get(bea, admin.workspace_id)
    with pytest.raises(TokenNotFound):
        world.tokens.revoke(admin, made.owner.token.id)


def test_a_token_is_rotated_with_an_overlap(world: World) -> None:
    reach = Reach(scopes=["read"], models=["churn"], groups=["risk"])
    old = world.tokens.create(world.owner, name="ci", principal="ci", reach=reach, expires_in=timedelta(days=30))
    world.clock.advance(timedelta(days=1))
    new = world.tokens.rotate(world.owner, old.token.id, overlap=timedelta(hours=24))
    assert (new.token.name, new.token.principal, new.token.models) == ("ci", "ci", ("churn",))
    first, second = (world.tokens.authenticate(each.secret) for each in (old, new))
    assert (first.grants, first.groups) == (second.grants, second.groups)
    world.clock.advance(timedelta(hours=24))
    with pytest.raises(Unauthenticated, match="expired"):
        world.tokens.authenticate(old.secret)
    world.tokens.authenticate(new.secret)
    with pytest.raises(Conflict, match="has ended"):
        world.tokens.rotate(world.owner, old.token.id, overlap=timedelta(0))
    with pytest.raises(TokenNotFound):
        world.tokens.rotate(world.owner, unknown_id(), overlap=timedelta(0))
    with pytest.raises(InvalidInput):
        world.tokens.rotate(world.owner, new.token.id, overlap=timedelta(days=91))
    world.clock.advance(timedelta(days=29))
    with pytest.raises(Unauthenticated, match="expired"):
        world.tokens.authenticate(new.secret)
    assert events(world, "token.rotate") == 1
    assert events(world, "token.create") == 2


def test_an_overlap_never_lengthens_a_tokens_life(world: World) -> None:
    old = world.tokens.create(world.owner, name="ci", principal="ci", scopes=["read"], expires_in=timedelta(minutes=5))
    world.tokens.rotate(world.owner, old.token.id, overlap=timedelta(hours=24))
    world.clock.advance(timedelta(minutes=5))
    with pytest.raises(Unauthenticated, match="expired"):
        world.tokens.authenticate(old.secret)


def test_ended_tokens_of_exchanged_identities_are_forgotten_after_a_week(world: World) -> None:
    exchange = system_caller(world.owner.workspace_id, EXCHANGE)
    with world.database.write() as session:
        for caller, expires_in in ((exchange, timedelta(minutes=15)), (exchange, None), (world.owner, timedelta(1))):
            reach = Reach(scopes=["read"])
            issue(session, caller, world.clock, name="t", principal="p", reach=reach, expires_in=expires_in)
    world.clock.advance(timedelta(days=7))
    before = count(world)
    forget_ended_tokens(world.database, world.clock)
    assert count(world) == before
    world.clock.advance(timedelta(minutes=16))
    forget_ended_tokens(world.database, world.clock)
    assert count(world) == before - 1


def test_refusals_are_audited_once_a_minute_for_each_caller(world: World) -> None:
    denials = Denials(world.database, world.clock)
    eve, bob = world.caller("eve", "read"), world.caller("bob", "read")
    for caller in (eve, eve, bob, eve):
        denials.record(Denial(caller=caller, method="POST", path="/api/v1/models"))
    assert events(world, "access.deny") == 2
    world.clock.advance(EACH)
    denials.record(Denial(caller=eve, method="GET", path="/api/v1/tokens"))
    with world.database.read() as session:
        query = select(AuditEventRow).where(
            AuditEventRow.workspace_id == world.owner.workspace_id, AuditEventRow.action == "access.deny"
        )
        found = session.scalars(query.order_by(AuditEventRow.id)).all()
    assert [(row.actor, row.facts["more_before"]) for row in found] == [("eve", 0), ("bob", 0), ("eve", 2)]


def events(world: World, action: str) -> int:
    with world.database.read() as session:
        query = select(func.count()).where(
            AuditEventRow.workspace_id == world.owner.workspace_id,
            AuditEventRow.action == action,
            AuditEventRow.actor != "fairlead:bootstrap",
        )
        return session.scalar(query) or 0


def count(world: World) -> int:
    with world.database.read() as session:
        return session.scalar(select(func.count()).where(TokenRow.workspace_id == world.owner.workspace_id)) or 0
