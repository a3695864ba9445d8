from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import save

from fairlead.core.errors import CorruptBlock, IntegrityError, LocationUnavailable, ObjectNotFound
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import StoredBlock, no_blocks
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact
from fairlead.testing.objects import Action, Fault, FaultyStore, MemoryStore, Operation
from tests.servers.object_stores import ObjectStoreServer

DOMAIN = DedupDomain("acme", "global")
FILES = {"weights.bin": bytes(range(200)) * 3, "config/a.json": b'{"layers": 2}', "empty": b""}


def _verify(store: ObjectStore, digest: Digest) -> None:
    reader = ArtifactReader.open(store, DOMAIN, digest)
    reader.verify()
    assert {file.path: reader.read_file(file.path) for file in reader.manifest.files} == FILES


def test_a_copy_has_the_same_name_and_bytes(store: MemoryStore) -> None:
    written = write_artifact(store, DOMAIN, FILES, pack_bytes=1)
    other = MemoryStore()
    report = copy_artifact(store, other, DOMAIN, written.digest)
    assert (report.blocks_moved, report.blocks_reused, report.plain_bytes) == (2, 0, written.plain_bytes)
    assert report.bytes_moved == sum(map(len, other.objects.values()))
    assert len(report.layout.packs) == 1
    _verify(other, written.digest)


def test_a_second_copy_moves_nothing(store: MemoryStore) -> None:
    written = write_artifact(store, DOMAIN, FILES)
    other = MemoryStore()
    first = copy_artifact(store, other, DOMAIN, written.digest)
    again = copy_artifact(store, other, DOMAIN, written.digest)
    assert (again.bytes_moved, again.blocks_moved, again.blocks_reused) == (0, 0, 2)
    assert again.layout_key == first.layout_key


def test_only_missing_blocks_travel_and_they_travel_compressed(store: MemoryStore) -> None:
    rng = np.random.default_rng(2)
    tensors = {f"layer.{index}": rng.normal(0, 0.02, (256, 256)).astype(np.float32) for index in range(6)}
    first = write_artifact(store, DOMAIN, {"m": save(tensors)})
    tensors["layer.2"] = tensors["layer.2"] * 2
    second = write_artifact(store, DOMAIN, {"m": save(tensors)}, known_blocks=lambda _: first.layout.blocks)
    other = MemoryStore()
    there = copy_artifact(store, other, DOMAIN, first.digest).layout.blocks

    def known_blocks(digests: Sequence[Digest]) -> Mapping[Digest, StoredBlock]:
        return {digest: there[digest] for digest in digests if digest in there}

    seen: list[tuple[int, int]] = []
    report = copy_artifact(
        store,
        other,
        DOMAIN,
        second.digest,
        known_blocks=known_blocks,
        progress=lambda done, whole: seen.append((done, whole)),
    )
    assert (report.blocks_moved, report.blocks_reused) == (1, 6)
    assert report.bytes_moved < 0.87 * tensors["layer.2"].nbytes + 2000
    assert seen[-1][0] == seen[-1][1] == report.bytes_planned
    assert 0.9 < report.bytes_planned / report.bytes_moved < 1.1
    assert ArtifactReader.open(other, DOMAIN, second.digest).read_file("m") == save(tensors)


@pytest.mark.parametrize("action", [Action.FAIL, Action.LOSE_REPLY, Action.DIE])
@pytest.mark.parametrize("operation", ["write", "read", "list"])
def test_a_copy_that_is_interrupted_anywhere_is_finished_by_another(
    store: MemoryStore, operation: Operation, action: Action
) -> None:
    digest = write_artifact(store, DOMAIN, FILES, pack_bytes=1).digest
    counter = FaultyStore(MemoryStore())
    copy_artifact(store, counter, DOMAIN, digest, pack_bytes=1)
    for call in range(1, counter.calls[operation] + 1):
        other = MemoryStore()
        faulty = FaultyStore(other, [Fault(operation=operation, call=call, action=action)])
        with pytest.raises(LocationUnavailable):
            copy_artifact(store, faulty, DOMAIN, digest, pack_bytes=1)
        with contextlib.suppress(ObjectNotFound):
            _verify(other, digest)
        copy_artifact(store, other, DOMAIN, digest, pack_bytes=1)
        _verify(other, digest)


