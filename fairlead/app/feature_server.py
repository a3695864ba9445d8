"""The feature server: one region's online features over HTTP, in the JSON of Feast's feature server.

It is a process of its own on a machine of its region, reads the region's online stores through their engine, and asks
the registry for two things only: whose a token is, and what a service computes on demand. Both answers are kept. While
the registry is away, a token that it knew goes on for `offline_seconds`, one that it never saw is refused as
`server-unavailable`, and features are read as ever.

Code of on-demand views runs here and nowhere else of Fairlead's processes, and only if whoever started the server said
so.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson
from anyio.to_thread import run_sync

from fairlead.app.feature_measurements import Measurements
from fairlead.app.kept_answers import OFFLINE_SECONDS, KeptAnswers
from fairlead.core.clock import format_time, parse_time
from fairlead.core.errors import (
    CodeRefused,
    FairleadError,
    FeaturesStale,
    InvalidInput,
    NotReady,
    PermissionDenied,
    SnapshotNotOnline,
    Unauthenticated,
)
from fairlead.core.ids import parse_digest, parse_name
from fairlead.featurestore.online_answers import (
    Columns,
    Question,
    Selection,
    add_computed,
    answer,
    select,
    select_all,
)
from fairlead.featurestore.online_engines import NEWEST, OnlineEngine, OnlineStoreReader, StoreName
from fairlead.featurestore.online_reader import OnlineStoreError

if TYPE_CHECKING:
    from fairlead.featurestore.online_reader import ViewColumns
    from fairlead.featurestore.served_log import ServedLog
    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.on_demand import OnDemandCode

STORES_KEPT_SECONDS = 5.0
"""How long the list of the region's stores is taken to be still so."""

