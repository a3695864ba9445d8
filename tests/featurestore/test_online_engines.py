"""Every engine of online stores keeps the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.online_engines import OnlineEngine
from fairlead.featurestore.online_feast import FeastEngine
from fairlead.featurestore.online_redis import RedisEngine
from fairlead.featurestore.online_sqlite import OnlineFolder, SqliteEngine
from tests.featurestore.online_engine_suite import OnlineEngineTests, World, X, Y
from tests.servers.redis_server import RedisServer


class TestSqlite(OnlineEngineTests):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> OnlineEngine:
        return SqliteEngine({}, OnlineFolder(root=tmp_path / "online"))


class TestRedis(OnlineEngineTests):
    @pytest.fixture
    def engine(self, redis_server: RedisServer, tmp_path: Path) -> Iterator[OnlineEngine]:
        client = redis.Redis.from_url(redis_server.url)
        client.flushdb()
        yield RedisEngine({"url": redis_server.url}, OnlineFolder(root=tmp_path))
        client.close()

    def test_a_server_that_drops_keys_is_refused(self, world: World, redis_server: RedisServer) -> None:
        world.write([(1, -1, 1)])
        with redis.Redis.from_url(redis_server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            try:
                with pytest.raises(InvalidInput, match="drops keys"):
                    world.write([(1, -1, 2)], snapshot=Y)
            finally:
                client.config_set("maxmemory-policy", "noeviction")
        assert (world.snapshot(), world.read([1])) == (X, [1])


class TestFeastOverSqlite(OnlineEngineTests):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> OnlineEngine:
        options = {"type": "sqlite", "path": str(tmp_path / "feast.db")}
        return FeastEngine(options, OnlineFolder(root=tmp_path / "online"))
