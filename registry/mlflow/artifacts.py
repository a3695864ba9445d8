"""Files as MLflow's artifact routes see them: those of versions below `models/NAME/VERSION`, and those in staging."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairlead.core.db import Database
from fairlead.core.errors import Conflict, NotReady, ObjectNotFound
from fairlead.core.ids import VERSION_MAX
from fairlead.registry.identity import Caller
from fairlead.registry.mlflow.multipart import PARTS_FOLDER
from fairlead.registry.mlflow.paths import parse_path
from fairlead.registry.mlflow.ports import VersionFiles
from fairlead.registry.mlflow.records import Wire, find_version
from fairlead.registry.mlflow.staging import area_of

if TYPE_CHECKING:
    from pathlib import Path

    from fairlead.registry.mlflow.staging import Staging

MODELS = "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file on its way out: its size, the digest of its bytes where it is known, and the pieces."""

    size: int
    digest: str | None
    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class MlflowArtifacts:
    """Lists and reads files."""

    database: Database
    staging: Staging
    files: VersionFiles

    def list(self, caller: Caller, path: str) -> list[Wire]:
        """What lies directly below a path: names, whether each is a folder, and sizes. Nothing below a file.

        Raises:
            InvalidInput: if the path is not valid.
            ModelVersionNotFound, NotReady, ReplicaUnavailable: if its version has no files to show.
        """
        place = _parse_version_path(parse_path(path, may_be_empty=True))
        if place is None:
            staged = self.staging.list(area_of(caller), path)
            return [_file_info(name, is_folder, size) for name, is_folder, size in staged]
        residency, digest = self._artifact(caller, place.name, place.version)
        found: dict[str, Wire] = {}
        for file in self.files.list(caller.workspace_id, residency, digest):
            below = file.path if not place.path else file.path.removeprefix(place.path + "/")
            if place.path and below == file.path:
                continue
            name, slash, _ = below.partition("/")
            found[name] = _file_info(name, bool(slash), None if slash else file.size)
        return [found[name] for name in sorted(found)]

    def open(self, caller: Caller, path: str) -> Download:
        """One file, to read.

        Raises:
            InvalidInput: if the path is not valid.
            ObjectNotFound, ModelVersionNotFound, NotReady: if there is no such file.
            IntegrityError, ReplicaUnavailable: if no replica holds its bytes.
        """
        place = _parse_version_path(parse_path(path))
        if place is None:
            staged = self.staging.find(area_of(caller), path)
            if staged is None or not staged.is_file():
                raise _no_such_file(path)
            return Download(size=staged.stat().st_size, digest=None, pieces=_read(staged))
        residency, digest = self._artifact(caller, place.name, place.version)
        for file in self.files.list(caller.workspace_id, residency, digest):
            if file.path == place.path:
                pieces = self.files.read(caller.workspace_id, residency, digest, file.path)
                return Download(size=file.size, digest=file.digest, pieces=pieces)
        raise _no_such_file(path)

    def check_writable(self, path: str) -> str:
        """Check a path to upload to, or to delete.

        Raises:
            InvalidInput: if the path is not valid.
            Conflict: if it is a version's: those never change.
        """
        checked = parse_path(path)
        first = checked.split("/")[0]
        if first in {MODELS, PARTS_FOLDER}:
            raise Conflict(
                f"Files below '{first}/' are not written so: registered versions never change.",
                hint="Upload under another path, and register a version of it.",
            )
        return checked

    def _artifact(self, caller: Caller, name: str, version: int) -> tuple[str, str]:
        with self.database.read() as session:
            _, row = find_version(session, caller.workspace_id, name, version)
            if row.artifact_digest is None:
                raise NotReady(
                    f"Model version {name}/{version} is {row.state} and has no files.",
                    hint="Wait until its status is READY.",
                )
            return row.residency, row.artifact_digest


@dataclass(frozen=True, slots=True)
class _VersionPath:
    name: str
    version: int
    path: str


def _parse_version_path(path: str) -> _VersionPath | None:
    parts = path.split("/")
    if parts[0] != MODELS:
        return None
    if len(parts) < 3 or not (parts[2].isascii() and parts[2].isdigit()) or len(parts[2]) > 10:
        raise _no_such_file(path)
    version = int(parts[2])
    return _VersionPath(parts[1], version if version <= VERSION_MAX else 0, "/".join(parts[3:]))


def _file_info(name: str, is_folder: bool, size: int | None) -> Wire:  # noqa: FBT001  (a member of the answer)
    return (
        {"path": name, "is_dir": is_folder} if size is None else {"path": name, "is_dir": is_folder, "file_size": size}
    )


def _no_such_file(path: str) -> ObjectNotFound:
    return ObjectNotFound(f"There is no artifact '{path[:200]}'.", hint="List what there is: mlflow artifacts list.")


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece
