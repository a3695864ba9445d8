"""Features: apply definitions, take snapshots, build training sets, read online."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from fairlead.core.clock import format_time
from fairlead.core.errors import CodeRefused, InvalidInput, JsonValue, MissingExtra
from fairlead.core.ids import parse_name
from fairlead.sdk.artifacts import READY_TIMEOUT_SECONDS, recorded_error, wait_until
from fairlead.sdk.feast_repo import report_materialized, write_feast_repo
from fairlead.sdk.feature_servers import FeatureServers
from fairlead.sdk.local_reads import LocalReads
from fairlead.sdk.online_checks import OnlineChecks
from fairlead.sdk.online_reads import OnlineReads
from fairlead.sdk.pushes import ARROW_STREAM, PushedRows, push_path, push_rows
from fairlead.sdk.records import OnlineState, Snapshot
from fairlead.sdk.settings import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    import pandas as pd

    from fairlead.sdk.transport import JsonObject, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedData:
    """The feature service version and the snapshot that a model was trained on."""

    service: str
    service_digest: str
    snapshot_digest: str

    @classmethod
    def of(cls, snapshot: Snapshot) -> PinnedData:
        """What a READY snapshot pins."""
        return cls(
            service=snapshot.service,
            service_digest=snapshot.service_digest or "",
            snapshot_digest=snapshot.digest or "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Entity rows with the features as they were known at each row's time, and what they came from.

    `frame` has one row for each entity row, in the same order: the entity row's columns, then the features.
    `not_in_region` are features that were left out because they may not be where the result went.
    """

    frame: pd.DataFrame
    pinned: PinnedData
    not_in_region: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRows:
    """A view's rows of a snapshot in a file. `not_in_region` are the features that were left out."""

    path: Path
    snapshot: str
    view: str
    not_in_region: tuple[str, ...]


