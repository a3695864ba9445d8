"""An archive: one artifact as one file, for places that no network leads to.

It is an uncompressed tar file (USTAR) whose members are the objects of a location under their keys, without the dedup
domain: `fairlead-archive.json` first, which names the artifact, then packs, layout and manifest. So an archive is a
small read-only location: the ordinary reader verifies it, and importing is the ordinary copy. It holds all that its
layout stands on, and last, where the version is signed, its signatures (`signatures.json`). One layout gives one
sequence of bytes before them.
"""

from __future__ import annotations

import json
import os
import secrets
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tarfile import AREGTYPE, REGTYPE, ReadError
from types import TracebackType
from typing import IO, Any, BinaryIO, Self, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import (
    CorruptArchive,
    InvalidDigest,
    InvalidInput,
    InvalidName,
    JsonValue,
    ObjectNotFound,
    PermissionDenied,
)
from fairlead.core.ids import Digest, parse_digest, sha256_digest
from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.sync.store.blocks import Progress
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.keys import check_range
from fairlead.sync.store.local import translate_os_error

FORMAT = "fairlead/archive"
VERSION = 1
HEADER_NAME = "fairlead-archive.json"
SIGNATURES_NAME = "signatures.json"
SIGNATURES_FORMAT = "fairlead/signatures"
_HEADER_MAX_BYTES = 64 * 2**10
_SIGNATURES_MAX_BYTES = 16 * 2**20
_MEMBERS_MAX = 10**7
# Where a member's header says of what kind it is.
_TYPE_AT = 156


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveHeader:
    """What an archive says of itself: the artifact, its kind, and the residency class it came under."""

    artifact: Digest
    kind: str
    residency: str

    def to_bytes(self) -> bytes:
        """Canonical JSON, with the digest of all that is not its digest."""
        record: dict[str, JsonValue] = {
            "format": FORMAT,
            "version": VERSION,
            "artifact": self.artifact,
            "kind": self.kind,
            "residency": self.residency,
        }
        return canonical_json(record | {"digest": sha256_digest(canonical_json(record))})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedArtifact:
    """An archive that was written: its size in bytes, and that of the artifact's files."""

    header: ArchiveHeader
    size_bytes: int
    plain_bytes: int


def export_artifact(
    source: ObjectStore,
    domain: DedupDomain,
    header: ArchiveHeader,
    destination: Path,
    *,
    source_layout_key: str | None = None,
    signatures: Sequence[Mapping[str, Any]] = (),
    progress: Progress | None = None,
) -> ExportedArtifact:
    """Write an artifact into one new file, which appears whole or not at all; stored bytes are checked on their way.

    `signatures` are the envelopes of the version that it is exported as.

    Raises:
        InvalidInput: if there is something at the destination, or nothing can be written there.
        ObjectNotFound, CorruptManifest, CorruptLayout, CorruptPack, CorruptBlock: about the source.
        LocationUnavailable, StorageFull, PermissionDenied: from the source or the local disk.
    """
    if os.path.lexists(destination):
        raise InvalidInput(f"{str(destination)!r} exists.", hint="Choose another name, or move it away.")
    temporary = destination.with_name(f".{destination.name[:80]}.{secrets.token_hex(6)}.partial")
    try:
        try:
            with _create(temporary, destination) as file:
                writer = _ArchiveWriter(file, domain)
                writer.append(HEADER_NAME, header.to_bytes())
                report = copy_artifact(
                    source,
                    writer,
                    domain,
                    header.artifact,
                    source_layout_key=source_layout_key,
                    progress=progress,
                    # What is written is what travels; and one after the other, so that the order is always the same.
                    side="source",
                    threads=1,
                )
                if signatures:
                    writer.append(SIGNATURES_NAME, _signatures_bytes(signatures))
                file.write(bytes(2 * tarfile.BLOCKSIZE))
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            # A rename would replace what came there meanwhile.
            os.link(temporary, destination)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise translate_os_error(error, f"the file {destination.name!r}") from error
    return ExportedArtifact(header=header, size_bytes=size, plain_bytes=report.plain_bytes)


