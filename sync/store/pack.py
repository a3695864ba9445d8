"""A pack: stored blocks back to back, and an index of them, as one immutable object named by its sha256.

    pack    = magic:8 block... index trailer
    index   = (digest:32 stored_digest:32 offset:u64 stored_length:u32 plain_length:u32 codec:u8 base:32)...
    trailer = index_length:u32 index_sha256:32 magic:8

Numbers are little-endian. Version 1 has no `base` in its index and is what a pack without deltas is written as; in
version 2 it is the digest of the block that a delta stands on, or zeros. Readers of artifacts go by the layout; the
index lets everything be found again from the packs alone, and a scrub check a pack without knowing who uses it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace

from fairlead.core.errors import CorruptPack
from fairlead.core.ids import Digest, digest_hex, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.codec import BLOCK_MAX_BYTES, CODEC, STORED_MAX_BYTES
from fairlead.sync.store.delta import DELTA_CODEC
from fairlead.sync.store.domain import DedupDomain

PACK_TARGET_BYTES = 32 * 2**20
PACK_MAX_BYTES = PACK_TARGET_BYTES + STORED_MAX_BYTES + 2**20
HEADER = b"\x89FLPACK\x01"
TRAILER_MAGIC = b"\x01FLPEND\x89"
DELTA_HEADER = b"\x89FLPACK\x02"
DELTA_TRAILER_MAGIC = b"\x02FLPEND\x89"
_ENTRY = struct.Struct("<32s32sQIIB")
_DELTA_ENTRY = struct.Struct("<32s32sQIIB32s")
_TRAILER = struct.Struct("<I32s8s")
ENTRY_LEAST_BYTES = _ENTRY.size
_NO_BASE = bytes(32)
# Frame and index of most packs in one request.
_TAIL_BYTES = 64 * 2**10


class PackBuilder:
    """Collects stored blocks into one pack in memory. Offsets are final at once; the name is known at the end."""

    def __init__(self) -> None:
        self._stored: list[bytes | memoryview] = []
        self._stored_bytes = 0
        self._entries: list[StoredBlock] = []
        self._has_deltas = False

    @property
    def is_empty(self) -> bool:
        """Whether no block was added yet."""
        return not self._entries

    @property
    def size(self) -> int:
        """The bytes of the pack if it were finished now."""
        return packed_size(self._stored_bytes, len(self._entries), has_deltas=self._has_deltas)

    def add(
        self,
        stored: bytes | memoryview,
        *,
        digest: Digest,
        plain_length: int,
        codec: int = CODEC,
        base: Digest | None = None,
        stored_digest: Digest | None = None,
    ) -> None:
        """Append a stored block, which must not change any more; its sha256 is worked out unless it is given."""
        block = StoredBlock(
            digest=digest,
            # Known when the pack is finished.
            pack=digest,
            offset=len(HEADER) + self._stored_bytes,
            stored_length=len(stored),
            stored_digest=stored_digest or sha256_digest(stored),
            plain_length=plain_length,
            codec=codec,
            base=base,
        )
        self._entries.append(block)
        self._has_deltas = self._has_deltas or base is not None
        self._stored.append(stored)
        self._stored_bytes += len(stored)

    def finish(self) -> tuple[Digest, bytes, list[StoredBlock]]:
        """The pack's name, its bytes, and where its blocks are. The builder is spent."""
        index = b"".join(_index_entry(block, has_base=self._has_deltas) for block in self._entries)
        header, trailer_magic = (DELTA_HEADER, DELTA_TRAILER_MAGIC) if self._has_deltas else (HEADER, TRAILER_MAGIC)
        trailer = _TRAILER.pack(len(index), hashlib.sha256(index).digest(), trailer_magic)
        body = b"".join((header, *self._stored, index, trailer))
        self._stored.clear()
        pack = sha256_digest(body)
        return pack, body, [replace(block, pack=pack) for block in self._entries]


def packed_size(stored_bytes: int, blocks: int, *, has_deltas: bool) -> int:
    """The bytes of a pack of that many blocks, which come to `stored_bytes` together."""
    entry = _DELTA_ENTRY if has_deltas else _ENTRY
    return len(HEADER) + stored_bytes + blocks * entry.size + _TRAILER.size


def read_pack_index(store: ObjectStore, domain: DedupDomain, pack: Digest) -> list[StoredBlock]:
    """The blocks that a pack says it holds, in order, by reading its first and last bytes only.

    Raises:
        ObjectNotFound: if the location does not hold the pack.
        CorruptPack: if its frame or index is damaged.
    """
    key = domain.pack_key(pack)
    header = store.read(key, start=0, length=len(HEADER))
    size = store.size(key) or 0
    if size < len(HEADER) + _TRAILER.size:
        raise _corrupt(pack, "it is too short")
    tail = store.read(key, start=max(0, size - _TAIL_BYTES), length=_TAIL_BYTES)
    if len(tail) != min(size, _TAIL_BYTES):
        raise _corrupt(pack, "it ends early")
    index_length = _TRAILER.unpack_from(tail, len(tail) - _TRAILER.size)[0]
    missing = index_length + _TRAILER.size - len(tail)
    if 0 < missing <= size - len(tail):
        tail = store.read(key, start=size - len(tail) - missing, length=missing) + tail
    return _parse_frame(pack, header, tail, size)


