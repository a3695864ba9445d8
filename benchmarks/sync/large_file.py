"""Register and read back one file of tensors that is larger than memory; prints speed and the peak of resident memory.

    .venv/bin/python benchmarks/sync/large_file.py [--gigabytes 20] [--store FOLDER] [--seed 1] [--output json]

The file is a safetensors file of BF16 tensors, normally distributed as trained weights are. It is made as it is read,
by a seekable stream, so no disk limits the reading; packs go to a folder, which is removed afterwards. No two blocks
are equal, so all are hashed, encoded, packed, written, synced and read back.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import shutil
import struct
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from fairlead.sync.store.blocks import no_blocks
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.memory import keep_freed_memory
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact

MEBI = 2**20
TENSOR_BYTES = 64 * MEBI
TEMPLATE_BYTES = TENSOR_BYTES + 2 * 999_983


class SyntheticTensors(io.RawIOBase):
    """A safetensors file of equal-sized BF16 tensors: each is one array of random weights, begun somewhere else."""

    def __init__(self, size_bytes: int, template: memoryview) -> None:
        super().__init__()
        self._template = template
        count = max(1, size_bytes // TENSOR_BYTES)
        length = min(size_bytes, TENSOR_BYTES) // 2 * 2
        header = {
            f"layers.{index}.weight": {
                "dtype": "BF16",
                "shape": [length // 2],
                "data_offsets": [index * length, (index + 1) * length],
            }
            for index in range(count)
        }
        text = json.dumps(header).encode()
        head = struct.pack("<Q", len(text)) + text
        self._head = memoryview(head)
        self._starts = [0, *(len(head) + index * length for index in range(count))]
        self.size = len(head) + count * length
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the start, from here, or from the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes."""
        end = self.size if size is None or size < 0 else min(self.size, self._position + size)
        pieces: list[memoryview] = []
        while self._position < end:
            index = bisect_right(self._starts, self._position) - 1
            start = self._starts[index]
            stop = min(end, self._starts[index + 1] if index + 1 < len(self._starts) else self.size)
            within = self._position - start
            if index == 0:
                pieces.append(self._head[within : stop - start])
            else:
                # An even shift of its own for each tensor: other blocks, of the same kind of numbers.
                shift = index * 6_151 * 2 % len(self._template)
                first = (within + shift) % len(self._template)
                stop = min(stop, self._position + len(self._template) - first)
                pieces.append(self._template[first : first + stop - self._position])
            self._position = stop
        return b"".join(pieces)


def make_template(seed: int, size_bytes: int = TEMPLATE_BYTES) -> memoryview:
    """Normally distributed BF16 weights."""
    rng = np.random.default_rng(seed)
    template = np.empty(size_bytes // 2, np.uint16)
    for start in range(0, len(template), MEBI):
        part = template[start : start + MEBI]
        part[:] = rng.normal(0, 0.02, len(part)).astype(np.float32).view(np.uint32) >> 16
    return template.view(np.uint8).data


def peak_rss_bytes() -> int:
    """The most memory that this process had resident so far."""
    try:
        # Unlike `ru_maxrss`, this does not begin at what the parent had when it forked.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def run(size_bytes: int, folder: Path, seed: int) -> dict[str, Any]:
    """Write, verify and read; the figures."""
    template = make_template(seed)

    def open_file() -> BinaryIO:
        return cast("BinaryIO", SyntheticTensors(size_bytes, template))

    store, domain = open_store(str(folder), {"create": True}), DedupDomain("benchmark", "unrestricted")
    size = SyntheticTensors(size_bytes, template).size
    figures: dict[str, Any] = {"plain_bytes": size, "rss_before_bytes": peak_rss_bytes()}

    def measure(name: str, action: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = action()
        figures[f"{name}_seconds"] = round(time.perf_counter() - wall, 2)
        figures[f"{name}_cpu_seconds"] = round(time.process_time() - cpu, 2)
        figures[f"{name}_peak_rss_bytes"] = peak_rss_bytes()
        return result

    def register() -> Any:
        return write_artifact(store, domain, {"model.safetensors": open_file}, known_blocks=no_blocks)

    def read_all() -> int:
        return sum(map(len, reader.iter_file("model.safetensors")))

    written = measure("register", register)
    reader = ArtifactReader.open(store, domain, written.digest)
    measure("verify", reader.verify)
    measure("read", read_all)
    figures |= {"stored_bytes": written.layout.stored_bytes, "blocks": len(written.layout.blocks)}
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--store", type=Path, default=None, help="folder for the packs; one that is removed if none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", choices=["human", "json"], default="human")
    options = parser.parse_args()
    keep_freed_memory()  # as servers, workers and the command line do
    folder = Path(tempfile.mkdtemp(prefix="large-file-", dir=options.store))
    try:
        figures = run(int(options.gigabytes * 10**9), folder, options.seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.output == "json":
        print(json.dumps(figures))
        return
    plain = figures["plain_bytes"]
    print(f"{platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, seed {options.seed}")
    print(f"{plain} plain bytes in {figures['blocks']} blocks, {figures['stored_bytes'] / plain:.4f} of that stored")
    print("| step | seconds | MB/s | MB/s of a core | peak RSS, MiB |")
    print("|---|---|---|---|---|")
    for step in ("register", "verify", "read"):
        wall, cpu = figures[f"{step}_seconds"], figures[f"{step}_cpu_seconds"]
        peak = figures[f"{step}_peak_rss_bytes"] / MEBI
        print(f"| {step} | {wall} | {plain / 1e6 / wall:.0f} | {plain / 1e6 / cpu:.0f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
