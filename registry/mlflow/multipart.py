"""Uploads in parts: each part is a staged file of its own until they are put together."""

from __future__ import annotations

import re
import secrets
import shutil

from fairlead.core.errors import InvalidInput, UploadNotFound
from fairlead.registry.mlflow.staging import Staging

PARTS_MAX = 10_000
PARTS_FOLDER = "multipart-uploads"
_ID = re.compile(r"[0-9a-f]{32}")
_COPY_BYTES = 1 << 20


class Multipart:
    """Begins uploads in parts, puts them together, and gives them up."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging

    def create(self, area: str, path: str, parts: int) -> str:
        """The id of a new upload.

        Raises:
            InvalidInput: if there are too many parts.
        """
        if not 1 <= parts <= PARTS_MAX:
            raise InvalidInput(f"An upload has 1 to {PARTS_MAX} parts, not {parts}.", hint="Send larger parts.")
        upload_id = secrets.token_hex(16)
        with self._staging.writing(area, f"{PARTS_FOLDER}/{upload_id}/target") as file:
            file.write(f"{parts}\n{path}".encode())
        return upload_id

    def part_path(self, area: str, upload_id: str, number: int) -> str:
        """The staged path of one part.

        Raises:
            UploadNotFound: if there is no such upload, or it has no such part.
        """
        parts, _ = self._target(area, upload_id)
        if not 1 <= number <= parts:
            raise UploadNotFound(f"The upload has {parts} parts and none of number {number}.", hint="Begin a new one.")
        return f"{PARTS_FOLDER}/{upload_id}/{number}"

    def complete(self, area: str, path: str, upload_id: str) -> None:
        """Put the parts together under the path that the upload was begun for.

        Raises:
            UploadNotFound: if there is no such upload.
            InvalidInput: if it was begun for another path, or a part is missing.
        """
        parts, target = self._target(area, upload_id)
        if target != path:
            raise InvalidInput("The upload was begun for another path.", hint="Complete it under that path.")
        found = [self._staging.find(area, f"{PARTS_FOLDER}/{upload_id}/{number + 1}") for number in range(parts)]
        missing = [number + 1 for number, part in enumerate(found) if part is None]
        if missing:
            raise InvalidInput(f"Part {missing[0]} of {parts} is missing.", hint="Upload it, and complete again.")
        with self._staging.writing(area, path) as file:
            for part in found:
                assert part is not None  # noqa: S101  (looked at above)
                with part.open("rb") as source:
                    while piece := source.read(_COPY_BYTES):
                        file.write(piece)
        self.abort(area, upload_id)

    def abort(self, area: str, upload_id: str) -> None:
        """Forget an upload; nothing where there is none."""
        if _ID.fullmatch(upload_id):
            folder = self._staging.find(area, f"{PARTS_FOLDER}/{upload_id}")
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _target(self, area: str, upload_id: str) -> tuple[int, str]:
        place = None
        if _ID.fullmatch(upload_id):
            place = self._staging.find(area, f"{PARTS_FOLDER}/{upload_id}/target")
        if place is None:
            raise UploadNotFound("There is no such upload in parts.", hint="Begin a new one.")
        parts, _, path = place.read_text(encoding="utf-8").partition("\n")
        return int(parts), path
