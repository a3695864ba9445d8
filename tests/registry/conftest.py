"""A record to act on, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairlead.core.db import Database
from tests.record_world import World, make_world
from tests.records import open_record
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One database of each kind for the session: workspaces keep its tests apart, as they keep tenants apart."""
    if request.param == "sqlite":
        with open_record(f"sqlite:///{tmp_path_factory.mktemp('record') / 'fairlead.db'}") as database:
            yield database
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.new_database() as url, open_record(url) as database:
        yield database


@pytest.fixture
def world(shared_database: Database) -> World:
    """An empty workspace with one owner; the test runs once on each kind of database."""
    return make_world(shared_database)
