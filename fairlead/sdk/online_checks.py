"""Checks of what online stores serve: against their snapshot, and against what a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.artifacts import READY_TIMEOUT_SECONDS, wait_until
from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionCheck(Record):
    """What one region found; of data under a residency class counts and verdicts alone."""

    region: str
    state: str
    findings: dict[str, Any] | None
    error_detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineCheck(Record):
    """A check. Once it is done, `problems` says in words what is not as it should be."""

    id: str
    kind: str
    service: str
    snapshot: str
    settings: dict[str, Any]
    is_done: bool
    problems: tuple[str, ...]
    regions: tuple[RegionCheck, ...]


class OnlineChecks:
    """Has regions compare what they serve, each within itself."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def parity(
        self,
        service: str,
        *,
        snapshot: str | None = None,
        sample: int = 1000,
        seed: str = "fairlead",
        wait: bool = True,
    ) -> OnlineCheck:
        """Compare every region's store with the snapshot that it should serve, for `sample` entities of each view.

        The same seed takes the same entities. Without a difference among `n` of them it can be said, at 95 %, that
        fewer than `3 / n` of all differ.

        Raises:
            FeatureServiceNotFound, SnapshotNotFound
            NotReady: if no region serves the service.
            TimeoutError: if a region does not answer in time.
        """
        return self._start(service, {"kind": "parity", "snapshot": snapshot, "sample": sample, "seed": seed}, wait=wait)

    def skew(
        self, service: str, *, snapshot: str | None = None, psi: float = 0.2, ks: float = 0.2, wait: bool = True
    ) -> OnlineCheck:
        """Compare what feature servers logged with a snapshot's rows, feature by feature.

        Raises:
            FeatureServiceNotFound, SnapshotNotFound
            NotReady: if no region serves the service.
            TimeoutError: if a region does not answer in time.
        """
        return self._start(service, {"kind": "skew", "snapshot": snapshot, "psi": psi, "ks": ks}, wait=wait)

    def get(self, check: str) -> OnlineCheck:
        """A check, as far as it is done.

        Raises:
            FeatureCheckNotFound
        """
        return OnlineCheck.from_json(self._transport.get(f"/api/v1/features/checks/{quote(check, safe='')}"))

    def _start(self, service: str, body: dict[str, JsonValue], *, wait: bool) -> OnlineCheck:
        name = quote(parse_name(service, what="feature service"), safe="")
        seen = [OnlineCheck.from_json(self._transport.post(f"/api/v1/features/services/{name}/checks", body))]

        def is_done() -> bool:
            seen[:] = [self.get(seen[0].id)]
            return seen[0].is_done

        if wait and not seen[0].is_done:
            wait_until(is_done, f"the check of {service}", READY_TIMEOUT_SECONDS)
        return seen[0]
