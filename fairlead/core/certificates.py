r"""Certificates: a statement of this service, signed, that anyone who has its public key can check without it.

    envelope  = {"format": "fairlead/erasure", "version": 1, "key_id": ..., "payload": base64, "signature": base64}
    signature = Ed25519 over "fairlead/erasure\0" + payload

The payload is canonical JSON. The key is the one that signs refs and copies of the record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import BadSignature, InvalidInput, JsonValue

FORMAT, VERSION = "fairlead/erasure", 1

_KEY_BYTES = 32
_PREFIX = b"fairlead/erasure\0"


def sign_certificate(statement: dict[str, JsonValue], private_key: bytes) -> dict[str, JsonValue]:
    """The signed envelope of a statement; `private_key` is an Ed25519 key as its 32 raw bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    payload = canonical_json(statement)
    key = Ed25519PrivateKey.from_private_bytes(private_key)
    return {
        "format": FORMAT,
        "version": VERSION,
        "key_id": _key_id(key.public_key().public_bytes_raw()),
        "payload": base64.b64encode(payload).decode(),
        "signature": base64.b64encode(key.sign(_PREFIX + payload)).decode(),
    }


def verify_certificate(envelope: Mapping[str, Any], trusted_keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The statement of an envelope; `trusted_keys` maps key ids to raw public keys, and no other key is believed.

    Raises:
        BadSignature: if it is no such envelope, or not signed by a trusted key over these bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public_key = trusted_keys.get(str(envelope["key_id"]))
        if public_key is None or (envelope["format"], envelope["version"]) != (FORMAT, VERSION):
            raise BadSignature("The certificate is not signed by a trusted key.")
        payload = base64.b64decode(str(envelope["payload"]), validate=True)
        signature = base64.b64decode(str(envelope["signature"]), validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _PREFIX + payload)
        return cast("dict[str, Any]", json.loads(payload))
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error, InvalidSignature):
        raise BadSignature("The signature of the certificate does not verify.") from None


def trusted(public_keys: Iterable[str]) -> dict[str, bytes]:
    """Public keys in hexadecimal digits, by their key ids.

    Raises:
        InvalidInput: if one is none.
    """
    try:
        raw = [bytes.fromhex(each) for each in public_keys]
    except ValueError:
        raw = [b""]
    if any(len(each) != _KEY_BYTES for each in raw):
        raise InvalidInput("A public key is 64 hexadecimal digits.", hint="Give the key that the server names.")
    return {_key_id(each): each for each in raw}


def read_statement(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """What an envelope states, whoever signed it."""
    return cast("dict[str, Any]", json.loads(base64.b64decode(str(envelope["payload"]))))


def _key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]
