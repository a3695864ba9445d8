"""The keys of encrypted stores: a keyring over key providers, and the provider that is a file.

`open_key_providers` knows every kind of provider; `UnwrappingKeyring` makes a `Keyring` for encrypted stores out of
them and of a way to look a wrapped key up.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fairlead.core.data_keys import DATA_KEY_BYTES, KeyProviders, WrappedKey, unwrap_key
from fairlead.core.errors import InvalidInput, KeyUnavailable

FILE, AWS_KMS, GCP_KMS, AZURE_KEY_VAULT = "file", "aws-kms", "gcp-kms", "azure-key-vault"

_FILE_MAGIC = b"FLK\x01"
_NONCE_BYTES = 12
_CONTEXT_PREFIX = b"fairlead/data-key/1"


def open_key_providers(key_files: Sequence[Path]) -> KeyProviders:
    """Every kind of provider. Key files are read, and clouds asked, when a key is wrapped or unwrapped."""
    from fairlead.sync.store.cloud_keys import AwsKms, AzureKeyVault, GcpKms

    return {FILE: KeyFiles(key_files), AWS_KMS: AwsKms(), GCP_KMS: GcpKms(), AZURE_KEY_VAULT: AzureKeyVault()}


class UnwrappingKeyring:
    """Data keys by workspace and key id, each looked up and unwrapped once and then kept in memory.

    `look_up` raises `EncryptionKeyNotFound` where there is no such key. Safe to use from several threads.
    """

    def __init__(self, providers: KeyProviders, look_up: Callable[[str, str], WrappedKey]) -> None:
        self._providers = providers
        self._look_up = look_up
        self._known: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def __call__(self, workspace: str, key_id: str) -> bytes:
        """The 32 bytes of a data key.

        Raises:
            EncryptionKeyNotFound, KeyUnavailable, MissingExtra: if it cannot be had.
        """
        with self._lock:
            known = self._known.get((workspace, key_id))
        if known is not None:
            return known
        data_key = unwrap_key(self._providers, self._look_up(workspace, key_id))
        with self._lock:
            return self._known.setdefault((workspace, key_id), data_key)


class KeyFiles:
    """Files of 32 random bytes as a `KeyProvider`: the first one wraps, all of them unwrap.

    Wrapped is `FLK`, version 1, a nonce (12) and the key under AES-256-GCM (48), with those four bytes and the context
    as associated data. A wrapping key is named by 16 hexadecimal digits of the sha256 of a label and its bytes.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def wrap(self, data_key: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE_BYTES)
        cipher = AESGCM(self._find(provider_key))
        return _FILE_MAGIC + nonce + cipher.encrypt(nonce, data_key, _FILE_MAGIC + bound_context(context))

    def unwrap(self, wrapped: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        magic, nonce, sealed = wrapped[:4], wrapped[4 : 4 + _NONCE_BYTES], wrapped[4 + _NONCE_BYTES :]
        key = self._find(provider_key)
        try:
            # The magic is bound too, so one of a later version is refused like any other change.
            return AESGCM(key).decrypt(nonce, sealed, magic + bound_context(context))
        except (InvalidTag, ValueError):
            raise KeyUnavailable(
                f"The key file {provider_key} did not wrap this encryption key, or the wrapped key is damaged.",
                hint="Restore the record from a copy: fairlead restore.",
            ) from None

    def name_of(self, provider_key: str) -> str:
        if provider_key:
            self._find(provider_key)
            return provider_key
        if not self._paths:
            raise InvalidInput(
                "There is no key file to wrap an encryption key with.",
                hint="Make one with: fairlead keys make-file PATH. Then set FAIRLEAD_KEY_FILE for server and clients.",
            )
        return fingerprint(read_key_file(self._paths[0]))

    def _find(self, name: str) -> bytes:
        for path in self._paths:
            key = read_key_file(path)
            if fingerprint(key) == name:
                return key
        given = "no key file is given" if not self._paths else f"none of the {len(self._paths)} given is that one"
        raise KeyUnavailable(
            f"The key file {name} is needed, and {given}.",
            hint="Set FAIRLEAD_KEY_FILE to the file that the key was wrapped with (several: separated by colons).",
            provider_key=name,
        )


def read_key_file(path: Path) -> bytes:
    """The 32 bytes of a key file.

    Raises:
        KeyUnavailable: if it is missing, not readable, of another length, or open to every user of the machine.
    """
    try:
        mode = path.stat().st_mode
        key = path.read_bytes()
    except OSError as error:
        raise KeyUnavailable(
            f"The key file {str(path)!r} cannot be read: {error.strerror}.", hint="Check FAIRLEAD_KEY_FILE."
        ) from None
    if mode & 0o007:
        raise KeyUnavailable(
            f"The key file {str(path)!r} is open to every user of this machine.", hint=f"Run: chmod 600 {path}"
        )
    if len(key) != DATA_KEY_BYTES:
        raise KeyUnavailable(
            f"The key file {str(path)!r} holds {len(key)} bytes, not {DATA_KEY_BYTES}.",
            hint="Make one with: fairlead keys make-file PATH",
        )
    return key


def make_key_file(path: Path) -> str:
    """Write 32 random bytes to a new file that its owner alone can read; the name of the key.

    Raises:
        InvalidInput: if the file exists or cannot be made.
    """
    key = os.urandom(DATA_KEY_BYTES)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise InvalidInput(
            f"{str(path)!r} exists already, and may hold a key in use.", hint="Choose another."
        ) from None
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be made: {error.strerror}.") from None
    return fingerprint(key)


def fingerprint(key: bytes) -> str:
    """The name of a key file's key; it says nothing about the key."""
    return hashlib.sha256(b"fairlead/key-file\0" + key).hexdigest()[:16]


def bound_context(context: Mapping[str, str]) -> bytes:
    """What a wrapped key is bound to, as bytes: a label, then names and values in order of name, divided by NUL."""
    parts = [part.encode() for name in sorted(context) for part in (name, context[name])]
    return b"\0".join([_CONTEXT_PREFIX, *parts])
