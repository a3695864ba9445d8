"""What a deployment's documents are as files of a folder that people and other tools look after too.

    {region}/{deployment}/
        .fairlead          which files are ours, by their sha256, and the workload that they were written from
        ...                the documents, as the target's kind has written them

Only the files that `.fairlead` lists are ever changed or removed. One of them that is not as it was written was edited
by somebody: that is told, and not overwritten unless the target says so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.core.errors import Conflict, FairleadError, InvalidInput
from fairlead.serving.kinds.names import platform_name, region_name
from fairlead.serving.targets import EndpointKey, EndpointSpec
from fairlead.serving.workload import Document, Workload

MARKER = ".fairlead"
_FORMAT = 1
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Files = Mapping[str, bytes]
"""What files hold, by their path below the deployment's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What was written last: by which specification, and each file's sha256."""

    spec: EndpointSpec
    files: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """The marker as a file, equal for equal ones."""
        document = {
            "format": _FORMAT,
            "workspace_id": self.spec.workspace_id,
            "workload": self.spec.workload.to_json(),
            "files": dict(self.files),
        }
        return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @staticmethod
    def read(files: Files) -> Marker | None:
        """The marker among files; None where there is none that can be read."""
        try:
            document: dict[str, Any] = json.loads(files[MARKER])
            if document["format"] != _FORMAT:
                return None
            workload = Workload.from_json(document["workload"])
            spec = EndpointSpec(workspace_id=str(document["workspace_id"]), workload=workload)
            kept = {str(path): str(digest) for path, digest in document["files"].items()}
            # Others can write it too.
            return Marker(spec=spec, files=kept) if all(_is_safe(path) for path in kept) else None
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, FairleadError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What to do with files: texts to write, by path, and paths to remove."""

    written: Files
    removed: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.written and not self.removed


def folder_of(key: EndpointKey) -> str:
    """Where an endpoint's files are, below the target's own folder."""
    return f"{region_name(key.region)}/{platform_name(key.deployment, longest=80)}"


def to_files(spec: EndpointSpec, documents: Sequence[Document]) -> Files:
    """The files of a specification, the marker among them.

    Raises:
        InvalidInput: if a document's path leaves the folder, or two have one path.
    """
    files: dict[str, bytes] = {}
    for document in documents:
        if document.path in files or not _is_safe(document.path):
            raise InvalidInput(f"A document cannot be written to {document.path[:120]!r}.")
        files[document.path] = document.text.encode()
    marker = Marker(spec=spec, files={path: _digest(data) for path, data in sorted(files.items())})
    return {**files, MARKER: marker.to_bytes()}


def differences(files: Files) -> tuple[str, ...]:
    """What somebody did to the files that the marker lists, one each."""
    marker = Marker.read(files)
    if marker is None:
        return ()
    return tuple(
        f"{path} was {'edited' if path in files else 'removed'}"
        for path, digest in sorted(marker.files.items())
        if path not in files or _digest(files[path]) != digest
    )


def change_to(wanted: Files, current: Files, *, workspace_id: str, overwrite: bool, place: str) -> Change:
    """What makes files the wanted ones.

    Nothing where they were written from the wanted ones already: then an edit is told by `differences` and stays.

    Raises:
        Conflict: if somebody edited what would be changed, or the folder is another workspace's.
    """
    marker = Marker.read(current)
    _check_owner(marker, workspace_id, place)
    before: Mapping[str, str] = {} if marker is None else marker.files
    if current.get(MARKER) == wanted[MARKER] and not overwrite:
        return Change(written={})
    written = {path: data for path, data in wanted.items() if current.get(path) != data}
    removed = tuple(path for path in before if path not in wanted and path in current)
    if not overwrite:
        for path in (*written, *removed):
            kept = _digest(current[path]) if path in current else None
            if path != MARKER and kept != before.get(path):
                raise _edited(place, path)
    return Change(written=written, removed=removed)


def removal(current: Files, *, workspace_id: str, place: str) -> Change:
    """What takes everything of ours away, edited or not; files of others stay.

    Raises:
        Conflict: if the folder is another workspace's.
    """
    marker = Marker.read(current)
    _check_owner(marker, workspace_id, place)
    ours = () if marker is None else (*marker.files, MARKER)
    return Change(written={}, removed=tuple(path for path in ours if path in current))


def may_be_ours(path: str) -> bool:
    """Whether a path below a deployment's folder could be a document's, or is the marker's; hidden ones are not."""
    return path == MARKER or _is_safe(path)


def is_within(path: str) -> bool:
    """Whether a path of folders stays below where it begins; empty for the place itself."""
    return not path or _is_safe(path.strip("/"))


def _is_safe(path: str) -> bool:
    return all(_PART.fullmatch(part) for part in path.split("/"))


def _check_owner(marker: Marker | None, workspace_id: str, place: str) -> None:
    if marker is not None and marker.spec.workspace_id != workspace_id:
        raise Conflict(
            f"The files in {place} are those of another workspace's deployment.",
            hint="Give each workspace's target a folder of its own.",
        )


def _edited(place: str, path: str) -> Conflict:
    return Conflict(
        f"Somebody edited {place}/{path} since it was written, and what is wanted now would overwrite that.",
        hint="Take the edit back, or set `overwrite: true` in the target's delivery_settings.",
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
