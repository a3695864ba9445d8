"""What every engine of online stores promises, as tests: subclass `OnlineEngineTests` with a fixture `engine`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.errors import InvalidInput
from fairlead.featurestore.definitions import DUMMY_ENTITY, DUMMY_KEY, Column, ViewDefinition
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.online_engines import OnlineEngine, StoreChanges, StoreContents, StoreName
from fairlead.featurestore.online_layout import kept_views
from fairlead.featurestore.online_parity import compare_view
from fairlead.featurestore.online_reader import STATUS, OnlineStoreError
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.services import Projection, ServiceDefinition
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition
from fairlead.featurestore.sources import Sources

arrow: Any = pa
parquet: Any = pq
NOW = datetime(2026, 3, 1, tzinfo=UTC)
REGION = "aws:us-east-1"
NAME = StoreName(workspace_id="default", service="diagnosis", region=REGION)
NAME_OF_RATES = StoreName(workspace_id="default", service="market", region=REGION)
X, Y = "sha256:" + "a" * 64, "sha256:" + "b" * 64
TYPES: dict[str, tuple[str, Any, list[Any]]] = {
    "flag": ("BOOL", arrow.bool_(), [True, None]),
    "count": ("INT64", arrow.int64(), [2**62, None]),
    "ratio": ("FLOAT", arrow.float32(), [0.1, None]),
    "exact": ("DOUBLE", arrow.float64(), [0.1, None]),
    "limit": ("DOUBLE", arrow.float64(), [float("inf"), None]),
    "word": ("STRING", arrow.string(), ["é'\"\\\n\t\x01", None]),
    "raw": ("BYTES", arrow.binary(), [b"\x00\xff", None]),
    "seen": ("UNIX_TIMESTAMP", arrow.timestamp("us", tz="UTC"), [NOW + timedelta(microseconds=1), None]),
    "embedding": ("FLOAT_LIST", arrow.list_(arrow.float32()), [[0.5, 0.1], None]),
    "words": ("STRING_LIST", arrow.list_(arrow.string()), [["a", None], None]),
    "moments": ("UNIX_TIMESTAMP_LIST", arrow.list_(arrow.timestamp("us", tz="UTC")), [[NOW], None]),
    "parts": ("BYTES_LIST", arrow.list_(arrow.binary()), [[b"\x00\xff"], None]),
}
History = Sequence[tuple[Any, float, Any]]
"""Rows of a view: key (or a tuple of keys), day of the event, and the value of `x`."""


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


def view_of(
    features: Mapping[str, str], *, keys: Mapping[str, str] | None = None, name: str = "cells", ttl: str | None = None
) -> ViewDefinition:
    columns = tuple(Column(name=key, type=kind) for key, kind in (keys or {"id": "INT64"}).items())
    return ViewDefinition(
        name=name,
        entities=tuple(column.name for column in columns),
        keys=columns,
        features=tuple(Column(name=feature, type=kind) for feature, kind in features.items()),
        source=SourceDefinition(
            place=ParquetFiles(uri=""),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
            field_mapping={},
        ),
        ttl_seconds=ttl,
        residency=UNRESTRICTED,
    )


def service_of(*views: ViewDefinition) -> ServiceDefinition:
    return ServiceDefinition(
        name="diagnosis",
        projections=tuple(
            Projection(
                view=view.name, alias=view.name, features=tuple(each.name for each in view.features), join_key_map={}
            )
            for view in views
        ),
    )


@dataclass(slots=True)
class World:
    """An engine and a folder for what it is filled from."""

    engine: OnlineEngine
    folder: Path
    _files: int = 0

    def rows(self, view: ViewDefinition, table: Any) -> ViewRows:
        """The canonical rows of a view whose source is a table."""
        self._files += 1
        source, path = self.folder / f"source-{self._files}.parquet", self.folder / f"rows-{self._files}.parquet"
        if "created" not in table.column_names:
            table = table.append_column("created", table.column("event_timestamp"))
        parquet.write_table(table, source)
        stated = replace(view, source=replace(view.source, place=ParquetFiles(uri=str(source))))
        write_rows(stated, as_of=day(1000), sources=Sources(), destination=path, scratch=self.folder)
        return ViewRows(view=view, path=path)

    def history(self, view: ViewDefinition, history: History) -> ViewRows:
        """The canonical rows of a view with one feature `x`."""
        keys: list[tuple[Any, ...]] = [key if isinstance(key, tuple) else (key,) for key, _, _ in history]
        kinds = {"INT64": arrow.int64(), "INT32": arrow.int32(), "STRING": arrow.string()}
        columns = {
            column.name: arrow.array([key[index] for key in keys], kinds[column.type])
            for index, column in enumerate(view.keys)
        }
        times = arrow.array([day(when) for _, when, _ in history], arrow.timestamp("us", tz="UTC"))
        values = arrow.array([value for _, _, value in history], arrow.int64())
        return self.rows(view, arrow.table({**columns, "event_timestamp": times, "x": values}))

    def contents(self, *rows: ViewRows, snapshot: str = X, views: Sequence[ViewDefinition] = ()) -> StoreContents:
        """A service over those rows; `views` besides are not in the region."""
        every = [each.view for each in rows] + list(views)
        return StoreContents(
            service=service_of(*every),
            views={view.name: view for view in every},
            rows={each.view.name: [each] for each in rows},
            meta={
                "service_digest": "sha256:s",
                "snapshot": snapshot,
                "as_of": "2026-03-01T00:00:00.000000Z",
                "region": REGION,
            },
        )

    def write(self, history: History, *, snapshot: str = X, name: StoreName = NAME) -> int:
        contents = self.contents(self.history(CELLS, history), snapshot=snapshot)
        return self.engine.write(name, contents, scratch=self.folder)

    def changes(self, *histories: History, base: str = X) -> StoreChanges:
        """That the entities of those rows have changed."""
        files = tuple(self.history(CELLS, history).path for history in histories if history)
        return StoreChanges(base=base, files={"cells": [files]})

    def read(self, keys: Sequence[Any] = (1, 2, 3), *, name: StoreName = NAME) -> list[Any]:
        reader = self.engine.reader(name)
        try:
            return [row["x"] for row in reader.read({"id": keys}, now=NOW)[1]]
        finally:
            reader.close()

    def snapshot(self, name: StoreName = NAME) -> str:
        reader = self.engine.reader(name)
        try:
            return reader.meta["snapshot"]
        finally:
            reader.close()

    def push(self, key: int, when: float, value: int, *, created: float | None = None) -> int:
        row = {"id": key, "event_timestamp": day(when), "created": day(when if created is None else created)}
        return self.engine.push(NAME, "cells", [{**row, "x": value}])


CELLS = view_of({"x": "INT64"})


class OnlineEngineTests:
    """Subclass it with a fixture `engine`, which keeps nothing of other tests."""

    @pytest.fixture
    def engine(self) -> OnlineEngine:
        raise NotImplementedError

    @pytest.fixture
    def world(self, engine: OnlineEngine, tmp_path: Path) -> Iterator[World]:
        yield World(engine, tmp_path)
        for name in engine.stores(NAME.workspace_id, REGION):
            engine.drop(name)

    def test_values_of_every_type_come_back_as_they_went_in(self, world: World) -> None:
        columns = {name: arrow.array(values, kind) for name, (_, kind, values) in TYPES.items()}
        table = arrow.table({"id": [1, 2], "event_timestamp": [day(-1)] * 2, **columns})
        view = view_of({name: kind for name, (kind, _, _) in TYPES.items()})
        contents = world.contents(world.rows(view, table))
        assert world.engine.write(NAME, contents, scratch=world.folder) == 2
        reader = world.engine.reader(NAME)
        digest, (full, empty) = reader.read({"id": [1, 2]}, now=NOW)
        assert digest == X
        for name in TYPES:
            assert full[name] == table.column(name)[0].as_py(), name
            assert empty[name] is None
        assert full[STATUS] == empty[STATUS] == {"cells": "present"}
        (kept,), (stored,) = kept_views(contents), reader.views
        assert compare_view(kept, stored, reader, seed="", sample=9, scratch=world.folder).differences == ()
        pushed = {name: full[name] for name in TYPES} | {"id": 2, "event_timestamp": day(0), "created": day(0)}
        assert world.engine.push(NAME, "cells", [pushed]) == 1
        assert reader.read({"id": [2]}, now=NOW)[1][0] == {**full, "id": 2}
        reader.close()

    def test_keys_of_several_columns_and_any_text_find_their_row(self, world: World) -> None:
        view = view_of({"x": "INT64"}, keys={"clinic": "STRING", "id": "INT32"})
        keys = [("", 1), ("é", 1), ("a'b\r\n", 1), ("1", 1), ("1", 2), ("1:1", -1)]
        rows = world.history(view, [(key, -1, number) for number, key in enumerate(keys)])
        world.engine.write(NAME, world.contents(rows), scratch=world.folder)
        reader = world.engine.reader(NAME)
        asked = {"clinic": [*(key[0] for key in keys), "1"], "id": [*(key[1] for key in keys), 3]}
        assert [row["x"] for row in reader.read(asked, now=NOW)[1]] == [0, 1, 2, 3, 4, 5, None]
        times = {"event_timestamp": day(0), "created": day(0)}
        world.engine.push(NAME, "cells", [{"clinic": "é", "id": 1, "x": 7, **times}])
        assert reader.read_view("cells", [{"clinic": "é", "id": 1}], now=NOW) == [(day(0), {"x": 7})]
        reader.close()

    def test_a_view_without_an_entity_has_one_row_which_nobody_names(self, world: World) -> None:
        view = replace(view_of({"rate": "DOUBLE"}, name="rates"), entities=(DUMMY_ENTITY,), keys=(DUMMY_KEY,))
        rates = arrow.table({"event_timestamp": [day(-3), day(-1)], "rate": [1.0, 1.5]})
        cells, alone = world.history(CELLS, [(1, -1, 7)]), NAME_OF_RATES
        world.engine.write(NAME, world.contents(cells, world.rows(view, rates)), scratch=world.folder)
        contents = world.contents(world.rows(view, rates))
        assert world.engine.write(alone, contents, scratch=world.folder) == 1
        both, reader = world.engine.reader(NAME), world.engine.reader(alone)
        with closing(both), closing(reader):
            read = [(row["x"], row["rate"]) for row in both.read({"id": [1, 2, 1]}, now=NOW)[1]]
            assert read == [(7, 1.5), (None, 1.5), (7, 1.5)]
            assert both.read({"id": []}, now=NOW) == (X, [])
            with pytest.raises(OnlineStoreError, match="'id' is missing"):
                both.read({}, now=NOW)
            assert reader.read({}, now=NOW) == (X, [{STATUS: {"rates": "present"}, "rate": 1.5}])
            assert reader.read({"anything": [1, 2]}, now=NOW)[1][1]["rate"] == 1.5
            assert reader.read_view("rates", [{"__dummy_id": ""}, {}], now=NOW) == [(day(-1), {"rate": 1.5})] * 2
            pushed = {"__dummy_id": "", "event_timestamp": day(0), "created": day(0), "rate": 2.5}
            assert world.engine.push(alone, "rates", [pushed]) == 1
            assert reader.read({}, now=NOW)[1][0]["rate"] == 2.5
            later = arrow.table({"event_timestamp": [day(-1), day(1)], "rate": [1.5, 3.5]})
            changed = world.rows(view, later)
            contents = world.contents(changed, snapshot=Y)
            changes = StoreChanges(base=X, files={"rates": [(changed.path,)]})
            if world.engine.apply(alone, contents, changes, scratch=world.folder) is None:
                world.engine.write(alone, contents, scratch=world.folder)
            assert reader.read({}, now=NOW) == (Y, [{STATUS: {"rates": "present"}, "rate": 3.5}])
            (kept,), (stored,) = kept_views(contents), reader.views
            compared = compare_view(kept, stored, reader, seed="", sample=9, scratch=world.folder)
            assert (compared.sampled, compared.differences) == (1, ())

    def test_a_reader_sees_the_snapshot_that_was_written_last(self, world: World) -> None:
        reader = world.engine.reader(NAME)
        with pytest.raises(FileNotFoundError):
            _ = reader.meta
        assert world.write([(1, -3, 1), (1, -1, 2), (2, -2, 5)]) == 2
        assert (reader.meta["snapshot"], reader.meta["rows"]) == (X, "2")
        assert world.read() == [2, 5, None]
        world.write([(1, -3, 1)], snapshot=Y)
        assert reader.meta | {"format": ""} == {
            **world.contents(snapshot=Y).meta,
            "service": "diagnosis",
            "rows": "1",
            "format": "",
        }
        assert reader.read({"id": [1, 2]}, now=NOW) == (
            Y,
            [{"id": 1, "x": 1, STATUS: {"cells": "present"}}, {"id": 2, "x": None, STATUS: {"cells": "not_found"}}],
        )
        reader.close()

    def test_views_outside_the_region_and_values_past_their_time_are_not_given_out(self, world: World) -> None:
        brief, genes = view_of({"x": "INT64"}, ttl="86400"), view_of({"marker": "STRING"}, name="genes")
        rows = world.history(brief, [(1, -1, 1), (2, -2, 2)])
        world.engine.write(NAME, world.contents(rows, views=[genes]), scratch=world.folder)
        reader = world.engine.reader(NAME)
        found = reader.read({"id": [1, 2]}, now=NOW)[1]
        assert [(row["x"], row["marker"]) for row in found] == [(1, None), (None, None)]
        assert [row[STATUS]["cells"] for row in found] == ["present", "expired"]
        assert {row[STATUS]["genes"] for row in found} == {"not_in_region"}
        assert reader.read_view("cells", [{"id": 2}], now=NOW) == [None]
        reader.close()

    def test_a_view_of_which_a_part_may_not_be_here_is_served_without_it(self, world: World) -> None:
        whole = view_of({"x": "INT64", "marker": "STRING", "y": "INT64"})
        here = [view_of({"x": "INT64"}), view_of({"y": "INT64"})]
        table = arrow.table({"id": [1, 2], "event_timestamp": [day(-1)] * 2, "x": [1, 2], "y": [3, 4]})
        parts = [world.rows(view, table) for view in here]
        contents = replace(world.contents(views=[whole]), rows={"cells": parts})
        world.engine.write(NAME, contents, scratch=world.folder)
        reader = world.engine.reader(NAME)
        assert reader.read({"id": [2]}, now=NOW)[1] == [
            {"id": 2, "x": 2, "marker": None, "y": 4, STATUS: {"cells": "present"}}
        ]
        row = {"id": 2, "event_timestamp": day(0), "created": day(0), "x": 7, "marker": "a", "y": 8}
        world.engine.push(NAME, "cells", [row])
        assert [reader.read({"id": [2]}, now=NOW)[1][0][name] for name in ("x", "marker", "y")] == [7, None, 8]
        reader.close()

    @settings(
        max_examples=12,
        # The engine is emptied after each example, and each subclass has its own.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        histories=st.lists(
            st.lists(st.tuples(st.integers(0, 4), st.integers(-6, -1), st.integers(0, 2)), max_size=8),
            min_size=2,
            max_size=3,
        )
    )
    def test_rewriting_what_changed_gives_what_writing_everything_does(
        self, engine: OnlineEngine, histories: list[list[tuple[int, int, int]]]
    ) -> None:
        with TemporaryDirectory() as folder:
            world = World(engine, Path(folder))
            world.write(histories[0], snapshot="sha256:0")
            for number, (before, after) in enumerate(pairwise(histories), start=1):
                added, removed = (
                    [each for each in after if each not in before],
                    [each for each in before if each not in after],
                )
                contents = world.contents(world.history(CELLS, after), snapshot=f"sha256:{number}")
                changes = world.changes(added, removed, base=f"sha256:{number - 1}")
                rows = engine.apply(NAME, contents, changes, scratch=world.folder)
                last = {
                    key: max(each[1:] for each in after if each[0] == key)[1] for key in {each[0] for each in after}
                }
                assert rows in {len(last), None}
                if rows is None:
                    engine.write(NAME, contents, scratch=world.folder)
                assert world.snapshot() == f"sha256:{number}"
                assert world.read(range(5)) == [last.get(key) for key in range(5)]
            engine.drop(NAME)

    def test_only_the_snapshot_and_the_form_that_are_there_are_built_upon(self, world: World) -> None:
        rows = world.history(CELLS, [(1, -1, 2)])
        after = world.contents(rows, snapshot=Y)
        assert world.engine.apply(NAME, after, world.changes(), scratch=world.folder) is None
        world.write([(1, -1, 1)])
        assert world.engine.apply(NAME, after, world.changes(base=Y), scratch=world.folder) is None
        other = view_of({"y": "INT64"})
        table = arrow.table({"id": [1], "event_timestamp": [day(-1)], "y": [2]})
        changed = world.contents(world.rows(other, table), snapshot=Y)
        assert world.engine.apply(NAME, changed, world.changes(), scratch=world.folder) is None
        assert (world.snapshot(), world.read()) == (X, [1, None, None])

    def test_the_latest_row_counts_whether_it_was_pushed_or_not(self, world: World) -> None:
        assert world.push(1, -2, 9) == 0
        world.write([(1, -3, 1), (2, -1, 2)])
        assert (world.push(1, -2, 10), world.push(3, -2, 30), world.push(2, -2, 20)) == (1, 1, 1)
        assert world.read() == [10, 2, 30]
        assert world.push(1, -2.5, 11) == 0
        assert (world.push(1, -2, 12, created=-2), world.push(3, -2, 31, created=-3)) == (1, 0)
        assert world.read() == [12, 2, 30]
        assert (world.push(2, -1, 21, created=-1), world.read()[1]) == (1, 2)
        assert (world.push(2, -1, 22, created=-0.5), world.read()[1]) == (1, 22)
        assert (world.snapshot(), world.engine.push(NAME, "other", [{}])) == (X, 0)

    def test_what_was_pushed_stays_until_a_snapshot_has_a_row_as_late(self, world: World) -> None:
        world.write([(1, -9, 1)])
        world.push(1, -5, 10)
        world.push(2, -5, 20)
        rows = world.history(CELLS, [(1, -8, 2)])
        changes = world.changes([(1, -8, 2)])
        if world.engine.apply(NAME, world.contents(rows, snapshot=Y), changes, scratch=world.folder) is None:
            world.write([(1, -8, 2)], snapshot=Y)
        assert world.read() == [10, 20, None]
        world.write([(1, -5, 3), (2, -6, 4)])
        assert world.read() == [3, 20, None]
        world.write([(1, -9, 1)])
        assert world.read() == [1, 20, None]

    def test_rows_without_key_or_time_or_of_another_type_are_refused(self, world: World) -> None:
        world.write([(1, -1, 1)])
        whole = {"id": 1, "event_timestamp": day(0), "x": 1}
        for wrong in ({"id": None}, {"event_timestamp": None}, {"x": "a"}, {"id": 1.5}):
            with pytest.raises(InvalidInput):
                world.engine.push(NAME, "cells", [whole | wrong])
        assert world.read() == [1, None, None]

    def test_nothing_of_a_forgotten_entity_is_read(self, world: World) -> None:
        world.write([(1, -1, 1), (2, -1, 2)])
        world.push(1, 0, 10)
        assert world.engine.forget_entity(NAME, "id", 1, scratch=world.folder) == 2
        assert world.read() == [None, 2, None]
        assert world.engine.forget_entity(NAME, "id", 1, scratch=world.folder) == 0
        assert world.engine.forget_entity(NAME, "other", 2, scratch=world.folder) == 0
        assert world.engine.forget_entity(replace(NAME, service="none"), "id", 2, scratch=world.folder) == 0
        assert (world.snapshot(), world.read()) == (X, [None, 2, None])

    def test_an_entity_is_forgotten_by_a_part_of_its_key(self, world: World) -> None:
        if not world.engine.forgets_keys:
            pytest.skip("this engine finds entities by whole keys only")
        view = view_of({"x": "INT64"}, keys={"clinic": "STRING", "id": "INT64"})
        rows = world.history(view, [(("a", 1), -1, 1), (("b", 1), -1, 2), (("b", 2), -1, 3)])
        world.engine.write(NAME, world.contents(rows), scratch=world.folder)
        times = {"event_timestamp": day(0), "created": day(0)}
        world.engine.push(NAME, "cells", [{"clinic": "c", "id": 1, "x": 4, **times}])
        assert world.engine.forget_entity(NAME, "id", 1, scratch=world.folder) == 3
        reader = world.engine.reader(NAME)
        found = reader.read({"clinic": ["a", "b", "b", "c"], "id": [1, 1, 2, 1]}, now=NOW)[1]
        assert [row["x"] for row in found] == [None, None, 3, None]
        reader.close()

    def test_slots_stand_by_themselves(self, world: World) -> None:
        pinned = replace(NAME, slot=X)
        other = replace(NAME, service="other")
        world.write([(1, -1, 1)], name=pinned)
        world.write([(1, -1, 2)], snapshot=Y)
        world.write([(1, -1, 3)], name=other)
        world.push(1, 0, 9)
        assert (world.read([1]), world.read([1], name=pinned)) == ([9], [1])
        assert (world.snapshot(), world.snapshot(pinned)) == (Y, X)
        assert sorted(world.engine.stores("default", REGION), key=str) == sorted([NAME, pinned, other], key=str)
        assert world.engine.stores("default", "gcp:us-east1") == world.engine.stores("others", REGION) == []
        world.engine.drop(NAME)
        world.engine.drop(NAME)
        with pytest.raises(FileNotFoundError):
            world.snapshot()
        assert (world.read([1], name=pinned), world.read([1], name=other)) == ([1], [3])
        world.write([(1, -1, 2)])
        assert world.read([1]) == [2]

    def test_every_view_and_key_of_an_answer_is_of_one_snapshot(self, world: World) -> None:
        keys = list(range(200))
        genes = view_of({"y": "INT64"}, name="genes")

        def contents(number: int) -> StoreContents:
            times = {"id": keys, "event_timestamp": [day(-9 + number)] * len(keys)}
            tables = [arrow.table({**times, name: [number] * len(keys)}) for name in ("x", "y")]
            rows = [world.rows(view, table) for view, table in zip((CELLS, genes), tables, strict=True)]
            return world.contents(*rows, snapshot=f"sha256:{number}")

        versions = [contents(number) for number in range(4)]
        world.engine.write(NAME, versions[0], scratch=world.folder)
        reader, seen, is_done = world.engine.reader(NAME), list[tuple[str, set[Any]]](), threading.Event()

        def watch() -> None:
            while not is_done.is_set():
                snapshot, rows = reader.read({"id": keys}, now=NOW)
                seen.append((snapshot, {row[name] for row in rows for name in ("x", "y")}))

        thread = threading.Thread(target=watch)
        thread.start()
        for version in versions[1:]:
            world.engine.write(NAME, version, scratch=world.folder)
        is_done.set()
        thread.join()
        reader.close()
        assert seen
        assert all(values == {int(snapshot.removeprefix("sha256:"))} for snapshot, values in seen)

    def test_a_reader_sees_one_snapshot_or_the_next(self, world: World) -> None:
        if not world.engine.is_atomic:
            pytest.skip("this engine does not promise it")
        keys = list(range(40))
        written = [[(key, -9 + number, number) for key in keys] for number in range(6)]
        world.write(written[0], snapshot="sha256:0")
        reader, seen, is_done = world.engine.reader(NAME), list[tuple[str, set[int]]](), threading.Event()

        def watch() -> None:
            while not is_done.is_set():
                snapshot, rows = reader.read({"id": keys}, now=NOW)
                seen.append((snapshot, {row["x"] for row in rows}))

        thread = threading.Thread(target=watch)
        thread.start()
        for number, history in enumerate(written[1:], start=1):
            contents = world.contents(world.history(CELLS, history), snapshot=f"sha256:{number}")
            changes = world.changes(history, base=f"sha256:{number - 1}")
            if number % 3 == 0 or world.engine.apply(NAME, contents, changes, scratch=world.folder) is None:
                world.engine.write(NAME, contents, scratch=world.folder)
        is_done.set()
        thread.join()
        reader.close()
        assert seen
        assert all(values == {int(snapshot.removeprefix("sha256:"))} for snapshot, values in seen)
