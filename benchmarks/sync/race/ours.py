"""Fairlead's part of the race, as a process of its own: register a version at home once, and bring it to three clouds.

    PYTHON -m benchmarks.sync.race.ours JOB

`JOB` is JSON: `home` (folder), `source` (folder of files), `base` (digest or null), `base_source`, and `destinations`
(name, URL, options). What the record would keep, which blocks a location holds, is kept in a folder beside the home.
Prints JSON: the digest, and the seconds and CPU seconds of registering, copying, and of reading every byte back at the
destinations, without importing libraries and opening stores.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlead.core.ids import Digest, digest_hex, parse_digest
from fairlead.sync.store.bases import Base
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.layout import Layout
from fairlead.sync.store.memory import keep_freed_memory
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact

DOMAIN = DedupDomain("race", "unrestricted")


class Index:
    """Which blocks a location holds: what its layouts say, kept at home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        layouts = (Layout.parse(path.read_bytes()) for path in sorted(folder.iterdir()))
        self._blocks = {digest: block for layout in layouts for digest, block in layout.blocks.items()}

    def find(self, digests: Sequence[Digest]) -> Mapping[Digest, StoredBlock]:
        """The blocks among these that are there."""
        return {digest: self._blocks[digest] for digest in digests if digest in self._blocks}

    def add(self, layout: Layout) -> None:
        """Remember what a new layout says."""
        (self._folder / digest_hex(layout.artifact)).write_bytes(layout.to_bytes())


class Stopwatch:
    """Seconds and CPU seconds by step."""

    def __init__(self) -> None:
        self.laps: dict[str, tuple[float, float]] = {}
        self._last = time.perf_counter(), time.process_time()

    def lap(self, step: str) -> None:
        """End a step."""
        now = time.perf_counter(), time.process_time()
        seconds, cpu_seconds = self.laps.get(step, (0.0, 0.0))
        self.laps[step] = seconds + now[0] - self._last[0], cpu_seconds + now[1] - self._last[1]
        self._last = now


def main() -> None:
    """Run one job."""
    keep_freed_memory()  # as servers, workers and the command line do
    job: dict[str, Any] = json.loads(sys.argv[1])
    home = open_store(job["home"], {"create": True})
    stores = {name: open_store(url, options) for name, url, options in job["destinations"]}
    for store in stores.values():
        list(store.list("nothing/"))  # loads the driver and opens the connection
    index_folder = Path(job["home"]).with_name("index")
    source = Path(job["source"])
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    watch = Stopwatch()
    bases: list[Base] = []
    if job["base"]:
        files = {path.name: path for path in Path(job["base_source"]).iterdir()}
        bases = [Base(reader=ArtifactReader.open(home, DOMAIN, parse_digest(job["base"])), files=files)]
    held = Index(index_folder / "home")
    written = write_artifact(home, DOMAIN, source, known_blocks=held.find, bases=bases)
    held.add(written.layout)
    watch.lap("register")
    for name, store in stores.items():
        there = Index(index_folder / name)
        moved = copy_artifact(home, store, DOMAIN, written.digest, known_blocks=there.find, side="source")
        there.add(moved.layout)
        watch.lap(f"copy to {name}")
        print(json.dumps({"arrived": name}), flush=True)
        sys.stdin.readline()
        watch.lap("pause")
        ArtifactReader.open(store, DOMAIN, written.digest, moved.layout_key).verify()
        watch.lap("read back")
        print(json.dumps({"read back": name}), flush=True)
        sys.stdin.readline()
        watch.lap("pause")
    print(json.dumps({"digest": written.digest, "laps": watch.laps}), flush=True)


if __name__ == "__main__":
    main()
