"""How far two samples of one column are apart: the population stability index and the Kolmogorov-Smirnov statistic.

Both come from one sorted pass over the values, which DuckDB groups and sorts on disk where they do not fit into memory
and hands over in batches; what is kept are a few bins and one running count a side. Values that are missing, or not a
number, are no value: they are counted, are a bin of their own to the index, and do not enter the statistic.

Numbers and times are compared by their order, everything else by equality. Lists are compared by their lengths.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.featurestore.duck import fetch_batches, fetch_rows, open_duckdb

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BINS = 10
"""Into how many bins of equally many expected values numbers are put."""

VALUES_MAX = 50
"""How many of the most frequent expected values have a bin of their own where values have no order."""

SHARE_MIN = 1e-4
"""What the share of an empty bin counts as, so that one value in it does not make the index infinite."""

_BATCH = 100_000
_ORDERED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FLOATS = ("FLOAT", "DOUBLE")
_TIMES = ("TIMESTAMP", "DATE")

ArrowColumn = Any
"""A `pyarrow.Array` or `ChunkedArray`; PyArrow ships no types."""


@dataclass(frozen=True, slots=True)
class SqlColumn:
    """The one column that a query on an open connection gives."""

    connection: DuckDBPyConnection
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KolmogorovSmirnov:
    """The greatest distance between two cumulative distributions, and how likely one as great is by chance."""

    statistic: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """How many values of each side are in a bin.

    Of ordered values it holds those above `lower` (None: from the least) up to and with `upper` (None: to the
    greatest); of others those equal to `value`. The bin without any of them holds what is left, or what is missing.
    """

    expected: int
    actual: int
    lower: float | None = None
    upper: float | None = None
    value: str | None = None
    is_missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What was measured. Where one side has no value, there is no index and no statistic."""

    is_ordered: bool
    expected_count: int
    actual_count: int
    bins: tuple[Bin, ...]
    psi: float | None
    ks: KolmogorovSmirnov | None

    @property
    def values(self) -> tuple[int, int]:
        """How many expected and actual values there are that are not missing."""
        present = [each for each in self.bins if not each.is_missing]
        return sum(each.expected for each in present), sum(each.actual for each in present)


def psi(expected: SqlColumn | ArrowColumn, actual: SqlColumn | ArrowColumn, *, bins: int = BINS) -> float | None:
    """The population stability index of two columns of one type, or None where one has no rows.

    See `population_stability_index` for its definition and `measure_drift` for the bins.
    """
    return measure_drift(expected, actual, bins=bins).psi


def ks(expected: SqlColumn | ArrowColumn, actual: SqlColumn | ArrowColumn) -> KolmogorovSmirnov | None:
    """The two-sample Kolmogorov-Smirnov test of two columns; None where one has no value, or values have no order."""
    return measure_drift(expected, actual).ks


def measure_drift(expected: SqlColumn | ArrowColumn, actual: SqlColumn | ArrowColumn, *, bins: int = BINS) -> Drift:
    """Compare a column with the one that is expected, of the same type and, if both are SQL, on the same connection.

    Ordered values are put into bins between the quantiles of the expected ones (`bins` of them; fewer where many values
    are equal), other values into one bin for each of the `VALUES_MAX` most frequent expected ones and one for the rest.
    """
    with _relations(expected, actual) as (connection, left, right):
        kind = str(fetch_rows(connection, f"DESCRIBE {left}")[0][1])
        value, is_ordered = comparable("v", kind)
        both = (
            f"SELECT {value} AS v, e, a FROM (SELECT v, 1 AS e, 0 AS a FROM ({left}) AS l(v) "  # noqa: S608
            f"UNION ALL SELECT v, 0, 1 FROM ({right}) AS r(v))"
        )
        counted = f"SELECT v, sum(e)::BIGINT AS e, sum(a)::BIGINT AS a FROM ({both}) GROUP BY v"  # noqa: S608
        totals = fetch_rows(
            connection,
            f"SELECT coalesce(sum(e), 0), coalesce(sum(a), 0), coalesce(sum(e) FILTER (v IS NULL), 0), "  # noqa: S608
            f"coalesce(sum(a) FILTER (v IS NULL), 0) FROM ({both})",
        )[0]
        n_expected, n_actual, *missing = (int(count) for count in totals)
        present = n_expected - missing[0], n_actual - missing[1]
        if is_ordered:
            found, statistic = _walk(connection, counted, present, bins)
        else:
            found, statistic = _count_values(connection, counted, present), None
    if any(missing):
        found.append(Bin(expected=missing[0], actual=missing[1], is_missing=True))
    return Drift(
        is_ordered=is_ordered,
        expected_count=n_expected,
        actual_count=n_actual,
        bins=tuple(found),
        psi=population_stability_index([(each.expected, each.actual) for each in found]),
        ks=None
        if statistic is None
        else KolmogorovSmirnov(statistic=statistic, p_value=kolmogorov_p_value(statistic, *present)),
    )


