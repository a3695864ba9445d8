"""New versions as differences to what a location holds: smaller, read back exactly, and never without their bases."""

# safetensors is typed in part.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fairlead.core.errors import CorruptBlock, CorruptLayout, IntegrityError, LocationUnavailable, ObjectNotFound
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.bases import Base
from fairlead.sync.store.blocks import StoredBlock, no_blocks
from fairlead.sync.store.chains import CHAIN_MAX, depth_of
from fairlead.sync.store.codec import CODEC
from fairlead.sync.store.copy import copy_artifact, plan_copy
from fairlead.sync.store.delta import DELTA_CODEC
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.known import among
from fairlead.sync.store.layout import Layout
from fairlead.sync.store.pack import DELTA_HEADER, read_pack_index, verify_pack
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import WrittenArtifact, write_artifact
from fairlead.testing.objects import Action, Fault, FaultyStore, MemoryStore

DOMAIN = DedupDomain("acme", "global")
Weights = dict[str, npt.NDArray[np.float32]]


def _weights(seed: int = 1, side: int = 128) -> Weights:
    rng = np.random.default_rng(seed)
    return {f"layer.{index}": rng.normal(0, 0.02, (side, side)).astype(np.float32) for index in range(3)}


def _tuned(weights: Weights, seed: int) -> Weights:
    """Every weight moved by a little, as fine-tuning does."""
    rng = np.random.default_rng(seed)
    return {
        name: (values * (1 + rng.normal(0, 1e-4, values.shape))).astype(np.float32) for name, values in weights.items()
    }


def _write(
    store: ObjectStore, weights: Weights, *bases: WrittenArtifact, name: str = "m.safetensors"
) -> WrittenArtifact:
    readers = [ArtifactReader.open(store, DOMAIN, base.digest, base.layout_key) for base in bases]
    return write_artifact(
        store,
        DOMAIN,
        {name: save(weights)},
        known_blocks=no_blocks,
        bases=[Base(reader=reader) for reader in readers],
    )


def _check(store: ObjectStore, written: WrittenArtifact, weights: Weights, name: str = "m.safetensors") -> None:
    reader = ArtifactReader.open(store, DOMAIN, written.digest)
    reader.verify()
    assert reader.read_file(name) == save(weights)


def _deltas(layout: Layout) -> list[StoredBlock]:
    return [block for block in layout.blocks.values() if block.base is not None]


def test_a_fine_tuned_version_is_stored_as_its_difference(store: MemoryStore) -> None:
    first_weights = _weights()
    first = _write(store, first_weights)
    second_weights = _tuned(first_weights, 2)
    second = _write(store, second_weights, first)
    assert second.sent_bytes < 0.75 * first.sent_bytes
    assert (second.delta_blocks, second.reused_blocks) == (3, 1)
    assert {block.base for block in _deltas(second.layout)} == {block.digest for block in second.layout.bases}
    _check(store, second, second_weights)
    alone = MemoryStore()
    assert _write(alone, second_weights).digest == second.digest


def test_an_index_made_from_packs_knows_what_deltas_stand_on(store: MemoryStore) -> None:
    weights = _weights()
    first = _write(store, weights)
    second = _write(store, _tuned(weights, 2), first)
    found: dict[str, StoredBlock] = {}
    for pack in second.layout.packs:
        listed = read_pack_index(store, DOMAIN, pack)
        assert listed == verify_pack(store, DOMAIN, pack)
        found |= {block.digest: block for block in listed}
        has_deltas = any(block.codec == DELTA_CODEC for block in listed)
        assert store.objects[DOMAIN.pack_key(pack)].startswith(DELTA_HEADER) == has_deltas
    assert found == second.layout.blocks | {block.digest: block for block in first.layout.blocks.values()}


