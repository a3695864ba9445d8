"""Checks expectations of one part of a snapshot, on its rows: numbers against limits.

What is said of a row is how many there are that are not as expected, never what they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.drift import SqlColumn, measure_drift
from fairlead.featurestore.duck import fetch_number, fetch_rows, open_duckdb, quote_name, quote_text
from fairlead.featurestore.expectations import Expectation, Severity

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from fairlead.featurestore.drift import Drift


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An expectation, and the set and view that it is of."""

    set: str
    view: str
    expectation: Expectation


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an expectation came to by one measure: its value and its limit.

    `count` is of rows that are not as expected, of `rows`. A value of None was not measured, or may not be told here.
    """

    set: str
    name: str
    kind: str
    measure: str
    view: str
    feature: str | None
    severity: Severity
    passed: bool
    value: float | None
    limit: str
    rows: int
    count: int | None = None
    detail: str = ""

    def without_values(self) -> Finding:
        """Only whether it passed and how many rows there are: what may be told of rows that must stay elsewhere."""
        return replace(self, value=None, count=None, detail="")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRows:
    """The rows of a part, as a Parquet file; `view` has the part's features alone."""

    view: ViewDefinition
    path: Path
    as_of: datetime


def check_part(
    part: PartRows, previous: PartRows | None, expected: Sequence[Expected], *, scratch: Path
) -> list[Finding]:
    """Every finding, in the order of the expectations; `previous` is the same part of the snapshot before, if any."""
    with open_duckdb(scratch) as connection:
        check = _Check(connection, part, previous)
        return [finding for each in expected for finding in check.findings(each)]