def population_stability_index(counts: Sequence[tuple[int, int]]) -> float | None:
    """The index of two histograms over the same bins, (expected, actual) for each; None where one side is empty.

    It is the sum over the bins of (a - e) * ln(a / e), where e and a are the shares of the expected and of the actual
    values in a bin, and a share is taken as `SHARE_MIN` at least. That is Jeffreys' divergence between the two
    histograms: 0 where the shares are equal, never negative, and the same in both directions. As a rule of thumb below
    0.1 is little, and from 0.25 on much; the rule is custom, not a test.

    Sources: H. Jeffreys, "An invariant form for the prior probability in estimation problems", Proc. R. Soc. A 186
    (1946); N. Siddiqi, "Credit Risk Scorecards" (Wiley, 2006), for the name and the rule of thumb; B. Yurdakul and
    J. Naranjo, "Statistical properties of the population stability index", Journal of Risk Model Validation 14 (2020).
    """
    n_expected, n_actual = sum(pair[0] for pair in counts), sum(pair[1] for pair in counts)
    if not n_expected or not n_actual:
        return None
    shares = [(max(e / n_expected, SHARE_MIN), max(a / n_actual, SHARE_MIN)) for e, a in counts]
    return math.fsum((a - e) * math.log(a / e) for e, a in shares)


def kolmogorov_p_value(statistic: float, n_expected: int, n_actual: int) -> float:
    """How likely a distance of at least `statistic` is, if both samples are drawn from one continuous distribution.

    With N = nm / (n + m) it is Q((sqrt(N) + 0.12 + 0.11 / sqrt(N)) D), where Q(x) = 2 * sum over j >= 1 of
    (-1)^(j-1) exp(-2 j^2 x^2) is the tail of Kolmogorov's distribution. That is good to about 0.03 from N = 4 on, and
    exact in the limit. Where many values are equal, the true probability is smaller.

    Sources: A. Kolmogorov, "Sulla determinazione empirica di una legge di distribuzione" (1933); N. Smirnov, "Table for
    estimating the goodness of fit of empirical distributions", Ann. Math. Stat. 19 (1948), for two samples and for the
    second form of Q; M. A. Stephens, "Use of the Kolmogorov-Smirnov, Cramer-Von Mises and related statistics without
    extensive tables", J. R. Stat. Soc. B 32 (1970), for the correction of small samples.
    """
    root = math.sqrt(n_expected * n_actual / (n_expected + n_actual))
    x = (root + 0.12 + 0.11 / root) * statistic
    if x < 0.2:
        # 1 to more than fifteen digits.
        return 1.0
    if x < 1.18:
        # The same function, as the series that converges there.
        step = math.pi**2 / (8 * x * x)
        return 1.0 - math.sqrt(2 * math.pi) / x * math.fsum(math.exp(-((2 * j - 1) ** 2) * step) for j in range(1, 5))
    tail = 2 * math.fsum((-1) ** (j - 1) * math.exp(-2 * j * j * x * x) for j in range(1, 6))
    return min(1.0, max(0.0, tail))


@contextmanager
def _relations(
    expected: SqlColumn | ArrowColumn, actual: SqlColumn | ArrowColumn
) -> Generator[tuple[DuckDBPyConnection, str, str]]:
    """A connection, and a query of one column for each side."""
    given = next((side.connection for side in (expected, actual) if isinstance(side, SqlColumn)), None)
    if given is not None:
        yield given, _query(given, expected, "__expected"), _query(given, actual, "__actual")
        return
    with tempfile.TemporaryDirectory(prefix="drift-") as folder, open_duckdb(Path(folder)) as connection:
        yield connection, _query(connection, expected, "__expected"), _query(connection, actual, "__actual")


def _query(connection: DuckDBPyConnection, side: SqlColumn | ArrowColumn, name: str) -> str:
    if isinstance(side, SqlColumn):
        return side.query
    import pyarrow as pa

    arrow: Any = pa
    connection.register(name, arrow.table({"v": side}))
    return f"SELECT v FROM {name}"  # noqa: S608


