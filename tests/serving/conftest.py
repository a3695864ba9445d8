"""One bundle, built once, for every test that serves or reads one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.core.ids import Digest
from fairlead.serving.bundle import build_bundle
from fairlead.serving.recipe import Recipe
from tests.serving.models import write_model

WEIGHTS = (0.5, -0.25, 0.125)
RECIPE = Recipe(reference="Churn EU/2", artifact_digest=Digest("sha256:" + "ab" * 32), feature_service="diagnosis")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return RECIPE


@pytest.fixture(scope="session")
def weights() -> tuple[float, float, float]:
    return WEIGHTS


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the small model; copy it before you change it."""
    folder = tmp_path_factory.mktemp("bundle")
    build_bundle(RECIPE, write_model(folder / "model", *WEIGHTS), folder / "bundle")
    return folder / "bundle"
