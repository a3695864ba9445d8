from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from fairlead.app.problem_handlers import install_problem_handlers
from fairlead.core.data_keys import WrappedKey, unwrap_key
from fairlead.core.db import dry_run
from fairlead.core.errors import EncryptionKeyNotFound, InvalidInput, KeyUnavailable, StaleRevision
from fairlead.registry.access import install_access, undeclared_routes
from fairlead.registry.api_keys import keys_router
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.keys import Keys, active_key_id
from fairlead.registry.paging import PageRequest
from fairlead.registry.tables import AuditEventRow
from fairlead.sync.store.keyring import KeyFiles, make_key_file
from tests.record_world import World, unknown_id


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    make_key_file(tmp_path / "first")
    make_key_file(tmp_path / "second")
    return [tmp_path / "first", tmp_path / "second"]


def keys_of(world: World, files: list[Path]) -> Keys:
    return Keys(world.database, world.clock, providers={"file": KeyFiles(files)})


def active(world: World) -> str:
    with world.database.read() as session:
        return active_key_id(session, world.owner.workspace_id)


def test_a_workspace_encrypts_under_the_newest_key_and_none_before_the_first(world: World, files: list[Path]) -> None:
    keys = keys_of(world, files)
    assert active(world) == "plain"
    first = keys.create(world.owner, provider="file")
    assert (first.state, active(world)) == ("ACTIVE", first.id)
    second = keys.create(world.owner, provider="file")
    assert active(world) == second.id
    listed = keys.list(world.owner, PageRequest()).items
    assert [(key.id, key.state) for key in listed] == [(first.id, "RETIRED"), (second.id, "ACTIVE")]
    assert keys.retire(world.owner, second.id) == keys.retire(world.owner, second.id)
    assert active(world) == "plain"


def test_a_data_key_is_random_and_only_kept_wrapped(world: World, files: list[Path]) -> None:
    keys = keys_of(world, files)
    made = [keys.create(world.owner, provider="file") for _ in range(2)]
    opened = [unwrap_key({"file": KeyFiles(files)}, keys.look_up(world.owner.workspace_id, key.id)) for key in made]
    assert opened[0] != opened[1]
    for key, data_key in zip(made, opened, strict=True):
        assert len(data_key) == 32
        assert data_key not in base64.b64decode(key.wrapped_key)
    with world.database.read() as session:
        events = session.scalars(
            select(AuditEventRow).where(AuditEventRow.workspace_id == world.owner.workspace_id)
        ).all()
    told = [event for event in events if event.action == "key.create"]
    assert [event.subject for event in told] == [key.id for key in made]
    assert set(told[0].facts) == {"provider", "provider_key", "revision"}


def test_rotating_wraps_the_same_data_key_for_another_file(world: World, files: list[Path]) -> None:
    first, second = files
    made = keys_of(world, [first]).create(world.owner, provider="file")
    before = keys_of(world, [first]).look_up(world.owner.workspace_id, made.id)
    rotated = keys_of(world, [second, first]).rotate(world.owner, made.id)
    assert (rotated.id, rotated.state, rotated.revision) == (made.id, "ACTIVE", 2)
    assert rotated.provider_key != made.provider_key
    after = keys_of(world, [second]).look_up(world.owner.workspace_id, made.id)
    # The old key file is no longer needed.
    opened = unwrap_key({"file": KeyFiles([second])}, after)
    assert opened == unwrap_key({"file": KeyFiles([first])}, before)
    with pytest.raises(KeyUnavailable):
        unwrap_key({"file": KeyFiles([first])}, after)


def test_rotating_without_the_key_that_wrapped_is_refused(world: World, files: list[Path]) -> None:
    first, second = files
    made = keys_of(world, [first]).create(world.owner, provider="file")
    with pytest.raises(KeyUnavailable):
        keys_of(world, [second]).rotate(world.owner, made.id)


def test_of_two_rotations_at_once_one_is_refused(world: World, files: list[Path]) -> None:
    made = keys_of(world, files).create(world.owner, provider="file")

    class Meddling(KeyFiles):
        def unwrap(self, wrapped: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
            if not done:
                done.append(True)
                keys_of(world, files).rotate(world.owner, made.id)
            return super().unwrap(wrapped, provider_key=provider_key, context=context)

    done: list[bool] = []
    keys = Keys(world.database, world.clock, providers={"file": Meddling(files)})
    with pytest.raises(StaleRevision):
        keys.rotate(world.owner, made.id)


def test_a_dry_run_makes_no_key(world: World, files: list[Path]) -> None:
    with dry_run():
        keys_of(world, files).create(world.owner, provider="file")
    assert active(world) == "plain"


def test_repeating_a_call_makes_one_key(world: World, files: list[Path]) -> None:
    key = IdempotencyKey(key="once", request_sha256="0" * 64)
    keys = keys_of(world, files)
    assert keys.create(world.owner, provider="file", key=key) == keys.create(world.owner, provider="file", key=key)
    assert len(keys.list(world.owner, PageRequest()).items) == 1


def test_an_unknown_key_or_provider_is_told(world: World, files: list[Path]) -> None:
    keys = keys_of(world, files)
    for key_id in (unknown_id(), "plain", "../x"):
        with pytest.raises(EncryptionKeyNotFound):
            keys.rotate(world.owner, key_id)
        with pytest.raises(EncryptionKeyNotFound):
            keys.look_up(world.owner.workspace_id, key_id)
    with pytest.raises(InvalidInput):
        keys.create(world.owner, provider="rot13")


def test_keys_are_served_wrapped_to_those_who_read_or_write(world: World, files: list[Path]) -> None:
    app = FastAPI()
    install_problem_handlers(app)
    install_access(app, world.tokens.authenticate)
    app.include_router(keys_router(keys_of(world, files)))
    assert undeclared_routes(app) == []

    def client(*scopes: str) -> TestClient:
        issued = world.tokens.create(world.owner, name="t", principal="ben", scopes=scopes)
        return TestClient(app, headers={"Authorization": f"Bearer {issued.secret}"})

    made = client("admin").post("/keys", json={"provider": "file"})
    assert made.status_code == 201
    assert "wrapped_key" not in made.json()
    key_id = made.json()["id"]
    assert client("write").post("/keys", json={"provider": "file"}).status_code == 403
    assert client("approve").get(f"/keys/{key_id}").status_code == 403
    for scope in ("read", "write", "admin"):
        answer = client(scope).get(f"/keys/{key_id}").json()
        wrapped = WrappedKey(
            workspace=world.owner.workspace_id,
            key_id=key_id,
            provider=answer["provider"],
            provider_key=answer["provider_key"],
            wrapped=base64.b64decode(answer["wrapped_key"]),
        )
        assert len(unwrap_key({"file": KeyFiles(files)}, wrapped)) == 32
    (listed,) = client("read").get("/keys").json()["items"]
    assert listed == made.json()
    assert client("admin").post(f"/keys/{key_id}/rotate").json()["revision"] == 2
    assert client("admin").post(f"/keys/{key_id}/retire").json()["state"] == "RETIRED"
    refused = client("admin").post("/keys", json={"provider": "aws-kms", "provider_key": "x"})
    assert refused.status_code == 400
