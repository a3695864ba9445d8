"""The online store's file: what is written is what is read, by one module that stands by itself."""

from __future__ import annotations

import ast
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.featurestore import online_reader
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.online_engines import StoreContents, StoreName
from fairlead.featurestore.online_reader import STATUS, OnlineReader, OnlineStoreError, StoredView
from fairlead.featurestore.online_sqlite import OnlineFolder, SqliteEngine
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.services import Projection, ServiceDefinition
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition
from fairlead.featurestore.sources import Sources
from tests.featurestore.online_engine_suite import CELLS, NAME, World, day

arrow: Any = pa
parquet: Any = pq
NOW = datetime(2026, 3, 1, tzinfo=UTC)
META = {"service_digest": "sha256:s", "as_of": "2026-03-01T00:00:00.000000Z", "region": "aws:us-east-1"}
FEATURES: dict[str, tuple[str, Any, list[Any]]] = {
    "flag": ("BOOL", arrow.bool_(), [True, None]),
    "count": ("INT64", arrow.int64(), [2**62, None]),
    "ratio": ("FLOAT", arrow.float32(), [0.1, None]),
    "exact": ("DOUBLE", arrow.float64(), [0.1, None]),
    "limit": ("DOUBLE", arrow.float64(), [float("inf"), None]),
    "word": ("STRING", arrow.string(), ["é'\"", None]),
    "raw": ("BYTES", arrow.binary(), [b"\x00\xff", None]),
    "seen": ("UNIX_TIMESTAMP", arrow.timestamp("us", tz="UTC"), [NOW + timedelta(microseconds=1), None]),
    "embedding": ("FLOAT_LIST", arrow.list_(arrow.float32()), [[0.5, 0.1], None]),
    "words": ("STRING_LIST", arrow.list_(arrow.string()), [["a", None], None]),
    "moments": ("UNIX_TIMESTAMP_LIST", arrow.list_(arrow.timestamp("us", tz="UTC")), [[NOW], None]),
    "parts": ("BYTES_LIST", arrow.list_(arrow.binary()), [[b"\x00\xff"], None]),
}


def view_of(
    path: Path, features: dict[str, str], *, keys: tuple[Column, ...], ttl: str | None = None
) -> ViewDefinition:
    return ViewDefinition(
        name="cells",
        entities=tuple(key.name for key in keys),
        keys=keys,
        features=tuple(Column(name=name, type=kind) for name, kind in features.items()),
        source=SourceDefinition(
            place=ParquetFiles(uri=str(path)),
            timestamp_field="event_timestamp",
            created_timestamp_column=None,
            field_mapping={},
        ),
        ttl_seconds=ttl,
        residency=UNRESTRICTED,
    )


def materialize(folder: Path, table: Any, view: ViewDefinition, *, snapshot: str = "sha256:a") -> OnlineReader:
    parquet.write_table(table, folder / "source.parquet")
    write_rows(view, as_of=NOW, sources=Sources(), destination=folder / "rows.parquet", scratch=folder)
    projection = Projection(
        view="cells", alias="cells", features=tuple(column.name for column in view.features), join_key_map={}
    )
    engine = SqliteEngine({}, OnlineFolder(root=folder / "online"))
    name = StoreName(workspace_id="default", service="a store?#%", region="aws:us-east-1")
    contents = StoreContents(
        service=ServiceDefinition(name="diagnosis", projections=(projection,)),
        views={"cells": view},
        rows={"cells": [ViewRows(view=view, path=folder / "rows.parquet")]},
        meta=META | {"snapshot": snapshot},
    )
    engine.write(name, contents, scratch=folder)
    return engine.reader(name)


ID = (Column(name="id", type="INT64"),)


def test_values_of_every_type_come_back_as_they_went_in(tmp_path: Path) -> None:
    columns = {name: arrow.array(values, kind) for name, (_, kind, values) in FEATURES.items()}
    table = arrow.table({"id": [1, 2], "event_timestamp": [NOW - timedelta(days=1)] * 2, **columns})
    view = view_of(tmp_path / "source.parquet", {name: kind for name, (kind, _, _) in FEATURES.items()}, keys=ID)
    digest, (full, empty) = materialize(tmp_path, table, view).read({"id": [1, 2]}, now=NOW)
    assert digest == "sha256:a"
    for name in FEATURES:
        assert full[name] == table.column(name)[0].as_py(), name
        assert empty[name] is None
    assert full[STATUS] == empty[STATUS] == {"cells": "present"}


