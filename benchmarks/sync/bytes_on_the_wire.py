"""What registering and replicating a model sends, against its plain files, and how fast the content store is.

    .venv/bin/python benchmarks/sync/bytes_on_the_wire.py [--megabytes 64] [--seed 1]

The model is a safetensors file of normally distributed weights (what trained weights look like to a codec) and a small
head. Version 2 has another head. Locations are local folders, so the times are those of hashing, coding and reading
back, and of no network.
"""

# safetensors is typed in part.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fairlead.core.ids import Digest
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact

MEGA = 1_000_000


class Held:
    """What a location holds, as the record would tell a writer."""

    def __init__(self) -> None:
        self.blocks: dict[Digest, StoredBlock] = {}

    def find(self, digests: Sequence[Digest]) -> dict[Digest, StoredBlock]:
        """The blocks among these that are there."""
        return {digest: self.blocks[digest] for digest in digests if digest in self.blocks}


def write_model(folder: Path, size_bytes: int, rng: np.random.Generator, head: bytes) -> None:
    """Write four float32 tensors of one size, and a head."""
    folder.mkdir(parents=True)
    count = size_bytes // 16
    tensors: dict[str, Any] = {f"layer.{n}": rng.normal(0, 0.02, count).astype(np.float32) for n in range(4)}
    save_file(tensors, folder / "extractor.safetensors")
    (folder / "head.bin").write_bytes(head)


def main() -> None:
    """Print one row a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    size = options.megabytes * MEGA
    domain = DedupDomain("benchmark", "unrestricted")
    print(f"{platform.python_version()}, {platform.machine()}, seed {options.seed}, {options.megabytes} MB of float32")
    print("| step | plain bytes | bytes sent | of plain | seconds | MB/s of plain |")
    print("|---|---|---|---|---|---|")

    def tell(step: str, plain: int, sent: int, began: float) -> None:
        seconds = time.perf_counter() - began
        print(f"| {step} | {plain} | {sent} | {sent / plain:.4f} | {seconds:.2f} | {plain / MEGA / seconds:.0f} |")

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_model(root / "v1", size, np.random.default_rng(options.seed), b"one" * 5000)
        write_model(root / "v2", size, np.random.default_rng(options.seed), b"two" * 5000)
        here = open_store(str(root / "here"), {"create": True})
        there = open_store(str(root / "there"), {"create": True})
        held_here, held_there = Held(), Held()
        for version in ("v1", "v2"):
            began = time.perf_counter()
            written = write_artifact(here, domain, root / version, known_blocks=held_here.find)
            tell(f"register {version}", written.plain_bytes, written.sent_bytes, began)
            held_here.blocks |= written.layout.blocks
            began = time.perf_counter()
            ArtifactReader.open(here, domain, written.digest).verify()
            tell(f"read back {version}", written.plain_bytes, 0, began)
            began = time.perf_counter()
            moved = copy_artifact(here, there, domain, written.digest, known_blocks=held_there.find)
            tell(f"replicate {version}", written.plain_bytes, moved.bytes_moved, began)
            held_there.blocks |= moved.layout.blocks


if __name__ == "__main__":
    main()
