"""Fairlead as an offline store of Feast, over the same sources that Feast knows.

Feast finds it by the class path `fairlead.featurestore.feast_offline.FairleadOfflineStore`. Sources are read where
`feast.FeatureStore` runs, with DuckDB: Parquet files here or in a bucket, PostgreSQL and DuckDB databases. Views that
are at home in another region are joined there. Every entity row is kept, in order. Importing this module imports Feast;
only Feast does so.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.utils import compute_non_entity_date_range
from pydantic import Field

from fairlead.core.clock import format_time
from fairlead.core.errors import InvalidInput, PermissionDenied
from fairlead.featurestore.duck import ArrowTable, fetch_arrow, load_arrow, quote_name, quote_text
from fairlead.featurestore.feast_appends import append_rows, open_place
from fairlead.featurestore.feast_entities import read_entity_rows, select_entity_rows
from fairlead.featurestore.feast_federation import FederationConfig, is_elsewhere, join_elsewhere
from fairlead.featurestore.feast_history import Question, WantedView, check_rows, join_here, keys_between
from fairlead.featurestore.feast_rows import Columns, SourceReader
from fairlead.featurestore.ray_joins import join_on_ray

_COMPILED_REGISTRY = "fairlead.sdk.feast_registry.FairleadRegistryStore"


class FairleadOfflineStoreConfig(FeastConfigBaseModel):
    """How joins run, and what may be read besides files."""

    type: Literal["fairlead.featurestore.feast_offline.FairleadOfflineStore"] = (
        "fairlead.featurestore.feast_offline.FairleadOfflineStore"
    )
    memory_limit: str = "1GiB"
    """How much DuckDB keeps in memory before it spills to a temporary folder."""
    connections: dict[str, str] = Field(default_factory=dict[str, str], repr=False)
    """Addresses of databases by the names that sources give them (tag `fairlead.connection`)."""
    engine: Literal["embedded", "ray"] = "embedded"
    """Where joins run: in this process, or on a Ray cluster whose nodes reach the sources."""
    ray_address: str | None = None
    """The cluster; without it the one that this process is connected to, or one of this machine alone."""
    ray_share_rows: int = Field(default=100_000, gt=0)
    """About how many entity rows one task joins."""
    federation: FederationConfig | None = None
    """Where views with a home in another region are joined; without it all sources are read here."""


class FairleadRetrievalJob(RetrievalJob):
    """Rows that are computed when they are asked for."""

    def __init__(
        self,
        evaluate: Callable[[], ArrowTable],
        *,
        config: RepoConfig,
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._config = config
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features are called `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast computes from the rows, in this process."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Which features, keys and times were asked for."""
        return self._metadata

    def to_batches(self, rows: int = 65_536) -> Iterator[Any]:
        """The result as Arrow record batches of at most `rows` rows."""
        yield from self.to_arrow().to_batches(max_chunksize=rows)

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,  # noqa: FBT001, FBT002
        timeout: int | None = None,  # noqa: ARG002
    ) -> None:
        """Write the result as Parquet: to a file if the path ends in `.parquet`, and else into a folder.

        What is overwritten is replaced: a folder with all that lies in it.

        Raises:
            InvalidInput: if the storage is no SavedDatasetFileStorage.
            PermissionDenied: if the registry is one that Fairlead compiled, which would not take the saved dataset.
            SavedDatasetLocationAlreadyExists: if there is something, and it may not be overwritten.
        """
        if getattr(self._config.registry, "registry_store_type", None) == _COMPILED_REGISTRY:
            raise PermissionDenied(
                "This Feast repository was compiled by Fairlead and is for reading, so it keeps no saved datasets.",
                hint="Write the rows where you want them: pyarrow.parquet.write_table(job.to_arrow(), path).",
            )
        if not isinstance(storage, SavedDatasetFileStorage):
            raise InvalidInput(
                f"A result cannot be kept in a {type(storage).__name__}.", hint="Use SavedDatasetFileStorage(path=...)."
            )
        uri = FileSource.get_uri_for_file_path(self._config.repo_path, storage.file_options.uri)
        if not allow_overwrite and "://" not in uri and Path(uri).exists():
            raise SavedDatasetLocationAlreadyExists(location=storage.file_options.uri)
        filesystem, path = open_place(uri, storage.file_options.s3_endpoint_override)
        arrow: Any = load_arrow()
        table = cast("Any", self.to_arrow())
        if path.endswith(".parquet"):
            arrow.parquet.write_table(table, path, filesystem=filesystem)
        else:
            arrow.dataset.write_dataset(
                table,
                path,
                filesystem=filesystem,
                format="parquet",
                existing_data_behavior="delete_matching" if allow_overwrite else "error",
            )

    def _to_arrow_internal(self, timeout: int | None = None) -> ArrowTable:  # noqa: ARG002
        return self._evaluate()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:  # noqa: ARG002
        return cast("pd.DataFrame", self._evaluate().to_pandas())


