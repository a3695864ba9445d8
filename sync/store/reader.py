"""An artifact out of a location: the registered bytes, or a typed error, never anything else.

Three digests stand in the way of a wrong byte: that of the stored block, that of the plain block, and that of the
whole file, which the artifact's name covers. The last piece of a file is handed out only when the file's digest holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import RawIOBase
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from fairlead.core.errors import AlreadyExists, CorruptLayout, CorruptPack, FairleadError
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import Progress, StoredBlock
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.fetch import READERS, BlockReader, BlockUse, iter_blocks
from fairlead.sync.store.layout import Layout, newest_layout, read_layout
from fairlead.sync.store.local import translate_os_error
from fairlead.sync.store.manifest import FileEntry, Manifest, build_manifest, read_manifest
from fairlead.sync.store.pack import read_pack_index

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedArtifact:
    """What was read back, byte for byte: counts, and sizes in bytes."""

    digest: Digest
    layout_key: str
    files: int
    blocks: int
    packs: int
    stored_bytes: int
    plain_bytes: int


class ArtifactReader:
    """Reads one artifact at one location through one layout."""

    def __init__(
        self,
        store: ObjectStore,
        domain: DedupDomain,
        *,
        manifest: Manifest,
        layout: Layout,
        layout_key: str,
        threads: int = READERS,
        is_vouched_for: bool = False,
    ) -> None:
        self._store = store
        self._domain = domain
        self._threads = threads
        self.manifest = manifest
        self.layout = layout
        self.layout_key = layout_key
        self.is_vouched_for = is_vouched_for

    @staticmethod
    def open(
        store: ObjectStore,
        domain: DedupDomain,
        digest: Digest,
        layout_key: str | None = None,
        *,
        threads: int = READERS,
        nearer: ObjectStore | None = None,
    ) -> ArtifactReader:
        """Read manifest and layout: the one at `layout_key`, or else the newest that is whole.

        `threads` is how many runs of blocks are fetched and decoded at once. Where the layout names indexes of packs,
        a location that is `nearer` is asked for them first.

        A layout that is named by its key, and so by the sha256 of its bytes, is vouched for by whoever names it: the
        registry names that through which every byte was read back. One that was merely found may put a file together
        wrongly for as long as the file's digest was not compared.

        Raises:
            ObjectNotFound: if the location does not hold the artifact.
            CorruptManifest, CorruptLayout, CorruptPack: if what it holds is damaged.
            LocationUnavailable, PermissionDenied: from the store.
        """
        manifest = read_manifest(store, domain, digest)
        is_vouched_for = layout_key is not None
        if layout_key is None:
            newest = newest_layout(store, domain, manifest)
            layout, layout_key = newest.layout, newest.key
        else:
            layout = read_layout(store, domain, digest, layout_key, nearer=nearer)
            layout.check_fits(manifest)
        return ArtifactReader(
            store,
            domain,
            manifest=manifest,
            layout=layout,
            layout_key=layout_key,
            threads=threads,
            is_vouched_for=is_vouched_for,
        )

    @property
    def store(self) -> ObjectStore:
        """The location that is read."""
        return self._store

    @property
    def domain(self) -> DedupDomain:
        """The dedup domain that is read."""
        return self._domain

    @property
    def digest(self) -> Digest:
        """The artifact's name."""
        return self.layout.artifact

    def read_file(self, path: str) -> bytes:
        """All bytes of one file.

        Raises:
            InvalidInput: if the artifact has no such file.
            CorruptBlock, CorruptPack, CorruptLayout, ObjectNotFound: naming pack, block and file.
        """
        return b"".join(self.iter_file(path))

    def iter_file(self, path: str) -> Iterator[bytes]:
        """The bytes of one file in pieces of at most 8 MiB. Each piece is verified, and the last one vouches for all.

        Raises:
            InvalidInput: if the artifact has no such file.
            CorruptBlock, CorruptPack, CorruptLayout, ObjectNotFound: naming pack, block and file.
        """
        for _, piece, _ in self._iter_pieces([self.manifest.file(path)]):
            yield piece

    def read_block(self, block: StoredBlock, path: str | None = None) -> bytes:
        """The verified plain bytes of one block of the layout; several threads may ask at once.

        Raises:
            CorruptBlock, CorruptPack, ObjectNotFound: naming pack, block and file.
            LocationUnavailable, PermissionDenied: from the store.
        """
        return BlockReader(self._store, self._domain, self.layout.blocks).read_one(block, path)

    def open_file(self, path: str) -> BinaryIO:
        """One file as a seekable stream that reads, and verifies, only the blocks it is asked for.

        Reading of it raises what `read_file` does. Where nobody vouches for the layout, the whole file is read before,
        to compare its digest.

        Raises:
            InvalidInput: if the artifact has no such file.
            CorruptBlock, CorruptPack, CorruptLayout, ObjectNotFound: where the whole file is read.
        """
        entry = self.manifest.file(path)
        if not self.is_vouched_for:
            for _ in self.iter_file(path):
                pass
        blocks = BlockReader(self._store, self._domain, self.layout.blocks)
        return cast("BinaryIO", BlockStream(blocks, self.layout.files[path], path=path, size=entry.size))

    def download(self, destination: Path, progress: Progress | None = None) -> None:
        """Write all files below `destination`, a folder that appears whole or not at all.

        A folder that already holds exactly this artifact is left alone; an empty one is filled.

        Raises:
            AlreadyExists: if something else is there.
            CorruptBlock, CorruptPack, CorruptLayout, ObjectNotFound: naming pack, block and file.
            StorageFull, PermissionDenied, LocationUnavailable: from the store or the local disk.
        """
        if _is_taken(destination, self.digest):
            return
        parent = destination.absolute().parent
        temporary = parent / f".{destination.name[:80]}.{secrets.token_hex(6)}.partial"
        try:
            try:
                parent.mkdir(parents=True, exist_ok=True)
                temporary.mkdir()
                self._write_files(temporary, progress)
                temporary.replace(destination)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            # Somebody may have put the same artifact there meanwhile.
            if not _is_taken(destination, self.digest):
                raise translate_os_error(error, f"the folder {destination.name!r}") from error

    def verify(self, progress: Progress | None = None) -> VerifiedArtifact:
        """Read every stored byte back: packs' frames and indexes, stored blocks, plain blocks and whole files.

        Raises:
            CorruptBlock, CorruptPack, CorruptLayout, ObjectNotFound: naming pack, block and file.
            LocationUnavailable, PermissionDenied: from the store.
        """
        used: dict[Digest, set[StoredBlock]] = {}
        for block in self.layout.blocks.values():
            used.setdefault(block.pack, set()).add(block)

        def check_index(pack: Digest) -> None:
            for block in used[pack].difference(read_pack_index(self._store, self._domain, pack)):
                raise CorruptPack(
                    f"The index of the pack {pack} does not list the block {block.digest} where the layout has it.",
                    pack=pack,
                    block=block.digest,
                )

        with ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix="index-check") as pool:
            for _ in pool.map(check_index, used):
                pass
        done, total = 0, self.manifest.plain_bytes
        with contextlib.closing(self._iter_pieces(self.manifest.files, is_stored_checked=True)) as pieces:
            for _, piece, _ in pieces:
                done += len(piece)
                if progress is not None:
                    progress(done, total)
        self.is_vouched_for = True
        return VerifiedArtifact(
            digest=self.digest,
            layout_key=self.layout_key,
            files=len(self.manifest.files),
            blocks=len(self.layout.blocks),
            packs=len(used),
            stored_bytes=self.layout.stored_bytes,
            plain_bytes=total,
        )

    def check_file(self, entry: FileEntry, found: str) -> None:
        """Compare the sha256 (hex) of what was put together from a file's blocks with the file's digest.

        Raises:
            CorruptLayout: if they differ.
        """
        if entry.digest != f"sha256:{found}":
            raise CorruptLayout(
                f"The layout puts {entry.path!r} together from blocks that are not the file's.",
                artifact=self.digest,
                layout_key=self.layout_key,
                file=entry.path,
            )

    def _iter_pieces(
        self, files: Iterable[FileEntry], *, is_stored_checked: bool = False, is_plain_checked: bool = True
    ) -> Generator[tuple[FileEntry, bytes, bool]]:
        """Pieces of the files in order, with whether each is its file's last; an empty file has one empty piece."""
        entries = list(files)
        uses = (BlockUse(block, entry.path) for entry in entries for block in self.layout.files[entry.path])
        found = iter_blocks(
            self._store,
            self._domain,
            uses,
            is_decoded=True,
            blocks=self.layout.blocks,
            is_stored_checked=is_stored_checked,
            is_plain_checked=is_plain_checked,
            threads=self._threads,
        )
        with contextlib.closing(found) as plain:
            for entry in entries:
                hasher = hashlib.sha256()
                count = len(self.layout.files[entry.path])
                for index in range(count):
                    piece = next(plain)
                    hasher.update(piece)
                    if index == count - 1:
                        self.check_file(entry, hasher.hexdigest())
                    yield entry, piece, index == count - 1
                if not count:
                    self.check_file(entry, hasher.hexdigest())
                    yield entry, b"", True

    def _write_files(self, folder: Path, progress: Progress | None) -> None:
        """Write all files. No piece is seen before its file is whole, so the file's digest alone vouches for it."""
        done, total = 0, self.manifest.plain_bytes
        with contextlib.closing(self._iter_pieces(self.manifest.files, is_plain_checked=False)) as pieces:
            try:
                for entry, piece, is_last in pieces:
                    path = folder / entry.path
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("xb") as file:
                        done += file.write(piece)
                        while not is_last:
                            _, piece, is_last = next(pieces)  # noqa: PLW2901  (the file's further pieces)
                            done += file.write(piece)
                        file.flush()
                        os.fsync(file.fileno())
                    if progress is not None:
                        progress(done, total)
            except CorruptLayout as error:
                self._find_damage(str(error.attributes.get("file")))
                raise

    def _find_damage(self, path: str) -> None:
        """Read a file whose digest does not hold once more, block by block, to name the block that is wrong."""
        for _ in self.iter_file(path):
            pass


