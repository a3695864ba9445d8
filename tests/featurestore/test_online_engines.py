"""Every engine of online stores keeps the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fairlead.featurestore.online_engines import OnlineEngine
from fairlead.featurestore.online_feast import FeastEngine
from fairlead.featurestore.online_redis import RedisEngine
from fairlead.featurestore.online_sqlite import OnlineFolder, SqliteEngine
from tests.featurestore.online_engine_suite import OnlineEngineTests
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


class TestFeastOverSqlite(OnlineEngineTests):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> OnlineEngine:
        options = {"type": "sqlite", "path": str(tmp_path / "feast.db")}
        return FeastEngine(options, OnlineFolder(root=tmp_path / "online"))
