"""Read an artifact from a copy of a location with nothing but Python's standard library (3.11 or newer).

    python plain_reader.py FOLDER ARTIFACT DESTINATION

FOLDER is a dedup domain of the location (`.../{workspace}/{residency}/{key_id}`) or any folder above it, ARTIFACT a
digest (`sha256:...`), DESTINATION a folder that does not exist yet. Every byte is checked. This file imports nothing of
Fairlead and is made to be carried along: where the bytes are, it can read them, slowly (some MB/s; faster with Python
3.14, which brings zstd). It reads what `docs/reference/format.md` describes and refuses what it does not.

Encrypted locations need their keys and therefore Fairlead.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

BLOCK_MAX_BYTES = 8 * 2**20
LAYOUT_MAX_BYTES = 512 * 2**20
GRANULE = 64
#         0 bytes, 1 F16, 2 BF16, 3 F32, 4 F64, 5 INT16, 6 INT32, 7 INT64, 8 F8_E4M3, 9 F8_E5M2, 10 INT8
WIDTHS = {0: 1, 1: 2, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 8: 1, 9: 1, 10: 1}
FLOATS = {1, 2, 3, 4, 8, 9}
_ENTRY = struct.Struct("<32s32sQIIB32s")


class Damaged(Exception):
    """The stored bytes are not what they should be."""


def check(is_true: object, reason: str) -> None:
    """Stop reading where something does not hold.

    Raises:
        Damaged: with the reason.
    """
    if not is_true:
        raise Damaged(reason)


def digest_of(data: bytes) -> str:
    """The name of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


# Blocks


