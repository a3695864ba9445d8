"""A reader of stores in which the pointer to what is served may move while values are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from fairlead.featurestore.online_reader import FeatureReader, OnlineStoreError, ViewColumns

_TRIES = 20
_Answer = TypeVar("_Answer")


class MovedError(Exception):
    """The pointer moved while values were read."""


class RetryingReader(FeatureReader):
    """Reads again where `_fetch` raises `MovedError`, so that an answer is of one snapshot."""

    def read_columns(
        self,
        entities: Mapping[str, Sequence[Any]],
        *,
        now: datetime | None = None,
        views: Collection[str] | None = None,
    ) -> tuple[dict[str, str], list[ViewColumns]]:
        """As `FeatureReader.read_columns`."""
        return _try(lambda: super(RetryingReader, self).read_columns(entities, now=now, views=views))

    def read_view(
        self, view: str, keys: Sequence[Mapping[str, Any]], *, now: datetime | None = None
    ) -> list[tuple[datetime, dict[str, Any]] | None]:
        """As `FeatureReader.read_view`."""
        return _try(lambda: super(RetryingReader, self).read_view(view, keys, now=now))


def _try(read: Callable[[], _Answer]) -> _Answer:
    for _ in range(_TRIES):
        try:
            return read()
        except MovedError:
            continue
    raise OnlineStoreError("The online store changes faster than it can be read.")
