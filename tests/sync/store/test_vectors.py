"""Bytes that the first release wrote are read for ever: by this release, and by a reader of nothing but the document.

The second reader below is written from `docs/reference/format.md` with the standard library alone. It knows no zstd,
which the artifact in `vectors/location` therefore does not use.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.ids import Digest
from fairlead.sync.store.codec import decode_block
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.local import LocalStore
from fairlead.sync.store.manifest import Manifest
from fairlead.sync.store.pack import read_pack_index, verify_pack
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.refs import key_id_of, read_refs

VECTORS = Path(__file__).parent / "vectors"
LOCATION = VECTORS / "location"
DOMAIN = DedupDomain("acme", "eu-only")
ARTIFACT = Digest("sha256:67c41fb88f3e7163f4a8979e6c23e4dc4ca48f3b29b299b67b7eb12d7021ae51")
PUBLIC_KEY = bytes.fromhex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
BLOCKS: list[dict[str, Any]] = json.loads((VECTORS / "blocks.json").read_text())

_WIDTHS = {0: 1, 1: 2, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8}
_FLOATS = {1, 2, 3, 4}


class _UsesZstd(Exception):
    pass


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _plain_block(stored: bytes) -> bytes:
    magic, version, dtype, plain_length = struct.unpack_from("<3sBBI", stored)
    assert (magic, version) == (b"FLB", 1)
    width, position, plain = _WIDTHS[dtype], 9, b""
    while len(plain) < plain_length:
        length = min(262_144, plain_length - len(plain))
        form, position = stored[position], position + 1
        streams: list[bytes] = []
        for _ in range(width if form == 1 else 1):
            method, size = struct.unpack_from("<BI", stored, position)
            body = stored[position + 5 : position + 5 + size]
            position += 5 + size
            if method == 1:
                raise _UsesZstd
            streams.append(zlib.decompress(body, -15) if method == 2 else body)
        if form == 0:
            plain += streams[0]
            continue
        for column in zip(*streams, strict=True):
            word = int.from_bytes(bytes(column), "little")
            if dtype in _FLOATS:
                word = word >> 1 | (word & 1) << (8 * width - 1)
            plain += word.to_bytes(width, "little")
        plain += stored[position : position + length % width]
        position += length % width
    assert position == len(stored)
    return plain


def _read_from_the_document(folder: Path, artifact: str) -> dict[str, bytes]:
    digits = artifact.removeprefix("sha256:")
    manifest_bytes = (folder / "manifests" / f"{digits}.json").read_bytes()
    assert _sha256(manifest_bytes) == artifact
    manifest = json.loads(manifest_bytes)
    assert (manifest["format"], manifest["version"]) == ("fairlead/manifest", 1)
    newest = max((folder / "layouts" / digits).iterdir())
    layout_bytes = newest.read_bytes()
    assert newest.name == f"0000000001-{_sha256(layout_bytes).removeprefix('sha256:')}.json.gz"
    layout = json.loads(gzip.decompress(layout_bytes))
    assert (layout["format"], layout["version"], layout["artifact"]) == ("fairlead/layout", 1, artifact)
    found: dict[str, bytes] = {}
    for file, entry in zip(layout["files"], manifest["files"], strict=True):
        body = b""
        for index in file["blocks"]:
            block = layout["blocks"][index]
            pack = layout["packs"][block["pack"]].removeprefix("sha256:")
            pack_bytes = (folder / "packs" / pack[:2] / f"{pack}.pack").read_bytes()
            stored = pack_bytes[block["offset"] : block["offset"] + block["stored_length"]]
            assert _sha256(stored) == block["stored_digest"]
            plain = _plain_block(stored)
            assert _sha256(plain) == block["digest"]
            body += plain
        assert (file["path"], len(body), _sha256(body)) == (entry["path"], entry["size"], entry["digest"])
        found[file["path"]] = body
    return found


def test_this_release_and_the_document_read_the_same_bytes() -> None:
    reader = ArtifactReader.open(LocalStore(LOCATION), DOMAIN, ARTIFACT)
    reader.verify()
    found = {file.path: reader.read_file(file.path) for file in reader.manifest.files}
    assert found == _read_from_the_document(LOCATION / "acme" / "eu-only" / "plain", ARTIFACT)
    assert found["config/größe.json"] == found["copy.json"] == b'{"n": 1}\n'
    assert Manifest.parse(reader.manifest.to_bytes()).digest == ARTIFACT


def test_the_index_of_a_pack_is_where_the_document_says() -> None:
    store = LocalStore(LOCATION)
    packs = [pack for item in store.list(DOMAIN.pack_prefix()) if (pack := DOMAIN.parse_pack_key(item.key))]
    assert len(packs) > 1
    for pack in packs:
        data = store.read(DOMAIN.pack_key(pack))
        assert _sha256(data) == pack
        assert data[:8] == b"\x89FLPACK\x01"
        length, digest, magic = struct.unpack("<I32s8s", data[-44:])
        index = data[-44 - length : -44]
        assert (hashlib.sha256(index).digest(), magic) == (digest, b"\x01FLPEND\x89")
        rows = list(struct.iter_unpack("<32s32sQIIB", index))
        for plain_digest, stored_digest, offset, stored_length, plain_length, codec in rows:
            stored = data[offset : offset + stored_length]
            assert hashlib.sha256(stored).digest() == stored_digest
            plain = _plain_block(stored)
            assert (len(plain), hashlib.sha256(plain).digest(), codec) == (plain_length, plain_digest, 1)
        assert len(rows) == len(read_pack_index(store, DOMAIN, pack)) == len(verify_pack(store, DOMAIN, pack))


@pytest.mark.parametrize("block", BLOCKS, ids=[block["name"] for block in BLOCKS])
def test_a_stored_block_of_the_first_release_is_read(block: dict[str, Any]) -> None:
    stored = base64.b64decode(block["stored"])
    plain = decode_block(stored, digest=block["digest"], plain_length=block["plain_length"])
    try:
        assert _plain_block(stored) == plain
    except _UsesZstd:
        assert block["name"] in {"repeats", "counts", "nans", "longs", "two chunks"}


def test_signed_refs_of_the_first_release_are_read() -> None:
    refs = read_refs(LocalStore(LOCATION), "acme", {key_id_of(PUBLIC_KEY): PUBLIC_KEY}, seen_revision=7)
    assert refs.resolve("churn@production").targets[0].digest == ARTIFACT
    envelope = json.loads((LOCATION / "acme" / "refs" / "0000000000000007.json").read_bytes())
    payload = json.loads(base64.b64decode(envelope["payload"]))
    assert (envelope["key_id"], len(base64.b64decode(envelope["signature"]))) == (key_id_of(PUBLIC_KEY), 64)
    assert [ref["name"] for ref in payload["refs"]] == ["churn@champion", "churn@production"]
