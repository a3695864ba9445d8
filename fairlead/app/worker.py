"""`fairlead worker`: does the work of some regions, beside any number of others."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING

from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.core.clock import SystemClock
from fairlead.sync.store.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Sequence


def run_worker(*, regions: Sequence[str]) -> None:
    """Work until SIGTERM or SIGINT; what runs then is finished first.

    Raises:
        UnknownRegion: naming the nearest spellings.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep_freed_memory()
    service = Service.build(ServerSettings.read(), SystemClock(), is_embedded=False)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        for region in regions:
            service.catalog.catalog.region(region)
        service.start(regions=regions)
        sys.stdout.write(f"Working for {', '.join(regions)}\n")
        sys.stdout.flush()
        stop.wait()
    finally:
        service.close()
