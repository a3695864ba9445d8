"""The manifest: what an artifact is, whatever way it is stored.

Version 1 is canonical JSON: the files in order of path, each with its size and the sha256 of its bytes. The sha256 of
the manifest's bytes is the artifact's name. Laws: `Manifest.parse(m.to_bytes()) == m`, and one set of files has one
sequence of bytes, so equal content has an equal name on every machine.

Paths are relative, in NFC, and safe to create below any folder of any operating system that tells them apart: no
`..`, no drive letter, no two paths that differ only by case, none that is a folder of another.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import (
    CorruptManifest,
    CorruptObject,
    InvalidDigest,
    InvalidInput,
    InvalidManifest,
    JsonValue,
    ObjectNotFound,
)
from fairlead.core.ids import Digest, parse_digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.domain import DedupDomain

FORMAT = "fairlead/manifest"
VERSION = 1
FILES_MAX = 100_000
MANIFEST_MAX_BYTES = 64 * 2**20
FILE_MAX_BYTES = 2**50
_PATH_MAX_BYTES = 1024
_PART_MAX_BYTES = 255
_DRIVE = re.compile(r"[A-Za-z]:")
_READ_BYTES = 2**20

Content = Path | bytes | Callable[[], BinaryIO]
"""One file: where it is, its bytes, or what opens it as a seekable stream that may be opened more than once."""

Source = Path | Mapping[str, Path] | Mapping[str, bytes] | Mapping[str, Content]
"""What an artifact is made of: one file, one folder, or a mapping from path to file, bytes or opener."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of an artifact: its path, size in bytes and the digest of its bytes."""

    path: str
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact, in order of path.

    Raises:
        InvalidManifest: if there is no file, a path breaks a rule, or two paths cannot live side by side.
    """

    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.files) <= FILES_MAX:
            raise InvalidManifest(f"An artifact holds 1 to {FILES_MAX} files, not {len(self.files)}.")
        paths = [file.path for file in self.files]
        if paths != sorted(paths):
            raise InvalidManifest("The files of a manifest must be in order of their paths.")
        check_paths(paths)
        for file in self.files:
            if not 0 <= file.size <= FILE_MAX_BYTES:
                raise InvalidManifest(f"{file.path!r} cannot have {file.size} bytes.", path=file.path)

    @property
    def digest(self) -> Digest:
        """The artifact's name."""
        return sha256_digest(self.to_bytes())

    @property
    def plain_bytes(self) -> int:
        """The size of all files together, in bytes."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> FileEntry:
        """The entry of one file.

        Raises:
            InvalidInput: if the artifact has no such file.
        """
        for file in self.files:
            if file.path == path:
                return file
        raise InvalidInput(f"The artifact {self.digest} holds no file {path[:120]!r}.", path=path[:_PATH_MAX_BYTES])

    def to_bytes(self) -> bytes:
        """The canonical bytes, whose sha256 is the name."""
        files: list[JsonValue] = [
            {"path": file.path, "size": file.size, "digest": str(file.digest)} for file in self.files
        ]
        return canonical_json({"format": FORMAT, "version": VERSION, "files": files})

    @staticmethod
    def parse(data: bytes, *, digest: Digest | None = None) -> Manifest:
        """Read a manifest's bytes; with `digest`, only those that have this name.

        Raises:
            CorruptManifest: if the bytes do not have the name `digest`.
            InvalidManifest: if they are not the canonical bytes of a manifest of version 1.
        """
        if digest is not None and sha256_digest(data) != digest:
            raise CorruptManifest(
                f"The stored manifest of {digest} has other bytes than its name says.", artifact=digest
            )
        if len(data) > MANIFEST_MAX_BYTES:
            raise InvalidManifest(f"A manifest of {len(data)} bytes is larger than {MANIFEST_MAX_BYTES}.")
        try:
            manifest = Manifest(files=tuple(_parse_files(json.loads(data))))
        except (ValueError, KeyError, TypeError, RecursionError, InvalidDigest):
            raise InvalidManifest("The bytes are not a manifest of version 1.") from None
        # Equality with the canonical form also refuses what JSON readers pass over: doubled keys, white space.
        if manifest.to_bytes() != data:
            raise InvalidManifest("The bytes are not the canonical form of their manifest.")
        return manifest


def _parse_files(value: object) -> Iterator[FileEntry]:
    record = cast("dict[str, object]", value)
    if record["format"] != FORMAT or record["version"] != VERSION:
        raise InvalidManifest(
            f"The manifest is of another format than {FORMAT} version {VERSION}.",
            hint="Upgrade Fairlead if a newer release wrote it.",
        )
    for item in cast("list[dict[str, object]]", record["files"]):
        path, size, digest = item["path"], item["size"], item["digest"]
        if not isinstance(path, str) or type(size) is not int or not isinstance(digest, str):
            raise TypeError
        yield FileEntry(path=path, size=size, digest=parse_digest(digest))


def check_path(path: str) -> str:
    r"""Return a path when it may stand in a manifest.

    Raises:
        InvalidManifest: if it is absolute, climbs, is not NFC, is too long, or holds a backslash, a control character
            or a drive letter.
    """
    reason = _path_fault(path)
    if reason:
        shown = path[:120].encode("utf-8", "replace").decode()
        raise InvalidManifest(f"{shown!r} cannot be a path in an artifact: {reason}.", path=shown)
    return path


def _path_fault(path: str) -> str | None:
    parts = path.split("/")
    checks = (
        (not path, "it is empty"),
        (any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in path), "it holds a control"),
        ("\\" in path, "it holds a backslash"),
        (any(part in {"", ".", ".."} for part in parts), "it is absolute or has an empty, `.` or `..` part"),
        (any(_DRIVE.match(part) for part in parts), "it holds a drive letter"),
        (not unicodedata.is_normalized("NFC", path), "it is not in Unicode form NFC"),
    )
    for is_broken, reason in checks:
        if is_broken:
            return reason
    if len(path.encode()) > _PATH_MAX_BYTES or any(len(part.encode()) > _PART_MAX_BYTES for part in parts):
        return f"it is longer than {_PATH_MAX_BYTES} bytes, or a part of it longer than {_PART_MAX_BYTES}"
    return None


def check_paths(paths: Iterable[str]) -> None:
    """Check each path, and that all can live side by side, also where names differing only by case are one.

    Raises:
        InvalidManifest: naming the first two that cannot.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        folded = unicodedata.normalize("NFC", check_path(path).casefold())
        if other := files.get(folded):
            reason = "are the same" if other == path else "differ only by case"
            raise InvalidManifest(f"The paths {other!r} and {path!r} {reason}.", path=path)
        files[folded] = path
        end = folded.find("/")
        while end >= 0:
            folders.setdefault(folded[:end], path)
            end = folded.find("/", end + 1)
    for folded, path in files.items():
        if folded in folders:
            raise InvalidManifest(f"{path!r} is a file, and a folder of {folders[folded]!r}.", path=path)


