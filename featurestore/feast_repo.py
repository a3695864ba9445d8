"""A region as Feast sees it: a repository over the region's own replica and its online store.

`feast.FeatureStore(repo_path=...)` then answers `get_historical_features` and `get_online_features` from the snapshot
that the region serves. Definitions are those that the snapshot pins, with the sources' paths rewritten; the repository
is a view of the record and is written again whenever the snapshot changes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.catalog import load_catalog
from fairlead.core.errors import InvalidInput, NotReady
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.merged_rows import fetch_view
from fairlead.featurestore.online_engines import StoreName
from fairlead.featurestore.services import OnDemandProjection, Projection
from fairlead.featurestore.snapshot_views import SnapshotPartName, SnapshotView, snapshot_view
from fairlead.featurestore.snapshots import find_snapshot
from fairlead.featurestore.tables import OnlineStateRow

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.featurestore.applied import PinnedService
    from fairlead.featurestore.joins import ViewRows
    from fairlead.featurestore.online_choice import OnlineEngines
    from fairlead.featurestore.replica_rows import ReplicaRows
    from fairlead.registry.identity import Caller

_ONLINE_STORE = "fairlead.featurestore.feast_online.FairleadSqliteOnlineStore"
_PROJECT = "fairlead"


class FeastRepositories:
    """Writes Feast repositories for regions whose online stores are on this machine."""

    def __init__(self, database: Database, *, replicas: ReplicaRows, engines: OnlineEngines) -> None:
        self._database = database
        self._replicas = replicas
        self._engines = engines

    def write(self, caller: Caller, service: str, region: str, folder: Path) -> str:
        """Write `feature_store.yaml` and `registry.db` into a folder; returns the digest of the snapshot they are of.

        Views and features that may not be in the region are left out of the service.

        Raises:
            NotReady: if the region does not serve the service yet.
            InvalidInput: if its online store is in no file of this machine.
            ReplicaUnavailable: if the region's replica cannot be read.
        """
        name = StoreName(workspace_id=caller.workspace_id, service=service, region=region)
        address = self._engines.of(region).address(name)
        if address is None:
            raise InvalidInput(
                f"The online store of {service!r} in {region} is in no file of this machine.",
                hint="Read it through the feature server of that region.",
            )
        with self._database.read() as session:
            state = session.get(OnlineStateRow, (caller.workspace_id, service, region))
            if state is None or state.served_snapshot is None:
                raise NotReady(
                    f"The service {service!r} is not served online in {region} yet.",
                    hint=f"Ask for it: fairlead features materialize {service}",
                )
            found = snapshot_view(session, find_snapshot(session, caller.workspace_id, state.served_snapshot))
        jurisdiction = load_catalog().region(region).jurisdiction
        parts: dict[str, list[SnapshotPartName]] = {}
        for part in found.permitted(jurisdiction):
            parts.setdefault(part.name, []).append(part)
        rows = {name: fetch_view(self._replicas, each, only=region) for name, each in parts.items()}
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / "registry.db", compile_registry(found, rows))
        _put(folder / "feature_store.yaml", _config(address))
        return found.digest


def compile_registry(found: SnapshotView, rows: Mapping[str, ViewRows]) -> bytes:
    """A Feast registry of the views and features that `rows` hold, and of the service as far as they go."""
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
            entities[entity] = feast.Entity(
                name=entity, join_keys=[key.name], value_type=getattr(feast.ValueType, key.type)
            )
        views[name] = _feast_view(view, [entities[entity] for entity in view.entities], each.path)
        views[name].state = FeatureViewState.AVAILABLE_ONLINE
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
        (registry.data_sources, [view.batch_source for view in views.values()]),
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
        projection.batch_source.CopyFrom(views[projection.feature_view_name].batch_source.to_proto())
        projection.ClearField("stream_source")
    return view


def _on_demand_projection(view: Any, taken: OnDemandProjection) -> Any:
    from feast.protos.feast.core.FeatureViewProjection_pb2 import FeatureViewProjection

    alias = taken.alias if taken.alias != taken.view else ""
    projection: Any = FeatureViewProjection(feature_view_name=taken.view, feature_view_name_alias=alias)
    projection.feature_columns.extend(each for each in view.spec.features if each.name in taken.features)
    return projection


def _feast_view(view: ViewDefinition, entities: list[Any], path: Path) -> Any:
    import feast

    source = feast.FileSource(
        name=f"{view.name}_replica",
        path=str(path),
        timestamp_field=view.source.timestamp_field,
        created_timestamp_column=view.source.created_timestamp_column or "",
    )
    return feast.FeatureView(
        name=view.name,
        entities=entities,
        ttl=timedelta(seconds=float(Decimal(view.ttl_seconds or 0))),
        schema=[_feast_field(column) for column in (*view.keys, *view.features)],
        source=source,
    )


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


def _config(online_path: str) -> bytes:
    import yaml

    config = {
        "project": _PROJECT,
        "provider": "local",
        # The file is written again when the snapshot changes; Feast looks once a minute.
        "registry": {"path": "registry.db", "cache_ttl_seconds": 60},
        "offline_store": {"type": "file"},
        "online_store": {"type": _ONLINE_STORE, "path": online_path},
        "entity_key_serialization_version": 3,
    }
    return yaml.safe_dump(config, sort_keys=False).encode()


def _put(path: Path, content: bytes) -> None:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.partial"
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
