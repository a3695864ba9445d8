"""A location that is reached by signed addresses alone, which somebody else gives: no key of its cloud is here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from fairlead.core.errors import FairleadError, LocationUnavailable, ObjectNotFound, PermissionDenied, StorageFull
from fairlead.sync.store.keys import check_key, check_prefix, check_range
from fairlead.sync.store.presigning import SignedRequest, Verb

if TYPE_CHECKING:
    import httpx2

    from fairlead.core.ports import ObjectInfo

AskForAddresses = Callable[[Verb, Sequence[str]], Sequence[SignedRequest]]
"""Signs requests for some keys, and perhaps for more that are likely to be asked for next."""

_TIMEOUT_SECONDS = 60.0
# An address that ends while it is used is a failure that asking earlier saves.
_MARGIN = timedelta(seconds=30)
_TAKEN = frozenset({HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED})


class SignedStore:
    """An `ObjectStore` over HTTP. Addresses are asked for when they are needed, and again when they have ended.

    Writes are create-only whatever is asked, since the addresses are (on servers that know the condition); nothing can
    be deleted. Safe to use from several
    threads.
    """

    def __init__(
        self,
        where: str,
        ask: AskForAddresses,
        list_objects: Callable[[str], Sequence[ObjectInfo]],
        *,
        has_create_only: bool = True,
    ) -> None:
        self._where = where
        self._has_create_only = has_create_only
        self._ask = ask
        self._list_objects = list_objects
        self._lock = threading.Lock()
        self._signed: dict[tuple[Verb, str], SignedRequest] = {}
        self._client: httpx2.Client | None = None

    def __repr__(self) -> str:
        return f"SignedStore({self._where!r})"

    @property
    def has_create_only(self) -> bool:
        """Whether the server is true to the condition in its addresses to write."""
        return self._has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `start`, `length` of them, or fewer where it ends before.

        Raises:
            ObjectNotFound, LocationUnavailable, PermissionDenied: as the port says.
        """
        check_range(start, length)
        if length == 0:
            self._existing_size(key)
            return b""
        whole = start == 0 and length is None
        end = "" if length is None else str(start + length - 1)
        answer = self._send("read", key, headers={} if whole else {"range": f"bytes={start}-{end}"})
        if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return b""
        self._require(answer, key, {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
        if answer.status_code == HTTPStatus.OK and not whole:
            # A server that ignores ranges answers with the whole object.
            return answer.content[start : None if length is None else start + length]
        return answer.content

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Store an object that is not there yet; True if this call stored it, or it holds the same bytes.

        Raises:
            StorageFull, LocationUnavailable, PermissionDenied: as the port says.
        """
        body = bytes(data)
        if create_only and not self._has_create_only and self.size(key) is not None:
            return self.read(key) == body
        answer = self._send("write", key, content=body)
        if answer.status_code in _TAKEN:
            return self.read(key) == body
        # Azure refuses whoever may create an object that is there already, and does not always say so.
        if answer.status_code == HTTPStatus.FORBIDDEN and self.size(key) is not None:
            return self.read(key) == body
        self._require(answer, key, {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT})
        return True

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none.

        Raises:
            LocationUnavailable, PermissionDenied: as the port says.
        """
        # An address is for one verb: the size is read off an answer to the shortest read.
        answer = self._send("read", key, headers={"range": "bytes=0-0"})
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return 0
        self._require(answer, key, {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
        total = answer.headers.get("content-range", "").rpartition("/")[2]
        return int(total) if total.isdecimal() else len(answer.content)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order, as whoever signs lists them.

        Raises:
            LocationUnavailable, PermissionDenied: as the port says.
        """
        yield from self._list_objects(check_prefix(prefix))

    def delete(self, key: str) -> None:
        """Refused.

        Raises:
            PermissionDenied: always.
        """
        raise PermissionDenied(f"Signed addresses of {self._where} let nobody delete {key!r}.")

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _existing_size(self, key: str) -> int:
        size = self.size(key)
        if size is None:
            raise self._not_found(key)
        return size

    def _send(
        self, verb: Verb, key: str, *, headers: dict[str, str] | None = None, content: bytes | None = None
    ) -> httpx2.Response:
        import httpx2

        signed = self._address(verb, check_key(key))
        try:
            # No compression on the way: sizes and ranges are those of the stored bytes.
            return self._connection().request(
                signed.method,
                signed.url,
                headers={"accept-encoding": "identity", **signed.headers, **(headers or {})},
                content=content,
            )
        except httpx2.HTTPError as error:
            # The text of the error may hold the address, which lets anybody in.
            raise LocationUnavailable(f"{self._where} does not answer ({type(error).__name__}).", key=key) from None

    def _address(self, verb: Verb, key: str) -> SignedRequest:
        with self._lock:
            known = self._signed.get((verb, key))
        if known is None or known.expires_at - _MARGIN <= datetime.now(UTC):
            given = self._ask(verb, [key])
            with self._lock:
                for each in given:
                    self._signed[each.verb, each.key] = each
                known = self._signed.get((verb, key))
        if known is None:
            raise PermissionDenied(f"The server lets nobody {verb} {key!r} at {self._where}.")
        return known

    def _connection(self) -> httpx2.Client:
        import httpx2

        with self._lock:
            if self._client is None:
                # No redirects: a signed address is answered where it leads to.
                self._client = httpx2.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False)
            return self._client

    def _require(self, answer: httpx2.Response, key: str, expected: set[HTTPStatus]) -> None:
        if answer.status_code not in expected:
            raise self._translate(answer.status_code, key)

    def _translate(self, status: int, key: str) -> FairleadError:
        if status == HTTPStatus.NOT_FOUND:
            return self._not_found(key)
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return PermissionDenied(
                f"{self._where} refuses the signed address of {key!r}.",
                hint="Check the clocks, and that the server's identity there may do it.",
            )
        if status == HTTPStatus.INSUFFICIENT_STORAGE:
            return StorageFull(f"{self._where} has no space left to write {key!r}.")
        return LocationUnavailable(f"{self._where} answered {status}.", key=key)

    def _not_found(self, key: str) -> ObjectNotFound:
        return ObjectNotFound(f"There is no object {key!r} at {self._where}.", key=key)
