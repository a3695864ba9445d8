"""The engines of online stores: where a region keeps the last row of each entity, and how it gets there.

A *store* is one service in one region in one *slot*: the slot `""` follows what is wanted (the newest snapshot, as a
rule), and a slot that is named by a snapshot's digest holds that snapshot alone, for those who go back to it. Every
engine keeps these rules, which `tests/featurestore/online_engine_suite.py` states as tests:

- `write` and `apply` may be called again at any time, by anyone; a writer that dies leaves what was served.
- With `is_atomic`, a reader sees one snapshot or the next, whole; without, what is read while a store is written may be
  of either, and its `snapshot` is the last that was written to its end.
- What is pushed is seen by the next read. It counts from its event timestamp on (then its created timestamp), like a
  row of the snapshot, stays through later snapshots, and goes once a snapshot has a row as late.
- Which engine serves a region is configured where the region's worker and server run; the record only knows its name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.online_reader import StoredView, ViewColumns
from fairlead.featurestore.services import ServiceDefinition

NEWEST = ""
"""The slot of what is wanted from now on."""

PushedRow = Mapping[str, Any]
"""A row of a view under the view's own names: keys, features (none: missing) and times, which are aware datetimes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreName:
    """One service in one region, in the slot `NEWEST` or in one of a snapshot's digest."""

    workspace_id: str
    service: str
    region: str
    slot: str = NEWEST


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreContents:
    """What a store should hold.

    Attributes:
        service: the features and their order.
        views: the definition of every view that the service takes.
        rows: the parts of those views that may be in this region, each part's rows in canonical order. The features of
            a view that no part has, may not be here.
        meta: `service_digest`, `snapshot`, `as_of` and `region`.
    """

    service: ServiceDefinition
    views: Mapping[str, ViewDefinition]
    rows: Mapping[str, Sequence[ViewRows]]
    meta: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreChanges:
    """How a store's contents differ from those of `base`, the snapshot's digest: the entities that may have changed.

    `files` holds, for each part of `StoreContents.rows`, Parquet files with the keys of every entity whose rows are not
    the same in both snapshots; no file: the part did not change.
    """

    base: str
    files: Mapping[str, Sequence[Sequence[Path]]] = field(default_factory=dict[str, Sequence[Sequence[Path]]])


class OnlineStoreReader(Protocol):
    """Reads one store; threads may share it. `FileNotFoundError` where there is none, as for `OnlineReader`.

    A subclass of `online_reader.FeatureReader` has all of this from three methods of its own.
    """

    @property
    def meta(self) -> dict[str, str]:
        """What the store says of itself: `service`, `service_digest`, `snapshot`, `as_of`, `region`, `rows`."""
        ...

    @property
    def views(self) -> list[StoredView]:
        """The views of the store, with their keys, features and time to live, in the service's order."""
        ...

    def read_columns(
        self,
        entities: Mapping[str, Sequence[Any]],
        *,
        now: datetime | None = None,
        views: Collection[str] | None = None,
    ) -> tuple[dict[str, str], list[ViewColumns]]:
        """What the store says of itself, and for each view (or for some) the columns of its answer."""
        ...

    def keys(self, view: str) -> Iterator[tuple[Any, ...]] | None:
        """The keys of every stored row of a view, in any order; None where the engine cannot list them."""
        ...

    def read(
        self, entities: Mapping[str, Sequence[Any]], *, now: datetime | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """The snapshot's digest, and for each entity a row: the keys, the features, and `STATUS`."""
        ...

    def read_view(
        self, view: str, keys: Sequence[Mapping[str, Any]], *, now: datetime | None = None
    ) -> list[tuple[datetime, dict[str, Any]] | None]:
        """For each entity the event time and features of one view, under their own names."""
        ...

    def close(self) -> None:
        """Give up connections; the next read makes them again."""
        ...


class OnlineEngine(Protocol):
    """Keeps online stores.

    Attributes:
        kind: its name in the record: `sqlite`, `redis`, `feast:...`.
        is_atomic: whether a reader sees one snapshot or the next, and nothing between.
        forgets_keys: whether `forget_entity` leaves nothing of the entity; without, its keys may stay, without values.
    """

    kind: str
    is_atomic: bool
    forgets_keys: bool

    def write(self, name: StoreName, contents: StoreContents, *, scratch: Path) -> int:
        """Make a store hold these contents, in whatever state it is; returns the number of its rows, over all views.

        `scratch` is a folder on the disk of the stores, for what is unfinished or does not fit into memory.

        Raises:
            StorageFull: if there is no room; what was served still is.
            Unavailable: if the engine's server does not answer.
        """
        ...

    def apply(self, name: StoreName, contents: StoreContents, changes: StoreChanges, *, scratch: Path) -> int | None:
        """Do what `write` does by rewriting changed entities only; None: it cannot, so `write` has to.

        It cannot where the store does not hold `changes.base` in the same shape, or the engine does not know how.

        Raises:
            StorageFull, Unavailable: as for `write`.
        """
        ...

    def address(self, name: StoreName) -> str | None:
        """Where a bundle's `OnlineReader` on this machine finds a store; None: it cannot read this engine's."""
        ...

    def reader(self, name: StoreName) -> OnlineStoreReader:
        """A reader of a store, which need not exist yet and may be replaced any number of times."""
        ...

    def stores(self, workspace_id: str, region: str) -> list[StoreName]:
        """The stores that the engine has of a workspace in a region, whoever made them.

        Raises:
            Unavailable: if the engine's server does not answer.
        """
        ...

    def drop(self, name: StoreName) -> None:
        """Take a store away, if it is there."""
        ...

    def push(self, name: StoreName, view: str, rows: Sequence[PushedRow]) -> int:
        """Put rows of a view beside the snapshot; returns how many were not older than what was pushed before.

        The same row may be pushed again. Features that may not be in the region are left out. A store that is not there
        takes nothing: what was pushed comes with the snapshot that it is made from.

        Raises:
            InvalidInput: if a row lacks a key or its event timestamp.
            Unavailable: if the engine's server does not answer.
        """
        ...

    def forget_entity(self, name: StoreName, join_key: str, value: Any, *, scratch: Path) -> int:
        """Take every row with that value of a view's own join key out of a store; returns how many there were.

        What was pushed goes too. It comes back with the next snapshot that still holds it.

        Raises:
            Unavailable: if the engine's server does not answer.
        """
        ...
