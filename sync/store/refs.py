r"""Signed refs: what names pointed at, as of a revision, readable at a location without the registry.

A workspace's refs travel as one signed set under `{workspace}/refs/{revision}.json`. Revisions only grow: a reader
that has seen one refuses an older one, so an old set put back in place of a new one does not turn time back.

    envelope  = canonical JSON of format, version, key_id, payload (base64), signature (base64)
    signature = Ed25519 over "fairlead/refs\0" + payload
    payload   = canonical JSON of format, version, workspace, revision, issued_at, refs
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.clock import format_time, parse_time
from fairlead.core.errors import (
    AliasNotFound,
    BadSignature,
    InvalidInput,
    JsonValue,
    ObjectNotFound,
    StaleRevision,
)
from fairlead.core.ids import Digest, digest_hex, parse_digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.domain import PLAIN_KEY_ID, DedupDomain, check_part

FORMAT = "fairlead/refs"
VERSION = 1
REVISION_MAX = 10**16 - 1
_SIGNED_PREFIX = b"fairlead/refs\0"
_SET_MAX_BYTES = 64 * 2**20

RefKind = Literal["alias", "environment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefTarget:
    """One artifact that a ref points at, and the residency class and key that its objects lie under."""

    digest: Digest
    residency: str
    key_id: str = PLAIN_KEY_ID

    def domain(self, workspace: str) -> DedupDomain:
        """The dedup domain to read the artifact in."""
        return DedupDomain(workspace, self.residency, self.key_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A name such as `churn@production`, and what it pointed at as of its own revision and time."""

    name: str
    kind: RefKind
    revision: int
    targets: tuple[RefTarget, ...]
    issued_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefSet:
    """All refs of a workspace as of a revision, in order of name and kind."""

    workspace: str
    revision: int
    issued_at: datetime
    refs: tuple[Ref, ...]

    def resolve(self, name: str) -> Ref:
        """The ref of this name; where an environment and an alias share it, the environment.

        Raises:
            AliasNotFound: if there is none.
        """
        found = sorted((ref for ref in self.refs if ref.name == name), key=lambda ref: ref.kind, reverse=True)
        if not found:
            raise AliasNotFound(f"Revision {self.revision} of the refs of {self.workspace!r} holds no {name[:120]!r}.")
        return found[0]


def generate_signing_key() -> bytes:
    """A new Ed25519 private key, as its 32 raw bytes. Keep it secret."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key_of(private_key: bytes) -> bytes:
    """The 32 raw bytes of the public key that verifies what this private key signs."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def key_id_of(public_key: bytes) -> str:
    """The short name of a public key: the first 16 digits of its sha256."""
    return digest_hex(sha256_digest(public_key))[:16]


def public_keys_of(private_keys: Iterable[bytes]) -> dict[str, bytes]:
    """The public keys of private ones by their short names, as whoever verifies wants them."""
    return {key_id_of(public_key): public_key for public_key in map(public_key_of, private_keys)}


def sign_refs(refs: RefSet, private_key: bytes) -> bytes:
    """The signed bytes of a set. Equal sets signed by one key have equal bytes.

    Raises:
        InvalidInput: if the revision is out of range, or a ref has no target.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not 0 < refs.revision <= REVISION_MAX or any(not ref.targets for ref in refs.refs):
        raise InvalidInput(f"Refs of revision {refs.revision} cannot be signed: a revision is 1 or more, with targets.")
    payload = canonical_json(_to_json(refs))
    signature = Ed25519PrivateKey.from_private_bytes(private_key).sign(_SIGNED_PREFIX + payload)
    return canonical_json(
        {
            "format": FORMAT,
            "version": VERSION,
            "key_id": key_id_of(public_key_of(private_key)),
            "payload": base64.b64encode(payload).decode(),
            "signature": base64.b64encode(signature).decode(),
        }
    )


def verify_refs(
    data: bytes, trusted_keys: Mapping[str, bytes], *, workspace: str, revision: int | None = None
) -> RefSet:
    """Read signed bytes; `trusted_keys` maps key ids to public keys, and no other key is believed.

    Raises:
        BadSignature: if the signature is not one of a trusted key over these bytes, or the set is of
            another workspace or revision.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        envelope = cast("dict[str, object]", json.loads(data))
        public_key = trusted_keys.get(str(envelope["key_id"]))
        if public_key is None or envelope["format"] != FORMAT or envelope["version"] != VERSION:
            raise BadSignature(f"The refs of {workspace!r} are not signed by a trusted key.", workspace=workspace)
        payload = base64.b64decode(str(envelope["payload"]), validate=True)
        signature = base64.b64decode(str(envelope["signature"]), validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _SIGNED_PREFIX + payload)
        refs = _from_json(cast("dict[str, object]", json.loads(payload)))
    except (ValueError, KeyError, TypeError, RecursionError, InvalidInput, InvalidSignature):
        raise BadSignature(
            f"The signature of the refs of {workspace!r} does not verify.", workspace=workspace
        ) from None
    if refs.workspace != workspace or revision not in {None, refs.revision}:
        raise BadSignature(
            f"The refs of {workspace!r} were signed for another workspace or revision.", workspace=workspace
        )
    return refs


