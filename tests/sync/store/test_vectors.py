"""Bytes that the first release wrote are read for ever: by this release, and by a reader of nothing but the document.

The second reader, `plain_reader.py`, is written from `docs/reference/format.md` with the standard library alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from fairlead.core.ids import Digest
from fairlead.sync.store import plain_reader
from fairlead.sync.store.codec import decode_block
from fairlead.sync.store.delta import decode_delta
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.layout import read_outline
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
TUNED = Digest("sha256:8f70f3821ed7d1bbe20dfcfca8f6434193d4da9432a7f7771c9fe80ff363776b")
DESCRIBED = Digest("sha256:7cc98a9129fa46ba14c9a17a0df6475191c2d901f089305ff1562742a714cdee")
BLOCKS: list[dict[str, Any]] = json.loads((VECTORS / "blocks.json").read_text())


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _read_from_the_document(folder: Path, artifact: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def write(path: str, piece: bytes) -> None:
        found[path] = found.get(path, b"") + piece

    assert plain_reader.read_artifact(folder, artifact, write) == len(found)
    return found


def test_this_release_and_the_document_read_the_same_bytes() -> None:
    reader = ArtifactReader.open(LocalStore(LOCATION), DOMAIN, ARTIFACT)
    reader.verify()
    found = {file.path: reader.read_file(file.path) for file in reader.manifest.files}
    assert found == _read_from_the_document(LOCATION / "acme" / "eu-only" / "plain", ARTIFACT)
    assert found["config/größe.json"] == found["copy.json"] == b'{"n": 1}\n'
    assert Manifest.parse(reader.manifest.to_bytes()).digest == ARTIFACT


def test_blocks_that_a_layout_leaves_to_the_index_of_a_pack_are_read() -> None:
    location = VECTORS / "described"
    reader = ArtifactReader.open(LocalStore(location), DOMAIN, DESCRIBED)
    assert [run.blocks for run in read_outline(LocalStore(location), DOMAIN, DESCRIBED, reader.layout_key).runs] == [17]
    reader.verify()
    found = {file.path: reader.read_file(file.path) for file in reader.manifest.files}
    assert found == _read_from_the_document(location, DESCRIBED)
    assert (len(found), found["00.txt"], found["02.txt"]) == (18, b"another part\n", b"part 2\n" * 3)


def test_the_index_of_a_pack_is_where_the_document_says() -> None:
    store = LocalStore(LOCATION)
    packs = [pack for item in store.list(DOMAIN.pack_prefix()) if (pack := DOMAIN.parse_pack_key(item.key))]
    assert len(packs) > 1
    for pack in packs:
        data = store.read(DOMAIN.pack_key(pack))
        assert _sha256(data) == pack
        version = data[7]
        assert (data[:7], version) in {(b"\x89FLPACK", 1), (b"\x89FLPACK", 2)}
        length, digest, magic = struct.unpack("<I32s8s", data[-44:])
        index = data[-44 - length : -44]
        assert (hashlib.sha256(index).digest(), magic) == (digest, bytes([version]) + b"FLPEND\x89")
        rows = list(struct.iter_unpack("<32s32sQIIB" + ("32s" if version == 2 else ""), index))
        for plain_digest, stored_digest, offset, stored_length, plain_length, codec, *base in rows:
            stored = data[offset : offset + stored_length]
            assert hashlib.sha256(stored).digest() == stored_digest
            if codec == 1:
                plain = plain_reader.read_block(stored)
                assert (len(plain), hashlib.sha256(plain).digest()) == (plain_length, plain_digest)
            else:
                assert (codec, bool(any(base[0]))) == (2, True)
        assert len(rows) == len(read_pack_index(store, DOMAIN, pack)) == len(verify_pack(store, DOMAIN, pack))


@pytest.mark.parametrize("block", BLOCKS, ids=[block["name"] for block in BLOCKS])
def test_a_stored_block_of_the_first_release_is_read(block: dict[str, Any]) -> None:
    stored, digest = base64.b64decode(block["stored"]), block["digest"]
    if "base" in block:
        base = zlib.decompress(base64.b64decode(block["base"]))
        plain = decode_delta(stored, base, digest=digest, plain_length=block["plain_length"])
        assert plain_reader.read_delta(stored, base) == plain
    else:
        plain = decode_block(stored, digest=digest, plain_length=block["plain_length"])
        assert plain_reader.read_block(stored) == plain


@pytest.mark.parametrize("level", [-5, 1, 3, 19])
def test_the_plain_reader_decodes_what_zstd_writes(level: int) -> None:
    rng = np.random.default_rng(level + 5)
    words = [rng.bytes(3) for _ in range(300)]
    for plain in (
        b"a",
        b"ab" * 5000,
        b"".join(words[place] for place in rng.integers(0, 300, 4000)),
        (rng.normal(0, 9, 20_000).astype("<i2") & 255).astype("<u1").tobytes(),
        rng.bytes(2000) + bytes(140_000) + rng.bytes(2000),
        Path(__file__).read_bytes(),
    ):
        frame = zstandard.ZstdCompressor(level=level).compress(plain)
        assert plain_reader.read_zstd(frame, len(plain)) == plain
        with pytest.raises(plain_reader.Damaged):
            plain_reader.read_zstd(frame + b"\0", len(plain))
        with pytest.raises(plain_reader.Damaged):
            plain_reader.read_zstd(frame, len(plain) + 1)


def test_the_plain_reader_needs_no_package_and_refuses_what_is_damaged(tmp_path: Path) -> None:
    # Isolated and without site-packages: nothing but the standard library can be imported.
    command = [sys.executable, "-I", "-S", plain_reader.__file__, str(LOCATION), TUNED, str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "every byte checked" in done.stdout
    reader = ArtifactReader.open(LocalStore(LOCATION), DOMAIN, TUNED)
    for file in reader.manifest.files:
        assert (tmp_path / "out" / file.path).read_bytes() == reader.read_file(file.path)

    folder = tmp_path / "damaged"
    shutil.copytree(LOCATION, folder)
    for pack in folder.rglob("*.pack"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 3] ^= 1
        pack.write_bytes(data)
    command = [sys.executable, "-I", "-S", plain_reader.__file__, str(folder), TUNED, str(tmp_path / "other")]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "other bytes than it should" in refused.stderr


def test_signed_refs_of_the_first_release_are_read() -> None:
    refs = read_refs(LocalStore(LOCATION), "acme", {key_id_of(PUBLIC_KEY): PUBLIC_KEY}, seen_revision=7)
    assert refs.resolve("churn@production").targets[0].digest == ARTIFACT
    envelope = json.loads((LOCATION / "acme" / "refs" / "0000000000000007.json").read_bytes())
    payload = json.loads(base64.b64decode(envelope["payload"]))
    assert (envelope["key_id"], len(base64.b64decode(envelope["signature"]))) == (key_id_of(PUBLIC_KEY), 64)
    assert [ref["name"] for ref in payload["refs"]] == ["churn@champion", "churn@production"]
