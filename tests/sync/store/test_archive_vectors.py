"""The archive that the first release wrote is read for ever, also with nothing but the standard library.

It holds one file three times: as it was first, tuned, and tuned again, the latter two as differences to the one before.
"""

from __future__ import annotations

import hashlib
import json
import struct
import tarfile
from pathlib import Path

from fairlead.core.ids import Digest
from fairlead.sync.store import plain_reader
from fairlead.sync.store.archive import ArchiveStore
from fairlead.sync.store.reader import ArtifactReader

ARCHIVE = Path(__file__).parent / "vectors" / "archive.fairlead"
ARTIFACT = Digest("sha256:577c8c7d9a966986fa914f6d30e9e6e97f0900eea436d688546550f37a712bd4")


def _read() -> dict[str, bytes]:
    with ArchiveStore(ARCHIVE) as archive:
        reader = ArtifactReader.open(archive, archive.domain, archive.header.artifact)
        reader.verify()
        assert [block.codec for block in reader.layout.blocks.values()] == [1, 1, 1, 2, 2]
        return {file.path: reader.read_file(file.path) for file in reader.manifest.files}


def test_the_archive_of_the_first_release_is_read_with_the_standard_library_alone(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE, "r:") as archive:
        assert archive.getnames()[0] == "fairlead-archive.json"
        archive.extractall(tmp_path, filter="data")
    header = json.loads((tmp_path / "fairlead-archive.json").read_bytes())
    digest = header.pop("digest")
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert digest == "sha256:" + hashlib.sha256(canonical).hexdigest()
    assert header == {
        "format": "fairlead/archive",
        "version": 1,
        "artifact": ARTIFACT,
        "kind": "model",
        "residency": "eu-only",
    }
    found: dict[str, bytes] = {}

    def write(path: str, piece: bytes) -> None:
        found[path] = found.get(path, b"") + piece

    plain_reader.read_artifact(tmp_path, ARTIFACT, write)
    assert found | {"empty": b""} == _read()
    assert found["config/größe.json"] == b'{"n": 1}\n'


def test_the_index_of_a_pack_with_deltas_is_where_the_document_says() -> None:
    with tarfile.open(ARCHIVE, "r:") as archive:
        packs = [name for name in archive.getnames() if name.startswith("packs/")]
        (pack,) = (archive.extractfile(name) for name in packs)
        assert pack is not None
        data = pack.read()
    assert packs[0].endswith(hashlib.sha256(data).hexdigest() + ".pack")
    assert data[:8] == b"\x89FLPACK\x02"
    length, digest, magic = struct.unpack("<I32s8s", data[-44:])
    index = data[-44 - length : -44]
    assert (hashlib.sha256(index).digest(), magic) == (digest, b"\x02FLPEND\x89")
    rows = list(struct.iter_unpack("<32s32sQIIB32s", index))
    stored_at = {row[0]: (data[row[2] : row[2] + row[3]], row[6]) for row in rows}

    def read(digest: bytes) -> bytes:
        stored, base = stored_at[digest]
        return plain_reader.read_block(stored) if base == bytes(32) else plain_reader.read_delta(stored, read(base))

    for plain_digest, stored_digest, _, _, plain_length, codec, base in rows:
        assert hashlib.sha256(stored_at[plain_digest][0]).digest() == stored_digest
        assert (base != bytes(32)) == (codec == 2)
        body = read(plain_digest)
        assert (len(body), hashlib.sha256(body).digest()) == (plain_length, plain_digest)
    assert len(rows) == 5
