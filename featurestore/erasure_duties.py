"""What a worker does for erasures: its handlers by kind of work, and the derivers that require that work."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fairlead.featurestore.erasing import Erasing, SweptRows, SweptSamples
from fairlead.featurestore.erasure_locations import EraseLocationHandler, is_look_due
from fairlead.featurestore.erasure_rows import ERASE_LOCATION, ERASE_ROWS, ERASE_STORE
from fairlead.featurestore.erasure_stores import EraseStoreHandler, ForgettingLogs
from fairlead.featurestore.erasure_work import EraseRowsHandler
from fairlead.featurestore.lost_regions import Returns
from fairlead.sync.duties import Duties

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.featurestore.event_logs import EventLogs
    from fairlead.featurestore.online_choice import OnlineEngines
    from fairlead.featurestore.replica_rows import ReplicaRows
    from fairlead.featurestore.served_log import ServedFolder
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.uploads import Uploads
    from fairlead.sync.scratch import Scratch


def erasure_duties(
    database: Database,
    clock: Clock,
    *,
    uploads: Uploads,
    open_store: StoreOpener,
    replicas: ReplicaRows,
    engines: OnlineEngines,
    logs: EventLogs,
    served: ServedFolder,
    scratch: Scratch,
    signing_key: bytes,
    collect_grace: timedelta,
) -> Duties:
    """The duties of erasures; `signing_key` signs certificates, `collect_grace` is the collector's."""
    erasing = Erasing(clock, signing_key=signing_key)
    return Duties(
        handlers={
            ERASE_ROWS: EraseRowsHandler(
                database, clock, uploads=uploads, open_store=open_store, replicas=replicas, scratch=scratch
            ),
            ERASE_STORE: EraseStoreHandler(
                database, clock, engines=engines, logs=logs, replicas=replicas, scratch=scratch
            ),
            ERASE_LOCATION: EraseLocationHandler(database, clock, open_store=open_store, grace=collect_grace),
        },
        derivers=[
            erasing,
            Returns(clock, is_due=is_look_due, sign=erasing.sign),
            ForgettingLogs(logs),
            SweptRows(replicas.folder, scratch),
            SweptSamples(served),
        ],
    )
