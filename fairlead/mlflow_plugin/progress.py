"""Progress as MLflow's users ask for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR

if TYPE_CHECKING:
    from collections.abc import Generator

    from fairlead.sync.store.blocks import Progress

AFTER_SECONDS = 2.0
"""How long a transfer lasts before a bar is shown."""


@contextmanager
def show_progress(what: str) -> Generator[Progress | None]:
    """A bar for a transfer that takes long, unless MLflow's bars are switched off."""
    from fairlead.sdk.progress_bar import progress_bar

    if not MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get():
        yield None
        return
    with progress_bar(what, after_seconds=AFTER_SECONDS) as progress:
        yield progress
