from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput, InvalidPageToken
from fairlead.registry.paging import PageRequest
from tests.record_world import World

TOKENS = st.text(max_size=80) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5
).map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("="))


def names(world: World, prefix: str = "", *, size: int) -> list[str]:
    found: list[str] = []
    token: str | None = None
    while True:
        page = world.models.list(world.owner, PageRequest(size=size, token=token), name_prefix=prefix)
        assert len(page.items) <= size
        found += [model.name for model in page.items]
        token = page.next_page_token
        if token is None:
            return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 500])
def test_pages_of_any_size_hold_every_item_once_and_in_order(world: World, size: int) -> None:
    wanted = ["B", "a", "a b", "ab", "b", "ä", "z"]
    for name in reversed(wanted):
        world.model(name)
    assert names(world, size=size) == sorted(wanted)


def test_a_prefix_is_taken_literally(world: World) -> None:
    for name in ("a_b", "axb", "A_b"):
        world.model(name)
    assert names(world, "a_", size=5) == ["a_b"]
    assert names(world, "%", size=5) == []


def test_rows_that_come_and_go_between_pages_shift_nothing(world: World) -> None:
    for name in ("b", "d", "f"):
        world.model(name)
    first = world.models.list(world.owner, PageRequest(size=2))
    world.model("a")
    world.model("e")
    rest = world.models.list(world.owner, PageRequest(size=9, token=first.next_page_token))
    assert [model.name for model in rest.items] == ["e", "f"]


def test_a_token_is_bound_to_its_list_filter_and_workspace(world: World) -> None:
    for name in ("a", "ab", "abc"):
        world.model(name)
    token = world.models.list(world.owner, PageRequest(size=1), name_prefix="a").next_page_token
    for refused in (
        lambda: world.models.list(world.owner, PageRequest(size=1, token=token)),
        lambda: world.models.list(world.owner, PageRequest(size=1, token=token), name_prefix="ab"),
        lambda: world.environments.list(world.owner, PageRequest(token=token)),
    ):
        with pytest.raises(InvalidPageToken):
            refused()


@pytest.mark.parametrize("size", [0, -1, 501, 10**30])
def test_a_page_of_an_impossible_size_is_refused(world: World, size: int) -> None:
    with pytest.raises(InvalidInput):
        world.models.list(world.owner, PageRequest(size=size))


def test_a_damaged_or_invented_token_is_refused(world: World) -> None:
    @given(TOKENS)
    def is_refused(token: str) -> None:
        with pytest.raises(InvalidPageToken):
            world.models.list(world.owner, PageRequest(token=token))

    is_refused()


def test_a_token_with_another_position_of_the_wrong_kind_is_refused(world: World) -> None:
    for name in ("a", "b"):
        world.model(name)
    token = world.models.list(world.owner, PageRequest(size=1)).next_page_token or ""
    members = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    for position in (1, None, True, ["a"], "a\0", 2**70, 1.5):
        forged = base64.urlsafe_b64encode(json.dumps([*members[:2], position]).encode()).decode().rstrip("=")
        with pytest.raises(InvalidPageToken):
            world.models.list(world.owner, PageRequest(token=forged))


def test_a_token_says_its_version_and_one_of_another_version_is_refused(world: World) -> None:
    for name in ("a", "b"):
        world.model(name)
    token = world.models.list(world.owner, PageRequest(size=1)).next_page_token
    assert token
    members = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    assert members[0] == 1
    other = base64.urlsafe_b64encode(json.dumps([2, *members[1:]]).encode()).decode().rstrip("=")
    with pytest.raises(InvalidPageToken, match="another version"):
        world.models.list(world.owner, PageRequest(size=1, token=other))
