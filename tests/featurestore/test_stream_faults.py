"""Logs of pushed rows under faults: whatever dies at whatever step, each event is there once, in its order."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select

from fairlead.catalog import load_catalog
from fairlead.core.db import Database
from fairlead.core.errors import LocationUnavailable, Unavailable
from fairlead.core.ports import ObjectStore
from fairlead.featurestore import log_sealing
from fairlead.featurestore.assembly import assemble_features
from fairlead.featurestore.event_log import EVENT, SEQUENCE, EventLog
from fairlead.featurestore.log_sealing import LogSealing
from fairlead.featurestore.log_segments import FEATURE_LOG, segments_of
from fairlead.featurestore.online_live import LiveRows
from fairlead.featurestore.sources import Sources
from fairlead.registry.tables import UploadRow
from tests.featurestore.feature_fleet import FeatureFleet, cells_view, open_feature_fleet
from tests.featurestore.test_streams import STREAM, US, definitions, keep, push, row
from tests.fleet import ADMIN, Fleet

parquet: Any = pq

STEPS = [
    (EventLog, "begin_stretch"),
    (log_sealing, "write_segment"),
    (log_sealing, "publish"),
    (LogSealing, "_record"),
    (EventLog, "end_stretch"),
]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        fleet.cells([(1, 0, 1.0)])
        fleet.genes([(1, 1, "a")])
        fleet.apply(definitions(fleet))
        yield fleet


def keep_twice(world: FeatureFleet) -> None:
    """What is read back in one round leaves the log in the next."""
    keep(world)
    keep(world)


def events(world: FeatureFleet, region: str = US) -> list[tuple[int, str]]:
    """All events of the log of `cells`, from its segments and from what is not sealed."""
    found: list[tuple[int, str]] = []
    with world.fleet.database.read() as session:
        segments = segments_of(session, ADMIN.workspace_id, "cells", readable_in=region)
    tables = [parquet.read_table(world.store.streams.logged.file(each, region)) for each in segments]
    through = max((each.last for each in segments), default=0)
    for log in world.store.streams.logs.of_view(ADMIN.workspace_id, "cells"):
        batch = log.read(after=through)
        tables += [] if batch is None else [batch.rows]
    for table in tables:
        found += zip(table.column(SEQUENCE).to_pylist(), table.column(EVENT).to_pylist(), strict=True)
    return found


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_sealing_that_dies_at_any_step_goes_on_with_the_next(
    world: FeatureFleet, monkeypatch: pytest.MonkeyPatch, *, is_after: bool
) -> None:
    pushed: list[str] = []
    for number, (owner, name) in enumerate(STEPS):
        ids = [f"{number}/{each}" for each in range(2)]
        push(world, [row(each, number, 1.0) for each in (1, 2)], ids=ids)
        pushed += ids
        step = getattr(owner, name)

        def die(*arguments: Any, step: Any = step, **options: Any) -> Any:
            if is_after:
                step(*arguments, **options)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(Killed):
                keep_twice(world)
        # What a new process has to go by is what lies on the disk.
        world.store.streams.logs.close()
        assert push(world, [row(1, number, 1.0)], ids=ids[:1]).views[0].duplicates == 1
    keep_twice(world)
    assert events(world) == list(enumerate(pushed, start=1))
    assert world.store.streams.lags.of_view(ADMIN, "cells")[0].unsealed_rows == 0


def test_rows_wait_in_the_log_while_no_location_answers(world: FeatureFleet) -> None:
    class Away:
        has_create_only = True

        def __getattr__(self, name: str) -> Any:
            raise LocationUnavailable("Away.", location="virginia")

    usual, away = world.fleet.wrap, cast("ObjectStore", Away())
    world.fleet.wrap = lambda _name, _store: away
    push(world, [row(1, 5, 9.5)], ids=["a"])
    keep(world)
    assert world.store.streams.lags.of_view(ADMIN, "cells")[0].unsealed_rows == 1
    assert world.store.streams.sealing.is_idle
    world.store.streams.keep(None)
    with world.fleet.database.read() as session:
        begun = session.scalar(select(func.count()).select_from(UploadRow).where(UploadRow.kind == FEATURE_LOG))
    assert begun == 1
    world.fleet.wrap = usual
    keep_twice(world)
    assert events(world) == [(1, "a")]


SERVER = """
import sys
from pathlib import Path
from tests.featurestore.feature_fleet import open_feature_fleet
from tests.featurestore.test_stream_faults import serve
serve(Path(sys.argv[1]))
"""


def serve(root: Path) -> None:
    """Push and seal without end, and say each push that was acknowledged."""
    with open_feature_fleet(root) as world:
        world.cells([(1, 0, 1.0)])
        world.genes([(1, 1, "a")])
        world.apply(definitions(world))
        for number in range(10_000):
            push(world, [row(1, 5, float(number))], ids=[str(number)])
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            if number % 3 == 2:
                keep(world)


@contextlib.contextmanager
def reopened(root: Path) -> Generator[FeatureFleet]:
    """What the next process finds, once the leases of the former one are over."""
    database = Database(f"sqlite:///{root / 'fairlead.db'}")
    fleet = Fleet(root=root, database=database)
    fleet.clock.advance(timedelta(minutes=10))
    store = assemble_features(
        database=database,
        clock=fleet.clock,
        catalog=load_catalog(),
        uploads=fleet.uploads,
        artifacts=fleet.artifacts,
        open_store=fleet.open_store,
        folder=root / "features",
        sources=Sources(roots=(root / "sources",)),
        wake=lambda: None,
        signing_key=fleet.signing_key,
    )
    try:
        yield FeatureFleet(fleet=fleet, store=store, sources=root / "sources")
    finally:
        database.close()


def test_a_server_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        for _ in range(8):
            server.stdout.readline()
        os.kill(server.pid, signal.SIGKILL)
        last = max(7, *(int(line) for line in server.stdout.read().split() if line.isdigit()), 0)
    with reopened(tmp_path) as world:
        again = [push(world, [row(1, 5, float(number))], ids=[str(number)]) for number in range(last + 1)]
        assert [each.views[0].duplicates for each in again] == [1] * (last + 1)
        keep_twice(world)
        found = events(world)
    assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
    assert [event for _, event in found] == [str(number) for number in range(len(found))]
    assert len(found) in {last + 1, last + 2}


def test_a_store_that_cannot_be_written_holds_up_neither_the_push_nor_the_sealing(
    world: FeatureFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    world.store.streams.keep(None)

    def is_full(*_: Any) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(LiveRows, "upsert", is_full)
        pushed = [push(world, [row(1, 5, 9.5)], ids=["a"]).views[0] for _ in range(2)]
        assert [(each.accepted, each.is_online) for each in pushed] == [(1, False), (0, False)]
        keep_twice(world)
        assert world.store.streams.lags.of_view(ADMIN, "cells")[0].unsealed_rows == 0
    keep(world)
    assert push(world, [row(1, 5, 9.5)], ids=["a"]).views[0].is_online is True
    assert world.store.online.read(ADMIN, "diagnosis", {"patient_id": [1]}, region=US).rows[0]["radius"] == 9.5


def test_a_log_that_cannot_be_read_holds_up_no_other(world: FeatureFleet) -> None:
    push(world, [row(1, 5, 9.5)])
    (log,) = world.store.streams.logs.local()
    broken = log.path.parent / "genes.log.sqlite"
    broken.write_bytes(b"no database" * 100)
    keep_twice(world)
    assert world.store.streams.lags.of_view(ADMIN, "cells")[0].unsealed_rows == 0
    with pytest.raises(Unavailable):
        world.store.streams.logs.of_view(ADMIN.workspace_id, "genes")


def test_what_a_served_version_cannot_hold_is_not_said_to_be_online(world: FeatureFleet) -> None:
    """It is in the log, and so in the next snapshot."""
    world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    objects = definitions(world)
    features = [{"name": "radius", "valueType": "STRING"}]
    objects[1] = cells_view(world.sources / "cells.parquet", streamSource=STREAM, features=features)
    world.apply(objects)
    world.fleet.clock.advance(timedelta(seconds=2))
    pushed = push(world, [row(1, 5, "wide")]).views[0]
    assert (pushed.accepted, pushed.is_online) == (1, False)
