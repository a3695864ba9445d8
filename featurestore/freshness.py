"""How fresh online stores are: by region and view the latest event time that is served, and as of when.

Both are noted in the record when a store was materialized. The *watermark* is a statistic of the rows: of a view under
a residency class it is told only where the record itself may hold that class. Rows that are pushed come on top of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED, Residency, permits
from fairlead.core.db import Database
from fairlead.core.ports import Clock
from fairlead.featurestore.duck import fetch_rows, open_duckdb, quote_name, quote_text
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.tables import OnlineStateRow
from fairlead.featurestore.tables_online import LEAVING, OnlineFreshnessRow
from fairlead.registry.identity import Caller
from fairlead.registry.tables import WorkspaceRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFreshness:
    """How far a region is in one view. `watermark` is the latest event time it serves; None: not told, or no row."""

    view: str
    watermark: datetime | None
    as_of: datetime
    materialized_at: datetime


def watermarks(rows: Mapping[str, Sequence[ViewRows]], *, scratch: Path) -> dict[str, datetime | None]:
    """The latest event time of each view's rows, whose parts all have the same times; None: there is no row."""
    found: dict[str, datetime | None] = {}
    with open_duckdb(scratch) as connection:
        for name, parts in rows.items():
            event = quote_name(parts[0].view.source.timestamp_field)
            query = f"SELECT epoch_us(max({event})) FROM read_parquet({quote_text(str(parts[0].path))})"  # noqa: S608
            latest = fetch_rows(connection, query)[0][0]
            found[name] = None if latest is None else _EPOCH + timedelta(microseconds=latest)
    return found


def note_freshness(
    session: Session,
    state: OnlineStateRow,
    *,
    as_of: datetime,
    residencies: Mapping[str, Iterable[str]],
    watermarks: Mapping[str, datetime | None],
    now: datetime,
) -> None:
    """Replace what is said of a region's store; `residencies` are the classes of each view's parts there."""
    forget_freshness(session, state)
    workspace = session.get_one(WorkspaceRow, state.workspace_id)
    for view, watermark in watermarks.items():
        is_told = all(
            each == UNRESTRICTED or permits(Residency(each), workspace.jurisdiction or "") for each in residencies[view]
        )
        session.add(
            OnlineFreshnessRow(
                workspace_id=state.workspace_id,
                service=state.service,
                region=state.region,
                view=view,
                as_of=as_of,
                materialized_at=now,
                watermark=watermark if is_told else None,
            )
        )


def forget_freshness(session: Session, state: OnlineStateRow) -> None:
    """Say nothing more of a region's store, which is gone or another one."""
    session.execute(
        delete(OnlineFreshnessRow).where(
            OnlineFreshnessRow.workspace_id == state.workspace_id,
            OnlineFreshnessRow.service == state.service,
            OnlineFreshnessRow.region == state.region,
        )
    )


def freshness_of(session: Session, workspace_id: str, service: str) -> dict[str, list[ViewFreshness]]:
    """What is known of a service's stores, by region and in the order of views."""
    query = select(OnlineFreshnessRow).where(
        OnlineFreshnessRow.workspace_id == workspace_id, OnlineFreshnessRow.service == service
    )
    found: dict[str, list[ViewFreshness]] = {}
    for row in session.scalars(query.order_by(OnlineFreshnessRow.region, OnlineFreshnessRow.view)):
        found.setdefault(row.region, []).append(
            ViewFreshness(view=row.view, watermark=row.watermark, as_of=row.as_of, materialized_at=row.materialized_at)
        )
    return found


class OnlineMetrics:
    """Tells Prometheus what each region serves of a workspace."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def render(self, caller: Caller) -> str:
        """The present state in Prometheus's text format."""
        with self._database.read() as session:
            states = session.scalars(
                select(OnlineStateRow)
                .where(OnlineStateRow.workspace_id == caller.workspace_id, OnlineStateRow.state != LEAVING)
                .order_by(OnlineStateRow.service, OnlineStateRow.region)
            ).all()
            views = session.scalars(
                select(OnlineFreshnessRow)
                .where(OnlineFreshnessRow.workspace_id == caller.workspace_id)
                .order_by(OnlineFreshnessRow.service, OnlineFreshnessRow.region, OnlineFreshnessRow.view)
            ).all()
            stores = [({"service": row.service, "region": row.region}, row) for row in states]
            parts = [({"service": row.service, "region": row.region, "view": row.view}, row) for row in views]
            metrics: list[tuple[str, str, list[tuple[Mapping[str, str], float]]]] = [
                (
                    "fairlead_online_ready",
                    "Whether a region serves the snapshot that it should.",
                    [(labels, float(row.state == "READY")) for labels, row in stores],
                ),
                (
                    "fairlead_online_rows",
                    "Entities' rows that a region serves.",
                    [(labels, float(row.row_count)) for labels, row in stores if row.row_count is not None],
                ),
                (
                    "fairlead_online_watermark_timestamp_seconds",
                    "Latest event time that a region's snapshot has of a view.",
                    [(labels, row.watermark.timestamp()) for labels, row in parts if row.watermark is not None],
                ),
                (
                    "fairlead_online_as_of_timestamp_seconds",
                    "Time as of which a region's snapshot was taken.",
                    [(labels, row.as_of.timestamp()) for labels, row in parts],
                ),
                (
                    "fairlead_online_materialized_timestamp_seconds",
                    "When a region last materialized a view.",
                    [(labels, row.materialized_at.timestamp()) for labels, row in parts],
                ),
                (
                    "fairlead_online_freshness_seconds",
                    "Age of a region's snapshot of a view.",
                    [(labels, (self._clock.now() - row.as_of).total_seconds()) for labels, row in parts],
                ),
            ]
        return "".join(gauge(*each) for each in metrics)


def gauge(name: str, description: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    """One gauge in Prometheus's text format, with its samples by labels."""
    lines = [f"# HELP {name} {description}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{told}}} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
