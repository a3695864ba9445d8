"""The last row of a history as of a time, for many (key, time) pairs at once, with DuckDB.

The history may be in any order and have rows of equal key and time. Only keys and times go through the ASOF join, which
sorts them; values are fetched for what matched. So the cost does not grow with how many rows an entity has, and what is
in memory does not grow with how many features there are. Which of rows with equal key and time counts is settled
afterwards, and only where there are such rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fairlead.featurestore.duck import ArrowTable, fetch_arrow, fetch_number, fetch_rows, quote_name

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROW, TIME = "__row", "__time"
"""The columns of the asked pairs: a whole number of its own for each, and the time as of when (with a zone)."""

_KEYS_WORTH_FILTERING = 100
_BEGINNING = -62_135_596_800_000_000  # the year 1, in microseconds since 1970
_TEMPORARY = ("__matched", "__found")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is known of entities over time.

    Every member but the names of `values` is SQL over the columns of `relation`.

    Args:
        relation: stands for the rows, and may be read several times.
        keys: which entity a row is about; none where all rows are about the same one.
        event: the time of a row, a TIMESTAMPTZ.
        order: among rows of equal keys and event, the greatest by these counts; terms of an ORDER BY, the first
            one first, each descending.
        values: what to give out, and the name of each.
        ttl: how many microseconds after its event a row is still given out; None is for ever.
        known: since when a row was known, where rows that were not known yet must not count.
    """

    relation: str
    keys: tuple[str, ...]
    event: str
    order: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    ttl: int | None = None
    known: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The pairs that are asked for: a table on the connection with `ROW`, `TIME` and the key columns, in order."""

    table: str
    keys: tuple[str, ...] = field(default=())


def create_pairs(connection: DuckDBPyConnection, name: str, rows: ArrowTable) -> None:
    """Make a table of pairs out of Arrow's rows: `ROW`, `TIME` (without a zone: UTC) and the key columns."""
    connection.register("__rows", rows)
    # Rounded to the microsecond in the same way as the times of the features.
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS "  # noqa: S608  (a name of ours)
        f"SELECT * REPLACE (CAST({TIME} AS TIMESTAMPTZ) AS {TIME}) FROM __rows"
    )
    connection.unregister("__rows")


def join_asof(connection: DuckDBPyConnection, pairs: Pairs, history: History) -> ArrowTable:
    """The values of each pair, in order of `ROW`; missing where there is no row up to its time that is fresh."""
    names = ", ".join(f"f.{quote_name(name)}" for _, name in history.values)
    try:
        _match(connection, pairs, history)
        _fetch(connection, history)
        return fetch_arrow(
            connection,
            f"SELECT {names} FROM {pairs.table} e LEFT JOIN __found f USING ({ROW}) ORDER BY e.{ROW}",  # noqa: S608
        )
    finally:
        for table in _TEMPORARY:
            connection.execute(f"DROP TABLE IF EXISTS {table}")


def _match(connection: DuckDBPyConnection, pairs: Pairs, history: History) -> None:
    """Find, for each pair, the event time that counts: `__matched` has `ROW`, the keys, `__event` and `TIME`."""
    keys = [f"k{number}" for number in range(len(history.keys))]
    asked = "".join(f"e.{quote_name(name)} AS {key}, " for name, key in zip(pairs.keys, keys, strict=True))
    equal = [f"e.{quote_name(name)} = h.{key}" for name, key in zip(pairs.keys, keys, strict=True)]
    rows = _select(history, _conditions(connection, pairs, history))
    if history.known is None:
        matched = (
            f"SELECT e.{ROW}, {asked}h.__event, e.{TIME} FROM {pairs.table} e "  # noqa: S608
            f"ASOF JOIN ({rows}) h ON {' AND '.join([*equal, f'e.{TIME} >= h.__event'])}"
        )
    else:
        # Two inequalities: every row that was known is looked at.
        visible = [*equal, f"e.{TIME} >= h.__event", f"(h.__known IS NULL OR e.{TIME} >= h.__known)"]
        grouped = ", ".join([ROW, *keys, TIME])
        matched = (
            f"SELECT {grouped}, max(__event) AS __event FROM (SELECT e.{ROW}, {asked}h.__event, e.{TIME} "  # noqa: S608
            f"FROM {pairs.table} e JOIN ({rows}) h ON {' AND '.join(visible)}) GROUP BY {grouped}"
        )
    fresh = [] if history.ttl is None else [f"epoch_us({TIME}) - epoch_us(__event) <= {history.ttl}"]
    connection.execute(f"CREATE TEMP TABLE __matched AS SELECT * FROM ({matched}){_where(fresh)}")  # noqa: S608


