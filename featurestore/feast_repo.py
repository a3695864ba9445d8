"""A region as Feast sees it: a registry compiled of what the region serves, over the rows of its own replica.

Definitions are those that the snapshot pins, with the sources' paths rewritten. The SDK makes a repository of it on a
user's machine (`Features.feast_repo`), whose registry store and provider are `fairlead.sdk.feast_registry` and
`fairlead.sdk.feast_provider`: they read, tell the record what Feast materialized, and refuse everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED, check, load_catalog
from fairlead.catalog.residency import Residency
from fairlead.core.errors import InvalidInput, JsonValue, NotReady
from fairlead.core.ids import parse_name
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.definitions import DUMMY_KEY, SERVICE, Column, ViewDefinition
from fairlead.featurestore.merged_rows import fetch_view
from fairlead.featurestore.online_engines import StoreName
from fairlead.featurestore.services import OnDemandProjection, Projection
from fairlead.featurestore.snapshot_views import SnapshotPartName, SnapshotView, snapshot_view
from fairlead.featurestore.snapshots import find_snapshot, newest_snapshot
from fairlead.featurestore.streams import StreamDefinition
from fairlead.featurestore.tables import OnlineStateRow
from fairlead.featurestore.tables_feast import FeastMaterializationRow
from fairlead.registry import audit

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.featurestore.applied import PinnedService
    from fairlead.featurestore.joins import ViewRows
    from fairlead.featurestore.online_choice import OnlineEngines
    from fairlead.featurestore.replica_rows import ReplicaRows
    from fairlead.registry.identity import Caller

_PROJECT = "fairlead"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializedInterval:
    """Event times of a view that Feast put into the online store of one repository, which is named by `store`."""

    view: str
    store: str
    snapshot: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRegistry:
    """A registry of a service in a region: Feast's protobuf, and the file of each view's rows by its name there.

    `online_path` is the region's online store where it is a file of this machine.
    """

    service: str
    service_digest: str
    snapshot: str
    region: str
    content: bytes
    rows: Mapping[str, Path]
    online_path: str | None


class FeastRepositories:
    """Compiles registries of regions, and keeps what Feast materialized from them.

    Args:
        database: the record.
        clock: the time.
        replicas: brings the rows here.
        engines: the online stores of regions.
        home_region: where this process runs; None in embedded mode.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        replicas: ReplicaRows,
        engines: OnlineEngines,
        home_region: str | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._replicas = replicas
        self._engines = engines
        self._home_region = home_region

    def compile(self, caller: Caller, service: str, region: str, *, store: str | None = None) -> CompiledRegistry:
        """The registry of what the region serves, or else of the newest snapshot; `store` says whose intervals it has.

        Views and features that may not be in the region are left out of the service.

        Raises:
            FeatureServiceNotFound, UnknownRegion
            NotReady: if the service has no READY snapshot.
            ReplicaUnavailable: if the region's replica cannot be read.
            ResidencyViolation: if something that may be in the region may not be where this process runs.
        """
        jurisdiction = load_catalog().within(caller.workspace_id).region(region).jurisdiction
        with self._database.read() as session:
            state = session.get(OnlineStateRow, (caller.workspace_id, service, region))
            served = None if state is None else state.served_snapshot
            find_pinned_service(session, caller.workspace_id, service)
            row = (
                newest_snapshot(session, caller.workspace_id, service)
                if served is None
                else find_snapshot(session, caller.workspace_id, served)
            )
            if row is None:
                raise NotReady(
                    f"The service {service!r} has no snapshot that is READY.",
                    hint=f"Take one: fairlead features snapshot {service}",
                )
            found = snapshot_view(session, row)
            intervals = _intervals(session, caller.workspace_id, service, region, store)
        parts: dict[str, list[SnapshotPartName]] = {}
        for part in found.permitted(jurisdiction):
            if self._home_region is not None:
                check(Residency(part.residency), self._home_region)
            parts.setdefault(part.name, []).append(part)
        rows = {name: fetch_view(self._replicas, each, only=region) for name, each in parts.items()}
        # Another snapshot has other names, so a reader of the one before is not disturbed.
        names = {name: f"rows/{name}-{found.digest.removeprefix('sha256:')[:16]}.parquet" for name in rows}
        address = self._engines.of(region).address(
            StoreName(workspace_id=caller.workspace_id, service=service, region=region)
        )
        return CompiledRegistry(
            service=service,
            service_digest=found.pinned.digest,
            snapshot=found.digest,
            region=region,
            content=compile_registry(found, rows, names, intervals),
            rows={names[name]: each.path for name, each in rows.items()},
            online_path=None if served is None else address,
        )

    def report(self, caller: Caller, service: str, region: str, intervals: Sequence[MaterializedInterval]) -> None:
        """Keep what Feast materialized; what was told before is kept once.

        Raises:
            FeatureServiceNotFound, UnknownRegion
            InvalidInput: if an interval ends before it begins.
        """
        load_catalog().within(caller.workspace_id).region(region)
        with self._database.write() as session:
            find_pinned_service(session, caller.workspace_id, service)
            known = _intervals(session, caller.workspace_id, service, region, None)
            new = [each for each in dict.fromkeys(intervals) if each not in known]
            for each in new:
                if each.end < each.start:
                    raise InvalidInput(f"The interval of {each.view!r} ends before it begins.", hint="Swap the times.")
                session.add(
                    FeastMaterializationRow(
                        workspace_id=caller.workspace_id,
                        service=service,
                        region=region,
                        store=each.store,
                        view=parse_name(each.view, what="feature view"),
                        snapshot_digest=each.snapshot,
                        start_at=each.start,
                        end_at=each.end,
                        reported_by=caller.principal,
                        reported_at=self._clock.now(),
                    )
                )
            if new:
                views: list[JsonValue] = [*sorted({each.view for each in new})]
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="feature.materialized_by_feast",
                    subject=f"{SERVICE}/{service}",
                    residency=UNRESTRICTED,
                    facts={"region": region, "views": views, "store": new[0].store},
                )


