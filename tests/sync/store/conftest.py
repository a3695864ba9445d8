"""What the tests of the content store share."""

from __future__ import annotations

import pytest

from fairlead.sync.store.domain import DedupDomain
from fairlead.testing.objects import MemoryStore

pytest.register_assert_rewrite("fairlead.testing.object_store_suite")


@pytest.fixture
def domain() -> DedupDomain:
    """A domain without restrictions."""
    return DedupDomain("acme", "global")


@pytest.fixture
def store() -> MemoryStore:
    """An empty location."""
    return MemoryStore()
