"""Objects encrypted before they leave this process: an object store around another one.

What lies under a key id that is not `plain` (a dedup domain, the copy of the record) is stored as an *encrypted
object*, byte by byte as docs/reference/format.md says: a header, and frames of 64 KiB, each under AES-256-GCM.
Everything else passes through.
Names, sizes and digests that callers see stay those of the plain bytes.

    header     = magic (8), plain length (u64), salt (32)
    frame      = up to 65,536 plain bytes, encrypted, and the tag (16); the last one may be shorter, and empty
    salt       = HMAC-SHA256(salt key, object key || NUL || sha256 of the plain bytes)
    object key = HKDF-SHA256(data key, salt)

The salt depends on nothing but the key and the content, so writing an object twice gives the same bytes twice, which
is what makes writes harmless to repeat, and one key never encrypts two contents. Each frame is bound to the object's
key, to the header and to its place, so none can be exchanged, left out, cut off, or moved to another object. A range
costs the frames it lies in.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fairlead.core.errors import CorruptObject
from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.sync.store.domain import encryption_of
from fairlead.sync.store.keys import check_key, check_range

Keyring = Callable[[str, str], bytes]
"""The 32 bytes of a workspace's data key, by workspace and key id. Raises `KeyUnavailable` where it cannot be had."""

MAGIC = b"\x89FLENCR\x01"
FRAME_BYTES = 64 * 2**10
_HEADER = struct.Struct("<8sQ32s")
_TAG_BYTES = 16
_SEALED_FRAME_BYTES = FRAME_BYTES + _TAG_BYTES
_SALT_INFO = b"fairlead/encrypted/1/salt"
_OBJECT_INFO = b"fairlead/encrypted/1/object"
_HEADERS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class _Header:
    plain_length: int
    salt: bytes

    def to_bytes(self) -> bytes:
        return _HEADER.pack(MAGIC, self.plain_length, self.salt)


def encrypt_object(data: bytes | bytearray | memoryview, *, data_key: bytes, key: str) -> bytes:
    """The stored bytes of an object. Equal bytes under one object key give equal stored bytes."""
    content = hashlib.sha256(data).digest()
    salt = hmac.digest(_derive(data_key, b"", _SALT_INFO), key.encode() + b"\0" + content, "sha256")
    header = _Header(len(data), salt)
    frames = _Frames(data_key, key, header)
    view = memoryview(data)
    starts = range(0, max(1, len(view)), FRAME_BYTES)
    pieces = [frames.seal(number, view[start : start + FRAME_BYTES]) for number, start in enumerate(starts)]
    return b"".join([header.to_bytes(), *pieces])


def decrypt_object(stored: bytes | memoryview, *, data_key: bytes, key: str) -> bytes:
    """The plain bytes of a stored object.

    Raises:
        CorruptObject: if they are not, to the last byte, what was encrypted under this data key and object key.
    """
    header = _parse_header(bytes(stored[: _HEADER.size]), key)
    if len(stored) != stored_length(header.plain_length):
        raise _corrupt(key, "it is not as long as it says")
    return _Frames(data_key, key, header).open(0, memoryview(stored)[_HEADER.size :])


def stored_length(plain_length: int) -> int:
    """How long the stored form of an object of `plain_length` bytes is."""
    return _HEADER.size + plain_length + _TAG_BYTES * _frame_count(plain_length)