def _intervals(
    session: Session, workspace_id: str, service: str, region: str, store: str | None
) -> list[MaterializedInterval]:
    query = select(FeastMaterializationRow).where(
        FeastMaterializationRow.workspace_id == workspace_id,
        FeastMaterializationRow.service == service,
        FeastMaterializationRow.region == region,
    )
    if store is not None:
        query = query.where(FeastMaterializationRow.store == store)
    return [
        MaterializedInterval(
            view=row.view, store=row.store, snapshot=row.snapshot_digest, start=row.start_at, end=row.end_at
        )
        for row in session.scalars(query.order_by(FeastMaterializationRow.end_at, FeastMaterializationRow.id))
    ]


def compile_registry(
    found: SnapshotView,
    rows: Mapping[str, ViewRows],
    paths: Mapping[str, str],
    intervals: Sequence[MaterializedInterval] = (),
) -> bytes:
    """A Feast registry of the views and features that `rows` hold, at `paths`, and of the service as far as they go."""
    import feast
    from feast.feature_view import DUMMY_ENTITY, FeatureViewState
    from feast.project import Project
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry: Any = Registry(registry_schema_version="1")
    registry.projects.append(Project(name=_PROJECT).to_proto())
    entities: dict[str, Any] = {}
    views: dict[str, Any] = {}
    for name, each in rows.items():
        view = each.view
        for entity, key in zip(view.entities, view.keys, strict=True):
            entities[entity] = (
                DUMMY_ENTITY
                if key == DUMMY_KEY
                else feast.Entity(name=entity, join_keys=[key.name], value_type=getattr(feast.ValueType, key.type))
            )
        views[name] = _feast_view(view, [entities[entity] for entity in view.entities], paths[name])
        views[name].state = FeatureViewState.AVAILABLE_ONLINE
        views[name].materialization_intervals = [(past.start, past.end) for past in intervals if past.view == name]
    here = {name: {feature.name for feature in each.view.features} for name, each in rows.items()}
    projections = [
        _feast_projection(views[projection.view], projection, here[projection.view])
        for projection in found.pinned.service.projections
        if here.get(projection.view, set()) & set(projection.features) - projection.hidden
    ]
    on_demand = [_on_demand_view(each, found.pinned, views, here) for each in found.pinned.service.on_demand]
    if any(view is not None for view in on_demand):
        entities[DUMMY_ENTITY.name] = DUMMY_ENTITY  # which Feast gives every on-demand view
    service = feast.FeatureService(name=found.pinned.service.name, features=projections)
    for container, objects in (
        (registry.entities, entities.values()),
        (registry.data_sources, [source for view in views.values() for source in _sources(view)]),
        (registry.feature_views, views.values()),
        (registry.feature_services, [service]),
    ):
        for each in objects:
            proto: Any = each.to_proto()
            (proto.spec if hasattr(proto, "spec") else proto).project = _PROJECT
            container.append(proto)
    for view, taken in zip(on_demand, found.pinned.service.on_demand, strict=True):
        if view is not None:
            registry.on_demand_feature_views.append(view)
            registry.feature_services[0].spec.features.append(_on_demand_projection(view, taken))
    content: bytes = registry.SerializeToString()
    return content


