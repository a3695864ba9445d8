"""The bytes, from the client's side: write packs where the server says, read them from the best verified replica."""

from __future__ import annotations

import contextlib
import copy
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fairlead.core.errors import (
    FairleadError,
    IntegrityError,
    LocationUnavailable,
    MissingExtra,
    ObjectNotFound,
    PermissionDenied,
    ReplicaUnavailable,
    ServerUnavailable,
    error_classes,
)
from fairlead.core.ids import Digest, digest_hex, parse_digest
from fairlead.sdk.bases import LocalCopies, choose_base, is_folder
from fairlead.sdk.edge_caches import NO_CACHE, EdgeCaches
from fairlead.sdk.keys import client_keyring
from fairlead.sdk.records import Artifact, Replica
from fairlead.sdk.signed_access import SignedAccess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fairlead.core.errors import JsonValue
    from fairlead.core.ports import ObjectStore
    from fairlead.sdk.record_copies import RecordCopies
    from fairlead.sdk.transport import JsonObject, Transport
    from fairlead.sync.store.archive import ExportedArtifact
    from fairlead.sync.store.blocks import Progress, StoredBlock
    from fairlead.sync.store.domain import DedupDomain
    from fairlead.sync.store.encryption import Keyring
    from fairlead.sync.store.reader import ArtifactReader

