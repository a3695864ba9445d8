"""Run by the tests of the file cache: bring an artifact's files through a cache that others use at the same time.

    python cache_user.py FOLDER DIGEST TARGET [die]

`FOLDER/location` has the artifact, `FOLDER/cache` is the cache. It prints how many stored bytes it read. With `die` it
is killed with SIGKILL as soon as half of the bytes are here.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fairlead.core.ids import parse_digest
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.file_cache import FileCache
from fairlead.sync.store.local import LocalStore
from fairlead.sync.store.reader import ArtifactReader
from fairlead.testing.flaky import CountingStore

DOMAIN = DedupDomain("acme", "global")


def main() -> None:
    """Fill, then copy."""
    folder, digest, target = Path(sys.argv[1]), parse_digest(sys.argv[2]), Path(sys.argv[3])
    store = CountingStore(LocalStore(folder / "location"))
    reader = ArtifactReader.open(store, DOMAIN, digest)
    cache = FileCache(folder / "cache")

    def advance(done: int, total: int) -> None:
        if "die" in sys.argv and done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    cache.fill(reader, reader.manifest.files, advance)
    assert all(cache.copy(entry, target / entry.path) for entry in reader.manifest.files)
    sys.stdout.write(f"{store.read_bytes}\n")


if __name__ == "__main__":
    main()
