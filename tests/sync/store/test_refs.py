from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fairlead.core.errors import AliasNotFound, BadSignature, InvalidInput, InvalidName, ObjectNotFound, StaleRevision
from fairlead.core.ids import sha256_digest
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.refs import (
    Ref,
    RefSet,
    RefTarget,
    generate_signing_key,
    key_id_of,
    public_key_of,
    read_refs,
    refs_key,
    sign_refs,
    verify_refs,
    write_refs,
)
from fairlead.testing.objects import MemoryStore

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
PRIVATE = bytes(range(32))
TRUSTED = {key_id_of(public_key_of(PRIVATE)): public_key_of(PRIVATE)}


def _refs(revision: int = 7, body: bytes = b"v1") -> RefSet:
    target = RefTarget(digest=sha256_digest(body), residency="eu-only")
    ref = Ref(name="churn@production", kind="environment", revision=3, targets=(target,), issued_at=NOW)
    return RefSet(workspace="acme", revision=revision, issued_at=NOW, refs=(replace(ref, kind="alias"), ref))


def test_a_name_resolves_at_a_location_without_the_registry(store: MemoryStore) -> None:
    assert write_refs(store, _refs(), PRIVATE) == "acme/refs/0000000000000007.json"
    refs = read_refs(store, "acme", TRUSTED)
    assert refs == _refs()
    ref = refs.resolve("churn@production")
    assert ref.kind == "environment"
    assert ref.targets[0].domain("acme") == DedupDomain("acme", "eu-only")
    with pytest.raises(AliasNotFound, match="staging"):
        refs.resolve("churn@staging")


def test_every_flipped_byte_of_a_signed_set_is_told() -> None:
    signed = sign_refs(_refs(), PRIVATE)
    assert verify_refs(signed, TRUSTED, workspace="acme") == _refs()
    for position in range(len(signed)):
        damaged = bytearray(signed)
        damaged[position] ^= 1 << position % 7
        try:
            found = verify_refs(bytes(damaged), TRUSTED, workspace="acme")
        except BadSignature:
            continue
        assert found == _refs()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 50_000])
def test_bytes_that_are_no_signed_set_are_refused(data: bytes) -> None:
    with pytest.raises(BadSignature):
        verify_refs(data, TRUSTED, workspace="acme")


def test_a_key_that_is_not_trusted_is_not_believed() -> None:
    other = generate_signing_key()
    with pytest.raises(BadSignature, match="trusted"):
        verify_refs(sign_refs(_refs(), other), TRUSTED, workspace="acme")
    forged = json.loads(sign_refs(_refs(), other)) | {"key_id": next(iter(TRUSTED))}
    with pytest.raises(BadSignature):
        verify_refs(json.dumps(forged).encode(), TRUSTED, workspace="acme")


def test_a_set_of_another_workspace_or_revision_put_in_place_is_refused(store: MemoryStore) -> None:
    signed = sign_refs(_refs(), PRIVATE)
    with pytest.raises(BadSignature, match="another workspace"):
        verify_refs(signed, TRUSTED, workspace="beta")
    store.write(refs_key("acme", 9), signed)
    with pytest.raises(BadSignature, match="another workspace or revision"):
        read_refs(store, "acme", TRUSTED)


def test_a_reader_never_goes_back_in_time(store: MemoryStore) -> None:
    write_refs(store, _refs(7), PRIVATE)
    assert read_refs(store, "acme", TRUSTED, seen_revision=7).revision == 7
    with pytest.raises(StaleRevision, match="8 was seen"):
        read_refs(store, "acme", TRUSTED, seen_revision=8)
    with pytest.raises(StaleRevision, match="newer than 6"):
        write_refs(store, _refs(6), PRIVATE)


def test_a_damaged_newest_set_gives_way_to_the_one_before(store: MemoryStore) -> None:
    write_refs(store, _refs(7), PRIVATE)
    key = write_refs(store, _refs(8), PRIVATE)
    store.objects[key] = store.objects[key][:-5]
    assert read_refs(store, "acme", TRUSTED).revision == 7
    with pytest.raises(StaleRevision):
        read_refs(store, "acme", TRUSTED, seen_revision=8)
    write_refs(store, _refs(8), PRIVATE)
    assert read_refs(store, "acme", TRUSTED, seen_revision=8).revision == 8


def test_old_sets_are_removed_and_other_objects_stay(store: MemoryStore) -> None:
    store.write("acme/refs/note.txt", b"mine")
    for revision in range(1, 13):
        write_refs(store, _refs(revision), PRIVATE, keep=3)
    assert [item.key for item in store.list("acme/refs/")] == [
        *(refs_key("acme", revision) for revision in (10, 11, 12)),
        "acme/refs/note.txt",
    ]


def test_what_cannot_be_signed_is_refused(store: MemoryStore) -> None:
    with pytest.raises(InvalidInput):
        sign_refs(_refs(0), PRIVATE)
    with pytest.raises(InvalidInput):
        sign_refs(replace(_refs(), refs=(replace(_refs().refs[0], targets=()),)), PRIVATE)
    with pytest.raises(InvalidName):
        refs_key("../acme", 1)
    with pytest.raises(ObjectNotFound):
        read_refs(store, "acme", TRUSTED)
