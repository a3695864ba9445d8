r"""A copy of the record beside the bytes: enough to find, read and restore models while the registry is away.

The copy is a tree. *Documents* hold rows of the record (those of one model; those of the workspace) and are named by
the sha256 of their bytes. *Directories* name documents by what they are about. A signed *index*, one object for each
time the copy was made, names the directories. So one change costs one document, one directory and one index, and what
an index says cannot be mixed with what another one said.

    {workspace}/record/index/{sequence, 16 digits}.json      the index
    {workspace}/record/{key_id}/{sha256}.json.gz             a document or directory, encrypted unless `plain`

    envelope  = canonical JSON of format, version, public_key, payload (base64), signature (base64)
    signature = Ed25519 over "fairlead/record\0" + payload

Sequences only grow: a reader that has seen one refuses an older one. The index names no model; where the workspace
encrypts, whoever lacks the key learns sizes and how many there are.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.clock import format_time, parse_time
from fairlead.core.data_keys import KeyProviders, WrappedKey
from fairlead.core.errors import (
    BadSignature,
    CorruptObject,
    EncryptionKeyNotFound,
    InvalidInput,
    JsonValue,
    KeyUnavailable,
    ObjectNotFound,
    StaleRevision,
)
from fairlead.core.ids import Digest, digest_hex, parse_digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.domain import check_part
from fairlead.sync.store.encryption import EncryptedStore
from fairlead.sync.store.gunzip import gunzip
from fairlead.sync.store.keyring import UnwrappingKeyring
from fairlead.sync.store.refs import key_id_of, public_key_of

FORMAT = "fairlead/record"
DOCUMENT_FORMAT = "fairlead/record-document"
VERSION = 1
WORKSPACE = "workspace"
"""The name of the directory of what is about no single model."""

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of the record by table; a row is its columns by name, times as RFC 3339 and bytes as base64."""

