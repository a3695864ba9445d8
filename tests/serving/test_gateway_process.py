"""The gateway as a process: found again, and named only once it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.serving.gateway_process import GatewayProcess
from fairlead.serving.processes import without_folders


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    (tmp_path / "routes.json").write_text("{}")
    process = GatewayProcess(tmp_path, tmp_path / "routes.json")
    yield process
    process.stop()


def test_a_gateway_that_does_not_answer_yet_has_no_address(gateway: GatewayProcess, tmp_path: Path) -> None:
    address = gateway.ensure()
    assert gateway.address == address
    state = tmp_path / "gateway.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"is_ready": False}))
    assert gateway.address is None
    assert gateway.ensure() == address, "it runs, so it is only noted again"
    assert gateway.address == address


def test_a_log_that_is_quoted_names_files_and_no_folders() -> None:
    told = without_folders('File "/srv/fairlead/.venv/lib/x.py", line 3, in load\nGET http://127.0.0.1:1/a/b 1/2')
    assert told == 'File "x.py", line 3, in load\nGET http://127.0.0.1:1/a/b 1/2'
