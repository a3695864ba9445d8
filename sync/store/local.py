"""A folder as an object store: plain files, each written aside, synced and renamed into place."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from fairlead.core.errors import (
    FairleadError,
    InvalidInput,
    LocationUnavailable,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from fairlead.core.ports import ObjectInfo
from fairlead.sync.store.keys import TEMPORARY_PREFIX, check_key, check_prefix, check_range

# No write of one object takes nearly as long.
_ABANDONED_SECONDS = 3600
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# What file systems without hard links say of one.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def translate_os_error(error: OSError, what: str) -> FairleadError:
    """The error of ours for what the operating system answered about `what`."""
    if error.errno in _FULL:
        return StorageFull(f"There is no space left to write {what}.", hint="Free some space and run it again.")
    if error.errno in _DENIED:
        return PermissionDenied(f"The operating system does not let this process at {what}: {error.strerror}.")
    return LocationUnavailable(f"{what} cannot be reached: {error.strerror or type(error).__name__}.")


class LocalStore:
    """A folder of one machine as an `ObjectStore`.

    The folder must exist: an unmounted disk must not look like an empty store. `create=True` makes it when the store is
    opened. An object is written to a temporary file beside its place, synced, and renamed (or, for `create_only`,
    linked) there, and the folder synced, so what was acknowledged survives a loss of power.
    """

    def __init__(self, root: Path, *, create: bool = False, has_create_only: bool = True) -> None:
        self._root = root
        self._has_create_only = has_create_only
        if create:
            with self._translated("the folder of the store"):
                root.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"LocalStore({str(self._root)!r})"

    @property
    def has_create_only(self) -> bool:
        """Whether `write(..., create_only=True)` is true to its word on this file system (it needs hard links)."""
        return self._has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `start`, `length` of them, or fewer where it ends before.

        Raises:
            ObjectNotFound, LocationUnavailable, PermissionDenied: as the port says.
        """
        check_range(start, length)
        path = self._path(key)
        with self._translated(key), path.open("rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Store an object durably; True if this call stored it.

        Raises:
            StorageFull, LocationUnavailable, PermissionDenied: as the port says.
        """
        path = self._path(key)
        self._check_root()
        try:
            if path.is_dir():
                raise _overlap(key)
            try:
                self._make_folder(path.parent)
            except (FileExistsError, NotADirectoryError) as error:
                raise _overlap(key) from error
            is_stored = self._put(path, data, create_only=create_only)
            _sync_folder(path.parent)
            _sweep(path.parent)
        except OSError as error:
            # Also what is not found: a folder that vanished says nothing of an object, here or where it came from.
            raise translate_os_error(error, repr(key)) from error
        return is_stored

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none.

        Raises:
            LocationUnavailable, PermissionDenied: as the port says.
        """
        path = self._path(key)
        try:
            with self._translated(key):
                return path.stat().st_size if path.is_file() else self._missing(key)
        except ObjectNotFound:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order.

        Raises:
            LocationUnavailable, PermissionDenied: as the port says.
        """
        check_prefix(prefix)
        self._check_root()
        folder = prefix.rpartition("/")[0]
        found: list[ObjectInfo] = []
        for parent, _folders, names in os.walk(self._root / folder, onerror=self._raise_unless_missing):
            base = Path(parent).relative_to(self._root).as_posix()
            for name in names:
                key = name if base == "." else f"{base}/{name}"
                if key.startswith(prefix) and not name.startswith(TEMPORARY_PREFIX):
                    with contextlib.suppress(FileNotFoundError):
                        found.append(ObjectInfo(key=key, size=(self._root / key).stat().st_size))
        found.sort(key=lambda item: item.key)
        yield from found

    def delete(self, key: str) -> None:
        """Remove an object; one that does not exist is no error.

        Raises:
            LocationUnavailable, PermissionDenied: as the port says.
        """
        path = self._path(key)
        self._check_root()
        with contextlib.suppress(ObjectNotFound), self._translated(key):
            if path.is_file():
                path.unlink()
                _sync_folder(path.parent)

    def _put(self, path: Path, data: bytes | bytearray | memoryview, *, create_only: bool) -> bool:
        temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if create_only and not self._put_new(temporary, path):
                return False
            if not create_only or not self._has_create_only:
                temporary.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        return True

    def _put_new(self, temporary: Path, path: Path) -> bool:
        if not self._has_create_only:
            return not path.exists()
        try:
            # A rename replaces what is there; a link does not.
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._has_create_only = False
            return not path.exists()
        return True

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _check_root(self) -> None:
        try:
            is_there = self._root.is_dir()
        except OSError as error:
            raise translate_os_error(error, "the folder of the location") from error
        if not is_there:
            raise LocationUnavailable(
                "The folder of this location does not exist.",
                hint="Mount or create it, or open the location with the option `create`.",
            )

    def _missing(self, key: str) -> None:
        # A missing folder is a store that is away, which says nothing about its objects.
        self._check_root()
        raise ObjectNotFound(f"There is no object {key!r} at this location.", key=key)

    def _raise_unless_missing(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise translate_os_error(error, "a folder of the location") from error

    def _make_folder(self, folder: Path) -> None:
        if folder == self._root or folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)

    @contextlib.contextmanager
    def _translated(self, key: str) -> Generator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self._missing(key)
        except OSError as error:
            raise translate_os_error(error, repr(key)) from error


def _overlap(key: str) -> InvalidInput:
    # A file system cannot hold `a` and `a/b`; no two keys of a dedup domain are like that.
    return InvalidInput(f"{key!r} lies below, or above, another object of the location.")


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed long ago left in a folder."""
    before = time.time() - _ABANDONED_SECONDS
    with os.scandir(folder) as items:
        for item in items:
            if item.name.startswith(TEMPORARY_PREFIX):
                with contextlib.suppress(FileNotFoundError):
                    if item.stat().st_mtime < before:
                        os.unlink(item.path)  # noqa: PTH108  (what the scan gives)


def remove_abandoned(root: Path, *, is_dry_run: bool = False) -> Iterator[tuple[str, int]]:
    """Remove what writers that were killed long ago left anywhere in a store; the path and size in bytes of each."""
    before = time.time() - _ABANDONED_SECONDS
    for path in iter_temporary(root):
        with contextlib.suppress(FileNotFoundError):
            if (found := path.stat()).st_mtime < before:
                if not is_dry_run:
                    path.unlink()
                yield path.relative_to(root).as_posix(), found.st_size


def iter_temporary(root: Path) -> Iterator[Path]:
    """The files anywhere in a store that writers are at, or were when they were killed."""
    for parent, _folders, names in os.walk(root):
        yield from (Path(parent, name) for name in names if name.startswith(TEMPORARY_PREFIX))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
