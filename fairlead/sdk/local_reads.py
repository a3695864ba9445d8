"""Online reads without a server in between: from a region's store, in this process.

The store is found as the region's worker and feature server find it: through the engine that
FAIRLEAD_FEATURE_ONLINE_ENGINE names (SQLite below FAIRLEAD_HOME, where it names none). A read asks nothing of the
registry, so this is for processes that run in the region and may read all that its store has.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from fairlead.core.clock import parse_time
from fairlead.core.errors import FeaturesStale, InvalidInput, MissingExtra, NotReady, SnapshotNotOnline
from fairlead.core.ids import parse_digest, parse_name
from fairlead.sdk.online_reads import OnlineFeatures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from fairlead.featurestore.online_engines import OnlineStoreReader

_STATUSES = {
    "present": "PRESENT",
    "expired": "OUTSIDE_MAX_AGE",
    "not_found": "NOT_FOUND",
    "not_in_region": "NOT_FOUND",
}


class LocalReads:
    """Reads one service from the store of one region. Threads may share it; a new snapshot is seen at the next read.

    Args:
        service: the service; `SERVICE@DIGEST` is one snapshot of it.
        region: whose store is read.
        workspace: the workspace's name.
        folder: FAIRLEAD_HOME of the region's machine.
        engine: what FAIRLEAD_FEATURE_ONLINE_ENGINE says.
        max_staleness: how old the data may be; None: as old as it is.
    """

    def __init__(
        self,
        service: str,
        *,
        region: str,
        workspace: str,
        folder: Path,
        engine: str = "",
        max_staleness: timedelta | None = None,
    ) -> None:
        try:
            from fairlead.featurestore.online_choice import OnlineEngines, read_choices
            from fairlead.featurestore.online_engines import NEWEST, StoreName
            from fairlead.featurestore.online_sqlite import OnlineFolder
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"Local reads need {error.name}.", hint="Run: pip install 'fairlead[features]'"
            ) from error
        name, _, snapshot = service.partition("@")
        self._service = parse_name(name, what="feature service")
        self._snapshot = parse_digest(snapshot) if snapshot else None
        self._region = region
        self._max_staleness = None if max_staleness is None else max_staleness.total_seconds()
        engines = OnlineEngines(OnlineFolder(root=folder / "features" / "online"), read_choices(engine))
        slots = [NEWEST] if self._snapshot is None else [self._snapshot, NEWEST]
        self._readers: list[OnlineStoreReader] = [
            engines.of(region).reader(
                StoreName(workspace_id=workspace, service=self._service, region=region, slot=slot)
            )
            for slot in slots
        ]

    def read(self, entities: Mapping[str, Sequence[Any]]) -> OnlineFeatures:
        """Features of entities, which are columns of join keys of one length; what is computed on demand is left out.

        Raises:
            NotReady: if the region does not serve the service.
            SnapshotNotOnline: if it does not keep the snapshot.
            FeaturesStale: if what it has is older than it may be.
            InvalidInput: if a join key is missing or of the wrong type.
        """
        from fairlead.featurestore.online_reader import OnlineStoreError

        for reader in self._readers:
            try:
                meta, found = reader.read_columns(entities)
            except FileNotFoundError:
                continue
            except OnlineStoreError as error:
                raise InvalidInput(str(error), hint="Send each join key of the service's views.") from error
            if self._snapshot not in {None, meta["snapshot"]}:
                continue
            age = max(0.0, (datetime.now(UTC) - parse_time(meta["as_of"])).total_seconds())
            self._check_age(meta["snapshot"], age)
            asked = {key for view in reader.views for key, _, _ in view.asked_keys}
            keys = [name for name in entities if name in asked]
            names, columns = keys, [tuple(entities[name]) for name in keys]
            statuses = [("PRESENT",) * len(column) for column in columns]
            for view in found:
                shown = tuple(_STATUSES[status] for status in view.statuses)
                names += view.features
                columns += map(tuple, view.features.values())
                statuses += [shown] * len(view.features)
            return OnlineFeatures(
                region=self._region,
                snapshot=meta["snapshot"],
                as_of=meta["as_of"],
                age_seconds=age,
                missing_views=(
                    *(view.alias for view in reader.views if view.is_missing),
                    *json.loads(meta.get("not_in_region", "[]")),
                ),
                names=tuple(names),
                columns=tuple(columns),
                statuses=tuple(statuses),
            )
        raise self._not_here()

    def close(self) -> None:
        """Close the store."""
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> Self:
        """The reader; its store is closed at the end of the block."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the store."""
        self.close()

    def _check_age(self, snapshot: str, age: float) -> None:
        if self._max_staleness is not None and age > self._max_staleness:
            raise FeaturesStale(
                f"{self._region} serves {self._service!r} as of {age:.0f} s ago.",
                hint=f"Take a newer snapshot: fairlead features snapshot {self._service}; or allow what is older.",
                region=self._region,
                snapshot=snapshot,
                age_seconds=age,
            )

    def _not_here(self) -> NotReady:
        if self._snapshot is None:
            return NotReady(
                f"The service {self._service!r} is not served online in {self._region} from this machine.",
                hint=f"Ask for it: fairlead features materialize {self._service}",
                service=self._service,
                region=self._region,
            )
        return SnapshotNotOnline(
            f"{self._region} does not keep the snapshot {self._snapshot} of {self._service!r} online.",
            hint=f"Serve it instead of the newest: fairlead features materialize {self._service} --snapshot "
            f"{self._snapshot}; what a holder of an environment pins is kept by itself.",
            service=self._service,
            snapshot=self._snapshot,
            region=self._region,
        )
