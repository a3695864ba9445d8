"""Blocks on a local disk, up to a size: those used longest ago make room for new ones.

A block is a file named by its digest, and is compared with it whenever it is read: one that has rotted is forgotten and
fetched again. Nothing else is kept, so the folder may be deleted, in part or whole, at any time, also while it is used.
Several threads that want one block fetch it once. One process owns the folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from fairlead.core.errors import CorruptBlock, InvalidInput
from fairlead.core.ids import Digest, digest_hex, sha256_digest

_TEMPORARY = ".partial-"
_HEX_LENGTH = 64


class BlockCache:
    """A folder of at most `size_bytes` of blocks. `hits`, `misses` and `damaged` count what became of requests."""

    def __init__(self, folder: Path, *, size_bytes: int) -> None:
        """Take over what the folder holds, in the order in which it was last used.

        Raises:
            InvalidInput: if the size holds nothing.
        """
        if size_bytes <= 0:
            raise InvalidInput(f"A cache of {size_bytes} bytes holds nothing.", hint="Give it some room.")
        self._folder = folder
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Digest, int] = OrderedDict()
        self._used_bytes = 0
        self._fetching: dict[Digest, Future[bytes]] = {}
        self.hits = self.misses = self.damaged = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._take_over()

    @property
    def used_bytes(self) -> int:
        """What the blocks weigh."""
        return self._used_bytes

    def get(self, digest: Digest, fetch: Callable[[], bytes]) -> bytes:
        """A block's bytes, which are those of its digest: from the disk, or from `fetch`, which is asked once for all.

        Raises:
            CorruptBlock: if what was fetched is not that block.
            FairleadError: whatever `fetch` raises, to everybody who waits for it.
        """
        kept = self._read(digest)
        if kept is not None:
            return kept
        mine: Future[bytes] = Future()
        with self._lock:
            fetching = self._fetching.setdefault(digest, mine)
        if fetching is not mine:
            return fetching.result()
        try:
            data = self._fetch(digest, fetch)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(data)
            return data
        finally:
            with self._lock:
                del self._fetching[digest]

    def _fetch(self, digest: Digest, fetch: Callable[[], bytes]) -> bytes:
        # Whoever fetched it may have finished between the look at the disk and the turn to fetch.
        kept = self._read(digest)
        if kept is not None:
            return kept
        self.misses += 1
        data = fetch()
        if sha256_digest(data) != digest:
            raise CorruptBlock(f"What was fetched is not the block {digest}.", block=digest)
        # A full disk makes a slow cache, and not a broken one.
        with contextlib.suppress(OSError):
            self._write(digest, data)
        return data

    def _read(self, digest: Digest) -> bytes | None:
        with self._lock:
            if digest not in self._sizes:
                return None
            self._sizes.move_to_end(digest)
        path = self._path(digest)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            self._forget(digest)
            return None
        if sha256_digest(data) != digest:
            self.damaged += 1
            self._forget(digest)
            return None
        self.hits += 1
        return data

    def _write(self, digest: Digest, data: bytes) -> None:
        if len(data) > self._size_bytes:
            return
        with self._lock:
            self._used_bytes += len(data)
            while self._used_bytes > self._size_bytes and self._sizes:
                oldest, size = self._sizes.popitem(last=False)
                self._used_bytes -= size
                self._path(oldest).unlink(missing_ok=True)
        path = self._path(digest)
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            with self._lock:
                self._used_bytes -= len(data)
            temporary.unlink(missing_ok=True)
            raise
        with self._lock:
            self._sizes[digest] = len(data)

    def _forget(self, digest: Digest) -> None:
        with self._lock:
            self._used_bytes -= self._sizes.pop(digest, 0)
            self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: Digest) -> Path:
        digits = digest_hex(digest)
        return self._folder / digits[:2] / digits

    def _take_over(self) -> None:
        found: list[tuple[float, Digest, int]] = []
        for path in self._folder.glob("*/*"):
            if path.name.startswith(_TEMPORARY):
                path.unlink(missing_ok=True)
            elif len(path.name) == _HEX_LENGTH:
                status = path.stat()
                found.append((status.st_mtime, Digest(f"sha256:{path.name}"), status.st_size))
        for _, digest, size in sorted(found):
            self._sizes[digest] = size
            self._used_bytes += size
        while self._used_bytes > self._size_bytes:
            oldest, size = self._sizes.popitem(last=False)
            self._used_bytes -= size
            self._path(oldest).unlink(missing_ok=True)