def read_index_at_end(
    store: ObjectStore, domain: DedupDomain, pack: Digest, *, size: int, expected: int
) -> list[StoredBlock]:
    """The blocks that a pack of a known size says it holds, in one request if they are about as many as `expected`.

    Raises:
        ObjectNotFound: if the location does not hold the pack.
        CorruptPack: if its end is not that of a pack of this size, or its index is damaged.
    """
    key = domain.pack_key(pack)
    length = min(size, _TRAILER.size + (expected + expected // 8 + 8) * _DELTA_ENTRY.size)
    tail = store.read(key, start=size - length, length=length)
    if len(tail) != length or length < _TRAILER.size:
        raise _corrupt(pack, "it has another size")
    missing = _TRAILER.unpack_from(tail, len(tail) - _TRAILER.size)[0] + _TRAILER.size - length
    if 0 < missing <= size - length:
        tail = store.read(key, start=size - length - missing, length=missing) + tail
    # The first bytes are the business of whoever reads the pack back; the last ones tell the version as well.
    header = DELTA_HEADER if tail.endswith(DELTA_TRAILER_MAGIC) else HEADER
    return _parse_frame(pack, header, tail, size)


def digest_of_entries(blocks: Iterable[StoredBlock]) -> Digest:
    """The sha256 of blocks' entries in an index, as version 2 has them, whichever version their pack is."""
    return sha256_digest(b"".join(_index_entry(block, has_base=True) for block in blocks))


def parse_pack(pack: Digest, data: bytes | memoryview) -> list[StoredBlock]:
    """The blocks of a pack that is in memory, in order; its bytes are compared with its name.

    Raises:
        CorruptPack: if any byte differs.
    """
    if sha256_digest(data) != pack:
        raise _corrupt(pack, "its bytes are not those of its name")
    view = memoryview(data)
    return _parse_frame(pack, bytes(view[: len(HEADER)]), view, len(view))


def verify_pack(
    store: ObjectStore,
    domain: DedupDomain,
    pack: Digest,
    *,
    check_block: Callable[[StoredBlock, memoryview], None] | None = None,
) -> list[StoredBlock]:
    """Read all bytes of a pack, compare them with its name, and give its blocks.

    `check_block` is called with each block and its stored bytes, for callers that also decode them.

    Raises:
        ObjectNotFound: if the location does not hold the pack.
        CorruptPack: if any byte differs.
    """
    data = store.read(domain.pack_key(pack))
    blocks = parse_pack(pack, data)
    view = memoryview(data)
    for block in blocks:
        if check_block is not None:
            check_block(block, view[block.offset : block.end])
    return blocks


def _index_entry(block: StoredBlock, *, has_base: bool) -> bytes:
    fields = (_raw(block.digest), _raw(block.stored_digest), block.offset, block.stored_length, block.plain_length)
    if not has_base:
        return _ENTRY.pack(*fields, block.codec)
    return _DELTA_ENTRY.pack(*fields, block.codec, _NO_BASE if block.base is None else _raw(block.base))


def _parse_frame(pack: Digest, header: bytes, tail: bytes | memoryview, size: int) -> list[StoredBlock]:
    """Read the index out of a pack's last bytes, of which there are enough if the pack is whole."""
    versions = {HEADER: (_ENTRY, TRAILER_MAGIC), DELTA_HEADER: (_DELTA_ENTRY, DELTA_TRAILER_MAGIC)}
    if header not in versions or not len(HEADER) + _TRAILER.size <= size <= PACK_MAX_BYTES:
        raise _corrupt(pack, "it does not begin like a pack, or is too short or long")
    entry, trailer_magic = versions[header]
    index_length, index_digest, magic = _TRAILER.unpack_from(tail, len(tail) - _TRAILER.size)
    index_start = size - _TRAILER.size - index_length
    if magic != trailer_magic or index_start < len(HEADER) or index_length % entry.size:
        raise _corrupt(pack, "its last bytes are not those of a pack")
    index = bytes(tail[len(tail) - _TRAILER.size - index_length : len(tail) - _TRAILER.size])
    if len(index) != index_length or hashlib.sha256(index).digest() != index_digest:
        raise _corrupt(pack, "its index is damaged")
    return _parse_index(pack, index, index_start, entry)


def _parse_index(pack: Digest, index: bytes, index_start: int, entry: struct.Struct) -> list[StoredBlock]:
    blocks: list[StoredBlock] = []
    position = len(HEADER)
    for digest, stored, offset, stored_length, plain_length, codec, *rest in entry.iter_unpack(index):
        base = None if not rest or rest[0] == _NO_BASE else Digest("sha256:" + rest[0].hex())
        is_placed = offset == position and (base is not None) == (codec == DELTA_CODEC)
        if not is_placed or not 0 < plain_length <= BLOCK_MAX_BYTES or not 0 < stored_length <= STORED_MAX_BYTES:
            raise _corrupt(pack, "its index does not fit its bytes")
        position += stored_length
        blocks.append(
            StoredBlock(
                digest=Digest("sha256:" + digest.hex()),
                pack=pack,
                offset=offset,
                stored_length=stored_length,
                stored_digest=Digest("sha256:" + stored.hex()),
                plain_length=plain_length,
                codec=codec,
                base=base,
            )
        )
    if position != index_start:
        raise _corrupt(pack, "its index does not fit its bytes")
    return blocks


def _corrupt(pack: Digest, reason: str) -> CorruptPack:
    return CorruptPack(f"The pack {pack} is damaged: {reason}.", hint="Repair it from another replica.", pack=pack)


def _raw(digest: Digest) -> bytes:
    return bytes.fromhex(digest_hex(digest))
