"""The files of a version of another registry: in a folder, in a bucket, or behind an MLflow server.

Who registered a version there wrote down where its files are, and may have written any path of this machine or any
bucket that its user can read. So folders and buckets are read only below the roots that the user named.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fairlead.core.errors import IntegrityError, InvalidInput, NotFound, PermissionDenied, StorageFull

if TYPE_CHECKING:
    from fairlead.core.ports import ObjectStore
    from fairlead.sdk.mlflow_registry import SourceFiles

BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_READ_BYTES = 8 * 2**20


def files_at(address: str, roots: Sequence[str]) -> SourceFiles | None:
    """The files at a folder's or bucket's address; None for an address of another kind.

    Raises:
        PermissionDenied: if the address is below none of the roots.
        InvalidInput: if it cannot be read as one.
    """
    scheme = address.partition(":")[0].lower() if ":" in address else "file"
    if scheme == "file" or address.startswith("/"):
        return _Folder(_permitted_path(address, roots))
    if scheme in BUCKETS:
        from fairlead.sync.store.objects import open_store

        wanted = address.rstrip("/") + "/"
        is_plain = not {"..", "."} & set(wanted.split("/"))
        if not is_plain or not any(wanted.startswith(root.rstrip("/") + "/") for root in roots):
            raise _outside(address)
        return _Bucket(open_store(address), address)
    return None


def below(root: str, path: str) -> str:
    """The address of a path below a root.

    Raises:
        InvalidInput: if the path leads elsewhere than down.
    """
    parts = [part for part in path.split("/") if part]
    if {"..", "."} & set(parts):
        raise InvalidInput(f"The path {path[:120]!r} leads out of its folder.", hint="Look at the version's source.")
    return "/".join([root.rstrip("/"), *parts])


def _permitted_path(address: str, roots: Sequence[str]) -> Path:
    path = _to_path(address).resolve()
    folders = [_to_path(root).resolve() for root in roots if "://" not in root or root.startswith("file:")]
    if not any(path.is_relative_to(folder) for folder in folders):
        raise _outside(address)
    return path


def _to_path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path) if address.startswith("file:") else address).expanduser()


def _outside(address: str) -> PermissionDenied:
    return PermissionDenied(
        f"Its files are at {address[:200]!r}, which is below none of the places that may be read.",
        hint="Name the folder or bucket that they are in: --artifacts ROOT",
    )


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def sizes(self) -> dict[str, int]:
        from fairlead.sync.store.manifest import list_files

        if not self._path.exists():
            raise NotFound(f"There is nothing at {str(self._path)!r}.", hint="Look whether its files were deleted.")
        return {path: file.stat().st_size for path, file in list_files(self._path).items() if isinstance(file, Path)}

    @contextlib.contextmanager
    def here(self) -> Generator[Path]:
        self.sizes()
        yield self._path


class _Bucket:
    def __init__(self, store: ObjectStore, address: str) -> None:
        self._store = store
        self._address = address

    def sizes(self) -> dict[str, int]:
        # Consoles of clouds mark a folder by an empty object whose name ends in a slash.
        found = {item.key: item.size for item in self._store.list("") if not item.key.endswith("/")}
        if not found:
            raise NotFound(f"There is nothing at {self._address[:200]!r}.", hint="Look whether they were deleted.")
        return found

    @contextlib.contextmanager
    def here(self) -> Generator[Path]:
        with scratch() as folder:
            for key, size in self.sizes().items():
                target = folder / key
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        for start in range(0, size, _READ_BYTES):
                            file.write(self._store.read(key, start=start, length=min(_READ_BYTES, size - start)))
                except OSError as error:
                    raise no_room(error) from error
                check_size(key, target, size)
            yield folder


@contextlib.contextmanager
def scratch() -> Generator[Path]:
    """An empty folder, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="fairlead-import-") as name:
        folder = Path(name) / "files"
        folder.mkdir()
        yield folder


def check_size(path: str, file: Path, size: int) -> None:
    """Refuse a file of which not all came, or more than there is.

    Raises:
        IntegrityError: with both sizes.
    """
    came = file.stat().st_size if file.is_file() else 0
    if came != size:
        raise IntegrityError(f"{came} bytes came of {path!r}, which has {size}.", hint="Run the import again.")


def no_room(error: OSError) -> StorageFull:
    """That a file cannot be kept here."""
    return StorageFull(f"A file cannot be kept here: {error.strerror}.", hint="Free space for temporary files.")