class Features:
    """Feature views and services, defined with Feast's own objects."""

    def __init__(self, transport: Transport, settings: ClientSettings | None = None) -> None:
        self._transport = transport
        self._settings = settings or ClientSettings()
        self.servers = FeatureServers(transport)
        self.checks = OnlineChecks(transport)

    def apply(
        self,
        definitions: Path | str | Sequence[object],
        *,
        dry_run: bool = False,
        force: bool = False,
        prune: bool = False,
    ) -> JsonObject:
        """Apply Feast objects, or the path of a Feast repository; answers what was added, changed or left.

        Each view's version is the hash of what changes its values or schema. The definitions are read here, on the
        client; the server executes none of it. `force` also does what breaks a model that holds an environment, and
        `prune` takes away what the repository's project has no more.

        Raises:
            FeatureDefinitionInvalid: naming the object and the field.
            FeaturesInUse: naming the models that take what would be gone.
            InvalidInput: if the path is no Feast repository.
            MissingExtra: without `fairlead[features]`.
        """
        from fairlead.sdk.feast_objects import load_repository, to_wire

        body: dict[str, JsonValue] = {"dry_run": dry_run, "force": force, "prune": prune}
        if isinstance(definitions, str | Path):
            repository = load_repository(Path(definitions))
            objects, body["project"] = repository.objects, repository.project
        else:
            objects = list(definitions)
        body["objects"] = cast("list[JsonValue]", to_wire(objects))
        return self._transport.post("/api/v1/features/apply", body)

    def feast_repo(self, service: str, *, region: str, to: Path | str, own_online_store: bool = False) -> str:
        """Write a folder that `feast.FeatureStore(repo_path=...)` opens, over what a region serves of a service.

        It reads a copy of the region's replica, and the region's online store where that is a file of this machine;
        otherwise, and with `own_online_store`, a SQLite store of its own, which `feast materialize` fills. Write it
        again for a newer snapshot. Answers the snapshot's digest.

        Raises:
            FeatureServiceNotFound, UnknownRegion, NotReady, ReplicaUnavailable, ResidencyViolation.
            InvalidInput: if the folder is a Feast repository of another kind.
        """
        return write_feast_repo(self._transport, service, region, Path(to), own_online_store=own_online_store)

    def report_materialized(
        self, service: str, *, region: str, store: str, intervals: Sequence[Mapping[str, JsonValue]]
    ) -> None:
        """Tell what Feast materialized in a region: `{view, snapshot, start, end}` each, into the store of that name.

        Raises:
            FeatureServiceNotFound, UnknownRegion
            InvalidInput: if an interval ends before it begins.
        """
        report_materialized(self._transport, service, region, store, [dict(each) for each in intervals])

    def push(
        self,
        source: str,
        rows: pd.DataFrame | Sequence[Mapping[str, Any]],
        *,
        to: str = "online_and_offline",
        region: str | None = None,
        event_ids: Sequence[str] | None = None,
    ) -> list[PushedRows]:
        """Push rows of a stream into every view that takes them: online and into the offline log, at once.

        When this returns, the rows are durable. Each event counts once, whatever is pushed again: its id is in the
        column `event_id` or in `event_ids`, or else derived from the row. `to` is `online`, `offline` or
        `online_and_offline`. `rows` are a data frame, an Arrow table, or a list of objects.

        Raises:
            PushSourceNotFound: if no view takes rows from it.
            FeatureRowsInvalid: naming the rows that do not fit; of their request none was taken.
            ResidencyViolation: naming the regions where the rows may be pushed.
        """
        return push_rows(self._transport, source, rows, to=to, region=region, event_ids=event_ids)

    def push_source(self, source: str) -> JsonObject:
        """A stream: its topic, the format of its messages and the views that it feeds.

        Raises:
            PushSourceNotFound
        """
        return self._transport.get(push_path(source))

    def logs(self, view: str) -> list[JsonObject]:
        """The logs of a view's pushed rows, and how far each region is behind them.

        Raises:
            NotFound: if there is no such view.
        """
        return list(self._transport.items(f"/api/v1/features/views/{quote(view, safe='')}/logs"))

    def diff(self, before: str, after: str) -> JsonObject:
        """What differs between two versions: `{before, after, differences: [{path, effect, before, after}]}`.

        Each is `SERVICE`, `SERVICE:NUMBER`, `view:NAME`, `view:NAME:NUMBER`, a snapshot's digest, or a model version
        (`churn/3`, `churn@production`), which stands for what it pins.

        Raises:
            InvalidInput: if one is a view and the other is not, or a model pins no features.
            NotFound
        """
        return self._transport.get("/api/v1/features/diff", before=before, after=after)

    def services(self) -> list[JsonObject]:
        """Feature services with their present versions."""
        return list(self._transport.items("/api/v1/features/services"))

    def get_service(self, service: str) -> JsonObject:
        """One feature service: its version, digest and definition.

        Raises:
            FeatureServiceNotFound
        """
        return self._transport.get(_service_path(service))

    def views(self) -> list[JsonObject]:
        """Feature views with their present versions."""
        return list(self._transport.items("/api/v1/features/views"))

    def snapshot(self, service: str, *, as_of: datetime | None = None, wait: bool = True) -> Snapshot:
        """Pin the data of a feature service as it was known at a time (now, if none is given).

        Raises:
            FeatureServiceNotFound
            FairleadError: what the worker met, such as a missing file or column.
        """
        body: dict[str, JsonValue] = {"as_of": None if as_of is None else format_time(as_of)}
        snapshot = Snapshot.from_json(self._transport.post(f"{_service_path(service)}/snapshots", body))
        return self.wait_snapshot(snapshot.id) if wait else snapshot

    def get_snapshot(self, digest_or_id: str) -> Snapshot:
        """One snapshot, by its digest or its id.

        Raises:
            SnapshotNotFound
        """
        return Snapshot.from_json(self._transport.get(f"/api/v1/features/snapshots/{quote(digest_or_id, safe=':')}"))

    def snapshots(self, *, service: str | None = None, until: datetime | None = None) -> Iterator[Snapshot]:
        """Snapshots, newest first; with a service, its own; `until`: as of that time or an earlier one."""
        query: dict[str, JsonValue] = {"service": service, "until": None if until is None else format_time(until)}
        return map(Snapshot.from_json, self._transport.items("/api/v1/features/snapshots", **query))

    def export(
        self,
        snapshot: str,
        view: str,
        destination: Path | str,
        *,
        region: str | None = None,
        leave_out: bool = False,
    ) -> ExportedRows:
        """Write the rows of one view of a snapshot, as they were pinned, to a Parquet file in canonical order.

        `region` is where this process runs; what is under a residency class goes only where it may be. With
        `leave_out`, the features that may not are left out in place of refusing.

        Raises:
            SnapshotNotFound, NotFound, NotReady, ResidencyViolation, ReplicaUnavailable.
            InvalidInput: if the file cannot be written.
        """
        path = f"/api/v1/features/snapshots/{quote(snapshot, safe=':')}/views/{quote(view, safe='')}/rows"
        query: dict[str, JsonValue] = {"region": region, "leave_out": leave_out}
        try:
            headers = self._transport.download(path, Path(destination), query=query)
        except OSError as error:
            raise InvalidInput(f"{str(destination)!r} cannot be written: {error.strerror}.") from error
        absent = headers.get("x-fairlead-not-in-region", "")
        return ExportedRows(
            path=Path(destination),
            snapshot=headers["x-fairlead-snapshot"],
            view=view,
            not_in_region=tuple(absent.split(",")) if absent else (),
        )

    def wait_snapshot(
        self,
        digest_or_id: str,
        *,
        timeout_seconds: float = READY_TIMEOUT_SECONDS,
        progress: Callable[[Snapshot], None] | None = None,
    ) -> Snapshot:
        """Wait until every artifact of a snapshot was stored and read back; `progress` is shown it each time."""
        seen: list[Snapshot] = []

        def check() -> bool:
            seen[:] = [self.get_snapshot(digest_or_id)]
            if progress is not None:
                progress(seen[0])
            if seen[0].state == "FAILED":
                raise recorded_error(seen[0].error, "The snapshot failed.")
            return seen[0].state == "READY"

        wait_until(check, "the snapshot to be READY", timeout_seconds)
        return seen[0]

    def training_set(
        self,
        service: str,
        entity_rows: pd.DataFrame,
        *,
        snapshot: str | None = None,
        as_of: datetime | None = None,
        region: str | None = None,
        leave_out: bool = False,
        run_code: bool = False,
    ) -> TrainingSet:
        """Join features to entity rows as of each row's `event_timestamp`: never a value from its future.

        `entity_rows` holds the join keys, `event_timestamp` (aware, UTC), and any columns to keep, such as labels.
        Every row is kept, in order. Without a snapshot digest, the service's newest READY one is used, or with `as_of`
        the newest one that was taken as of that time or an earlier one. What is under a residency class is read only
        where `region` names a region that may hold it; with `leave_out` it is left out elsewhere in place of refusing.

        Features of on-demand views are computed in this process: whoever may apply definitions wrote the code, so it
        is run with `run_code` alone.

        Raises:
            FeatureServiceNotFound, SnapshotNotFound, ResidencyViolation, InvalidInput.
            CodeRefused: if the service takes on-demand views, and `run_code` is not set.
        """
        try:
            arrow: Any = import_module("pyarrow")
        except ModuleNotFoundError as error:
            raise MissingExtra("Training sets need Arrow.", hint="Run: pip install 'fairlead[features]'") from error
        sink = arrow.BufferOutputStream()
        table = arrow.Table.from_pandas(entity_rows, preserve_index=False)
        with arrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        response = self._transport.send(
            "POST",
            "/api/v1/features/historical",
            query={
                "service": parse_name(service, what="feature service"),
                "snapshot": snapshot,
                "as_of": None if as_of is None else format_time(as_of),
                "region": region,
                "leave_out": leave_out,
            },
            content=sink.getvalue().to_pybytes(),
            content_type=ARROW_STREAM,
        )
        joined = arrow.ipc.open_stream(response.content).read_all()
        snapshot_record = self.get_snapshot(response.headers["x-fairlead-snapshot"])
        frame = self._with_on_demand(snapshot_record, joined.to_pandas(), run_code=run_code)
        absent = response.headers.get("x-fairlead-not-in-region", "")
        return TrainingSet(
            frame=frame,
            pinned=PinnedData.of(snapshot_record),
            not_in_region=tuple(absent.split(",")) if absent else (),
        )

    def _with_on_demand(self, snapshot: Snapshot, frame: pd.DataFrame, *, run_code: bool) -> pd.DataFrame:
        from fairlead.sdk.on_demand import add_on_demand

        found = self.on_demand(snapshot.service, digest=snapshot.service_digest)
        if not found["views"]:
            return frame
        if not run_code:
            raise CodeRefused(
                f"The service {snapshot.service!r} takes features that code of its on-demand views makes.",
                hint="Where you trust who applied them: training_set(..., run_code=True).",
            )
        return add_on_demand(frame, found)

    def on_demand(self, service: str, *, digest: str | None = None) -> JsonObject:
        """What a version of a service computes of its stored features where they are read, with its code as data.

        `{service_digest, inputs: [{column, view, feature, is_hidden}], views: [{view, alias, features, spec}]}`.

        Raises:
            FeatureServiceNotFound: if there is no such service or version.
        """
        return self._transport.get(f"{_service_path(service)}/on-demand", digest=digest)

    def materialize(
        self, service: str, *, snapshot: str | None = None, regions: Sequence[str] | None = None, wait: bool = True
    ) -> list[OnlineState]:
        """Load a snapshot into each region's online store, from that region's own replica.

        Without a snapshot the newest one is wanted from now on; without regions, wherever the data may be. Regions
        that are no longer named give their stores up. Answers the state of every region that is left; `wait` waits
        for the named ones.

        Raises:
            FeatureServiceNotFound, SnapshotNotFound, UnknownRegion, ResidencyViolation.
            FairleadError: what a worker met.
        """
        body: dict[str, JsonValue] = {"snapshot": snapshot, "regions": None if regions is None else list(regions)}
        self._transport.post(f"{_service_path(service)}/materialize", body)
        if wait:
            self.wait_materialized(service, regions=regions)
        return self.online_states(service)

    def wait_materialized(
        self,
        service: str,
        *,
        regions: Sequence[str] | None = None,
        timeout_seconds: float = READY_TIMEOUT_SECONDS,
    ) -> list[OnlineState]:
        """Wait until every region (or each of the named ones) serves the snapshot it should.

        Raises:
            FairleadError: what a worker met.
            TimeoutError: if one does not serve it in time.
        """

        def check() -> bool:
            states = [state for state in self.online_states(service) if regions is None or state.region in regions]
            for state in states:
                if state.state == "FAILED":
                    raise recorded_error(state.error, f"Materializing in {state.region} failed.")
            return bool(states) and all(state.state == "READY" for state in states)

        wait_until(check, f"{service} to be online in every region", timeout_seconds)
        return self.online_states(service)

    def online_states(self, service: str) -> list[OnlineState]:
        """Which snapshot each region serves."""
        return [OnlineState.from_json(state) for state in self._transport.items(f"{_service_path(service)}/online")]

    def online(self, service: str, entities: Mapping[str, Sequence[Any]], *, region: str | None = None) -> JsonObject:
        """Read the latest values from a region's online store: `{region, snapshot, rows: [{...}, ...]}`.

        `entities` maps each join key to the values to look up; rows come back in the same order. `SERVICE@DIGEST` is
        one snapshot of the service, where a region serves or keeps it.
        """
        name, at, digest = service.partition("@")
        body: dict[str, JsonValue] = {
            "service": parse_name(name, what="feature service") + at + digest,
            "region": region,
            "entities": {key: list(values) for key, values in entities.items()},
        }
        return self._transport.post("/api/v1/features/online", body)

    def reader(
        self,
        service: str,
        *,
        near: str | None = None,
        max_staleness: timedelta | None = None,
        timeout_seconds: float = 2.0,
    ) -> OnlineReads:
        """Read a service from feature servers: the nearest region's first, the next where that does not answer.

        `SERVICE@DIGEST` is one snapshot of it. `near` is the region that this process is in (FAIRLEAD_REGION by
        default); a service with data under a residency class takes one. Keep the reader for many reads, and close it.
        """
        return OnlineReads(
            self.servers,
            authorization=lambda: self._transport.authorization,
            service=service,
            near=near or self._settings.region,
            max_staleness=max_staleness,
            timeout_seconds=timeout_seconds,
        )

    def local_reader(
        self,
        service: str,
        *,
        region: str | None = None,
        workspace: str | None = None,
        max_staleness: timedelta | None = None,
    ) -> LocalReads:
        """Read a service from a region's store in this process, with no server in between.

        `region` is FAIRLEAD_REGION by default, `workspace` the caller's.

        Raises:
            InvalidInput: if no region is said.
            MissingExtra: without `fairlead[features]`.
        """
        place = region or self._settings.region
        if place is None:
            raise InvalidInput("No region is said.", hint="Name the one that this runs in: region=REGION.")
        return LocalReads(
            service,
            region=place,
            workspace=workspace or str(self._transport.get("/api/v1/whoami")["workspace_id"]),
            folder=self._settings.home.expanduser(),
            engine=self._settings.feature_online_engine,
            max_staleness=max_staleness,
        )


def _service_path(service: str) -> str:
    return f"/api/v1/features/services/{quote(parse_name(service, what='feature service'), safe='')}"