class FairleadOfflineStore(OfflineStore):
    """Point-in-time joins and reads of sources for `feast.FeatureStore`."""

    supports_filter_by_created_timestamp = True

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """The columns of a source and their types, as its class calls them.

        A database is asked by the connection that it is read by; Feast's classes know those of Feast's stores alone.
        """
        if isinstance(data_source, FileSource):
            return super().get_table_column_names_and_types_from_data_source(config, data_source)
        return _reader(config).described(data_source)

    @staticmethod
    def get_historical_features(  # noqa: PLR0917  (Feast's signature)
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002
        *,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Join entity rows with features, each row as of its own time; or, without rows, all entities as of one time.

        `entity_df` may also be a SELECT (DuckDB's SQL) over the project's data sources, by their names.

        Raises:
            InvalidInput: if the entity rows lack a key or a time.
        """
        reader = _reader(config)
        views = _wanted(feature_views, feature_refs, full_feature_names=full_feature_names)
        if entity_df is None:
            time_column = "event_timestamp"
            start, end = compute_non_entity_date_range(feature_views, start_date=start_date, end_date=end_date)
            if strangers := [each.view.name for each in views if is_elsewhere(each, _settings(config).federation)]:
                raise InvalidInput(
                    f"Which entities view {strangers[0]!r} has is known in its home region alone.",
                    hint="Give entity rows.",
                )
            rows = keys_between(reader, views, start=start, end=end, time_column=time_column)
            bounds = (start, end)
        else:
            frame = (
                select_entity_rows(reader, entity_df, registry.list_data_sources(project)).to_pandas()
                if isinstance(entity_df, str)
                else entity_df
            )
            kinds = cast("Any", frame.dtypes)
            time_column = infer_event_timestamp_from_entity_df(dict(kinds.items()))
            rows, bounds = read_entity_rows(frame, time_column)
        question = Question(views=tuple(views), time_column=time_column, is_known=filter_by_created_timestamp)
        return FairleadRetrievalJob(
            lambda: _join(config, rows, question),
            config=config,
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in rows.column_names if name != time_column],
                min_event_timestamp=bounds[0],
                max_event_timestamp=bounds[1],
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0917
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The last row of each entity between two times, both included."""
        times = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]

        def finish(columns: Columns, query: str) -> str:
            keys = ", ".join(columns.sql(key) for key in join_key_columns)
            terms = [columns.time(name) for name in times]
            terms += [columns.ranked(name) for name in sorted(feature_name_columns)]
            ranking = ", ".join(f"{term} DESC NULLS LAST" for term in terms)
            partition = f"PARTITION BY {keys} " if keys else ""
            return f"{query} QUALIFY row_number() OVER ({partition}ORDER BY {ranking}) = 1"

        return _pull(
            config,
            data_source,
            keys=join_key_columns,
            others=[*feature_name_columns, *times],
            window=(timestamp_field, start_date, end_date),
            finish=finish,
        )

    @staticmethod
    def pull_all_from_table_or_query(  # noqa: PLR0917
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows between two times, both included."""
        times = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        return _pull(
            config,
            data_source,
            keys=join_key_columns,
            others=[*feature_name_columns, *times],
            window=(timestamp_field, start_date, end_date),
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: ArrowTable,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Add rows to the source of a view: Parquet files, or a table of DuckDB or PostgreSQL (see `append_rows`)."""
        append_rows(config, feature_view.batch_source, table, view=feature_view.name)
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: ArrowTable | Path,
        source: LoggingSource,  # noqa: ARG004
        logging_config: LoggingConfig,
        registry: BaseRegistry,  # noqa: ARG004
    ) -> None:
        """Add a file of logs to a folder of Parquet files, here or in a bucket.

        Raises:
            InvalidInput: if the destination is no FileLoggingDestination.
        """
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise InvalidInput(
                f"Features cannot be logged to a {type(destination).__name__}.",
                hint="Use FileLoggingDestination(path=...).",
            )
        arrow = load_arrow()
        rows = arrow.dataset.dataset(data, format="parquet") if isinstance(data, Path) else data
        uri = FileSource.get_uri_for_file_path(config.repo_path, destination.path)
        filesystem, path = open_place(uri, destination.s3_endpoint_override)
        arrow.dataset.write_dataset(
            rows,
            path,
            basename_template=f"{secrets.token_hex(16)}-{{i}}.parquet",
            partitioning=destination.partition_by,
            filesystem=filesystem,
            format="parquet",
            existing_data_behavior="overwrite_or_ignore",
        )


def _join(config: RepoConfig, rows: ArrowTable, question: Question) -> ArrowTable:
    """The entity rows, with the features of the views as further columns."""
    federation = _settings(config).federation
    for wanted in question.views:
        check_rows(rows, wanted)
    elsewhere = tuple(wanted for wanted in question.views if is_elsewhere(wanted, federation))
    here = replace(question, views=tuple(each for each in question.views if not is_elsewhere(each, federation)))
    columns = dict(_join_here(config, rows, here))
    if federation is not None and elsewhere:
        columns |= join_elsewhere(federation, rows, replace(question, views=elsewhere))
    for wanted in question.views:
        for _, name in wanted.features:
            rows = rows.append_column(name, columns[name])
    return rows


def _join_here(config: RepoConfig, rows: ArrowTable, question: Question) -> Mapping[str, Any]:
    settings = _settings(config)
    join = partial(join_here, _reader(config), question=question)
    if settings.engine == "embedded" or not question.views:
        return join(rows)
    keys = dict.fromkeys(name for wanted in question.views for _, name in wanted.keys)
    return join_on_ray(
        join,
        rows.select([*keys, question.time_column]),
        list(keys),
        address=settings.ray_address,
        share_rows=settings.ray_share_rows,
    )


def _settings(config: RepoConfig) -> FairleadOfflineStoreConfig:
    return cast("FairleadOfflineStoreConfig", config.offline_store)


def _reader(config: RepoConfig) -> SourceReader:
    store = _settings(config)
    return SourceReader(repo_path=config.repo_path, connections=store.connections, memory_limit=store.memory_limit)


def _wanted(views: Sequence[FeatureView], references: Sequence[str], *, full_feature_names: bool) -> list[WantedView]:
    found: list[WantedView] = []
    for view in views:
        name = view.projection.name_to_use()
        features = [feature for owner, _, feature in (each.partition(":") for each in references) if owner == name]
        known = {feature.name for feature in view.features}
        if missing := [feature for feature in features if feature not in known]:
            # (the error that Feast's own stores give)
            raise KeyError(f"View {name!r} has no feature {missing[0]!r}.")
        prefix = f"{view.projection.name_alias or view.name}__" if full_feature_names else ""
        if features:
            found.append(WantedView(view=view, features=tuple((each, prefix + each) for each in features)))
    return found


def _pull(
    config: RepoConfig,
    source: DataSource,
    *,
    keys: Sequence[str],
    others: Sequence[str],
    window: tuple[str, datetime | None, datetime | None],
    finish: Callable[[Columns, str], str] | None = None,
) -> RetrievalJob:
    """Columns of a source, by its own names, in the window of a column of times; `finish` completes the query."""
    reader = _reader(config)
    names = [*keys, *others]
    since, until = (each.replace(tzinfo=each.tzinfo or UTC) if each else None for each in window[1:])

    def evaluate() -> ArrowTable:
        with reader.open() as connection:
            columns = reader.columns(connection, source, owner=source.name, needed=names, since=since, until=until)
            taken = ", ".join(f"{columns.sql(name)} AS {quote_name(name)}" for name in dict.fromkeys(names))
            if not keys:
                # So Feast calls the one entity of what is about nobody.
                taken += f", {quote_text(DUMMY_ENTITY_VAL)} AS {quote_name(DUMMY_ENTITY_ID)}"
            event = columns.time(window[0])
            bounds = [
                f"{event} {operator} TIMESTAMPTZ {quote_text(format_time(moment))}"
                for operator, moment in ((">=", since), ("<=", until))
                if moment
            ]
            query = f"SELECT {taken} FROM {columns.relation}" + (f" WHERE {' AND '.join(bounds)}" if bounds else "")  # noqa: S608
            return fetch_arrow(connection, finish(columns, query) if finish else query)

    return FairleadRetrievalJob(evaluate, config=config)
