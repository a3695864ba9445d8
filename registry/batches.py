"""Many values in batches of as many as one statement may name on either kind of database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_AT_ONCE = 500
_T = TypeVar("_T")


def batches(items: Iterable[_T]) -> Iterator[list[_T]]:
    """The items in their order, at most 500 at a time."""
    remaining = iter(items)
    while batch := list(islice(remaining, _AT_ONCE)):
        yield batch