def read_block(stored: bytes) -> bytes:
    """The plain bytes of a block of codec 1; compare them with its digest."""
    check(len(stored) >= 9, "a block is shorter than its header")
    magic, version, dtype, plain_length = struct.unpack_from("<3sBBI", stored)
    check((magic, version) == (b"FLB", 1) and dtype in WIDTHS, "a block is of no known version")
    check(0 < plain_length <= BLOCK_MAX_BYTES, "a block is longer than it may be")
    width = WIDTHS[dtype]
    words, position = _read_chunks(stored, 9, plain_length // width, width, is_float=dtype in FLOATS)
    return _to_bytes(words, width) + _tail(stored, position, plain_length % width)


def read_delta(stored: bytes, base: bytes) -> bytes:
    """The plain bytes of a block of codec 2, which stands on those of another; compare them with its digest."""
    check(len(stored) >= 10, "a difference is shorter than its header")
    magic, version, dtype, key_bits, plain_length = struct.unpack_from("<3sBBBI", stored)
    check((magic, version) == (b"FLD", 1) and dtype in WIDTHS, "a difference is of no known version")
    check(plain_length == len(base) <= BLOCK_MAX_BYTES, "a difference stands on a block of another length")
    width, position = WIDTHS[dtype], 10
    count, bits = plain_length // width, 8 * width
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    before = _from_bytes(base[: count * width], width)
    places: list[int] = []
    if count:
        n_granules = -(-count // GRANULE)
        bitmap, position = _read_stream(stored, position, -(-n_granules // 8))
        changed = _flags(bitmap, n_granules)
        places = [place for place in range(count) if changed[place // GRANULE]]
    if key_bits:
        shift = max(0, bits - key_bits)
        keys = [(word << 1 | word >> (bits - 1)) & mask for word in before] if dtype in FLOATS else before
        places.sort(key=lambda place: keys[place] >> shift)  # stable
    zigzag, position = _read_chunks(stored, position, len(places), width, is_float=False)
    words = before[:]
    for place, value in zip(places, zigzag, strict=True):
        ordered = before[place]
        if dtype in FLOATS:
            ordered = ordered ^ mask if ordered & sign else ordered | sign
        ordered = ordered + (value >> 1 ^ -(value & 1)) & mask
        if dtype in FLOATS:
            ordered = ordered ^ sign if ordered & sign else ordered ^ mask
        words[place] = ordered
    return _to_bytes(words, width) + _tail(stored, position, plain_length % width)


def _tail(stored: bytes, position: int, length: int) -> bytes:
    check(len(stored) - position == length, "a block's last chunk does not end where it should")
    return stored[position:]


def _from_bytes(plain: bytes, width: int) -> list[int]:
    return [word for (word,) in struct.iter_unpack("<" + {1: "B", 2: "H", 4: "I", 8: "Q"}[width], plain)]


def _to_bytes(words: list[int], width: int) -> bytes:
    return struct.pack(f"<{len(words)}" + {1: "B", 2: "H", 4: "I", 8: "Q"}[width], *words)


def _flags(bitmap: bytes, count: int) -> list[int]:
    return [bitmap[place >> 3] >> (place & 7) & 1 for place in range(count)]


def _read_chunks(stored: bytes, position: int, total: int, width: int, *, is_float: bool) -> tuple[list[int], int]:
    words: list[int] = []
    while len(words) < total:
        check(position + 5 <= len(stored), "a chunk is missing")
        form, count = struct.unpack_from("<BI", stored, position)
        check(min(4096, total - len(words)) <= count <= total - len(words), "a chunk has a wrong number of elements")
        chunk, position = _read_chunk(stored, position + 5, form, count, width, is_float=is_float)
        words += chunk
    return words, position


def _read_chunk(
    stored: bytes, position: int, form: int, count: int, width: int, *, is_float: bool
) -> tuple[list[int], int]:
    check(form in {0, 1, 2}, "a chunk is of no known form")
    if form == 0:
        plain, position = _read_stream(stored, position, count * width)
        return _from_bytes(plain, width), position
    present = [1] * count
    if form == 2:
        bitmap, position = _read_stream(stored, position, -(-count // 8))
        present = _flags(bitmap, count)
    n_present = sum(present)
    planes: list[bytes] = []
    for _ in range(width):
        plane, position = _read_stream(stored, position, n_present)
        planes.append(plane)
    some = [int.from_bytes(column, "little") for column in zip(*planes, strict=True)]
    if is_float:
        some = [word >> 1 | (word & 1) << (8 * width - 1) for word in some]
    rest = iter(some)
    return [next(rest) if flag else 0 for flag in present], position


def _read_stream(stored: bytes, position: int, length: int) -> tuple[bytes, int]:
    check(position + 5 <= len(stored), "a stream is missing")
    method, size = struct.unpack_from("<BI", stored, position)
    body, position = stored[position + 5 : position + 5 + size], position + 5 + size
    check(len(body) == size and method in {0, 1, 2}, "a stream ends early, or is of no known method")
    if method == 1:
        body = read_zstd(body, length)
    elif method == 2:
        check(size == 1, "a stream of one byte has another number")
        body *= length
    check(len(body) == length, "a stream holds another number of bytes than it should")
    return body, position


# zstd (RFC 8878), without dictionaries


def read_zstd(frame: bytes, length: int) -> bytes:
    """The plain bytes of one zstd frame that declares `length` of them."""
    try:
        zstd: Any = import_module("compression.zstd")  # new in Python 3.14
    except ImportError:
        return _Zstd(frame, length).read()
    decoder = zstd.ZstdDecompressor()
    try:
        plain: bytes = decoder.decompress(frame, max_length=length + 1)
    except zstd.ZstdError:
        raise Damaged("a zstd frame does not decode") from None
    check(decoder.eof and not decoder.unused_data and len(plain) == length, "a zstd frame has another length")
    return plain


class _Bits:
    """Bits that are read from the end of some bytes to their beginning, as zstd's entropy coders write them."""

    def __init__(self, data: bytes) -> None:
        check(data and data[-1], "a bit stream has no end mark")
        self.value = int.from_bytes(data, "little")
        self.left = self.value.bit_length() - 1  # the highest set bit is the end mark

    def read(self, count: int) -> int:
        """The next bits; beyond the beginning there are zeros."""
        self.left -= count
        shifted = self.value >> self.left if self.left >= 0 else self.value << -self.left
        return shifted & ((1 << count) - 1)


_Table = list[tuple[int, int, int]]
"""For each state of an FSE decoder: its symbol, the bits to read, and what to add for the next state."""

_LENGTH_CODES = [(n, 0) for n in range(16)] + list(
    zip(
        (16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
        (1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16),
        strict=True,
    )
)
_MATCH_CODES = [(n + 3, 0) for n in range(32)] + list(
    zip(
        (35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771, 65539),
        (1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16),
        strict=True,
    )
)
_DEFAULT_LENGTHS = [4, 3, *[2] * 6, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, *[-1] * 4]
_DEFAULT_OFFSETS = [1, 1, 1, 1, 1, 1, 2, 2, 2, *[1] * 15, *[-1] * 5]
_DEFAULT_MATCHES = [1, 4, 3, 2, 2, 2, 2, 2, 2, *[1] * 37, *[-1] * 7]


def _fse_table(counts: list[int], accuracy: int) -> _Table:
    size = 1 << accuracy
    symbols = [0] * size
    high = size
    for symbol, count in enumerate(counts):
        if count == -1:
            high -= 1
            symbols[high] = symbol
    position, step = 0, (size >> 1) + (size >> 3) + 3
    for symbol, count in enumerate(counts):
        for _ in range(max(count, 0)):
            symbols[position] = symbol
            position = (position + step) % size
            while position >= high:
                position = (position + step) % size
    check(position == 0, "an FSE table does not add up")
    following = [1 if count == -1 else count for count in counts]
    table: _Table = []
    for symbol in symbols:
        state = following[symbol]
        following[symbol] += 1
        bits = accuracy - state.bit_length() + 1
        table.append((symbol, bits, (state << bits) - size))
    return table


def _fse_counts(data: bytes, position: int, accuracy_max: int, symbol_max: int) -> tuple[list[int], int, int]:
    """The counts of an FSE table's description, its accuracy, and where it ends."""
    value, start = int.from_bytes(data[position : position + 512], "little"), position
    used = 4
    accuracy = (value & 15) + 5
    check(accuracy <= accuracy_max, "an FSE table is finer than it may be")
    remaining, counts = (1 << accuracy) + 1, list[int]()
    while remaining > 1:
        check(len(counts) <= symbol_max, "an FSE table has too many symbols")
        bits = remaining.bit_length()
        threshold = (1 << bits) - 1 - remaining
        short = value >> used & ((1 << (bits - 1)) - 1)
        if short < threshold:
            count, used = short, used + bits - 1
        else:
            count, used = value >> used & ((1 << bits) - 1), used + bits
            if count >= 1 << (bits - 1):
                count -= threshold
        count -= 1
        counts.append(count)
        remaining -= abs(count)
        check(remaining >= 1, "an FSE table does not add up")
        while count == 0:
            repeats, used = value >> used & 3, used + 2
            counts += [0] * repeats
            check(len(counts) <= symbol_max + 1, "an FSE table has too many symbols")
            if repeats != 3:
                break
    position = start + (used + 7) // 8
    check(position <= len(data) and len(counts) <= symbol_max + 1, "an FSE table ends early")
    return counts, accuracy, position


class _Zstd:
    """The decoder of one frame."""

    def __init__(self, frame: bytes, length: int) -> None:
        self.frame, self.length, self.position = frame, length, 0
        self.out = bytearray()
        self.repeated = [1, 4, 8]
        self.huffman: tuple[list[tuple[int, int]], int] | None = None
        self.tables: dict[str, tuple[_Table, int] | None] = {"lengths": None, "offsets": None, "matches": None}

    def take(self, count: int) -> bytes:
        piece = self.frame[self.position : self.position + count]
        check(len(piece) == count, "a zstd frame ends early")
        self.position += count
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def read(self) -> bytes:
        check(self.number(4) == 0xFD2FB528, "a stream is no zstd frame")
        descriptor = self.number(1)
        check(not descriptor & 0b1011, "a zstd frame has a dictionary or unknown flags")
        is_single, has_checksum, size_flag = descriptor >> 5 & 1, descriptor >> 2 & 1, descriptor >> 6
        if not is_single:
            self.number(1)
        size_bytes = (is_single, 2, 4, 8)[size_flag]
        check(size_bytes, "a zstd frame declares no length")
        declared = self.number(size_bytes) + (256 if size_bytes == 2 else 0)
        check(declared == self.length, "a zstd frame declares another length")
        is_last = 0
        while not is_last:
            header = self.number(3)
            is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
            check(kind != 3 and size <= 128 * 2**10, "a zstd block is of no known kind")
            if kind == 0:
                self.out += self.take(size)
            elif kind == 1:
                self.out += self.take(1) * size
            else:
                self.read_compressed(self.take(size))
            check(len(self.out) <= self.length, "a zstd frame holds more than it declares")
        if has_checksum:
            self.number(4)  # the block's sha256 says more
        check(self.position == len(self.frame), "bytes follow a zstd frame")
        return bytes(self.out)

    def read_compressed(self, block: bytes) -> None:
        literals, position = self.read_literals(block)
        check(position < len(block), "a zstd block has no sequences")
        count, position = block[position], position + 1
        if count > 127:
            if count == 255:
                count = int.from_bytes(block[position : position + 2], "little") + 0x7F00
                position += 2
            else:
                count = (count - 128 << 8) + block[position]
                position += 1
        if not count:
            check(position == len(block), "bytes follow a zstd block")
            self.out += literals
            return
        modes, position = block[position], position + 1
        check(not modes & 3, "a zstd block uses reserved bits")
        settings = (
            ("lengths", modes >> 6, _DEFAULT_LENGTHS, 6, 9, 35),
            ("offsets", modes >> 4 & 3, _DEFAULT_OFFSETS, 5, 8, 31),
            ("matches", modes >> 2 & 3, _DEFAULT_MATCHES, 6, 9, 52),
        )
        for name, mode, default, default_accuracy, accuracy_max, symbol_max in settings:
            if mode == 0:
                self.tables[name] = _fse_table(default, default_accuracy), default_accuracy
            elif mode == 1:
                check(block[position] <= symbol_max, "a zstd block repeats an unknown code")
                self.tables[name], position = ([(block[position], 0, 0)], 0), position + 1
            elif mode == 2:
                counts, accuracy, position = _fse_counts(block, position, accuracy_max, symbol_max)
                self.tables[name] = _fse_table(counts, accuracy), accuracy
            check(self.tables[name], "a zstd block repeats a table that there is not")
        self.run_sequences(literals, count, _Bits(block[position:]))

    def run_sequences(self, literals: bytes, count: int, bits: _Bits) -> None:
        (lengths, a), (offsets, b), (matches, c) = (self.tables[name] or ([], 0) for name in self.tables)
        length_state, offset_state, match_state = bits.read(a), bits.read(b), bits.read(c)
        used, out = 0, self.out
        for index in range(count):
            offset_code = offsets[offset_state][0]
            offset_value = (1 << offset_code) + bits.read(offset_code)
            base, extra = _MATCH_CODES[matches[match_state][0]]
            match_length = base + bits.read(extra)
            base, extra = _LENGTH_CODES[lengths[length_state][0]]
            literal_length = base + bits.read(extra)
            if index < count - 1:
                _, width, base = lengths[length_state]
                length_state = base + bits.read(width)
                _, width, base = matches[match_state]
                match_state = base + bits.read(width)
                _, width, base = offsets[offset_state]
                offset_state = base + bits.read(width)
            check(bits.left >= 0 and used + literal_length <= len(literals), "a zstd block ends early")
            out += literals[used : used + literal_length]
            used += literal_length
            offset = self.resolve_offset(offset_value, literal_length)
            check(0 < offset <= len(out) and len(out) + match_length <= self.length, "a zstd match lies outside")
            while match_length > 0:
                piece = out[len(out) - offset : len(out) - offset + match_length]
                out += piece
                match_length -= len(piece)
        check(bits.left == 0, "a zstd block does not end where it should")
        out += literals[used:]

    def resolve_offset(self, value: int, literal_length: int) -> int:
        first, second, third = self.repeated
        if value > 3:
            self.repeated = [value - 3, first, second]
        else:
            choice = value - 1 + (literal_length == 0)
            if choice == 1:
                self.repeated = [second, first, third]
            elif choice > 1:
                self.repeated = [third if choice == 2 else first - 1, first, second]
        return self.repeated[0]

    def read_literals(self, block: bytes) -> tuple[bytes, int]:
        check(len(block) > 1, "a zstd block is too short")
        kind, size_format = block[0] & 3, block[0] >> 2 & 3
        if kind < 2:
            header_bytes = (1, 2, 1, 3)[size_format]
            size = int.from_bytes(block[:header_bytes], "little") >> (3 if header_bytes == 1 else 4)
            check(size <= 128 * 2**10, "zstd literals are too long")
            if kind == 0:
                check(header_bytes + size <= len(block), "zstd literals end early")
                return block[header_bytes : header_bytes + size], header_bytes + size
            return block[header_bytes : header_bytes + 1] * size, header_bytes + 1
        header_bytes = (3, 3, 4, 5)[size_format]
        size_bits = (10, 10, 14, 18)[size_format]
        header = int.from_bytes(block[:header_bytes], "little") >> 4
        size, stored_size = header & ((1 << size_bits) - 1), header >> size_bits
        end = header_bytes + stored_size
        check(end <= len(block) and size <= 128 * 2**10, "zstd literals end early")
        body = block[header_bytes:end]
        if kind == 2:
            self.huffman, used = _huffman_table(body)
            body = body[used:]
        if size_format == 0:
            return self.read_huffman(body, size), end
        sizes = struct.unpack_from("<3H", body)
        part = (size + 3) // 4
        literals, start = b"", 6
        for index in range(4):
            stop = start + sizes[index] if index < 3 else len(body)
            check(stop <= len(body), "zstd literals end early")
            literals += self.read_huffman(body[start:stop], part if index < 3 else size - 3 * part)
            start = stop
        return literals, end

    def read_huffman(self, data: bytes, size: int) -> bytes:
        if self.huffman is None:
            raise Damaged("a zstd block repeats a table that there is not")
        table, width = self.huffman
        check(data and data[-1], "zstd literals have no end mark")
        mask = (1 << width) - 1
        out = bytearray()
        # A window of the number at a time: shifting all of it for every symbol would take the square of its length.
        start, kept, window = len(data), 0, 0
        kept = data[-1].bit_length() - 1
        window, start = data[-1] & ((1 << kept) - 1), start - 1
        pad = 0
        for _ in range(size):
            while kept < width:
                if start:
                    take = min(32, start)
                    window = window << (8 * take) | int.from_bytes(data[start - take : start], "little")
                    start -= take
                    kept += 8 * take
                else:
                    window, kept, pad = window << width, kept + width, pad + width
            symbol, bits = table[window >> (kept - width) & mask]
            kept -= bits
            window &= (1 << kept) - 1
            out.append(symbol)
        check(not start and kept == pad, "zstd literals do not end where they should")
        return bytes(out)


def _huffman_table(data: bytes) -> tuple[tuple[list[tuple[int, int]], int], int]:
    """For each value of the next bits the symbol and its length, how many bits, and the length of the description."""
    check(data, "a Huffman table is missing")
    header = data[0]
    if header >= 128:
        count = header - 127
        used = 1 + (count + 1) // 2
        check(used <= len(data), "a Huffman table ends early")
        weights = [data[1 + place // 2] >> (0 if place & 1 else 4) & 15 for place in range(count)]
    else:
        used = 1 + header
        check(used <= len(data), "a Huffman table ends early")
        weights = _huffman_weights(data[1:used])
    total = sum(1 << (weight - 1) for weight in weights if weight)
    check(total, "a Huffman table is empty")
    width = total.bit_length()
    rest = (1 << width) - total
    check(width <= 12 and not rest & (rest - 1) and len(weights) < 256, "a Huffman table does not add up")
    weights.append(rest.bit_length())
    table: list[tuple[int, int]] = []
    for weight in range(1, width + 1):
        for symbol, own in enumerate(weights):
            if own == weight:
                table += [(symbol, width + 1 - weight)] * (1 << (weight - 1))
    check(len(table) == 1 << width, "a Huffman table does not add up")
    return (table, width), used


def _huffman_weights(data: bytes) -> list[int]:
    counts, accuracy, position = _fse_counts(data, 0, 6, 255)
    table, bits = _fse_table(counts, accuracy), _Bits(data[position:])
    states = [bits.read(accuracy), bits.read(accuracy)]
    weights: list[int] = []
    turn = 0
    while len(weights) < 256:
        symbol, width, base = table[states[turn]]
        weights.append(symbol)
        if bits.left < width:
            weights.append(table[states[1 - turn]][0])
            return weights
        states[turn] = base + bits.read(width)
        turn = 1 - turn
    raise Damaged("a Huffman table has too many symbols")


# Artifacts


def read_artifact(folder: Path, artifact: str, write: Callable[[str, bytes], None]) -> int:
    """Give every file of an artifact to `write`, a piece at a time and in order; the number of files.

    Raises:
        Damaged: if any byte differs from what the artifact's name stands for.
    """
    digits = artifact.removeprefix("sha256:")
    found = sorted(folder.rglob(f"manifests/{digits}.json"))
    check(len(digits) == 64 and found, f"{folder} holds no artifact sha256:{digits}")
    domain = found[0].parent.parent
    manifest_bytes = found[0].read_bytes()
    check(digest_of(manifest_bytes) == "sha256:" + digits, "the manifest has other bytes than its name says")
    manifest = json.loads(manifest_bytes)
    check((manifest["format"], manifest["version"]) == ("fairlead/manifest", 1), "the manifest is of another version")
    layout = _read_layout(domain, digits)
    reader = _Blocks(domain, layout)
    check([file["path"] for file in layout["files"]] == [file["path"] for file in manifest["files"]], "other files")
    for file, entry in zip(layout["files"], manifest["files"], strict=True):
        hasher, size = hashlib.sha256(), 0
        write(entry["path"], b"")
        for place in _places(file["blocks"]):
            plain = reader.read(layout["blocks"][place])
            hasher.update(plain)
            size += len(plain)
            write(entry["path"], plain)
        is_whole = (size, "sha256:" + hasher.hexdigest()) == (entry["size"], entry["digest"])
        check(is_whole, f"{entry['path']} has other bytes than the manifest says")
    return len(manifest["files"])


def _read_layout(domain: Path, digits: str) -> dict[str, Any]:
    """The newest layout that is whole."""
    for path in sorted((domain / "layouts" / digits).glob("*.json.gz"), reverse=True):
        data = path.read_bytes()
        if path.name[11:75] == hashlib.sha256(data).hexdigest():
            inflate = zlib.decompressobj(31)
            layout = json.loads(inflate.decompress(data, LAYOUT_MAX_BYTES))
            is_known = (layout["format"], layout["version"]) == ("fairlead/layout", 1)
            check(is_known and layout["artifact"] == "sha256:" + digits, "the layout is of another version or artifact")
            layout["blocks"] = list(_with_runs(domain, layout))
            return layout
    raise Damaged("no layout of the artifact is whole")


def _places(places: list[int | list[int]]) -> Iterator[int]:
    for place in places:
        first, count = place if isinstance(place, list) else (place, 1)
        yield from range(first, first + count)


def _with_runs(domain: Path, layout: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The blocks of a layout, with those that it leaves to the index of a pack."""
    for item in layout["blocks"]:
        if "entries" not in item:
            yield item
            continue
        pack = layout["packs"][item["pack"]].removeprefix("sha256:")
        data = (domain / "packs" / pack[:2] / f"{pack}.pack").read_bytes()
        length, digest, magic = struct.unpack("<I32s8s", data[-44:])
        index = data[-44 - length : -44]
        check(hashlib.sha256(index).digest() == digest, f"the index of the pack {pack} is damaged")
        width = {b"\x01FLPEND\x89": 81, b"\x02FLPEND\x89": 113}[magic]
        # Entries of version 1 have no base; as those of version 2 have it, it is zeros.
        entries = [index[place : place + width].ljust(113, b"\0") for place in range(0, length, width)]
        offsets = [struct.unpack_from("<Q", entry, 64)[0] for entry in entries]
        first = offsets.index(item["offset"])
        run = entries[first : first + item["entries"]]
        check(digest_of(b"".join(run)) == item["entries_digest"], f"the index of the pack {pack} is another one")
        for plain, stored, offset, stored_length, plain_length, codec, base in map(_ENTRY.unpack, run):
            yield {
                "digest": "sha256:" + plain.hex(),
                "pack": item["pack"],
                "offset": offset,
                "stored_length": stored_length,
                "stored_digest": "sha256:" + stored.hex(),
                "plain_length": plain_length,
                "codec": codec,
                "base": "sha256:" + base.hex(),
            }


class _Blocks:
    def __init__(self, domain: Path, layout: dict[str, Any]) -> None:
        self.domain, self.packs = domain, layout["packs"]
        self.blocks = {block["digest"]: block for block in layout["blocks"]}

    def read(self, block: dict[str, Any], depth: int = 0) -> bytes:
        pack = self.packs[block["pack"]].removeprefix("sha256:")
        with (self.domain / "packs" / pack[:2] / f"{pack}.pack").open("rb") as stream:
            stream.seek(block["offset"])
            stored = stream.read(block["stored_length"])
        check(digest_of(stored) == block["stored_digest"], f"a block of the pack {pack} has other bytes than it should")
        if block["codec"] == 1:
            plain = read_block(stored)
        else:
            check(block["codec"] == 2 and depth < 64, "a block is of no known codec, or stands on too many others")
            plain = read_delta(stored, self.read(self.blocks[block["base"]], depth + 1))
        check(digest_of(plain) == block["digest"], f"the block {block['digest']} has other bytes than its digest says")
        return plain


def main() -> int:
    """Read the artifact into the destination; 0 when every byte was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("artifact")
    parser.add_argument("destination", type=Path)
    options = parser.parse_args()
    destination: Path = options.destination
    destination.mkdir(parents=True)

    def write(name: str, piece: bytes) -> None:
        is_safe = all(part not in {"", ".", ".."} and "\\" not in part for part in name.split("/"))
        check(is_safe, f"{name!r} is no path in an artifact")
        path = destination / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(piece)

    try:
        count = read_artifact(options.folder, options.artifact, write)
    except (Damaged, KeyError, IndexError, TypeError, ValueError, OSError, struct.error, zlib.error) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{count} files, every byte checked: {destination}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