def plain_length(stored_length: int) -> int:
    """How long the plain form of a stored object is, by its length alone; 0 where no object has that length."""
    body = max(0, stored_length - _HEADER.size)
    return max(0, body - _TAG_BYTES * -(-body // _SEALED_FRAME_BYTES))


class EncryptedStore:
    """An object store that encrypts what lies under an encryption key, and passes all else through.

    Safe to use from several threads as far as the store behind it is. What it reads was written by a holder of the data
    key under the same object key, or is refused. Beside the errors of the port:

    Raises:
        CorruptObject: from `read`, if what is stored was changed, cut, or moved there from another object.
        KeyUnavailable: from `read` and `write`, if the data key cannot be had.
    """

    def __init__(self, store: ObjectStore, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring
        self._headers: OrderedDict[str, _Header] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"EncryptedStore({self._store!r})"

    @property
    def has_create_only(self) -> bool:
        """What the store behind says."""
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's plain bytes from `start`, `length` of them, or fewer where it ends before."""
        check_range(start, length)
        data_key = self._data_key(key)
        if data_key is None:
            return self._store.read(key, start=start, length=length)
        if start == 0 and length is None:
            return decrypt_object(self._store.read(key), data_key=data_key, key=key)
        is_remembered = key in self._headers
        try:
            return self._read_range(key, data_key, start, length)
        except CorruptObject:
            # A damaged object may have been written anew since its header was remembered.
            if not is_remembered:
                raise
            self._forget(key)
            return self._read_range(key, data_key, start, length)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Encrypt and store an object; True if this call stored it."""
        data_key = self._data_key(key)
        if data_key is None:
            return self._store.write(key, data, create_only=create_only)
        self._forget(key)
        return self._store.write(key, encrypt_object(data, data_key=data_key, key=key), create_only=create_only)

    def size(self, key: str) -> int | None:
        """The object's plain size in bytes, or None where there is none."""
        size = self._store.size(key)
        return size if size is None or encryption_of(key) is None else plain_length(size)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order, with their plain sizes."""
        for item in self._store.list(prefix):
            yield ObjectInfo(key=item.key, size=plain_length(item.size)) if encryption_of(item.key) else item

    def delete(self, key: str) -> None:
        """Remove an object; one that does not exist is no error."""
        self._forget(key)
        self._store.delete(key)

    def _data_key(self, key: str) -> bytes | None:
        encryption = encryption_of(check_key(key))
        return None if encryption is None else self._keyring(*encryption)

    def _read_range(self, key: str, data_key: bytes, start: int, length: int | None) -> bytes:
        header = self._header(key)
        end = header.plain_length if length is None else min(header.plain_length, start + length)
        if start >= end:
            return b""
        first, last = start // FRAME_BYTES, (end - 1) // FRAME_BYTES
        wanted = min(_stored_end(last), stored_length(header.plain_length)) - _stored_end(first - 1)
        stored = self._store.read(key, start=_stored_end(first - 1), length=wanted)
        if len(stored) != wanted:
            raise _corrupt(key, "it ends too early")
        plain = _Frames(data_key, key, header).open(first, memoryview(stored))
        return plain[start - first * FRAME_BYTES : end - first * FRAME_BYTES]

    def _header(self, key: str) -> _Header:
        with self._lock:
            known = self._headers.get(key)
        if known is not None:
            return known
        header = _parse_header(self._store.read(key, length=_HEADER.size), key)
        with self._lock:
            self._headers[key] = header
            if len(self._headers) > _HEADERS_KEPT:
                self._headers.popitem(last=False)
        return header

    def _forget(self, key: str) -> None:
        with self._lock:
            self._headers.pop(key, None)


def encrypting(
    open_store: Callable[[str, Mapping[str, object]], ObjectStore], keyring: Keyring
) -> Callable[[str, Mapping[str, object]], ObjectStore]:
    """A way to open stores as `open_store` does, each with encryption around it."""

    def open_encrypted(url: str, options: Mapping[str, object]) -> ObjectStore:
        return EncryptedStore(open_store(url, options), keyring)

    return open_encrypted


class _Frames:
    """Seals and opens the frames of one object."""

    def __init__(self, data_key: bytes, key: str, header: _Header) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(_derive(data_key, header.salt, _OBJECT_INFO))
        self._key = key
        self._last = _frame_count(header.plain_length) - 1
        self._bound = header.to_bytes() + key.encode()

    def seal(self, number: int, plain: memoryview) -> bytes:
        return self._cipher.encrypt(_nonce(number), plain, self._associated(number))

    def open(self, first: int, stored: memoryview) -> bytes:
        """The plain bytes of the frames from number `first`, which fill `stored`."""
        from cryptography.exceptions import InvalidTag

        pieces: list[bytes] = []
        for offset in range(0, len(stored), _SEALED_FRAME_BYTES):
            number = first + offset // _SEALED_FRAME_BYTES
            frame = stored[offset : offset + _SEALED_FRAME_BYTES]
            try:
                pieces.append(self._cipher.decrypt(_nonce(number), frame, self._associated(number)))
            except (InvalidTag, ValueError):
                raise _corrupt(self._key, f"its frame {number} is not what was written") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _associated(self, number: int) -> bytes:
        return struct.pack("<QB", number, number == self._last) + self._bound


def _derive(data_key: bytes, salt: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=salt or None, info=info).derive(data_key)


def _nonce(number: int) -> bytes:
    return struct.pack("<QI", number, 0)


def _frame_count(plain_length: int) -> int:
    # An empty object has one empty frame, so that it too is authenticated.
    return max(1, -(-plain_length // FRAME_BYTES))


def _stored_end(number: int) -> int:
    """Where the frame of this number ends if it is a whole one; the header's end for -1."""
    return _HEADER.size + (number + 1) * _SEALED_FRAME_BYTES


def _parse_header(data: bytes, key: str) -> _Header:
    if len(data) < _HEADER.size:
        raise _corrupt(key, "it ends within its header")
    magic, plain, salt = _HEADER.unpack(data)
    if magic != MAGIC:
        raise _corrupt(key, "it is no encrypted object of version 1")
    return _Header(plain, salt)


def _corrupt(key: str, reason: str) -> CorruptObject:
    return CorruptObject(
        f"The encrypted object {key!r} is damaged: {reason}.", hint="Repair it from another replica.", key=key
    )
