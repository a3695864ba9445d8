"""Encryption keys, from the client's side: made and rotated by the server, unwrapped here with access of our own."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.data_keys import WrappedKey
from fairlead.core.errors import ServerUnavailable
from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fairlead.sdk.record_copies import RecordCopies
    from fairlead.sdk.transport import Transport
    from fairlead.sync.store.encryption import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionKey(Record):
    """A data key: ACTIVE (artifacts are registered under it) or RETIRED (only read)."""

    id: str
    state: str
    provider: str
    provider_key: str
    revision: int = 1
    created_by: str = ""
    created_at: datetime | None = None
    wrapped_at: datetime | None = None


class Keys:
    """A workspace's encryption keys."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, provider: str = "file", provider_key: str = "") -> EncryptionKey:
        """Make a data key; what is registered from now on is encrypted under it.

        `provider` is `file`, `aws-kms`, `gcp-kms` or `azure-key-vault`, `provider_key` the wrapping key's name there
        (none for `file`: the server's first key file).

        Raises:
            InvalidInput, KeyUnavailable: if the server cannot have it wrapped so.
        """
        body = {"provider": provider, "provider_key": provider_key}
        return EncryptionKey.from_json(self._transport.post("/api/v1/keys", dict(body)))

    def list(self) -> Iterator[EncryptionKey]:
        """All keys, oldest first."""
        return map(EncryptionKey.from_json, self._transport.items("/api/v1/keys"))

    def rotate(self, key_id: str, *, provider: str | None = None, provider_key: str = "") -> EncryptionKey:
        """Have the same data key wrapped anew, by the newest version of its wrapping key or by another one.

        Raises:
            EncryptionKeyNotFound, KeyUnavailable, StaleRevision.
        """
        body = {"provider": provider, "provider_key": provider_key}
        path = f"{_path(key_id)}/rotate"
        return EncryptionKey.from_json(self._transport.post(path, dict(body), is_repeatable=False))

    def retire(self, key_id: str) -> EncryptionKey:
        """Encrypt nothing more under a key; what it encrypted stays readable.

        Raises:
            EncryptionKeyNotFound
        """
        return EncryptionKey.from_json(self._transport.post(f"{_path(key_id)}/retire"))


def client_keyring(transport: Transport, key_files: Sequence[Path], record: RecordCopies | None = None) -> Keyring:
    """The data keys of the server's workspace, each asked for in wrapped form and unwrapped in this process.

    While the server is away, the nearest copy of its record has them.
    """
    from fairlead.sync.store.keyring import UnwrappingKeyring, open_key_providers

    def look_up(workspace: str, key_id: str) -> WrappedKey:
        try:
            answer = transport.get(_path(key_id))
        except ServerUnavailable as away:
            if record is None:
                raise
            return record.look_up(workspace, key_id, away)
        return WrappedKey(
            workspace=workspace,
            key_id=key_id,
            provider=str(answer["provider"]),
            provider_key=str(answer["provider_key"]),
            wrapped=base64.b64decode(str(answer["wrapped_key"])),
        )

    return UnwrappingKeyring(open_key_providers(key_files), look_up)


def _path(key_id: str) -> str:
    return f"/api/v1/keys/{quote(key_id, safe='')}"
