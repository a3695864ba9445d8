"""The fixtures of the acceptance tests; each module has a home of its own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, leave_nothing
from tests.acceptance.world import World, running_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """Features, a model and its endpoints in three regions. A test leaves it as healthy as it found it."""
    with running_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def fairlead(tmp_path_factory: pytest.TempPathFactory) -> Generator[CommandLine]:
    """The owner's command line of a home that the module's tests share; the first command starts its server."""
    home: Path = tmp_path_factory.mktemp("acceptance") / "home"
    yield CommandLine(home=home)
    leave_nothing(home)
