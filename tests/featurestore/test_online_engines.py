"""Every engine of online stores keeps the same promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.featurestore.online_engines import OnlineEngine
from fairlead.featurestore.online_sqlite import OnlineFolder, SqliteEngine
from tests.featurestore.online_engine_suite import OnlineEngineTests


class TestSqlite(OnlineEngineTests):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> OnlineEngine:
        return SqliteEngine(OnlineFolder(root=tmp_path / "online"))
