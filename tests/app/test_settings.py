"""The server's settings, from variables as a shell sets them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.app.settings import ServerSettings
from fairlead.core.errors import InvalidInput


def test_without_variables_everything_is_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path))
    settings = ServerSettings.read()
    assert settings.folder == tmp_path
    assert settings.trusted_hosts == []
    assert settings.feature_source_roots is None
    database = settings.open_database()
    try:
        assert str(tmp_path / "fairlead.db") in str(database.engine.url)
    finally:
        database.close()


def test_durations_and_lists_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LEASE": "PT2.5S",
        "IDLE_EXIT": "PT1H",
        "TRUSTED_HOSTS": "a.example, b.example ,",
        "FEATURE_SOURCE_ROOTS": "/data:/more data",
        "WORKER_THREADS": "7",
    }.items():
        monkeypatch.setenv(f"FAIRLEAD_{name}", value)
    settings = ServerSettings.read()
    assert (settings.lease, settings.idle_exit) == (timedelta(seconds=2.5), timedelta(hours=1))
    assert settings.trusted_hosts == ["a.example", "b.example"]
    assert settings.feature_source_roots == [Path("/data"), Path("/more data")]
    assert settings.worker_threads == 7


def test_a_home_with_a_tilde_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FAIRLEAD_HOME", "~/there")
    assert ServerSettings.read().folder == tmp_path / "there"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE", "half a minute"),
        ("IDLE_EXIT", ""),
        ("WORKER_THREADS", "0"),
        ("WORKER_THREADS", "many"),
        ("MAX_BODY_BYTES", "1e400"),
        ("LEASE", "PT0S"),
        ("LEASE", "-PT1S"),
        ("IDLE_EXIT", "-PT1S"),
        ("MAX_BODY_BYTES", "-1"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"FAIRLEAD_{name}", value)
    with pytest.raises(InvalidInput, match=f"FAIRLEAD_{name}"):
        ServerSettings.read()


def test_the_databases_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_DATABASE_URL", "postgresql+psycopg://ana:hunter2@db.example/fairlead")
    assert "hunter2" not in repr(ServerSettings.read())