def test_chains_are_never_longer_than_promised(store: MemoryStore) -> None:
    weights = _weights()
    versions = [_write(store, weights)]
    for seed in range(CHAIN_MAX + 3):
        weights = _tuned(weights, seed + 10)
        versions.append(_write(store, weights, versions[-1]))
    depths = [max(depth_of(block, each.layout.blocks) for block in each.layout.blocks.values()) for each in versions]
    assert depths == [0, 1, 2, *[CHAIN_MAX] * (len(versions) - 3)]
    assert all(version.delta_blocks == 3 for version in versions[1:])
    _check(store, versions[-1], weights)


def test_a_version_that_is_no_smaller_as_a_difference_stands_alone(store: MemoryStore) -> None:
    first = _write(store, _weights(1))
    second = _write(store, _weights(2), first)
    assert (second.delta_blocks, second.layout.bases) == (0, ())


def test_a_base_may_have_another_file_name(store: MemoryStore) -> None:
    weights = _weights()
    first = _write(store, weights, name="old.safetensors")
    tuned = _tuned(weights, 2)
    second = _write(store, tuned, first, name="new.safetensors")
    assert second.delta_blocks == 3
    _check(store, second, tuned, "new.safetensors")


def test_a_local_copy_of_the_base_spares_reading_the_location_and_is_not_believed(
    store: MemoryStore, tmp_path: Path
) -> None:
    weights, path = _weights(), tmp_path / "m.safetensors"
    first = _write(store, weights)
    tuned = _tuned(weights, 2)
    for body, deltas in ((save(weights), 3), (save(_tuned(weights, 5)), 0)):
        path.write_bytes(body)
        counter = FaultyStore(store)
        reader = ArtifactReader.open(store, DOMAIN, first.digest)
        local = Base(reader=reader, files={"m.safetensors": path}, reads_location=False)
        source = {"m.safetensors": save(tuned), str(deltas): b"another name"}
        second = write_artifact(counter, DOMAIN, source, known_blocks=no_blocks, bases=[local])
        assert second.delta_blocks == deltas
        assert counter.calls["read"] == 0
        ArtifactReader.open(store, DOMAIN, second.digest).verify()


def test_a_damaged_base_is_told_by_whoever_reads_what_stands_on_it(store: MemoryStore) -> None:
    weights = _weights()
    first = _write(store, weights)
    second = _write(store, _tuned(weights, 2), first)
    base = second.layout.bases[0]
    key = DOMAIN.pack_key(base.pack)
    whole = store.objects[key]
    store.objects[key] = whole[: base.offset + 50] + b"?" + whole[base.offset + 51 :]
    reader = ArtifactReader.open(store, DOMAIN, second.digest)
    with pytest.raises(CorruptBlock) as caught:
        reader.read_file("m.safetensors")
    assert caught.value.attributes["block"] == base.digest
    del store.objects[key]
    with pytest.raises(ObjectNotFound):
        reader.verify()


def test_a_writer_goes_without_a_base_that_is_not_there(store: MemoryStore) -> None:
    weights = _weights()
    first = _write(store, weights)
    reader = ArtifactReader.open(store, DOMAIN, first.digest)
    for pack in first.layout.packs:
        del store.objects[DOMAIN.pack_key(pack)]
    tuned = _tuned(weights, 2)
    second = write_artifact(store, DOMAIN, {"m.safetensors": save(tuned)}, bases=[Base(reader=reader)])
    assert (second.delta_blocks, second.reused_blocks) == (0, 0)
    _check(store, second, tuned)


def test_nothing_stands_on_another_domain(store: MemoryStore) -> None:
    weights = _weights()
    restricted = DedupDomain("acme", "eu")
    first = write_artifact(store, restricted, {"m.safetensors": save(weights)})
    reader = ArtifactReader.open(store, restricted, first.digest)
    tuned = _tuned(weights, 2)
    second = write_artifact(store, DOMAIN, {"m.safetensors": save(tuned)}, bases=[Base(reader=reader)])
    assert (second.delta_blocks, second.reused_blocks) == (0, 0)
    _check(store, second, tuned)


