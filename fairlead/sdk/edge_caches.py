"""Reading through an edge cache: blocks from a cache nearby, in the place of a replica far away.

What an artifact's files are made of is read from the replica, as always; each block then comes from the cache by its
digest, is compared with it, and comes from the replica where the cache is out of reach, says no, or is wrong. Data
under a residency rule never comes from a cache.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from fairlead.core.errors import FairleadError, InvalidInput
from fairlead.core.ids import sha256_digest
from fairlead.core.loopback import is_loopback
from fairlead.sdk.records import Artifact, Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx2

    from fairlead.core.ids import Digest
    from fairlead.core.ports import ObjectInfo, ObjectStore
    from fairlead.sdk.transport import Transport
    from fairlead.sync.store.blocks import StoredBlock
    from fairlead.sync.store.reader import ArtifactReader

NO_CACHE = "none"
"""The name that stands for reading from replicas alone."""

_LOCATIONS_KEPT_SECONDS = 60.0
_PASSED_OVER_SECONDS = 60.0
_CONNECT_SECONDS = 2.0
_SILENCE_SECONDS = 20.0
# Each block is a request of its own, and the cache is near.
_READERS = 8
_OK, _NOT_FOUND = 200, 404


class EdgeCaches:
    """Which cache this client reads through, and the reading. Safe to use from several threads.

    `name` is the cache that the client was told to use; without one it is a public one of its own region.
    """

    def __init__(self, transport: Transport, *, region: str | None, name: str | None) -> None:
        self._transport = transport
        self._region = region
        self._name = name
        self._lock = threading.Lock()
        self._kept: tuple[float, tuple[Location, ...]] | None = None
        self._clients: dict[str, CacheClient] = {}

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    def nearer(self, artifact: Artifact, reader: ArtifactReader) -> ArtifactReader:
        """A reader of the same files whose blocks come from a cache, if there is one nearer than every replica."""
        cache = self._choose(artifact)
        if cache is None:
            return reader
        with self._lock:
            client = self._clients.get(cache.id)
            if client is None or client.url != cache.url:
                if client is not None:
                    client.close()
                client = self._clients[cache.id] = CacheClient(cache, self._transport.authorization)
        return _read_through(client, reader) if client.is_up else reader

    def _choose(self, artifact: Artifact) -> Location | None:
        if artifact.residency != "unrestricted" or self._name == NO_CACHE or not (self._name or self._region):
            return None
        if self._name is None:
            is_here = any(each.state == "VERIFIED" and each.region == self._region for each in artifact.replicas)
            if is_here:
                return None
        for each in self._locations():
            if each.kind != "cache" or each.state != "ACTIVE":
                continue
            # A token goes only to a cache that this client's owner named: whoever may add locations could be anybody.
            if each.name == self._name if self._name else each.region == self._region and _is_public(each):
                return each
        return None

    def _locations(self) -> tuple[Location, ...]:
        with self._lock:
            kept, now = self._kept, time.monotonic()
            if kept is None or now - kept[0] > _LOCATIONS_KEPT_SECONDS:
                try:
                    found = tuple(map(Location.from_json, self._transport.items("/api/v1/locations")))
                except FairleadError:
                    # Caches make reads faster and are needed for none.
                    found = () if kept is None else kept[1]
                kept = self._kept = now, found
        return kept[1]


class CacheClient:
    """Blocks of one cache, by their digests. One that fails is passed over for a minute."""

    def __init__(self, cache: Location, authorization: str | None) -> None:
        import httpx2

        self.url = cache.url
        is_sent = not _is_public(cache) and (cache.url.startswith("https://") or is_loopback(cache.url))
        self._http: httpx2.Client = httpx2.Client(
            headers={"authorization": authorization} if authorization and is_sent else {},
            timeout=httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=not is_loopback(cache.url),
        )
        self._down_until = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def is_up(self) -> bool:
        """Whether it is worth asking."""
        return time.monotonic() >= self._down_until

    def read(self, artifact: Digest, block: Digest, length: int) -> bytes | None:
        """The bytes of a block, which are those of its digest, or None where they are not to be had here."""
        import httpx2

        if not self.is_up:
            return None
        data = bytearray()
        try:
            with self._http.stream("GET", f"{self.url}/artifacts/{artifact}/blocks/{block}") as answer:
                if answer.status_code == _NOT_FOUND:
                    # It reads a replica that was cut otherwise, perhaps.
                    return None
                if answer.status_code == _OK:
                    for piece in answer.iter_bytes():
                        data += piece
                        if len(data) > length:
                            break
        except (httpx2.HTTPError, OSError):
            data.clear()
        if len(data) == length and sha256_digest(data) == block:
            return bytes(data)
        self._down_until = time.monotonic() + _PASSED_OVER_SECONDS
        return None


class CachedBlocks:
    """A store that has each block as a pack of its own: from a cache, or else from the replica behind it."""

    def __init__(self, client: CacheClient, reader: ArtifactReader, blocks: Mapping[Digest, StoredBlock]) -> None:
        self._client = client
        self._reader = reader
        self._blocks = blocks

    @property
    def has_create_only(self) -> bool:
        """False: nothing is written here."""
        return False

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a block in its stored form, or of any other object of the replica's location."""
        from fairlead.sync.store.codec import store_as_is

        digest = self._reader.domain.parse_pack_key(key)
        block = None if digest is None else self._blocks.get(digest)
        if block is None:
            return self._reader.store.read(key, start=start, length=length)
        plain = self._client.read(self._reader.digest, block.digest, block.plain_length)
        stored = store_as_is(self._reader.read_block(block) if plain is None else plain)
        return stored[start : None if length is None else start + length]

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Refused."""
        raise InvalidInput(f"{key!r} cannot be written through a cache ({len(data)} bytes, {create_only=}).")

    def size(self, key: str) -> int | None:
        """The size of an object of the replica's location."""
        return self._reader.store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects of the replica's location."""
        return self._reader.store.list(prefix)

    def delete(self, key: str) -> None:
        """Refused."""
        raise InvalidInput(f"{key!r} cannot be deleted through a cache.")


def _read_through(client: CacheClient, reader: ArtifactReader) -> ArtifactReader:
    from fairlead.sync.store.blocks import StoredBlock
    from fairlead.sync.store.codec import AS_IS_BYTES, CODEC
    from fairlead.sync.store.layout import Layout
    from fairlead.sync.store.reader import ArtifactReader

    layout = reader.layout
    as_is = {
        digest: StoredBlock(
            digest=digest,
            pack=digest,
            offset=0,
            stored_length=block.plain_length + AS_IS_BYTES,
            # Of the stored form; nobody compares it where the plain bytes are compared.
            stored_digest=digest,
            plain_length=block.plain_length,
            codec=CODEC,
        )
        for digest, block in layout.blocks.items()
    }
    files = {path: tuple(as_is[block.digest] for block in blocks) for path, blocks in layout.files.items()}
    store: ObjectStore = CachedBlocks(client, reader, layout.blocks)
    return ArtifactReader(
        store,
        reader.domain,
        manifest=reader.manifest,
        layout=Layout(artifact=layout.artifact, sequence=layout.sequence, files=files),
        layout_key=reader.layout_key,
        threads=_READERS,
        is_vouched_for=reader.is_vouched_for,
    )


def _is_public(cache: Location) -> bool:
    return bool(cache.settings.get("is_public", False))
