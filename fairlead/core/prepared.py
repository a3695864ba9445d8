"""Statements that are written once and sent as they are: what an ORM session adds costs many times what they cost.

A prepared statement runs within a session's transaction, after what the session has not yet sent. Those of which none
needs another's answer are sent together: on PostgreSQL they take one round trip. Where somebody watches the session's
statements to change them (`WATCHED`), they go the session's own way, and are seen.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Delete, Dialect, Insert, Update
    from sqlalchemy.orm import Session

WATCHED = "fairlead_watched"
"""Set in a session's `info` by whoever changes its statements."""

_DRIVER = "fairlead_driver"


class Compiled:
    """A statement in one dialect, and how values go in and come out."""

    def __init__(self, statement: Any, dialect: Dialect, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        self.sql = str(compiled)
        self.error = cast("type[Exception]", dialect.loaded_dbapi.Error)
        self.is_sqlite = dialect.name == "sqlite"
        self._dialect = dialect
        self._order: Sequence[str] | None = getattr(compiled, "positiontup", None)
        self._fixed: Mapping[str, Any] = compiled.params
        self._bind: dict[str, Callable[[Any], Any]] = {
            name: processor
            for name, parameter in compiled.binds.items()
            if (processor := parameter.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        shown: Sequence[Any] = list(statement.selected_columns) if isinstance(statement, Select) else []
        self._names = [column.key or "" for column in shown]
        self._results: list[tuple[int, Callable[[Any], Any]]] = [
            (place, processor)
            for place, column in enumerate(shown)
            if (processor := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
        ]

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Values as the driver wants them."""
        given = {**self._fixed, **values}
        for name, processor in self._bind.items():
            given[name] = processor(given[name])
        return given if self._order is None else [given[name] for name in self._order]

    def row(self, found: Sequence[Any]) -> SimpleNamespace:
        """A row of the driver's, with an attribute for each column."""
        row = list(found)
        for place, processor in self._results:
            row[place] = processor(row[place])
        return SimpleNamespace(**dict(zip(self._names, row, strict=True)))

    def execute(self, driver: Any, values: Mapping[str, Any]) -> Any:
        """Send the statement on a connection of the driver's; what it answers with."""
        parameters = self.parameters(values)
        if self.is_sqlite:
            return driver.execute(self.sql, parameters)
        return driver.execute(self.sql, parameters, prepare=True)

    def execute_many(self, driver: Any, many: Sequence[Mapping[str, Any]]) -> None:
        """Send the statement once for each set of values."""
        driver.cursor().executemany(self.sql, [self.parameters(values) for values in many])

    def translate(self, error: Exception) -> BaseException:
        """The driver's error as a session would raise it, without the values."""
        dialect = self._dialect
        return DBAPIError.instance(self.sql, None, error, self.error, hide_parameters=True, dialect=dialect)


class Prepared:
    """One statement, for any dialect. `columns` are those that an INSERT sets; their values have the same names."""

    def __init__(
        self,
        statement: Select[*tuple[Any, ...]] | Insert | Update | Delete,
        *,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect) -> Compiled:
        """The statement in a dialect."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = Compiled(self._statement, dialect, self._columns)
        return found

    def first(self, session: Session, **values: Any) -> Any:
        """The first row that is found, with an attribute for each column; None without any."""
        if WATCHED in session.info:
            return session.execute(self._statement, values).first()
        driver, compiled = _open(session), self.compiled(session.get_bind().dialect)
        try:
            found = compiled.execute(driver, values).fetchone()
        except compiled.error as error:
            raise compiled.translate(error) from error
        return None if found is None else compiled.row(found)

    def all(self, session: Session, **values: Any) -> list[Any]:
        """All rows that are found, each as `first` gives it."""
        if WATCHED in session.info:
            return list(session.execute(self._statement, values))
        driver, compiled = _open(session), self.compiled(session.get_bind().dialect)
        try:
            found = compiled.execute(driver, values).fetchall()
        except compiled.error as error:
            raise compiled.translate(error) from error
        return [compiled.row(row) for row in found]

    def run(self, session: Session, *many: Mapping[str, Any]) -> None:
        """Change rows, once for each set of values."""
        if WATCHED in session.info:
            session.execute(self._statement, many[0] if len(many) == 1 else list(many))
            return
        driver, compiled = _open(session), self.compiled(session.get_bind().dialect)
        try:
            if len(many) == 1:
                compiled.execute(driver, many[0])
            else:
                compiled.execute_many(driver, many)
        except compiled.error as error:
            raise compiled.translate(error) from error


Call = tuple[Prepared, "Mapping[str, Any]"]
"""A statement and its values."""


def find_together(session: Session, *calls: Call) -> list[Any]:
    """The first row of each, as `Prepared.first` gives it. They run one after the other, and are sent at once."""
    if WATCHED in session.info:
        return [statement.first(session, **values) for statement, values in calls]
    return [
        None if (found := cursor.fetchone()) is None else compiled.row(found)
        for compiled, cursor in _send(session, calls)
    ]


def run_together(session: Session, *calls: Call) -> None:
    """Change rows by several statements. They run one after the other, and are sent at once."""
    if WATCHED in session.info:
        for statement, values in calls:
            statement.run(session, values)
    else:
        _send(session, calls)


def _send(session: Session, calls: Sequence[Call]) -> list[tuple[Compiled, Any]]:
    driver, dialect = _open(session), session.get_bind().dialect
    prepared = [(statement.compiled(dialect), values) for statement, values in calls]
    first, _ = prepared[0]
    try:
        # SQLite is in this process: nothing is sent anywhere.
        with nullcontext() if first.is_sqlite else driver.pipeline():
            return [(compiled, compiled.execute(driver, values)) for compiled, values in prepared]
    except first.error as error:
        raise first.translate(error) from error


def _open(session: Session) -> Any:
    session.flush()
    driver = session.info.get(_DRIVER)
    if driver is None:
        # A session of `Database` has one connection for all its life.
        driver = session.info[_DRIVER] = session.connection().connection.driver_connection
    return driver
