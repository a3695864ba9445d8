"""Start a real server on a free loopback port, wait until it answers, and never leave it behind."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervise.py")
START_SECONDS = 60
LOG_TAIL_LINES = 30


class ServerDidNotStart(Exception):
    """A server that the tests need does not run; the message ends with what it wrote."""


def is_listening(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running_server(
    name: str,
    command: Callable[[int], Sequence[str | Path]],
    log: Path,
    *,
    is_ready: Callable[[int], bool] = is_listening,
    environment: Mapping[str, str] | None = None,
    stop_signal: str = "SIGTERM",
    user: str = "-",
    start_seconds: float = START_SECONDS,
) -> Generator[int]:
    """Run `command(port)` while the block runs, and yield the port once `is_ready(port)`.

    Another process may take the free port first: a server that ends early is started once more, on another port.

    Raises:
        ServerDidNotStart: with the end of the server's log.
    """
    for _ in range(2):
        port = _free_port()
        arguments = [sys.executable, "-I", "-S", SUPERVISOR, stop_signal, user, *command(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else os.environ | environment,
                start_new_session=True,
            )
        try:
            if _wait_until_ready(process, port, is_ready, start_seconds):
                yield port
                return
        finally:
            _stop(process)
    raise ServerDidNotStart(f"{name} does not start. Its log ends:\n{_tail(log)}")


def _wait_until_ready(
    process: subprocess.Popen[bytes], port: int, is_ready: Callable[[int], bool], seconds: float
) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if is_ready(port):
            return True
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let go of the supervisor's input, which ends the server and its process group."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:]) or "    (nothing was written)"
