from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import CorruptManifest, InvalidInput, InvalidManifest, InvalidName
from fairlead.core.ids import sha256_digest
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.manifest import FileEntry, Manifest, build_manifest

_PARTS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\:"), min_size=1, max_size=12).map(
    lambda text: unicodedata.normalize("NFC", text)
)
_PATHS = st.lists(_PARTS, min_size=1, max_size=4).map("/".join)


def _entry(path: str, body: bytes = b"") -> FileEntry:
    return FileEntry(path=path, size=len(body), digest=sha256_digest(body))


def _raw(**changes: object) -> bytes:
    record = {
        "files": [{"digest": sha256_digest(b""), "path": "a", "size": 0}],
        "format": "fairlead/manifest",
        "version": 1,
    } | changes
    return json.dumps(record, separators=(",", ":"), sort_keys=True).encode()


@given(files=st.dictionaries(_PATHS, st.binary(max_size=20), min_size=1, max_size=8))
def test_a_manifest_is_read_back_as_written_or_refused(files: dict[str, bytes]) -> None:
    try:
        manifest = build_manifest(files)
    except InvalidManifest:
        return
    assert Manifest.parse(manifest.to_bytes(), digest=manifest.digest) == manifest
    assert [file.path for file in manifest.files] == sorted(files)
    assert build_manifest(dict(reversed(files.items()))).digest == manifest.digest


def test_the_name_of_a_known_manifest_never_changes() -> None:
    manifest = build_manifest({"model.bin": b"abc", "config/größe.json": b"{}"})
    assert manifest.to_bytes().decode() == (
        '{"files":['
        '{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","path":"config/größe.json","size":2},'
        '{"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","path":"model.bin","size":3}'
        '],"format":"fairlead/manifest","version":1}'
    )
    assert manifest.digest == "sha256:e36cf145fbf60a505bd3027f0232836a3bd31ec3bb2237f16a0f1df141ce386b"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a", "a/", "a//b", ".", "..", "./a", "a/..", "../a", "a/./b", "a\\b", "a\0", "a\nb", "a\x7f", "C:", "c:/x",
        "x/d:y",
        "e\u0301", "\ud800", "a\u2028b", "x" * 256, "/".join(["x" * 200] * 6),
    ],
)  # fmt: skip
def test_a_path_that_is_not_safe_anywhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidManifest):
        Manifest(files=(_entry(path),))


@pytest.mark.parametrize(
    "paths", [["a", "a"], ["a", "a/b"], ["A", "a"], ["A/x", "a"], ["STRASSE", "straße"], ["b", "a"], []]
)
def test_paths_that_cannot_live_side_by_side_are_refused(paths: list[str]) -> None:
    with pytest.raises(InvalidManifest):
        Manifest(files=tuple(_entry(path) for path in paths))


def test_paths_that_share_a_beginning_are_fine() -> None:
    paths = sorted(["a.b", "a/b", "a/c", "ab", "a-b/x"])
    assert [file.path for file in Manifest(files=tuple(_entry(path) for path in paths)).files] == paths


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b"1" * 5000, _raw() + b"\n", _raw(version=2),
        _raw(version=1.0),
        _raw(version=True), _raw(format="x"), _raw(files=[]), _raw(files=[7]), _raw(extra=1),
        _raw(files=[{"digest": sha256_digest(b""), "path": "a", "size": -1}]),
        _raw(files=[{"digest": sha256_digest(b""), "path": "a", "size": 2**60}]),
        _raw(files=[{"digest": sha256_digest(b""), "path": "a", "size": True}]),
        _raw(files=[{"digest": "sha256:00", "path": "a", "size": 0}]),
        _raw(files=[{"digest": sha256_digest(b""), "path": 3, "size": 0}]),
        _raw(files=[{"digest": sha256_digest(b""), "path": "\ud800", "size": 0}]),
        _raw().replace(b'"version":1', b'"version":1,"version":1'),
    ],
)  # fmt: skip
def test_bytes_that_are_not_a_canonical_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        Manifest.parse(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        Manifest.parse(data)
    with pytest.raises(CorruptManifest):
        Manifest.parse(data, digest=sha256_digest(b"another"))


def test_a_folder_and_a_mapping_of_the_same_files_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "sub" / "b.bin").write_bytes(b"b")
    (tmp_path / "a.txt").write_bytes(b"")
    assert build_manifest(tmp_path) == build_manifest({"sub/b.bin": b"b", "a.txt": tmp_path / "a.txt"})
    assert [file.path for file in build_manifest(tmp_path / "sub" / "b.bin").files] == ["b.bin"]


def test_a_decomposed_file_name_is_composed(tmp_path: Path) -> None:
    (tmp_path / "gro\u0308\u00dfe").write_bytes(b"1")
    assert build_manifest(tmp_path).files[0].path == "gr\u00f6\u00dfe"


def test_links_may_point_inside_the_folder_and_nowhere_else(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (inside / "real").write_bytes(b"1")
    (inside / "link").symlink_to("real")
    assert [file.path for file in build_manifest(inside).files] == ["link", "real"]
    (inside / "out").symlink_to("../secret")
    with pytest.raises(InvalidManifest, match="leads out"):
        build_manifest(inside)
    (inside / "out").unlink()
    (inside / "dangling").symlink_to("nowhere")
    with pytest.raises(InvalidManifest, match="missing"):
        build_manifest(inside)
    (inside / "dangling").unlink()
    (inside / "loop").symlink_to(".")
    with pytest.raises(InvalidManifest, match="leads to a folder"):
        build_manifest(inside)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidManifest, match="regular file"):
        build_manifest(tmp_path)
    with pytest.raises(InvalidManifest, match="regular file"):
        build_manifest(tmp_path / "pipe")


def test_a_source_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no file or folder"):
        build_manifest(tmp_path / "missing")
    with pytest.raises(InvalidManifest, match="1 to"):
        build_manifest(tmp_path)


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "a b", "ä", ".a", "a.", "x" * 200, "a\0", "-a"])
def test_a_domain_whose_parts_could_leave_their_place_is_refused(part: str) -> None:
    with pytest.raises(InvalidName):
        DedupDomain(part, "global")
    with pytest.raises(InvalidName):
        DedupDomain("acme", part)
    with pytest.raises(InvalidName):
        DedupDomain("acme", "global", part)


def test_a_residency_class_cannot_take_the_place_of_refs() -> None:
    with pytest.raises(InvalidName):
        DedupDomain("acme", "refs")
