"""The edge cache: artifacts' files over HTTP, pulled through from the nearest replica, verified before they are served.

What it serves never changes, since it is named by its digest: answers say so (`immutable`, an ETag that is the file's
sha256), and a CDN may stand before it. Every block is compared with its digest each time it is served, from the disk or
from a replica. That a file is put together from the right blocks is known by its own digest, for which the last block
of a file is held back; and, for a range, by the layout: the registry names the one by its sha256 through which a worker
read the whole replica back, so the blocks that a range touches are those of the file, and no others are read. Data
under a residency rule is served by no cache.
"""

from __future__ import annotations

import hashlib
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from fairlead.app.kept_answers import OFFLINE_SECONDS, KeptAnswers
from fairlead.core.errors import (
    Conflict,
    CorruptLayout,
    FairleadError,
    InvalidInput,
    LocationUnavailable,
    NotCacheable,
    NotFound,
    ReplicaUnavailable,
    Unauthenticated,
)
from fairlead.core.ids import Digest, digest_hex, parse_digest
from fairlead.sdk.client import Fairlead
from fairlead.sdk.settings import ClientSettings

if TYPE_CHECKING:
    from fairlead.sdk.records import Location
    from fairlead.sync.store.block_cache import BlockCache
    from fairlead.sync.store.blocks import StoredBlock
    from fairlead.sync.store.manifest import FileEntry
    from fairlead.sync.store.reader import ArtifactReader

