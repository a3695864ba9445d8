"""Online stores in Redis: bulk, incremental, and one snapshot or the next for every reader.

The whole of a snapshot is written as a *build*, under keys of its own, and then one pointer is moved. An incremental
step writes a further version beside each changed entity's present one, under the next *generation* of the build, and
then moves the pointer; what is no longer seen goes right after. A reader asks for the pointer before and after the
values in one pipeline, and asks again where it moved, so nothing has to be kept for those who read more slowly. While a
build is written there is room for two.

A writer that dies leaves its build, or its versions, unseen: whoever comes next builds anew and takes them away. One
that was only slow finds that another attempt has begun, and stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import FairleadError
from fairlead.featurestore import redis_wire as wire
from fairlead.featurestore.duck import fetch_number, open_duckdb, quote_text
from fairlead.featurestore.online_engines import PushedRow, StoreChanges, StoreContents, StoreName
from fairlead.featurestore.online_layout import KeptView, kept_views
from fairlead.featurestore.online_live import is_late, read_pushed, split_key
from fairlead.featurestore.online_reader import FORMAT
from fairlead.featurestore.online_redis_reader import RedisReader
from fairlead.featurestore.redis_wire import Head, prefix, speaking

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from fairlead.featurestore.online_sqlite import OnlineFolder

_AT_ONCE = 1000
_CROWDED = 4


class RedisEngine:
    """Keeps stores in one Redis server (not a cluster). Options: `url` or `url_file`, `socket_timeout` (seconds)."""

    kind = "redis"
    is_atomic = True
    forgets_keys = True

    def __init__(self, options: Mapping[str, Any], folder: OnlineFolder) -> None:
        del folder
        self._client: Any = wire.connect(options)

    def write(self, name: StoreName, contents: StoreContents, *, scratch: Path) -> int:
        """As `OnlineEngine.write`."""
        views = kept_views(contents)
        head, token, build = self._head(name), wire.new_token(), wire.new_token()
        with speaking():
            wire.check_keeps_all(self._client)
            self._begin(name, head, token, started=-1)
            # What is not served, is what others left when they died or were overtaken.
            self._take_away(name, spared=None if head is None else head.build)
        with open_duckdb(scratch) as duckdb:
            buckets = [_buckets(duckdb, view) for view in views]
            with speaking():
                self._client.hset(f"{prefix(name)}:builds", build, json.dumps(buckets))
            try:
                count = 0
                for view in views:
                    if not view.is_missing:
                        words = ["'HSET'", _bucket_sql(name, build, view, buckets[view.position]), "entity", "version"]
                        query = _commands(words, view.last_rows(is_binary=False), view, generation=0)
                        count += wire.send_all(self._client, duckdb, query, token_key=prefix(name), token=token)[0]
                after = _new_head(contents, views, build=build, generation=0, buckets=buckets, rows=count)
                self._switch(name, token, after)
            except FairleadError:
                # Where memory is short, half a build would be in the way of the next one.
                with suppress(FairleadError), speaking():
                    wire.unlink_build(self._client, name, build, buckets)
                raise
        with speaking():
            if head is not None:
                wire.unlink_build(self._client, name, head.build, head.buckets)
            self._prune(name, head)
        return count

    def apply(self, name: StoreName, contents: StoreContents, changes: StoreChanges, *, scratch: Path) -> int | None:
        """As `OnlineEngine.apply`."""
        views = kept_views(contents, changes)
        head = self._head(name)
        if head is None or head.meta["snapshot"] != changes.base or head.described != _described(views):
            return None
        rows, generation, token = int(head.meta["rows"]), head.generation + 1, wire.new_token()
        with speaking():
            # After an attempt that died there may be versions of this generation.
            is_clean = self._client.hget(prefix(name), "started") == str(head.generation)
        if not is_clean or rows > _CROWDED * wire.ENTITIES_IN_BUCKET * sum(head.buckets):
            return None
        with open_duckdb(scratch) as duckdb:
            with speaking():
                self._begin(name, head, token, started=generation)
                put, compact = (self._client.script_load(text) for text in (wire.PUT, wire.COMPACT))
            touched = [view for view in views if not view.is_missing and view.changed_keys() is not None]
            for view in touched:
                bucket = _bucket_sql(name, head.build, view, head.buckets[view.position])
                words = ["'EVALSHA'", quote_text(put), "'1'", bucket, "entity", "version"]
                query = _commands(words, _changed_rows(view), view, generation=generation)
                rows += wire.send_all(self._client, duckdb, query, token_key=prefix(name), token=token)[1]
            after = _new_head(contents, views, build=head.build, generation=generation, buckets=head.buckets, rows=rows)
            self._switch(name, token, after)
            for view in touched:
                bucket = _bucket_sql(name, head.build, view, head.buckets[view.position])
                words = ["'EVALSHA'", quote_text(compact), "'1'", bucket, "entity", quote_text(str(generation))]
                query = _commands(words, view.changed_keys() or "", view, generation=None)
                wire.send_all(self._client, duckdb, query, token_key=prefix(name), token=token)
        with speaking():
            self._prune(name, head)
        return rows

    def address(self, name: StoreName) -> None:
        """As `OnlineEngine.address`: bundles read files."""

    def reader(self, name: StoreName) -> RedisReader:
        """As `OnlineEngine.reader`."""
        return RedisReader(self._client, name)

    def stores(self, workspace_id: str, region: str) -> list[StoreName]:
        """As `OnlineEngine.stores`."""
        with speaking():
            found: set[str] = self._client.smembers(wire.index_key(workspace_id, region))
        names = [each.partition("@") for each in sorted(found)]
        return [StoreName(workspace_id=workspace_id, service=each[0], region=region, slot=each[2]) for each in names]

    def drop(self, name: StoreName) -> None:
        """As `OnlineEngine.drop`."""
        head = self._head(name)
        with speaking():
            # Who writes it at this moment, stops; who reads it, finds nothing.
            self._client.unlink(prefix(name))
            self._take_away(name, spared=None)
            for _, stored in () if head is None else head.views:
                self._client.unlink(wire.live_key(name, stored.alias))
            self._client.srem(wire.index_key(name.workspace_id, name.region), f"{name.service}@{name.slot}")

    def push(self, name: StoreName, view: str, rows: Sequence[PushedRow]) -> int:
        """As `OnlineEngine.push`."""
        head = self._head(name)
        count = 0
        for accepted, stored in () if head is None else head.views:
            found = read_pushed(stored, accepted, view, rows)
            for some in wire.in_parts(found, _AT_ONCE):
                told = [text for row in some for text in (row.key, json.dumps([row.event, row.created, row.features]))]
                with speaking():
                    count += self._client.eval(wire.PUSH, 1, wire.live_key(name, stored.alias), *told)
        return count

    def forget_entity(self, name: StoreName, join_key: str, value: Any, *, scratch: Path) -> int:
        """As `OnlineEngine.forget_entity`."""
        del scratch
        head = self._head(name)
        if head is None:
            return 0
        gone, pushed = 0, 0
        with speaking():
            for position, (_, stored) in enumerate(head.views):
                own = [each for _, _, each in stored.keys]
                if join_key not in own or stored.is_missing:
                    continue
                place, width, live = own.index(join_key), len(own), wire.live_key(name, stored.alias)
                for entity in self._client.hkeys(live):
                    if split_key(entity, width)[place] == str(value):
                        pushed += self._client.hdel(live, entity)
                if width == 1:
                    gone += self._client.hdel(wire.bucket_key(head, name, position, str(value)), str(value))
                    continue
                for bucket in range(head.buckets[position]):
                    key = f"{prefix(name)}:{head.build}:{position}:{bucket}"
                    found = [each for each in self._client.hkeys(key) if split_key(each, width)[place] == str(value)]
                    gone += self._client.hdel(key, *found) if found else 0
            meta = head.meta | {"rows": str(int(head.meta["rows"]) - gone)}
            text = json.dumps({"meta": meta, "views": head.described, "buckets": head.buckets})
            self._client.eval(wire.SET_META, 1, prefix(name), head.pointer, text)
        return gone + pushed

    def _head(self, name: StoreName) -> Head | None:
        with speaking():
            return wire.read_head(*self._client.hmget(prefix(name), "pointer", "meta"))

    def _begin(self, name: StoreName, head: Head | None, token: str, *, started: int) -> None:
        pointer = "" if head is None else head.pointer
        if not self._client.eval(wire.BEGIN, 1, prefix(name), token, pointer, str(started)):
            raise wire.taken_over()

    def _take_away(self, name: StoreName, *, spared: str | None) -> None:
        builds: dict[str, str] = self._client.hgetall(f"{prefix(name)}:builds")
        for build, buckets in builds.items():
            if build != spared:
                wire.unlink_build(self._client, name, build, json.loads(buckets))

    def _switch(self, name: StoreName, token: str, head: Head) -> None:
        text = json.dumps({"meta": head.meta, "views": head.described, "buckets": head.buckets})
        keys = (prefix(name), wire.index_key(name.workspace_id, name.region))
        member = f"{name.service}@{name.slot}"
        with speaking():
            if not self._client.eval(wire.SWITCH, 2, *keys, token, head.pointer, text, str(head.generation), member):
                raise wire.taken_over()

    def _prune(self, name: StoreName, before: Head | None) -> None:
        """Take away what was pushed and is in the snapshot by now, or of what is no longer taken."""
        head = self._head(name)
        if head is None:
            return
        places = {stored.alias: (position, accepted) for position, (accepted, stored) in enumerate(head.views)}
        for accepted, stored in [] if before is None else before.views:
            place = places.get(stored.alias)
            if place is None or json.loads(place[1])["view"] != json.loads(accepted)["view"]:
                self._client.unlink(wire.live_key(name, stored.alias))
        for alias, (position, _) in places.items():
            for some in wire.in_parts(self._client.hscan_iter(wire.live_key(name, alias)), _AT_ONCE):
                reads = self._client.pipeline(transaction=False)
                for entity, _ in some:
                    reads.hget(wire.bucket_key(head, name, position, entity), entity)
                for (entity, text), versions in zip(some, reads.execute(), strict=True):
                    version, row = wire.visible_version(versions, head.generation), json.loads(text)
                    if version is not None and is_late(version[1], version[2], row[0], row[1]):
                        self._client.eval(wire.DELETE_EQUAL, 1, wire.live_key(name, alias), entity, text)


def _described(views: Sequence[KeptView]) -> list[list[Any]]:
    return [[view.accepted(), *view.described()] for view in views]


def _new_head(
    contents: StoreContents, views: Sequence[KeptView], *, build: str, generation: int, buckets: list[int], rows: int
) -> Head:
    return Head(
        build=build,
        generation=generation,
        meta={**contents.meta, "format": FORMAT, "service": contents.service.name, "rows": str(rows)},
        views=[],
        described=_described(views),
        buckets=buckets,
    )


def _buckets(duckdb: DuckDBPyConnection, view: KeptView) -> int:
    if view.is_missing:
        return 1
    count = fetch_number(duckdb, f"SELECT count(*) FROM ({view.last_rows(is_binary=False)})")  # noqa: S608
    return 1 + count // wire.ENTITIES_IN_BUCKET


def _bucket_sql(name: StoreName, build: str, view: KeptView, buckets: int) -> str:
    begins = quote_text(f"{prefix(name)}:{build}:{view.position}:")
    return f"({begins} || (md5_number_lower(entity) % {buckets}))"


def _changed_rows(view: KeptView) -> str:
    """SQL for the last rows of changed entities, and a row without an event for those that are gone."""
    keys = ", ".join(f"k{index}" for index in range(len(view.view.keys)))
    matches = " AND ".join(f"c.k{index} = l.k{index}" for index in range(len(view.view.keys)))
    own = ", ".join(f"c.k{index}" for index in range(len(view.view.keys)))
    return (
        f"SELECT {own}, l.* EXCLUDE ({keys}) FROM ({view.changed_keys()}) c "  # noqa: S608
        f"LEFT JOIN ({view.last_rows(is_binary=False)}) l ON {matches}"
    )


def _commands(words: Sequence[str], rows: str, view: KeptView, *, generation: int | None) -> str:
    """SQL for one column of commands, whose words are SQL over `entity` and `version`."""
    columns = f"{wire.entity_sql(len(view.view.keys))} AS entity"
    if generation is not None:
        values = "".join(f", f{index}" for index in range(len(view.features)))
        columns += (
            f", CASE WHEN event IS NULL THEN '[{generation}]' "
            f"ELSE CAST(json_array({generation}, event, created{values}) AS VARCHAR) END AS version"
        )
    return f"SELECT {wire.command_sql(words)} FROM (SELECT {columns} FROM ({rows}))"  # noqa: S608
