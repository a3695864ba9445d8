"""Run by the tests of killed workers: a worker at full speed that dies at the worst moment.

    python killed_transfer.py DATABASE NOTES DIE_AT

What is read at `virginia` is added to the file `NOTES` as it arrives, a line of bytes each. The DIE_AT-th pack that is
written elsewhere (0: none) kills the worker with SIGKILL before it is stored, when all that it brings at once was read.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Mapping

from fairlead.catalog import load_catalog
from fairlead.core.clock import SystemClock
from fairlead.core.db import Database
from fairlead.core.ports import ObjectStore
from fairlead.sync.duties import sync_duties
from fairlead.sync.store.objects import open_store
from fairlead.sync.worker import Worker
from fairlead.testing.objects import FaultyStore


class Noting(FaultyStore):
    """Notes what was read."""

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        found = super().read(key, start=start, length=length)
        handle = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, b"%d\n" % len(found))
        os.close(handle)
        return found


class Killing(FaultyStore):
    """Dies in the middle of writing packs."""

    written = itertools.count(1)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        die_at = int(sys.argv[3])
        if key.endswith(".pack") and die_at and next(self.written) >= die_at:
            time.sleep(0.3)  # meanwhile whatever else is brought arrives
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(key, data, create_only=create_only)


def main() -> None:
    """Work until nothing is due."""
    database, clock = Database(sys.argv[1]), SystemClock()

    def open_wrapped(url: str, options: Mapping[str, object]) -> ObjectStore:
        wrap = Noting if url.endswith("virginia") else Killing
        return wrap(open_store(url, options))

    duties = sync_duties(database, clock, catalog=load_catalog(), open_store=open_wrapped, signing_key=bytes(range(32)))
    worker = Worker(database, clock, regions=None, handlers=duties.handlers, derivers=duties.derivers)
    worker.run_until_idle()


if __name__ == "__main__":
    main()
