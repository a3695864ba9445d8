"""Writing, reading and copying artifacts: the bytes come back, what is there is not sent, and damage is told."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
import unicodedata
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from fairlead.core.errors import (
    AlreadyExists,
    CorruptBlock,
    CorruptLayout,
    IntegrityError,
    InvalidInput,
    InvalidManifest,
    LocationUnavailable,
    ObjectNotFound,
)
from fairlead.core.ids import Digest
from fairlead.sync.store.blocks import StoredBlock, no_blocks
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.layout import Layout, list_layout_keys, write_layout
from fairlead.sync.store.manifest import build_manifest
from fairlead.sync.store.pack import read_pack_index, verify_pack
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact
from fairlead.testing.objects import Action, Fault, FaultyStore, MemoryStore, Operation

DOMAIN = DedupDomain("acme", "global")
SMALL = {"weights.bin": bytes(range(200)) * 3, "config/a.json": b'{"layers": 2}', "empty": b""}

_PATHS = st.lists(
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\:"), min_size=1, max_size=8).map(
        lambda text: unicodedata.normalize("NFC", text)
    ),
    min_size=1,
    max_size=3,
).map("/".join)
_ARRAYS = st.tuples(
    st.sampled_from(["<f4", "<f2", "<f8", "<i8", "<i4", "<i2", "<u1", "|b1"]), st.integers(0, 3000), st.integers(0, 99)
)


def _tensor(kind: str, count: int, seed: int) -> np.ndarray:
    """Values of any bit pattern, so that NaNs with payloads, denormals and infinities are among them."""
    raw = np.random.default_rng(seed).bytes(count * np.dtype(kind).itemsize)
    return np.frombuffer(raw, dtype="<u1").astype("|b1") if kind == "|b1" else np.frombuffer(raw, dtype=kind)


def _read_all(store: MemoryStore | FaultyStore, digest: Digest, layout_key: str | None = None) -> dict[str, bytes]:
    reader = ArtifactReader.open(store, DOMAIN, digest, layout_key)
    return {file.path: reader.read_file(file.path) for file in reader.manifest.files}


@given(files=st.dictionaries(_PATHS, st.binary(max_size=400), min_size=1, max_size=6))
def test_any_tree_of_files_is_read_back_as_written(files: dict[str, bytes]) -> None:
    store = MemoryStore()
    try:
        written = write_artifact(store, DOMAIN, files)
    except InvalidManifest:
        assert not store.objects
        return
    assert _read_all(store, written.digest) == files
    report = ArtifactReader.open(store, DOMAIN, written.digest, written.layout_key).verify()
    assert (report.files, report.plain_bytes) == (len(files), sum(map(len, files.values())))


@given(tensors=st.lists(_ARRAYS, min_size=1, max_size=5), pack_bytes=st.sampled_from([1, 5000, 2**25]))
def test_tensors_of_any_dtype_and_bit_pattern_are_read_back(
    tensors: list[tuple[str, int, int]], pack_bytes: int
) -> None:
    body = save({f"t{index}": _tensor(*tensor) for index, tensor in enumerate(tensors)})
    store = MemoryStore()
    written = write_artifact(store, DOMAIN, {"m.safetensors": body}, pack_bytes=pack_bytes)
    assert _read_all(store, written.digest) == {"m.safetensors": body}
    other = MemoryStore()
    copy_artifact(store, other, DOMAIN, written.digest, pack_bytes=pack_bytes)
    assert _read_all(other, written.digest) == {"m.safetensors": body}


@given(files=st.dictionaries(_PATHS, st.binary(max_size=400), min_size=1, max_size=4))
def test_writing_a_second_time_sends_nothing(files: dict[str, bytes]) -> None:
    store = MemoryStore()
    try:
        first = write_artifact(store, DOMAIN, files)
    except InvalidManifest:
        return
    before = dict(store.objects)
    second = write_artifact(store, DOMAIN, files)
    assert (second.sent_bytes, second.new_blocks, second.layout_key) == (0, 0, first.layout_key)
    assert store.objects == before


def _known(*layouts: Layout) -> Mapping[Digest, StoredBlock]:
    return {digest: block for layout in layouts for digest, block in layout.blocks.items()}


def test_a_changed_tensor_is_all_that_is_sent(store: MemoryStore) -> None:
    rng = np.random.default_rng(4)
    tensors = {f"layer.{index}": rng.normal(0, 0.02, (256, 256)).astype(np.float32) for index in range(12)}
    first = write_artifact(store, DOMAIN, {"model.safetensors": save(tensors)})
    tensors["layer.7"] = tensors["layer.7"] + np.float32(1)
    known = _known(first.layout)

    def known_blocks(digests: Sequence[Digest]) -> Mapping[Digest, StoredBlock]:
        return {digest: known[digest] for digest in digests if digest in known}

    second = write_artifact(store, DOMAIN, {"model.safetensors": save(tensors)}, known_blocks=known_blocks)
    assert second.new_blocks == 1
    assert second.reused_blocks == 12
    assert second.sent_bytes < tensors["layer.7"].nbytes + 8000
    assert _read_all(store, second.digest) == {"model.safetensors": save(tensors)}
    assert _read_all(store, first.digest) == {"model.safetensors": _original(store, first.digest)}


def _original(store: MemoryStore, digest: Digest) -> bytes:
    return ArtifactReader.open(store, DOMAIN, digest).read_file("model.safetensors")


def test_equal_blocks_are_stored_once(store: MemoryStore) -> None:
    body = np.random.default_rng(0).bytes(50_000)
    written = write_artifact(store, DOMAIN, {"a": body, "b": body, "c": body})
    assert (written.new_blocks, written.plain_bytes) == (1, 150_000)
    assert written.sent_bytes < 52_000


def test_domains_share_nothing(store: MemoryStore) -> None:
    open_one = write_artifact(store, DOMAIN, SMALL)
    keys = set(store.objects)
    restricted = DedupDomain("acme", "eu-only")
    closed = write_artifact(store, restricted, SMALL)
    assert closed.digest == open_one.digest
    assert closed.reused_blocks == 0
    assert all(key.startswith("acme/eu-only/plain/") for key in set(store.objects) - keys)
    with pytest.raises(ObjectNotFound):
        ArtifactReader.open(store, DedupDomain("acme", "us-only"), closed.digest)


def test_an_index_that_is_behind_is_not_believed(store: MemoryStore) -> None:
    known = _known(write_artifact(MemoryStore(), DOMAIN, SMALL).layout)
    written = write_artifact(store, DOMAIN, SMALL, known_blocks=lambda _: known)
    assert written.reused_blocks == 0
    assert _read_all(store, written.digest) == SMALL


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    body = np.random.default_rng(0).bytes(2**20)
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        for index in range(256):
            file.write(index.to_bytes(4, "big") + body[index:])
    from fairlead.sync.store.local import LocalStore

    store = LocalStore(tmp_path / "store", create=True)
    tracemalloc.start()
    try:
        written = write_artifact(store, DOMAIN, path)
        _, write_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        ArtifactReader.open(store, DOMAIN, written.digest).download(tmp_path / "copy")
        _, read_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "copy" / "large.bin").read_bytes() == path.read_bytes()
    assert write_peak < 200 * 2**20
    assert read_peak < 60 * 2**20


def test_a_file_that_changes_while_it_is_read_is_refused(store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)

    def change(_digests: Sequence[Digest]) -> Mapping[Digest, StoredBlock]:
        os.utime(path, ns=(1, 1))
        return {}

    with pytest.raises(InvalidInput, match="changed while it was read"):
        write_artifact(store, DOMAIN, path, known_blocks=change)
    assert not any("manifests" in key for key in store.objects)


def test_a_stream_that_ends_early_is_refused(store: MemoryStore) -> None:
    class Shrinking(BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            return super().seek(offset, whence) + (100 if whence else 0)

    with pytest.raises(InvalidInput, match="changed while it was read"):
        write_artifact(store, DOMAIN, {"model.bin": lambda: Shrinking(b"before" * 1000)})
    assert not store.objects


def test_progress_reaches_the_whole(store: MemoryStore, tmp_path: Path) -> None:
    total = sum(map(len, SMALL.values()))
    for known_blocks in (no_blocks, None):
        seen: list[tuple[int, int]] = []

        def note(done: int, whole: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((done, whole))

        written = write_artifact(store, DOMAIN, SMALL, known_blocks=known_blocks, progress=note)
        assert seen[-1] == (total, total)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    steps: list[tuple[int, int]] = []
    ArtifactReader.open(store, DOMAIN, written.digest).download(
        tmp_path / "x", progress=lambda done, whole: steps.append((done, whole))
    )
    assert steps[-1] == (total, total)


def test_every_flipped_byte_of_every_object_is_told(store: MemoryStore) -> None:
    written = write_artifact(store, DOMAIN, SMALL)
    assert len(store.objects) == 3
    for key, body in list(store.objects.items()):
        for position in range(len(body)):
            damaged = bytearray(body)
            damaged[position] ^= 1 << position % 8
            store.objects[key] = bytes(damaged)
            with pytest.raises(IntegrityError):
                ArtifactReader.open(store, DOMAIN, written.digest).verify()
            try:
                found = _read_all(store, written.digest)
            except IntegrityError:
                continue
            assert found == SMALL
        store.objects[key] = body
    ArtifactReader.open(store, DOMAIN, written.digest).verify()


@pytest.mark.parametrize("length", [0, 1, 8, 60, -45, -44, -1])
def test_every_object_that_is_cut_short_is_told(store: MemoryStore, length: int) -> None:
    written = write_artifact(store, DOMAIN, SMALL)
    for key, body in list(store.objects.items()):
        for damaged in (body[:length], body + b"\0"):
            store.objects[key] = damaged
            with pytest.raises(IntegrityError):
                ArtifactReader.open(store, DOMAIN, written.digest).verify()
        store.objects[key] = body


@pytest.mark.parametrize("action", [Action.CUT, Action.FLIP])
def test_a_store_that_gives_wrong_bytes_never_passes_them_on(store: MemoryStore, action: Action) -> None:
    written = write_artifact(store, DOMAIN, SMALL)
    counter = FaultyStore(store)
    assert _read_all(counter, written.digest) == SMALL
    for call in range(1, counter.calls["read"] + 1):
        with pytest.raises(IntegrityError):
            _read_all(FaultyStore(store, [Fault(operation="read", call=call, action=action)]), written.digest)


def test_damage_is_told_with_pack_block_and_file(store: MemoryStore) -> None:
    written = write_artifact(store, DOMAIN, SMALL)
    block = written.layout.files["weights.bin"][0]
    key = DOMAIN.pack_key(block.pack)
    body = bytearray(store.objects[key])
    body[block.offset + 5] ^= 1
    store.objects[key] = bytes(body)
    reader = ArtifactReader.open(store, DOMAIN, written.digest)
    with pytest.raises(CorruptBlock) as damaged:
        reader.read_file("weights.bin")
    assert damaged.value.attributes == {"block": block.digest, "pack": block.pack, "file": "weights.bin"}
    assert reader.read_file("config/a.json") == SMALL["config/a.json"]
    del store.objects[key]
    with pytest.raises(ObjectNotFound) as missing:
        reader.read_file("weights.bin")
    assert missing.value.attributes | {"file": "weights.bin", "pack": block.pack} == missing.value.attributes


def test_a_layout_that_swaps_blocks_is_told(store: MemoryStore) -> None:
    files = {"a": b"first file", "b": b"other file"}
    written = write_artifact(store, DOMAIN, files)
    swapped = {"a": written.layout.files["b"], "b": written.layout.files["a"]}
    stored = write_layout(store, DOMAIN, written.manifest, swapped).stored
    with pytest.raises(CorruptLayout, match="not the file's"):
        _read_all(store, written.digest, stored.key)
    assert _read_all(store, written.digest, written.layout_key) == files


def test_a_layout_that_does_not_add_up_is_never_written(store: MemoryStore) -> None:
    written = write_artifact(store, DOMAIN, {"a": b"first file", "b": b"file"})
    twice = {path: blocks * 2 for path, blocks in written.layout.files.items()}
    with pytest.raises(CorruptLayout, match="add up"):
        write_layout(store, DOMAIN, written.manifest, twice)


def test_a_download_names_the_block_that_decodes_to_other_bytes(store: MemoryStore, tmp_path: Path) -> None:
    body = np.random.default_rng(0).bytes(3 * 2**20)
    written = write_artifact(store, DOMAIN, {"noise.bin": body})
    # Noise is stored as it is, so a flipped byte decodes.
    block = written.layout.files["noise.bin"][-1]
    key = DOMAIN.pack_key(block.pack)
    damaged = bytearray(store.objects[key])
    damaged[block.end - 10] ^= 1
    store.objects[key] = bytes(damaged)
    with pytest.raises(CorruptBlock) as caught:
        ArtifactReader.open(store, DOMAIN, written.digest).download(tmp_path / "copy")
    assert caught.value.attributes["block"] == block.digest
    assert not list(tmp_path.iterdir())


def test_the_newest_whole_layout_is_read_and_an_older_one_on_request(store: MemoryStore) -> None:
    first = write_artifact(store, DOMAIN, SMALL)
    second = write_artifact(store, DOMAIN, SMALL, known_blocks=no_blocks, pack_bytes=1)
    assert second.layout.sequence == first.layout.sequence + 1
    assert list_layout_keys(store, DOMAIN, first.digest) == [second.layout_key, first.layout_key]
    assert ArtifactReader.open(store, DOMAIN, first.digest).layout_key == second.layout_key
    assert _read_all(store, first.digest, first.layout_key) == SMALL
    store.objects[second.layout_key] = store.objects[second.layout_key][:-1]
    assert ArtifactReader.open(store, DOMAIN, first.digest).layout_key == first.layout_key
    with pytest.raises(CorruptLayout):
        ArtifactReader.open(store, DOMAIN, first.digest, second.layout_key)
    with pytest.raises(CorruptLayout, match="no key"):
        ArtifactReader.open(store, DOMAIN, first.digest, "acme/global/plain/packs/x")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_layout(data: bytes) -> None:
    with pytest.raises(CorruptLayout):
        Layout.parse(data)


def test_a_block_index_can_be_made_again_from_packs(store: MemoryStore) -> None:
    written = write_artifact(store, DOMAIN, SMALL, pack_bytes=1)
    packs = [pack for item in store.list(DOMAIN.pack_prefix()) if (pack := DOMAIN.parse_pack_key(item.key))]
    found = {block.digest: block for pack in packs for block in read_pack_index(store, DOMAIN, pack)}
    assert found == written.layout.blocks
    assert {block.digest for pack in packs for block in verify_pack(store, DOMAIN, pack)} == set(found)


def test_a_download_appears_whole_or_not_at_all(store: MemoryStore, tmp_path: Path) -> None:
    written = write_artifact(store, DOMAIN, SMALL, pack_bytes=1)
    destination = tmp_path / "models" / "churn"
    counter = FaultyStore(store)
    ArtifactReader.open(counter, DOMAIN, written.digest).download(destination)
    assert build_manifest(destination).digest == written.digest
    for call in range(3, counter.calls["read"] + 1):
        other = tmp_path / f"other-{call}"
        faulty = FaultyStore(store, [Fault(operation="read", call=call, action=Action.FLIP)])
        with pytest.raises(IntegrityError):
            ArtifactReader.open(faulty, DOMAIN, written.digest).download(other)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]


def test_a_download_leaves_what_is_there_alone(store: MemoryStore, tmp_path: Path) -> None:
    reader = ArtifactReader.open(store, DOMAIN, write_artifact(store, DOMAIN, SMALL).digest)
    destination = tmp_path / "churn"
    destination.mkdir()
    reader.download(destination)
    stamp = (destination / "weights.bin").stat().st_mtime_ns
    reader.download(destination)
    assert (destination / "weights.bin").stat().st_mtime_ns == stamp
    (destination / "more").write_bytes(b"mine")
    with pytest.raises(AlreadyExists, match="does not hold this artifact"):
        reader.download(destination)
    assert (destination / "more").read_bytes() == b"mine"
    with pytest.raises(AlreadyExists):
        reader.download(destination / "more")


def test_a_file_that_the_artifact_does_not_hold_is_refused(store: MemoryStore) -> None:
    reader = ArtifactReader.open(store, DOMAIN, write_artifact(store, DOMAIN, SMALL).digest)
    for path in ("missing", "../weights.bin", ""):
        with pytest.raises(InvalidInput, match="holds no file"):
            reader.read_file(path)


def test_an_artifact_that_is_not_there_is_a_typed_error(store: MemoryStore) -> None:
    digest = build_manifest(SMALL).digest
    with pytest.raises(ObjectNotFound):
        ArtifactReader.open(store, DOMAIN, digest)
    written = write_artifact(store, DOMAIN, SMALL)
    del store.objects[written.layout_key]
    with pytest.raises(ObjectNotFound, match="no layout"):
        ArtifactReader.open(store, DOMAIN, digest)


@pytest.mark.parametrize("action", [Action.FAIL, Action.LOSE_REPLY, Action.DIE])
@pytest.mark.parametrize("operation", ["write", "list"])
def test_a_writer_that_is_killed_leaves_no_half_artifact_and_a_second_run_mends_it(
    operation: Operation, action: Action
) -> None:
    counter = FaultyStore(MemoryStore())
    digest = write_artifact(counter, DOMAIN, SMALL, pack_bytes=1).digest
    assert counter.calls[operation]
    for call in range(1, counter.calls[operation] + 1):
        store = MemoryStore()
        with pytest.raises(LocationUnavailable):
            write_artifact(
                FaultyStore(store, [Fault(operation=operation, call=call, action=action)]),
                DOMAIN,
                SMALL,
                pack_bytes=1,
            )
        with contextlib.suppress(ObjectNotFound):
            assert _read_all(store, digest) == SMALL
        write_artifact(store, DOMAIN, SMALL, pack_bytes=1)
        assert ArtifactReader.open(store, DOMAIN, digest).verify().files == 3
        assert write_artifact(store, DOMAIN, SMALL, pack_bytes=1).sent_bytes == 0


def test_a_repair_by_its_writer_stores_damaged_blocks_again(store: MemoryStore) -> None:
    written = write_artifact(store, DOMAIN, SMALL, pack_bytes=1)
    key = DOMAIN.pack_key(written.layout.packs[0])
    store.objects[key] = bytes(len(store.objects[key]))
    again = write_artifact(store, DOMAIN, SMALL, repair=True, pack_bytes=1)
    assert (again.new_blocks, again.reused_blocks) == (1, 1)
    assert _read_all(store, written.digest) == SMALL
