from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import uuid
from pathlib import Path

import pytest

from fairlead.core.errors import InvalidInput, LocationUnavailable, ObjectNotFound, PermissionDenied, StorageFull
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.local import LocalStore, translate_os_error
from fairlead.sync.store.objects import FsspecStore, open_store
from fairlead.testing.object_store_suite import ObjectStoreSuite
from fairlead.testing.objects import Action, Fault, FaultyStore, MemoryStore
from tests.servers.object_stores import ObjectStoreServer


def _fresh_prefix(server: ObjectStoreServer) -> str:
    return f"{server.url}/prefix-{uuid.uuid4().hex[:12]}"


class TestMemoryStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()


class TestFaultyStoreWithoutFaults(ObjectStoreSuite):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return FaultyStore(MemoryStore())


class TestLocalStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store((tmp_path / "a store").as_uri(), {"create": True})


class TestS3(ObjectStoreSuite):
    @pytest.fixture
    def store(self, moto_server: ObjectStoreServer) -> ObjectStore:
        return open_store(_fresh_prefix(moto_server), moto_server.options)


class TestAzure(ObjectStoreSuite):
    @pytest.fixture
    def store(self, azurite_server: ObjectStoreServer) -> ObjectStore:
        return open_store(_fresh_prefix(azurite_server), azurite_server.options)


class TestGoogle(ObjectStoreSuite):
    @pytest.fixture
    def store(self, gcs_server: ObjectStoreServer) -> ObjectStore:
        return open_store(_fresh_prefix(gcs_server), gcs_server.options | {"has_create_only": False})


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_a_folder_that_is_away_does_not_look_like_an_empty_store(tmp_path: Path) -> None:
    root = tmp_path / "region"
    store = open_store(str(root), {"create": True})
    store.write("a/b", b"1")
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(LocationUnavailable, match="does not exist"):
        store.read("a/b")
    with pytest.raises(LocationUnavailable):
        store.size("a/b")
    with pytest.raises(LocationUnavailable):
        list(store.list(""))
    with pytest.raises(LocationUnavailable):
        store.write("a/b", b"2")
    with pytest.raises(LocationUnavailable):
        store.delete("a/b")
    assert not root.exists()


def test_a_local_object_below_another_object_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a", b"1")
    with pytest.raises(InvalidInput, match="another object"):
        store.write("a/b", b"2")
    assert store.size("a/b") is None
    with pytest.raises(ObjectNotFound):
        store.read("a/b")


def test_a_local_write_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("folder/a", b"1")
    with pytest.raises(InvalidInput):
        store.write("folder", b"2")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "folder"]


def test_a_folder_that_goes_away_under_a_write_is_no_missing_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store", create=True)
    sync = os.fsync

    def sync_what_is_gone(handle: int) -> None:
        sync(handle)
        shutil.rmtree(tmp_path / "store" / "packs", ignore_errors=True)

    monkeypatch.setattr(os, "fsync", sync_what_is_gone)
    # A missing object would be said of the place that the bytes came from.
    with pytest.raises(LocationUnavailable):
        store.write("packs/a", b"x")
    monkeypatch.undo()
    assert store.write("packs/a", b"x")


def test_what_a_killed_writer_left_is_swept_by_a_later_write_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path, create=True)
    store.write("packs/a", b"x")
    old, new = tmp_path / "packs" / ".fairlead-tmp-0", tmp_path / "packs" / ".fairlead-tmp-1"
    for leftover in (old, new):
        leftover.write_bytes(b"half")
    os.utime(old, (1, 1))
    store.write("packs/b", b"y")
    assert not old.exists()
    assert new.exists()


def test_half_written_files_are_not_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / ".fairlead-tmp-0123").write_bytes(b"half")
    assert list(store.list("")) == []
    with pytest.raises(InvalidInput, match="reserved"):
        store.read(".fairlead-tmp-0123")


def test_errors_of_the_operating_system_become_ours() -> None:
    assert isinstance(translate_os_error(OSError(errno.ENOSPC, "No space left"), "x"), StorageFull)
    assert isinstance(translate_os_error(OSError(errno.EACCES, "Denied"), "x"), PermissionDenied)
    assert isinstance(translate_os_error(OSError(errno.EIO, "I/O error"), "x"), LocationUnavailable)


