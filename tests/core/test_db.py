"""The rules that hold on both databases."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, MetaData, select, text
from sqlalchemy.exc import InternalError, OperationalError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fairlead.core.db import POSTGRES_SCHEMA, Database, FairLock, JsonType, UtcDateTime, dry_run, name_type
from fairlead.core.errors import AlreadyExists, Conflict, InvalidInput, StorageFull, Unavailable


class _Tables(DeclarativeBase):
    metadata = MetaData()


class _Account(_Tables):
    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    amount: Mapped[int] = mapped_column(default=0)
    opened_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    facts: Mapped[dict[str, object]] = mapped_column(JsonType, default=dict)


class _Card(_Tables):
    __tablename__ = "cards"
    number: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"))


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Database]:
    opened = Database(empty_database_url)
    with opened.write() as session:
        if not opened.is_sqlite:
            session.execute(text(f"CREATE SCHEMA {POSTGRES_SCHEMA}"))
        _Tables.metadata.create_all(session.connection())
    yield opened
    opened.close()


def _open_account(database: Database, name: str, *, opened_at: datetime | None = None) -> None:
    with database.write() as session:
        session.add(_Account(name=name, opened_at=opened_at))


def _names(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(_Account.name).order_by(_Account.name)))


def test_what_sqlite_has_acknowledged_outlasts_a_power_failure(tmp_path: Path) -> None:
    """The one setting of WAL that loses no commit; nothing but pulling the plug shows the difference."""
    database = Database(f"sqlite:///{tmp_path / 'record.db'}")
    try:
        with database.read() as session:
            assert session.scalar(text("PRAGMA journal_mode")) == "wal"
            assert session.scalar(text("PRAGMA synchronous")) == 2
    finally:
        database.close()


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
        datetime(1900, 1, 1, tzinfo=UTC),
    ],
)
def test_a_time_comes_back_aware_in_utc_and_to_the_microsecond(database: Database, moment: datetime) -> None:
    with database.write() as session:
        session.add(_Account(name="a", opened_at=moment))
    with database.read() as session:
        found = session.get_one(_Account, "a").opened_at
    assert found == moment
    assert found is not None
    assert found.utcoffset() == timedelta(0)


def test_times_sort_and_compare_as_times(database: Database) -> None:
    first = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=2)))
    second = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
    with database.write() as session:
        session.add_all([_Account(name="second", opened_at=second), _Account(name="first", opened_at=first)])
    with database.read() as session:
        assert list(session.scalars(select(_Account.name).order_by(_Account.opened_at))) == ["first", "second"]
        assert list(session.scalars(select(_Account.name).where(_Account.opened_at < second))) == ["first"]


def test_a_naive_time_never_reaches_a_table(database: Database) -> None:
    with pytest.raises(StatementError, match="naive"):
        _open_account(database, "a", opened_at=datetime(2026, 3, 1))  # noqa: DTZ001  (that is the point)
    assert _names(database) == []


def test_a_write_that_raises_keeps_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as session:
            session.add(_Account(name="a"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert _names(database) == []


def test_a_read_session_changes_nothing(database: Database) -> None:
    with database.read() as session:
        session.add(_Account(name="a"))
        with pytest.raises((InternalError, OperationalError)):
            session.flush()
    assert _names(database) == []
    _open_account(database, "a")


def test_what_a_row_holds_is_in_no_error_that_a_log_could_show(database: Database) -> None:
    _open_account(database, "of a patient")
    with pytest.raises(AlreadyExists) as refused:
        _open_account(database, "of a patient")
    assert "'of a patient'" not in str(refused.value.__cause__)


def test_a_name_that_is_taken_is_an_error_of_ours_without_sql(database: Database) -> None:
    _open_account(database, "a")
    with pytest.raises(AlreadyExists) as refused:
        _open_account(database, "a")
    assert "accounts" not in str(refused.value).lower()


def test_a_row_that_refers_to_nothing_is_a_conflict_and_not_a_taken_name(database: Database) -> None:
    with pytest.raises(Conflict) as refused, database.write() as session:
        session.add(_Card(number=1, account="nobody"))
    assert not isinstance(refused.value, AlreadyExists)


def test_a_mistake_of_ours_stays_visible_as_one(database: Database) -> None:
    with pytest.raises(Exception, match="no_such_table") as raised, database.read() as session:
        session.execute(text("SELECT * FROM no_such_table"))
    assert not isinstance(raised.value, Unavailable)


def test_names_sort_by_code_point_and_like_minds_case(database: Database) -> None:
    with database.write() as session:
        session.add_all([_Account(name=name) for name in ("b", "B", "a", "_", "Ä", "a2", "a10")])
    assert _names(database) == sorted(["b", "B", "a", "_", "Ä", "a2", "a10"])
    with database.read() as session:
        assert list(session.scalars(select(_Account.name).where(_Account.name.like("B%")))) == ["B"]
        found = session.scalars(select(_Account.name).where(_Account.name.startswith("_", autoescape=True)))
        assert list(found) == ["_"]


def test_sixteen_threads_that_read_and_then_write_lose_no_update(database: Database) -> None:
    with database.write() as session:
        session.add(_Account(name="a"))
    failures: list[BaseException] = []

    def deposit() -> None:
        try:
            for _ in range(10):
                with database.write() as session:
                    account = session.scalars(select(_Account).with_for_update()).one()
                    account.amount += 1
        except BaseException as error:  # noqa: BLE001  (told below)
            failures.append(error)

    threads = [threading.Thread(target=deposit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.read() as session:
        assert session.get_one(_Account, "a").amount == 160


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as session:
        session.add(_Account(name="a"))
        session.flush()
        started = time.monotonic()
        assert _names(database) == []
        assert time.monotonic() - started < 5


def test_a_write_inside_a_write_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.write(), pytest.raises(RuntimeError, match="inside a write"), database.write():
        pass
    with database.write():
        pass
    database.close()


def test_a_full_disk_is_named_and_keeps_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.write() as session:
        _Tables.metadata.create_all(session.connection())
        pages = session.execute(text("PRAGMA page_count")).scalar_one()
        session.execute(text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(StorageFull) as refused, database.write() as session:
        session.add(_Account(name="a", facts={"much": "x" * 100_000}))
    assert str(tmp_path) not in str(refused.value)
    assert _names(database) == []
    database.close()


def test_a_database_that_another_process_holds_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database = Database(f"sqlite:///{path}")
    with database.write() as session:
        _Tables.metadata.create_all(session.connection())
        session.execute(text("PRAGMA busy_timeout=0"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        _open_account(database, "a")
    other.close()
    database.close()


def test_a_postgresql_that_is_not_there_does_not_answer() -> None:
    database = Database("postgres://nobody:secret@127.0.0.1:1/x")
    with pytest.raises(Unavailable) as refused, database.read() as session:
        session.execute(text("SELECT 1"))
    assert "secret" not in str(refused.value)
    assert "FAIRLEAD_DATABASE_URL" in str(refused.value.hint)
    database.close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://127.0.0.1/x", "sqlite://", "sqlite:///:memory:", "x:secret@"])
def test_a_url_of_no_database_that_fits_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Database(url)
    assert "secret" not in str(refused.value)


def test_the_lock_serves_threads_in_the_order_they_came() -> None:
    lock = FairLock()
    served: list[int] = []

    def wait_for_turn(number: int) -> None:
        with lock:
            served.append(number)

    threads = [threading.Thread(target=wait_for_turn, args=(number,)) for number in range(12)]
    with lock:
        for waiting, thread in enumerate(threads):
            thread.start()
            _wait_for(lambda waiting=waiting: lock.waiting_count > waiting)
    for thread in threads:
        thread.join()
    assert served == list(range(12))


def test_a_thread_that_asks_again_and_again_does_not_starve_the_others() -> None:
    lock = FairLock()
    is_over = threading.Event()

    def greedy() -> None:
        while not is_over.is_set():
            with lock:
                time.sleep(0.001)

    threads = [threading.Thread(target=greedy) for _ in range(3)]
    for thread in threads:
        thread.start()
    longest = 0.0
    for _ in range(20):
        asked = time.monotonic()
        with lock:
            longest = max(longest, time.monotonic() - asked)
    is_over.set()
    for thread in threads:
        thread.join()
    assert longest < 1


def _wait_for(is_true: object) -> None:
    assert callable(is_true)
    deadline = time.monotonic() + 5
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_dry_run_does_everything_and_keeps_nothing(database: Database) -> None:
    with dry_run(), database.write() as session:
        account = _Account(name="rehearsed")
        session.add(account)
    assert account.amount == 0
    assert _names(database) == []


def test_a_dry_run_meets_the_rules_of_the_database(database: Database) -> None:
    _open_account(database, "taken")
    with pytest.raises(AlreadyExists), dry_run():
        _open_account(database, "taken")


def test_after_a_dry_run_writes_are_kept_again(database: Database) -> None:
    with dry_run():
        _open_account(database, "once")
    _open_account(database, "once")
    assert _names(database) == ["once"]