class _Check:
    def __init__(self, connection: DuckDBPyConnection, part: PartRows, previous: PartRows | None) -> None:
        self._connection = connection
        self._part = part
        self._previous = previous
        self._relation = _read(part)
        self._rows = fetch_number(connection, f"SELECT count(*) FROM {self._relation}")  # noqa: S608

    def findings(self, each: Expected) -> Iterator[Finding]:
        """What one expectation came to, by each of its measures."""
        expectation = each.expectation
        names = {feature.name for feature in self._part.view.features}
        if expectation.feature is not None and expectation.feature not in names:
            yield self._found(each, expectation.kind, passed=False, detail="The view has no such feature any more.")
        elif expectation.kind == "rows":
            yield from self._row_count(each)
        elif expectation.kind == "freshness":
            yield self._freshness(each)
        elif expectation.kind == "drift":
            yield from self._drift(each)
        else:
            yield self._share(each)

    def _share(self, each: Expected) -> Finding:
        expectation = each.expectation
        count, of = self._offending(expectation)
        share = count / of if of else 0.0
        return self._found(
            each,
            f"share of {_OFFENCES[expectation.kind]}",
            passed=share <= expectation.share,
            value=share,
            limit=f"<= {expectation.share:g}",
            count=count,
            detail=f"{count} of {of} {'values' if expectation.kind in {'range', 'values'} else 'rows'}.",
        )

    def _offending(self, expectation: Expectation) -> tuple[int, int]:
        """How many rows are not as expected, and of how many."""
        if expectation.kind == "unique":
            names = [key.name for key in self._part.view.keys]
            names += [] if expectation.by == "keys" else [self._part.view.source.timestamp_field]
            groups = ", ".join(map(quote_name, names))
            distinct = fetch_number(
                self._connection,
                f"SELECT count(*) FROM (SELECT 1 FROM {self._relation} GROUP BY {groups})",  # noqa: S608
            )
            return self._rows - distinct, self._rows
        name = quote_name(expectation.feature or "")
        present = fetch_number(self._connection, f"SELECT count({name}) FROM {self._relation}")  # noqa: S608
        if expectation.kind == "nulls":
            return self._rows - present, self._rows
        breaks = _breaks(name, expectation, _type_of(self._part, expectation.feature))
        query = f"SELECT count(*) FROM {self._relation} WHERE {breaks}"  # noqa: S608
        return fetch_number(self._connection, query), present

    def _row_count(self, each: Expected) -> Iterator[Finding]:
        expectation, rows = each.expectation, self._rows
        if expectation.min is not None or expectation.max is not None:
            low, high = expectation.min, expectation.max
            limits = [f">= {low:g}"] if low is not None else []
            limits += [f"<= {high:g}"] if high is not None else []
            is_within = (low is None or rows >= low) and (high is None or rows <= high)
            yield self._found(each, "rows", passed=is_within, value=float(rows), limit=", ".join(limits))
        if expectation.change_at_most is not None:
            limit = f"<= {expectation.change_at_most:g}"
            before = None if self._previous is None else self._count_previous(self._previous)
            if not before:
                yield self._incomparable(each, "change of rows", limit)
            else:
                change = abs(rows - before) / before
                yield self._found(
                    each,
                    "change of rows",
                    passed=change <= expectation.change_at_most,
                    value=change,
                    limit=limit,
                    detail=f"{rows} rows, {before} before.",
                )

    def _freshness(self, each: Expected) -> Finding:
        event = quote_name(self._part.view.source.timestamp_field)
        last = fetch_rows(self._connection, f"SELECT max({event}) FROM {self._relation}")[0][0]  # noqa: S608
        limit = f"<= {each.expectation.at_most}"
        if last is None:
            return self._found(each, "age of the last event", passed=False, limit=limit, detail="There is no row.")
        age = (self._part.as_of - last).total_seconds()
        return self._found(
            each,
            "age of the last event",
            passed=age <= each.expectation.seconds,
            value=age,
            limit=limit,
            detail=f"{age / 3600:.1f} hours as of the snapshot.",
        )

    def _drift(self, each: Expected) -> Iterator[Finding]:
        expectation = each.expectation
        drift = self._measure(expectation.feature)
        is_gone = drift is not None and drift.values[0] > 0 and drift.values[1] == 0
        for measure, limit, value in (
            ("PSI", expectation.psi_at_most, None if drift is None else drift.psi),
            ("KS", expectation.ks_at_most, None if drift is None or drift.ks is None else drift.ks.statistic),
        ):
            if limit is None:
                continue
            if is_gone:
                yield self._found(
                    each, measure, passed=False, value=value, limit=f"<= {limit:g}", detail="No value is left."
                )
                continue
            if value is None:
                yield self._incomparable(each, measure, f"<= {limit:g}")
                continue
            chance = drift.ks.p_value if measure == "KS" and drift is not None and drift.ks is not None else None
            yield self._found(
                each,
                measure,
                passed=value <= limit,
                value=value,
                limit=f"<= {limit:g}",
                detail="" if chance is None else f"By chance with probability {chance:.3g}.",
            )

    def _measure(self, feature: str | None) -> Drift | None:
        previous = self._previous
        if feature is None or previous is None or _type_of(previous, feature) != _type_of(self._part, feature):
            return None
        return measure_feature(self._connection, previous.path, self._part.path, feature)

    def _count_previous(self, previous: PartRows) -> int:
        return fetch_number(self._connection, f"SELECT count(*) FROM {_read(previous)}")  # noqa: S608

    def _incomparable(self, each: Expected, measure: str, limit: str) -> Finding:
        detail = "There is no earlier snapshot to compare with."
        if self._previous is not None:
            detail = "The snapshot before has no value of this type that it could be compared with."
        return self._found(each, measure, passed=True, limit=limit, detail=detail)

    def _found(
        self,
        each: Expected,
        measure: str,
        *,
        passed: bool,
        value: float | None = None,
        limit: str = "",
        count: int | None = None,
        detail: str = "",
    ) -> Finding:
        return Finding(
            set=each.set,
            name=each.expectation.name,
            kind=each.expectation.kind,
            measure=measure,
            view=each.view,
            feature=each.expectation.feature,
            severity=each.expectation.severity,
            passed=passed,
            value=value,
            limit=limit,
            rows=self._rows,
            count=count,
            detail=detail,
        )


_OFFENCES = {
    "nulls": "missing values",
    "range": "values out of range",
    "values": "values that are not allowed",
    "unique": "repeated rows",
}


def measure_feature(connection: DuckDBPyConnection, previous: Path, present: Path, feature: str) -> Drift:
    """How far a feature's values in one Parquet file are from those in an earlier one."""
    queries = [
        f"SELECT {quote_name(feature)} FROM read_parquet({quote_text(str(path))})"  # noqa: S608
        for path in (previous, present)
    ]
    return measure_drift(*(SqlColumn(connection, query) for query in queries))


def _read(part: PartRows) -> str:
    return f"read_parquet({quote_text(str(part.path))})"


def _type_of(part: PartRows, feature: str | None) -> str | None:
    return next((each.type for each in part.view.features if each.name == feature), None)


def _breaks(name: str, expectation: Expectation, kind: str | None) -> str:
    """SQL that is true of a value that is not as expected."""
    if expectation.kind == "range":
        bounds = [f"{name} < {_literal(expectation.min, kind)}"] if expectation.min is not None else []
        bounds += [f"{name} > {_literal(expectation.max, kind)}"] if expectation.max is not None else []
        return " OR ".join(bounds)
    allowed = ", ".join(_literal(each, kind) for each in expectation.allowed or ())
    return f"{name} NOT IN ({allowed})"


def _literal(value: object, kind: str | None) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return quote_text(value)
    # A float of 32 bits is held to what the limit is in 32 bits.
    return f"{value!r}::{kind}" if kind in {"FLOAT", "DOUBLE"} else repr(value)