def test_keys_of_several_columns_and_any_text_find_their_row(tmp_path: Path) -> None:
    keys = (Column(name="clinic", type="STRING"), Column(name="id", type="INT32"))
    clinics = ["", "é", "a'b", "1", "1"]
    table = arrow.table(
        {"clinic": clinics, "id": [1, 1, 1, 1, 2], "event_timestamp": [NOW] * 5, "x": [float(n) for n in range(5)]}
    )
    reader = materialize(tmp_path, table, view_of(tmp_path / "source.parquet", {"x": "DOUBLE"}, keys=keys))
    _, rows = reader.read({"id": [1, 1, "1", 1, 2, 3], "clinic": [*clinics, "1"]}, now=NOW)
    assert [row["x"] for row in rows] == [0.0, 1.0, 2.0, 3.0, 4.0, None]


@given(
    history=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.none() | st.integers(-3, 3)), min_size=1, max_size=30
    )
)
def test_the_last_row_of_each_entity_is_served(history: list[tuple[int, int, int | None]]) -> None:
    table = arrow.table(
        {
            "id": [row[0] for row in history],
            "event_timestamp": [NOW - timedelta(days=9 - row[1]) for row in history],
            "x": arrow.array([row[2] for row in history], arrow.int64()),
        }
    )
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder) / "source.parquet", {"x": "INT64"}, keys=ID)
        _, rows = materialize(Path(folder), table, view).read({"id": [0, 1, 2, 3]}, now=NOW)
    for key, row in enumerate(rows):
        mine = [(moment, value is not None, value or 0, value) for each, moment, value in history if each == key]
        assert row["x"] == (max(mine)[3] if mine else None)
        assert row[STATUS] == {"cells": "present" if mine else "not_found"}


def test_a_reader_sees_one_snapshot_or_the_next(tmp_path: Path) -> None:
    view = view_of(tmp_path / "source.parquet", {"x": "INT64"}, keys=ID)
    reader = materialize(tmp_path, arrow.table({"id": [1], "event_timestamp": [NOW], "x": [1]}), view)
    assert reader.read({"id": [1]})[1][0]["x"] == 1
    materialize(tmp_path, arrow.table({"id": [1], "event_timestamp": [NOW], "x": [2]}), view, snapshot="sha256:b")
    assert (reader.read({"id": [1]})[0], reader.meta["snapshot"]) == ("sha256:b", "sha256:b")
    assert reader.read({"id": [1]})[1][0]["x"] == 2
    assert [path.name for path in (tmp_path / "online" / "aws_us-east-1" / "default").iterdir()] == [
        "a store?#%.sqlite"
    ]
    reader.close()


def test_questions_that_cannot_be_answered_are_refused(tmp_path: Path) -> None:
    view = view_of(tmp_path / "source.parquet", {"x": "INT64"}, keys=ID)
    reader = materialize(tmp_path, arrow.table({"id": [1], "event_timestamp": [NOW], "x": [1]}), view)
    for entities, message in (
        ({"other": [1]}, "'id' is missing"),
        ({"id": ["x"]}, "a whole number"),
        ({"id": [1.5]}, "a whole number"),
        ({"id": [1], "other": [1, 2]}, "different lengths"),
    ):
        with pytest.raises(OnlineStoreError, match=message):
            reader.read(entities)
    assert reader.read({"id": [None, 2**80, "1", 1.0]})[1][3]["x"] == 1
    (tmp_path / "text.sqlite").write_text("no database at all, whatever its name says")
    with pytest.raises(OnlineStoreError, match="no online store"):
        OnlineReader(tmp_path / "text.sqlite").read({"id": [1]})
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    with pytest.raises(OnlineStoreError, match="no online store"):
        OnlineReader(tmp_path / "empty.sqlite").read({"id": [1]})
    with pytest.raises(FileNotFoundError):
        OnlineReader(tmp_path / "nothing.sqlite").read({"id": [1]})