_SEQUENCE_DIGITS = 16
_SIGNED_PREFIX = b"fairlead/record\0"
_INDEX_MAX_BYTES = 16 * 2**20
_DOCUMENT_MAX_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordIndex:
    """What is signed: which directories make up the copy, and as of when.

    `sequence` is that of the last audit event it knows of, `anchor` the event's hash, `directories` maps names to
    digests. `keys` are the workspace's data keys in wrapped form; `key_id` is the one the documents lie under.
    """

    workspace: str
    sequence: int
    refs_revision: int
    issued_at: datetime
    anchor: str | None
    key_id: str
    keys: tuple[WrappedKey, ...]
    directories: Mapping[str, Digest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Rows about one thing: `kind` is `model` or what the workspace has, `name` the model's."""

    kind: str
    name: str
    rows: Rows


def directory_of(name: str) -> str:
    """The directory that a model's document is in: one of 16, by its name."""
    return f"models/{hashlib.sha256(name.encode()).hexdigest()[0]}"


def document_bytes(document: Document) -> bytes:
    """The bytes that name a document. Equal rows give equal bytes."""
    members = {
        "format": DOCUMENT_FORMAT,
        "version": VERSION,
        "kind": document.kind,
        "name": document.name,
        "tables": document.rows,
    }
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def directory_bytes(entries: Mapping[str, Digest]) -> bytes:
    """The bytes that name a directory."""
    named: dict[str, JsonValue] = {name: str(digest) for name, digest in entries.items()}
    return canonical_json({"format": DOCUMENT_FORMAT, "version": VERSION, "kind": "directory", "entries": named})


def index_key(workspace: str, sequence: int) -> str:
    """Where the index of a sequence is."""
    return f"{check_part(workspace, what='workspace')}/record/index/{sequence:0{_SEQUENCE_DIGITS}d}.json"


def document_key(workspace: str, key_id: str, digest: Digest) -> str:
    """Where a document or directory is."""
    parts = (check_part(workspace, what="workspace"), check_part(key_id, what="key id"))
    return f"{parts[0]}/record/{parts[1]}/{digest_hex(digest)}.json.gz"


def write_document(store: ObjectStore, workspace: str, key_id: str, data: bytes) -> int:
    """Store a document or directory; the bytes sent."""
    packed = gzip.compress(data, 9, mtime=0)
    store.write(document_key(workspace, key_id, sha256_digest(data)), packed)
    return len(packed)


def write_index(store: ObjectStore, index: RecordIndex, private_key: bytes) -> int:
    """Sign and store an index; the bytes sent.

    Raises:
        StaleRevision: if the location holds a newer one already.
    """
    newest = max(list_sequences(store, index.workspace), default=0)
    if newest > index.sequence:
        raise StaleRevision(
            f"The location holds a copy of the record of {index.workspace!r} of sequence {newest}, newer than "
            f"{index.sequence}.",
            hint="Another server wrote it: retire this one, or restore its database from the location.",
            revision=newest,
        )
    data = sign_index(index, private_key)
    store.write(index_key(index.workspace, index.sequence), data)
    return len(data)


def sign_index(index: RecordIndex, private_key: bytes) -> bytes:
    """The signed bytes of an index. Equal ones signed by one key have equal bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    payload = canonical_json(_to_json(index))
    signature = Ed25519PrivateKey.from_private_bytes(private_key).sign(_SIGNED_PREFIX + payload)
    return _envelope(public_key_of(private_key), payload, signature)


def _envelope(public_key: bytes, payload: bytes, signature: bytes) -> bytes:
    return canonical_json(
        {
            "format": FORMAT,
            "version": VERSION,
            "public_key": public_key.hex(),
            "payload": base64.b64encode(payload).decode(),
            "signature": base64.b64encode(signature).decode(),
        }
    )


def verify_index(
    data: bytes, trusted_keys: Mapping[str, bytes] | None, *, workspace: str, sequence: int
) -> tuple[RecordIndex, bytes]:
    """Read a signed index; it and the public key that signed it.

    `trusted_keys` maps key ids to public keys, and no other key is believed; None believes the key that the index
    itself names, which shows damage and no forgery.

    Raises:
        BadSignature: if the signature is not one of a believed key over these bytes, or the index is of another
            workspace or sequence.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        envelope = cast("dict[str, object]", json.loads(data))
        public_key = bytes.fromhex(str(envelope["public_key"]))
        is_trusted = trusted_keys is None or trusted_keys.get(key_id_of(public_key)) == public_key
        if not is_trusted or envelope["format"] != FORMAT or envelope["version"] != VERSION:
            raise BadSignature(
                f"The copy of the record of {workspace!r} is signed by {key_id_of(public_key)}, which is not trusted.",
                workspace=workspace,
                signed_by=public_key.hex(),
            )
        payload = base64.b64decode(str(envelope["payload"]), validate=True)
        signature = base64.b64decode(str(envelope["signature"]), validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _SIGNED_PREFIX + payload)
        if data != _envelope(public_key, payload, signature):
            raise ValueError("not in canonical form")  # noqa: TRY301  (one answer to all that is wrong)
        index = _from_json(cast("dict[str, object]", json.loads(payload)))
    except (ValueError, KeyError, TypeError, RecursionError, InvalidInput, InvalidSignature):
        raise BadSignature(
            f"The signature of the copy of the record of {workspace!r} does not verify.", workspace=workspace
        ) from None
    if (index.workspace, index.sequence) != (workspace, sequence):
        raise BadSignature(
            f"The copy of the record of {workspace!r} was signed for another workspace or sequence.",
            workspace=workspace,
        )
    return index, public_key


def list_sequences(store: ObjectStore, workspace: str) -> list[int]:
    """The sequences of the indexes that a location holds, newest first."""
    prefix = index_key(workspace, 0)[: -_SEQUENCE_DIGITS - len(".json")]
    names = (item.key.removeprefix(prefix).removesuffix(".json") for item in store.list(prefix))
    found = (int(name) for name in names if name.isascii() and name.isdigit() and len(name) == _SEQUENCE_DIGITS)
    return sorted(found, reverse=True)


class RecordCopy:
    """The copy of the record at a location, as of one signed index. Every document is checked by its name."""

    def __init__(self, store: ObjectStore, index: RecordIndex, public_key: bytes) -> None:
        self._store = store
        self.index = index
        self.public_key = public_key

    @classmethod
    def open(
        cls,
        store: ObjectStore,
        workspace: str,
        trusted_keys: Mapping[str, bytes] | None,
        *,
        seen_sequence: int = 0,
        decrypting: Callable[[ObjectStore, RecordIndex], ObjectStore] | None = None,
    ) -> RecordCopy:
        """The newest copy at a location that a trusted key signed, not older than `seen_sequence`.

        `decrypting` puts encryption around the store, with the keys that the index names.

        Raises:
            ObjectNotFound: if the location holds none.
            BadSignature: if none of those it holds verifies.
            StaleRevision: if the newest that verifies is older than one seen before.
        """
        failure: BadSignature | None = None
        for sequence in list_sequences(store, workspace):
            try:
                data = store.read(index_key(workspace, sequence), length=_INDEX_MAX_BYTES)
                index, public_key = verify_index(data, trusted_keys, workspace=workspace, sequence=sequence)
            except BadSignature as error:
                failure = failure or error
                continue
            except ObjectNotFound:
                continue
            if index.sequence < seen_sequence:
                raise StaleRevision(
                    f"The location's copy of the record of {workspace!r} is of sequence {index.sequence}; "
                    f"{seen_sequence} was seen.",
                    hint="Use another location, or wait for this one to catch up.",
                    revision=index.sequence,
                )
            opened = store if decrypting is None else decrypting(store, index)
            return cls(opened, index, public_key)
        if failure is not None:
            raise failure
        raise ObjectNotFound(f"The location holds no copy of the record of {workspace!r}.", key=f"{workspace}/record/")

    def model(self, name: str) -> Document | None:
        """A model's document, or None where the copy has none of that name."""
        directory = self.index.directories.get(directory_of(name))
        digest = None if directory is None else self._directory(directory).get(name)
        return None if digest is None else self._document(digest)

    def workspace(self) -> dict[str, Document]:
        """What is about no single model, by kind."""
        directory = self.index.directories[WORKSPACE]
        return {name: self._document(digest) for name, digest in self._directory(directory).items()}

    def models(self) -> Iterator[Document]:
        """Every model's document, directory by directory."""
        for name, directory in sorted(self.index.directories.items()):
            if name != WORKSPACE:
                for digest in self._directory(directory).values():
                    yield self._document(digest)

    def look_up(self, workspace: str, key_id: str) -> WrappedKey:
        """A wrapped data key of the workspace, for a keyring.

        Raises:
            EncryptionKeyNotFound: if the index names no such key.
        """
        return find_key(self.index, workspace, key_id)

    def _directory(self, digest: Digest) -> dict[str, Digest]:
        members = self._read(digest)
        entries = cast("dict[str, str]", members["entries"])
        return {name: parse_digest(text) for name, text in sorted(entries.items())}

    def _document(self, digest: Digest) -> Document:
        members = self._read(digest)
        return Document(kind=str(members["kind"]), name=str(members["name"]), rows=cast("Rows", members["tables"]))

    def _read(self, digest: Digest) -> dict[str, Any]:
        key = document_key(self.index.workspace, self.index.key_id, digest)
        packed = self._store.read(key)
        try:
            data = gunzip(packed, max_bytes=_DOCUMENT_MAX_BYTES)
        except ValueError:
            data = b""
        if sha256_digest(data) != digest:
            raise CorruptObject(f"The document {key!r} of the record is damaged.", key=key)
        members = cast("dict[str, Any]", json.loads(data))
        if members.get("format") != DOCUMENT_FORMAT or members.get("version") != VERSION:
            raise CorruptObject(
                f"The document {key!r} is of another version of the record's format.",
                hint="Upgrade Fairlead if a newer release wrote it.",
                key=key,
            )
        return members


def open_with_own_keys(store: ObjectStore, providers: KeyProviders) -> ObjectStore:
    """A store that decrypts what lies there with the wrapped keys that its own copies of the record name.

    Whose copies they are does not matter here: a key that was not wrapped by the caller's provider does not unwrap.
    """

    def look_up(workspace: str, key_id: str) -> WrappedKey:
        try:
            return RecordCopy.open(store, workspace, None).look_up(workspace, key_id)
        except ObjectNotFound as error:
            raise KeyUnavailable("The location holds no copy of the record, which would name its keys.") from error

    return EncryptedStore(store, UnwrappingKeyring(providers, look_up))


def find_key(index: RecordIndex, workspace: str, key_id: str) -> WrappedKey:
    """A wrapped data key that an index names.

    Raises:
        EncryptionKeyNotFound: if it names no such key.
    """
    for key in index.keys:
        if (key.workspace, key.key_id) == (workspace, key_id):
            return key
    raise EncryptionKeyNotFound(f"The copy of the record has no encryption key {key_id}.", key_id=key_id)


def _to_json(index: RecordIndex) -> JsonValue:
    return {
        "format": FORMAT,
        "version": VERSION,
        "workspace": index.workspace,
        "sequence": index.sequence,
        "refs_revision": index.refs_revision,
        "issued_at": format_time(index.issued_at),
        "anchor": index.anchor,
        "key_id": index.key_id,
        "keys": [
            {
                "id": key.key_id,
                "provider": key.provider,
                "provider_key": key.provider_key,
                "wrapped_key": base64.b64encode(key.wrapped).decode(),
            }
            for key in index.keys
        ],
        "directories": {name: str(digest) for name, digest in index.directories.items()},
    }


def _from_json(record: dict[str, object]) -> RecordIndex:
    if record["format"] != FORMAT or record["version"] != VERSION:
        raise ValueError
    workspace, anchor = str(record["workspace"]), record["anchor"]
    keys = tuple(
        WrappedKey(
            workspace=workspace,
            key_id=key["id"],
            provider=key["provider"],
            provider_key=key["provider_key"],
            wrapped=base64.b64decode(key["wrapped_key"], validate=True),
        )
        for key in cast("list[dict[str, str]]", record["keys"])
    )
    return RecordIndex(
        workspace=workspace,
        sequence=int(cast("int", record["sequence"])),
        refs_revision=int(cast("int", record["refs_revision"])),
        issued_at=parse_time(str(record["issued_at"])),
        anchor=None if anchor is None else str(anchor),
        key_id=check_part(str(record["key_id"]), what="key id"),
        keys=keys,
        directories={name: parse_digest(text) for name, text in cast("dict[str, str]", record["directories"]).items()},
    )
