"""A writer that is killed at any moment leaves a whole snapshot, and the next writer finds its way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from fairlead.featurestore.online_choice import OnlineEngines, read_choices
from fairlead.featurestore.online_sqlite import OnlineFolder
from tests.featurestore.online_engine_suite import CELLS, NAME, NOW, REGION, World
from tests.featurestore.online_writer_process import KEYS
from tests.servers.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
KILLS = 2


@pytest.fixture(params=["sqlite", "redis"])
def setting(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite"
    server: RedisServer = request.getfixturevalue("redis_server")
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()
    return json.dumps({"type": "redis", "url": server.url})


def kill_while_it_writes(setting: str, folder: Path, seconds: float) -> None:
    command = [sys.executable, "-m", "tests.featurestore.online_writer_process", setting, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # Something is served from here on.
        assert process.stdout.readline()
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)


def test_a_writer_that_is_killed_leaves_a_whole_snapshot(setting: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    engine = OnlineEngines(OnlineFolder(root=tmp_path / "online"), read_choices(setting)).of(REGION)
    snapshot = ""
    for _ in range(KILLS):
        kill_while_it_writes(setting, tmp_path, chance.uniform(0.02, 0.3))
        reader = engine.reader(NAME)
        snapshot, rows = reader.read({"id": list(KEYS)}, now=NOW)
        assert {row["x"] for row in rows} == {int(snapshot.removeprefix("sha256:"))}
        reader.close()
    world = World(engine, tmp_path)
    # Upon what the dead one left, an incremental step is either right or refused.
    last = int(snapshot.removeprefix("sha256:"))
    rows_after = world.history(CELLS, [(key, -9 + last, last) for key in KEYS if key] + [(0, 0, 99)])
    contents = world.contents(rows_after, snapshot="sha256:after")
    changes = world.changes([(0, 0, 99)], base=snapshot)
    if engine.apply(NAME, contents, changes, scratch=tmp_path) is None:
        engine.write(NAME, contents, scratch=tmp_path)
    reader = engine.reader(NAME)
    after, rows = reader.read({"id": list(KEYS)}, now=NOW)
    assert after == "sha256:after"
    assert [row["x"] for row in rows] == [99] + [last] * (len(KEYS) - 1)
    reader.close()
    if "redis" in setting:
        with redis.Redis.from_url(json.loads(setting)["url"], decode_responses=True) as client:
            (builds,) = (client.hkeys(key) for key in client.keys("*:builds"))
            # What the dead ones left unseen is gone as soon as somebody has written everything anew.
            engine.write(NAME, contents, scratch=tmp_path)
            (build,) = (key for keys in (client.hkeys(key) for key in client.keys("*:builds")) for key in keys)
            assert build not in builds
