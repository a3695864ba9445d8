"""Reports of snapshots: how each feature is spread, beside the snapshot before, and what was expected of it.

Like a historical read, a report is computed from the rows when it is asked for, and says nothing of a part whose
residency class forbids where it goes: there it says why. It holds counts and shares, and of features without an order
their most frequent values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from fairlead.catalog import UNRESTRICTED, Residency, check, load_catalog, permits
from fairlead.featurestore.checking import measure_feature
from fairlead.featurestore.drift import comparable
from fairlead.featurestore.duck import fetch_rows, open_duckdb, quote_name, quote_text
from fairlead.featurestore.releases import is_releasable
from fairlead.featurestore.snapshot_checks import previous_snapshot, snapshot_checks
from fairlead.featurestore.snapshot_views import SnapshotPartName, SnapshotView, snapshot_view
from fairlead.featurestore.snapshots import find_snapshot
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.featurestore.definitions import Column
    from fairlead.featurestore.replica_rows import ReplicaRows
    from fairlead.registry.identity import Caller
    from fairlead.sync.scratch import Scratch

BARS = 20
HISTORY_MAX = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How many values lie between two numbers, or are one value (None: all others): now, and in the snapshot before."""

    lower: float | None
    upper: float | None
    value: str | None
    count: int
    previous: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReport:
    """One feature. What compares with the snapshot before is None where there is nothing to compare."""

    name: str
    type: str
    missing: int
    previous_missing: int | None
    psi: float | None
    ks: float | None
    ks_p_value: float | None
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """One part. `hidden` says why it is not shown; then only its number of rows is told."""

    view: str
    residency: str
    rows: int
    previous_rows: int | None
    hidden: str | None
    features: tuple[FeatureReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRows:
    """How many rows each view had in a snapshot."""

    digest: str
    as_of: datetime
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPart:
    """The check of a part: what was found, or that it waits."""

    view: str
    residency: str
    state: str
    is_blocking: bool
    against: str | None
    results: Sequence[Mapping[str, Any]]
    checked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReport:
    """What is known of a snapshot's data; `history` goes from the oldest to this one."""

    digest: str
    service: str
    as_of: datetime
    previous: str | None
    previous_as_of: datetime | None
    is_released: bool
    parts: tuple[PartReport, ...]
    checks: tuple[CheckedPart, ...]
    history: tuple[SnapshotRows, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    row: SnapshotRow
    view: SnapshotView
    counts: Mapping[tuple[str, str], int]


class SnapshotReports:
    """Reports on snapshots, and shows their checks.

    Args:
        database: the record.
        replicas: brings the rows here.
        scratch: for what does not fit into memory.
        home_region: where this process runs; None where nothing but the caller's word places it (embedded mode).
    """

    def __init__(
        self, database: Database, *, replicas: ReplicaRows, scratch: Scratch, home_region: str | None = None
    ) -> None:
        self._database = database
        self._replicas = replicas
        self._scratch = scratch
        self._home_region = home_region

    def checks(self, caller: Caller, reference: str) -> list[CheckedPart]:
        """What was expected of a snapshot and found, by view and class; nothing where nothing is expected.

        Raises:
            SnapshotNotFound: if there is none.
        """
        with self._database.read() as session:
            return _checked(session, find_snapshot(session, caller.workspace_id, reference))

    def report(self, caller: Caller, reference: str, *, region: str | None = None) -> SnapshotReport:
        """The report on a snapshot. `region` is where it goes: parts under a class are shown only inside.

        Raises:
            SnapshotNotFound: if there is none.
            NotReady: if its data is not there yet.
            UnknownRegion: if there is no such region.
            ReplicaUnavailable: if no verified replica can be read.
        """
        if region is not None:
            check(UNRESTRICTED, region)
        with self._database.read() as session:
            row = find_snapshot(session, caller.workspace_id, reference)
            present = _find(session, row)
            before = previous_snapshot(session, row)
            previous = None if before is None else _find(session, before)
            checks, is_released = _checked(session, row), is_releasable(session, row)
            history = _history(session, row)
        parts = tuple(self._part(part, present, previous, region) for part in present.view.parts)
        return SnapshotReport(
            digest=present.view.digest,
            service=row.service,
            as_of=row.as_of,
            previous=None if previous is None else previous.view.digest,
            previous_as_of=None if previous is None else previous.row.as_of,
            is_released=is_released,
            parts=parts,
            checks=tuple(checks),
            history=history,
        )

    def _part(self, part: SnapshotPartName, present: _Found, previous: _Found | None, region: str | None) -> PartReport:
        key = (part.name, part.residency)
        earlier_parts = () if previous is None else previous.view.parts
        before = next((each for each in earlier_parts if (each.name, each.residency) == key), None)
        hidden = self._hidden(part.residency, region)
        features: tuple[FeatureReport, ...] = ()
        if hidden is None:
            path = self._replicas.fetch(part.artifact, near=region)
            earlier = None if before is None else self._replicas.fetch(before.artifact, near=region)
            known = () if before is None else before.view.features
            with self._scratch.folder("report-") as folder, open_duckdb(folder) as connection:
                features = tuple(
                    _feature(connection, feature, path, earlier if feature in known else None)
                    for feature in part.view.features
                )
        return PartReport(
            view=part.name,
            residency=part.residency,
            rows=present.counts[key],
            previous_rows=None if previous is None else previous.counts.get(key),
            hidden=hidden,
            features=features,
        )

    def _hidden(self, residency: str, region: str | None) -> str | None:
        """Why a part is not shown, or None."""
        if residency == UNRESTRICTED:
            return None
        if region is None:
            return f"It is under the residency class {residency!r}: ask from inside, with --region REGION."
        for place in (region, self._home_region or region):
            if not permits(Residency(residency), load_catalog().region(place).jurisdiction):
                return f"The residency class {residency!r} keeps it out of {place}."
        return None


def _find(session: Session, row: SnapshotRow) -> _Found:
    parts = session.scalars(_parts_of(row)).all()
    counts = {(part.view, part.residency): part.row_count or 0 for part in parts}
    return _Found(row=row, view=snapshot_view(session, row), counts=counts)


def _parts_of(row: SnapshotRow) -> Any:
    return select(SnapshotPartRow).where(
        SnapshotPartRow.workspace_id == row.workspace_id, SnapshotPartRow.snapshot_id == row.id
    )


def _checked(session: Session, row: SnapshotRow) -> list[CheckedPart]:
    return [
        CheckedPart(
            view=each.view,
            residency=each.residency,
            state=each.state,
            is_blocking=each.is_blocking,
            against=each.against,
            results=each.results or [],
            checked_at=each.checked_at,
        )
        for each in snapshot_checks(session, row)
    ]


def _history(session: Session, row: SnapshotRow) -> tuple[SnapshotRows, ...]:
    query = (
        select(SnapshotRow)
        .where(
            SnapshotRow.workspace_id == row.workspace_id,
            SnapshotRow.service == row.service,
            SnapshotRow.state == "READY",
            SnapshotRow.as_of <= row.as_of,
        )
        .order_by(SnapshotRow.as_of.desc(), SnapshotRow.id.desc())
        .limit(HISTORY_MAX)
    )
    found: list[SnapshotRows] = []
    for each in session.scalars(query).all():
        # Every part of a view has all its rows.
        rows = {part.view: part.row_count or 0 for part in session.scalars(_parts_of(each))}
        found.append(SnapshotRows(digest=each.digest or "", as_of=each.as_of, rows=rows))
    return tuple(reversed(found))


def _feature(connection: DuckDBPyConnection, feature: Column, path: Path, previous: Path | None) -> FeatureReport:
    drift = None if previous is None else measure_feature(connection, previous, path, feature.name)
    files = [path] if previous is None else [path, previous]
    missing = [_count_missing(connection, each, feature.name) for each in files]
    return FeatureReport(
        name=feature.name,
        type=feature.type,
        missing=missing[0],
        previous_missing=missing[1] if len(missing) > 1 else None,
        psi=None if drift is None else drift.psi,
        ks=None if drift is None or drift.ks is None else drift.ks.statistic,
        ks_p_value=None if drift is None or drift.ks is None else drift.ks.p_value,
        bars=count_bars(connection, files, feature.name),
    )


def _count_missing(connection: DuckDBPyConnection, path: Path, feature: str) -> int:
    query = f"SELECT count(*) - count({quote_name(feature)}) FROM read_parquet({quote_text(str(path))})"  # noqa: S608
    return int(fetch_rows(connection, query)[0][0])


def count_bars(connection: DuckDBPyConnection, files: Sequence[Path], feature: str) -> tuple[Bar, ...]:
    """Bars of equal width where values have an order, else of the most frequent values.

    `files` are the rows as they are now and, if there are any, as they were before.
    """
    name = quote_name(feature)
    described = f"DESCRIBE SELECT {name} FROM read_parquet({quote_text(str(files[0]))})"  # noqa: S608
    kind = str(fetch_rows(connection, described)[0][1])
    value, is_ordered = comparable(name, kind)
    both = " UNION ALL ".join(
        f"SELECT {value} AS v, {int(number == 0)} AS now FROM read_parquet({quote_text(str(path))}) "  # noqa: S608
        f"WHERE {name} IS NOT NULL"
        for number, path in enumerate(files)
    )
    if not is_ordered:
        return _value_bars(connection, both)
    finite = f"SELECT v::DOUBLE AS v, now FROM ({both}) WHERE isfinite(v::DOUBLE)"  # noqa: S608
    low, high = fetch_rows(connection, f"SELECT min(v), max(v) FROM ({finite})")[0]  # noqa: S608
    if low is None or high is None:
        return ()
    # What lies at both ends of what there is, is as far apart as no number tells.
    width = high / BARS - low / BARS or 1.0
    query = (
        f"SELECT least(floor(v / {width!r} - {low / width!r}), {BARS - 1})::INTEGER AS bar, "  # noqa: S608
        f"sum(now), count(*) - sum(now) FROM ({finite}) GROUP BY bar"
    )
    counts = {int(bar): (int(now), int(before)) for bar, now, before in fetch_rows(connection, query)}
    bars = range(BARS if high > low else 1)
    return tuple(
        Bar(
            lower=low + bar * width,
            upper=low + (bar + 1) * width,
            value=None,
            count=counts.get(bar, (0, 0))[0],
            previous=counts.get(bar, (0, 0))[1],
        )
        for bar in bars
    )


def _value_bars(connection: DuckDBPyConnection, both: str) -> tuple[Bar, ...]:
    query = f"SELECT v, sum(now), count(*) - sum(now) FROM ({both}) GROUP BY v ORDER BY count(*) DESC, v"  # noqa: S608
    rows = fetch_rows(connection, f"{query} LIMIT {BARS - 1}")
    totals = fetch_rows(connection, f"SELECT coalesce(sum(now), 0), count(*) - coalesce(sum(now), 0) FROM ({both})")[0]  # noqa: S608
    bars = [
        Bar(lower=None, upper=None, value=str(value), count=int(now), previous=int(before))
        for value, now, before in rows
    ]
    rest = [int(total) - sum(counts) for total, counts in zip(totals, _columns(bars), strict=True)]
    return (*bars, Bar(lower=None, upper=None, value=None, count=rest[0], previous=rest[1])) if any(rest) else (*bars,)


def _columns(bars: Sequence[Bar]) -> tuple[list[int], list[int]]:
    return [bar.count for bar in bars], [bar.previous for bar in bars]