def build_manifest(source: Source) -> Manifest:
    """The manifest of a file, a folder or a mapping, by reading all of it once.

    Raises:
        InvalidManifest: if a path breaks a rule, or a link leads out of the folder.
        InvalidInput: if a file is missing or cannot be read.
    """
    entries: list[FileEntry] = []
    for path, content in sorted(list_files(source).items()):
        hasher, size = hashlib.sha256(), 0
        with open_content(path, content) as stream:
            while piece := stream.read(_READ_BYTES):
                hasher.update(piece)
                size += len(piece)
        entries.append(FileEntry(path=path, size=size, digest=Digest("sha256:" + hasher.hexdigest())))
    return Manifest(files=tuple(entries))


def list_files(source: Source) -> dict[str, Content]:
    """The files of a source by their paths in the artifact; a single file has its own name as its path.

    Raises:
        InvalidManifest: if a path breaks a rule, a link leads out of the folder, or something is no regular file.
        InvalidInput: if the source does not exist or cannot be listed.
    """
    found: dict[str, Content]
    if isinstance(source, Mapping):
        found = {unicodedata.normalize("NFC", path): content for path, content in source.items()}
        if len(found) != len(source):
            raise InvalidManifest("Two paths of the source are the same in Unicode form NFC.")
    elif source.is_dir():
        root = source.resolve()
        found = {}
        for file in _walk(source, root):
            path = unicodedata.normalize("NFC", file.relative_to(source).as_posix())
            if path in found:
                raise InvalidManifest(f"Two files have the name {path!r} in Unicode form NFC.", path=path)
            found[path] = file
    elif source.exists():
        found = {unicodedata.normalize("NFC", source.absolute().name): source}
    else:
        raise InvalidInput(f"There is no file or folder {str(source)!r}.")
    check_paths(sorted(found))
    for path, content in found.items():
        if isinstance(content, Path) and not content.is_file():
            raise InvalidManifest(f"{path!r} is missing or not a regular file.", path=path)
    return found


def _walk(folder: Path, root: Path) -> Iterator[Path]:
    try:
        items = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError as error:
        raise InvalidInput(f"The folder {folder.name!r} cannot be listed: {error.strerror}.") from None
    for item in items:
        path = folder / item.name
        if item.is_symlink():
            target = path.resolve()
            if not target.is_relative_to(root):
                raise InvalidManifest(
                    f"The link {item.name!r} leads out of the folder.", hint="Copy the file in, or leave the link out."
                )
            if target.is_dir():
                raise InvalidManifest(f"The link {item.name!r} leads to a folder.", hint="Copy the folder in.")
        if item.is_dir():
            yield from _walk(path, root)
        else:
            yield path


def open_content(path: str, content: Content) -> BinaryIO:
    """Open one file of a source for reading; `path` is its name in errors.

    Raises:
        InvalidInput: if it cannot be read or is no regular file.
    """
    if isinstance(content, bytes):
        return BytesIO(content)
    if not isinstance(content, Path):
        return content()
    try:
        # Not to hang on a pipe that took the file's place since it was listed.
        handle = os.open(content, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise InvalidInput(f"{path!r} is not a regular file.")
        return os.fdopen(handle, "rb")
    except OSError as error:
        raise InvalidInput(f"{path!r} cannot be read: {error.strerror}.") from None


def read_manifest(store: ObjectStore, domain: DedupDomain, artifact: Digest) -> Manifest:
    """Read the manifest of an artifact.

    Raises:
        ObjectNotFound: if the location holds none.
        CorruptManifest: if the stored bytes are not those of the name.
    """
    return Manifest.parse(store.read(domain.manifest_key(artifact)), digest=artifact)


def write_manifest(store: ObjectStore, domain: DedupDomain, manifest: Manifest, *, is_new: bool = False) -> int:
    """Store a manifest unless the very same bytes are there already; the bytes sent.

    One that `is_new`, as far as anybody knows, is not looked up first where the store is true to create-only writes.
    """
    data = manifest.to_bytes()
    key = domain.manifest_key(sha256_digest(data))
    if is_new and store.has_create_only and store.write(key, data, create_only=True):
        return len(data)
    try:
        if store.read(key) == data:
            return 0
    except (ObjectNotFound, CorruptObject):
        pass
    store.write(key, data)
    return len(data)
