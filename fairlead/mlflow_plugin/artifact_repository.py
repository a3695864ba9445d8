# pyright: reportIncompatibleMethodOverride=false, reportUnknownVariableType=false
"""The files of registered versions, as an artifact repository of MLflow's.

`fairlead://HOST/models/NAME/VERSION` names them. They are read from the nearest verified replica into a cache of files
by digest, and copied from there to where MLflow wants them; every byte is compared on both ways.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote, urlsplit

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.utils.file_utils import create_tmp_dir

from fairlead.core.errors import InvalidInput, NotReady, ObjectNotFound
from fairlead.core.ids import Digest
from fairlead.mlflow_plugin.connections import connect_configured
from fairlead.mlflow_plugin.errors import as_mlflow_errors
from fairlead.mlflow_plugin.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairlead.sdk.cached_files import CachedFiles
    from fairlead.sync.store.manifest import FileEntry

_DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """The files at or below a path of one version; `path` is that path among them, "" for all."""

    reference: str
    artifact: Digest
    path: str
    files: Sequence[FileEntry]
    cached: CachedFiles

    def below(self, entry: FileEntry) -> str:
        """A file's path below this one; "" where it is this one."""
        return entry.path.removeprefix(self.path).lstrip("/")


class FairleadArtifactRepository(ArtifactRepository):
    """Lists and reads the files of versions; registered versions never change, so it writes none."""

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What lies directly below a path: nothing where that is a file."""
        with as_mlflow_errors():
            opened = self._open(path)
        found: dict[str, FileInfo] = {}
        for entry in opened.files:
            name, slash, _ = opened.below(entry).partition("/")
            if name:
                found[name] = FileInfo(posixpath.join(path or "", name), bool(slash), None if slash else entry.size)
        return [found[name] for name in sorted(found)]

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Bring a file or folder here, under its path below `dst_path` (a new folder, if none is given)."""
        if dst_path and not Path(dst_path).is_dir():
            raise MlflowException(f"{dst_path} is no folder to download to.", error_code=INVALID_PARAMETER_VALUE)
        with as_mlflow_errors():
            opened = self._open(artifact_path)
            place = Path(dst_path or create_tmp_dir()).absolute() / (artifact_path or "")
            self._bring(opened, place)
        return str(place)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> NoReturn:
        """Refuse."""
        raise _never_changes(artifact_path or local_file)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> NoReturn:
        """Refuse."""
        raise _never_changes(artifact_path or local_dir)

    def delete_artifacts(self, artifact_path: str | None = None) -> NoReturn:
        """Refuse."""
        raise _never_changes(artifact_path or self.artifact_uri)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        with as_mlflow_errors():
            self._bring(self._open(remote_file_path), Path(local_path))

    def _bring(self, opened: _Opened, place: Path) -> None:
        targets = {place / opened.below(entry): entry for entry in opened.files}
        with show_progress(f"download {opened.reference}") as progress:
            opened.cached.bring(opened.artifact, targets, progress=progress)

    def _open(self, path: str | None) -> _Opened:
        """The version that a path of this repository lies in, and its files there.

        Raises:
            InvalidInput: if the path leads elsewhere than down, or into no version.
            NotReady: if the version's files are not verified yet.
            ObjectNotFound: if it has none there.
        """
        import mlflow

        from fairlead.sdk.cached_files import CachedFiles
        from fairlead.sdk.embedded import Home

        name, version, rest = self._parse(path)
        client = connect_configured(self.artifact_uri, [self.registry_uri, mlflow.get_registry_uri()])
        found = client.models.resolve(f"{name}/{version}")
        if found.artifact_digest is None or found.state != "READY":
            raise NotReady(f"{found.reference} is {found.state}.", hint="Wait until its status is READY.")
        artifact = Digest(found.artifact_digest)
        cached = CachedFiles(client.artifacts, Home(path=client.settings.home).cache)
        files = [
            entry
            for entry in cached.manifest(artifact).files
            if not rest or entry.path == rest or entry.path.startswith(f"{rest}/")
        ]
        if not files:
            raise ObjectNotFound(f"{found.reference} has no file {rest!r}.", hint="List what it has.")
        return _Opened(reference=found.reference, artifact=artifact, path=rest, files=files, cached=cached)

    def _parse(self, path: str | None) -> tuple[str, str, str]:
        """Name, version and the path in it."""
        root = urlsplit(self.artifact_uri, allow_fragments=False).path.strip("/").split("/")
        parts = [*root, *(path or "").rstrip("/").split("/")] if path else root
        if len(parts) < _DEPTH or parts[0] != "models" or any(part in {"", ".", ".."} for part in parts):
            raise InvalidInput(
                f"{'/'.join([self.artifact_uri, path or ''])!r} leads to no files of a version.",
                hint="Write it like models:/NAME/VERSION/PATH.",
            )
        return unquote(parts[1]), parts[2], "/".join(parts[_DEPTH:])


def _never_changes(what: str) -> MlflowException:
    return MlflowException(
        f"{what!r} is not written or deleted: registered versions never change. Register a new one.",
        error_code=INVALID_PARAMETER_VALUE,
    )
