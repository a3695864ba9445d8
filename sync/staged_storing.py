"""Storing what clients uploaded to this server: begun by the call that registers a version, done after its answer.

The files are sealed first: linked into a folder of the upload's own, so that nobody who uploads to the same path again
changes what a version is made of. Threads of this process then write them into the upload's location and hand it over.
What a killed server left sealed, the next one on the same home stores; once, because a sealed folder is locked while it
is worked on, and one whose upload is over is only removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.core.errors import FairleadError, LeaseLost, NotFound, Unavailable
from fairlead.registry.identity import system_caller
from fairlead.sync.uploading import publish

if TYPE_CHECKING:
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.uploads import Upload, Uploads

THREADS = 2
RETRY_SECONDS = 5.0
_BEGUN = ".begun-"
# To link the files of a folder takes nowhere near as long.
_ABANDONED_SECONDS = 24 * 3600
_log = logging.getLogger(__name__)


class StagedStoring:
    """Stores sealed folders, `THREADS` at a time."""

    def __init__(self, uploads: Uploads, open_store: StoreOpener, folder: Path, *, wake: Callable[[], None]) -> None:
        self._uploads = uploads
        self._open_store = open_store
        self._folder = folder
        self._wake = wake
        self._waiting: queue.Queue[tuple[str, str]] = queue.Queue()
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []

    def begin(self, workspace_id: str, upload: Upload, folder: Path) -> None:
        """Seal the files of a folder for an upload, and store them soon."""
        sealed = self._folder / workspace_id / upload.id
        begun = sealed.with_name(f"{_BEGUN}{upload.id}")
        shutil.copytree(folder, begun, copy_function=os.link)
        # Whole, or not at all: another process may look for sealed folders just now, or this one be killed.
        begun.rename(sealed)
        self._submit(workspace_id, upload.id)

    def resume(self) -> None:
        """Store what an earlier process on this home left."""
        for sealed in sorted(self._folder.glob("*/*")):
            if not sealed.name.startswith(_BEGUN):
                self._submit(sealed.parent.name, sealed.name)
                continue
            with contextlib.suppress(FileNotFoundError):
                if sealed.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    shutil.rmtree(sealed, ignore_errors=True)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is stored or waits for it."""
        return self._waiting.unfinished_tasks == 0

    def wait(self) -> None:
        """Return when everything that was begun is stored."""
        self._waiting.join()

    def close(self) -> None:
        """Begin nothing more; what is being stored goes on at the next start."""
        self._stopping.set()

    def _submit(self, workspace_id: str, upload_id: str) -> None:
        self._waiting.put((workspace_id, upload_id))
        with self._guard:
            while len(self._threads) < THREADS:
                number = len(self._threads)
                thread = threading.Thread(target=self._run, name=f"fairlead-store-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                workspace_id, upload_id = self._waiting.get(timeout=1)
            except queue.Empty:
                continue
            try:
                self._store(workspace_id, upload_id)
            except Exception:  # noqa: BLE001  (one that fails does not end the others)
                _log.exception("storing the upload %s failed", upload_id)
            finally:
                self._waiting.task_done()

    def _store(self, workspace_id: str, upload_id: str) -> None:
        sealed = self._folder / workspace_id / upload_id
        caller = system_caller(workspace_id, "server")
        with _locked(sealed) as is_ours:
            if not is_ours:
                return
            while not self._stopping.is_set():
                try:
                    upload = self._uploads.get(caller, upload_id)
                    if upload.state == "OPEN":
                        publish(self._uploads, self._open_store, caller, upload, sealed)
                except Unavailable as error:
                    _log.warning("storing the upload %s: %s", upload_id, error)
                    self._stopping.wait(RETRY_SECONDS)
                    continue
                except (LeaseLost, NotFound) as error:
                    _log.warning("the upload %s is over: %s", upload_id, error)
                except FairleadError as error:
                    self._uploads.give_up(caller, upload_id, error)
                shutil.rmtree(sealed, ignore_errors=True)
                self._wake()
                return


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[bool]:
    """Whether the folder is there and nobody else has its lock, which is then held while the block runs."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        yield False
        return
    try:
        yield True
    finally:
        os.close(handle)
