"""Feast's provider of a repository over a region: reads and materializes, pushes through Fairlead, defines nothing.

Feast finds it by the class path `fairlead.sdk.feast_provider.FairleadProvider`. Feast asks its provider before it
writes a registry or makes a table, so what a compiled repository cannot do is refused here, before it has an effect.
Importing this module imports Feast; only Feast does so.
"""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from feast.data_source import PushSource
from feast.feature_view import DUMMY_ENTITY_FIELD, DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME, DUMMY_ENTITY_VAL
from feast.infra.passthrough_provider import PassthroughProvider

from fairlead.core.errors import PermissionDenied
from fairlead.sdk.feast_registry import RepositoryPlace, is_compiled, undo_changes
from fairlead.sdk.feast_repo import ONLINE_STORE, reporter


class FairleadProvider(PassthroughProvider):
    """A provider for reading what Fairlead compiled."""

    def update_infra(self, *_: Any, **__: Any) -> None:
        """Refuse: `feast apply` would come to nothing.

        Raises:
            PermissionDenied: always.
        """
        # Feast has put what it applies into the registry in memory by now.
        undo_changes(self._folder)
        raise is_compiled()

    def teardown_infra(self, *_: Any, **__: Any) -> None:
        """Refuse.

        Raises:
            PermissionDenied: always.
        """
        raise is_compiled()

    def materialize_single_feature_view(self, config: Any, feature_view: Any, *args: Any, **kwargs: Any) -> None:
        """Materialize into an online store of the user's own.

        Raises:
            PermissionDenied: if the online store is the region's.
        """
        if self._is_of_the_region():
            raise PermissionDenied(
                "The region's online store is materialized by its workers.",
                hint="Run: fairlead features materialize SERVICE; or write the repository with --own-online-store.",
            )
        self._make_table(feature_view)
        super().materialize_single_feature_view(config, feature_view, *args, **kwargs)

    def ingest_df(self, feature_view: Any, df: Any, field_mapping: Any = None) -> None:
        """Rows that are pushed online: into the region's stores by Fairlead, or into the user's own.

        Raises:
            PermissionDenied: if the view has no push source, and the online store is the region's.
        """
        if self._is_of_the_region():
            self._push(feature_view, df, "online")
        else:
            self._make_table(feature_view)
            super().ingest_df(*_with_every_key(feature_view, df), field_mapping)

    async def ingest_df_async(self, feature_view: Any, df: Any, field_mapping: Any = None) -> None:
        """As `ingest_df`."""
        self.ingest_df(feature_view, df, field_mapping)

    def ingest_df_to_offline_store(self, feature_view: Any, table: Any) -> None:
        """Rows that are pushed offline: into the log that later snapshots have. A replica is never written.

        Raises:
            PermissionDenied: if the view has no push source.
        """
        self._push(feature_view, table.to_pandas(), "offline")

    def get_table_column_names_and_types_from_data_source(self, config: Any, data_source: Any) -> list[tuple[str, str]]:
        """The columns of a replica without the key of a view without an entity, which nobody has in what they push."""
        found: Any = super().get_table_column_names_and_types_from_data_source(config, data_source)
        return [(name, kind) for name, kind in found if name != DUMMY_ENTITY_ID]

    def _make_table(self, feature_view: Any) -> None:
        # `feast apply` would have made it.
        store: Any = self.online_store
        store.update(self.repo_config, [], [feature_view], [], [], partial=True)

    def _push(self, feature_view: Any, df: Any, to: str) -> None:
        source: Any = feature_view.stream_source
        if not isinstance(source, PushSource):
            raise PermissionDenied(
                f"View {feature_view.name!r} has no push source, so no rows are taken for it.",
                hint="Give it source=PushSource(...), and apply it with `fairlead features apply PATH`.",
            )
        place = RepositoryPlace.read(self._folder)
        reporter().push(source.name, df, to=to, region=place.region)

    @property
    def _folder(self) -> Path:
        return Path(self.repo_config.repo_path or "")

    def _is_of_the_region(self) -> bool:
        store: Any = self.repo_config.online_store
        return store is not None and str(store.type) == ONLINE_STORE


def _with_every_key(feature_view: Any, df: Any) -> tuple[Any, Any]:
    """A view without an entity with the key that Feast reads it by, which Feast leaves out where it writes a frame."""
    if feature_view.entities:
        return feature_view, df
    keyed = copy(feature_view)
    keyed.entities, keyed.entity_columns = [DUMMY_ENTITY_NAME], [DUMMY_ENTITY_FIELD]
    return keyed, df.assign(**{DUMMY_ENTITY_ID: DUMMY_ENTITY_VAL})
