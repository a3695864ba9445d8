"""A progress bar of bytes for a person who waits."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Generator

    from fairlead.sync.store.blocks import Progress


@contextmanager
def progress_bar(title: str, stream: TextIO | None = None, *, after_seconds: float = 0.0) -> Generator[Progress]:
    """Show a bar on `stream` (None: standard error) once the block has lasted `after_seconds`.

    What it gives is told (bytes done, bytes in all), from any thread. The bar goes away with the block, and is shown
    only where somebody may watch: on a terminal, in a notebook.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(file=stream, stderr=stream is None)
    if not console.is_terminal and not console.is_jupyter:
        yield lambda _done, _total: None
        return
    # Without markup: a name such as `[red]` is a name.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(title, total=None)
    shown_at = time.monotonic() + after_seconds

    def advance(done: int, total: int | None) -> None:
        bar.update(task, completed=done, total=total)
        if time.monotonic() >= shown_at:
            bar.start()

    try:
        advance(0, None)
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
