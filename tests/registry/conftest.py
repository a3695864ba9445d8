"""A record to act on, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from fairlead.core.db import Database
from tests.record_world import World, make_world
from tests.records import open_record
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="session")
def shared_databases(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Database]]:
    """One database of each kind for the session: workspaces keep its tests apart, as they keep tenants apart."""
    with ExitStack() as stack:

        @cache
        def shared_database(kind: str) -> Database:
            if kind == "sqlite":
                url = f"sqlite:///{tmp_path_factory.mktemp('record') / 'fairlead.db'}"
            else:
                url = stack.enter_context(postgres_server.new_database())
            return stack.enter_context(open_record(url))

        yield shared_database


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_database(request: pytest.FixtureRequest, shared_databases: Callable[[str], Database]) -> Database:
    """The session's database of a kind; the test runs once on each."""
    return shared_databases(request.param)


@pytest.fixture
def world(shared_database: Database) -> World:
    """An empty workspace with one owner; the test runs once on each kind of database."""
    return make_world(shared_database)