def test_an_index_that_lost_a_base_is_asked_for_it_and_what_stands_on_it_is_sent_again(store: MemoryStore) -> None:
    weights = _weights()
    first = _write(store, weights)
    tuned = _tuned(weights, 2)
    second = _write(store, tuned, first)
    source = {"m.safetensors": save(tuned), "more": b"more"}
    known = dict(second.layout.blocks)
    again = write_artifact(store, DOMAIN, source, known_blocks=among(known))
    assert (again.new_blocks, again.layout.bases) == (1, second.layout.bases)
    del known[second.layout.bases[0].digest]
    anew = write_artifact(store, DOMAIN, {**source, "still": b"more"}, known_blocks=among(known))
    assert anew.new_blocks == 2
    ArtifactReader.open(store, DOMAIN, anew.digest).verify()


def test_a_layout_whose_chain_is_broken_is_refused(store: MemoryStore) -> None:
    weights = _weights()
    second = _write(store, _tuned(weights, 2), _write(store, weights))
    layout = second.layout
    torn = Layout(artifact=layout.artifact, sequence=2, files=layout.files, bases=layout.bases[1:])
    with pytest.raises(CorruptLayout):
        torn.check_fits(second.manifest)
    assert Layout.parse(layout.to_bytes()) == layout
    spare = StoredBlock(
        digest=layout.artifact, pack=layout.packs[0], offset=8, stored_length=9, stored_digest=layout.artifact,
        plain_length=1, codec=CODEC,
    )  # fmt: skip
    with pytest.raises(CorruptLayout):
        Layout.parse(Layout(artifact=layout.artifact, sequence=2, files=layout.files, bases=(spare,)).to_bytes())


def _three_versions(store: ObjectStore) -> tuple[list[WrittenArtifact], Weights]:
    weights = _weights()
    versions = [_write(store, weights)]
    for seed in (2, 3):
        weights = _tuned(weights, seed)
        versions.append(_write(store, weights, versions[-1]))
    return versions, weights


def test_a_destination_with_the_base_gets_the_difference(store: MemoryStore) -> None:
    versions, weights = _three_versions(store)
    other = MemoryStore()
    known: dict[str, StoredBlock] = {}
    for version in versions:
        plan = plan_copy(store, other, DOMAIN, version.digest, among(known))  # pyright: ignore[reportArgumentType]
        report = copy_artifact(store, other, DOMAIN, version.digest, plan=plan)
        assert report.bytes_planned == plan.bytes
        assert abs(report.bytes_moved - plan.bytes) < 300
        known |= report.layout.blocks
    assert sum(map(len, other.objects.values())) < 1.01 * sum(map(len, store.objects.values()))
    _check(other, versions[-1], weights)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_destination_without_the_base_gets_whatever_is_cheaper(store: MemoryStore, side: str) -> None:
    versions, weights = _three_versions(store)
    other = MemoryStore()
    report = copy_artifact(store, other, DOMAIN, versions[-1].digest, side=side)  # pyright: ignore[reportArgumentType]
    full = versions[0].sent_bytes
    if side == "source":
        # What is written crosses the wire: each block alone is less than its chain.
        assert (_deltas(report.layout), report.layout.bases) == ([], ())
        assert 0.95 * full < report.bytes_moved < 1.1 * full
    else:
        # What is read crosses the wire, and decoding needs all of the chain.
        assert len(report.layout.bases) == 6
        assert report.bytes_moved < sum(version.sent_bytes for version in versions)
    assert abs(report.bytes_moved - report.bytes_planned) < 0.02 * report.bytes_moved + 300
    _check(other, versions[-1], weights)


