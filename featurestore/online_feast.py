"""Online stores in whatever Feast can write to: any class of its online stores, through that class's own methods.

Each build of a store is a *project* of Feast's with one view for each projection, keyed by the entity's name (see
`online_reader.key_text`), whose one feature holds the row as JSON. A pointer, kept in the same way, names the project
that is served; it moves once a project is whole, and the one before is taken away. A reader asks for the pointer before
and after. So the switch is as atomic as the store's write of one row; whether the store keeps its promises is beyond
what can be known here, and states say `is_atomic: false`.

Everything is written anew each time: Feast's stores have no way to take single entities back, and some keep whichever
row has the later time. Pushed rows lie in a file of the machine that took them, beside its other stores.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import InvalidInput, Unavailable
from fairlead.featurestore.duck import fetch_batches, open_duckdb
from fairlead.featurestore.online_engines import PushedRow, StoreChanges, StoreContents, StoreName
from fairlead.featurestore.online_layout import kept_views
from fairlead.featurestore.online_live import LiveRows, is_late, read_pushed, split_key
from fairlead.featurestore.online_reader import (
    FORMAT,
    FeatureReader,
    MovedError,
    OnlineStoreError,
    StoredView,
    key_text,
    live_row,
)
from fairlead.featurestore.redis_wire import entity_sql

if TYPE_CHECKING:
    from fairlead.featurestore.online_sqlite import OnlineFolder

_BATCH = 2000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROW = "row"
_POINTERS = "fairlead_pointers"


class FeastEngine:
    """Keeps stores with a class of Feast's online stores. Options: `type`, and whatever that class's config takes."""

    is_atomic = False
    forgets_keys = False

    def __init__(self, options: Mapping[str, Any], folder: OnlineFolder) -> None:
        from feast.repo_config import RepoConfig

        self.kind = f"feast:{options['type']}"
        self._folder = folder
        self._lock = threading.RLock()
        folder.root.mkdir(parents=True, exist_ok=True)
        try:
            self._config = RepoConfig(
                project="fairlead",
                provider="local",
                registry=str(folder.root / "feast-registry.db"),
                offline_store={"type": "file"},
                online_store=dict(options),
                entity_key_serialization_version=3,
            )
            store: Any = import_module("feast.infra.online_stores.helpers").get_online_store_from_config(
                self._config.online_store
            )
        except Exception as error:
            raise InvalidInput(
                f"Feast makes no online store {str(options['type'])[:120]!r} of these options.",
                hint="They are what stands under online_store in a feature_store.yaml.",
            ) from error
        self._store = store
        self._call("update", _POINTERS, [], [_view(_POINTERS)], [], [], partial=False)

    def write(self, name: StoreName, contents: StoreContents, *, scratch: Path) -> int:
        """As `OnlineEngine.write`."""
        views, before = kept_views(contents), self.head(name)
        project = f"fairlead_{secrets.token_hex(8)}"
        tables = [_view(f"view_{view.position}") for view in views]
        self._begin(name, before, project, len(views))
        self._call("update", project, [], tables, [], [], partial=False)
        count = 0
        with open_duckdb(scratch) as duckdb:
            for view in views:
                if view.is_missing:
                    continue
                values = "".join(f", f{index}" for index in range(len(view.features)))
                query = (
                    f"SELECT {entity_sql(len(view.view.keys))}, CAST(json_array(event, created{values}) AS VARCHAR) "  # noqa: S608
                    f"FROM ({view.last_rows(is_binary=False)})"
                )
                for batch in fetch_batches(duckdb, query, _BATCH):
                    rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                    self._put(project, tables[view.position], rows)
                    count += batch.num_rows
        head = {
            "project": project,
            "generation": 1 + (0 if before is None else before["generation"]),
            "meta": {**contents.meta, "format": FORMAT, "service": contents.service.name, "rows": str(count)},
            "views": [[view.accepted(), *view.described()] for view in views],
        }
        self._list(name, is_there=True)
        self._point(name, head)
        if before is not None:
            self._take_away(before["project"], len(before["views"]))
        self._prune(name, head)
        return count

    def apply(self, name: StoreName, contents: StoreContents, changes: StoreChanges, *, scratch: Path) -> None:
        """As `OnlineEngine.apply`: Feast's stores cannot."""
        del name, contents, changes, scratch

    def address(self, name: StoreName) -> None:
        """As `OnlineEngine.address`: bundles read files."""

    def reader(self, name: StoreName) -> FeastReader:
        """As `OnlineEngine.reader`."""
        return FeastReader(self, name)

    def stores(self, workspace_id: str, region: str) -> list[StoreName]:
        """As `OnlineEngine.stores`."""
        listed = self._listed(workspace_id, region)
        split = [each.partition("@") for each in listed]
        return [StoreName(workspace_id=workspace_id, service=each[0], region=region, slot=each[2]) for each in split]

    def drop(self, name: StoreName) -> None:
        """As `OnlineEngine.drop`."""
        head = self.head(name)
        if head is not None:
            self._point(name, {**head, "project": None, "generation": head["generation"] + 1})
            self._take_away(head["project"], len(head["views"]))
        self._list(name, is_there=False)
        for path in self.live(name).files():
            path.unlink(missing_ok=True)

    def push(self, name: StoreName, view: str, rows: Sequence[PushedRow]) -> int:
        """As `OnlineEngine.push`."""
        head = self.head(name)
        stored: list[list[Any]] = [] if head is None else head["views"]
        found = [row for each in stored for row in read_pushed(StoredView(each[1:]), each[0], view, rows)]
        return self.live(name).upsert(found) if found else 0

    def forget_entity(self, name: StoreName, join_key: str, value: Any, *, scratch: Path) -> int:
        """As `OnlineEngine.forget_entity`; entities of several keys stay until the next snapshot is written."""
        del scratch
        head = self.head(name)
        if head is None:
            return 0
        places: dict[str, tuple[int, int]] = {}
        count = 0
        for each in head["views"]:
            stored = StoredView(each[1:])
            own = [key for _, _, key in stored.keys]
            if join_key in own and not stored.is_missing:
                places[stored.alias] = (own.index(join_key), len(own))
                if len(own) == 1 and self.rows(head["project"], stored.store, [str(value)])[0] is not None:
                    self._put(head["project"], _view(stored.store), [(str(value), "null")], generation=2)
                    count += 1

        def is_of(alias: str, key: str) -> bool:
            place = places.get(alias)
            return place is not None and split_key(key, place[1])[place[0]] == str(value)

        return count + self.live(name).forget(is_of)

    def head(self, name: StoreName) -> dict[str, Any] | None:
        """What a store says of itself; None where there is none."""
        text = self.rows(_POINTERS, _POINTERS, [_key(name)])[0]
        found: dict[str, Any] | None = None if text is None else json.loads(text)
        return None if found is None or found["project"] is None else found

    def rows(self, project: str, view: str, entities: Sequence[str]) -> list[str | None]:
        """The JSON of each entity's row in a view of a project."""
        found = self._call("online_read", project, _view(view), [_entity_key(each) for each in entities], [_ROW])
        texts = [None if values is None or _ROW not in values else values[_ROW].string_val for _, values in found]
        return [None if text in {None, "", "null"} else text for text in texts]

    def live(self, name: StoreName) -> LiveRows:
        """What was pushed beside a store."""
        path = self._folder.path(name.region, name.workspace_id, name.service, name.slot)
        path.parent.mkdir(parents=True, exist_ok=True)
        return LiveRows(path.with_suffix(".feast"))

    def _point(self, name: StoreName, head: Mapping[str, Any]) -> None:
        self._put(_POINTERS, _view(_POINTERS), [(_key(name), json.dumps(head))], generation=head["generation"])

    def _listed(self, workspace_id: str, region: str) -> list[str]:
        text = self.rows(_POINTERS, _POINTERS, [f"{workspace_id}/{region}"])[0]
        found: list[str] = [] if text is None else json.loads(text)["stores"]
        return found

    def _list(self, name: StoreName, *, is_there: bool) -> None:
        key = f"{name.workspace_id}/{name.region}"
        with self._lock:
            text = self.rows(_POINTERS, _POINTERS, [key])[0]
            said: dict[str, Any] = {"stores": [], "generation": 0} if text is None else json.loads(text)
            member = f"{name.service}@{name.slot}"
            stores = sorted({*said["stores"], member} if is_there else {*said["stores"]} - {member})
            if stores != said["stores"]:
                generation = said["generation"] + 1
                row = json.dumps({"stores": stores, "generation": generation})
                self._put(_POINTERS, _view(_POINTERS), [(key, row)], generation=generation)

    def _begin(self, name: StoreName, head: Mapping[str, Any] | None, project: str, views: int) -> None:
        """Note what is begun, and take away what was begun before and never served."""
        key = f"{_key(name)} begun"
        text = self.rows(_POINTERS, _POINTERS, [key])[0]
        before: dict[str, Any] = {"generation": 0} if text is None else json.loads(text)
        if "project" in before and (head is None or before["project"] != head["project"]):
            self._take_away(before["project"], before["views"])
        generation: int = before["generation"] + 1
        begun = json.dumps({"project": project, "views": views, "generation": generation})
        self._put(_POINTERS, _view(_POINTERS), [(key, begun)], generation=generation)

    def _take_away(self, project: str, views: int) -> None:
        tables = [_view(f"view_{position}") for position in range(views)]
        self._call("update", project, tables, [], [], [], partial=False)

    def _prune(self, name: StoreName, head: Mapping[str, Any]) -> None:
        """Take away what was pushed and is in the snapshot by now, or of what is no longer taken."""
        stored = {each[1]: (StoredView(each[1:]), json.loads(each[0])["view"]) for each in head["views"]}

        def is_overtaken(alias: str, view: str, key: str, event: int, created: int | None) -> bool:
            if alias not in stored or stored[alias][0].is_missing or stored[alias][1] != view:
                return True
            text = self.rows(head["project"], stored[alias][0].store, [key])[0]
            row = None if text is None else json.loads(text)
            return row is not None and is_late(row[0], row[1], event, created)

        self.live(name).prune(is_overtaken)

    def _put(self, project: str, view: Any, rows: Any, *, generation: int = 1) -> None:
        from feast.protos.feast.types.Value_pb2 import Value

        # Some stores keep whichever row has the later time.
        moment = _EPOCH + timedelta(seconds=generation)
        data = [(_entity_key(entity), {_ROW: Value(string_val=row)}, moment, moment) for entity, row in rows]
        self._call("online_write_batch", project, view, data, None)

    def _call(self, method: str, project: str, *arguments: Any, **options: Any) -> Any:
        config = self._config.model_copy(update={"project": project})
        with self._lock:
            try:
                return getattr(self._store, method)(config, *arguments, **options)
            except Exception as error:
                raise Unavailable(
                    f"The online store {self.kind!r} does not do as it should ({type(error).__name__}).",
                    hint="See that it runs and is reached with its options; the work is tried again by itself.",
                ) from error


