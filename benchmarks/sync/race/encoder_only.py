"""Squeezing alone, of the model's encoder without its embeddings: bytes and speed, nothing sent.

Half of the model is embeddings, of which a short training sees few; without them the methods differ as they do for
models that consist of layers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.sync.race.contestants import encode
from benchmarks.sync.race.peers import Peers
from fairlead.sync.store.bases import Base
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact
from fairlead.testing.objects import MemoryStore

METHODS = {
    "zstd": "zstd",
    "zipnn": "ZipNN",
    "xor": "XOR + zstd",
    "zipnn-delta": "XOR + ZipNN",
    "patch": "zstd --patch-from",
    "xet": "Xet's method",
}
_ALONE = ("zstd", "zipnn", "xet")
MEGA = 1_000_000


def encoder_table(models: Path, precisions: Sequence[str], peers: Peers, work: Path) -> Iterator[str]:
    """One row for each precision, version and method."""
    yield "| | | bytes | of plain | MB/s of plain | CPU seconds |"
    yield "|---|---|---|---|---|---|"
    for precision in precisions:
        folder = models / precision
        for version in ("v1", "v2"):
            source = folder / version / "model.safetensors"
            base = None if version == "v1" else folder / "v1" / "model.safetensors"
            rows = {"Fairlead": _ours(source, base)}
            for method, name in METHODS.items():
                if base is not None or method in _ALONE:
                    took = encode(peers, method, precision, source=source, output=work / "encoder", base=base)
                    rows[name] = int(took["bytes"]), took["seconds"], took["cpu_seconds"]
            least = min(size for size, _, _ in rows.values())
            plain = source.stat().st_size
            for name, (size, seconds, cpu_seconds) in rows.items():
                shown = f"**{size:,}**" if size == least else f"{size:,}"
                speed = plain / MEGA / seconds
                title = f"{precision.upper()} {version}"
                yield f"| {title} | {name} | {shown} | {size / plain:.4f} | {speed:.0f} | {cpu_seconds:.2f} |"


def _ours(source: Path, base: Path | None) -> tuple[int, float, float]:
    """All that is stored for the file: packs with their indexes, layout and manifest; hashing is in the time."""
    store, domain = MemoryStore(), DedupDomain("race", "unrestricted")
    write_artifact(MemoryStore(), domain, {"warm": bytes(range(256)) * 4096})
    bases: list[Base] = []
    if base is not None:
        first = write_artifact(store, domain, {base.name: base})
        bases = [Base(reader=ArtifactReader.open(store, domain, first.digest), files={base.name: base})]
    began, cpu = time.perf_counter(), time.process_time()
    written = write_artifact(store, domain, {source.name: source}, bases=bases)
    return written.sent_bytes, time.perf_counter() - began, time.process_time() - cpu
