"""The log of pushed rows in one file: numbered, each event once, durable, also across a killed process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import Unavailable
from fairlead.featurestore.event_log import EVENT, OFFLINE, ONLINE, SEQUENCE, TO, Appended, EventLog

arrow: Any = pa
NOW = datetime(2026, 3, 1, tzinfo=UTC)
BOTH = OFFLINE | ONLINE


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    opened = open_log(tmp_path)
    yield opened
    opened.close()


def open_log(folder: Path) -> EventLog:
    return EventLog.open(folder / "cells.log.sqlite", workspace_id="default", view="cells", region="gcp:europe-west4")


def append(log: EventLog, ids: Sequence[str], *, to: int = BOTH, version: str = "v1", after: float = 0) -> Appended:
    rows = arrow.table({"patient_id": arrow.array(range(len(ids)), arrow.int64())})
    now = NOW + timedelta(seconds=after)
    return log.append(rows, list(ids), to=to, view_digest=version, principal="ana", now=now)


def events(log: EventLog, after: int = 0) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    while (batch := log.read(after=after)) is not None:
        rows = batch.rows
        found += zip(rows.column(SEQUENCE).to_pylist(), rows.column(EVENT).to_pylist(), strict=True)
        after = batch.last
    return found


def test_events_are_numbered_from_one_in_the_order_of_pushes(log: EventLog) -> None:
    assert (append(log, ["a", "b"]).first, append(log, ["c"]).last) == (1, 3)
    assert events(log) == [(1, "a"), (2, "b"), (3, "c")]
    assert events(log, after=2) == [(3, "c")]


def test_an_event_counts_once_within_a_push_and_across_pushes(log: EventLog) -> None:
    first = append(log, ["a", "b", "a"])
    again = append(log, ["b", "c"])
    assert (first.accepted, first.duplicates) == (2, 1)
    assert (again.accepted, again.duplicates, again.first) == (1, 1, 3)
    assert append(log, ["a", "b", "c"]).rows is None
    assert events(log) == [(1, "a"), (2, "b"), (3, "c")]


def test_an_event_goes_to_each_destination_once(log: EventLog) -> None:
    append(log, ["a"], to=ONLINE)
    rows = append(log, ["a"], to=BOTH).rows
    assert rows.column(TO).to_pylist() == [OFFLINE]
    assert append(log, ["a"], to=OFFLINE).rows is None


def test_a_log_that_is_opened_again_goes_on_where_it_was(log: EventLog) -> None:
    append(log, ["a"])
    log.close()
    again = EventLog.reopen(log.path)
    assert again is not None
    try:
        assert (again.id, again.view, again.region) == (log.id, "cells", "gcp:europe-west4")
        assert append(again, ["a", "b"]).first == 2
    finally:
        again.close()


def test_pushes_of_several_threads_are_each_taken_whole(log: EventLog) -> None:
    def push(number: int) -> None:
        for part in range(10):
            append(log, [f"{number}/{part}/{row}" for row in range(3)])

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = events(log)
    assert [sequence for sequence, _ in found] == list(range(1, 241))
    assert len({event for _, event in found}) == 240


def test_nobody_is_told_that_rows_were_taken_which_the_same_commit_lost(log: EventLog) -> None:
    """What several threads append goes into one commit: what ends it for one ends it for all."""
    append(log, ["first"])
    told: list[str] = []

    def push(name: str) -> None:
        with contextlib.suppress(Unavailable, UnicodeEncodeError):
            append(log, [name])
            told.append(name)

    threads = [threading.Thread(target=push, args=(name,)) for name in ("good", "\ud800", "better")]

    def let_them_wait(rows: Any) -> Any:
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        return arrow.array([False] * rows.num_rows)

    log.forget(let_them_wait)
    for thread in threads:
        thread.join()
    assert sorted(event for _, event in events(log)) == sorted(["first", *told])
    assert append(log, ["good"]).accepted == 1 - told.count("good")


def test_a_file_that_is_none_is_refused_as_one_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "cells.log.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable):
        open_log(tmp_path)


def test_a_stretch_waits_for_rows_or_for_time_and_holds_one_version(log: EventLog) -> None:
    append(log, ["a", "b"])
    assert log.begin_stretch(rows=10, older_than=NOW - timedelta(seconds=1)) is None
    append(log, ["c"], version="v2")
    cut = log.begin_stretch(rows=10, older_than=NOW - timedelta(seconds=1))
    assert cut is not None
    assert (cut.first, cut.last, cut.view_digest) == (1, 2, "v1")
    old = log.begin_stretch(rows=10, older_than=NOW)
    assert old is not None
    assert (old.first, old.last) == (3, 3)
    assert log.begin_stretch(rows=1, older_than=NOW) is None
    assert log.stretches() == [cut, old]


def test_events_stay_known_when_their_rows_have_left(log: EventLog) -> None:
    append(log, ["a", "b"])
    stretch = log.begin_stretch(rows=1, older_than=NOW)
    assert stretch is not None
    log.end_stretch(stretch)
    assert log.state().unsealed_rows == 0
    assert append(log, ["a", "c"]).first == 3
    assert events(log) == [(3, "c")]


def test_a_forgotten_subject_is_in_no_page_of_the_file_and_does_not_come_back(log: EventLog) -> None:
    rows = arrow.table({"patient_id": ["Mallory Unforgettable", "bob"]})
    log.append(rows, ["a", "b"], to=BOTH, view_digest="v1", principal="ana", now=NOW)

    def is_mallory(table: Any) -> Any:
        return arrow.compute.equal(table.column("patient_id"), "Mallory Unforgettable")

    assert log.forget(is_mallory) == 1
    assert events(log) == [(2, "b")]
    assert all(b"Unforgettable" not in path.read_bytes() for path in log.path.parent.iterdir())
    assert log.append(rows, ["a", "b"], to=BOTH, view_digest="v1", principal="ana", now=NOW).rows is None


@given(pushes=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=8), max_size=8), data=st.data())
def test_whatever_is_pushed_again_and_sealed_meanwhile_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, pushes: list[list[int]], data: st.DataObject
) -> None:
    log = open_log(tmp_path_factory.mktemp("log"))
    sealed: list[tuple[int, str]] = []
    try:
        for push in pushes:
            append(log, [str(event) for event in push])
            if data.draw(st.booleans()) and (stretch := log.begin_stretch(rows=1, older_than=NOW)):
                batch = log.read(after=stretch.first - 1, through=stretch.last)
                assert batch is not None
                own = [batch.rows.column(name).to_pylist() for name in (SEQUENCE, EVENT)]
                sealed += zip(*own, strict=True)
                log.end_stretch(stretch)
        expected = dict.fromkeys(str(event) for push in pushes for event in push)
        assert sealed + events(log) == list(enumerate(expected, start=1))
    finally:
        log.close()


PUSHER = """
import sys
from pathlib import Path
from tests.featurestore.test_event_log import append, open_log
log = open_log(Path(sys.argv[1]))
for number in range(100000):
    append(log, [f"{number}/{row}" for row in range(5)])
    print(number, flush=True)
"""


def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUSHER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pusher:
        assert pusher.stdout is not None
        for _ in range(20):
            pusher.stdout.readline()
        os.kill(pusher.pid, signal.SIGKILL)
        rest = pusher.stdout.read().split()
    acknowledged = 20 + len([line for line in rest if line.isdigit()])
    log = open_log(tmp_path)
    try:
        found = [event for _, event in events(log)]
        pushes = len(found) // 5
        assert pushes in {acknowledged, acknowledged + 1}
        assert found == [f"{number}/{row}" for number in range(pushes) for row in range(5)]
        assert append(log, found).rows is None
    finally:
        log.close()
