"""A subject leaves every engine's stores, however many keys name it and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fairlead.core.subjects import Subject
from fairlead.featurestore.erasure_stores import forget_subject
from fairlead.featurestore.forgotten import Forgotten
from fairlead.featurestore.online_engines import OnlineEngine
from fairlead.featurestore.online_feast import FeastEngine
from fairlead.featurestore.online_redis import RedisEngine
from fairlead.featurestore.online_sqlite import OnlineFolder, SqliteEngine
from tests.featurestore.online_engine_suite import NAME, NOW, World, view_of
from tests.servers.redis_server import RedisServer

VISITS = view_of({"x": "INT64"}, keys={"clinic": "STRING", "id": "INT64"})
ROWS = [(("a", 1), -1, 1), (("b", 1), -1, 2), (("b", 2), -1, 3)]


@pytest.fixture(params=["sqlite", "redis", "feast"])
def world(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> Iterator[World]:
    folder, client = OnlineFolder(root=tmp_path / "online"), redis.Redis.from_url(redis_server.url)
    client.flushdb()
    engines: dict[str, OnlineEngine] = {
        "sqlite": SqliteEngine({}, folder),
        "redis": RedisEngine({"url": redis_server.url}, folder),
        "feast": FeastEngine({"type": "sqlite", "path": str(tmp_path / "feast.db")}, folder),
    }
    yield World(engines[request.param], tmp_path)
    client.close()


@pytest.mark.parametrize("subject", [{"id": 1}, {"clinic": "a", "id": 1}])
def test_nothing_of_the_subject_is_served_from_rows_of_several_keys(
    world: World, subject: dict[str, str | int]
) -> None:
    world.engine.write(NAME, world.contents(world.history(VISITS, ROWS)), scratch=world.folder)
    forgotten = Forgotten(subject=Subject.of(subject), until=NOW)
    count, _ = forget_subject(world.engine, NAME, forgotten, {tuple(subject.values())}, scratch=world.folder)
    assert count
    reader = world.engine.reader(NAME)
    try:
        found = [row["x"] for row in reader.read({"clinic": ["a", "b", "b"], "id": [1, 1, 2]}, now=NOW)[1]]
    except FileNotFoundError:
        return  # It is made again without the subject.
    finally:
        reader.close()
    assert (subject, found) == ({"id": 1}, [None, None, 3])
