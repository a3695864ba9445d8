"""What is different between two states of a view's rows, as an edit of the sequence: rows taken out, rows put in.

Both states are in canonical order, so a row that is in both is at the same place among those that are. A delta says by
position which rows of the old state are gone, and holds each new row with the place where it goes. Applying it compares
nothing: rows are copied in a stream, a row group at a time, whatever their number. Each repeated row is a row of its
own.

Places are counted in *kept* rows, those that are in both states: `__kept` is how many of them lie between a row of the
delta and the one before it. Scattered changes have small numbers there, which take next to no room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fairlead.featurestore.definitions import Column
from fairlead.featurestore.duck import ArrowSchema, ArrowTable, load_arrow
from fairlead.featurestore.row_files import ROW_GROUP, RowWriter, columns_of, encoded, iter_groups

KEPT = Column(name="__kept", type="INT64")
"""The column that says where: kept rows since the row before."""

_NONE: dict[str, str] = {}
_MIX = tuple(np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
# Stands for a missing value, and so for no value that is likely to be there: 1 << 63 would be -0.0.
_MISSING = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaCounts:
    """How many rows a delta takes out and puts in."""

    removed: int
    added: int


def write_delta(old: Path, new: Path, *, added: Path, removed: Path, by: Sequence[str] | None = None) -> DeltaCounts:
    """Write what turns the rows of one file into those of another of the same columns.

    Args:
        old: a file of rows in canonical order.
        new: another one.
        added: where the rows go that are put in.
        removed: where it is said which are taken out.
        by: leading columns of the order, and times, that rows are compared in stretches of: the more, the less memory
            one stretch takes. None is the first column. They have no missing values, and keys come before times.
    """
    sides = _Side(old, by), _Side(new, by)
    columns = columns_of(sides[1].schema)
    taken, put = _DeltaWriter([], removed), _DeltaWriter(columns, added)
    with taken, put:
        for before, after in _stretches(*sides):
            kept_before, kept_after = _kept(before, after)
            taken.skip_and_write(before, kept_before, is_named_only=True)
            put.skip_and_write(after, kept_after)
    return DeltaCounts(removed=taken.count, added=put.count)


def apply_delta(rows: Iterable[ArrowTable], *, added: Path, removed: Path) -> Iterator[ArrowTable]:
    """The rows of the new state, of those of the old one in their order; tables of any size.

    Raises:
        ValueError: if the delta is not one of these rows.
    """
    gone, put = _Cursor(removed), _Cursor(added)
    position = kept_so_far = 0
    for table in rows:
        count = table.num_rows
        taken, _ = gone.take_below(position + count, is_old=True)
        places = taken - position
        mask = np.ones(count, np.bool_)
        mask[places] = False
        kept = count - len(places)
        at, fresh = put.take_below(kept_so_far + kept)
        yield _woven(table, np.flatnonzero(mask), at - kept_so_far, fresh)
        position += count
        kept_so_far += kept
    at, fresh = put.take_below(kept_so_far + 1)
    if fresh is not None:
        yield fresh
    if gone.has_more or put.has_more:
        raise ValueError("The delta is of other rows.")


def pick_removed(rows: Iterable[ArrowTable], removed: Path) -> Iterator[ArrowTable]:
    """The rows of the old state that a delta takes out."""
    gone, position = _Cursor(removed), 0
    for table in rows:
        taken, _ = gone.take_below(position + table.num_rows, is_old=True)
        if len(taken):
            yield table.take(load_arrow().array(taken - position))
        position += table.num_rows


def iter_added(added: Path) -> Iterator[ArrowTable]:
    """The rows that a delta puts in."""
    for table in iter_groups(added):
        yield table.drop_columns([KEPT.name])


class _DeltaWriter:
    """Writes one half of a delta, stretch by stretch."""

    def __init__(self, columns: Sequence[Column], path: Path) -> None:
        self._writer = RowWriter(path, [KEPT, *columns], metadata=_NONE)
        self._kept = 0
        self.count = 0

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._writer.finish()
        self._writer.__exit__(kind, error, traceback)

    def skip_and_write(self, rows: ArrowTable, kept: Any, *, is_named_only: bool = False) -> None:
        """Write the rows of a stretch that are not kept; `kept` says, in order, which are."""
        arrow = load_arrow()
        other = np.ones(rows.num_rows, np.bool_)
        other[kept] = False
        places = np.flatnonzero(other)
        if not len(places):
            self._kept += rows.num_rows
            return
        before = places - np.arange(len(places))  # kept rows of this stretch before each
        gaps = np.diff(before, prepend=-self._kept)
        self._kept = rows.num_rows - len(places) - int(before[-1])
        self.count += len(places)
        columns: list[Any] = [] if is_named_only else rows.take(arrow.array(places)).columns
        names: list[str] = [] if is_named_only else rows.column_names
        self._writer.write(arrow.table([arrow.array(gaps, arrow.int64()), *columns], names=[KEPT.name, *names]))


class _Cursor:
    """The rows of one half of a delta, taken in order of their places."""

    def __init__(self, path: Path) -> None:
        self._groups = iter_groups(path)
        self._kept = 0
        self._count = 0
        self._table: ArrowTable = None
        self._places: Any = np.zeros(0, np.int64)
        self.has_more = True
        self._read()

    def take_below(self, limit: int, *, is_old: bool = False) -> tuple[Any, ArrowTable | None]:
        """The places, in kept rows or (`is_old`) in rows of the old state, that are below a limit, and their rows."""
        places: list[Any] = []
        tables: list[ArrowTable] = []
        while self.has_more:
            found = self._places + np.arange(self._count, self._count + len(self._places)) if is_old else self._places
            number = int(np.searchsorted(found, limit))
            if number:
                places.append(found[:number])
                tables.append(self._table.slice(0, number).drop_columns([KEPT.name]))
                self._table, self._places = self._table.slice(number), self._places[number:]
                self._count += number
            if len(self._places):
                break
            self._read()
        if not places:
            return np.zeros(0, np.int64), None
        return np.concatenate(places), load_arrow().concat_tables(tables)

    def _read(self) -> None:
        table = next(self._groups, None)
        if table is None:
            self.has_more = False
            return
        gaps = table.column(KEPT.name).to_numpy()
        self._table, self._places = table, np.cumsum(gaps) + self._kept
        self._kept = int(self._places[-1])


def _woven(table: ArrowTable, kept: Any, at: Any, fresh: ArrowTable | None) -> ArrowTable:
    """The kept rows of a table with fresh ones between: each before the kept row that its place says."""
    arrow = load_arrow()
    if fresh is None:
        return table if len(kept) == table.num_rows else table.take(arrow.array(kept))
    both = arrow.concat_tables([table, fresh]).combine_chunks()
    order = np.insert(kept, at, np.arange(table.num_rows, both.num_rows))
    return both.take(arrow.array(order))


class _Side:
    """The rows of one state, read in order."""

    def __init__(self, path: Path, by: Sequence[str] | None) -> None:
        self.schema: ArrowSchema = load_arrow().parquet.read_schema(path)
        self._by = list(by or self.schema.names[:1])
        self._groups = iter_groups(path)
        self._rows: ArrowTable = self.schema.empty_table()
        self.is_exhausted = False

    def fill(self, at_least: int) -> None:
        """Have so many rows at hand, unless that is all there are."""
        tables = [self._rows]
        count = self._rows.num_rows
        while count < at_least and not self.is_exhausted:
            table = next(self._groups, None)
            if table is None:
                self.is_exhausted = True
            else:
                tables.append(table)
                count += table.num_rows
        if len(tables) > 1:
            self._rows = load_arrow().concat_tables(tables).combine_chunks()

    @property
    def count(self) -> int:
        return int(self._rows.num_rows)

    def key(self, row: int) -> tuple[Any, ...]:
        """Where a row is in the order, as far as `by` says it; rows of equal keys lie together."""
        return tuple(_comparable(self._rows.column(name)[row]) for name in self._by)

    def count_below(self, bound: tuple[Any, ...]) -> int:
        first, last = 0, self.count
        while first < last:
            middle = (first + last) // 2
            if self.key(middle) < bound:
                first = middle + 1
            else:
                last = middle
        return first

    def take(self, count: int) -> ArrowTable:
        taken, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        return taken.combine_chunks()


def _comparable(value: Any) -> Any:
    arrow = load_arrow()
    if arrow.types.is_timestamp(value.type):
        return value.value
    plain = value.as_py()
    return plain.encode() if isinstance(plain, str) else plain


def _stretches(old: _Side, new: _Side) -> Iterator[tuple[ArrowTable, ArrowTable]]:
    """The rows of both states in stretches that begin and end at the same places of the order."""
    wanted = ROW_GROUP
    while True:
        old.fill(wanted)
        new.fill(wanted)
        open_ended = [side for side in (old, new) if not side.is_exhausted]
        if not open_ended:
            if old.count or new.count:
                yield old.take(old.count), new.take(new.count)
            return
        bound = min(side.key(side.count - 1) for side in open_ended)
        counts = old.count_below(bound), new.count_below(bound)
        if counts == (0, 0):
            # More rows of one entity, or of one entity at one time, than were read.
            wanted = max(old.count, new.count) + ROW_GROUP
            continue
        wanted = ROW_GROUP
        yield old.take(counts[0]), new.take(counts[1])


def _kept(old: ArrowTable, new: ArrowTable) -> tuple[Any, Any]:
    """The places, in each, of rows that are in both: as many as were found in one order, equal byte for byte."""
    nothing: tuple[Any, Any] = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if not old.num_rows or not new.num_rows:
        return nothing
    if old.num_rows == new.num_rows and _is_same(old, new):
        every = np.arange(int(old.num_rows))
        return every, every
    arrow = load_arrow()
    hashes = _numbered(_hashes(arrow.concat_tables([old, new]).combine_chunks()), old.num_rows)
    met: Any = np.intersect1d(*hashes, assume_unique=True, return_indices=True)
    order: Any = np.argsort(met[1], kind="stable")
    one: Any = met[1][order]
    other: Any = met[2][order]
    # Where the order leaves open which of two rows comes first, they may be crosswise.
    highest: Any = np.maximum.accumulate(np.concatenate([[-1], other[:-1]])) if len(other) else other
    is_in_order: Any = other > highest
    one, other = one[is_in_order], other[is_in_order]
    # Hashes may lie: what is kept is compared.
    if not _is_same(old.take(arrow.array(one)), new.take(arrow.array(other))):
        return nothing
    return one, other


def _is_same(one: ArrowTable, other: ArrowTable) -> bool:
    for left, right in zip(one.columns, other.columns, strict=True):
        for a, b in zip(encoded(left.combine_chunks()), encoded(right.combine_chunks()), strict=False):
            if memoryview(a).nbytes != memoryview(b).nbytes or not np.array_equal(
                np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)
            ):
                return False
    return True


def _numbered(hashes: Any, first: int) -> tuple[Any, Any]:
    """The hashes of both states' rows, in each of which the second of two equal rows has another one than the first."""
    return _distinct(hashes[:first]), _distinct(hashes[first:])


