"""A region's online store as an online store of Feast, for reading.

Feast finds it by the class path `fairlead.featurestore.feast_online.FairleadSqliteOnlineStore`, with the file as
`path`. Materializing is what Fairlead's workers do, so every write is refused before it has an effect. Importing this
module imports Feast; only Feast does so.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from feast.feature_view import FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values

from fairlead.core.errors import PermissionDenied
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
        """For each entity the event time and features, or (None, None) where none are given out."""
        if self._reader is None:
            store: Any = config.online_store
            self._reader = OnlineReader(store.path)
        keys = [dict(zip(key.join_keys, map(_to_python, key.entity_values), strict=True)) for key in entity_keys]
        kinds = {field.name: field.dtype.to_value_type() for field in table.features}
        wanted = kinds if requested_features is None else {name: kinds[name] for name in requested_features}
        answer: list[tuple[datetime | None, dict[str, Value] | None]] = []
        for found in self._reader.read_view(table.projection.name_to_use(), keys):
            if found is None:
                answer.append((None, None))
                continue
            moment, features = found
            values = {name: _to_values([features[name]], kind)[0] for name, kind in wanted.items() if name in features}
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


def _is_read_only() -> PermissionDenied:
    return PermissionDenied(
        "This online store is for reading.",
        hint="Apply with `fairlead features apply` and materialize with `fairlead features materialize`.",
    )
