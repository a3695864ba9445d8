"""Feast's own universal offline tests, over Fairlead's offline store.

They are in Feast's repository and in no package of it. Where there is a checkout of the release that is locked here,
`make test` runs them (tests/featurestore/test_feast_suite.py says which):

    git clone --depth 1 --branch v0.67.0 https://github.com/feast-dev/feast
    .tools/uv/bin/uv pip install --python .venv/bin/python -r tests/feast_suite/requirements.txt
    FEAST_CHECKOUT=$PWD/feast make test ARGS=tests/featurestore/test_feast_suite.py

Only Feast's tests import this module.
"""

from __future__ import annotations

from typing import Any

import duckdb

from fairlead.featurestore.feast_offline import FairleadOfflineStoreConfig
from fairlead.featurestore.feast_sources import DuckDBSource

# Feast's tests, which have no types and are found in its checkout alone.
from tests.universal.feature_repos.integration_test_repo_config import (  # pyright: ignore[reportMissingImports]
    IntegrationTestRepoConfig,  # pyright: ignore[reportUnknownVariableType]
)
from tests.universal.feature_repos.repo_configuration import (  # pyright: ignore[reportMissingImports]
    OFFLINE_STORE_TO_PROVIDER_CONFIG,  # pyright: ignore[reportUnknownVariableType]
)
from tests.universal.feature_repos.universal.data_sources.file import (  # pyright: ignore[reportMissingImports]
    FileDataSourceCreator,  # pyright: ignore[reportUnknownVariableType]
)


class FairleadDataSourceCreator(FileDataSourceCreator):  # pyright: ignore[reportUntypedBaseClass]
    """Feast's Parquet files, read by Fairlead."""

    def create_offline_store_config(self) -> Any:
        """The store that is tested."""
        return FairleadOfflineStoreConfig()


class FairleadDatabaseDataSourceCreator(FairleadDataSourceCreator):
    """Tables of DuckDB databases, so that the tests that need SQL run too."""

    def create_data_source(
        self,
        df: Any,
        destination_name: str,
        created_timestamp_column: Any = "created_ts",
        field_mapping: Any = None,
        timestamp_field: Any = "ts",
    ) -> Any:
        """A database of one table, which is called as the source is."""
        table = destination_name
        creator: Any = super()
        files: Any = creator.create_data_source(df, table, created_timestamp_column, field_mapping, timestamp_field)
        database = f"{files.path}.duckdb"
        with duckdb.connect(database) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"CREATE TABLE \"{table}\" AS FROM '{files.path}'")
        return DuckDBSource(
            name=table,
            database=database,
            table=table,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=files.field_mapping,
        )


FULL_REPO_CONFIGS: list[Any] = [
    IntegrationTestRepoConfig(provider="local", offline_store_creator=creator, online_store={"type": "sqlite"})
    for creator in (FairleadDataSourceCreator, FairleadDatabaseDataSourceCreator)
]

# What is for stores of files alone asks by this name, and would else find Feast's own.
OFFLINE_STORE_TO_PROVIDER_CONFIG["file"] = ("local", FairleadDataSourceCreator)
