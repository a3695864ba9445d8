"""The layout: how one location stores one artifact.

Version 1 is gzipped canonical JSON: the packs, the blocks (which pack, where, how stored; or a run of entries of a
pack's own index, see `outline.py`), and for each file of the manifest its blocks in order. Its blocks are closed: a
base that no file uses stands there too, after those that files use, so that whoever keeps the blocks of layouts keeps
what they stand on. A layout is immutable and its key holds a sequence number and the sha256 of its bytes, so a repacked
or repaired artifact gets a newer layout and the old one stays readable until it is collected.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import CorruptLayout, CorruptPack, IntegrityError, JsonValue, ObjectNotFound
from fairlead.core.ids import Digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import KnownBlocks, StoredBlock
from fairlead.sync.store.chains import chain_of
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.manifest import Manifest
from fairlead.sync.store.outline import (
    FORMAT,
    VERSION,
    Outline,
    Run,
    gather_runs,
    render_entry,
    render_places,
)
from fairlead.sync.store.pack import digest_of_entries, read_index_at_end

_LOOKUPS_AT_ONCE = 4
# Where so many layouts would come to less than the packs that were sent, a reader had better not make more requests.
_WORTH_A_REQUEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the bytes of an artifact are at one location: for each path of the manifest its blocks, in order."""

    artifact: Digest
    sequence: int
    files: Mapping[str, tuple[StoredBlock, ...]]
    bases: tuple[StoredBlock, ...] = ()

    @property
    def blocks(self) -> dict[Digest, StoredBlock]:
        """Every block once, by its digest: those that files use in order of first use, then their bases."""
        return {block.digest: block for blocks in (*self.files.values(), self.bases) for block in blocks}

    @property
    def packs(self) -> list[Digest]:
        """Every pack once, in order of first use."""
        return list(dict.fromkeys(block.pack for block in self.blocks.values()))

    @property
    def stored_bytes(self) -> int:
        """The size of the blocks as stored, in bytes, each counted once."""
        return sum(block.stored_length for block in self.blocks.values())

    def to_bytes(self, known_packs: Mapping[Digest, int] | None = None) -> bytes:
        """The stored bytes of the layout.

        `known_packs` (name to size) are packs that were there before; runs of their blocks are not described again.
        """
        packs = {pack: index for index, pack in enumerate(self.packs)}
        places = {digest: index for index, digest in enumerate(self.blocks)}
        entries = gather_runs(list(self.blocks.values()), known_packs or {})
        files: list[JsonValue] = [
            {"path": path, "blocks": render_places([places[block.digest] for block in used])}
            for path, used in self.files.items()
        ]
        record: dict[str, JsonValue] = {
            "format": FORMAT,
            "version": VERSION,
            "artifact": self.artifact,
            "sequence": self.sequence,
            "packs": list[JsonValue](packs),
            "blocks": [render_entry(entry, packs) for entry in entries],
            "files": files,
        }
        return gzip.compress(canonical_json(record), compresslevel=9, mtime=0)

    @staticmethod
    def parse(data: bytes, *, what: str = "The layout") -> Layout:
        """Read the stored bytes of a layout that describes all of its blocks; `what` names it in errors.

        Raises:
            CorruptLayout: if they are not a layout of a known version, or leave blocks to the indexes of packs.
        """
        outline = Outline.parse(data, what=what)
        if outline.runs:
            raise CorruptLayout(f"{what} cannot be read without the packs that it names.")
        return _with_blocks(outline, {})

    def check_fits(self, manifest: Manifest) -> None:
        """Refuse a layout that is not one of this manifest: other files, blocks that do not add up, or broken chains.

        Raises:
            CorruptLayout: naming the first file that does not fit.
        """
        if self.artifact != manifest.digest or list(self.files) != [file.path for file in manifest.files]:
            raise CorruptLayout(
                f"The layout is not one of {manifest.digest}: it names another artifact or other files."
            )
        for file in manifest.files:
            if sum(block.plain_length for block in self.files[file.path]) != file.size:
                raise CorruptLayout(
                    f"The layout's blocks of {file.path!r} do not add up to its size.",
                    artifact=self.artifact,
                    file=file.path,
                )
        blocks = self.blocks
        for block in blocks.values():
            if chain_of(block, blocks) is None:
                raise CorruptLayout(
                    f"The layout does not hold what the block {block.digest} stands on, or too long a chain of it.",
                    artifact=self.artifact,
                    block=block.digest,
                )


