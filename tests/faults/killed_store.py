"""Run by the tests of killed writers: one thing over and over, killed with SIGKILL a sync later each time.

    python killed_store.py write|copy FOLDER

`FOLDER/source` holds the files, and for a copy `FOLDER/from` a location that has them. Run number N works on the
location `FOLDER/N` and dies at its N-th fsync: after an object was written and before it is in place, or after it is
and before that is durable. It ends when a run gets through, and writes how many there were. Each run is a process of
its own, forked so that imports are made once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fairlead.core.ids import Digest
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.local import LocalStore
from fairlead.sync.store.manifest import build_manifest
from fairlead.sync.store.writer import write_artifact

DOMAIN = DedupDomain("acme", "global")
PACK_BYTES = 150_000


def act(what: str, folder: Path, location: Path) -> None:
    """The thing that is killed."""
    destination = LocalStore(location, create=True)
    if what == "write":
        write_artifact(destination, DOMAIN, folder / "source", pack_bytes=PACK_BYTES)
    else:
        digest: Digest = build_manifest(folder / "source").digest
        copy_artifact(LocalStore(folder / "from"), destination, DOMAIN, digest, pack_bytes=PACK_BYTES, threads=1)


def die_at_sync(number: int) -> None:
    """Kill this process at its n-th fsync."""
    sync, left = os.fsync, [number]

    def fsync(handle: int) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = fsync


def main() -> None:
    """Run until a run is not killed."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    act(what, folder, folder / "warm")
    for number in range(1, 200):
        child = os.fork()
        if not child:
            die_at_sync(number)
            act(what, folder, folder / str(number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.stdout.write(f"{number} {os.WEXITSTATUS(status)}\n")
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main()