_SELECTIONS_KEPT = 1000
_QUICK_ENTITIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An answer: its body, and what it was answered from."""

    body: bytes
    labels: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Computed:
    """What a version of a service hides of its stored features, and computes of them."""

    hidden: frozenset[str]
    views: Sequence[str]
    code: OnDemandCode | None


@dataclass(slots=True, kw_only=True)
class _Opened:
    """A store that is read, and the selections that were made of it while it held one version of the service."""

    name: StoreName
    reader: OnlineStoreReader
    service_digest: str = ""
    selections: dict[tuple[Any, ...], tuple[Selection | None, _Computed]] = field(
        default_factory=dict[tuple[Any, ...], "tuple[Selection | None, _Computed]"]
    )


class FeatureServer:
    """Answers questions about one region's online features.

    Args:
        client: the registry, with the server's own token, whose workspace is served.
        engine: the region's online stores.
        region: where this is.
        run_code: whether code of on-demand views may run here.
        connect: makes a client that speaks with a caller's token.
        log: what is served is noted there, if it is.
        offline_seconds: how long what the registry said of a token stands while it is away.
        monotonic: seconds that only grow.
    """

    def __init__(
        self,
        client: Fairlead,
        *,
        engine: OnlineEngine,
        region: str,
        connect: Callable[[str], Fairlead],
        run_code: bool = False,
        log: ServedLog | None = None,
        offline_seconds: float = OFFLINE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.region = region
        self.measurements = Measurements()
        self._client = client
        self._workspace = str(client.whoami()["workspace_id"])
        self._engine = engine
        self._connect = connect
        self._run_code = run_code
        self._log = log
        self._offline_seconds = offline_seconds
        self._monotonic = monotonic
        self._allowed: KeptAnswers[str, bool] = KeptAnswers(monotonic)
        self._computed: dict[tuple[str, str], _Computed] = {}
        self._opened: dict[tuple[str, str], _Opened] = {}
        self._listed: tuple[float, list[StoreName]] = (-STORES_KEPT_SECONDS, [])
        self._lock = threading.Lock()
        self._is_local = engine.kind == "sqlite"

    async def admit(self, token: str | None) -> None:
        """Let a caller in who may read.

        Raises:
            Unauthenticated: without a token, or with one that the registry does not know.
            PermissionDenied: if it may not read in the workspace that is served.
            ServerUnavailable: if the registry is away and has not said lately whose it is.
        """
        if token is None:
            raise Unauthenticated("This feature server wants a token.", hint="Send Authorization: Bearer TOKEN.")
        key = hashlib.sha256(token.encode()).hexdigest()
        is_allowed = self._allowed.peek(key)
        if is_allowed is None:
            is_allowed = await run_sync(
                lambda: self._allowed.get(key, lambda: self._ask_for(token), stands_seconds=self._offline_seconds)
            )
        if not is_allowed:
            raise PermissionDenied(
                "This token may not read features here.", hint="It needs the scope `read` in the server's workspace."
            )

    async def read(self, question: Question) -> Served:
        """Answer a question that was let in.

        Raises:
            InvalidInput: if a key is missing or of the wrong type, or no store has what is asked for.
            NotReady: if the region does not serve the service.
            SnapshotNotOnline: if it does not keep the snapshot.
            FeaturesStale: if what it has is older than was asked for.
            CodeRefused: if the answer takes running code, and nobody said that it may.
        """
        began = self._monotonic()
        # A file of this machine is read faster than a thread is asked to; who asks for much lets others in between.
        is_quick = self._is_local and question.count <= _QUICK_ENTITIES
        if is_quick and self._is_prepared(question):
            opened, prepared = self._prepare(question)
        else:
            # The registry may have to be asked what the service computes.
            opened, prepared = await run_sync(self._prepare, question)
        if is_quick:
            meta, found, columns = self._look_up(question, opened, prepared)
        else:
            meta, found, columns = await run_sync(self._look_up, question, opened, prepared)
        labels = self._labels(question, meta, opened)
        _, computed = prepared
        if computed.code is not None:
            await run_sync(self._compute, question, found, columns, computed)
        self.measurements.answered(
            opened.name.service,
            entities=question.count,
            statuses=[status for view in found for status in view.statuses],
            seconds=self._monotonic() - began,
        )
        if self._log is not None:
            self._log.note(opened.name.service, meta["snapshot"], found)
        return Served(body=columns.to_json(labels), labels=labels)

    def services(self) -> list[dict[str, Any]]:
        """What each store of the region says of itself: service, slot, snapshot, age.

        Raises:
            Unavailable: if the stores cannot be reached.
        """
        found: list[dict[str, Any]] = []
        for name in self._stores():
            try:
                meta = self._open(name).reader.meta
            except (FileNotFoundError, OnlineStoreError):
                continue
            found.append(
                {
                    "service": name.service,
                    "slot": name.slot,
                    "snapshot": meta["snapshot"],
                    "age_seconds": _age(meta["as_of"]),
                }
            )
        return found

    def measure(self) -> str:
        """What was counted, and how old the stores are, for Prometheus."""
        try:
            services = self.services()
        except FairleadError:
            # What was counted is wanted then more than ever.
            services = []
        return self.measurements.to_text(services)

    def close(self) -> None:
        """Close the stores, and write what was noted."""
        for opened in self._opened.values():
            opened.reader.close()
        if self._log is not None:
            self._log.close()

    def _ask_for(self, token: str) -> bool:
        client = self._connect(token)
        try:
            said: Any = client.whoami()
        finally:
            client.close()
        may_read = bool({"read", "admin"} & set(said["scopes"]))
        return may_read and said["workspace_id"] == self._workspace

    def _stores(self) -> list[StoreName]:
        at, found = self._listed
        if self._monotonic() - at >= STORES_KEPT_SECONDS:
            found = self._engine.stores(self._workspace, self.region)
            self._listed = (self._monotonic(), found)
            for key in self._opened.keys() - {(name.service, name.slot) for name in found}:
                # What an open file holds stays on the disk.
                self._opened.pop(key).reader.close()
        return found

    def _open(self, name: StoreName) -> _Opened:
        key = (name.service, name.slot)
        opened = self._opened.get(key)
        if opened is None:
            reader = self._engine.reader(name)
            # What is not there is not remembered: whoever asks makes up the names.
            _ = reader.meta
            with self._lock:
                opened = self._opened.setdefault(key, _Opened(name=name, reader=reader))
        return opened

    def _prepare(self, question: Question) -> tuple[_Opened, tuple[Selection, _Computed]]:
        if question.service is not None:
            opened = self._find_service(question.service, question.slot)
            found = self._select(opened, question)
        else:
            candidates = [name for name in self._stores() if name.slot == NEWEST]
            for name in candidates:
                opened = self._open(name)
                found = self._select(opened, question)
                if found[0] is not None:
                    break
            else:
                asked = ", ".join(f"{view}:{feature}" for view, feature in question.features)
                raise InvalidInput(
                    f"No service that is served in {self.region} has all of {asked[:200]}.",
                    hint='Name the service: "feature_service": NAME. It also gives what is computed on demand.',
                )
        selection, computed = found
        if selection is None:
            raise NotReady(f"{question.service!r} is being replaced.", hint="Ask again.")
        if computed.views and computed.code is None:
            raise CodeRefused(
                f"The service {question.service!r} takes features that code of its on-demand views makes: "
                f"{', '.join(computed.views)}.",
                hint="Where you trust who applied them: fairlead features serve --run-code.",
            )
        return opened, (selection, computed)

    def _is_prepared(self, question: Question) -> bool:
        opened = self._opened.get((question.service or "", question.slot))
        if opened is None or (question.features, question.has_full_names) not in opened.selections:
            return False
        try:
            return opened.reader.meta["service_digest"] == opened.service_digest
        except FileNotFoundError:
            return False

    def _find_service(self, service: str, slot: str) -> _Opened:
        name = StoreName(
            workspace_id=self._workspace,
            service=parse_name(service, what="feature service"),
            region=self.region,
            slot=NEWEST if slot == NEWEST else parse_digest(slot),
        )
        try:
            return self._open(name)
        except FileNotFoundError:
            if slot == NEWEST:
                raise NotReady(
                    f"The service {service!r} is not served online in {self.region}.",
                    hint=f"Ask for it: fairlead features materialize {service}",
                    service=service,
                    region=self.region,
                ) from None
        newest = self._find_service(service, NEWEST)
        if newest.reader.meta["snapshot"] != slot:
            raise SnapshotNotOnline(
                f"{self.region} does not keep the snapshot {slot} of {service!r} online.",
                hint=f"Serve it instead of the newest: fairlead features materialize {service} --snapshot {slot}; "
                "what a holder of an environment pins is kept by itself.",
                service=service,
                snapshot=slot,
                region=self.region,
            )
        return newest

    def _select(self, opened: _Opened, question: Question) -> tuple[Selection | None, _Computed]:
        """Which features are given; made once for each question's form and version of the service."""
        digest = opened.reader.meta["service_digest"]
        if digest != opened.service_digest:
            opened.selections, opened.service_digest = {}, digest
        key = (question.features, question.has_full_names)
        found = opened.selections.get(key)
        if found is None:
            views = opened.reader.views
            nothing = _Computed(hidden=frozenset(), views=(), code=None)
            if question.service is None:
                found = select(views, question.features, has_full_names=question.has_full_names), nothing
            else:
                computed = self._find_computed(opened.name.service, digest)
                found = select_all(views, computed.hidden, has_full_names=question.has_full_names), computed
            if len(opened.selections) >= _SELECTIONS_KEPT:
                opened.selections.clear()
            opened.selections[key] = found
        return found

    def _find_computed(self, service: str, digest: str) -> _Computed:
        found = self._computed.get((service, digest))
        if found is None:
            said = self._client.features.on_demand(service, digest=digest)
            inputs: Any = said["inputs"]
            views: Any = said["views"]
            code = None
            if views and self._run_code:
                from fairlead.sdk.on_demand import OnDemandCode

                code = OnDemandCode.load(said)
                self.measurements.loaded(service, code.names)
            found = self._computed[service, digest] = _Computed(
                hidden=frozenset(each["column"] for each in inputs if each["is_hidden"]),
                views=tuple(each["view"] for each in views),
                code=code,
            )
        return found

    def _look_up(
        self, question: Question, opened: _Opened, prepared: tuple[Selection, _Computed]
    ) -> tuple[dict[str, str], list[ViewColumns], Columns]:
        selection, computed = prepared
        try:
            # Code may take more than is given.
            wanted = None if computed.code is not None else selection.views.keys()
            meta, found = opened.reader.read_columns(question.entities, views=wanted)
            return meta, found, answer(question, opened.reader.views, found, selection)
        except FileNotFoundError:
            raise NotReady(
                f"The store of {opened.name.service!r} is gone.", hint="It is made again by itself."
            ) from None
        except KeyError:
            # Another version of the service took its place meanwhile.
            raise NotReady(f"{opened.name.service!r} is being replaced.", hint="Ask again.") from None
        except OnlineStoreError as error:
            raise InvalidInput(str(error), hint="Send each join key of the views that are asked for.") from error

    def _compute(self, question: Question, found: Sequence[ViewColumns], columns: Columns, computed: _Computed) -> None:
        if computed.code is None:
            return
        given: dict[str, Sequence[Any]] = dict(question.entities)
        for view in found:
            given |= view.features
        for each in computed.code.compute(given):
            name = f"{each.alias}__{each.feature}" if question.has_full_names else each.name
            add_computed(columns, name, each.values, each.type)

    def _labels(self, question: Question, meta: Mapping[str, str], opened: _Opened) -> dict[str, Any]:
        age = _age(meta["as_of"])
        labels: dict[str, Any] = {
            "region": self.region,
            "service": opened.name.service,
            "snapshot": meta["snapshot"],
            "as_of": meta["as_of"],
            "age_seconds": age,
            "missing_views": [
                *(view.alias for view in opened.reader.views if view.is_missing),
                *orjson.loads(meta.get("not_in_region", "[]")),
            ],
        }
        if question.max_staleness_seconds is not None and age > question.max_staleness_seconds:
            raise FeaturesStale(
                f"{self.region} serves {opened.name.service!r} as of {format_time(_parsed(meta['as_of']))}, "
                f"{age:.0f} s ago.",
                hint=f"Take a newer one: fairlead features snapshot {opened.name.service}; or allow what is older.",
                region=self.region,
                snapshot=meta["snapshot"],
                age_seconds=age,
            )
        return labels


_parsed = lru_cache(maxsize=1024)(parse_time)


def _age(as_of: str) -> float:
    return round(max(0.0, (datetime.now(UTC) - _parsed(as_of)).total_seconds()), 3)
