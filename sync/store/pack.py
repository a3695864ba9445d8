"""A pack: stored blocks back to back, and an index of them, as one immutable object named by its sha256.

    pack    = magic:8 block... index trailer
    index   = (digest:32 stored_digest:32 offset:u64 stored_length:u32 plain_length:u32 codec:u8)...
    trailer = index_length:u32 index_sha256:32 magic:8

Numbers are little-endian. Readers of artifacts go by the layout; the index lets everything be found again from the
packs alone, and a scrub check a pack without knowing who uses it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

from fairlead.core.errors import CorruptPack
from fairlead.core.ids import Digest, digest_hex, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.codec import BLOCK_MAX_BYTES, CODEC, STORED_MAX_BYTES
from fairlead.sync.store.domain import DedupDomain

PACK_TARGET_BYTES = 32 * 2**20
PACK_MAX_BYTES = PACK_TARGET_BYTES + STORED_MAX_BYTES + 2**20
HEADER = b"\x89FLPACK\x01"
TRAILER_MAGIC = b"\x01FLPEND\x89"
_ENTRY = struct.Struct("<32s32sQIIB")
_TRAILER = struct.Struct("<I32s8s")


class PackBuilder:
    """Collects stored blocks into one pack in memory. Offsets are final at once; the name is known at the end."""

    def __init__(self) -> None:
        self._body = bytearray(HEADER)
        self._entries: list[tuple[Digest, Digest, int, int, int, int]] = []

    @property
    def is_empty(self) -> bool:
        """Whether no block was added yet."""
        return not self._entries

    @property
    def size(self) -> int:
        """The bytes of the pack if it were finished now."""
        return len(self._body) + len(self._entries) * _ENTRY.size + _TRAILER.size

    def add(self, stored: bytes | memoryview, *, digest: Digest, plain_length: int, codec: int = CODEC) -> None:
        """Append a stored block."""
        self._entries.append((digest, sha256_digest(stored), len(self._body), len(stored), plain_length, codec))
        self._body += stored

    def finish(self) -> tuple[Digest, bytearray, list[StoredBlock]]:
        """The pack's name, its bytes, and where its blocks are. The builder is spent."""
        index = b"".join(
            _ENTRY.pack(_raw(digest), _raw(stored), offset, stored_length, plain_length, codec)
            for digest, stored, offset, stored_length, plain_length, codec in self._entries
        )
        self._body += index
        self._body += _TRAILER.pack(len(index), hashlib.sha256(index).digest(), TRAILER_MAGIC)
        pack = sha256_digest(self._body)
        blocks = [
            StoredBlock(
                digest=digest,
                pack=pack,
                offset=offset,
                stored_length=stored_length,
                stored_digest=stored,
                plain_length=plain_length,
                codec=codec,
            )
            for digest, stored, offset, stored_length, plain_length, codec in self._entries
        ]
        return pack, self._body, blocks


def read_pack_index(store: ObjectStore, domain: DedupDomain, pack: Digest) -> list[StoredBlock]:
    """The blocks that a pack says it holds, in order, by reading its first and last bytes only.

    Raises:
        ObjectNotFound: if the location does not hold the pack.
        CorruptPack: if its frame or index is damaged.
    """
    key = domain.pack_key(pack)
    header = store.read(key, start=0, length=len(HEADER))
    size = store.size(key) or 0
    if header != HEADER or not len(HEADER) + _TRAILER.size <= size <= PACK_MAX_BYTES:
        raise _corrupt(pack, "it does not begin like a pack, or is too short or long")
    trailer_start = size - _TRAILER.size
    trailer = store.read(key, start=trailer_start, length=_TRAILER.size)
    if len(trailer) != _TRAILER.size:
        raise _corrupt(pack, "it ends early")
    index_length, index_digest, magic = _TRAILER.unpack(trailer)
    index_start = trailer_start - index_length
    if magic != TRAILER_MAGIC or index_start < len(HEADER) or index_length % _ENTRY.size:
        raise _corrupt(pack, "its last bytes are not those of a pack")
    index = store.read(key, start=index_start, length=index_length) if index_length else b""
    if hashlib.sha256(index).digest() != index_digest:
        raise _corrupt(pack, "its index is damaged")
    return _parse_index(pack, index, index_start)


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
    if sha256_digest(data) != pack:
        raise _corrupt(pack, "its bytes are not those of its name")
    blocks = read_pack_index(store, domain, pack)
    view = memoryview(data)
    for block in blocks:
        if check_block is not None:
            check_block(block, view[block.offset : block.end])
    return blocks


def _parse_index(pack: Digest, index: bytes, index_start: int) -> list[StoredBlock]:
    blocks: list[StoredBlock] = []
    position = len(HEADER)
    for digest, stored, offset, stored_length, plain_length, codec in _ENTRY.iter_unpack(index):
        if offset != position or not 0 < plain_length <= BLOCK_MAX_BYTES or not 0 < stored_length <= STORED_MAX_BYTES:
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
            )
        )
    if position != index_start:
        raise _corrupt(pack, "its index does not fit its bytes")
    return blocks


def _corrupt(pack: Digest, reason: str) -> CorruptPack:
    return CorruptPack(f"The pack {pack} is damaged: {reason}.", hint="Repair it from another replica.", pack=pack)


def _raw(digest: Digest) -> bytes:
    return bytes.fromhex(digest_hex(digest))
