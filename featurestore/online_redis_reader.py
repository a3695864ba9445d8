"""Reads an online store in Redis (see `redis_wire` for what lies where)."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from fairlead.featurestore import redis_wire as wire
from fairlead.featurestore.online_engines import StoreName
from fairlead.featurestore.online_live import is_late, split_key
from fairlead.featurestore.online_reader import (
    FeatureReader,
    MovedError,
    OnlineStoreError,
    StoredView,
    key_text,
    live_row,
)
from fairlead.featurestore.redis_wire import Head, prefix, speaking


class RedisReader(FeatureReader):
    """One service's online features in one region, from Redis; the connections are the engine's."""

    def __init__(self, client: Any, name: StoreName) -> None:
        super().__init__()
        self._client = client
        self._name = name
        self._head: Head | None = None

    def keys(self, view: str) -> Iterator[tuple[Any, ...]]:
        """The keys of every stored row of a view, in no order; of the snapshot that is there at the beginning."""
        with self._lock:
            self._refresh()
            head = self._head
        found = next(((at, each) for at, each in enumerate(self._views) if each.alias == view), None)
        if found is None or head is None:
            raise OnlineStoreError(f"The online store has no view {view!r}.")
        position, stored = found
        kinds = [str if kind == "STRING" else int for _, kind, _ in stored.keys]
        for bucket in range(0 if stored.is_missing else head.buckets[position]):
            with speaking():
                entities = self._client.hkeys(f"{prefix(self._name)}:{head.build}:{position}:{bucket}")
            for entity in entities:
                texts = split_key(entity, len(kinds))
                yield tuple(kind(text) for kind, text in zip(kinds, texts, strict=True))

    def _refresh(self) -> None:
        with speaking():
            pointer = self._client.hget(prefix(self._name), "pointer")
            if pointer is not None and self._head is not None and self._head.pointer == pointer:
                return
            head = wire.read_head(*self._client.hmget(prefix(self._name), "pointer", "meta"))
        if head is None:
            raise FileNotFoundError(f"there is no online store of {self._name.service} in {self._name.region}")
        self._head, self._meta, self._views = head, head.meta, [stored for _, stored in head.views]

    def _fetch(self, view: StoredView, keys: Collection[Any]) -> Mapping[Any, Sequence[Any]]:
        head = self._head
        if head is None:
            raise OnlineStoreError("The online store is closed.")
        width = len(view.keys)
        position = next(at for at, each in enumerate(self._views) if each is view)
        # NULL is the key of nothing.
        wanted = [key for key in keys if (key is not None if width == 1 else None not in key)]
        entities = [key_text(key, width) for key in wanted]
        if not entities:
            return {}
        reads = self._client.pipeline(transaction=False)
        reads.hget(prefix(self._name), "pointer")
        for entity in entities:
            reads.hget(wire.bucket_key(head, self._name, position, entity), entity)
        reads.hmget(wire.live_key(self._name, view.alias), entities)
        reads.hget(prefix(self._name), "pointer")
        with speaking():
            before, *versions, live, after = reads.execute()
        if not before == after == head.pointer:
            raise MovedError
        found: dict[Any, Sequence[Any]] = {}
        binary = [at for at, (_, kind, _) in enumerate(view.features, start=1) if kind == "BYTES"]
        for key, text, pushed in zip(wanted, versions, live, strict=True):
            version = wire.visible_version(text, head.generation)
            if pushed is not None:
                event, created, features = json.loads(pushed)
                if version is None or not is_late(version[1], version[2], event, created):
                    found[key] = live_row(view, event, features)
                    continue
            if version is not None:
                row = [version[1], *version[3:]]
                for at in binary:
                    row[at] = None if row[at] is None else base64.b64decode(row[at])
                found[key] = row
        return found

    def _close(self) -> None:
        self._head = None