class FeastReader(FeatureReader):
    """One service's online features in one region, from a store of Feast's."""

    def __init__(self, engine: FeastEngine, name: StoreName) -> None:
        super().__init__()
        self._engine = engine
        self._name = name
        self._head: dict[str, Any] = {}

    def _refresh(self) -> None:
        head = self._engine.head(self._name)
        if head is None:
            raise FileNotFoundError(f"there is no online store of {self._name.service} in {self._name.region}")
        if head["project"] != self._head.get("project"):
            self._views = [StoredView(each[1:]) for each in head["views"]]
        self._head, self._meta = head, head["meta"]

    def _fetch(self, view: StoredView, keys: Collection[Any]) -> Mapping[Any, Sequence[Any]]:
        width = len(view.keys)
        # NULL is the key of nothing.
        wanted = [key for key in keys if (key is not None if width == 1 else None not in key)]
        if not wanted:
            return {}
        try:
            rows = self._engine.rows(self._head["project"], view.store, [key_text(key, width) for key in wanted])
        except Unavailable as error:
            if self._engine.head(self._name) != self._head:
                raise MovedError from error
            raise OnlineStoreError("The online store cannot be read.") from error
        pushed = self._engine.live(self._name).find(view.alias, [key_text(key, width) for key in wanted])
        if self._engine.head(self._name) != self._head:
            raise MovedError
        binary = [at for at, (_, kind, _) in enumerate(view.features, start=1) if kind == "BYTES"]
        found: dict[Any, Sequence[Any]] = {}
        for key, text in zip(wanted, rows, strict=True):
            version = None if text is None else json.loads(text)
            event, created, features = pushed.get(key_text(key, width), (None, None, ""))
            if event is not None and (version is None or not is_late(version[0], version[1], event, created)):
                found[key] = live_row(view, event, features)
            elif version is not None:
                row = [version[0], *version[2:]]
                for at in binary:
                    row[at] = None if row[at] is None else base64.b64decode(row[at])
                found[key] = row
        return found

    def _close(self) -> None:
        self._head = {}


def _key(name: StoreName) -> str:
    return f"{name.workspace_id}/{name.region}/{name.service}@{name.slot}"


def _entity_key(entity: str) -> Any:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=["entity"], entity_values=[Value(string_val=entity)])


def _view(name: str) -> Any:
    import feast
    from feast.types import String

    return feast.FeatureView(
        name=name,
        entities=[feast.Entity(name="entity", join_keys=["entity"], value_type=feast.ValueType.STRING)],
        schema=[feast.Field(name="entity", dtype=String), feast.Field(name=_ROW, dtype=String)],
        source=feast.FileSource(name="none", path="none.parquet", timestamp_field="event_timestamp"),
    )