def _fetch(connection: DuckDBPyConnection, history: History) -> None:
    """Fetch the values of what matched, one row each: `__found` has `ROW` and the values."""
    first, last = fetch_rows(connection, "SELECT epoch_us(min(__event)), epoch_us(max(__event)) FROM __matched")[0]
    within = [] if first is None else [f"{history.event} BETWEEN {_moment(first)} AND {_moment(last)}"]
    equal = [f"m.k{number} = h.k{number}" for number in range(len(history.keys))] + ["m.__event = h.__event"]
    if history.known is not None:
        equal.append(f"(h.__known IS NULL OR m.{TIME} >= h.__known)")

    def fetch(values: Sequence[tuple[str, str]], last_first: str) -> None:
        taken = ", ".join([f"m.{ROW}", *(f"h.{quote_name(name)}" for _, name in values)])
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE __found AS SELECT {taken} FROM __matched m "  # noqa: S608
            f"JOIN ({_select(history, within, values)}) h ON {' AND '.join(equal)}{last_first}"
        )

    fetch(history.values, "")
    if fetch_number(connection, "SELECT (SELECT count(*) FROM __found) - (SELECT count(*) FROM __matched)"):
        terms = [(sql, f"__order{number}") for number, sql in enumerate(history.order)]
        ranking = ", ".join(f"h.{name} DESC NULLS LAST" for _, name in terms) or f"m.{ROW}"
        fetch(
            [*history.values, *terms],
            f" QUALIFY row_number() OVER (PARTITION BY m.{ROW} ORDER BY {ranking}) = 1",
        )


def _select(history: History, conditions: Sequence[str], values: Sequence[tuple[str, str]] = ()) -> str:
    columns = [f"{sql} AS k{number}" for number, sql in enumerate(history.keys)] + [f"{history.event} AS __event"]
    columns += [] if history.known is None else [f"{history.known} AS __known"]
    columns += [f"{sql} AS {quote_name(name)}" for sql, name in values]
    return f"SELECT {', '.join(columns)} FROM {history.relation}{_where(conditions)}"  # noqa: S608


def _conditions(connection: DuckDBPyConnection, pairs: Pairs, history: History) -> list[str]:
    """What rows of the history can matter at all: those in the window of times, of the entities that are asked for."""
    first, last = fetch_rows(connection, f"SELECT epoch_us(min({TIME})), epoch_us(max({TIME})) FROM {pairs.table}")[0]  # noqa: S608
    if last is None:
        return ["FALSE"]
    found = [f"{history.event} <= {_moment(last)}"]
    if history.ttl is not None and first - history.ttl > _BEGINNING:
        found.append(f"{history.event} >= {_moment(first - history.ttl)}")
    if history.keys:
        names = ", ".join(quote_name(name) for name in pairs.keys)
        asked = fetch_number(connection, f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM {pairs.table})")  # noqa: S608
        rows = fetch_number(connection, f"SELECT count(*) FROM {history.relation}")  # noqa: S608
        # Sorting costs more than looking up, unless nearly all rows are of entities that are asked for.
        if asked * _KEYS_WORTH_FILTERING <= rows:
            found.append(f"({', '.join(history.keys)}) IN (SELECT DISTINCT ({names}) FROM {pairs.table})")  # noqa: S608
    return found


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _moment(microseconds: int) -> str:
    return f"CAST(make_timestamp({microseconds}) AS TIMESTAMPTZ)"