def test_a_base_in_the_middle_of_a_chain_is_sent_only_with_what_is_missing(store: MemoryStore) -> None:
    versions, weights = _three_versions(store)
    other = MemoryStore()
    first = copy_artifact(store, other, DOMAIN, versions[0].digest)
    report = copy_artifact(store, other, DOMAIN, versions[2].digest, known_blocks=among(first.layout.blocks))
    assert report.blocks_moved == 6
    _check(other, versions[2], weights)


def test_no_copy_makes_a_chain_longer_than_promised(store: MemoryStore) -> None:
    other, weights = MemoryStore(), _weights()
    there = [_write(other, weights)]
    for seed in range(CHAIN_MAX):
        weights = _tuned(weights, seed + 10)
        there.append(_write(other, weights, there[-1]))
    tuned = _tuned(weights, 99)
    # Here the base stands alone; there it is the top of a chain that is as long as may be.
    new = _write(store, tuned, _write(store, weights))
    known = among({block.digest: block for version in there for block in version.layout.blocks.values()})
    report = copy_artifact(store, other, DOMAIN, new.digest, known_blocks=known)
    blocks = report.layout.blocks
    assert max(depth_of(block, blocks) for block in blocks.values()) <= CHAIN_MAX
    _check(other, new, tuned)


def test_a_damaged_base_at_the_destination_is_sent_again_by_a_repair(store: MemoryStore) -> None:
    versions, weights = _three_versions(store)
    other = MemoryStore()
    report = copy_artifact(store, other, DOMAIN, versions[-1].digest)
    for pack in report.layout.packs:
        key = DOMAIN.pack_key(pack)
        whole = other.objects[key]
        other.objects[key] = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
        with pytest.raises(IntegrityError):
            ArtifactReader.open(other, DOMAIN, versions[-1].digest).verify()
        copy_artifact(store, other, DOMAIN, versions[-1].digest, repair=True)
        _check(other, versions[-1], weights)


@pytest.mark.parametrize("action", [Action.FAIL, Action.LOSE_REPLY, Action.DIE])
def test_a_copy_that_is_run_again_moves_only_the_rest(store: MemoryStore, action: Action) -> None:
    rng = np.random.default_rng(3)
    source = {f"{index}.bin": rng.bytes(300_000) for index in range(5)}
    digest = write_artifact(store, DOMAIN, source, pack_bytes=250_000).digest
    counter = FaultyStore(MemoryStore())
    planned = copy_artifact(store, counter, DOMAIN, digest, pack_bytes=250_000).bytes_planned
    for call in range(1, counter.calls["write"] + 1):
        other = MemoryStore()
        faulty = FaultyStore(other, [Fault(operation="write", call=call, action=action)])
        with pytest.raises(LocationUnavailable):
            copy_artifact(store, faulty, DOMAIN, digest, pack_bytes=250_000)
        there = sum(map(len, other.objects.values()))
        report = copy_artifact(store, other, DOMAIN, digest, pack_bytes=250_000)
        assert report.bytes_moved == planned - there
        assert report.bytes_moved + report.bytes_found <= report.bytes_planned
        ArtifactReader.open(other, DOMAIN, digest).verify()


def test_a_writer_that_is_run_again_sends_only_the_rest(store: MemoryStore) -> None:
    rng = np.random.default_rng(3)
    source = {f"{index}.bin": rng.bytes(300_000) for index in range(4)}
    whole = write_artifact(store, DOMAIN, source, pack_bytes=250_000).sent_bytes
    for call in range(1, 7):
        other = MemoryStore()
        faulty = FaultyStore(other, [Fault(operation="write", call=call, action=Action.DIE)])
        with pytest.raises(LocationUnavailable):
            write_artifact(faulty, DOMAIN, source, pack_bytes=250_000)
        there = sum(map(len, other.objects.values()))
        assert write_artifact(other, DOMAIN, source, pack_bytes=250_000).sent_bytes == whole - there