class BlockStream(RawIOBase):
    """A file made of blocks, read where it is asked for; the block last read is kept."""

    def __init__(self, reader: BlockReader, blocks: Sequence[StoredBlock], *, path: str, size: int) -> None:
        super().__init__()
        self._reader = reader
        self._blocks = blocks
        self._starts = list(accumulate((block.plain_length for block in blocks), initial=0))
        self._path = path
        self._size = size
        self._position = 0
        self._kept: tuple[int, bytes] | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The offset of the next byte that is read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the start, from here, or from the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, or fewer where the file ends; all that remain with -1."""
        end = self._size if size is None or size < 0 else min(self._size, self._position + size)
        pieces: list[bytes] = []
        while self._position < end:
            index = bisect_right(self._starts, self._position) - 1
            start = self._starts[index]
            piece = self._block(index)[self._position - start : end - start]
            pieces.append(piece)
            self._position += len(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Buffer) -> int:
        """Fill a buffer from here; how many bytes it took."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _block(self, index: int) -> bytes:
        if self._kept is None or self._kept[0] != index:
            self._kept = index, self._reader.read_one(self._blocks[index], self._path)
        return self._kept[1]


def _is_taken(destination: Path, digest: Digest) -> bool:
    """Whether `destination` already holds the artifact; False where it is free.

    Raises:
        AlreadyExists: if it holds something else.
    """
    if not os.path.lexists(destination):
        return False
    if destination.is_dir():
        with os.scandir(destination) as items:
            if not any(items):
                return False
        with contextlib.suppress(FairleadError):
            if build_manifest(destination).digest == digest:
                return True
    raise AlreadyExists(
        f"{str(destination)!r} exists and does not hold this artifact.",
        hint="Choose another folder, or move this one away.",
    )
