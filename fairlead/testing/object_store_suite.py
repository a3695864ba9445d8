# ruff: noqa: S101  (tests assert)
"""What every object store promises, as one class of tests.

A behaviour that is not tested here is not promised. To check a store, subclass and give it a `store` fixture that
opens an empty one:

    class TestMyStore(ObjectStoreSuite):
        @pytest.fixture
        def store(self) -> ObjectStore:
            return MyStore(...)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fairlead.core.errors import InvalidInput, ObjectNotFound
from fairlead.core.ports import ObjectStore

_BODY = bytes(range(256)) * 40
_BAD_KEYS = ("", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\\b", "a\0b", "a\nb", "a" * 1000, "\ud800")


class ObjectStoreSuite:
    """The conformance tests of `ObjectStore`."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """An empty store; subclasses override it."""
        raise NotImplementedError

    def test_an_object_is_read_back_as_written(self, store: ObjectStore) -> None:
        """Also where its key has several parts and letters beyond ASCII."""
        for key in ("a", "folder/b.bin", "folder/sub/c d+e%20.bin", "größe/模型.bin"):
            assert store.write(key, _BODY) is True
            assert store.read(key) == _BODY
            assert store.size(key) == len(_BODY)

    def test_any_buffer_can_be_written(self, store: ObjectStore) -> None:
        """Packs are built in a bytearray."""
        store.write("bytearray", bytearray(_BODY))
        store.write("view", memoryview(_BODY)[1:])
        assert store.read("bytearray") == _BODY
        assert store.read("view") == _BODY[1:]

    def test_an_empty_object_exists(self, store: ObjectStore) -> None:
        """And has no bytes."""
        store.write("empty", b"")
        assert store.read("empty") == b""
        assert store.read("empty", start=0, length=10) == b""
        assert store.size("empty") == 0

    @pytest.mark.parametrize(
        ("start", "length"),
        [
            (0, 1),
            (0, 0),
            (5, 0),
            (5, 7),
            (10_239, 1),
            (10_000, 500),
            (10_240, 1),
            (99_999, 1),
            (7, None),
            (20_000, None),
        ],
    )
    def test_a_range_is_what_a_slice_of_the_object_is(self, store: ObjectStore, start: int, length: int | None) -> None:
        """Also where it ends, or begins, beyond the object."""
        store.write("ranged", _BODY)
        expected = _BODY[start:] if length is None else _BODY[start : start + length]
        assert store.read("ranged", start=start, length=length) == expected

    @pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1), (-5, 2)])
    def test_a_negative_range_is_refused(self, store: ObjectStore, start: int, length: int | None) -> None:
        """It has no meaning here, unlike in a slice."""
        store.write("ranged", _BODY)
        with pytest.raises(InvalidInput):
            store.read("ranged", start=start, length=length)

    def test_reading_what_is_not_there_is_a_typed_error(self, store: ObjectStore) -> None:
        """Whole, or a range, or an empty range of it; a folder is not there either."""
        store.write("folder/object", _BODY)
        for key in ("missing", "folder/missing", "folder"):
            with pytest.raises(ObjectNotFound) as caught:
                store.read(key)
            assert caught.value.attributes["key"] == key
            with pytest.raises(ObjectNotFound):
                store.read(key, start=3, length=4)
            with pytest.raises(ObjectNotFound):
                store.read(key, length=0)
            assert store.size(key) is None

    def test_a_write_replaces_an_object(self, store: ObjectStore) -> None:
        """Whole: nothing of the longer one before it stays."""
        store.write("key", _BODY)
        assert store.write("key", b"short") is True
        assert store.read("key") == b"short"
        assert store.size("key") == 5
        assert [item.size for item in store.list("key")] == [5]

    def test_a_create_only_write_leaves_an_object_alone(self, store: ObjectStore) -> None:
        """And says that it did."""
        assert store.write("once", b"first", create_only=True) is True
        assert store.write("once", b"second", create_only=True) is False
        assert store.read("once") == b"first"

    def test_one_of_many_racing_create_only_writes_wins(self, store: ObjectStore) -> None:
        """Where the store says that it is true to them."""
        if not store.has_create_only:
            pytest.skip("The store does not promise create-only writes.")

        def race(racer: int) -> bool:
            return store.write("raced", f"racer {racer}".encode(), create_only=True)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, range(8)))
        assert sum(won) == 1
        assert store.read("raced") == f"racer {won.index(True)}".encode()

    def test_a_listing_is_in_order_and_whole(self, store: ObjectStore) -> None:
        """In order of the whole key, where `.` comes before `/` and capitals before small letters."""
        keys = ["b/z", "b/a/deep/er", "b.c", "b", "a/1", "B", "b/ä"]
        for index, key in enumerate(key for key in keys if key != "b"):
            store.write(key, b"x" * index)
        found = list(store.list(""))
        assert [item.key for item in found] == sorted(key for key in keys if key != "b")
        assert {item.key: item.size for item in found}["b/a/deep/er"] == 1

    def test_a_listing_shows_what_begins_with_the_prefix(self, store: ObjectStore) -> None:
        """A prefix is text, not a folder."""
        for key in ("x/one", "x/onto", "x/two", "xy/one", "y"):
            store.write(key, b"1")
        assert [item.key for item in store.list("x/")] == ["x/one", "x/onto", "x/two"]
        assert [item.key for item in store.list("x/on")] == ["x/one", "x/onto"]
        assert [item.key for item in store.list("x")] == ["x/one", "x/onto", "x/two", "xy/one"]
        assert list(store.list("nothing/here/")) == []

    def test_a_listing_shows_a_new_object_at_once(self, store: ObjectStore) -> None:
        """No cache stands between."""
        store.write("fresh/1", b"1")
        assert len(list(store.list("fresh/"))) == 1
        store.write("fresh/2", b"2")
        assert len(list(store.list("fresh/"))) == 2
        store.delete("fresh/1")
        assert [item.key for item in store.list("fresh/")] == ["fresh/2"]

    def test_a_deleted_object_is_gone(self, store: ObjectStore) -> None:
        """And deleting it again is no error."""
        store.write("folder/gone", _BODY)
        store.write("folder/stays", _BODY)
        store.delete("folder/gone")
        store.delete("folder/gone")
        store.delete("never/was")
        assert store.size("folder/gone") is None
        with pytest.raises(ObjectNotFound):
            store.read("folder/gone")
        assert store.read("folder/stays") == _BODY

    @pytest.mark.parametrize("key", _BAD_KEYS)
    def test_a_key_that_could_leave_the_prefix_is_refused(self, store: ObjectStore, key: str) -> None:
        """By every call, before anything is touched."""
        with pytest.raises(InvalidInput):
            store.write(key, b"x")
        with pytest.raises(InvalidInput):
            store.read(key)
        with pytest.raises(InvalidInput):
            store.size(key)
        with pytest.raises(InvalidInput):
            store.delete(key)

    @pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "a\\", "\0"])
    def test_a_prefix_that_could_leave_the_store_is_refused(self, store: ObjectStore, prefix: str) -> None:
        """Listings too stay inside."""
        with pytest.raises(InvalidInput):
            list(store.list(prefix))

    def test_threads_may_share_a_store(self, store: ObjectStore) -> None:
        """Writes and reads at once do not disturb each other."""

        def write_and_read(index: int) -> bool:
            body = f"thread {index};".encode() * 500
            store.write(f"threads/{index:02d}", body)
            return store.read(f"threads/{index:02d}") == body

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(write_and_read, range(24)))
        assert len(list(store.list("threads/"))) == 24

    def test_a_pack_sized_object_is_kept(self, store: ObjectStore) -> None:
        """Packs have some tens of MiB."""
        body = bytes(range(251)) * (12 * 2**20 // 251)
        store.write("packs/large", body)
        assert store.size("packs/large") == len(body)
        assert store.read("packs/large", start=5_000_000, length=100) == body[5_000_000:5_000_100]
        assert store.read("packs/large") == body
