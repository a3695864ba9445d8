"""The registry's copies: while the server is away, names resolve from the nearest one, labelled with its age.

A client that has talked to the server knows where copies of the record lie and whose signatures to believe; it keeps
that in its home, with the sequence that it last saw at each location. A copy older than that is refused: somebody put
an old one back. What a copy says is as of then: a move since is not in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import (
    AliasNotFound,
    ArtifactNotFound,
    FairleadError,
    ModelNotFound,
    ModelVersionNotFound,
    ObjectNotFound,
    ServerUnavailable,
)
from fairlead.core.ids import new_row_id
from fairlead.sdk.records import Artifact, ModelVersion, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fairlead.core.data_keys import WrappedKey
    from fairlead.core.ids import ModelReference
    from fairlead.core.ports import ObjectStore
    from fairlead.sdk.transport import JsonObject, Transport
    from fairlead.sync.store.record import Document, RecordCopy, RecordIndex

REFRESH_SECONDS = 600.0
REOPEN_SECONDS = 30.0
"""Workers may go on making copies while the API is away: a long outage is answered from new ones."""


class OfflineWarning(UserWarning):
    """The server did not answer, and a copy of its record did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPlace(Record):
    """A location that holds a copy of the record up to a sequence (-1: none yet)."""

    location: str
    region: str
    url: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    sequence: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPlaces(Record):
    """Where a workspace's copies are, nearest first, and the public keys (hexadecimal, by id) that sign them."""

    workspace: str
    public_keys: dict[str, Any]
    copies: tuple[CopyPlace, ...]


@dataclass(frozen=True, slots=True)
class _Opened:
    place: CopyPlace
    copy: RecordCopy
    opened_at: float