def _on_demand_view(
    taken: OnDemandProjection, pinned: PinnedService, views: Mapping[str, Any], here: Mapping[str, Collection[str]]
) -> Any:
    """An on-demand view over the region's replicas; None where something that it is made of may not be.

    Its code stays as it is, and unread: Feast loads it in the process of whoever opens the repository.
    """
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView
    from google.protobuf.json_format import ParseDict

    view: Any = ParseDict(dict(pinned.on_demand[taken.view]), OnDemandFeatureView(), ignore_unknown_fields=True)
    view.spec.project = _PROJECT
    for source in view.spec.sources.values():
        if source.WhichOneof("source") != "feature_view_projection":
            continue
        projection = source.feature_view_projection
        if any(column.name not in here.get(projection.feature_view_name, ()) for column in projection.feature_columns):
            return None
        made_of: Any = views[projection.feature_view_name]
        # Feast compares the fields that it was given with the view's, descriptions and all.
        taken_names = [column.name for column in projection.feature_columns]
        fields = {field.name: field.to_proto() for field in made_of.features}
        projection.ClearField("feature_columns")
        projection.feature_columns.extend(fields[name] for name in taken_names)
        projection.batch_source.CopyFrom(made_of.batch_source.to_proto())
        projection.ClearField("stream_source")
    return view


def _on_demand_projection(view: Any, taken: OnDemandProjection) -> Any:
    from feast.protos.feast.core.FeatureViewProjection_pb2 import FeatureViewProjection

    alias = taken.alias if taken.alias != taken.view else ""
    projection: Any = FeatureViewProjection(feature_view_name=taken.view, feature_view_name_alias=alias)
    projection.feature_columns.extend(each for each in view.spec.features if each.name in taken.features)
    return projection


def _sources(view: Any) -> list[Any]:
    return [view.batch_source] if view.stream_source is None else [view.batch_source, view.stream_source]


def _feast_view(view: ViewDefinition, entities: list[Any], path: str) -> Any:
    import feast

    source = feast.FileSource(
        name=f"{view.name}_replica",
        path=path,
        timestamp_field=view.source.timestamp_field,
        created_timestamp_column=view.source.created_timestamp_column or "",
    )
    return feast.FeatureView(
        name=view.name,
        entities=entities,
        ttl=timedelta(seconds=float(Decimal(view.ttl_seconds or 0))),
        schema=[_feast_field(column) for column in (*view.keys, *view.features)],
        source=source if view.stream is None else _feast_stream(view.stream, source),
    )


def _feast_stream(stream: StreamDefinition, batch_source: Any) -> Any:
    """The stream that a view's rows come from, with the replica as what they are in later."""
    from feast.data_source import DataSource
    from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
    from google.protobuf.json_format import ParseDict

    proto: Any = ParseDict(stream.to_feast(), DataSourceProto(), ignore_unknown_fields=True)
    proto.timestamp_field = batch_source.timestamp_field
    proto.batch_source.CopyFrom(batch_source.to_proto())
    return DataSource.from_proto(proto)


def _feast_field(column: Column) -> Any:
    import feast
    from feast.types import from_value_type

    return feast.Field(name=column.name, dtype=from_value_type(getattr(feast.ValueType, column.type)))


def _feast_projection(view: Any, projection: Projection, here: Collection[str]) -> Any:
    # Feast fetches what an on-demand view is made of by itself.
    taken: Any = view[[each for each in projection.features if each in here and each not in projection.hidden]]
    if projection.alias != projection.view:
        taken = taken.with_name(projection.alias)
    return taken.with_join_key_map(dict(projection.join_key_map)) if projection.join_key_map else taken
