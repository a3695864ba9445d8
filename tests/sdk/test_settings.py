"""Where the server is and who calls: arguments, then the environment, then defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.core.errors import InvalidInput
from fairlead.sdk.settings import ClientSettings


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAIRLEAD_URL", "https://environment.example/")
    monkeypatch.setenv("FAIRLEAD_TOKEN", " fl_environment\n")
    monkeypatch.setenv("FAIRLEAD_REGION", "aws:us-east-1")
    monkeypatch.setenv("FAIRLEAD_TIMEOUT_SECONDS", "2.5")
    settings = ClientSettings.read()
    assert (settings.url, settings.token) == ("https://environment.example", "fl_environment")
    assert (settings.region, settings.timeout_seconds) == ("aws:us-east-1", 2.5)
    settings = ClientSettings.read(url="http://127.0.0.1:8470/", token="fl_argument", home=tmp_path)
    assert (settings.url, settings.token, settings.home) == ("http://127.0.0.1:8470", "fl_argument", tmp_path)


def test_empty_variables_are_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "TOKEN", "REGION", "TIMEOUT_SECONDS", "HOME"):
        monkeypatch.setenv(f"FAIRLEAD_{name}", "")
    settings = ClientSettings.read()
    assert (settings.url, settings.token, settings.region, settings.timeout_seconds) == (None, None, None, 60.0)
    assert settings.home == Path.home() / ".fairlead"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8470", "ftp://x", "http://", "https://x:port", "http://x\ny", "//x", "file:///x"]
)
def test_a_url_of_no_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ClientSettings.read(url=url)
    assert "https://" in str(refused.value.hint)


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_no_time_is_refused(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_TIMEOUT_SECONDS", seconds)
    with pytest.raises(InvalidInput, match="FAIRLEAD_TIMEOUT_SECONDS"):
        ClientSettings.read()


@pytest.mark.parametrize("token", ["fl_a b", "fl_ü", "fl_a\nb"])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ClientSettings.read(token=token)
    assert "fl_" not in str(refused.value)


def test_the_token_is_not_in_the_text_of_the_settings() -> None:
    assert "fl_secret" not in repr(ClientSettings.read(token="fl_secret"))
