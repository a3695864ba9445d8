"""Run one server and end it when whoever started it goes away, however that happens.

    python supervise.py STOP_SIGNAL USER COMMAND...

The starter holds the other end of standard input: when that closes (a clean stop, an interrupt, `kill -9`), the
server gets STOP_SIGNAL, and SIGKILL with its whole process group where it does not heed it. USER is `-` or whom to run
the server as (PostgreSQL refuses to run as root).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 5


def main() -> None:
    stop_signal, user, *command = sys.argv[1:]
    # The starter made this process the leader of a group; signals meant for its terminal do not arrive here.
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        user=None if user == "-" else user,
        extra_groups=None if user == "-" else [],
    )
    threading.Thread(target=_end_with, args=(server,), daemon=True).start()
    sys.stdin.buffer.read()
    server.send_signal(signal.Signals[stop_signal])
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _end_with(server: subprocess.Popen[bytes]) -> None:
    """When the server ends, so do its children and this process."""
    server.wait()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
