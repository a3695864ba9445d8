"""What people squeeze a file of weights with before they send it; run in the peers' environment.

    PYTHON benchmarks/sync/race/encoders.py METHOD DTYPE FILE OUTPUT [BASE]

Prints JSON: bytes written, and seconds and CPU seconds of encoding, without reading the files or importing libraries.

- `zstd`: one frame, level 3.
- `zipnn`: ZipNN as its authors publish it, told the dtype.
- `xor`: the file XORed with the base, then zstd level 3; alone where the two are not of one length.
- `patch`: what `zstd --patch-from` does: the base as a dictionary, and a window over both.
- `zipnn-delta`: the file XORed with the base, then ZipNN; alone where the two are not of one length, as it demands.
- `xet`: chunks of 64 KiB on average, cut by content; those that the base has are not sent; the others each as the
  smaller of LZ4 and byte-grouped LZ4. This is the method of Hugging Face's Xet written anew, without its server.
"""

# The peers' libraries are not in the project's environment.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard

ZIPNN_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
WIDTHS = {"bf16": 2, "fp32": 4}
XET_AVERAGE, XET_LEAST, XET_MOST = 64 * 2**10, 8 * 2**10, 128 * 2**10
# What an entry of a list of chunks takes: a hash, and where it is.
XET_ENTRY_BYTES = 48


def main() -> None:
    """Encode one file."""
    method, dtype, source, output, *rest = sys.argv[1:]
    plain = Path(source).read_bytes()
    base = Path(rest[0]).read_bytes() if rest else b""
    encode = prepared(method, dtype)
    began, cpu = time.perf_counter(), time.process_time()
    encoded = encode(plain, base)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    Path(output).write_bytes(encoded)
    print(json.dumps({"bytes": len(encoded), "seconds": seconds, "cpu_seconds": cpu_seconds}))


def prepared(method: str, dtype: str) -> Callable[[bytes, bytes], bytes]:
    """The method with its libraries imported."""
    if method == "zstd":
        return lambda plain, _: zstandard.ZstdCompressor(level=3).compress(plain)
    if method == "xor":
        return lambda plain, base: zstandard.ZstdCompressor(level=3).compress(xor(plain, base))
    if method == "patch":
        import pyzstd  # noqa: F401

        return patch
    if method == "xet":
        import lz4.frame  # noqa: F401
        import pyfastcdc  # noqa: F401

        return lambda plain, base: xet(plain, base, WIDTHS[dtype])
    from zipnn import ZipNN

    def zipped(data: bytes) -> bytes:
        # It changes what it is given in place.
        return bytes(ZipNN(bytearray_dtype=ZIPNN_DTYPES[dtype], input_format="byte").compress(bytearray(data)))

    return (lambda plain, base: zipped(xor(plain, base))) if method == "zipnn-delta" else lambda plain, _: zipped(plain)


def xor(plain: bytes, base: bytes) -> bytes:
    """The bytes of one file against those of another one, if it is as long."""
    if len(plain) != len(base):
        return plain
    return (np.frombuffer(plain, np.uint8) ^ np.frombuffer(base, np.uint8)).tobytes()


def patch(plain: bytes, base: bytes) -> bytes:
    """One frame that may refer to any part of the base."""
    from pyzstd import CParameter, ZstdDict, compress

    options = {
        CParameter.compressionLevel: 3,
        CParameter.windowLog: (len(plain) + len(base)).bit_length(),
        CParameter.enableLongDistanceMatching: 1,
    }
    return compress(plain, options, zstd_dict=ZstdDict(base, is_raw=True).as_prefix)


def xet(plain: bytes, base: bytes, width: int) -> bytes:
    """The chunks that the base lacks, and an entry for each chunk."""
    from lz4.frame import compress
    from pyfastcdc import FastCDC

    chunker = FastCDC(XET_AVERAGE, min_size=XET_LEAST, max_size=XET_MOST)
    known = {hashlib.sha256(chunk.data).digest() for chunk in chunker.cut_buf(base)} if base else set()
    parts: list[bytes] = []
    for chunk in chunker.cut_buf(plain):
        digest = hashlib.sha256(chunk.data).digest()
        parts.append(digest + bytes(XET_ENTRY_BYTES - len(digest)))
        if digest not in known:
            known.add(digest)
            data = bytes(chunk.data)
            grouped = np.frombuffer(data[: len(data) // width * width], np.uint8).reshape(-1, width).T.tobytes()
            parts.append(min(compress(data), compress(grouped), data, key=len))
    return b"".join(parts)


if __name__ == "__main__":
    main()
