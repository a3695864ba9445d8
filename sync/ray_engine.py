"""Ray as the engine of a worker: the packs of one artifact are brought by the processes of the region's cluster.

Every node of the cluster has Fairlead installed, and credentials of its own for the locations, as a worker has; what
travels between worker and cluster is which blocks to bring, and where they are now. The lease, the fencing, the reading
back and the recording stay with the worker. Encrypted artifacts are copied by the worker itself: its keys stay there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import FairleadError, MissingExtra, Unavailable
from fairlead.sync.pack_transfer import BroughtPack, PackPiece, bring_pack
from fairlead.sync.store.memory import keep_freed_memory
from fairlead.sync.store.objects import OpenStores
from fairlead.sync.transfer import Patience, PatientStore, StoreAddress

if TYPE_CHECKING:
    from fairlead.core.ports import ObjectStore
    from fairlead.sync.store.domain import DedupDomain

_PIECES_PER_CPU = 2


class RayEngine:
    """Brings packs on a Ray cluster: the one at `address`, or one of this machine alone where it is None.

    The cluster is connected to when it is first needed. Safe to use from several threads.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._guard = threading.Lock()
        self._task: Any = None
        self._at_once = 1

    def bring(
        self, source: StoreAddress, destination: StoreAddress, domain: DedupDomain, pieces: Iterator[PackPiece]
    ) -> Iterator[BroughtPack]:
        """Bring packs, as many at a time as the cluster has room for, and give each when it has arrived.

        Raises:
            MissingExtra: if Ray is not installed here.
            Unavailable: if the cluster does not answer or lost a task; it may be tried again.
            FairleadError: what `bring_pack` raised.
        """
        ray = self._connect()
        running: list[Any] = []
        try:
            for piece in pieces:
                if len(running) >= self._at_once:
                    yield from self._take_done(ray, running)
                running.append(self._task.remote(source, destination, domain, piece))
            while running:
                yield from self._take_done(ray, running)
        finally:
            for each in running:
                with contextlib.suppress(Exception):
                    ray.cancel(each)

    def _take_done(self, ray: Any, running: list[Any]) -> Iterator[BroughtPack]:
        done, _ = ray.wait(running, num_returns=1)
        for each in done:
            running.remove(each)
            try:
                yield ray.get(each)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, FairleadError):
                    raise error.cause from error
                raise
            except ray.exceptions.RayError as error:
                raise Unavailable(
                    f"The Ray cluster lost a transfer ({type(error).__name__}).", hint="It is tried again by itself."
                ) from error

    def _connect(self) -> Any:
        try:
            import ray
        except ImportError as error:
            raise MissingExtra(
                "The engine `ray` needs the extra `ray`.", hint="Run: pip install 'fairlead[ray]'"
            ) from error
        with self._guard:
            if self._task is None:
                try:
                    if not ray.is_initialized():
                        ray.init(
                            address=self._address, include_dashboard=False, log_to_driver=False, configure_logging=False
                        )
                    cpus = ray.cluster_resources().get("CPU", 1)
                except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
                    raise Unavailable(
                        f"The Ray cluster does not answer ({type(error).__name__}).", hint="Check FAIRLEAD_RAY_ADDRESS."
                    ) from error
                self._at_once = max(1, round(cpus * _PIECES_PER_CPU))
                # A task that failed on a store is tried again by the worker, which counts attempts and backs off.
                self._task = ray.remote(num_cpus=1 / _PIECES_PER_CPU, max_retries=0)(_bring)
        return ray


def _bring(source: StoreAddress, destination: StoreAddress, domain: DedupDomain, piece: PackPiece) -> BroughtPack:
    keep_freed_memory()
    return bring_pack(_open(source), _open(destination), domain, piece)


def _open(address: StoreAddress) -> ObjectStore:
    return PatientStore(_stores()(*address), patience=Patience())


@cache
def _stores() -> Callable[[str, Mapping[str, object]], ObjectStore]:
    return OpenStores()
