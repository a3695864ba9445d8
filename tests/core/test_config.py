"""Settings from a TOML file, for the client and for the server."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.app.settings import ServerSettings
from fairlead.core.errors import InvalidInput
from fairlead.sdk.settings import ClientSettings

DOCUMENT = Path(__file__).parents[2] / "docs/reference/settings.md"
FILE = """
[client]
url = "https://fairlead.example"
token = "fl_file"
region = "aws:us-east-1"
timeout_seconds = 5

[server]
lease = "PT1M"
trusted_hosts = ["a.example", "b.example"]
worker_threads = 7
database_url = "sqlite:////tmp/record.db"
"""


@pytest.fixture(params=["named", "in the home"])
def config(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of settings, found either way."""
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path))
    if request.param == "in the home":
        return tmp_path / "config.toml"
    monkeypatch.setenv("FAIRLEAD_CONFIG", str(tmp_path / "elsewhere.toml"))
    return tmp_path / "elsewhere.toml"


def test_client_and_server_read_their_tables_of_one_file(config: Path) -> None:
    config.write_text(FILE)
    client = ClientSettings.read()
    assert (client.url, client.token, client.region) == ("https://fairlead.example", "fl_file", "aws:us-east-1")
    assert client.timeout_seconds == 5
    server = ServerSettings.read()
    assert (server.lease, server.worker_threads) == (timedelta(minutes=1), 7)
    assert server.trusted_hosts == ["a.example", "b.example"]
    assert server.database_url.get_secret_value() == "sqlite:////tmp/record.db"
    assert server.owner == "owner"


def test_variables_and_arguments_win_over_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config.write_text(FILE)
    monkeypatch.setenv("FAIRLEAD_URL", "https://environment.example")
    monkeypatch.setenv("FAIRLEAD_LEASE", "PT2M")
    assert ClientSettings.read(token="fl_argument").url == "https://environment.example"
    assert ClientSettings.read(token="fl_argument").token == "fl_argument"
    assert ServerSettings.read().lease == timedelta(minutes=2)
    assert ServerSettings.read(home=tmp_path / "given").home == tmp_path / "given"


def test_the_file_of_a_home_that_is_given_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(FILE)
    assert ClientSettings.read(home=tmp_path).token == "fl_file"
    assert ServerSettings.read(home=tmp_path).worker_threads == 7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[server", "is no TOML"),
        ("[servers]", "'servers', which is no table"),
        ("lease = 'PT1M'", "'lease', which is no table"),
        ("server = 3", "'server' in .* is no table"),
        ("[server]\nleases = 'PT1M'", "'leases', which is no setting"),
        ("[server]\nlease = 'half a minute'", "FAIRLEAD_LEASE"),
    ],
)
def test_a_file_that_means_nothing_is_refused_by_what_is_wrong(config: Path, text: str, reason: str) -> None:
    config.write_text(text)
    with pytest.raises(InvalidInput, match=reason):
        ServerSettings.read()


def test_a_file_that_is_named_and_missing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAIRLEAD_CONFIG", str(tmp_path / "missing.toml"))
    for read in (ClientSettings.read, ServerSettings.read):
        with pytest.raises(InvalidInput, match=re.escape("missing.toml")):
            read()


def test_the_example_of_the_reference_is_valid(config: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    config.write_text(found[1])
    assert ClientSettings.read().region == "aws:us-east-1"
    assert ServerSettings.read().lease == timedelta(minutes=1)