def test_every_pack_that_arrives_is_told_of(store: MemoryStore) -> None:
    versions, _ = _three_versions(store)
    arrived: dict[str, StoredBlock] = {}
    other = MemoryStore()
    report = copy_artifact(
        store, other, DOMAIN, versions[-1].digest, stored=lambda some: arrived.update({b.digest: b for b in some})
    )
    assert arrived == report.layout.blocks


_WIDTHS = {
    "F16": 2, "BF16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1,
    "I8": 1, "U8": 1, "BOOL": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8,
}  # fmt: skip


def _tensor_file(kind: str, shape: tuple[int, ...], raw: bytes) -> bytes:
    entry = {"dtype": kind, "shape": list(shape), "data_offsets": [0, len(raw)]}
    header = json.dumps({"t": entry}).encode()
    return len(header).to_bytes(8, "little") + header + raw


def _comes_back(before: bytes, after: bytes) -> WrittenArtifact:
    store, other = MemoryStore(), MemoryStore()
    first = write_artifact(store, DOMAIN, {"m": before}, known_blocks=no_blocks)
    base = Base(reader=ArtifactReader.open(store, DOMAIN, first.digest))
    second = write_artifact(store, DOMAIN, {"m": after}, known_blocks=no_blocks, bases=[base])
    copy_artifact(store, other, DOMAIN, second.digest)
    for location in (store, other):
        reader = ArtifactReader.open(location, DOMAIN, second.digest)
        reader.verify()
        assert reader.read_file("m") == after
    return second


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(sorted(_WIDTHS)),
    shape=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    change=st.sampled_from(["bits", "few", "none", "shape"]),
)
def test_any_tensor_of_any_kind_comes_back_with_and_without_a_base(
    seed: int, kind: str, shape: tuple[int, ...], change: str
) -> None:
    rng = np.random.default_rng(seed)
    count = math.prod(shape)
    # Any bits, so NaNs with payloads, infinities and subnormals too.
    raw = rng.integers(0, 256, count * _WIDTHS[kind], dtype=np.uint8)
    changed = raw.copy()
    if change == "bits":
        changed = rng.integers(0, 256, raw.size, dtype=np.uint8)
    elif change == "few" and raw.size:
        changed[rng.integers(0, raw.size, 3)] ^= 1
    _comes_back(
        _tensor_file(kind, shape, raw.tobytes()),
        _tensor_file(kind, (count,) if change == "shape" else shape, changed.tobytes()),
    )


def test_a_tensor_of_several_blocks_stands_on_its_cuts() -> None:
    values = np.random.default_rng(1).normal(0, 0.02, 5_000_000).astype(np.float32)
    words = (values.view(np.uint32) >> 16).astype(np.uint16)
    tuned = words + np.random.default_rng(2).integers(0, 2, words.size, dtype=np.uint16)
    written = _comes_back(
        _tensor_file("BF16", (5_000_000,), words.tobytes()), _tensor_file("BF16", (5_000_000,), tuned.tobytes())
    )
    assert (written.delta_blocks, written.reused_blocks) == (2, 1)
    assert written.sent_bytes < 0.25 * written.plain_bytes


@settings(max_examples=30, deadline=None)
@given(before=st.binary(max_size=3000), after=st.binary(max_size=3000))
def test_any_bytes_come_back_whatever_base_is_offered(before: bytes, after: bytes) -> None:
    store = MemoryStore()
    first = write_artifact(store, DOMAIN, {"f": before}, known_blocks=no_blocks)
    base = Base(reader=ArtifactReader.open(store, DOMAIN, first.digest))
    second = write_artifact(store, DOMAIN, {"f": after}, known_blocks=no_blocks, bases=[base])
    reader = ArtifactReader.open(store, DOMAIN, second.digest)
    reader.verify()
    assert reader.read_file("f") == after
    with contextlib.closing(reader.open_file("f")) as stream:
        middle = len(after) // 2
        stream.seek(middle)
        assert stream.read() == after[middle:]