def _with_blocks(outline: Outline, found: Mapping[Run, Sequence[StoredBlock]]) -> Layout:
    """The layout of an outline whose runs were looked up."""
    blocks: list[StoredBlock] = []
    for entry in outline.entries:
        blocks += found[entry] if isinstance(entry, Run) else (entry,)
    files = {path: tuple(blocks[place] for place in places) for path, places in outline.files.items()}
    used = {block.digest for blocks_of_file in files.values() for block in blocks_of_file}
    bases = tuple(block for block in blocks if block.digest not in used)
    if not {block.digest for block in bases} <= {block.base for block in blocks}:
        raise CorruptLayout("The layout holds a block that nothing uses or stands on.", artifact=outline.artifact)
    return Layout(artifact=outline.artifact, sequence=outline.sequence, files=files, bases=bases)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayout:
    """A layout and the key that it was read from or written to."""

    key: str
    layout: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLayout:
    """A layout that was stored or found, the bytes sent for it, and whether the location had none of the artifact."""

    stored: StoredLayout
    sent_bytes: int
    is_first: bool


def list_layout_keys(store: ObjectStore, domain: DedupDomain, artifact: Digest) -> list[str]:
    """The keys of all layouts of an artifact at a location, newest first."""
    keys = [item.key for item in store.list(domain.layout_prefix(artifact))]
    return [key for key in reversed(keys) if domain.parse_layout_key(artifact, key)]


def read_outline(store: ObjectStore, domain: DedupDomain, artifact: Digest, key: str) -> Outline:
    """Read what one layout says by itself, and check it against its key.

    Raises:
        ObjectNotFound: if there is none at this key.
        CorruptLayout: if its bytes are not those that the key names, or are no layout of the artifact.
    """
    name = domain.parse_layout_key(artifact, key)
    if name is None:
        raise CorruptLayout(f"{key!r} is no key of a layout of {artifact}.", artifact=artifact, layout_key=key)
    data = store.read(key)
    if sha256_digest(data) != name.digest:
        raise CorruptLayout(
            f"The layout {key!r} has other bytes than its name says.", artifact=artifact, layout_key=key
        )
    outline = Outline.parse(data, what=f"The layout {key!r}")
    if outline.artifact != artifact or outline.sequence != name.sequence:
        raise CorruptLayout(f"The layout {key!r} says it is another one.", artifact=artifact, layout_key=key)
    return outline


def read_layout(
    store: ObjectStore, domain: DedupDomain, artifact: Digest, key: str, *, nearer: ObjectStore | None = None
) -> Layout:
    """Read one layout, with the indexes that it names, and check it against its key.

    A `nearer` location is asked for those indexes first; they are the same wherever the pack is.

    Raises:
        ObjectNotFound: if there is none at this key.
        CorruptLayout: if its bytes are not those that the key names, or are no layout of the artifact.
        CorruptPack: if an index that it names is missing, damaged, or says something else.
    """
    outline = read_outline(store, domain, artifact, key)
    runs_by_pack = outline.runs_by_pack

    def look_up(runs: Sequence[Run]) -> Mapping[Run, Sequence[StoredBlock]]:
        if nearer is not None:
            with contextlib.suppress(IntegrityError):
                return look_up_runs(nearer, domain, runs)
        return look_up_runs(store, domain, runs)

    found: dict[Run, Sequence[StoredBlock]] = {}
    if runs_by_pack:
        with ThreadPoolExecutor(max_workers=_LOOKUPS_AT_ONCE, thread_name_prefix="index-read") as pool:
            for some in pool.map(look_up, runs_by_pack.values()):
                found |= some
    return _with_blocks(outline, found)