@pytest.mark.skipif(os.geteuid() == 0, reason="Nothing is denied to root.")
def test_a_folder_without_permission_is_a_typed_error(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionDenied):
        store.write("a", b"1")


def test_a_store_that_is_full_is_a_typed_error_and_keeps_what_it_had(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a", b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageFull, match="no space"):
            store.write("a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.read("a") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_without_hard_links_still_leaves_an_object_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), {"has_create_only": False})
    assert not store.has_create_only
    assert store.write("once", b"first", create_only=True) is True
    assert store.write("once", b"second", create_only=True) is False
    assert store.read("once") == b"first"


def test_a_folder_that_turns_out_to_have_no_hard_links_is_written_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(str(tmp_path))
    assert store.write("once", b"first", create_only=True) is True
    assert store.write("once", b"second", create_only=True) is False
    assert (store.read("once"), store.has_create_only) == (b"first", False)
    assert [path.name for path in tmp_path.iterdir()] == ["once"]


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "s3:///", "gs://bucket/../other", "file://", "https://x"])
def test_a_url_that_names_no_location_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_store(url)


def test_an_option_that_is_no_truth_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has_create_only"):
        open_store(str(tmp_path), {"has_create_only": "perhaps"})


def test_a_bucket_that_does_not_exist_is_unavailable_and_not_empty(
    moto_server: ObjectStoreServer, azurite_server: ObjectStoreServer
) -> None:
    for server in (moto_server, azurite_server):
        store = open_store(f"{server.scheme}://no-such-bucket-here/prefix", server.options)
        with pytest.raises(LocationUnavailable):
            store.read("a")
        with pytest.raises(LocationUnavailable):
            store.write("a", b"1")


def test_a_server_that_does_not_answer_is_a_typed_error() -> None:
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{_closed_port()}"}
    quick = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1}}
    store = open_store("s3://bucket/prefix", options | quick)
    with pytest.raises(LocationUnavailable, match="does not answer") as caught:
        store.read("a")
    assert "127.0.0.1" not in caught.value.detail


def test_azure_gives_up_within_seconds_and_not_minutes(azurite_server: ObjectStoreServer) -> None:
    store = open_store(azurite_server.url, azurite_server.options)
    assert vars(store)["_fs"].service_client._config.retry_policy.initial_backoff == 1  # noqa: SLF001


def test_a_create_only_write_whose_reply_was_lost_is_no_conflict(moto_server: ObjectStoreServer) -> None:
    first = open_store(_fresh_prefix(moto_server), moto_server.options)
    assert first.write("claim", b"mine", create_only=True) is True
    # The driver's own second try meets the object that its first one stored.
    assert first.write("claim", b"mine", create_only=True) is True
    assert first.write("claim", b"theirs", create_only=True) is False


def test_stores_of_one_bucket_do_not_see_beyond_their_prefix(moto_server: ObjectStoreServer) -> None:
    prefix = _fresh_prefix(moto_server)
    inner, outer = (open_store(url, moto_server.options) for url in (f"{prefix}/inner", prefix))
    outer.write("inner-sibling", b"1")
    outer.write("outside", b"2")
    inner.write("inside", b"3")
    assert [item.key for item in inner.list("")] == ["inside"]
    assert outer.read("inner/inside") == b"3"
    assert isinstance(inner, FsspecStore)
    assert repr(inner) == f"FsspecStore('{prefix}/inner')"


def test_a_faulty_store_breaks_the_calls_it_is_told_to() -> None:
    memory = MemoryStore({"a": b"abcd"})
    store = FaultyStore(
        memory,
        [
            Fault(operation="read", call=1, action=Action.FAIL),
            Fault(operation="read", call=2, action=Action.CUT),
            Fault(operation="read", call=3, action=Action.FLIP),
            Fault(operation="write", call=1, action=Action.LOSE_REPLY),
            Fault(operation="write", call=2, action=Action.DIE),
        ],
    )
    with pytest.raises(LocationUnavailable):
        store.read("a")
    assert store.read("a") == b"ab"
    assert store.read("a") == b"abbd"
    assert store.read("a") == b"abcd"
    with pytest.raises(LocationUnavailable):
        store.write("b", b"1")
    assert memory.objects["b"] == b"1"
    for _ in range(2):
        with pytest.raises(LocationUnavailable):
            store.write("c", b"1")
    with pytest.raises(LocationUnavailable):
        store.size("a")
    assert "c" not in memory.objects
