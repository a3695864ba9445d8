"""A Ray cluster of two processes on loopback, with a small object store."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest


@contextmanager
def ray_cluster() -> Generator[Any]:
    """Have this process connected to the cluster while the block runs; yields the module `ray`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray: Any = import_module("ray")
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=80_000_000,
            log_to_driver=False,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
        )
        # Both processes are up before there is work, so that neither does all of it.
        ray.get([ray.remote(num_cpus=0.5)(lambda: time.sleep(0.5)).remote() for _ in range(2)])
        yield ray
        ray.shutdown()