class RecordCopies:
    """Where copies of the record are, and what they say.

    `notify` is told in a sentence when a copy answers in place of the server; it warns unless it is set.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        home: Path,
        server: str | None,
        region: str | None,
        key_files: Sequence[Path] = (),
    ) -> None:
        self._transport = transport
        name = hashlib.sha256((server or "embedded").encode()).hexdigest()[:16]
        self._file = home / "record" / f"{name}.json"
        self._region = region
        self._key_files = tuple(key_files)
        self._opened: _Opened | None = None
        self._documents: dict[str, Document] = {}
        self.notify: Callable[[str], None] = _warn

    def show(self) -> CopyPlaces:
        """Where copies are, how far each goes, and whose signatures to believe."""
        return CopyPlaces.from_json(self._transport.get("/api/v1/record", region=self._region))

    def remember(self) -> None:
        """Keep where the copies are, unless that was done minutes ago; nothing is raised."""
        with contextlib.suppress(FairleadError, OSError):
            if not self._file.exists() or time.time() - self._file.stat().st_mtime > REFRESH_SECONDS:
                self._keep(self.show())

    def resolve(self, reference: ModelReference, away: ServerUnavailable) -> ModelVersion:
        """The version that a reference named as of the nearest copy that can be read; `away` says why it is asked.

        Raises:
            ModelNotFound, ModelVersionNotFound, AliasNotFound: if the copy has no such thing.
            ServerUnavailable: if no copy can be read either.
        """
        opened = self._open(away)
        document = self._read(away, lambda copy: copy.model(reference.name))
        told = f"As of {_ago(opened.copy.index.issued_at)}, by the copy at {opened.place.location}; the server is away."
        if document is None or _is_deleted(document.rows.get("registered_models", ())):
            raise ModelNotFound(f"There is no registered model {reference.name!r}.", hint=told)
        self._documents[reference.name] = document
        number = reference.version
        if reference.alias is not None:
            pointers = {row["name"]: row["version"] for row in document.rows.get("aliases", ())}
            number = pointers.get(reference.alias)
            if number is None:
                raise AliasNotFound(f"{reference.name!r} has no alias {reference.alias!r}.", hint=told)
        version = _find_version(document, number)
        if version is None:
            raise ModelVersionNotFound(f"{reference.name!r} has no version {number}.", hint=told)
        self.notify(
            f"The server does not answer. {reference} is what the copy at {opened.place.location} says, "
            f"{_ago(opened.copy.index.issued_at)}."
        )
        return _to_version(document, version, opened)

    def artifact(self, digest: str, away: ServerUnavailable) -> Artifact:
        """An artifact and its VERIFIED replicas as of the nearest copy that can be read.

        Raises:
            ArtifactNotFound: if the copy has none of this digest.
            ServerUnavailable: if no copy can be read either.
        """
        opened = self._open(away)
        addresses = self._read(away, lambda copy: copy.workspace()["settings"]).rows["addresses"]
        for document in (*self._documents.values(), *self._all_documents(away)):
            found = [row for row in document.rows.get("artifacts", ()) if row["digest"] == digest]
            if found:
                return _to_artifact(opened.copy.index.workspace, found[0], document, addresses)
        raise ArtifactNotFound(f"There is no artifact {digest}.", digest=digest)

    def signatures(
        self, model: str, version: int, away: ServerUnavailable
    ) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
        """A version's signatures and the workspace's signers, as of the nearest copy that can be read.

        Raises:
            ServerUnavailable: if no copy can be read either.
        """
        document = self._read(away, lambda copy: copy.model(model))
        settings = self._read(away, lambda copy: copy.workspace()["settings"])
        rows = () if document is None else document.rows.get("version_signatures", ())
        return [row for row in rows if row["version"] == version], settings.rows.get("signers", ())

    def look_up(self, workspace: str, key_id: str, away: ServerUnavailable) -> WrappedKey:
        """A wrapped data key, as of the nearest copy that can be read.

        Raises:
            EncryptionKeyNotFound: if the copy names no such key.
            ServerUnavailable: if no copy can be read either.
        """
        return self._open(away).copy.look_up(workspace, key_id)

    def _all_documents(self, away: ServerUnavailable) -> Iterator[Document]:
        # Only asked for by digest, without a name that says where to look.
        yield from self._read(away, lambda copy: [*copy.workspace().values(), *copy.models()])

    def _read(self, away: ServerUnavailable, read: Callable[[RecordCopy], Any]) -> Any:
        """Read from the copy that is open; one that was superseded meanwhile is opened again."""
        try:
            return read(self._open(away).copy)
        except ObjectNotFound:
            self._opened = None
            return read(self._open(away).copy)

    def _open(self, away: ServerUnavailable) -> _Opened:
        if self._opened is not None and time.monotonic() - self._opened.opened_at < REOPEN_SECONDS:
            return self._opened
        places = self._known()
        if places is None:
            raise away
        failures: list[str] = []
        for place in places.copies:
            try:
                copy = self._open_copy(places, place)
            except FairleadError as error:
                failures.append(f"{place.location}: {error.code}")
                continue
            seen = [
                CopyPlace(
                    location=each.location,
                    region=each.region,
                    url=each.url,
                    options=each.options,
                    sequence=copy.index.sequence if each.location == place.location else each.sequence,
                )
                for each in places.copies
            ]
            with contextlib.suppress(OSError):
                self._keep(
                    CopyPlaces(workspace=places.workspace, public_keys=places.public_keys, copies=tuple(seen)),
                    is_fresh=False,
                )
            self._opened = _Opened(place, copy, time.monotonic())
            return self._opened
        raise ServerUnavailable(
            f"{away.detail} No copy of its record can be read either ({'; '.join(failures) or 'none is known'}).",
            hint=away.hint,
        ) from away

    def _open_copy(self, places: CopyPlaces, place: CopyPlace) -> RecordCopy:
        from fairlead.sync.store.encryption import EncryptedStore
        from fairlead.sync.store.keyring import UnwrappingKeyring, open_key_providers
        from fairlead.sync.store.objects import open_store
        from fairlead.sync.store.record import RecordCopy, find_key

        def decrypting(store: ObjectStore, index: RecordIndex) -> ObjectStore:
            providers = open_key_providers(self._key_files)
            keyring = UnwrappingKeyring(providers, lambda workspace, key_id: find_key(index, workspace, key_id))
            return EncryptedStore(store, keyring)

        trusted = {name: bytes.fromhex(str(key)) for name, key in places.public_keys.items()}
        return RecordCopy.open(
            open_store(place.url, place.options),
            places.workspace,
            trusted,
            seen_sequence=max(0, place.sequence),
            decrypting=decrypting,
        )

    def _known(self) -> CopyPlaces | None:
        try:
            return CopyPlaces.from_json(cast("JsonObject", json.loads(self._file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, FairleadError):
            return None

    def _keep(self, places: CopyPlaces, *, is_fresh: bool = True) -> None:
        """Write the file whole, for its owner alone; the sequences seen at a location never go back."""
        before = self._known()
        seen = {each.location: each.sequence for each in before.copies} if before else {}
        members = places.to_json()
        for each in cast("list[JsonObject]", members["copies"]):
            each["sequence"] = max(cast("int", each["sequence"]), seen.get(str(each["location"]), -1))
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        written_at = None if is_fresh or not self._file.exists() else self._file.stat().st_mtime
        draft = self._file.with_name(f"{self._file.name}.{new_row_id()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(members, file)
        if written_at is not None:
            os.utime(draft, (written_at, written_at))
        draft.replace(self._file)


def _find_version(document: Document, number: int | None) -> Mapping[str, Any] | None:
    found = [row for row in document.rows.get("model_versions", ()) if row["version"] == number]
    return None if not found or _is_deleted(found) else found[0]


def _is_deleted(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row.get("deleted_at") is not None for row in rows)


def _to_version(document: Document, row: Mapping[str, Any], opened: _Opened) -> ModelVersion:
    number = row["version"]
    sizes = {each["digest"]: each["size_bytes"] for each in document.rows.get("artifacts", ())}
    tags = {tag["key"]: tag["value"] for tag in document.rows.get("version_tags", ()) if tag["version"] == number}
    aliases = sorted(each["name"] for each in document.rows.get("aliases", ()) if each["version"] == number)
    error = None if row["error_code"] is None else {"code": row["error_code"], "detail": row["error_detail"]}
    return ModelVersion.from_json(
        {
            **row,
            "name": document.name,
            "reference": f"{document.name}/{number}",
            "tags": tags,
            "aliases": aliases,
            "error": error,
            "size_bytes": sizes.get(row["artifact_digest"]),
            "resolved_from": opened.place.location,
            "as_of": opened.copy.index.issued_at.isoformat(),
        }
    )


def _to_artifact(
    workspace: str, row: Mapping[str, Any], document: Document, addresses: Sequence[Mapping[str, Any]]
) -> Artifact:
    by_id = {address["id"]: address for address in addresses}
    replicas = [
        {
            **replica,
            "location": by_id[replica["location_id"]]["name"],
            "region": by_id[replica["location_id"]]["region"],
            "url": by_id[replica["location_id"]]["url"],
            "options": by_id[replica["location_id"]]["options"],
            "location_state": by_id[replica["location_id"]]["state"],
            "domain": {"workspace": workspace, "residency": row["residency"], "key_id": row["key_id"]},
            "error": replica["error_code"],
        }
        for replica in document.rows.get("replicas", ())
        if (replica["artifact_digest"], replica["residency"]) == (row["digest"], row["residency"])
        and replica["location_id"] in by_id
    ]
    return Artifact.from_json({**row, "replicas": cast("Any", replicas)})


def _ago(moment: datetime) -> str:
    seconds = max(0, round((datetime.now(UTC) - moment).total_seconds()))
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {name}s ago ({moment:%Y-%m-%d %H:%M:%S} UTC)"
    return f"{seconds} seconds ago ({moment:%Y-%m-%d %H:%M:%S} UTC)"


def _warn(text: str) -> None:
    warnings.warn(text, OfflineWarning, stacklevel=4)
