"""The layout: how one location stores one artifact.

Version 1 is gzipped canonical JSON: the packs, the blocks (which pack, where, how stored), and for each file of the
manifest its blocks in order. Its blocks are closed: a base that no file uses stands there too, after those that files
use, so that whoever keeps the blocks of layouts keeps what they stand on. A layout is immutable and its key holds a
sequence number and the sha256 of its bytes, so a repacked or repaired artifact gets a newer layout and the old one
stays readable until it is collected.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import CorruptLayout, IntegrityError, InvalidDigest, JsonValue, ObjectNotFound
from fairlead.core.ids import Digest, parse_digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import KnownBlocks, StoredBlock
from fairlead.sync.store.chains import chain_of
from fairlead.sync.store.codec import BLOCK_MAX_BYTES, CODEC, STORED_MAX_BYTES
from fairlead.sync.store.delta import DELTA_CODEC
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.gunzip import gunzip
from fairlead.sync.store.manifest import Manifest
from fairlead.sync.store.pack import HEADER, PACK_MAX_BYTES

FORMAT = "fairlead/layout"
VERSION = 1
_JSON_MAX_BYTES = 512 * 2**20


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

    def to_bytes(self) -> bytes:
        """The stored bytes of the layout."""
        packs = {pack: index for index, pack in enumerate(self.packs)}
        places = {digest: index for index, digest in enumerate(self.blocks)}
        blocks: list[JsonValue] = [
            {
                "digest": block.digest,
                "pack": packs[block.pack],
                "offset": block.offset,
                "stored_length": block.stored_length,
                "stored_digest": block.stored_digest,
                "plain_length": block.plain_length,
                "codec": block.codec,
                "base": block.base,
            }
            for block in self.blocks.values()
        ]
        files: list[JsonValue] = [
            {"path": path, "blocks": [places[block.digest] for block in used]} for path, used in self.files.items()
        ]
        record: dict[str, JsonValue] = {
            "format": FORMAT,
            "version": VERSION,
            "artifact": self.artifact,
            "sequence": self.sequence,
            "packs": list[JsonValue](packs),
            "blocks": blocks,
            "files": files,
        }
        return gzip.compress(canonical_json(record), compresslevel=6, mtime=0)

    @staticmethod
    def parse(data: bytes, *, what: str = "The layout") -> Layout:
        """Read a layout's stored bytes; `what` names it in errors.

        Raises:
            CorruptLayout: if they are not a layout of a known version.
        """
        try:
            return _parse(cast("dict[str, object]", json.loads(gunzip(data, max_bytes=_JSON_MAX_BYTES))))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError, InvalidDigest) as error:
            raise CorruptLayout(f"{what} is damaged ({type(error).__name__}).") from None

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


def _parse(record: dict[str, object]) -> Layout:
    if record["format"] != FORMAT or record["version"] != VERSION:
        raise CorruptLayout(
            f"The layout is of another format than {FORMAT} version {VERSION}.",
            hint="Upgrade Fairlead if a newer release wrote it.",
        )
    packs = [parse_digest(_text(pack)) for pack in cast("list[object]", record["packs"])]
    blocks = [_parse_block(item, packs) for item in cast("list[dict[str, object]]", record["blocks"])]
    files: dict[str, tuple[StoredBlock, ...]] = {}
    for item in cast("list[dict[str, object]]", record["files"]):
        used = cast("list[object]", item["blocks"])
        files[_text(item["path"])] = tuple(blocks[_number(index, 0, len(blocks) - 1)] for index in used)
    used = {block.digest for blocks_of_file in files.values() for block in blocks_of_file}
    bases = tuple(block for block in blocks if block.digest not in used)
    if not {block.digest for block in bases} <= {block.base for block in blocks}:
        raise ValueError
    return Layout(
        artifact=parse_digest(_text(record["artifact"])),
        sequence=_number(record["sequence"], 1, 10**10 - 1),
        files=files,
        bases=bases,
    )


def _parse_block(item: dict[str, object], packs: Sequence[Digest]) -> StoredBlock:
    codec, base = item["codec"], item["base"]
    if codec not in (CODEC, DELTA_CODEC) or type(codec) is not int:
        raise CorruptLayout(
            "The layout uses a codec that this release does not know.", hint="Upgrade Fairlead to read it."
        )
    if (codec == DELTA_CODEC) != (base is not None):
        raise ValueError
    return StoredBlock(
        digest=parse_digest(_text(item["digest"])),
        pack=packs[_number(item["pack"], 0, len(packs) - 1)],
        offset=_number(item["offset"], len(HEADER), PACK_MAX_BYTES),
        stored_length=_number(item["stored_length"], 1, STORED_MAX_BYTES),
        stored_digest=parse_digest(_text(item["stored_digest"])),
        plain_length=_number(item["plain_length"], 1, BLOCK_MAX_BYTES),
        codec=codec,
        base=None if base is None else parse_digest(_text(base)),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayout:
    """A layout and the key that it was read from or written to."""

    key: str
    layout: Layout


def list_layout_keys(store: ObjectStore, domain: DedupDomain, artifact: Digest) -> list[str]:
    """The keys of all layouts of an artifact at a location, newest first."""
    keys = [item.key for item in store.list(domain.layout_prefix(artifact))]
    return [key for key in reversed(keys) if domain.parse_layout_key(artifact, key)]


def read_layout(store: ObjectStore, domain: DedupDomain, artifact: Digest, key: str) -> Layout:
    """Read one layout and check it against its key.

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
    layout = Layout.parse(data, what=f"The layout {key!r}")
    if layout.artifact != artifact or layout.sequence != name.sequence:
        raise CorruptLayout(f"The layout {key!r} says it is another one.", artifact=artifact, layout_key=key)
    return layout


def newest_layout(store: ObjectStore, domain: DedupDomain, manifest: Manifest) -> StoredLayout:
    """The newest layout of an artifact at a location that is whole; a damaged one is passed over.

    Raises:
        ObjectNotFound: if the location holds none.
        CorruptLayout: if all are damaged.
    """
    artifact = manifest.digest
    failure: IntegrityError | None = None
    for key in list_layout_keys(store, domain, artifact):
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
) -> tuple[StoredLayout, int]:
    """Store a layout that supersedes those of the artifact at this location; the layout and the bytes sent.

    `bases` are the blocks that others stand on and that no file uses. Where the newest whole one already says the same,
    nothing is sent and it is returned.
    """
    artifact, stood_on = manifest.digest, tuple(bases)
    try:
        newest = newest_layout(store, domain, manifest)
    except (ObjectNotFound, IntegrityError):
        pass
    else:
        if newest.layout.files == files and newest.layout.bases == stood_on:
            return newest, 0
    names = (domain.parse_layout_key(artifact, key) for key in list_layout_keys(store, domain, artifact))
    sequence = 1 + max((name.sequence for name in names if name), default=0)
    layout = Layout(artifact=artifact, sequence=sequence, files=files, bases=stood_on)
    layout.check_fits(manifest)
    data = layout.to_bytes()
    key = domain.layout_key(artifact, sequence, sha256_digest(data))
    store.write(key, data)
    return StoredLayout(key=key, layout=layout), len(data)
