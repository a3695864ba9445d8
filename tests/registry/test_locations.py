from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.errors import (
    AlreadyExists,
    InvalidInput,
    InvalidName,
    JsonValue,
    LocationNotFound,
    LocationUnavailable,
    UnknownRegion,
)
from fairlead.registry import location_addresses, locations
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.locations import Locations
from fairlead.registry.paging import PageRequest
from fairlead.sync.store.objects import open_store
from fairlead.testing.clock import ManualClock
from fairlead.testing.objects import Action, Fault, FaultyStore, Operation
from tests.fleet import ADMIN, Fleet, open_fleet
from tests.records import WORKSPACE


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=()) as fleet:
        yield fleet


@pytest.fixture
def local(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=()) as fleet:
        yield fleet


def test_a_location_is_tried_out_kept_and_listed_by_name(fleet: Fleet) -> None:
    virginia, amsterdam = fleet.add("virginia"), fleet.add("amsterdam")
    page = fleet.locations.list(ADMIN, PageRequest())
    assert page.items == (amsterdam, virginia)
    assert (virginia.region, virginia.jurisdiction) == ("aws:us-east-1", "US")
    assert [path for path in fleet.folder("virginia").rglob("*") if path.is_file()] == []
    with fleet.database.read() as session:
        assert locations.find_location(session, WORKSPACE, "virginia") == virginia
        with pytest.raises(LocationNotFound):
            locations.find_location(session, WORKSPACE, "paris")


def test_a_name_is_given_once(fleet: Fleet) -> None:
    fleet.add("virginia")
    with pytest.raises(AlreadyExists, match="virginia"):
        fleet.locations.add(ADMIN, name="virginia", region="aws:us-east-1", url=(fleet.root / "other").as_uri())


def test_adding_with_the_same_idempotency_key_gives_the_first_answer(fleet: Fleet) -> None:
    key = IdempotencyKey(key="one", request_sha256="0" * 64)
    folder = (fleet.root / "x").as_uri()
    first = fleet.locations.add(ADMIN, name="x", region="aws:us-east-1", url=folder, key=key)
    assert fleet.locations.add(ADMIN, name="x", region="aws:us-east-1", url=folder, key=key) == first


def test_a_region_that_the_catalog_does_not_know_is_refused(local: Fleet) -> None:
    with pytest.raises(UnknownRegion, match="aws:us-east-1"):
        local.locations.add(ADMIN, name="x", region="aws:us-esat-1", url=(local.root / "x").as_uri())
    assert not (local.root / "x").exists()


@pytest.mark.parametrize("name", ["", "a/b", "a\0b", "..", "x" * 256])
def test_a_bad_name_is_refused(local: Fleet, name: str) -> None:
    with pytest.raises(InvalidName):
        local.locations.add(ADMIN, name=name, region="aws:us-east-1", url=(local.root / "x").as_uri())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/folder",
        "s3://",
        "s3://bucket/../other",
        "s3://KEY:SECRET@bucket/prefix",
        "s3://bucket/prefix?X-Amz-Signature=abc",
        "https://account.blob.core.windows.net/container?sig=abc",
        "file://relative",
        "file:///",
        "file:///data/../etc",
        "s3://bucket/\0",
    ],
)
def test_a_url_that_names_no_plain_place_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        location_addresses.parse_url(url)
    assert "SECRET" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("gcs://bucket", "gs://bucket"),
        ("az://container/a", "abfs://container/a"),
        ("/data/models", "file:///data/models"),
        ("file:///data/my%20models/", "file:///data/my%20models"),
    ],
)
def test_a_url_has_one_form(url: str, kept: str) -> None:
    assert location_addresses.parse_url(url) == kept
    assert location_addresses.parse_url(kept) == kept


@pytest.mark.parametrize(
    "options",
    [
        {"key": "AKIA", "secret": "x"},
        {"secret": "x"},
        {"token": "ya29.abc"},
        {"connection_string": "AccountName=a"},
        {"account_key": "x"},
        {"sas_token": "x"},
        {"client_kwargs": {"aws_secret_access_key": "x"}},
        {"client_kwargs": [{"password": "x"}]},
        {"endpoint_url": "http://user:pass@host"},
        {"endpoint_url": "http://host/?sig=abc"},
        {"anything": "DefaultEndpointsProtocol=https;AccountKey=x"},
    ],
)
def test_options_that_hold_a_secret_are_refused(options: dict[str, JsonValue]) -> None:
    with pytest.raises(InvalidInput, match="environment"):
        location_addresses.parse_options(options)


def test_options_without_a_secret_are_kept() -> None:
    options: dict[str, JsonValue] = {
        "endpoint_url": "http://127.0.0.1:9000",
        "token": "google_default",
        "anon": True,
        "client_kwargs": {"region_name": "us-east-1"},
    }
    assert location_addresses.parse_options(options) == options


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_two_locations_never_share_a_folder(local: Fleet, below: str) -> None:
    local.add("virginia")
    with pytest.raises(InvalidInput, match="overlaps"):
        local.locations.add(
            ADMIN, name="other", region="azure:westeurope", url=local.folder("virginia").as_uri() + below
        )


@pytest.mark.parametrize("operation", ["write", "read", "delete"])
def test_a_place_that_cannot_be_used_is_not_kept(local: Fleet, operation: Operation) -> None:
    local.wrap = lambda _name, store: FaultyStore(store, [Fault(operation=operation, call=1, action=Action.FAIL)])
    with pytest.raises(LocationUnavailable):
        local.add("virginia")
    assert local.locations.list(ADMIN, PageRequest()).items == ()


def test_a_place_that_gives_back_other_bytes_is_not_kept(local: Fleet) -> None:
    local.wrap = lambda _name, store: FaultyStore(store, [Fault(operation="read", call=1, action=Action.FLIP)])
    with pytest.raises(LocationUnavailable, match="other bytes"):
        local.add("virginia")


def test_a_folder_that_disappears_later_is_a_disk_that_is_away(local: Fleet) -> None:
    location = local.add("virginia")
    shutil.rmtree(local.folder("virginia"))
    with pytest.raises(LocationUnavailable):
        open_store(location.url, location.options).write("a", b"b")
    assert not local.folder("virginia").exists()


def test_locations_are_those_of_the_callers_workspace(local: Fleet) -> None:
    local.add("virginia")
    other = Locations(local.database, ManualClock(), catalog=load_catalog(), open_store=local.open_store)
    stranger = type(ADMIN)(workspace_id="other", principal="eve", scopes=ADMIN.scopes)
    assert other.list(stranger, PageRequest()).items == ()
