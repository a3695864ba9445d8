from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from fairlead.core.errors import Conflict, InvalidInput, InvalidName, TokenNotFound, Unauthenticated
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.identity import DEFAULT_ENVIRONMENTS, bootstrap, parse_principal, system_caller
from fairlead.registry.paging import PageRequest
from fairlead.registry.tables import TokenRow
from tests.record_world import World, make_world, unknown_id


def test_a_token_is_recognised_by_its_secret_and_carries_its_scopes(world: World) -> None:
    issued = world.tokens.create(world.owner, name="ci", principal="ci/main", scopes=["promote", "read"])
    caller = world.tokens.authenticate(issued.secret)
    assert (caller.workspace_id, caller.principal) == (world.owner.workspace_id, "ci/main")
    assert caller.may("read")
    assert caller.may("promote")
    assert not caller.may("admin")


def test_a_secret_is_256_random_bits_and_the_database_keeps_only_its_hash(world: World) -> None:
    secrets = {world.tokens.create(world.owner, name="t", principal="ben", scopes=["read"]).secret for _ in range(3)}
    assert len(secrets) == 3
    assert all(secret.startswith("fl_") and len(secret) == 46 for secret in secrets)
    with world.database.read() as session:
        for row in session.scalars(select(TokenRow)):
            assert not any(secret[3:] in str(vars(row)) for secret in secrets)


@pytest.mark.parametrize("secret", ["", "fl_", "fl_" + 43 * "A", "Bearer fl_x", "fl_" + 43 * "é", "x" * 10_000])
def test_an_unknown_secret_is_refused(world: World, secret: str) -> None:
    with pytest.raises(Unauthenticated):
        world.tokens.authenticate(secret)


def test_a_token_ends_when_it_expires(world: World) -> None:
    issued = world.tokens.create(
        world.owner, name="short", principal="ben", scopes=["read"], expires_in=timedelta(minutes=5)
    )
    world.clock.advance(timedelta(minutes=4))
    world.tokens.authenticate(issued.secret)
    world.clock.advance(timedelta(minutes=1))
    with pytest.raises(Unauthenticated, match="expired"):
        world.tokens.authenticate(issued.secret)


def test_a_revoked_token_ends_at_once_and_may_be_revoked_again(world: World) -> None:
    issued = world.tokens.create(world.owner, name="lost", principal="ben", scopes=["read"])
    first = world.tokens.revoke(world.owner, issued.token.id)
    assert world.tokens.revoke(world.owner, issued.token.id) == first
    with pytest.raises(Unauthenticated, match="revoked"):
        world.tokens.authenticate(issued.secret)


@pytest.mark.parametrize("token", ["", "nonsense", "../x", unknown_id(), "\0"])
def test_revoking_what_is_not_there_is_not_found(world: World, token: str) -> None:
    with pytest.raises(TokenNotFound):
        world.tokens.revoke(world.owner, token)


def test_a_repeated_call_issues_no_second_token_and_does_not_show_the_secret_again(world: World) -> None:
    key = IdempotencyKey(key="k", request_sha256="0" * 64)
    world.tokens.create(world.owner, name="ci", principal="ci", scopes=["read"], key=key)
    with pytest.raises(Conflict, match="secret was shown"):
        world.tokens.create(world.owner, name="ci", principal="ci", scopes=["read"], key=key)
    names = [token.name for token in world.tokens.list(world.owner, PageRequest()).items]
    assert names == ["owner", "ci"]


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "root"]])
def test_a_scope_that_does_not_exist_is_refused(world: World, scopes: list[str]) -> None:
    with pytest.raises(InvalidInput):
        world.tokens.create(world.owner, name="t", principal="ben", scopes=scopes)


@pytest.mark.parametrize("principal", ["", " ben", "a:b", "fairlead:worker", "a\0b", "x" * 256, "a<b"])
def test_a_principal_cannot_pose_as_the_system_or_hold_odd_characters(principal: str) -> None:
    with pytest.raises(InvalidName):
        parse_principal(principal)


@pytest.mark.parametrize("principal", ["ana", "ana@example.org", "team/ci", "Zoë"])
def test_user_names_addresses_and_paths_are_principals(principal: str) -> None:
    assert parse_principal(principal) == principal


def test_a_new_workspace_has_its_environments_in_order_and_bootstrapping_again_changes_nothing(world: World) -> None:
    second = bootstrap(world.database, world.clock, principal="ana", workspace_id=world.owner.workspace_id)
    assert world.tokens.authenticate(second.secret).may("admin")
    environments = world.environments.list(world.owner, PageRequest()).items
    assert {each.name: each.rank for each in environments} == DEFAULT_ENVIRONMENTS
    assert all(each.revision == 1 for each in environments)


def test_workspaces_do_not_see_each_other(world: World) -> None:
    other = make_world(world.database).owner
    world.model("churn")
    assert world.models.list(other, PageRequest()).items == ()
    assert [token.id for token in world.tokens.list(other, PageRequest()).items] == [other.token_id]
    assert world.models.list(world.owner, PageRequest()).items != ()


@pytest.mark.parametrize("workspace_id", ["", "Has Capitals", "a/b", "-a", "x" * 64])
def test_a_workspace_id_is_short_and_plain(world: World, workspace_id: str) -> None:
    with pytest.raises(InvalidName):
        bootstrap(world.database, world.clock, principal="ana", workspace_id=workspace_id)


def test_the_systems_own_caller_holds_no_scope() -> None:
    assert not system_caller("default", "worker").may("read")
