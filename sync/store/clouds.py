"""What differs between the clouds: how a file system is opened under an identity, and how an object is put.

Storage class and encryption key go with each object that is put, so that changing them needs no leave to change the
bucket; what was stored before keeps what it was stored with.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast
from urllib.parse import quote

from fairlead.core.errors import InvalidInput, MissingExtra
from fairlead.core.ids import new_row_id
from fairlead.sync.store.identity import Protocol, options_of

EXTRAS: Mapping[str, str] = {"s3": "s3", "gs": "gcs", "abfs": "azure"}
DENIED_NAMES = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ClientAuthenticationError",
        "DefaultCredentialsError",
        # Of Google's library: a token service refused; one that does not answer is a TransportError.
        "OAuthError",
        "RefreshError",
    }
)
"""The names of the libraries' exceptions that say that access was refused; they share no base class."""

_ALIASES: Mapping[str, str] = {"s3a": "s3", "gcs": "gs", "az": "abfs", "abfss": "abfs"}
_ONE_REQUEST_BYTES = 64 * 2**20
# Azure's client goes on trying for a minute and a half by itself, which holds up a worker with other things to do.
_AZURE_RETRIES = 2
_AZURE_FIRST_PAUSE_SECONDS = 1
_AZURE_PAUSE_GROWTH = 2
_CONNECTING = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A file system of fsspec, and what each object that is put through it is given."""

    protocol: Protocol
    file_system: Any
    storage_class: str | None
    encryption_key: str | None

    def put(self, path: str, body: bytes, *, create_only: bool) -> None:
        """Store a whole object in one request.

        Raises:
            FileExistsError: if it is to be created and is there.
        """
        mode = "create" if create_only else "overwrite"
        # One request up to this size, in place of several parts, which a reader could never see half of either, but
        # which a killed writer leaves behind and pays for.
        chunk = max(_ONE_REQUEST_BYTES, len(body) + 1)
        if self.protocol == "s3":
            self.file_system.pipe_file(path, body, mode=mode, chunksize=chunk, **self._amazon())
        elif self.protocol == "abfs":
            self.file_system.pipe_file(path, body, mode=mode, **self._azure())
        elif self.storage_class is None and self.encryption_key is None:
            self.file_system.pipe_file(path, body, mode=mode, chunksize=chunk)
        else:
            self._put_google(path, body, create_only=create_only)

    def size(self, path: str) -> int | None:
        """The size of an object in bytes, or None where there is none, in one request."""
        bucket, _, key = path.partition("/")
        # What fsspec calls `info` also asks whether the name is a folder's, when there is no such object.
        try:
            if self.protocol == "s3":
                return int(self.file_system.call_s3("head_object", Bucket=bucket, Key=key)["ContentLength"])
            if self.protocol == "gs":
                return int(self.file_system.call("GET", "b/{}/o/{}", bucket, key, json_out=True)["size"])
            return self._run(self._azure_size, bucket, key)
        except FileNotFoundError:
            return None

    def list(self, address: str, prefix: str) -> dict[str, int]:
        """The sizes by path of all objects below an address whose key there begins with a prefix, page by page."""
        # What fsspec calls `find` asks once or twice more where nothing is found; on S3 only where no prefix is given.
        if self.protocol == "s3":
            found = self.file_system.find(address, prefix=prefix, detail=True)
            return {str(path): int(each["size"]) for path, each in found.items() if each["type"] == "file"}
        bucket, _, whole_prefix = f"{address}/{prefix}".partition("/")
        if self.protocol == "gs":
            return self._google_list(bucket, whole_prefix)
        return self._run(self._azure_list, bucket, whole_prefix)

    def _google_list(self, bucket: str, prefix: str) -> dict[str, int]:
        found: dict[str, int] = {}
        query: dict[str, str] = {"prefix": prefix, "fields": "nextPageToken,items(name,size)"}
        while True:
            page = self.file_system.call("GET", "b/{}/o", bucket, json_out=True, **query)
            found |= {f"{bucket}/{each['name']}": int(each["size"]) for each in page.get("items", ())}
            if not (token := page.get("nextPageToken")):
                return found
            query["pageToken"] = token

    def _run(self, action: Callable[..., Any], *arguments: object) -> Any:
        asyn: Any = import_module("fsspec.asyn")
        return asyn.sync(self.file_system.loop, action, *arguments)

    async def _azure_size(self, bucket: str, key: str) -> int | None:
        from azure.core.exceptions import ResourceNotFoundError

        async with self.file_system.service_client.get_blob_client(container=bucket, blob=key) as client:
            try:
                found = await client.get_blob_properties()
            except ResourceNotFoundError as error:
                if str(getattr(error, "error_code", "")).endswith("ContainerNotFound"):
                    raise
                return None
        return None if _is_folder(found) else int(found.size)

    async def _azure_list(self, bucket: str, prefix: str) -> dict[str, int]:
        async with self.file_system.service_client.get_container_client(container=bucket) as client:
            pages = client.list_blobs(name_starts_with=prefix, include=["metadata"])
            return {f"{bucket}/{each.name}": int(each.size) async for each in pages if not _is_folder(each)}

    def _amazon(self) -> dict[str, str]:
        extra: dict[str, str] = {}
        if self.storage_class is not None:
            extra["StorageClass"] = self.storage_class
        if self.encryption_key is not None:
            extra |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.encryption_key}
        return extra

    def _azure(self) -> dict[str, object]:
        extra: dict[str, object] = {}
        if self.storage_class is not None:
            from azure.storage.blob import StandardBlobTier

            extra["standard_blob_tier"] = StandardBlobTier(self.storage_class)
        if self.encryption_key is not None:
            extra["encryption_scope"] = self.encryption_key
        return extra

    def _put_google(self, path: str, body: bytes, *, create_only: bool) -> None:
        # gcsfs has no word for an object's class; its own `call` signs, retries and translates the request.
        bucket, _, key = path.partition("/")
        members: dict[str, str] = {"name": key}
        query: dict[str, str] = {"uploadType": "multipart"}
        if self.storage_class is not None:
            members["storageClass"] = self.storage_class
        if self.encryption_key is not None:
            query["kmsKeyName"] = self.encryption_key
        if create_only:
            query["ifGenerationMatch"] = "0"
        boundary = new_row_id()
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(members)}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        endpoint = str(getattr(self.file_system, "base", "")).partition("/storage/v1")[0]
        self.file_system.call(
            "POST",
            f"{endpoint}/upload/storage/v1/b/{quote(bucket, safe='')}/o",
            headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
            data=head.encode() + body + f"\r\n--{boundary}--\r\n".encode(),
            json_out=True,
            **query,
        )


def parse_cloud_url(url: str) -> tuple[Protocol, str]:
    """The protocol, and the bucket and prefix, of a URL such as `s3://bucket/prefix`.

    Raises:
        InvalidInput: if it is of no cloud, or names no bucket.
    """
    scheme, _, rest = url.partition("://")
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    if scheme not in EXTRAS:
        raise InvalidInput(
            f"{scheme[:40]!r} is no kind of location.", hint="Write a folder, or a URL of s3://, gs:// or abfs://."
        )
    address = rest.strip("/")
    if not address or any(part in {"", ".", ".."} for part in address.split("/")):
        raise InvalidInput(f"{scheme}://{address} names no bucket and prefix.", hint=f"Write {scheme}://bucket/prefix.")
    return cast("Protocol", scheme), address


def _is_folder(blob: Any) -> bool:
    """Whether a blob stands for a folder, as accounts with a hierarchical namespace have them."""
    metadata = cast("Mapping[str, str]", blob.metadata or {})
    return "true" in {metadata.get("hdi_isfolder"), metadata.get("is_directory")}


def open_bucket(protocol: Protocol, options: Mapping[str, object]) -> Bucket:
    """Open the file system of a cloud with options that are ours and its own.

    Raises:
        MissingExtra: if the cloud's library is not installed.
        InvalidInput: if the options do not fit it.
    """
    own = dict(options)
    endpoint = cast("str | None", own.pop("endpoint", None))
    storage_class = cast("str | None", own.pop("storage_class", None))
    encryption_key = cast("str | None", own.pop("encryption_key", None))
    identity = own.pop("identity", None)
    try:
        if identity is not None:
            own |= options_of(protocol, cast("Mapping[str, object]", identity), os.environ)
        file_system = _open_file_system(protocol, own, endpoint)
    except ImportError as error:
        extra = EXTRAS[protocol]
        raise MissingExtra(
            f"Locations of {protocol}:// need the extra `{extra}`.", hint=f"Run: pip install 'fairlead[{extra}]'"
        ) from error
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"The options of the {protocol}:// location do not fit ({type(error).__name__}).",
            hint="Check the names and values of its options.",
        ) from error
    return Bucket(
        protocol=protocol, file_system=file_system, storage_class=storage_class, encryption_key=encryption_key
    )


def _open_file_system(protocol: Protocol, options: Mapping[str, object], endpoint: str | None) -> Any:
    # With this probe on, gcsfs asks every bucket for its layout and waits a minute for servers that have no answer.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec

    settings: dict[str, object] = {"asynchronous": False, "use_listings_cache": False, **options}
    if any(not isinstance(value, str | int | float | bool | dict | list | None) for value in options.values()):
        # Sessions and credentials: fsspec would keep each one for ever, under the address it had.
        settings["skip_instance_cache"] = True
    if endpoint is not None:
        # adlfs has no such option and ignores it; there it only tells fsspec's instances apart.
        settings["endpoint_url"] = endpoint
    # An instance that fsspec has already may be in use by another thread.
    with _CONNECTING:
        file_system: Any = fsspec.filesystem(protocol, **settings)
        if protocol == "abfs" and not getattr(file_system, "has_client_of_fairlead", False):
            _connect_azure(file_system, endpoint)
    return file_system


def _connect_azure(file_system: Any, endpoint: str | None) -> None:
    """Put a client with our endpoint and patience in the place of the one that adlfs made, which takes neither."""
    from azure.storage.blob.aio import BlobServiceClient, ExponentialRetry

    made = file_system.service_client
    patience = ExponentialRetry(
        initial_backoff=_AZURE_FIRST_PAUSE_SECONDS,
        increment_base=_AZURE_PAUSE_GROWTH,
        retry_total=_AZURE_RETRIES,
        random_jitter_range=1,
    )
    file_system.service_client = BlobServiceClient(
        endpoint or made.url, credential=made.credential, retry_policy=patience
    )
    file_system.has_client_of_fairlead = True
