"""Where deployments run: the port that every deploy target implements, and the words it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fairlead.core.ids import Digest, RegionId


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """What should run in one region. `online_store` is where that region's features are read, None for a model without.

    Two specs are equal when one process can serve for both.
    """

    workspace_id: str
    deployment: str
    region: RegionId
    residency: str
    bundle_digest: Digest
    online_store: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEndpoint:
    """What runs in one region. `process_id` is None where the target has no processes of its own."""

    spec: EndpointSpec
    url: str
    process_id: int | None


class NoLongerWanted(Exception):
    """What was being started is wanted no more; nothing of it is left, and what ran before still runs."""


class DeployTarget(Protocol):
    """Runs one endpoint per deployment and region.

    Every call may be repeated: `ensure` and `stop` do nothing where their wish is true already. `Unavailable` may be
    retried; `ReplicaUnavailable` and `IntegrityError` may be retried once the region's replica is mended.
    """

    def ensure(
        self,
        spec: EndpointSpec,
        switch: Callable[[RunningEndpoint], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> RunningEndpoint:
        """Make exactly this run and answer.

        A new endpoint is started beside the old one; `switch` is called once it is healthy and before the old one
        ends, so that traffic has moved by then. It is also called where the right endpoint runs already. `is_wanted`
        is asked while a new endpoint gets ready, so that nothing newer waits for one that is slow, or hangs.

        Raises:
            NoLongerWanted: once `is_wanted` says no; the new endpoint has ended.
        """
        ...

    def observe(self, workspace_id: str, deployment: str, region: str) -> RunningEndpoint | None:
        """What runs there now, without asking it anything; None where nothing does. Cheap."""
        ...

    def stop(self, workspace_id: str, deployment: str, region: str) -> None:
        """End the endpoint, letting it finish the requests it has begun."""
        ...
