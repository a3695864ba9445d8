"""Stopping the server of a home, whatever it is doing."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fairlead.app.cleanup import stop_server
from fairlead.sdk.embedded import Home, is_owned

HOLD = """
import fcntl, sys, time
held = open(sys.argv[1], "a")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(path=tmp_path)


def test_nothing_is_stopped_where_nothing_runs(home: Home) -> None:
    assert stop_server(home) is False


def test_a_server_that_is_leaving_by_itself_is_waited_for(home: Home) -> None:
    held = home.lock.open("a")
    fcntl.flock(held, fcntl.LOCK_EX)
    threading.Timer(0.3, held.close).start()
    assert stop_server(home) is True
    assert not is_owned(home)


def test_a_running_server_is_ended_and_the_address_of_its_successor_is_left_alone(home: Home) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(home.lock)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "held\n"
        home.address.write_text(json.dumps({"pid": server.pid}))
        assert stop_server(home) is True
        assert server.wait(timeout=10) < 0
    # The next server may have written its own by now; a stale one is found out by its instance.
    assert home.address.exists()
