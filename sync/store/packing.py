"""Stored blocks into packs at a location, uploaded while the next ones fill, and never twice."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from fairlead.core.errors import CorruptObject, ObjectNotFound
from fairlead.core.ids import Digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.codec import CODEC
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.pack import PACK_TARGET_BYTES, PackBuilder

UPLOADS = 2
"""How many packs are uploaded at once, unless a caller says otherwise."""

# A request and its answer take about 1 kB, and few packs are there already when they are to be written.
_LOOK_FIRST_BYTES = 32 * 2**10

PackStored = Callable[[Sequence[StoredBlock]], object]
"""Told the blocks of each pack that the location holds whole now, from any thread."""


class PackWriter:
    """Packs stored blocks and uploads each pack while the next ones fill; `threads + 1` packs are in memory at most.

    Packs are named by their content, and equal blocks added in the same order give equal packs. One that is there
    already is read back and not sent again if it is whole, so that a run after one that was killed sends only the rest,
    and a pack that was left damaged is mended.
    """

    def __init__(
        self,
        store: ObjectStore,
        domain: DedupDomain,
        *,
        target_bytes: int = PACK_TARGET_BYTES,
        threads: int = UPLOADS,
        stored: PackStored | None = None,
    ) -> None:
        self._store = store
        self._domain = domain
        self._target_bytes = min(target_bytes, PACK_TARGET_BYTES)
        self._builder = PackBuilder()
        self._threads = threads
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pack-upload")
        self._uploads: deque[Future[list[StoredBlock]]] = deque()
        self._stored = stored
        self._lock = threading.Lock()
        self._blocks: dict[Digest, StoredBlock] = {}
        self.sent_bytes = 0
        self.found_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

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
        """Append a stored block, uploading the pack when it is full.

        Raises:
            LocationUnavailable, StorageFull, PermissionDenied: from the upload of an earlier pack.
        """
        self._builder.add(
            stored, digest=digest, plain_length=plain_length, codec=codec, base=base, stored_digest=stored_digest
        )
        if self._builder.size >= self._target_bytes:
            self._flush()

    def finish(self) -> Mapping[Digest, StoredBlock]:
        """Upload what remains, wait, and tell where every added block is.

        Raises:
            LocationUnavailable, StorageFull, PermissionDenied: from an upload.
        """
        if not self._builder.is_empty:
            self._flush()
        while self._uploads:
            self._wait()
        return self._blocks

    def _flush(self) -> None:
        builder, self._builder = self._builder, PackBuilder()
        while len(self._uploads) >= self._threads:
            self._wait()
        self._uploads.append(self._pool.submit(self._upload, builder))

    def _upload(self, builder: PackBuilder) -> list[StoredBlock]:
        pack, data, blocks = builder.finish()
        is_sent = store_pack(self._store, self._domain, pack, data)
        with self._lock:
            self.sent_bytes += len(data) if is_sent else 0
            self.found_bytes += 0 if is_sent else len(data)
        if self._stored is not None:
            self._stored(blocks)
        return blocks

    def _wait(self) -> None:
        for block in self._uploads.popleft().result():
            self._blocks[block.digest] = block


def store_pack(store: ObjectStore, domain: DedupDomain, pack: Digest, data: bytes | bytearray) -> bool:
    """Store a pack unless the very same bytes are there already; True if it was sent.

    Raises:
        LocationUnavailable, StorageFull, PermissionDenied: from the store.
    """
    key = domain.pack_key(pack)
    # To look at a small one first costs about as much as to send it.
    is_sent_at_once = store.has_create_only and len(data) <= _LOOK_FIRST_BYTES
    if is_sent_at_once and store.write(key, data, create_only=True):
        return True
    if holds_pack(store, domain, pack, len(data)):
        return False
    store.write(key, data)
    return True


def holds_pack(store: ObjectStore, domain: DedupDomain, pack: Digest, size: int) -> bool:
    """Whether the location holds a pack of this size whole: existence is never taken for correctness.

    Raises:
        LocationUnavailable, PermissionDenied: from the store.
    """
    key = domain.pack_key(pack)
    if store.size(key) != size:
        return False
    try:
        return sha256_digest(store.read(key)) == pack
    except (ObjectNotFound, CorruptObject):
        return False
