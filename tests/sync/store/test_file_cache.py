from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.core.errors import CorruptBlock, CorruptPack, IntegrityError, StorageFull
from fairlead.core.ids import Digest, digest_hex
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.file_cache import ABANDONED_SECONDS, FileCache
from fairlead.sync.store.local import LocalStore
from fairlead.sync.store.manifest import FileEntry
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact
from fairlead.testing.flaky import CountingStore
from tests.faults import cache_user

DOMAIN = DedupDomain("acme", "global")
BIG = random.Random(7).randbytes(16_000_000)
FILES = {"MLmodel": b"flavors: {}\n", "data/big.bin": BIG, "data/same.bin": BIG, "empty": b""}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def digest(tmp_path: Path) -> Digest:
    return write_artifact(LocalStore(tmp_path / "location", create=True), DOMAIN, FILES, pack_bytes=4_000_000).digest


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "cache")


def open_counted(folder: Path, digest: Digest) -> tuple[ArtifactReader, CountingStore]:
    store = CountingStore(LocalStore(folder / "location"))
    return ArtifactReader.open(store, DOMAIN, digest), store


def check_all(cache: FileCache, reader: ArtifactReader, target: Path) -> None:
    for entry in reader.manifest.files:
        assert cache.copy(entry, target / entry.path)
        assert (target / entry.path).read_bytes() == FILES[entry.path]


def cached_file(folder: Path, entry: FileEntry) -> Path:
    digits = digest_hex(entry.digest)
    return folder / "cache" / "files" / digits[:2] / digits


def test_files_are_fetched_once_and_equal_ones_kept_once(tmp_path: Path, digest: Digest, cache: FileCache) -> None:
    reader, store = open_counted(tmp_path, digest)
    seen: list[tuple[int, int]] = []
    assert cache.manifest(digest) is None
    assert not cache.copy(reader.manifest.files[0], tmp_path / "out")
    cache.fill(reader, reader.manifest.files, lambda done, total: seen.append((done, total)))
    read = store.read_bytes
    assert read < len(BIG) * 1.1
    assert seen[-1][0] == seen[-1][1]
    cache.fill(reader, reader.manifest.files)
    assert store.read_bytes == read
    assert cache.manifest(digest) == reader.manifest
    check_all(cache, reader, tmp_path / "out")
    assert not list((tmp_path / "cache" / "partial").iterdir())


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"!" + data[1:], lambda data: data + b"!"])  # pyright: ignore[reportUnknownLambdaType]
def test_a_damaged_file_is_never_given_out_and_is_fetched_again(
    tmp_path: Path, digest: Digest, cache: FileCache, damage: Callable[[bytes], bytes]
) -> None:
    reader, _ = open_counted(tmp_path, digest)
    cache.fill(reader, reader.manifest.files)
    entry = reader.manifest.file("data/big.bin")
    kept = cached_file(tmp_path, entry)
    kept.write_bytes(damage(kept.read_bytes()))
    (tmp_path / "out").write_bytes(b"before")
    assert not cache.copy(entry, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"before"
    assert not kept.exists()
    cache.fill(reader, [entry])
    assert cache.copy(entry, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == BIG
    manifest = tmp_path / "cache" / "manifests" / digest_hex(digest)
    manifest.write_bytes(b"{}")
    assert cache.manifest(digest) is None
    assert not manifest.exists()


def test_what_was_fetched_before_a_kill_is_not_fetched_again(tmp_path: Path, digest: Digest, cache: FileCache) -> None:
    killed = subprocess.run(
        [sys.executable, cache_user.__file__, tmp_path, digest, tmp_path / "out", "die"], cwd=ROOT, check=False
    )
    assert killed.returncode == -9
    [begun] = [path for path in (tmp_path / "cache" / "partial" / digest_hex(digest)).iterdir() if path.stat().st_size]
    assert len(BIG) * 0.3 < begun.stat().st_size < len(BIG)
    with begun.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"torn by a loss of power")
    reader, store = open_counted(tmp_path, digest)
    before = store.read_bytes
    cache.fill(reader, reader.manifest.files)
    assert store.read_bytes - before < len(BIG) * 0.8
    check_all(cache, reader, tmp_path / "out")


def test_processes_that_want_one_artifact_at_once_fetch_it_once(tmp_path: Path, digest: Digest) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, cache_user.__file__, tmp_path, digest, tmp_path / f"out{number}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for number in range(3)
    ]
    read = [int(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum(read) < len(BIG) * 1.2
    for number in range(3):
        for path, data in FILES.items():
            assert (tmp_path / f"out{number}" / path).read_bytes() == data


@pytest.mark.parametrize("change", ["flip", "cut"])
def test_nothing_is_kept_of_a_location_whose_bytes_are_wrong(
    tmp_path: Path, digest: Digest, cache: FileCache, change: str
) -> None:
    reader, _ = open_counted(tmp_path, digest)
    for block in {block.pack: block for block in reader.layout.files["data/big.bin"]}.values():
        pack = tmp_path / "location" / DOMAIN.pack_key(block.pack)
        data = bytearray(pack.read_bytes())
        data[block.offset + 10] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data if change == "flip" else data[: block.offset + 10])
    with pytest.raises((CorruptBlock, CorruptPack)):
        cache.fill(reader, reader.manifest.files)
    assert not cache.copy(reader.manifest.file("data/big.bin"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_beginnings_that_nobody_went_on_from_are_removed(tmp_path: Path, digest: Digest, cache: FileCache) -> None:
    old, new = (tmp_path / "cache" / "partial" / name for name in ("a" * 64, "b" * 64))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"begun")
    past = time.time() - ABANDONED_SECONDS - 10
    os.utime(old, (past, past))
    reader, _ = open_counted(tmp_path, digest)
    cache.fill(reader, reader.manifest.files)
    assert not old.exists()
    assert new.exists()


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, digest: Digest) -> None:
    (tmp_path / "file").write_text("no folder")
    reader, _ = open_counted(tmp_path, digest)
    with pytest.raises(Exception, match="the cache of files") as refused:
        FileCache(tmp_path / "file" / "cache").fill(reader, reader.manifest.files)
    assert not isinstance(refused.value, IntegrityError | StorageFull | OSError)
