"""One artifact as one file: the same bytes out as in, on a machine that never saw the location."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fairlead.core.errors import CorruptArchive, IntegrityError, InvalidInput, ObjectNotFound, PermissionDenied
from fairlead.sync.store.archive import ArchiveHeader, ArchiveStore, export_artifact, is_archive
from fairlead.sync.store.bases import Base
from fairlead.sync.store.blocks import no_blocks
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.offline import list_artifacts, verify_artifact, verify_files
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import WrittenArtifact, write_artifact
from fairlead.testing.objects import MemoryStore

DOMAIN = DedupDomain("acme", "eu")
ELSEWHERE = DedupDomain("other", "eu")
FILES = {"weights.bin": bytes(range(256)) * 9, "config/größe.json": b'{"layers": 2}', "empty": b""}


def _export(store: MemoryStore, written: WrittenArtifact, file: Path) -> Path:
    header = ArchiveHeader(artifact=written.digest, kind="model", residency="eu")
    exported = export_artifact(store, DOMAIN, header, file)
    assert exported.size_bytes == file.stat().st_size
    return file


def _read_all(file: Path) -> None:
    with ArchiveStore(file) as archive:
        ArtifactReader.open(archive, archive.domain, archive.header.artifact).verify()


def test_an_archive_is_read_imported_and_made_again_byte_for_byte(store: MemoryStore, tmp_path: Path) -> None:
    written = write_artifact(store, DOMAIN, FILES)
    file = _export(store, written, tmp_path / "a.fairlead")
    assert is_archive(file)
    assert _export(store, written, tmp_path / "b.fairlead").read_bytes() == file.read_bytes()
    other = MemoryStore()
    with ArchiveStore(file, ELSEWHERE) as archive:
        assert archive.header == ArchiveHeader(artifact=written.digest, kind="model", residency="eu")
        report = copy_artifact(archive, other, ELSEWHERE, written.digest)
        assert copy_artifact(archive, other, ELSEWHERE, written.digest).bytes_moved == 0
        with pytest.raises(PermissionDenied):
            archive.write("acme/eu/plain/x", b"")
    assert report.blocks_moved == 2
    reader = ArtifactReader.open(other, ELSEWHERE, written.digest)
    assert {path: reader.read_file(path) for path in FILES} == FILES


def test_an_archive_is_a_plain_tar_file(store: MemoryStore, tmp_path: Path) -> None:
    written = write_artifact(store, DOMAIN, FILES)
    with tarfile.open(_export(store, written, tmp_path / "a.fairlead"), "r:") as archive:
        members = archive.getmembers()
    assert members[0].name == "fairlead-archive.json"
    assert [member.name.split("/")[0] for member in members[1:]] == ["packs", "layouts", "manifests"]
    assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}


def test_an_archive_of_a_delta_holds_all_that_is_needed(store: MemoryStore, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.02, (200, 200)).astype(np.float32)
    first = write_artifact(store, DOMAIN, {"m": save({"t": weights})}, known_blocks=no_blocks)
    tuned = save({"t": (weights * np.float32(1.0001)).astype(np.float32)})
    base = Base(reader=ArtifactReader.open(store, DOMAIN, first.digest))
    second = write_artifact(store, DOMAIN, {"m": tuned}, known_blocks=no_blocks, bases=[base])
    assert second.delta_blocks == 1
    with ArchiveStore(_export(store, second, tmp_path / "a.fairlead")) as archive:
        reader = ArtifactReader.open(archive, archive.domain, second.digest)
        reader.verify()
        assert reader.read_file("m") == tuned


def test_every_damaged_byte_of_an_archive_is_told(store: MemoryStore, tmp_path: Path) -> None:
    written = write_artifact(store, DOMAIN, FILES)
    file = _export(store, written, tmp_path / "a.fairlead")
    body = file.read_bytes()
    with tarfile.open(file) as archive:
        places = [(each.offset_data, each.size) for each in archive.getmembers()]
    for start, size in places:
        for position in range(start, start + size, 7):
            file.write_bytes(body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :])
            with pytest.raises(IntegrityError):
                _read_all(file)
    for length in (0, 100, 512, len(body) // 2, len(body) - 2000):
        file.write_bytes(body[:length])
        with pytest.raises((IntegrityError, ObjectNotFound)):
            _read_all(file)


def test_a_tar_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w") as archive:
        archive.add(__file__, "fairlead-archive.json")
    with pytest.raises(CorruptArchive):
        ArchiveStore(file)
    with pytest.raises(InvalidInput):
        ArchiveStore(tmp_path / "missing")
    assert not is_archive(tmp_path / "missing")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.SYMTYPE])
def test_an_archive_with_a_member_that_is_no_file_is_refused_by_its_header(tmp_path: Path, kind: bytes) -> None:
    file = tmp_path / "x.tar"
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, 2**33
    # Sparse: whoever reads what the header promises would need as much memory.
    with file.open("wb") as out:
        out.write(member.tobuf(tarfile.GNU_FORMAT))
        out.truncate(2**33 + 2**20)
    with pytest.raises(CorruptArchive):
        ArchiveStore(file)


def test_an_export_replaces_nothing_and_leaves_nothing_half_done(store: MemoryStore, tmp_path: Path) -> None:
    written = write_artifact(store, DOMAIN, FILES)
    file = tmp_path / "a.fairlead"
    file.write_text("mine")
    with pytest.raises(InvalidInput):
        _export(store, written, file)
    store.objects[DOMAIN.pack_key(written.layout.packs[0])] = b""
    with pytest.raises(IntegrityError):
        _export(store, written, tmp_path / "b.fairlead")
    assert [each.name for each in tmp_path.iterdir()] == ["a.fairlead"]


def test_an_export_to_where_nothing_can_be_written_blames_no_replica(store: MemoryStore, tmp_path: Path) -> None:
    written = write_artifact(store, DOMAIN, FILES)
    with pytest.raises(InvalidInput, match="cannot be written: No such file or directory"):
        _export(store, written, tmp_path / "nowhere" / "a.fairlead")


def test_a_location_is_verified_without_a_server(store: MemoryStore) -> None:
    whole = write_artifact(store, DOMAIN, FILES)
    damaged = write_artifact(store, ELSEWHERE, {"f": b"content" * 50})
    hidden = DedupDomain("acme", "eu", "01957f2e")
    write_artifact(store, hidden, FILES)
    key = ELSEWHERE.pack_key(damaged.layout.packs[0])
    store.objects[key] = store.objects[key][:-50] + b"?" + store.objects[key][-49:]
    verdicts = {each: verify_artifact(store, *each).verdict for each in list_artifacts(store)}
    assert verdicts == {
        (DOMAIN, whole.digest): "verified",
        (ELSEWHERE, damaged.digest): "corrupt-pack",
        (hidden, whole.digest): "encrypted",
    }
    assert verify_artifact(store, ELSEWHERE, whole.digest).verdict == "object-not-found"


def test_plain_files_are_compared_with_a_digest(store: MemoryStore, tmp_path: Path) -> None:
    written = write_artifact(store, DOMAIN, FILES)
    ArtifactReader.open(store, DOMAIN, written.digest).download(tmp_path / "files")
    assert verify_files(tmp_path / "files", written.digest).verdict == "verified"
    (tmp_path / "files" / "empty").write_text("no more")
    assert verify_files(tmp_path / "files", written.digest).verdict == "corrupt-manifest"