def write_refs(store: ObjectStore, refs: RefSet, private_key: bytes, *, keep: int = 8) -> str:
    """Sign and store a set, and remove those more than `keep` revisions objects back; the key written.

    Raises:
        StaleRevision: if the location holds a newer revision already.
    """
    newest = max(_revisions(store, refs.workspace), default=0)
    if newest > refs.revision:
        raise StaleRevision(
            f"The location holds refs of {refs.workspace!r} of revision {newest}, newer than {refs.revision}.",
            revision=newest,
        )
    key = refs_key(refs.workspace, refs.revision)
    store.write(key, sign_refs(refs, private_key))
    for revision in _revisions(store, refs.workspace)[keep:]:
        store.delete(refs_key(refs.workspace, revision))
    return key


def read_refs(
    store: ObjectStore, workspace: str, trusted_keys: Mapping[str, bytes], *, seen_revision: int = 0
) -> RefSet:
    """The newest set at a location that a trusted key signed, not older than `seen_revision`.

    Raises:
        ObjectNotFound: if the location holds none.
        BadSignature: if none of those it holds verifies.
        StaleRevision: if the newest that verifies is older than one seen before.
    """
    failure: BadSignature | None = None
    for revision in _revisions(store, workspace):
        try:
            data = store.read(refs_key(workspace, revision), length=_SET_MAX_BYTES)
            refs = verify_refs(data, trusted_keys, workspace=workspace, revision=revision)
        except BadSignature as error:
            failure = failure or error
            continue
        except ObjectNotFound:
            continue
        if refs.revision < seen_revision:
            raise StaleRevision(
                f"The location's refs of {workspace!r} are of revision {refs.revision}; {seen_revision} was seen.",
                hint="Read them at another location, or wait for this one to catch up.",
                revision=refs.revision,
            )
        return refs
    if failure is not None:
        raise failure
    raise ObjectNotFound(f"The location holds no refs of {workspace!r}.", key=f"{workspace}/refs/")


def refs_key(workspace: str, revision: int) -> str:
    """Where the refs of a workspace as of a revision are."""
    return f"{check_part(workspace, what='workspace')}/refs/{revision:016d}.json"


def _revisions(store: ObjectStore, workspace: str) -> list[int]:
    prefix = refs_key(workspace, 0).rpartition("/")[0] + "/"
    names = (item.key.removeprefix(prefix).removesuffix(".json") for item in store.list(prefix))
    found = (int(name) for name in names if name.isascii() and name.isdigit() and len(name) == len(str(REVISION_MAX)))
    return sorted(found, reverse=True)


def _to_json(refs: RefSet) -> JsonValue:
    return {
        "format": FORMAT,
        "version": VERSION,
        "workspace": refs.workspace,
        "revision": refs.revision,
        "issued_at": format_time(refs.issued_at),
        "refs": [
            {
                "name": ref.name,
                "kind": ref.kind,
                "revision": ref.revision,
                "issued_at": format_time(ref.issued_at),
                "targets": [
                    {"digest": target.digest, "residency": target.residency, "key_id": target.key_id}
                    for target in ref.targets
                ],
            }
            for ref in sorted(refs.refs, key=lambda ref: (ref.name, ref.kind))
        ],
    }


def _from_json(record: dict[str, object]) -> RefSet:
    if record["format"] != FORMAT or record["version"] != VERSION:
        raise ValueError
    refs: list[Ref] = []
    for item in cast("list[dict[str, object]]", record["refs"]):
        kind = item["kind"]
        if kind not in {"alias", "environment"}:
            raise ValueError
        targets = tuple(
            RefTarget(
                digest=parse_digest(target["digest"]),
                residency=check_part(target["residency"], what="residency class"),
                key_id=check_part(target["key_id"], what="key id"),
            )
            for target in cast("list[dict[str, str]]", item["targets"])
        )
        refs.append(
            Ref(
                name=str(item["name"]),
                kind=cast("RefKind", kind),
                revision=int(cast("int", item["revision"])),
                targets=targets,
                issued_at=parse_time(str(item["issued_at"])),
            )
        )
    return RefSet(
        workspace=str(record["workspace"]),
        revision=int(cast("int", record["revision"])),
        issued_at=parse_time(str(record["issued_at"])),
        refs=tuple(refs),
    )