def _create(temporary: Path, destination: Path) -> BinaryIO:
    # The caller's mistake, and no replica's: asked of another one, the answer would be the same.
    try:
        return temporary.open("x+b")
    except OSError as error:
        raise InvalidInput(
            f"{str(destination)!r} cannot be written: {error.strerror}.", hint="Name a file in a folder of yours."
        ) from error


def _signatures_bytes(signatures: Sequence[Mapping[str, Any]]) -> bytes:
    # Bundles hold what canonical JSON has no form for.
    members = {"format": SIGNATURES_FORMAT, "version": VERSION, "signatures": [dict(each) for each in signatures]}
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def is_archive(path: Path) -> bool:
    """Whether a file begins like an archive."""
    try:
        with path.open("rb") as file:
            return file.read(len(HEADER_NAME) + 1) == HEADER_NAME.encode() + b"\0"
    except OSError:
        return False


class _PlainMember(tarfile.TarInfo):
    """A regular file. Other members are refused by their header: the library reads extended ones whole, at any size."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        """The next member.

        Raises:
            ReadError: if it is anything else.
        """
        file = cast("BinaryIO", tarfile.fileobj)
        begins = file.tell()
        kind = file.read(_TYPE_AT + 1)[_TYPE_AT:]
        file.seek(begins)
        if kind not in {REGTYPE, AREGTYPE, b""}:
            raise ReadError("it has a member that is no file")
        return super().fromtarfile(tarfile)


class ArchiveStore:
    """An archive as a read-only location, under whatever domain it is asked for; safe to use from several threads.

    Opening it reads the names and places of its members; what they hold is for the reader to verify.

    Raises:
        InvalidInput: if it is no file.
        CorruptArchive: if it is no archive of a known version, or ends early.
    """

    def __init__(self, path: Path, domain: DedupDomain | None = None) -> None:
        self._lock = threading.Lock()
        self._name = path.name
        self._members: dict[str, tuple[int, int]] = {}
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror}.") from None
        try:
            self.header = self._open()
            self._domain = domain or self._own_domain()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def domain(self) -> DedupDomain:
        """The domain whose keys its objects have."""
        return self._domain

    def signatures(self) -> list[Mapping[str, Any]]:
        """The envelopes that came with it, whoever made them; none where the version was not signed.

        Raises:
            CorruptArchive: if they cannot be read.
        """
        offset, size = self._members.get(SIGNATURES_NAME, (0, 0))
        if size == 0:
            return []
        try:
            if size > _SIGNATURES_MAX_BYTES:
                raise ValueError  # noqa: TRY301  (one answer to all that is wrong)
            with self._lock:
                self._file.seek(offset)
                record = cast("dict[str, Any]", json.loads(self._file.read(size)))
            if (record["format"], record["version"]) != (SIGNATURES_FORMAT, VERSION):
                raise ValueError  # noqa: TRY301  (see above)
            return [dict(each) for each in record["signatures"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._corrupt("its signatures are damaged") from None

    @property
    def has_create_only(self) -> bool:
        """False: nothing can be written."""
        return False

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `start`, `length` of them, or fewer where it ends before.

        Raises:
            ObjectNotFound: if the archive has no such member.
        """
        check_range(start, length)
        offset, size = self._member(key)
        wanted = max(0, size - start if length is None else min(length, size - start))
        with self._lock:
            self._file.seek(offset + start)
            return self._file.read(wanted)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Refuse.

        Raises:
            PermissionDenied: always.
        """
        del data, create_only
        raise PermissionDenied(f"{key!r} cannot be written: an archive is read only.")

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none."""
        found = self._members.get(self._name_of(key))
        return None if found is None else found[1]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order."""
        keys = ((f"{self._domain.prefix}/{name}", size) for name, (_, size) in self._members.items())
        for key, size in sorted(keys):
            if key.startswith(prefix):
                yield ObjectInfo(key=key, size=size)

    def delete(self, key: str) -> None:
        """Refuse.

        Raises:
            PermissionDenied: always.
        """
        raise PermissionDenied(f"{key!r} cannot be deleted: an archive is read only.")

    def _member(self, key: str) -> tuple[int, int]:
        found = self._members.get(self._name_of(key))
        if found is None:
            raise ObjectNotFound(f"The archive {self._name!r} holds no {self._name_of(key)!r}.", key=key)
        return found

    def _name_of(self, key: str) -> str:
        return key.removeprefix(f"{self._domain.prefix}/")

    def _open(self) -> ArchiveHeader:
        try:
            end = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            with tarfile.open(fileobj=self._file, mode="r:", ignore_zeros=False, tarinfo=_PlainMember) as archive:
                for member in archive:
                    is_placed = member.isreg() and 0 <= member.offset_data <= end - member.size
                    if not is_placed or member.name in self._members or len(self._members) >= _MEMBERS_MAX:
                        raise self._corrupt(f"its member {member.name[:120]!r} is none of an archive, or is cut short")
                    self._members[member.name] = (member.offset_data, member.size)
            name, (offset, size) = next(iter(self._members.items()))
            if name != HEADER_NAME or size > _HEADER_MAX_BYTES:
                raise self._corrupt(f"it does not begin with {HEADER_NAME}")
            self._file.seek(offset)
            return self._parse_header(self._file.read(size))
        except (tarfile.TarError, StopIteration, ValueError, OSError, EOFError):
            raise self._corrupt("it is no tar file, or is cut short") from None

    def _own_domain(self) -> DedupDomain:
        try:
            return DedupDomain("archive", self.header.residency)
        except InvalidName:
            raise self._corrupt("its residency class is none") from None

    def _parse_header(self, data: bytes) -> ArchiveHeader:
        try:
            record = cast("dict[str, object]", json.loads(data))
            if record["format"] != FORMAT or record["version"] != VERSION:
                raise self._corrupt(f"it is of another format than {FORMAT} version {VERSION}")
            header = ArchiveHeader(
                artifact=parse_digest(str(record["artifact"])),
                kind=str(record["kind"]),
                residency=str(record["residency"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError, InvalidDigest):
            raise self._corrupt("its header is damaged") from None
        if header.to_bytes() != data:
            raise self._corrupt("its header is not what was written")
        return header

    def _corrupt(self, reason: str) -> CorruptArchive:
        return CorruptArchive(
            f"{self._name!r} is no whole archive: {reason}.", hint="Export the artifact again.", file=self._name
        )


class _ArchiveWriter:
    """A location that appends what is written to it to a tar file. One thread writes, and each key once."""

    def __init__(self, file: IO[bytes], domain: DedupDomain) -> None:
        self._file = file
        self._prefix = f"{domain.prefix}/"
        self._members: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    @property
    def has_create_only(self) -> bool:
        """False."""
        return False

    def append(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Add a member: owned by nobody, of no time."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        header = member.tobuf(tarfile.USTAR_FORMAT)
        with self._lock:
            offset = self._file.seek(0, os.SEEK_END) + len(header)
            self._file.write(header)
            self._file.write(data)
            self._file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
            self._members[name] = offset, len(data)

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Bytes that were written."""
        found = self._members.get(key.removeprefix(self._prefix))
        if found is None:
            raise ObjectNotFound(f"The archive holds no {key!r}.", key=key)
        offset, size = found
        wanted = max(0, size - start if length is None else min(length, size - start))
        with self._lock:
            self._file.seek(offset + start)
            return self._file.read(wanted)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Append an object."""
        del create_only
        try:
            self.append(key.removeprefix(self._prefix), data)
        except OSError as error:
            raise translate_os_error(error, "the archive") from error
        return True

    def size(self, key: str) -> int | None:
        """The size of what was written."""
        found = self._members.get(key.removeprefix(self._prefix))
        return None if found is None else found[1]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """What was written."""
        for name, (_, size) in sorted(self._members.items()):
            if (self._prefix + name).startswith(prefix):
                yield ObjectInfo(key=self._prefix + name, size=size)

    def delete(self, key: str) -> None:
        """Refuse."""
        raise PermissionDenied(f"{key!r} cannot be deleted.")
