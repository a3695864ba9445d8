"""Feast's own universal offline tests, over Fairlead's offline store.

They are in Feast's repository and in no package of it. In a checkout of the release that is locked here:

    git clone --depth 1 --branch v0.67.0 https://github.com/feast-dev/feast && cd feast
    pip install -e '.[ci]' -e FAIRLEAD
    cd sdk/python
    PYTHONPATH=.:FAIRLEAD/tests/feast_suite FULL_REPO_CONFIGS_MODULE=fairlead_repo_configuration \\
        FEAST_IS_LOCAL_TEST=True python -m pytest --integration tests/universal/offline_store

`FAIRLEAD` is this repository. Only Feast's tests import this module.
"""

from __future__ import annotations

from typing import Any

from fairlead.featurestore.feast_offline import FairleadOfflineStoreConfig

# Feast's tests, which have no types and are found in its checkout alone.
from tests.universal.feature_repos.integration_test_repo_config import (  # pyright: ignore[reportMissingImports]
    IntegrationTestRepoConfig,  # pyright: ignore[reportUnknownVariableType]
)
from tests.universal.feature_repos.universal.data_sources.file import (  # pyright: ignore[reportMissingImports]
    FileDataSourceCreator,  # pyright: ignore[reportUnknownVariableType]
)


class FairleadDataSourceCreator(FileDataSourceCreator):  # pyright: ignore[reportUntypedBaseClass]
    """Feast's Parquet files, read by Fairlead."""

    def create_offline_store_config(self) -> Any:
        """The store that is tested."""
        return FairleadOfflineStoreConfig()


FULL_REPO_CONFIGS: list[Any] = [
    IntegrationTestRepoConfig(
        provider="local", offline_store_creator=FairleadDataSourceCreator, online_store={"type": "sqlite"}
    )
]
