"""What a worker does for this package: its handlers by kind of work, and the derivers that require that work."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from fairlead.featurestore.check_work import CheckHandler
from fairlead.featurestore.online_check_work import OnlineCheckHandler
from fairlead.featurestore.online_checks import ONLINE_CHECK, derive_online_checks
from fairlead.featurestore.online_desired import MATERIALIZE, derive_online_states
from fairlead.featurestore.online_slots import derive_online_slots
from fairlead.featurestore.online_work import LostStores, MaterializeHandler
from fairlead.featurestore.snapshot_checks import CHECK, derive_checks
from fairlead.featurestore.snapshot_work import SnapshotHandler
from fairlead.featurestore.snapshots import SNAPSHOT, derive_snapshots
from fairlead.sync.duties import Duties

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.featurestore.logged_rows import LoggedRows
    from fairlead.featurestore.online_choice import OnlineEngines
    from fairlead.featurestore.replica_rows import ReplicaRows
    from fairlead.featurestore.served_log import ServedFolder
    from fairlead.featurestore.sources import Sources
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.uploads import Uploads
    from fairlead.sync.scratch import Scratch


def feature_duties(
    database: Database,
    clock: Clock,
    *,
    uploads: Uploads,
    open_store: StoreOpener,
    replicas: ReplicaRows,
    sources: Sources,
    online_engines: OnlineEngines,
    logged: LoggedRows,
    served: ServedFolder,
    scratch: Scratch,
    regions: Collection[str] | None,
) -> Duties:
    """The duties of this package; `regions` are those whose online stores are on this machine (None: all)."""

    def settle(session: Session, _now: datetime) -> None:
        derive_snapshots(session, clock)

    return Duties(
        handlers={
            SNAPSHOT: SnapshotHandler(
                database,
                clock,
                uploads=uploads,
                open_store=open_store,
                sources=sources,
                logged=logged,
                replicas=replicas,
                scratch=scratch,
            ),
            CHECK: CheckHandler(database, clock, replicas=replicas, scratch=scratch),
            ONLINE_CHECK: OnlineCheckHandler(
                database, clock, replicas=replicas, engines=online_engines, served=served, scratch=scratch
            ),
            MATERIALIZE: MaterializeHandler(
                database, clock, replicas=replicas, engines=online_engines, scratch=scratch
            ),
        },
        derivers=[
            settle,
            derive_checks,
            LostStores(database, online_engines, None if regions is None else frozenset(regions)),
            derive_online_states,
            derive_online_slots,
            derive_online_checks,
        ],
    )
