"""Lets clients into locations that they hold no key of: signed addresses, a verb on an object each, for some minutes.

A reader is given an artifact's objects at one location, all of them at once. A writer is given what an open upload
needs, as it needs it: packs of its dedup domain, and the manifests and layouts of what the caller may see or is
uploading. Whoever asks is written down before the answer leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.core.db import is_dry_run
from fairlead.core.errors import (
    ArtifactNotFound,
    Conflict,
    InvalidInput,
    LeaseLost,
    PermissionDenied,
    ReplicaUnavailable,
)
from fairlead.core.ids import Digest
from fairlead.registry import audit
from fairlead.registry.locations import find_location
from fairlead.registry.tables import ArtifactRow
from fairlead.registry.visibility import unnarrowed
from fairlead.sync.shelves import domain_of_layout, domain_of_upload, open_location
from fairlead.sync.store.keys import check_key, check_prefix
from fairlead.sync.store.reader import ArtifactReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fairlead.core.db import Database
    from fairlead.core.errors import JsonValue
    from fairlead.core.ports import Clock, ObjectInfo, ObjectStore
    from fairlead.registry.identity import Caller
    from fairlead.registry.locations import Location, StoreOpener
    from fairlead.registry.replicas import Artifacts, Replica
    from fairlead.registry.uploads import Upload, Uploads
    from fairlead.sync.store.domain import DedupDomain
    from fairlead.sync.store.presigning import SignedRequest, Signer, Verb

ADDRESS_LIFE = timedelta(minutes=15)
"""How long an address lives; a transfer that takes longer asks again."""

KEYS_AT_ONCE = 1000
"""The most keys of one request."""

SignerOpener = Callable[[str, Mapping[str, object]], "Signer"]


class StorageAccess:
    """Signs addresses for those who may read an artifact, or write an upload."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        uploads: Uploads,
        artifacts: Artifacts,
        open_store: StoreOpener,
        open_signer: SignerOpener,
    ) -> None:
        self._database = database
        self._clock = clock
        self._uploads = uploads
        self._artifacts = artifacts
        self._open_store = open_store
        self._open_signer = open_signer

    def read_artifact(self, caller: Caller, digest: str, *, location: str) -> list[SignedRequest]:
        """Addresses to read every object of an artifact's replica: its manifest, its layout and its packs.

        Raises:
            ArtifactNotFound, LocationNotFound: if the workspace has none of this digest, or no such location.
            ReplicaUnavailable: if it has no VERIFIED replica there.
            Conflict: if clients reach that location with identities of their own.
            LocationUnavailable, PermissionDenied: from the location.
        """
        with self._database.read() as session:
            find_location(session, caller.workspace_id, location)
        found = self._artifacts.get(caller, digest)
        replicas = [each for each in found.replicas if each.location.name == location and each.state == "VERIFIED"]
        if not replicas:
            raise ReplicaUnavailable(
                f"{found.digest} has no verified replica at {location!r}.",
                hint="See where it is with: fairlead model where NAME/VERSION",
            )
        signed: list[SignedRequest] = []
        # One of each residency class that it is registered under.
        for replica in replicas:
            _require_signed(replica.location)
            keys = self._keys_of(caller, Digest(found.digest), replica)
            signed += self._sign(
                caller, replica.location, "read", keys, subject=found.digest, residency=replica.residency
            )
        return signed

    def _keys_of(self, caller: Caller, artifact: Digest, replica: Replica) -> list[str]:
        domain = domain_of_layout(replica.layout_key, caller.workspace_id, replica.residency)
        store = _Remembering(open_location(self._open_store, replica.location))
        # What a client has to read to know its packs is what was read here to know them.
        reader = ArtifactReader.open(store, domain, artifact, replica.layout_key)
        packs = sorted({block.pack for block in reader.layout.blocks.values()})
        return [*store.keys, *(key for key in map(domain.pack_key, packs) if key not in store.keys)]

    def reach_upload(self, caller: Caller, upload_id: str, *, verb: Verb, keys: Sequence[str]) -> list[SignedRequest]:
        """Addresses to read or create objects of an open upload's dedup domain.

        Raises:
            InvalidInput: if there are no keys or more than 1000, or one of them is no key.
            UploadNotFound, LeaseLost: if there is no such upload, or it is over.
            PermissionDenied: if a key is outside of what the upload may touch.
            Conflict: if clients reach that location with identities of their own.
            LocationUnavailable: from the location.
        """
        if not 0 < len(keys) <= KEYS_AT_ONCE:
            raise InvalidInput(f"{len(keys)} keys are asked for.", hint=f"Ask for 1 to {KEYS_AT_ONCE}.")
        upload = self._require_open(caller, upload_id)
        domain = domain_of_upload(upload, caller.workspace_id)
        for key in keys:
            self._require_reach(caller, domain, check_key(key), verb)
        return self._sign(caller, upload.location, verb, keys, subject=upload.id, residency=upload.residency)

    def list_upload(self, caller: Caller, upload_id: str, prefix: str) -> list[ObjectInfo]:
        """The objects of an open upload's domain below a prefix: layouts of one artifact, as a writer looks for them.

        Raises:
            InvalidInput: if it is no prefix.
            UploadNotFound, LeaseLost: if there is no such upload, or it is over.
            PermissionDenied: if the prefix is another one.
            LocationUnavailable: from the location.
        """
        upload = self._require_open(caller, upload_id)
        domain = domain_of_upload(upload, caller.workspace_id)
        artifact = _artifact_of_prefix(domain, check_prefix(prefix))
        if artifact is None or not self._may_see(caller, artifact):
            raise _out_of_reach(prefix)
        return list(open_location(self._open_store, upload.location).list(prefix))

    def _require_open(self, caller: Caller, upload_id: str) -> Upload:
        upload = self._uploads.get(caller, upload_id)
        _require_signed(upload.location)
        if upload.created_by != caller.principal:
            raise PermissionDenied(f"The upload {upload.id} is {upload.created_by!r}'s.")
        if upload.state != "OPEN":
            raise LeaseLost(f"The upload {upload.id} is {upload.state}.", hint="Begin a new one.")
        return upload

    def _require_reach(self, caller: Caller, domain: DedupDomain, key: str, verb: Verb) -> None:
        """Packs are named by their bytes, so nobody asks for one who does not know them; the others name what it is."""
        if domain.parse_pack_key(key) is not None:
            return
        artifact = domain.parse_manifest_key(key) or _artifact_of_prefix(domain, key.rpartition("/")[0] + "/")
        # Nobody can create another one: its name is the digest of what it has to hold.
        if artifact is None or (verb == "read" and not self._may_see(caller, artifact)):
            raise _out_of_reach(key)

    def _may_see(self, caller: Caller, artifact: Digest) -> bool:
        """Whether the caller may see an artifact; what the record does not know is the upload's own, or nobody's."""
        try:
            self._artifacts.get(caller, artifact)
        except ArtifactNotFound:
            known = select(ArtifactRow.digest).filter_by(workspace_id=caller.workspace_id, digest=artifact)
            # Hidden is not unknown.
            with unnarrowed(), self._database.read() as session:
                return session.scalars(known.limit(1)).first() is None
        return True

    def _sign(
        self,
        caller: Caller,
        location: Location,
        verb: Verb,
        keys: Sequence[str],
        *,
        subject: str,
        residency: str,
    ) -> list[SignedRequest]:
        signed: list[SignedRequest] = []
        now = self._clock.now()
        # A rehearsal leaves no trace, so it gives nothing away either.
        if not is_dry_run():
            signer = self._open_signer(location.url, location.store_options)
            signed = signer.sign(verb, keys, now=now, life=ADDRESS_LIFE)
        facts: dict[str, JsonValue] = {"location": location.name, "verb": verb, "objects": len(keys)}
        with self._database.write() as session:
            audit.record(
                session,
                caller,
                self._clock,
                action=f"storage.{verb}",
                subject=subject,
                residency=residency,
                facts=facts,
            )
        return signed


class _Remembering:
    """A store that remembers what was read of it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.keys: list[str] = []

    @property
    def has_create_only(self) -> bool:
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if key not in self.keys:
            self.keys.append(key)
        return self._store.read(key, start=start, length=length)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        return self._store.write(key, data, create_only=create_only)

    def size(self, key: str) -> int | None:
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)


def _require_signed(location: Location) -> None:
    if location.client_access != "signed":
        raise Conflict(
            f"Clients reach {location.name!r} with identities of their own.",
            hint=f"Let the server sign for them: fairlead location set {location.name} --client-access signed",
            location=location.name,
        )


def _artifact_of_prefix(domain: DedupDomain, prefix: str) -> Digest | None:
    """The artifact whose layouts' keys begin with exactly this prefix."""
    name = prefix.removeprefix(domain.layout_prefix()).removesuffix("/")
    if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        return None
    artifact = Digest(f"sha256:{name}")
    return artifact if prefix == domain.layout_prefix(artifact) else None


def _out_of_reach(key: str) -> PermissionDenied:
    return PermissionDenied(f"This upload does not reach {key[:200]!r}.")
