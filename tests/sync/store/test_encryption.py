"""Encrypted objects: what is read is what was written under that key and name, to the byte, or an error."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import CorruptObject, KeyUnavailable
from fairlead.core.ids import sha256_digest
from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.sync.store.encryption import (
    FRAME_BYTES,
    EncryptedStore,
    decrypt_object,
    encrypt_object,
    plain_length,
    stored_length,
)
from fairlead.testing.object_store_suite import ObjectStoreSuite
from fairlead.testing.objects import MemoryStore

DATA_KEY = bytes(range(32))
KEY = "acme/eu/k1/packs/ab/pack"
VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "encrypted.json").read_text())
LENGTHS = [0, 1, 17, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES, 3 * FRAME_BYTES + 5]


def plain_of(length: int) -> bytes:
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def keyring(workspace: str, key_id: str) -> bytes:
    if (workspace, key_id) != ("acme", "k1"):
        raise KeyUnavailable(f"There is no key {key_id}.")
    return DATA_KEY


@pytest.fixture
def behind() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(behind: MemoryStore) -> EncryptedStore:
    return EncryptedStore(behind, keyring)


class _Below:
    """A store of which only what lies below a prefix is seen."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    @property
    def has_create_only(self) -> bool:
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        try:
            return self._store.read(self._prefix + key, start=start, length=length)
        except Exception as error:
            getattr(error, "attributes", {}).update(key=key)
            raise

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        return self._store.write(self._prefix + key, data, create_only=create_only)

    def size(self, key: str) -> int | None:
        return self._store.size(self._prefix + key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for item in self._store.list(self._prefix + prefix):
            yield ObjectInfo(key=item.key.removeprefix(self._prefix), size=item.size)

    def delete(self, key: str) -> None:
        self._store.delete(self._prefix + key)


class TestEncryptedStore(ObjectStoreSuite):
    """It keeps every promise of the port, also for ranges across frames."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        return _Below(EncryptedStore(MemoryStore(), keyring), "acme/eu/k1/")


@pytest.mark.parametrize("length", LENGTHS)
def test_an_object_is_read_back_and_knows_its_plain_length(store: EncryptedStore, length: int) -> None:
    plain = plain_of(length)
    store.write(KEY, plain)
    assert store.read(KEY) == plain
    assert store.size(KEY) == length
    assert [item.size for item in store.list("acme/")] == [length]
    assert plain_length(stored_length(length)) == length


@given(st.binary(max_size=300), st.sampled_from(LENGTHS), st.data())
def test_any_range_is_what_a_slice_is(extra: bytes, length: int, data: st.DataObject) -> None:
    plain = plain_of(length) + extra
    store = EncryptedStore(MemoryStore(), keyring)
    store.write(KEY, plain)
    start = data.draw(st.integers(0, len(plain) + 10))
    size = data.draw(st.none() | st.integers(0, len(plain) + 10))
    assert store.read(KEY, start=start, length=size) == (plain[start:] if size is None else plain[start : start + size])


def test_a_range_reads_the_frames_it_lies_in_and_the_header_once(behind: MemoryStore) -> None:
    asked: list[tuple[int, int | None]] = []

    class Counting(MemoryStore):
        def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            asked.append((start, length))
            return super().read(key, start=start, length=length)

    EncryptedStore(behind, keyring).write(KEY, plain_of(10 * FRAME_BYTES))
    store = EncryptedStore(Counting(behind.objects), keyring)
    store.read(KEY, start=5 * FRAME_BYTES + 10, length=20)
    store.read(KEY, start=7 * FRAME_BYTES - 1, length=2)
    assert asked == [(0, 48), (48 + 5 * 65552, 65552), (48 + 6 * 65552, 2 * 65552)]


def test_writing_an_object_twice_gives_the_same_bytes_and_another_object_others(behind: MemoryStore) -> None:
    plain = plain_of(1000)
    first = encrypt_object(plain, data_key=DATA_KEY, key=KEY)
    assert first == encrypt_object(bytearray(plain), data_key=DATA_KEY, key=KEY)
    others = [
        encrypt_object(plain, data_key=DATA_KEY, key=KEY + "2"),
        encrypt_object(plain[:-1] + b"x", data_key=DATA_KEY, key=KEY),
        encrypt_object(plain, data_key=bytes(32), key=KEY),
    ]
    # No salt, and so no key, is used for two contents.
    assert len({stored[16:48] for stored in [first, *others]}) == 4
    store = EncryptedStore(behind, keyring)
    assert store.write(KEY, plain, create_only=True) is True
    assert store.write(KEY, plain, create_only=True) is False


def test_nothing_of_the_plain_bytes_is_in_the_stored_ones(behind: MemoryStore, store: EncryptedStore) -> None:
    store.write(KEY, b"a secret of some length, again and again; " * 5000)
    assert b"secret" not in behind.objects[KEY]


@pytest.mark.parametrize("length", [0, 100, 2 * FRAME_BYTES + 7])
def test_every_flipped_bit_is_found(length: int) -> None:
    plain = plain_of(length)
    stored = encrypt_object(plain, data_key=DATA_KEY, key=KEY)
    places = range(len(stored)) if length < 1000 else [*range(60), 65_599, 65_600, 131_000, len(stored) - 1]
    for place in places:
        damaged = stored[:place] + bytes([stored[place] ^ 1]) + stored[place + 1 :]
        with pytest.raises(CorruptObject):
            decrypt_object(damaged, data_key=DATA_KEY, key=KEY)


@given(st.integers(0, 2 * FRAME_BYTES + 150))
def test_every_cut_is_found(cut: int) -> None:
    stored = encrypt_object(plain_of(2 * FRAME_BYTES + 7), data_key=DATA_KEY, key=KEY)
    with pytest.raises(CorruptObject):
        decrypt_object(stored[: min(cut, len(stored) - 1)], data_key=DATA_KEY, key=KEY)


def test_frames_cannot_be_swapped_dropped_or_moved_to_another_object(
    behind: MemoryStore, store: EncryptedStore
) -> None:
    store.write(KEY, plain_of(4 * FRAME_BYTES))
    stored = behind.objects[KEY]
    header, frames = stored[:48], [stored[48 + n * 65552 : 48 + (n + 1) * 65552] for n in range(4)]
    shorter = header[:8] + struct.pack("<Q", 3 * FRAME_BYTES) + header[16:]
    for damaged in (
        b"".join([header, frames[1], frames[0], *frames[2:]]),
        b"".join([header, *frames[:3]]),
        b"".join([shorter, *frames[:3]]),
        b"".join([header, *frames, frames[3]]),
    ):
        behind.objects[KEY] = damaged
        with pytest.raises(CorruptObject):
            store.read(KEY)
    behind.objects[KEY + "2"] = stored
    with pytest.raises(CorruptObject):
        store.read(KEY + "2")
    with pytest.raises(CorruptObject):
        store.read(KEY + "2", start=FRAME_BYTES, length=10)


def test_an_object_that_was_mended_is_read_although_its_header_was_remembered(
    behind: MemoryStore, store: EncryptedStore
) -> None:
    store.write(KEY, plain_of(200))
    assert store.read(KEY, start=1, length=3) == plain_of(200)[1:4]
    EncryptedStore(behind, keyring).write(KEY, b"other bytes")
    assert store.read(KEY, start=1, length=3) == b"the"


def test_what_lies_under_no_key_passes_through(behind: MemoryStore, store: EncryptedStore) -> None:
    for key in ("acme/eu/plain/packs/ab/x", "acme/refs/0000000000000001.json", "acme/record/a/b/c", "probes/1"):
        store.write(key, b"plain")
        assert behind.objects[key] == b"plain"
        assert store.read(key) == store.read(key, start=0, length=9) == b"plain"
        assert store.size(key) == 5


def test_without_the_key_sizes_and_listings_answer_and_bytes_do_not(behind: MemoryStore, store: EncryptedStore) -> None:
    store.write(KEY, b"plain")

    def no_key(_workspace: str, key_id: str) -> bytes:
        raise KeyUnavailable(f"The key {key_id} is not here.", hint="Set FAIRLEAD_KEY_FILE.")

    outsider = EncryptedStore(behind, no_key)
    assert outsider.size(KEY) == 5
    assert [item.key for item in outsider.list("")] == [KEY]
    for call in (
        lambda: outsider.read(KEY),
        lambda: outsider.read(KEY, start=1, length=1),
        lambda: outsider.write(KEY, b""),
    ):
        with pytest.raises(KeyUnavailable):
            call()


def _read_by_the_document(stored: bytes, data_key: bytes, key: str) -> bytes:
    """A reader of nothing but docs/reference/format.md; AES is the one thing that Python does not bring."""

    def hkdf(salt: bytes, info: bytes) -> bytes:
        return hmac.digest(hmac.digest(salt or bytes(32), data_key, "sha256"), info + b"\x01", "sha256")

    magic, length, salt = struct.unpack_from("<8sQ32s", stored)
    assert magic == b"\x89FLENCR\x01"
    cipher = AESGCM(hkdf(salt, b"fairlead/encrypted/1/object"))
    plain, count = b"", max(1, -(-length // 65536))
    for number in range(count):
        frame = stored[48 + number * 65552 : 48 + (number + 1) * 65552]
        bound = struct.pack("<QB", number, number == count - 1) + stored[:48] + key.encode()
        plain += cipher.decrypt(struct.pack("<Q4x", number), frame, bound)
    content = hashlib.sha256(plain).digest()
    assert salt == hmac.digest(hkdf(b"", b"fairlead/encrypted/1/salt"), key.encode() + b"\0" + content, "sha256")
    return plain


@pytest.mark.parametrize("vector", VECTORS, ids=[str(vector["length"]) for vector in VECTORS])
def test_a_reader_of_the_document_reads_what_the_first_release_wrote(vector: dict[str, Any]) -> None:
    data_key, key, plain = bytes.fromhex(vector["data_key"]), vector["key"], plain_of(vector["length"])
    stored = encrypt_object(plain, data_key=data_key, key=key)
    assert sha256_digest(stored) == vector["stored_sha256"]
    if "stored" in vector:
        assert base64.b64decode(vector["stored"]) == stored
    assert _read_by_the_document(stored, data_key, key) == plain
