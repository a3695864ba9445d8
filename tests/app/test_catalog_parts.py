"""What settings make of the catalog's feeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from fairlead.app.catalog_parts import FEEDS, assemble_catalog, open_feeds
from fairlead.app.settings import ServerSettings
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput
from fairlead.testing.clock import ManualClock


def test_the_names_of_feeds_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAIRLEAD_CATALOG_FEEDS", "aws, azure")
    monkeypatch.setenv("FAIRLEAD_CATALOG_ENDPOINTS", '{"aws": "https://mirror.example.com"}')
    settings = ServerSettings.read(home=tmp_path)
    assert settings.catalog_feeds == ["aws", "azure"]
    assert settings.catalog_endpoints == {"aws": "https://mirror.example.com"}


def test_a_feed_can_be_read_once_its_settings_are_there(tmp_path: Path) -> None:
    clock = ManualClock()
    assert set(open_feeds(ServerSettings(home=tmp_path), clock)) == {"aws", "azure"}
    settings = ServerSettings(
        home=tmp_path,
        google_billing_key=SecretStr("k"),
        electricity_maps_key=SecretStr("k"),
        watttime_user="u",
        watttime_password=SecretStr("p"),
        catalog_file=tmp_path / "figures.yaml",
    )
    assert tuple(sorted(open_feeds(settings, clock))) == FEEDS


def test_a_feed_that_there_is_none_of_is_refused_at_the_start(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'fairlead.db'}")
    try:
        with pytest.raises(InvalidInput, match="gcp"):
            assemble_catalog(ServerSettings(home=tmp_path, catalog_feeds=["gcp"]), database, ManualClock())
    finally:
        database.close()
