"""Blocks into packs at a location: what is there already is not sent, what is sent is packed and uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import KnownBlocks, StoredBlock
from fairlead.sync.store.codec import CODEC
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.pack import HEADER, PACK_TARGET_BYTES, PackBuilder

_ASK_AT_ONCE = 1000
_LOOKS_AT_ONCE = 4


class PackWriter:
    """Packs stored blocks and uploads each pack while the next one fills; at most two packs are in memory.

    Packs are named by their content and always written: one that a killed run left damaged is mended by the next.
    """

    def __init__(self, store: ObjectStore, domain: DedupDomain, *, target_bytes: int = PACK_TARGET_BYTES) -> None:
        self._store = store
        self._domain = domain
        self._target_bytes = min(target_bytes, PACK_TARGET_BYTES)
        self._builder = PackBuilder()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pack-upload")
        self._upload: Future[int] | None = None
        self._blocks: dict[Digest, StoredBlock] = {}
        self.sent_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, stored: bytes | memoryview, *, digest: Digest, plain_length: int) -> None:
        """Append a stored block, uploading the pack when it is full.

        Raises:
            LocationUnavailable, StorageFull, PermissionDenied: from the upload of an earlier pack.
        """
        self._builder.add(stored, digest=digest, plain_length=plain_length)
        if self._builder.size >= self._target_bytes:
            self._flush()

    def finish(self) -> Mapping[Digest, StoredBlock]:
        """Upload what remains, wait, and tell where every added block is.

        Raises:
            LocationUnavailable, StorageFull, PermissionDenied: from an upload.
        """
        if not self._builder.is_empty:
            self._flush()
        self._wait()
        return self._blocks

    def _flush(self) -> None:
        self._wait()
        pack, data, blocks = self._builder.finish()
        self._builder = PackBuilder()
        self._blocks.update((block.digest, block) for block in blocks)
        self._upload = self._pool.submit(self._write, self._domain.pack_key(pack), data)

    def _write(self, key: str, data: bytearray) -> int:
        self._store.write(key, data)
        return len(data)

    def _wait(self) -> None:
        if self._upload is not None:
            upload, self._upload = self._upload, None
            self.sent_bytes += upload.result()


def find_known(
    store: ObjectStore, domain: DedupDomain, wanted: Mapping[Digest, int], known_blocks: KnownBlocks
) -> dict[Digest, StoredBlock]:
    """The wanted blocks (digest to plain length) that are known and whose pack the location holds.

    An index may be behind: what it names is used only where a pack of that name is there and long enough. That
    proves nothing about the bytes; reading them back does.
    """
    digests = list(wanted)
    claimed: dict[Digest, StoredBlock] = {}
    for start in range(0, len(digests), _ASK_AT_ONCE):
        for digest, block in known_blocks(digests[start : start + _ASK_AT_ONCE]).items():
            is_same = block.digest == digest and block.plain_length == wanted.get(digest)
            if is_same and block.codec == CODEC and block.base is None and block.offset >= len(HEADER):
                claimed[digest] = block
    packs = list({block.pack for block in claimed.values()})
    if not packs:
        return {}

    def look(pack: Digest) -> int:
        return store.size(domain.pack_key(pack)) or 0

    with ThreadPoolExecutor(max_workers=_LOOKS_AT_ONCE, thread_name_prefix="pack-look") as pool:
        sizes = dict(zip(packs, pool.map(look, packs), strict=True))
    return {digest: block for digest, block in claimed.items() if block.end < sizes[block.pack]}
