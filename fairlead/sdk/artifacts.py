"""The bytes, from the client's side: write packs where the server says, read them from the best verified replica."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from fairlead.core.errors import (
    FairleadError,
    IntegrityError,
    LocationUnavailable,
    ObjectNotFound,
    ReplicaUnavailable,
    error_classes,
)
from fairlead.core.ids import Digest, digest_hex, parse_digest
from fairlead.sdk.records import Artifact, Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import JsonObject, Transport
    from fairlead.sync.store.layout import StoredBlock
    from fairlead.sync.store.reader import ArtifactReader

    Progress = Callable[[int, int], None]

READY_TIMEOUT_SECONDS = 600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What one upload put where. `sent_bytes` went over the wire, `plain_bytes` is what the files weigh."""

    id: str
    digest: Digest
    plain_bytes: int
    sent_bytes: int
    new_blocks: int
    reused_blocks: int


class Artifacts:
    """Everything that travels, by digest."""

    def __init__(self, transport: Transport, *, cache: Path, region: str | None) -> None:
        self._transport = transport
        self._cache = cache
        self._region = region

    def get(self, digest: str) -> Artifact:
        """Size, kind and replicas of an artifact.

        Raises:
            ArtifactNotFound: if the server knows none of that digest.
        """
        return Artifact.from_json(self._transport.get(f"/api/v1/artifacts/{parse_digest(digest)}"))

    def upload(
        self,
        source: Path,
        *,
        kind: str,
        residency: str = "unrestricted",
        regions: Sequence[str] | None = None,
        labels: Mapping[str, JsonValue] | None = None,
        progress: Progress | None = None,
    ) -> Upload:
        """Write a file or folder into a permitted location; only blocks it does not hold are sent.

        The server reads every byte back before anything becomes READY. Safe to repeat after any interruption.

        Raises:
            InvalidInput: if the source is missing, or changes while it is read.
            ResidencyViolation: if no location may hold data of this residency class.
            StorageFull, LocationUnavailable, PermissionDenied: from the location.
        """
        from fairlead.sync.store.domain import DedupDomain  # noqa: PLC0415  (numpy and codecs, only when bytes move)
        from fairlead.sync.store.objects import open_store  # noqa: PLC0415
        from fairlead.sync.store.writer import write_artifact  # noqa: PLC0415

        grant = self._transport.post(
            "/api/v1/uploads",
            {
                "kind": kind,
                "residency": residency,
                "regions": None if regions is None else list(regions),
                "labels": dict(labels or {}),
                "region": self._region,
            },
        )
        upload_id = str(grant["id"])
        location = cast("JsonObject", grant["location"])
        domain = cast("dict[str, str]", grant["domain"])
        written = write_artifact(
            open_store(str(location["url"]), cast("JsonObject", location["options"])),
            DedupDomain(**domain),
            source,
            known_blocks=lambda digests: self._known_blocks(upload_id, digests),
            progress=progress,
        )
        self._transport.post(
            f"/api/v1/uploads/{upload_id}/complete",
            {
                "artifact_digest": written.manifest.digest,
                "layout_key": written.layout_key,
                "sent_bytes": written.sent_bytes,
            },
        )
        return Upload(
            id=upload_id,
            digest=written.manifest.digest,
            plain_bytes=written.plain_bytes,
            sent_bytes=written.sent_bytes,
            new_blocks=written.new_blocks,
            reused_blocks=written.reused_blocks,
        )

    def wait_uploaded(self, upload_id: str, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> None:
        """Wait until a worker has read back every byte of an upload.

        Raises:
            IntegrityError: if the bytes did not arrive as they were sent; upload again.
            TimeoutError: if no worker finished in time.
        """

        def check() -> bool:
            state = self._transport.get(f"/api/v1/uploads/{upload_id}")
            if state["state"] in {"FAILED", "EXPIRED"}:
                raise recorded_error(cast("JsonObject | None", state.get("error")), "The upload failed.")
            return state["state"] == "READY"

        wait_until(check, "the upload to be verified", timeout_seconds)

    def open(self, digest: str) -> ArtifactReader:
        """A verifying reader on the best replica: this client's region first, then the others.

        Raises:
            ReplicaUnavailable: if no VERIFIED replica can be read; names what each one answered.
        """
        return self._first_readable(self.get(digest), lambda reader, _: reader)

    def download(self, digest: str, destination: Path | None = None, *, progress: Progress | None = None) -> Path:
        """Bring an artifact's files here, each byte verified; without a destination, into the cache.

        A cached artifact is checked against its digest before it is used again. A replica whose bytes are wrong is
        reported, mended by the server, and passed over for the next one.
        """
        from fairlead.sync.store.manifest import Manifest  # noqa: PLC0415

        artifact = self.get(digest)
        target = destination or self._cache / "artifacts" / digest_hex(parse_digest(digest))
        if destination is None and target.exists():
            if Manifest.from_path(target).digest == artifact.digest:
                return target
            _discard(target)
        target.parent.mkdir(parents=True, exist_ok=True)

        def fetch(reader: ArtifactReader, _: Replica) -> Path:
            reader.download(target, progress)
            return target

        return self._first_readable(artifact, fetch)

    def verify(self, digest: str, *, progress: Callable[[str], None] | None = None) -> list[JsonObject]:
        """Read every stored byte of every replica; corrupt ones are reported, and the server mends them.

        Returns one row a replica: location, region, state before, `verdict` ("verified" or an error code).
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
                except LocationUnavailable as error:
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
        from fairlead.sync.store.layout import StoredBlock  # noqa: PLC0415

        answer = self._transport.post(f"/api/v1/uploads/{upload_id}/known-blocks", {"digests": list(digests)})
        blocks = [StoredBlock.from_json(block) for block in cast("list[JsonObject]", answer["blocks"])]
        return {block.digest: block for block in blocks}

    def _reader(self, artifact: Artifact, replica: Replica) -> ArtifactReader:
        from fairlead.sync.store.domain import DedupDomain  # noqa: PLC0415
        from fairlead.sync.store.objects import open_store  # noqa: PLC0415
        from fairlead.sync.store.reader import ArtifactReader  # noqa: PLC0415

        store = open_store(replica.url, replica.options)
        return ArtifactReader.open(store, DedupDomain(**replica.domain), Digest(artifact.digest), replica.layout_key)

    def _first_readable(self, artifact: Artifact, read: Callable[[ArtifactReader, Replica], T]) -> T:
        verified = [replica for replica in artifact.replicas if replica.state == "VERIFIED"]
        verified.sort(key=lambda replica: replica.region != self._region)
        failures: list[str] = []
        for replica in verified:
            try:
                return read(self._reader(artifact, replica), replica)
            except (IntegrityError, ObjectNotFound) as error:
                self.report(artifact.digest, replica.location, error.code)
                failures.append(f"{replica.region}: {error.code}")
            except LocationUnavailable as error:
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
            msg = f"Waited {timeout_seconds:.0f} s for {what}. Is a worker running? See: fairlead work"
            raise TimeoutError(msg)
        time.sleep(pause)
        pause = min(pause * 1.4, 0.5)


def recorded_error(error: JsonObject | None, otherwise: str) -> FairleadError:
    """The error that a worker recorded, as its class."""
    members = error or {}
    cls = error_classes().get(str(members.get("code")), FairleadError)
    return cls(str(members.get("detail") or otherwise), hint="Repeat the command to try again.")


def _discard(path: Path) -> None:
    import shutil  # noqa: PLC0415

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
