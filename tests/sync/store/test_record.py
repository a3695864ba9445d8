"""The format of the record's copies: what the first release wrote is read, by a reader of the document too."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.data_keys import WrappedKey
from fairlead.core.errors import BadSignature, CorruptObject, StaleRevision
from fairlead.core.ids import sha256_digest
from fairlead.sync.store.gunzip import gunzip
from fairlead.sync.store.record import (
    WORKSPACE,
    Document,
    RecordCopy,
    RecordIndex,
    directory_bytes,
    directory_of,
    document_bytes,
    sign_index,
    verify_index,
    write_document,
    write_index,
)
from fairlead.sync.store.refs import key_id_of, public_key_of
from fairlead.testing.objects import MemoryStore

SIGNING_KEY = bytes(range(32))
PUBLIC_KEY = public_key_of(SIGNING_KEY)
TRUSTED = {key_id_of(PUBLIC_KEY): PUBLIC_KEY}
VECTOR: dict[str, str] = json.loads((Path(__file__).parent / "vectors" / "record.json").read_text())
CHURN = Document(
    kind="model",
    name="churn",
    rows={"model_versions": [{"version": 1, "metrics": {"auc": 0.91}}], "aliases": [{"name": "größte", "version": 1}]},
)
SETTINGS = Document(kind="settings", name="settings", rows={"addresses": [{"id": "1", "name": "virginia"}]})


def write_copy(
    store: MemoryStore, sequence: int = 7, issued_at: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)
) -> RecordIndex:
    directories: dict[str, dict[str, Any]] = {directory_of("churn"): {}, WORKSPACE: {}}
    for document in (CHURN, SETTINGS):
        data = document_bytes(document)
        write_document(store, "acme", "plain", data)
        place = directory_of(document.name) if document.kind == "model" else WORKSPACE
        directories[place][document.name] = sha256_digest(data)
    named: dict[str, Any] = {}
    for name, entries in directories.items():
        data = directory_bytes(entries)
        write_document(store, "acme", "plain", data)
        named[name] = sha256_digest(data)
    index = RecordIndex(
        workspace="acme",
        sequence=sequence,
        refs_revision=2,
        issued_at=issued_at,
        anchor="7:" + "0" * 64,
        key_id="plain",
        keys=(WrappedKey(workspace="acme", key_id="k1", provider="file", provider_key="abcd", wrapped=b"\x00\xff"),),
        directories=named,
    )
    write_index(store, index, SIGNING_KEY)
    return index


def test_what_is_written_now_is_what_the_first_release_wrote() -> None:
    store = MemoryStore()
    write_copy(store)
    # The packed form may differ between releases of zlib; what it holds may not.
    found = {key: gzip.decompress(data) if key.endswith(".gz") else data for key, data in store.objects.items()}
    assert {key: data.decode() for key, data in found.items()} == VECTOR


def test_a_reader_of_the_document_finds_the_version_that_a_name_means() -> None:
    objects = {key: text.encode() for key, text in VECTOR.items()}
    (index_key,) = (key for key in objects if "/index/" in key)
    assert index_key == "acme/record/index/0000000000000007.json"
    envelope = json.loads(objects[index_key])
    assert bytes.fromhex(envelope["public_key"]) == PUBLIC_KEY
    payload = base64.b64decode(envelope["payload"])
    signature = base64.b64decode(envelope["signature"])
    Ed25519PublicKey.from_public_bytes(PUBLIC_KEY).verify(signature, b"fairlead/record\0" + payload)
    index = json.loads(payload)

    def read(digest: str) -> dict[str, Any]:
        data = objects[f"acme/record/{index['key_id']}/{digest.removeprefix('sha256:')}.json.gz"]
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
        return json.loads(data)

    directory = read(index["directories"]["models/" + hashlib.sha256(b"churn").hexdigest()[0]])
    model = read(directory["entries"]["churn"])
    assert [row["version"] for row in model["tables"]["aliases"] if row["name"] == "größte"] == [1]


def test_a_copy_reads_as_it_was_written() -> None:
    store = MemoryStore()
    index = write_copy(store)
    copy = RecordCopy.open(store, "acme", TRUSTED)
    assert copy.index == index
    assert copy.model("churn") == CHURN
    assert copy.model("fraud") is None
    assert copy.workspace() == {"settings": SETTINGS}
    assert list(copy.models()) == [CHURN]
    assert copy.look_up("acme", "k1").wrapped == b"\x00\xff"


@given(st.data())
def test_any_change_of_an_index_is_found(data: st.DataObject) -> None:
    store = MemoryStore()
    signed = sign_index(write_copy(store), SIGNING_KEY)
    place = data.draw(st.integers(0, len(signed) - 1))
    bit = data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]))
    changed = signed[:place] + bytes([signed[place] ^ bit]) + signed[place + 1 :]
    with pytest.raises(BadSignature):
        verify_index(changed, TRUSTED, workspace="acme", sequence=7)


def test_an_index_is_of_one_workspace_and_sequence() -> None:
    signed = sign_index(write_copy(MemoryStore()), SIGNING_KEY)
    for workspace, sequence in (("other", 7), ("acme", 8)):
        with pytest.raises(BadSignature):
            verify_index(signed, TRUSTED, workspace=workspace, sequence=sequence)
    assert verify_index(signed, None, workspace="acme", sequence=7)[1] == PUBLIC_KEY


def test_an_older_copy_never_replaces_a_newer_one() -> None:
    store = MemoryStore()
    write_copy(store, 7)
    with pytest.raises(StaleRevision):
        write_copy(store, 6)
    write_copy(store, 8)
    assert RecordCopy.open(store, "acme", TRUSTED).index.sequence == 8


@given(st.data())
def test_a_flipped_bit_of_a_document_is_told_as_damage_or_changes_nothing(data: st.DataObject) -> None:
    store = MemoryStore()
    write_copy(store)
    before = read_all(store)
    key = data.draw(st.sampled_from([key for key in sorted(store.objects) if key.endswith(".json.gz")]))
    stored = bytearray(store.objects[key])
    place = data.draw(st.integers(0, len(stored) - 1))
    stored[place] ^= 1 << data.draw(st.integers(0, 7))
    store.objects[key] = bytes(stored)
    try:
        found = read_all(store)
    except CorruptObject:
        return
    assert found == before


def test_a_document_that_unpacks_to_more_than_it_may_is_not_unpacked() -> None:
    with pytest.raises(ValueError, match="too long"):
        gunzip(gzip.compress(bytes(10**6)), max_bytes=10**6 - 1)
    assert gunzip(gzip.compress(bytes(10**6)), max_bytes=10**6) == bytes(10**6)


def read_all(store: MemoryStore) -> tuple[object, ...]:
    copy = RecordCopy.open(store, "acme", TRUSTED)
    return copy.workspace(), list(copy.models())
