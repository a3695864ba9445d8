"""A region's online store as an online store of Feast, for reading.

Feast finds it by the class path `fairlead.featurestore.feast_online.FairleadSqliteOnlineStore`, with the file as
`path`. Materializing is what Fairlead's workers do, so every write is refused before it has an effect. Importing this
module imports Feast; only Feast does so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from feast.feature_view import FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values

from fairlead.core.errors import InvalidInput, PermissionDenied
from fairlead.featurestore.online_reader import OnlineReader

# Feast's own code calls these by position, and has no types of use.
_to_python: Callable[[Value], Any] = feast_value_type_to_python_type
_to_values: Callable[..., list[Value]] = python_values_to_proto_values


class FairleadSqliteOnlineStoreConfig(FeastConfigBaseModel):
    """Where the file is."""

    type: Literal["fairlead.featurestore.feast_online.FairleadSqliteOnlineStore"] = (
        "fairlead.featurestore.feast_online.FairleadSqliteOnlineStore"
    )
    path: str


class FairleadSqliteOnlineStore(OnlineStore):
    """Reads the file that a region's worker materialized; a new snapshot is seen at the next read."""

    def __init__(self) -> None:
        self._reader: OnlineReader | None = None

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """For each entity the event time and features, or (None, None) where none are given out.

        Raises:
            InvalidInput: if the store has not all of the features, because the service does not take them.
        """
        if self._reader is None:
            store: Any = config.online_store
            self._reader = OnlineReader(store.path)
        keys = [dict(zip(key.join_keys, map(_to_python, key.entity_values), strict=True)) for key in entity_keys]
        kinds = {field.name: field.dtype.to_value_type() for field in table.features}
        wanted = kinds if requested_features is None else {name: kinds[name] for name in requested_features}
        answer: list[tuple[datetime | None, dict[str, Value] | None]] = []
        for found in self._reader.read_view(_taken_as(self._reader, config, table, wanted), keys):
            if found is None:
                answer.append((None, None))
                continue
            moment, features = found
            values = {name: _to_values([features[name]], kind)[0] for name, kind in wanted.items()}
            answer.append((moment, values))
        return answer

    def online_write_batch(self, *_: Any, **__: Any) -> None:
        """Refuse.

        Raises:
            PermissionDenied: always.
        """
        raise _is_read_only()

    def update(self, *_: Any, **__: Any) -> None:
        """Refuse.

        Raises:
            PermissionDenied: always.
        """
        raise _is_read_only()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Refuse.

        Raises:
            PermissionDenied: always.
        """
        raise _is_read_only()


def _taken_as(reader: OnlineReader, config: RepoConfig, view: FeatureView, wanted: Collection[str]) -> str:
    """The name under which the store has features of a view.

    That is the one it is asked by; or, for who asks by reference, another one under which the service takes the view.

    Raises:
        InvalidInput: if it has not all of them under one name.
    """
    stored = {each.alias: {own for _, _, own in each.features} for each in reader.views}
    asked = view.projection.name_to_use()
    # (usual and cheap; the registry is a file)
    names = [asked] if stored.get(asked, set()) >= set(wanted) else _names_of(config, view.name)
    for name in names:
        if stored.get(name, set()) >= set(wanted):
            return name
    held = set[str]().union(*(stored.get(name, set()) for name in names))
    missing = sorted(set(wanted) - held) or sorted(wanted)
    raise InvalidInput(
        f"The online store of service {reader.meta['service']!r} has no feature {missing[0]!r} of view {asked!r}.",
        hint="Ask for what the service takes (by the service, where it takes the view by several names), "
        "or let it take the feature, apply and materialize.",
    )


def _names_of(config: RepoConfig, view: str) -> list[str]:
    """The names under which the service of a compiled repository takes a view."""
    compiled: Any = config.registry
    registry: Any = Registry.FromString((Path(config.repo_path or "") / compiled.path).read_bytes())
    return [
        taken.feature_view_name_alias or taken.feature_view_name
        for service in registry.feature_services
        for taken in service.spec.features
        if taken.feature_view_name == view
    ]


def _is_read_only() -> PermissionDenied:
    return PermissionDenied(
        "This online store is for reading.",
        hint="Apply with `fairlead features apply` and materialize with `fairlead features materialize`.",
    )