def test_damage_at_the_source_is_told_and_never_copied(store: MemoryStore) -> None:
    written = write_artifact(store, DOMAIN, FILES)
    block = written.layout.files["weights.bin"][0]
    key = DOMAIN.pack_key(block.pack)
    body = bytearray(store.objects[key])
    body[block.offset + 20] ^= 1
    store.objects[key] = bytes(body)
    other = MemoryStore()
    with pytest.raises(CorruptBlock) as caught:
        copy_artifact(store, other, DOMAIN, written.digest)
    assert caught.value.attributes["block"] == block.digest
    assert not other.objects


def test_every_damaged_or_missing_object_is_mended_by_a_repair(store: MemoryStore) -> None:
    digest = write_artifact(store, DOMAIN, FILES).digest
    other = MemoryStore()
    copy_artifact(store, other, DOMAIN, digest, pack_bytes=1)
    whole = dict(other.objects)
    for key, body in whole.items():
        for position in (0, len(body) // 3, len(body) // 2, len(body) - 1):
            damaged = bytearray(body)
            damaged[position] ^= 0x10
            other.objects = whole | {key: bytes(damaged)}
            with pytest.raises(IntegrityError):
                ArtifactReader.open(other, DOMAIN, digest).verify()
            copy_artifact(store, other, DOMAIN, digest, repair=True, pack_bytes=1)
            _verify(other, digest)
        for damaged_objects in ({name: data for name, data in whole.items() if name != key}, whole | {key: b""}):
            other.objects = dict(damaged_objects)
            copy_artifact(store, other, DOMAIN, digest, repair=True, pack_bytes=1)
            _verify(other, digest)


def test_a_repair_into_other_packs_supersedes_the_damaged_layout(store: MemoryStore) -> None:
    digest = write_artifact(store, DOMAIN, FILES).digest
    other = MemoryStore()
    first = copy_artifact(store, other, DOMAIN, digest)
    key = DOMAIN.pack_key(first.layout.packs[0])
    other.objects[key] = other.objects[key][:-1] + b"x"
    again = write_artifact(store, DOMAIN, FILES, known_blocks=no_blocks, pack_bytes=1)
    assert again.digest == digest
    mended = copy_artifact(store, other, DOMAIN, digest, repair=True)
    assert mended.layout.sequence == first.layout.sequence + 1
    assert first.layout.packs[0] not in mended.layout.packs
    _verify(other, digest)


def test_a_repair_of_what_is_whole_moves_nothing(store: MemoryStore) -> None:
    digest = write_artifact(store, DOMAIN, FILES).digest
    other = MemoryStore()
    copy_artifact(store, other, DOMAIN, digest)
    assert copy_artifact(store, other, DOMAIN, digest, repair=True).bytes_moved == 0


def test_an_artifact_travels_from_cloud_to_cloud(
    moto_server: ObjectStoreServer, gcs_server: ObjectStoreServer, azurite_server: ObjectStoreServer
) -> None:
    clouds = [
        open_store(f"{server.url}/{uuid.uuid4().hex}", {"has_create_only": server is not gcs_server} | server.options)
        for server in (moto_server, gcs_server, azurite_server)
    ]
    written = write_artifact(clouds[0], DOMAIN, FILES, pack_bytes=1)
    for source, destination in pairwise(clouds):
        copy_artifact(source, destination, DOMAIN, written.digest, pack_bytes=1)
        assert copy_artifact(source, destination, DOMAIN, written.digest, repair=True).bytes_moved == 0
    for cloud in clouds:
        _verify(cloud, written.digest)
        cloud.delete(DOMAIN.pack_key(written.layout.packs[0]))
        with pytest.raises(ObjectNotFound):
            ArtifactReader.open(cloud, DOMAIN, written.digest).verify()