READY_TIMEOUT_SECONDS = 600.0
RENEW_UPLOAD_SECONDS = 600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What one upload put where. `sent_bytes` went over the wire, `plain_bytes` is what the files weigh.

    `delta_blocks` of the `new_blocks` were sent as differences to those of the artifact `base`.
    """

    id: str
    digest: Digest
    plain_bytes: int
    sent_bytes: int
    new_blocks: int
    delta_blocks: int
    reused_blocks: int
    base: Digest | None


class Artifacts:
    """Everything that travels, by digest."""

    def __init__(
        self,
        transport: Transport,
        *,
        cache: Path,
        region: str | None,
        key_files: Sequence[Path] = (),
        record: RecordCopies | None = None,
        edge_cache: str | None = None,
    ) -> None:
        self._transport = transport
        self._caches = EdgeCaches(transport, region=region, name=edge_cache)
        self._signed = SignedAccess(transport)
        self._record = record
        self._cache = cache
        self._region = region
        self._key_files = tuple(key_files)
        self._keyring: Keyring | None = None

    def close(self) -> None:
        """Close the connections to caches and to locations that are reached by signed addresses."""
        self._caches.close()
        self._signed.close()

    def without_caches(self) -> Artifacts:
        """The same, read from replicas alone: for what is a cache itself."""
        made = copy.copy(self)
        made._caches = EdgeCaches(self._transport, region=None, name=NO_CACHE)  # noqa: SLF001  (of its own class)
        return made

    def get(self, digest: str) -> Artifact:
        """Size, kind and replicas of an artifact; while the server is away, by the nearest copy of its record.

        Raises:
            ArtifactNotFound: if the server knows none of that digest.
        """
        try:
            return Artifact.from_json(self._transport.get(f"/api/v1/artifacts/{parse_digest(digest)}"))
        except ServerUnavailable as away:
            if self._record is None:
                raise
            return self._record.artifact(digest, away)

    def upload(
        self,
        source: Path,
        *,
        kind: str,
        residency: str = "unrestricted",
        regions: Sequence[str] | None = None,
        labels: Mapping[str, JsonValue] | None = None,
        model: str | None = None,
        parent_version: int | None = None,
        progress: Progress | None = None,
    ) -> Upload:
        """Write a file or folder into a permitted location; only blocks it does not hold are sent.

        Blocks that differ little from what the location holds are sent as differences: to the version that the model
        was made from, to the one before, or to anything with the same tensors, if that is cheap to read from here (see
        `fairlead.sdk.bases`).

        The server reads every byte back before anything becomes READY. Safe to repeat after any interruption.

        Raises:
            InvalidInput: if the source is missing, or changes while it is read.
            ResidencyViolation: if no location may hold data of this residency class.
            StorageFull, LocationUnavailable, PermissionDenied: from the location.
        """
        from fairlead.sync.store.manifest import list_files
        from fairlead.sync.store.writer import write_artifact

        # Before anything is asked of the server: a source that is none is the commonest mistake.
        list_files(source)
        upload_id, location, domain, store = self._begin(kind, residency, regions, labels or {})
        copies = LocalCopies(self._cache)
        base = choose_base(
            self._base_candidates(upload_id, source, model=model, parent_version=parent_version),
            store,
            domain,
            copies=copies,
            reads_location=is_folder(str(location["url"])) or location["region"] == self._region,
        )
        written = write_artifact(
            store,
            domain,
            source,
            known_blocks=lambda digests: self._known_blocks(upload_id, digests),
            bases=[] if base is None else [base],
            progress=self._renewing(upload_id, progress),
        )
        self._complete(upload_id, written.digest, written.layout_key, written.sent_bytes)
        copies.remember(written.digest, source)
        return Upload(
            id=upload_id,
            digest=written.digest,
            plain_bytes=written.plain_bytes,
            sent_bytes=written.sent_bytes,
            new_blocks=written.new_blocks,
            delta_blocks=written.delta_blocks,
            reused_blocks=written.reused_blocks,
            base=base.reader.digest if base is not None and written.delta_blocks else None,
        )

    def export(
        self,
        digest: str,
        file: Path,
        *,
        signatures: Sequence[Mapping[str, Any]] = (),
        progress: Progress | None = None,
    ) -> ExportedArtifact:
        """Write an artifact into one new file, from the best replica, each byte verified.

        `signatures` are envelopes to put beside it, for whoever verifies it where no server is.

        Raises:
            ArtifactNotFound: if the server knows none of that digest.
            InvalidInput: if there is something at `file`.
            ReplicaUnavailable: if no VERIFIED replica can be read; names what each one answered.
        """
        from fairlead.sync.store.archive import ArchiveHeader, export_artifact

        artifact = self.get(digest)
        header = ArchiveHeader(artifact=Digest(artifact.digest), kind=artifact.kind, residency=artifact.residency)

        def write(reader: ArtifactReader, _: Replica) -> ExportedArtifact:
            return export_artifact(
                reader.store,
                reader.domain,
                header,
                file,
                source_layout_key=reader.layout_key,
                signatures=signatures,
                progress=progress,
            )

        return self._first_readable(artifact, write)

    def import_archive(
        self,
        file: Path,
        *,
        regions: Sequence[str] | None = None,
        labels: Mapping[str, JsonValue] | None = None,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> Upload:
        """Bring an exported artifact into a permitted location, under the residency class that it was exported from.

        Only packs that the location does not hold are sent; stored bytes travel as they are. Returns when every byte
        was read back there, unless `wait` is False. Safe to repeat after any interruption.

        Raises:
            InvalidInput: if there is no such file.
            IntegrityError: if the file is no whole archive.
            ResidencyViolation: if no location may hold data of its residency class.
            StorageFull, LocationUnavailable, PermissionDenied: from the location.
        """
        from fairlead.sync.store.archive import ArchiveStore
        from fairlead.sync.store.copy import copy_artifact

        with ArchiveStore(file) as archive:
            header = archive.header
        upload_id, _, domain, store = self._begin(header.kind, header.residency, regions, labels or {})
        with ArchiveStore(file, domain) as archive:
            report = copy_artifact(
                archive,
                store,
                domain,
                header.artifact,
                known_blocks=lambda digests: self._known_blocks(upload_id, digests),
                progress=self._renewing(upload_id, progress),
                side="source",
            )
        self._complete(upload_id, header.artifact, report.layout_key, report.bytes_moved)
        if wait:
            self._wait_uploaded(upload_id, f"{header.artifact} to be read back")
        return Upload(
            id=upload_id,
            digest=header.artifact,
            plain_bytes=report.plain_bytes,
            sent_bytes=report.bytes_moved,
            new_blocks=report.blocks_moved,
            delta_blocks=0,
            reused_blocks=report.blocks_reused,
            base=None,
        )

    def open(self, digest: str) -> ArtifactReader:
        """A verifying reader on the best replica: this client's region first, then the others.

        Where an edge cache is nearer than each of them, blocks come from there (see `fairlead.sdk.edge_caches`).

        Raises:
            ReplicaUnavailable: if no VERIFIED replica can be read; names what each one answered.
        """
        artifact = self.get(digest)
        return self._first_readable(artifact, lambda reader, _: self._caches.nearer(artifact, reader))

    def read(self, digest: str, read: Callable[[ArtifactReader], T]) -> T:
        """What `read` makes of the best replica: the next one is tried where one is damaged or out of reach.

        Raises:
            ArtifactNotFound: if the server knows none of that digest.
            ReplicaUnavailable: if no VERIFIED replica can be read; names what each one answered.
        """
        artifact = self.get(digest)
        return self._first_readable(artifact, lambda reader, _: read(self._caches.nearer(artifact, reader)))

    def download(
        self,
        digest: str,
        destination: Path | None = None,
        *,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Bring an artifact's files here, each byte verified; without a destination, into the cache.

        With `only`, replicas of other regions are not read. A cached artifact is checked against its digest before it
        is used again. A replica whose bytes are wrong is reported, mended by the server, and passed over.

        Raises:
            ArtifactNotFound: if the server knows none of that digest.
            AlreadyExists: if something else is at the destination.
            ReplicaUnavailable: if no VERIFIED replica can be read; names what each one answered.
        """
        artifact = self.get(digest)
        target = destination or self._cache / "artifacts" / digest_hex(parse_digest(digest))
        if destination is None and target.exists():
            if _holds(target, artifact.digest):
                return target
            _discard(target)

        def fetch(reader: ArtifactReader, _: Replica) -> Path:
            self._caches.nearer(artifact, reader).download(target, progress)
            return target

        if only is not None:
            there = tuple(replica for replica in artifact.replicas if replica.region == only)
            artifact = replace(artifact, replicas=there)
        return self._first_readable(artifact, fetch)

    def verify(self, digest: str, *, progress: Callable[[str], None] | None = None) -> list[JsonObject]:
        """Read every stored byte of every replica; corrupt ones are reported, and the server mends them.

        Returns one row a replica: location, region, and a `verdict`: "verified", an error's code, or the state (in
        lower case) of a replica that is not VERIFIED and was not read.
        """
        artifact = self.get(digest)
        rows: list[JsonObject] = []
        for replica in artifact.replicas:
            verdict = replica.state.lower()
            if replica.state == "VERIFIED":
                try:
                    self._reader(artifact, replica).verify()
                    verdict = "verified"
                except (IntegrityError, ObjectNotFound) as error:
                    self.report(artifact.digest, replica.location, error.code)
                    verdict = error.code
                except (LocationUnavailable, PermissionDenied, MissingExtra) as error:
                    verdict = error.code
            row: JsonObject = {"location": replica.location, "region": replica.region, "verdict": verdict}
            rows.append(row)
            if progress is not None:
                progress(f"{replica.region}: {verdict}")
        return rows

    def report(self, digest: str, location: str, code: str) -> None:
        """Tell the server that a replica's bytes are wrong: it is not served again until it is mended."""
        self._transport.post(f"/api/v1/artifacts/{digest}/reports", {"location": location, "code": code})

    def _known_blocks(self, upload_id: str, digests: Sequence[Digest]) -> dict[Digest, StoredBlock]:
        from fairlead.sync.store.blocks import StoredBlock

        answer = self._transport.post(f"/api/v1/uploads/{upload_id}/known-blocks", {"digests": list(digests)})
        blocks = [StoredBlock(**block) for block in cast("list[dict[str, Any]]", answer["blocks"])]
        return {block.digest: block for block in blocks}

    def _begin(
        self, kind: str, residency: str, regions: Sequence[str] | None, labels: Mapping[str, JsonValue]
    ) -> tuple[str, JsonObject, DedupDomain, ObjectStore]:
        """An upload's id, location, domain and store."""
        from fairlead.sync.store.domain import DedupDomain

        body: dict[str, JsonValue] = {
            "kind": kind,
            "residency": residency,
            "regions": None if regions is None else list(regions),
            "labels": dict(labels),
            "region": self._region,
        }
        grant = self._transport.post("/api/v1/uploads", body)
        location = cast("JsonObject", grant["location"])
        if location["client_access"] == "signed":
            store = self._with_keys(self._signed.of_upload(str(grant["id"]), location))
        else:
            store = self._open_store(str(location["url"]), cast("JsonObject", location["client_options"]))
        return str(grant["id"]), location, DedupDomain(**cast("dict[str, str]", grant["domain"])), store

    def _complete(self, upload_id: str, digest: Digest, layout_key: str, sent_bytes: int) -> None:
        self._transport.post(
            f"/api/v1/uploads/{upload_id}/complete",
            {"artifact_digest": digest, "layout_key": layout_key, "sent_bytes": sent_bytes},
        )

    def _wait_uploaded(self, upload_id: str, what: str) -> None:
        def check() -> bool:
            answer = self._transport.get(f"/api/v1/uploads/{upload_id}")
            if answer["state"] == "FAILED":
                raise recorded_error(cast("JsonObject | None", answer["error"]), "The upload failed.")
            return answer["state"] == "READY"

        wait_until(check, what, READY_TIMEOUT_SECONDS)

    def _base_candidates(
        self, upload_id: str, source: Path, *, model: str | None, parent_version: int | None
    ) -> list[JsonObject]:
        """What the server says the new files may differ little from; files without tensors have no base."""
        from fairlead.sync.store.bases import signature_of_files
        from fairlead.sync.store.manifest import list_files

        signature = signature_of_files(list_files(source))
        if signature is None:
            return []
        body: dict[str, JsonValue] = {
            "model": model,
            "parent_version": parent_version,
            "tensor_signature": signature,
        }
        answer = self._transport.post(f"/api/v1/uploads/{upload_id}/bases", body)
        return cast("list[JsonObject]", answer["bases"])

    def _renewing(self, upload_id: str, progress: Progress | None) -> Progress:
        """Report progress, and ask for more time before the upload's lease of an hour ends."""
        renewed_at = time.monotonic()

        def advance(done: int, total: int) -> None:
            nonlocal renewed_at
            if time.monotonic() - renewed_at > RENEW_UPLOAD_SECONDS:
                self._known_blocks(upload_id, [])
                renewed_at = time.monotonic()
            if progress is not None:
                progress(done, total)

        return advance

    def _open_store(self, url: str, options: Mapping[str, object]) -> ObjectStore:
        from fairlead.sync.store.objects import open_store

        return self._with_keys(open_store(url, options))

    def _with_keys(self, store: ObjectStore) -> ObjectStore:
        """A store with decryption and encryption in this process around it."""
        from fairlead.sync.store.encryption import EncryptedStore

        if self._keyring is None:
            # Kept, because what it has unwrapped it need not ask for again.
            self._keyring = client_keyring(self._transport, self._key_files, self._record)
        return EncryptedStore(store, self._keyring)

    def _reader(self, artifact: Artifact, replica: Replica) -> ArtifactReader:
        from fairlead.sync.store.domain import DedupDomain
        from fairlead.sync.store.reader import ArtifactReader

        if replica.client_access == "signed":
            store = self._with_keys(self._signed.of_replica(artifact.digest, replica.location))
        else:
            store = self._open_store(replica.url, replica.options)
        return ArtifactReader.open(store, DedupDomain(**replica.domain), Digest(artifact.digest), replica.layout_key)

    def _first_readable(self, artifact: Artifact, read: Callable[[ArtifactReader, Replica], T]) -> T:
        verified = [replica for replica in artifact.replicas if replica.state == "VERIFIED"]
        # A location that warms up or drains has its bytes too, and serves those who find no other.
        verified.sort(key=lambda replica: (replica.location_state != "ACTIVE", replica.region != self._region))
        failures: list[str] = []
        for replica in verified:
            try:
                return read(self._reader(artifact, replica), replica)
            except (IntegrityError, ObjectNotFound) as error:
                failures.append(f"{replica.region}: {error.code}")
                # The next replica is worth more to the reader than the report.
                with contextlib.suppress(FairleadError):
                    self.report(artifact.digest, replica.location, error.code)
            except (LocationUnavailable, PermissionDenied, MissingExtra) as error:
                failures.append(f"{replica.region}: {error.code}")
        raise ReplicaUnavailable(
            f"No verified replica of {artifact.digest} can be read ({'; '.join(failures) or 'there is none yet'}).",
            hint="See where it is with: fairlead model where NAME/VERSION",
        )


def wait_until(is_done: Callable[[], bool], what: str, timeout_seconds: float) -> None:
    """Ask again, less and less often, until it is done.

    Raises:
        TimeoutError: after `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = 0.02
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout_seconds:.0f} s for {what}. See what goes on with: fairlead work")
        time.sleep(pause)
        pause = min(pause * 1.4, 0.5)


def recorded_error(error: JsonObject | None, otherwise: str) -> FairleadError:
    """The error that a worker recorded, as its class."""
    members = error or {}
    cls = error_classes().get(str(members.get("code")), FairleadError)
    return cls(str(members.get("detail") or otherwise), hint="Repeat the command to try again.")


def _holds(folder: Path, digest: str) -> bool:
    from fairlead.sync.store.manifest import build_manifest

    try:
        return build_manifest(folder).digest == digest
    except FairleadError:
        return False


def _discard(path: Path) -> None:
    import shutil

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
