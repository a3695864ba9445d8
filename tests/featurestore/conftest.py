"""What tests of the feature store share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.featurestore.federation_world import FederationWorld, open_federation


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationWorld]:
    """Three regions around one server: a test that loses an agent starts it again."""
    with open_federation(tmp_path_factory.mktemp("federation")) as found:
        yield found
