"""What the revision of access does to the tokens that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from fairlead.core.clock import SystemClock
from fairlead.core.db import Database
from fairlead.registry.identity import Reach, Tokens, bootstrap


def test_going_back_ends_what_nothing_would_limit_any_more(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_DATABASE_URL", empty_database_url)
    alembic = Config(str(Path(__file__).parents[2] / "alembic.ini"))
    command.upgrade(alembic, "head")
    database = Database(empty_database_url)
    try:
        clock = SystemClock()
        owner = bootstrap(database, clock, principal="ana", is_server_admin=True)
        tokens = Tokens(database, clock)
        caller = tokens.authenticate(owner.secret)
        limited = tokens.create(caller, name="a", principal="a", reach=Reach(scopes=["read"], models=["a*"]))
        plain = tokens.create(caller, name="b", principal="b", scopes=["read"])
        command.downgrade(alembic, "0004")
        with database.read() as session:
            found = {row[0]: row[1] for row in session.execute(text("SELECT id, revoked_at IS NOT NULL FROM tokens"))}
        assert (bool(found[limited.token.id]), bool(found[plain.token.id])) == (True, False)
        command.upgrade(alembic, "head")
        assert tokens.authenticate(owner.secret).may("server")
        assert tokens.authenticate(plain.secret).scopes == {"read"}
    finally:
        database.close()