def comparable(name: str, kind: str) -> tuple[str, bool]:
    """The SQL of a value that can be compared, and whether it has an order."""
    if kind.endswith("]"):
        return f"len({name})::DOUBLE", True
    if kind.startswith(_FLOATS):
        # 0.0 and -0.0 are one value. That a column equals NaN, DuckDB takes for false by the statistics of a Parquet
        # file, which do not count NaN.
        return f"CASE WHEN isnan({name}) THEN NULL ELSE {name}::DOUBLE + 0.0 END", True
    if kind.startswith(_TIMES):
        return f"epoch({name})", True
    if kind.startswith((*_ORDERED, "DECIMAL")):
        return name, True
    return (f"hex({name})" if kind == "BLOB" else f"{name}::VARCHAR"), False


class _Walk:
    """Goes over sorted values with their counts, and keeps the greatest distance and the edges of the bins.

    An edge is the value at which another share of the expected values is reached, with how many of each side are up to
    and with it. A value that fills more than a bin has one of its own, so it has an edge below it as well.
    """

    def __init__(self, present: tuple[int, int], bins: int) -> None:
        self._present = present
        self._n_bins = min(bins, present[0])
        self._edges: list[tuple[float, int, int]] = []
        self._reached = 0
        self._last: tuple[float, int, int] | None = None
        self.distance = 0.0

    def go(self, values: Any, expected: Any, actual: Any) -> None:
        """Go on with sorted values and how many of each side there are up to and with them (arrays)."""
        import numpy as np

        n_expected, n_actual = self._present
        self.distance = max(self.distance, float(abs(expected / n_expected - actual / n_actual).max()))
        while self._reached < self._n_bins:
            wanted = -(-(self._reached + 1) * n_expected // self._n_bins)
            index = int(np.searchsorted(expected, wanted))
            if index == len(expected):
                break
            before = _at(values, expected, actual, index - 1) if index else self._last
            self._reach(_at(values, expected, actual, index), before)
        self._last = _at(values, expected, actual, len(expected) - 1)

    def bins(self) -> list[Bin]:
        """The bins, of which none is empty on both sides."""
        bounds = [(None, 0, 0), *self._edges, (None, *self._present)]
        return [
            Bin(expected=e - e_before, actual=a - a_before, lower=lower, upper=upper)
            for (lower, e_before, a_before), (upper, e, a) in itertools.pairwise(bounds)
            if e > e_before or a > a_before
        ]

    def _reach(self, here: tuple[float, int, int], before: tuple[float, int, int] | None) -> None:
        reached = here[1] * self._n_bins // self._present[0]
        is_heavy = reached > self._reached + 1 or self._n_bins == 1
        if is_heavy and before is not None and before not in self._edges[-1:]:
            self._edges.append(before)
        # What lies above the greatest expected value belongs to the last bin, unless that is of one value.
        if is_heavy or reached < self._n_bins:
            self._edges.append(here)
        self._reached = reached


def _walk(
    connection: DuckDBPyConnection, counted: str, present: tuple[int, int], bins: int
) -> tuple[list[Bin], float | None]:
    """The bins between the expected quantiles and the greatest distance, in one pass over the sorted values."""
    if not all(present):
        return ([Bin(expected=present[0], actual=present[1])] if any(present) else []), None
    walk = _Walk(present, bins)
    below = [0, 0]
    query = f"SELECT v, e, a FROM ({counted}) WHERE v IS NOT NULL ORDER BY v"  # noqa: S608
    for batch in fetch_batches(connection, query, _BATCH):
        running = [_running(batch.column(side + 1)) + below[side] for side in (0, 1)]
        walk.go(batch.column(0), *running)
        below = [int(each[-1]) for each in running]
    return walk.bins(), walk.distance


def _at(values: Any, expected: Any, actual: Any, index: int) -> tuple[float, int, int]:
    return float(values[index].as_py()), int(expected[index]), int(actual[index])


def _running(column: Any) -> Any:
    import numpy as np

    return np.cumsum(column.to_numpy(zero_copy_only=False), dtype=np.int64)


def _count_values(connection: DuckDBPyConnection, counted: str, present: tuple[int, int]) -> list[Bin]:
    n_expected, n_actual = present
    query = f"SELECT v, e, a FROM ({counted}) WHERE v IS NOT NULL ORDER BY e DESC, v LIMIT {VALUES_MAX}"  # noqa: S608
    found = [Bin(expected=e, actual=a, value=str(value)) for value, e, a in fetch_rows(connection, query) if e]
    rest = n_expected - sum(each.expected for each in found), n_actual - sum(each.actual for each in found)
    return [*found, Bin(expected=rest[0], actual=rest[1])] if any(rest) else found
