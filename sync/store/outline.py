"""What the bytes of a layout say by themselves: blocks, and runs of blocks that the index of a pack describes.

A block that a location holds already is described in the index of its pack, digests and all, and digests do not
compress. So a layout may name a run of entries of such an index in place of the blocks: a version in which little
changed then costs little more than what changed. What an outline says of packs and places needs no index; its blocks
do, and the run pins the entries by their digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from fairlead.core.errors import CorruptLayout, InvalidDigest, JsonValue
from fairlead.core.ids import Digest, parse_digest
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.codec import BLOCK_MAX_BYTES, CODEC, STORED_MAX_BYTES
from fairlead.sync.store.delta import DELTA_CODEC
from fairlead.sync.store.gunzip import gunzip
from fairlead.sync.store.pack import ENTRY_LEAST_BYTES, HEADER, PACK_MAX_BYTES, digest_of_entries

FORMAT = "fairlead/layout"
VERSION = 1
_JSON_MAX_BYTES = 512 * 2**20
# A range is a few bytes for any number of blocks: what a damaged or hostile location answers must not fill the memory.
_PLACES_MAX = 2**24
# Whoever reads a layout makes a request for each pack whose index it names: few, and only for many blocks.
_RUN_LEAST_BLOCKS = 16
_PACKS_WITH_RUNS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Blocks that follow one another in a pack, as its index describes them.

    `offset` is that of the first one, `stored_length` the bytes of all, `digest` the sha256 of their entries, and
    `pack_size` the pack's bytes, at whose end its index is.
    """

    pack: Digest
    pack_size: int
    offset: int
    blocks: int
    stored_length: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A layout whose runs are not looked up yet. `files` has for each path the places of its blocks, in order."""

    artifact: Digest
    sequence: int
    entries: tuple[StoredBlock | Run, ...]
    files: Mapping[str, tuple[int, ...]]

    @property
    def packs(self) -> list[Digest]:
        """Every pack once."""
        return list(dict.fromkeys(entry.pack for entry in self.entries))

    @property
    def runs(self) -> list[Run]:
        """What has to be looked up in packs."""
        return [entry for entry in self.entries if isinstance(entry, Run)]

    @property
    def runs_by_pack(self) -> dict[Digest, list[Run]]:
        """What has to be looked up, by the pack whose index has it."""
        found: dict[Digest, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.pack, []).append(run)
        return found

    @staticmethod
    def parse(data: bytes, *, what: str = "The layout") -> Outline:
        """Read a layout's stored bytes; `what` names it in errors.

        Raises:
            CorruptLayout: if they are not a layout of a known version.
        """
        try:
            return _parse(cast("dict[str, object]", json.loads(gunzip(data, max_bytes=_JSON_MAX_BYTES))))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError, InvalidDigest) as error:
            raise CorruptLayout(f"{what} is damaged ({type(error).__name__}).") from None


def gather_runs(blocks: Sequence[StoredBlock], pack_sizes: Mapping[Digest, int]) -> list[StoredBlock | Run]:
    """The blocks in their order, those that follow one another in one of these packs as runs where that pays."""
    groups: list[list[StoredBlock]] = []
    for block in blocks:
        last = groups[-1][-1] if groups else None
        if last is not None and (last.pack, last.end) == (block.pack, block.offset) and block.pack in pack_sizes:
            groups[-1].append(block)
        else:
            groups.append([block])
    groups_worth = sorted((group for group in groups if len(group) >= _RUN_LEAST_BLOCKS), key=len, reverse=True)
    packs = set(list(dict.fromkeys(group[0].pack for group in groups_worth))[:_PACKS_WITH_RUNS])
    entries: list[StoredBlock | Run] = []
    for group in groups:
        if len(group) < _RUN_LEAST_BLOCKS or group[0].pack not in packs:
            entries += group
            continue
        entries.append(
            Run(
                pack=group[0].pack,
                pack_size=pack_sizes[group[0].pack],
                offset=group[0].offset,
                blocks=len(group),
                stored_length=group[-1].end - group[0].offset,
                digest=digest_of_entries(group),
            )
        )
    return entries


def render_entry(entry: StoredBlock | Run, packs: Mapping[Digest, int]) -> JsonValue:
    """A block or a run as it stands in a layout."""
    if isinstance(entry, Run):
        return {
            "pack": packs[entry.pack],
            "pack_size": entry.pack_size,
            "offset": entry.offset,
            "entries": entry.blocks,
            "stored_length": entry.stored_length,
            "entries_digest": entry.digest,
        }
    return {
        "digest": entry.digest,
        "pack": packs[entry.pack],
        "offset": entry.offset,
        "stored_length": entry.stored_length,
        "stored_digest": entry.stored_digest,
        "plain_length": entry.plain_length,
        "codec": entry.codec,
        "base": entry.base,
    }


def render_places(places: Sequence[int]) -> list[JsonValue]:
    """The places of a file's blocks: those that follow one another as `[first, count]`, others as they are."""
    ranges: list[list[int]] = []
    for place in places:
        if ranges and sum(ranges[-1]) == place:
            ranges[-1][1] += 1
        else:
            ranges.append([place, 1])
    return [first if count == 1 else [first, count] for first, count in ranges]


def _parse(record: dict[str, object]) -> Outline:
    if record["format"] != FORMAT or record["version"] != VERSION:
        raise CorruptLayout(
            f"The layout is of another format than {FORMAT} version {VERSION}.",
            hint="Upgrade Fairlead if a newer release wrote it.",
        )
    packs = [parse_digest(_text(pack)) for pack in cast("list[object]", record["packs"])]
    items = cast("list[dict[str, object]]", record["blocks"])
    entries = tuple(_parse_run(item, packs) if "entries" in item else _parse_block(item, packs) for item in items)
    n_blocks = sum(entry.blocks if isinstance(entry, Run) else 1 for entry in entries)
    files = cast("list[dict[str, object]]", record["files"])
    places = [cast("list[object]", item["blocks"]) for item in files]
    if max(n_blocks, sum(map(_count_places, chain.from_iterable(places)))) > _PLACES_MAX:
        raise ValueError
    return Outline(
        artifact=parse_digest(_text(record["artifact"])),
        sequence=_number(record["sequence"], 1, 10**10 - 1),
        entries=entries,
        files={
            _text(item["path"]): tuple(_parse_places(used, n_blocks)) for item, used in zip(files, places, strict=True)
        },
    )


def _count_places(place: object) -> int:
    return _number(cast("list[object]", place)[1], 1, _PLACES_MAX) if isinstance(place, list) else 1


def _parse_places(places: Sequence[object], n_blocks: int) -> Iterator[int]:
    for place in places:
        if isinstance(place, list):
            first, count = cast("list[object]", place)
            start = _number(first, 0, n_blocks - 1)
            yield from range(start, start + _number(count, 1, n_blocks - start))
        else:
            yield _number(place, 0, n_blocks - 1)


def _parse_run(item: dict[str, object], packs: Sequence[Digest]) -> Run:
    pack_size = _number(item["pack_size"], len(HEADER), PACK_MAX_BYTES)
    offset = _number(item["offset"], len(HEADER), pack_size)
    return Run(
        pack=packs[_number(item["pack"], 0, len(packs) - 1)],
        pack_size=pack_size,
        offset=offset,
        blocks=_number(item["entries"], 1, pack_size // ENTRY_LEAST_BYTES),
        stored_length=_number(item["stored_length"], 1, pack_size - offset),
        digest=parse_digest(_text(item["entries_digest"])),
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
