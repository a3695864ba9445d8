"""Streams, put together: logs, what is sealed of them, what reads them, and who pushes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.featurestore.event_logs import EventLogs
from fairlead.featurestore.log_lag import LogLags
from fairlead.featurestore.log_online import OnlineFollower
from fairlead.featurestore.log_sealing import LogSealing
from fairlead.featurestore.logged_rows import LoggedRows
from fairlead.featurestore.pushes import FeaturePushes

if TYPE_CHECKING:
    from fastapi import APIRouter

    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.featurestore.online_choice import OnlineEngines
    from fairlead.featurestore.replica_rows import ReplicaRows
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.uploads import Uploads
    from fairlead.sync.scratch import Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """How this process takes and seals rows.

    Attributes:
        region: where it runs; None where that is not stated.
        is_anywhere: whether it stands for every region (the embedded server).
        seal_rows: how many rows a log has before they are sealed at once.
        seal_after: how long a row waits for others at most.
    """

    region: str | None = None
    is_anywhere: bool = False
    seal_rows: int = 100_000
    seal_after: timedelta = field(default=timedelta(seconds=10))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStreams:
    """Use cases, routes and upkeep of streams."""

    logs: EventLogs
    logged: LoggedRows
    pushes: FeaturePushes
    lags: LogLags
    sealing: LogSealing
    follower: OnlineFollower

    def routers(self) -> list[APIRouter]:
        """The routes, without the API's prefix."""
        from fairlead.featurestore.api_streams import streams_router

        return [streams_router(self.pushes, self.lags)]

    def keep(self, regions: Collection[str] | None) -> bool:
        """One round: online stores of these regions (None: all) follow the logs, and logs of this machine are sealed.

        Whether there is something for a worker to do.
        """
        # Whoever takes rows in a region looks after what it could not put online at once.
        own = {log.region for log in self.logs.local()}
        self.follower.follow(None if regions is None else own.union(regions))
        return self.sealing.run()


def assemble_streams(
    *,
    database: Database,
    clock: Clock,
    catalog: Catalog,
    uploads: Uploads,
    open_store: StoreOpener,
    replicas: ReplicaRows,
    engines: OnlineEngines,
    folder: Path,
    scratch: Scratch,
    rules: StreamRules,
) -> FeatureStreams:
    """Build what streams need; `folder` is where this machine keeps its logs."""
    logs = EventLogs(database, clock, folder=folder)
    follower = OnlineFollower(database, clock, catalog=catalog, engines=engines, logs=logs, replicas=replicas)
    return FeatureStreams(
        logs=logs,
        logged=LoggedRows(database, logs=logs, replicas=replicas),
        pushes=FeaturePushes(
            database,
            clock,
            catalog=catalog,
            logs=logs,
            apply_online=follower.apply,
            home_region=rules.region,
            is_anywhere=rules.is_anywhere,
        ),
        lags=LogLags(database, clock, catalog=catalog, logs=logs),
        sealing=LogSealing(
            database,
            clock,
            uploads=uploads,
            open_store=open_store,
            logs=logs,
            scratch=scratch,
            rows=rules.seal_rows,
            after=rules.seal_after,
        ),
        follower=follower,
    )