def look_up_runs(store: ObjectStore, domain: DedupDomain, runs: Sequence[Run]) -> Mapping[Run, Sequence[StoredBlock]]:
    """The blocks of runs of one pack, out of its index, which is read once.

    Raises:
        CorruptPack, CorruptObject: if the index is missing, damaged, or says something else.
        LocationUnavailable, PermissionDenied: from the store.
    """
    pack, size = runs[0].pack, runs[0].pack_size
    try:
        listed = read_index_at_end(store, domain, pack, size=size, expected=sum(run.blocks for run in runs))
    except ObjectNotFound:
        raise CorruptPack(f"The pack {pack}, whose index a layout names, is not there.", pack=pack) from None
    places = {block.offset: place for place, block in enumerate(listed)}
    found: dict[Run, Sequence[StoredBlock]] = {}
    for run in runs:
        first = places.get(run.offset, len(listed))
        blocks = listed[first : first + run.blocks]
        is_whole = sum(block.stored_length for block in blocks) == run.stored_length
        is_same = run.pack_size == size and len(blocks) == run.blocks and digest_of_entries(blocks) == run.digest
        if not is_whole or not is_same:
            raise CorruptPack(f"The index of the pack {pack} is not what a layout says.", pack=pack)
        found[run] = blocks
    return found


def newest_layout(store: ObjectStore, domain: DedupDomain, manifest: Manifest) -> StoredLayout:
    """The newest layout of an artifact at a location that is whole; a damaged one is passed over.

    Raises:
        ObjectNotFound: if the location holds none.
        CorruptLayout, CorruptPack: if all are damaged.
    """
    return _newest_whole(store, domain, manifest, list_layout_keys(store, domain, manifest.digest))


def _newest_whole(store: ObjectStore, domain: DedupDomain, manifest: Manifest, keys: Sequence[str]) -> StoredLayout:
    artifact = manifest.digest
    failure: IntegrityError | None = None
    for key in keys:
        try:
            layout = read_layout(store, domain, artifact, key)
            layout.check_fits(manifest)
        except IntegrityError as error:
            failure = failure or error
        except ObjectNotFound:
            continue
        else:
            return StoredLayout(key=key, layout=layout)
    if failure is not None:
        raise failure
    raise ObjectNotFound(
        f"The location holds no layout of {artifact}.", key=domain.layout_prefix(artifact), artifact=artifact
    )


def blocks_of_newest_layout(store: ObjectStore, domain: DedupDomain, manifest: Manifest) -> KnownBlocks:
    """What a location is known to hold where nobody keeps an index: the blocks of its newest layout of the artifact."""
    try:
        blocks = newest_layout(store, domain, manifest).layout.blocks
    except (ObjectNotFound, IntegrityError):
        blocks: dict[Digest, StoredBlock] = {}
    return lambda digests: {digest: blocks[digest] for digest in digests if digest in blocks}


def write_layout(
    store: ObjectStore,
    domain: DedupDomain,
    manifest: Manifest,
    files: Mapping[str, tuple[StoredBlock, ...]],
    bases: Iterable[StoredBlock] = (),
    *,
    known_packs: Mapping[Digest, int] | None = None,
    packed_bytes: int = 0,
) -> WrittenLayout:
    """Store a layout that supersedes those of the artifact at this location.

    `bases` are the blocks that others stand on and that no file uses. Where the newest whole one already says the same,
    nothing is sent and it is returned. `known_packs` (name to size) held what they hold before `packed_bytes` were
    sent for this layout: blocks in them are not described again where that would be much of what is sent.
    """
    artifact, stood_on = manifest.digest, tuple(bases)
    keys = list_layout_keys(store, domain, artifact)
    try:
        newest = _newest_whole(store, domain, manifest, keys)
    except (ObjectNotFound, IntegrityError):
        pass
    else:
        if newest.layout.files == files and newest.layout.bases == stood_on:
            return WrittenLayout(stored=newest, sent_bytes=0, is_first=False)
    names = (domain.parse_layout_key(artifact, key) for key in keys)
    sequence = 1 + max((name.sequence for name in names if name), default=0)
    layout = Layout(artifact=artifact, sequence=sequence, files=files, bases=stood_on)
    layout.check_fits(manifest)
    data = layout.to_bytes()
    if known_packs and len(data) * _WORTH_A_REQUEST > packed_bytes:
        data = layout.to_bytes(known_packs)
    key = domain.layout_key(artifact, sequence, sha256_digest(data))
    store.write(key, data)
    return WrittenLayout(stored=StoredLayout(key=key, layout=layout), sent_bytes=len(data), is_first=not keys)