def test_the_reader_imports_the_standard_library_only() -> None:
    tree = ast.parse(Path(online_reader.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names


def write(engine: SqliteEngine, folder: Path, history: list[tuple[float, int]], snapshot: str) -> StoreContents:
    """Write the rows of the first entity, and say what was written."""
    world = World(engine, folder)
    contents = world.contents(world.history(CELLS, [(1, when, value) for when, value in history]), snapshot=snapshot)
    engine.write(NAME, contents, scratch=folder)
    return contents


def test_what_another_worker_put_in_place_meanwhile_is_not_built_upon(tmp_path: Path) -> None:
    class Overtaken(SqliteEngine):
        """Another worker is done just before this one copies what it found."""

        def _described(self, name: StoreName) -> list[tuple[Any, ...]]:
            found = super()._described(name)
            write(SqliteEngine({}, self._folder), tmp_path, [(-3, 3)], "sha256:c")
            return found

    engine = Overtaken({}, OnlineFolder(root=tmp_path / "online"))
    write(engine, tmp_path, [(-3, 1)], "sha256:a")
    world = World(engine, tmp_path)
    contents = world.contents(world.history(CELLS, [(1, -3, 1)]), snapshot="sha256:b")
    assert engine.apply(NAME, contents, world.changes(base="sha256:a"), scratch=tmp_path) is None
    assert (world.snapshot(), world.read([1])) == ("sha256:c", [3])


def test_a_pushed_row_never_gives_way_to_an_older_one(tmp_path: Path) -> None:
    engine = SqliteEngine({}, OnlineFolder(root=tmp_path / "online"))
    write(engine, tmp_path, [(-3, 1)], "sha256:a")
    engine.push(NAME, "cells", [{"id": 1, "event_timestamp": day(-2), "created": day(-2), "x": 2}])

    class Slow(OnlineReader):
        """The next snapshot, which has what was pushed, is written while the old one is read."""

        has_waited = False

        def _add_live(self, view: StoredView, keys: Any, found: Any) -> None:
            if not self.has_waited:
                self.has_waited = True
                write(engine, tmp_path, [(-3, 1), (-2, 2)], "sha256:b")
            super()._add_live(view, keys, found)

    reader = Slow(engine.path(NAME))
    digest, (row,) = reader.read({"id": [1]}, now=NOW)
    assert (digest, row["x"]) == ("sha256:b", 2)
    reader.close()


def test_while_the_first_push_makes_its_file_the_store_is_read_as_it_is(tmp_path: Path) -> None:
    engine = SqliteEngine({}, OnlineFolder(root=tmp_path / "online"))
    write(engine, tmp_path, [(-3, 1)], "sha256:a")
    path, reader = engine.path(NAME), OnlineReader(engine.path(NAME))
    with closing(sqlite3.connect(path.with_name(path.name + "-live"))) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert reader.read({"id": [1]}, now=NOW)[1][0]["x"] == 1
    engine.push(NAME, "cells", [{"id": 1, "event_timestamp": day(-2), "created": day(-2), "x": 2}])
    assert reader.read({"id": [1]}, now=NOW)[1][0]["x"] == 2
    reader.close()


def test_no_byte_of_a_forgotten_entity_stays_in_the_file(tmp_path: Path) -> None:
    view = view_of(tmp_path / "source.parquet", {"word": "STRING"}, keys=ID)
    words = ["the first of all", "the second of all"]
    materialize(tmp_path, arrow.table({"id": [1, 2], "event_timestamp": [NOW] * 2, "word": words}), view)
    engine = SqliteEngine({}, OnlineFolder(root=tmp_path / "online"))
    name = StoreName(workspace_id="default", service="a store?#%", region="aws:us-east-1")
    engine.push(name, "cells", [{"id": 1, "event_timestamp": NOW + timedelta(days=1), "word": "the third of all"}])
    assert engine.forget_entity(name, "id", 1, scratch=tmp_path) == 2
    kept = b"".join(path.read_bytes() for path in engine.path(name).parent.iterdir())
    assert b"the second of all" in kept
    assert b"the first of all" not in kept
    assert b"the third of all" not in kept
