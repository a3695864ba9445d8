"""Online reads over HTTP from feature servers: the nearest region first, the next one where that does not answer.

Which regions may answer, and in which order, is what the registry says; it is kept, and goes on to be used while the
registry is away. Each answer says the region, the snapshot and its age.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, cast

from fairlead.core.errors import (
    FairleadError,
    FeatureServerUnavailable,
    FeaturesStale,
    InvalidInput,
    JsonValue,
    NotReady,
    SnapshotNotOnline,
    Unauthenticated,
)
from fairlead.core.problems import from_problem
from fairlead.sdk.feature_servers import FeatureServers, OnlineRoute, OnlineRoutes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    import httpx2

    from fairlead.sdk.transport import JsonObject

ROUTES_KEPT_SECONDS = 30.0
"""How long what the registry says of routes is taken to be still so."""

_CONNECT_SECONDS = 1.0
_PASSED_OVER_SECONDS = 5.0
_OK = 200
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineFeatures:
    """An answer: `names` and `columns` in the order of the service, and what it was answered from.

    `statuses` are Feast's: PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE.
    """

    region: str
    snapshot: str
    as_of: str
    age_seconds: float
    missing_views: tuple[str, ...]
    names: tuple[str, ...]
    columns: tuple[tuple[Any, ...], ...]
    statuses: tuple[tuple[str, ...], ...]

    @classmethod
    def from_json(cls, answer: Any) -> OnlineFeatures:
        """Read what a feature server answered."""
        labels = answer["metadata"]["fairlead"]
        return cls(
            region=labels["region"],
            snapshot=labels["snapshot"],
            as_of=labels["as_of"],
            age_seconds=labels["age_seconds"],
            missing_views=tuple(labels["missing_views"]),
            names=tuple(answer["metadata"]["feature_names"]),
            columns=tuple(tuple(each["values"]) for each in answer["results"]),
            statuses=tuple(tuple(each["statuses"]) for each in answer["results"]),
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One object for each entity: keys and features by name."""
        return [dict(zip(self.names, row, strict=True)) for row in zip(*self.columns, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """The answer as the API gives it: `{region, snapshot, as_of, age_seconds, missing_views, rows}`."""
        return {
            "region": self.region,
            "snapshot": self.snapshot,
            "as_of": self.as_of,
            "age_seconds": self.age_seconds,
            "missing_views": list(self.missing_views),
            "rows": self.rows,
        }

    def to_dict(self) -> dict[str, list[Any]]:
        """The columns by name, as `to_dict` of Feast's answers."""
        return {name: list(column) for name, column in zip(self.names, self.columns, strict=True)}


class OnlineReads:
    """Reads one service from the region that is nearest and fresh enough. Threads may share it.

    Args:
        servers: where routes come from.
        authorization: the header that says who is calling.
        service: the service; `SERVICE@DIGEST` is one snapshot of it.
        near: the region that this client is in.
        max_staleness: how old the data may be; None: as old as it is.
        timeout_seconds: the longest silence of one server before the next is asked.
    """

    def __init__(
        self,
        servers: FeatureServers,
        *,
        authorization: Callable[[], str | None],
        service: str,
        near: str | None,
        max_staleness: timedelta | None = None,
        timeout_seconds: float = 2.0,
    ) -> None:
        import httpx2

        self._servers = servers
        self._authorization = authorization
        self._service, _, snapshot = service.partition("@")
        self._snapshot = snapshot or None
        self._near = near
        self._max_staleness = None if max_staleness is None else max_staleness.total_seconds()
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds)), trust_env=False
        )
        self._lock = threading.Lock()
        self._kept: tuple[float, OnlineRoutes] | None = None
        self._down: dict[str, float] = {}

    def read(self, entities: Mapping[str, Sequence[Any]], *, has_full_names: bool = False) -> OnlineFeatures:
        """Features of entities, which are columns of join keys of one length.

        Raises:
            FeaturesStale: if nothing that may answer is as fresh as was asked for; it names the freshest.
            SnapshotNotOnline: if no region that may answer keeps the snapshot.
            NotReady: if no region that may answer serves the service.
            FeatureServerUnavailable: if none of the servers answers.
            InvalidInput: if the request is wrong.
        """
        reference = self._service if self._snapshot is None else f"{self._service}@{self._snapshot}"
        body: dict[str, Any] = {
            "feature_service": reference,
            "entities": {name: list(values) for name, values in entities.items()},
            "full_feature_names": has_full_names,
        }
        if self._max_staleness is not None:
            body["max_staleness_seconds"] = self._max_staleness
        try:
            content = json.dumps(body, allow_nan=False, default=_plain).encode()
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                "A join key has a value that is neither text nor a number.", hint="Send keys as the view has them."
            ) from error
        answer = self._try(self._routes(), content)
        if isinstance(answer, OnlineFeatures):
            return answer
        if not isinstance(answer, FeaturesStale):
            # Servers may have come or gone.
            answer = self._try(self._routes(is_fresh=True), content)
            if isinstance(answer, OnlineFeatures):
                return answer
        raise answer

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """The reader; its connections are closed at the end of the block."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the connections."""
        self.close()

    def _routes(self, *, is_fresh: bool = False) -> OnlineRoutes:
        with self._lock:
            kept = self._kept
        now = time.monotonic()
        if kept is not None and not is_fresh and now - kept[0] < ROUTES_KEPT_SECONDS:
            return kept[1]
        try:
            found = self._servers.routes(self._service, near=self._near, snapshot=self._snapshot)
        except FairleadError as error:
            if kept is None or error.status < _SERVER_ERROR:
                raise
            found = kept[1]
        with self._lock:
            self._kept = (now, found)
        return found

    def _try(self, found: OnlineRoutes, content: bytes) -> OnlineFeatures | FairleadError:
        """The first answer, or else what stood in the way."""
        stale: list[FeaturesStale] = []
        others: list[FairleadError] = []
        asked: list[str] = []
        for route, url in self._in_order(found):
            asked.append(route.region)
            answer = self._ask(url, content)
            if isinstance(answer, OnlineFeatures):
                return answer
            if isinstance(answer, FeaturesStale):
                stale.append(answer)
            elif isinstance(answer, NotReady):
                others.append(answer)
            elif answer is not None:
                return answer
        if stale:
            return self._all_stale(stale)
        return others[0] if others else self._no_answer(found, asked)

    def _in_order(self, found: OnlineRoutes) -> list[tuple[OnlineRoute, str]]:
        """Nearest first; last of all those that just failed, and regions too old as far as the record knows."""
        now, moment = time.monotonic(), datetime.now(UTC)
        ordered = [(route, url) for route in found.routes for url in route.urls]

        def key(each: tuple[OnlineRoute, str]) -> tuple[bool, bool]:
            age = (moment - each[0].as_of).total_seconds()
            is_old = self._max_staleness is not None and age > self._max_staleness
            return self._down.get(each[1], 0.0) > now, is_old

        return sorted(ordered, key=key)

    def _ask(self, url: str, content: bytes) -> OnlineFeatures | FairleadError | None:
        """An answer, a refusal, or None where the next one should be asked."""
        import httpx2

        authorization = self._authorization()
        headers = {"content-type": "application/json", **({"authorization": authorization} if authorization else {})}
        try:
            response = self._http.post(f"{url}/get-online-features", content=content, headers=headers)
            if response.status_code == _OK:
                self._down.pop(url, None)
                return OnlineFeatures.from_json(response.json())
            refusal = _to_error(response)
        except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError):
            refusal = None
        # A server whose registry is away may not know a token that another one knows.
        if refusal is None or refusal.status >= _SERVER_ERROR or isinstance(refusal, Unauthenticated):
            self._down[url] = time.monotonic() + _PASSED_OVER_SECONDS
            return refusal if isinstance(refusal, Unauthenticated) else None
        return refusal

    def _all_stale(self, stale: Sequence[FeaturesStale]) -> FeaturesStale:
        freshest = min(stale, key=lambda each: cast("float", each.attributes["age_seconds"]))
        said = freshest.attributes
        return FeaturesStale(
            f"No region's {self._service!r} is at most {self._max_staleness:.0f} s old; the freshest is that of "
            f"{said['region']}, {said['age_seconds']:.0f} s.",
            hint=f"Take a newer snapshot: fairlead features snapshot {self._service}; or allow what is older.",
            region=said["region"],
            snapshot=said["snapshot"],
            age_seconds=said["age_seconds"],
        )

    def _no_answer(self, found: OnlineRoutes, asked: Sequence[str]) -> FairleadError:
        left_out = "".join(f" {region} may not: {reason}." for region, reason in found.left_out.items())
        if asked:
            regions: list[JsonValue] = [*dict.fromkeys(asked)]
            return FeatureServerUnavailable(
                f"No feature server of {self._service!r} answers; asked in {', '.join(map(str, regions))}.{left_out}",
                hint="See which there are: fairlead features servers list",
                regions=regions,
            )
        if self._snapshot is not None and not found.routes:
            return SnapshotNotOnline(
                f"No region that may answer keeps the snapshot {self._snapshot} of {self._service!r} online.{left_out}",
                hint=f"Serve it instead of the newest: fairlead features materialize {self._service} --snapshot "
                f"{self._snapshot}; what a holder of an environment pins is kept by itself.",
                service=self._service,
                snapshot=self._snapshot,
            )
        if found.routes:
            places = ", ".join(route.region for route in found.routes)
            return FeatureServerUnavailable(
                f"{self._service!r} is online in {places}, and no feature server is listed there.{left_out}",
                hint="Start one: fairlead features serve --region REGION",
            )
        return NotReady(
            f"The service {self._service!r} is served in no region that may answer.{left_out}",
            hint=f"Ask for it: fairlead features materialize {self._service}",
            service=self._service,
        )


def _plain(value: object) -> object:
    """A number of NumPy as Python's."""
    item: Callable[[], object] | None = getattr(value, "item", None)
    if item is None:
        raise TypeError
    return item()


def _to_error(response: httpx2.Response) -> FairleadError:
    problem: JsonObject | None
    try:
        problem = response.json()
    except ValueError:
        problem = None
    return from_problem(problem, status=response.status_code)
