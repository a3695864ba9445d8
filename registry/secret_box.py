"""Small secrets that the server has to use again, such as what signs a webhook's messages: encrypted in the record.

Sealed is `FLS`, version 1, a nonce (12) and the secret under AES-256-GCM, bound to what it is the secret of. The key is
derived from a key of the server's that is in no database. The first of several encrypts and all of them decrypt, so a
key is replaced by putting the new one before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from fairlead.core.errors import KeyUnavailable

_MAGIC = b"FLS\x01"
_NONCE_BYTES = 12
_INFO = b"fairlead record secrets 1"


class SecretBox:
    """Seals secrets under the first of some keys, each of at least 32 random bytes, and opens them under any.

    The keys are asked for each time, so that a key file may be there, or replaced, later.
    """

    def __init__(self, keys: Callable[[], Sequence[bytes]]) -> None:
        self._keys = keys

    def seal(self, secret: bytes, *, of: str) -> bytes:
        """Encrypt a secret; `of` names what it belongs to, and has to be the same when it is opened."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE_BYTES)
        return _MAGIC + nonce + AESGCM(_derive(self._keys()[0])).encrypt(nonce, secret, _MAGIC + of.encode())

    def open(self, sealed: bytes, *, of: str) -> bytes:
        """Decrypt a secret.

        Raises:
            KeyUnavailable: if no key opens it.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        magic, nonce, body = sealed[:4], sealed[4 : 4 + _NONCE_BYTES], sealed[4 + _NONCE_BYTES :]
        for key in self._keys():
            try:
                return AESGCM(_derive(key)).decrypt(nonce, body, magic + of.encode())
            except (InvalidTag, ValueError):
                continue
        raise KeyUnavailable(
            f"No key of this server opens the secret of {of}.",
            hint="Start it with the key file, or signing key, that sealed it; or make another secret.",
        )


def _derive(key: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(key)