def _distinct(hashes: Any) -> Any:
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    numbers = np.arange(len(hashes))
    starts = np.where(np.concatenate([[True], ranked[1:] != ranked[:-1]]), numbers, 0)
    nth = (numbers - np.maximum.accumulate(starts)).astype(np.uint64)
    if not nth.any():
        return hashes
    found = np.empty_like(hashes)
    found[order] = ranked + _mixed(nth) * (nth > 0)
    return found


def _hashes(table: ArrowTable) -> Any:
    """A hash for each row, which says of two rows of this table that they are different."""
    found = np.zeros(table.num_rows, np.uint64)
    for column in table.columns:
        found = _mixed(found * _MIX[0] + _column_hashes(column.combine_chunks()))
    return found


def _column_hashes(array: Any) -> Any:
    arrow = load_arrow()
    kind = array.type
    is_there = array.is_valid().to_numpy(zero_copy_only=False)
    if arrow.types.is_list(kind):
        lengths = arrow.compute.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        ends = np.cumsum(lengths)
        items = _column_hashes(array.flatten())
        nth = np.arange(len(items)) - np.repeat(ends - lengths, lengths)
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(items + _mixed(nth.astype(np.uint64))))])
        values = total[ends] - total[ends - lengths] + _mixed(lengths.astype(np.uint64))
    elif arrow.types.is_string(kind) or arrow.types.is_binary(kind):
        numbers = array.dictionary_encode().indices
        values = numbers.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)
    else:
        *_, numbers = encoded(array)
        values = numbers.view(f"u{numbers.dtype.itemsize}").astype(np.uint64)
    return np.where(is_there, values, _MISSING)


def _mixed(values: Any) -> Any:
    values = (values ^ (values >> np.uint64(30))) * _MIX[1]
    values = (values ^ (values >> np.uint64(27))) * _MIX[2]
    return values ^ (values >> np.uint64(31))