_READERS_KEPT = 64
_FILES_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file: bytes `start` up to `end` of one block."""

    block: StoredBlock
    start: int
    end: int


class EdgeCache:
    """Finds files of artifacts and reads them through a cache of blocks. Safe to use from several threads.

    `client` speaks to the registry with the cache's own token. `connect` makes a client that speaks with a caller's.
    """

    def __init__(
        self,
        client: Fairlead,
        *,
        location: str,
        blocks: BlockCache,
        connect: Callable[[str], Fairlead],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._artifacts = client.artifacts.without_caches()
        self._name = location
        self._connect = connect
        self.blocks = blocks
        self._location: KeptAnswers[str, Location] = KeptAnswers(monotonic)
        self._residency: KeptAnswers[Digest, str] = KeptAnswers(monotonic)
        self._allowed: KeptAnswers[tuple[str, Digest], bool] = KeptAnswers(monotonic)
        self._readers: OrderedDict[Digest, ArtifactReader] = OrderedDict()
        self._sound_files: OrderedDict[tuple[Digest, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def location(self) -> Location:
        """The cache's own record.

        Raises:
            LocationNotFound: if there is none of its name.
            Conflict: if it is no cache.
            LocationUnavailable: if it is retired.
        """
        found = self._location.get(self._name, lambda: self._client.locations.get(self._name))
        if found.kind != "cache":
            raise Conflict(
                f"{found.name!r} is a {found.kind} location, and no cache.",
                hint="Add one: fairlead location add NAME --kind cache --region REGION --url https://...",
            )
        if found.state != "ACTIVE":
            raise LocationUnavailable(f"The cache {found.name!r} is {found.state}.", location=found.name)
        return found

    @property
    def is_public(self) -> bool:
        """Whether whoever asks is answered."""
        return bool(self.location().settings.get("is_public", False))

    def admit(self, digest: str, token: str | None) -> Digest:
        """Check that a caller may have an artifact, and that a cache may; its digest.

        Raises:
            InvalidDigest: if it is none.
            Unauthenticated: if a token is needed and not given, or not valid.
            PermissionDenied: if it may not read.
            ArtifactNotFound: if the caller's workspace has none of that digest.
            NotCacheable: if it is under a residency rule.
        """
        name = Digest(parse_digest(digest))
        if not self.is_public:
            if token is None:
                raise Unauthenticated("This cache wants a token.", hint="Send Authorization: Bearer TOKEN.")
            key = hashlib.sha256(token.encode()).hexdigest()
            limit = float(self.location().settings.get("offline_seconds", OFFLINE_SECONDS))
            self._allowed.get((key, name), lambda: self._ask_for(token, name), stands_seconds=limit)
        residency = self._residency.get(name, lambda: self._artifacts.get(name).residency)
        if residency != "unrestricted":
            raise NotCacheable(
                f"{name} is under the residency class {residency!r}, and no cache may hold it.",
                hint="Read it from a location inside: fairlead model download NAME/VERSION",
                artifact=name,
                residency=residency,
            )
        return name

    def find(self, artifact: Digest, path: str) -> FileEntry:
        """A file of an artifact that was admitted.

        Raises:
            NotFound: if the artifact has no such file.
            ReplicaUnavailable: if no replica can be read.
        """
        manifest = self._reader(artifact).manifest
        try:
            return manifest.file(path)
        except InvalidInput:
            raise NotFound(
                f"{artifact} has no file {path[:200]!r}.",
                hint=f"Its files are listed at /artifacts/{artifact}/manifest.",
                artifact=artifact,
            ) from None

    def manifest(self, artifact: Digest) -> bytes:
        """The canonical manifest, whose sha256 is the artifact's name."""
        return self._reader(artifact).manifest.to_bytes()

    def read(self, artifact: Digest, entry: FileEntry, start: int, end: int) -> Iterator[bytes]:
        """The bytes `start` up to `end` of a file, piece by piece, each verified before it is given.

        Raises:
            CorruptLayout: if the file's digest does not hold; then its last piece was not given.
            ReplicaUnavailable: if a block can be read nowhere.
        """
        reader = self._reader(artifact)
        blocks = reader.layout.files[entry.path]
        if (artifact, entry.path) not in self._sound_files:
            if (start, end) == (0, entry.size):
                yield from self._read_checked(artifact, entry, blocks)
                return
            if not reader.is_vouched_for:
                for _ in self._read_checked(artifact, entry, blocks):
                    pass
        for part in parts_of(blocks, start, end):
            yield self._block(artifact, part.block, entry.path)[part.start : part.end]

    def block(self, artifact: Digest, digest: str) -> bytes:
        """One block of an artifact.

        Raises:
            NotFound: if the artifact has no such block.
            ReplicaUnavailable: if it can be read nowhere.
        """
        found = self._reader(artifact).layout.blocks.get(Digest(parse_digest(digest)))
        if found is None:
            raise NotFound(
                f"{artifact} has no block {digest[:80]}, as the replica behind this cache is cut.",
                hint=f"Read its files: /artifacts/{artifact}/manifest lists them.",
                artifact=artifact,
            )
        return self._block(artifact, found, None)

    def _read_checked(self, artifact: Digest, entry: FileEntry, blocks: Sequence[StoredBlock]) -> Iterator[bytes]:
        hasher = hashlib.sha256()
        for index, block in enumerate(blocks):
            data = self._block(artifact, block, entry.path)
            hasher.update(data)
            if index < len(blocks) - 1:
                yield data
            elif entry.digest == f"sha256:{hasher.hexdigest()}":
                with self._lock:
                    self._sound_files[artifact, entry.path] = None
                    while len(self._sound_files) > _FILES_KEPT:
                        self._sound_files.popitem(last=False)
                yield data
            else:
                self._forget(artifact)
                raise CorruptLayout(f"The blocks of {entry.path!r} are not the file's.", artifact=artifact)

    def _block(self, artifact: Digest, block: StoredBlock, path: str | None) -> bytes:
        def fetch() -> bytes:
            try:
                return self._reader(artifact).read_block(block, path)
            except FairleadError:
                self._forget(artifact)

            def again(reader: ArtifactReader) -> bytes:
                other = reader.layout.blocks.get(block.digest)
                if other is None:
                    raise ReplicaUnavailable(f"No replica of {artifact} holds the block {block.digest}.")
                data = reader.read_block(other, path)
                self._keep(artifact, reader)
                return data

            # Reports what is damaged, and goes on to the next replica.
            return self._artifacts.read(artifact, again)

        return self.blocks.get(block.digest, fetch)

    def _reader(self, artifact: Digest) -> ArtifactReader:
        with self._lock:
            reader = self._readers.get(artifact)
            if reader is not None:
                self._readers.move_to_end(artifact)
                return reader
        reader = self._artifacts.open(artifact)
        self._keep(artifact, reader)
        return reader

    def _keep(self, artifact: Digest, reader: ArtifactReader) -> None:
        with self._lock:
            self._readers[artifact] = reader
            while len(self._readers) > _READERS_KEPT:
                self._readers.popitem(last=False)

    def _forget(self, artifact: Digest) -> None:
        with self._lock:
            self._readers.pop(artifact, None)

    def _ask_for(self, token: str, artifact: Digest) -> bool:
        client = self._connect(token)
        try:
            client.artifacts.get(artifact)
        finally:
            client.close()
        return True


def parts_of(blocks: Sequence[StoredBlock], start: int, end: int) -> Iterator[Part]:
    """Which bytes of which blocks make up the bytes `start` up to `end` of a file."""
    begins = list(accumulate((block.plain_length for block in blocks), initial=0))
    index = max(0, bisect_right(begins, start) - 1)
    while start < end:
        block, begin = blocks[index], begins[index]
        stop = min(end, begins[index + 1])
        if stop > start:
            yield Part(block, start - begin, stop - begin)
            start = stop
        index += 1


def connect_as(settings: ClientSettings, url: str) -> Callable[[str], Fairlead]:
    """Makes clients of the registry at `url` that speak with other tokens."""
    from fairlead.sdk.transport import Transport

    def connect(token: str) -> Fairlead:
        return Fairlead(Transport(url, token, timeout_seconds=settings.timeout_seconds), settings)

    return connect


def etag_of(entry: FileEntry) -> str:
    """A file's strong ETag: its digest never names other bytes."""
    return f'"{digest_hex(entry.digest)}"'
