"""Object stores by URL: a local folder, S3, Google Cloud Storage or Azure Blob Storage.

`open_store("s3://bucket/prefix", options)` is the one door. Options that are ours are taken out here; the rest go to
the fsspec file system as they are (`key`, `secret`, `endpoint_url`, `token`, `connection_string` ...). Cloud libraries
are imported when a store of their kind is opened, never before. What differs between clouds is in `clouds.py`.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import unquote, urlsplit

from fairlead.core.errors import (
    FairleadError,
    InvalidInput,
    LocationUnavailable,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.sync.store.clouds import DENIED_NAMES, Bucket, open_bucket, parse_cloud_url
from fairlead.sync.store.identity import Protocol
from fairlead.sync.store.keys import check_key, check_prefix, check_range
from fairlead.sync.store.local import LocalStore
from fairlead.sync.store.throttle import RateLimit, ThrottledStore

_HAS_CREATE_ONLY: Mapping[str, bool] = {"s3": True, "gs": True, "abfs": True}

_KEPT = 256
_MISSING_CODES = frozenset({"NoSuchKey", "NoSuchVersion", "404", "BlobNotFound"})
_MISSING_CONTAINER_CODES = frozenset({"NoSuchBucket", "ContainerNotFound"})
_DENIED_STATUS = frozenset({401, 403})
_FULL_STATUS = frozenset({507})
_T = TypeVar("_T")


def open_store(url: str, options: Mapping[str, object] | None = None) -> ObjectStore:
    """Open the store at a URL: `file:///folder`, a plain path, `s3://`, `gs://` or `abfs://bucket/prefix`.

    Our options: `has_create_only` (bool) overrides whether the store is true to create-only writes, for servers that
    ignore the condition; `create` (bool, local folders only) makes the folder; `rate_limit_bytes_per_second` (int)
    throttles this store; for clouds, `endpoint` (a URL), `storage_class`, `encryption_key` (an id of a KMS key, or an
    encryption scope of Azure) and `identity` (see `identity.py`). All others go to the file system.

    Raises:
        InvalidInput: if the URL is of another kind or names no bucket, or an option does not fit.
        MissingExtra: if the cloud's library is not installed.
    """
    rest = dict(options or {})
    rate = rest.pop("rate_limit_bytes_per_second", None)
    store = _open(url, rest)
    return store if rate is None else ThrottledStore(store, RateLimit(float(cast("int", rate))))


class Opened(Generic[_T]):
    """What is opened by URL and options, kept for a process that opens the same again and again.

    So connections and exchanged credentials are used again, and whatever opens a location shares its rate limit. Other
    options (a location whose settings were changed) make another store; the one used longest ago is dropped. Safe to
    use from several threads.
    """

    def __init__(self, open_one: Callable[[str, Mapping[str, object]], _T]) -> None:
        self._open_one = open_one
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, _T] = OrderedDict()

    def __call__(self, url: str, options: Mapping[str, object] | None = None) -> _T:
        """What is at a URL."""
        given = dict(options or {})
        if "create" in given:
            # Making a folder is done each time that it is asked for.
            return self._open_one(url, given)
        key = json.dumps([url, given], sort_keys=True, default=repr)
        with self._lock:
            if key not in self._opened:
                self._opened[key] = self._open_one(url, given)
            self._opened.move_to_end(key)
            while len(self._opened) > _KEPT:
                self._opened.popitem(last=False)
            return self._opened[key]


class OpenStores(Opened[ObjectStore]):
    """Stores that were opened, by `open_store` or in another way."""

    def __init__(self, open_store: Callable[[str, Mapping[str, object]], ObjectStore] = open_store) -> None:
        super().__init__(open_store)


def _open(url: str, rest: dict[str, object]) -> ObjectStore:
    create_only = _take_bool(rest, "has_create_only")
    create = _take_bool(rest, "create") or False
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower() if separator else "file"
    if scheme == "file":
        path = unquote(urlsplit(url).path) if separator else url
        if not path:
            raise InvalidInput(f"{url!r} names no folder.", hint="Write file:///absolute/folder.")
        return LocalStore(Path(path).absolute(), create=create, has_create_only=create_only is not False)
    protocol, address = parse_cloud_url(url)
    return FsspecStore(
        protocol,
        address,
        options=rest,
        has_create_only=_HAS_CREATE_ONLY[protocol] if create_only is None else create_only,
    )


def _take_bool(options: dict[str, object], name: str) -> bool | None:
    value = options.pop(name, None)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    raise InvalidInput(f"The option {name} is true or false, not {value!r}.")


class FsspecStore:
    """A bucket and prefix of a cloud as an `ObjectStore`.

    Whole objects are put in one request: a file handle that is closed by an exception would commit what it had. A
    create-only write that meets an object reads it back, since its own first try may have been stored and the reply
    lost; equal bytes count as stored by this call, so callers that race put something unique into theirs. Listings
    are never cached. Safe to use from several threads.
    """

    def __init__(
        self, protocol: Protocol, address: str, *, options: Mapping[str, object], has_create_only: bool
    ) -> None:
        self._protocol: Protocol = protocol
        self._address = address
        self._has_create_only = has_create_only
        self._bucket: Bucket = open_bucket(protocol, options)
        self._fs: Any = self._bucket.file_system

    def __repr__(self) -> str:
        return f"FsspecStore('{self._protocol}://{self._address}')"

    @property
    def has_create_only(self) -> bool:
        """Whether `write(..., create_only=True)` is true to its word on this server."""
        return self._has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `start`, `length` of them, or fewer where it ends before.

        Raises:
            ObjectNotFound, LocationUnavailable, PermissionDenied: as the port says.
        """
        check_range(start, length)
        path = self._path(key)
        if start == 0 and length is None:
            return bytes(self._call(key, lambda: self._fs.cat_file(path)))
        size = None if length else self._existing_size(key)
        if length == 0 or (size is not None and start >= size):
            return b""
        end = None if length is None else start + length
        try:
            found = bytes(self._call(key, lambda: self._fs.cat_file(path, start=start, end=end)))
        except LocationUnavailable:
            # Servers answer a range beyond the end with an error; the port promises no bytes.
            if start >= self._existing_size(key):
                return b""
            raise
        # A server that ignores ranges answers with the whole object.
        if length is not None and len(found) > length:
            found = found[start : start + length]
        return found

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Store an object in one request; True if this call stored it.

        Where the server is not true to create-only writes, existence is looked up first, and two writers may both win.

        Raises:
            StorageFull, LocationUnavailable, PermissionDenied: as the port says.
        """
        path, body = self._path(key), bytes(data)
        if create_only and not self._has_create_only and self.size(key) is not None:
            return self.read(key) == body

        def put() -> bool:
            try:
                self._bucket.put(path, body, create_only=create_only and self._has_create_only)
            except FileExistsError:
                return False
            return True

        try:
            if self._call(key, put):
                return True
        except LocationUnavailable as error:
            if not (create_only and _is_conflict(error.__cause__)):
                raise
        try:
            return self.read(key) == body
        except ObjectNotFound as error:
            # What was in the way was deleted meanwhile, so the same write may be made again.
            raise LocationUnavailable(f"{key!r} was deleted while it was written.", key=key) from error

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none.

        Raises:
            LocationUnavailable, PermissionDenied: as the port says.
        """
        path = self._path(key)
        try:
            return self._call(key, lambda: self._bucket.size(path))
        except ObjectNotFound:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order.

        Raises:
            LocationUnavailable, PermissionDenied: as the port says.
        """
        check_prefix(prefix)
        try:
            found = self._call(prefix, lambda: self._bucket.list(self._address, prefix))
        except ObjectNotFound:
            return
        root = f"{self._address}/"
        keys = {name.removeprefix(root): size for name, size in found.items() if name.startswith(root)}
        for key in sorted(keys):
            if key.startswith(prefix) and not key.endswith("/"):
                yield ObjectInfo(key=key, size=keys[key])

    def delete(self, key: str) -> None:
        """Remove an object; one that does not exist is no error.

        Raises:
            LocationUnavailable, PermissionDenied: as the port says.
        """
        path = self._path(key)
        try:
            self._call(key, lambda: self._fs.rm_file(path))
        except ObjectNotFound:
            return

    def _path(self, key: str) -> str:
        return f"{self._address}/{check_key(key)}"

    def _existing_size(self, key: str) -> int:
        size = self.size(key)
        if size is None:
            raise self._not_found(key)
        return size

    def _not_found(self, key: str) -> ObjectNotFound:
        return ObjectNotFound(f"There is no object {key!r} at {self._protocol}://{self._address}.", key=key)

    def _call(self, key: str, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except FairleadError:
            raise
        except Exception as error:
            # The cloud libraries share no base class, and the port promises that only our errors leave.
            raise self._translate(error, key) from error

    def _translate(self, error: Exception, key: str) -> FairleadError:
        where = f"{self._protocol}://{self._address}"
        codes, status = _answer_of(error)
        if codes & _MISSING_CONTAINER_CODES:
            return LocationUnavailable(
                f"There is no bucket at {where}.", hint="Create it, or correct the location's URL."
            )
        if isinstance(error, FileNotFoundError) or codes & _MISSING_CODES:
            return self._not_found(key)
        if isinstance(error, PermissionError) or status & _DENIED_STATUS or type(error).__name__ in DENIED_NAMES:
            return PermissionDenied(f"{where} does not let this process at {key!r}.", hint="Check its credentials.")
        if status & _FULL_STATUS:
            return StorageFull(f"{where} has no space left to write {key!r}.")
        # The text of a cloud's error may hold signed addresses and key ids: only its kind is passed on.
        return LocationUnavailable(f"{where} does not answer ({type(error).__name__}).", key=key)


def _answer_of(error: BaseException) -> tuple[set[str], set[int]]:
    """The error codes and HTTP statuses that an exception of a cloud library, or its cause, carries."""
    codes: set[str] = set()
    statuses: set[int] = set()
    current: BaseException | None = error
    while current is not None:
        response = getattr(current, "response", None)
        if isinstance(response, dict):
            answer = cast("dict[str, dict[str, object]]", response)
            codes.add(str(answer.get("Error", {}).get("Code", "")))
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                statuses.add(status)
        for name in ("error_code", "code", "status_code", "status"):
            value = getattr(current, name, None)
            if isinstance(value, int):
                statuses.add(value)
            elif value is not None:
                codes.add(str(getattr(value, "value", value)))
        if str(current).startswith("Forbidden:"):
            statuses.add(403)
        current = current.__cause__
    return codes, statuses


def _is_conflict(error: BaseException | None) -> bool:
    if error is None:
        return False
    codes, statuses = _answer_of(error)
    return bool(statuses & {409, 412} or codes & {"PreconditionFailed", "ConditionalRequestConflict"})
