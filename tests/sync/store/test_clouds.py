from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from typing import Any

import fsspec
import pytest
from azure.storage.blob import BlobServiceClient

from fairlead.core.errors import InvalidInput, LocationUnavailable
from fairlead.sync.store.objects import OpenStores, open_store
from fairlead.sync.store.throttle import RateLimit, ThrottledStore
from fairlead.testing.objects import MemoryStore
from tests.servers.object_stores import ObjectStoreServer
from tests.servers.token_services import Answer, Request, serving

KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
CMEK = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"


@pytest.fixture
def seen() -> Generator[tuple[list[Request], str]]:
    """A server that takes whatever is put, and what it was sent."""
    requests: list[Request] = []

    def take(request: Request) -> Answer:
        requests.append(request)
        return 201, {"Content-Type": "application/json", "ETag": '"x"'}, json.dumps({"name": "object"}).encode()

    with serving(take) as url:
        yield requests, url


def test_objects_on_s3_get_their_class_and_key(moto_server: ObjectStoreServer) -> None:
    options = {**moto_server.options, "storage_class": "STANDARD_IA", "encryption_key": KMS_KEY}
    url = f"{moto_server.url}/{uuid.uuid4().hex}"
    store = open_store(url, options)
    for name, create_only in (("a", True), ("b", False)):
        assert store.write(name, b"bytes", create_only=create_only)
        files: Any = fsspec.filesystem("s3", **moto_server.options)
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        head = files.call_s3("head_object", Bucket=bucket, Key=f"{prefix}/{name}")
        assert head["StorageClass"] == "STANDARD_IA"
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY)
    assert store.write("a", b"others", create_only=True) is False
    assert store.read("a") == b"bytes"


def test_what_was_in_the_way_of_a_write_and_is_deleted_meanwhile_does_not_count_as_missing() -> None:
    def answer(request: Request) -> Answer:
        code = "PreconditionFailed" if request.method == "PUT" else "NoSuchKey"
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        return 412 if request.method == "PUT" else 404, {"Content-Type": "application/xml"}, body

    with serving(answer) as url:
        store = open_store("s3://bucket/place", {"endpoint": url, "key": "a", "secret": "b"})
        with pytest.raises(LocationUnavailable, match="deleted while it was written"):
            store.write("a", b"bytes", create_only=True)


def test_objects_on_azure_get_their_class(azurite_server: ObjectStoreServer) -> None:
    url = f"{azurite_server.url}/{uuid.uuid4().hex}"
    store = open_store(url, {**azurite_server.options, "storage_class": "Cool"})
    assert store.write("a", b"bytes", create_only=True)
    assert store.write("a", b"others", create_only=True) is False
    container, _, prefix = url.removeprefix("abfs://").partition("/")
    with BlobServiceClient.from_connection_string(azurite_server.options["connection_string"]) as client:
        found: Any = client.get_blob_client(container, f"{prefix}/a").get_blob_properties()
    assert found.blob_tier == "Cool"


def test_objects_on_azure_are_put_under_their_encryption_scope(seen: tuple[list[Request], str]) -> None:
    requests, endpoint = seen
    options = {"endpoint": f"{endpoint}/account", "account_name": "account", "account_key": "a2V5"}
    store = open_store("abfs://box/prefix", {**options, "encryption_key": "models", "storage_class": "Cool"})
    store.write("a", b"bytes")
    (put,) = (request for request in requests if request.method == "PUT")
    assert put.headers["x-ms-encryption-scope"] == "models"
    assert put.headers["x-ms-access-tier"] == "Cool"


def test_objects_on_google_get_their_class(gcs_server: ObjectStoreServer) -> None:
    url = f"{gcs_server.url}/{uuid.uuid4().hex}"
    store = open_store(url, {**gcs_server.options, "has_create_only": False, "storage_class": "NEARLINE"})
    assert store.write("folder/größe", b"\r\n--bytes--\r\n\x00")
    assert store.read("folder/größe") == b"\r\n--bytes--\r\n\x00"
    assert [found.size for found in store.list("folder/")] == [14]


def test_objects_on_google_are_put_with_class_and_key_and_only_where_there_is_none(
    seen: tuple[list[Request], str],
) -> None:
    requests, endpoint = seen
    options = {"endpoint": endpoint, "token": "anon", "storage_class": "NEARLINE", "encryption_key": CMEK}
    store = open_store("gs://box/prefix", options)
    assert store.write("a", b"bytes", create_only=True)
    (put,) = requests
    assert put.query == {"uploadType": "multipart", "kmsKeyName": CMEK, "ifGenerationMatch": "0"}
    assert b'{"name": "prefix/a", "storageClass": "NEARLINE"}' in put.body
    assert b"\r\n\r\nbytes\r\n--" in put.body


def test_an_endpoint_tells_stores_of_one_account_apart(seen: tuple[list[Request], str]) -> None:
    requests, endpoint = seen
    options = {"account_name": "account", "account_key": "a2V5"}
    for folder in ("one", "two", "one"):
        open_store("abfs://box/prefix", {**options, "endpoint": f"{endpoint}/{folder}"}).write("a", b"bytes")
    assert [request.path.split("/")[1] for request in requests if request.method == "PUT"] == ["one", "two", "one"]


def test_a_rate_limit_is_shared_by_whoever_opens_the_location() -> None:
    opened: list[str] = []

    def open_one(url: str, _options: object) -> ThrottledStore:
        opened.append(url)
        return ThrottledStore(MemoryStore(), RateLimit(1e9))

    stores = OpenStores(open_one)
    limited = {"rate_limit_bytes_per_second": 1}
    assert stores("s3://a/b", limited) is stores("s3://a/b", dict(limited))
    assert stores("s3://a/b", {"rate_limit_bytes_per_second": 2}) is not stores("s3://a/b", limited)
    assert stores("s3://a/b", {"create": True}) is not stores("s3://a/b", {"create": True})
    assert len(opened) == 4
    for number in range(300):
        stores(f"s3://a/{number}")
    assert stores("s3://a/b", limited) is stores("s3://a/b", limited)
    assert len(opened) == 305


def test_a_rate_limit_throttles_any_store(tmp_path: Any) -> None:
    store = open_store(str(tmp_path), {"rate_limit_bytes_per_second": 10**9})
    assert isinstance(store, ThrottledStore)
    store.write("a", b"bytes")
    assert store.read("a") == b"bytes"


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput):
        open_store("s3://bucket/prefix", {"identity": {"kind": "magic"}})
