"""The gateway as a process: found again, and named only once it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.serving.gateway_process import GatewayProcess


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
