"""Files that MLflow clients upload, on this server's disk until a version is made of them or they are a day old."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fairlead.core.errors import Conflict, StorageFull
from fairlead.registry.mlflow.paths import parse_path

if TYPE_CHECKING:
    from fairlead.registry.identity import Caller

KEPT_SECONDS = 24 * 3600
SWEEP_SECONDS = 600
_PARTIAL = ".partial-"


def area_of(caller: Caller) -> str:
    """Whose uploads a caller sees and changes: the workspace's, or their own alone if they may not read all of it.

    What is staged is of no model yet, so nothing else says who may have it.
    """
    if caller.may("read"):
        return caller.workspace_id
    return f"{caller.workspace_id}~{hashlib.sha256(caller.principal.encode()).hexdigest()[:32]}"


class Staging:
    """A folder for each area (see `area_of`); paths below it are as MLflow names them."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._guard = threading.Lock()
        self._swept_at = float("-inf")

    def find(self, area: str, path: str) -> Path | None:
        """The file or folder that was uploaded under a path.

        Raises:
            InvalidInput: if the path is not valid.
        """
        place = self._folder / area / parse_path(path)
        return place if place.exists() and not place.is_symlink() else None

    def list(self, area: str, path: str) -> list[tuple[str, bool, int | None]]:
        """Name, whether it is a folder, and size of what lies directly below a path.

        Raises:
            InvalidInput: if the path is not valid.
        """
        place = self._folder / area / parse_path(path, may_be_empty=True)
        if not place.is_dir():
            return []
        with os.scandir(place) as items:
            return sorted(
                (item.name, item.is_dir(), None if item.is_dir() else item.stat().st_size)
                for item in items
                if not item.name.startswith(_PARTIAL)
            )

    @contextlib.contextmanager
    def writing(self, area: str, path: str) -> Generator[Upload]:
        """A file that appears under its path once the block ends; one that was there is replaced.

        Raises:
            InvalidInput: if the path is not valid.
            Conflict: if a folder has that path, or a file that of one of its folders.
            StorageFull: if the staging area is.
        """
        self.sweep()
        place = self._folder / area / parse_path(path)
        left = self._max_bytes - sum(file.stat().st_size for file in _files(self._folder))
        temporary = place.parent / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                yield Upload(file, left)
            temporary.replace(place)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise Conflict(f"{path!r} is a folder, or below a file.", hint="Upload under another path.") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def delete(self, area: str, path: str) -> None:
        """Remove what was uploaded under a path; nothing where there is nothing.

        Raises:
            InvalidInput: if the path is not valid.
        """
        place = self.find(area, path)
        if place is not None and place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        elif place is not None:
            place.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove files that are a day old; looks at most every ten minutes."""
        with self._guard:
            if time.monotonic() - self._swept_at < SWEEP_SECONDS:
                return
            self._swept_at = time.monotonic()
        limit = time.time() - KEPT_SECONDS
        for file in list(_files(self._folder)):
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < limit:
                    file.unlink()


class Upload:
    """A file that is being written, and how much it may yet hold."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._left = left

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            StorageFull: if the staging area, or the disk, is full.
        """
        self._left -= len(piece)
        full = StorageFull(
            "The server's staging area for uploads is full.", hint="Try again later, or raise FAIRLEAD_STAGING_BYTES."
        )
        if self._left < 0:
            raise full
        try:
            self._file.write(piece)
        except OSError:
            raise full from None


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            yield Path(root) / name
