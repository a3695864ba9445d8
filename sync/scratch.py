"""Scratch: folders for bytes on their way, which are gone when the work is, also when its process was killed.

What lies there may be under a residency class, so nothing of it may outlive its use, and a system-wide folder for
temporary files is no place for it. A folder is locked while it is used; the system frees the locks of a process that
dies, and whoever asks for a folder next removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path


class Scratch:
    """Folders below `root`, which several threads and processes may share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def folder(self, prefix: str) -> Generator[Path]:
        """A new, empty folder that is removed, with all it holds, when the block ends."""
        self._root.mkdir(parents=True, exist_ok=True)
        with _locked(self._root):
            self._sweep()
            folder = Path(tempfile.mkdtemp(dir=self._root, prefix=prefix))
            handle = _try_lock(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if handle is not None:
                os.close(handle)

    def sweep(self) -> None:
        """Remove the folders of processes that were killed."""
        if self._root.exists():
            # Nobody sweeps between the making of a folder and its lock.
            with _locked(self._root):
                self._sweep()

    def _sweep(self) -> None:
        for folder in self._root.iterdir():
            if folder.is_dir() and (handle := _try_lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _try_lock(folder: Path) -> int | None:
    """A handle that holds the folder's lock until it is closed, or None where somebody else does."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
