"""Federated reads: features of views that live in different clouds, joined where each lives.

`FederatedReads.read` plans a read at the registry, which refuses what residency rules forbid, and only then sends to
each home region's agent what it needs of the entity rows: join keys, `event_timestamp` and a row number; no label and
no other column. Answers are put together by the row number, so every entity row is kept, in its place. Which value a
row gets is decided by each agent as everywhere else: the last one known at the row's time (of equal event timestamps
the latest created, then the greatest features), and nothing older than the view's TTL.

Another offline store stands on `read`, which takes and gives Arrow tables; people use `get_historical_features`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

from fairlead.core.clock import format_time
from fairlead.core.errors import (
    AgentUnavailable,
    AnswerCorrupt,
    CodeRefused,
    InvalidInput,
    MissingExtra,
    Unavailable,
)
from fairlead.sdk.features import PinnedData
from fairlead.sdk.flight import exchange
from fairlead.sdk.pushes import ARROW_STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pandas as pd

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import JsonObject, Transport

EVENT_TIMESTAMP = "event_timestamp"
ROW_NUMBER = "__row_number"
_HOPS_AT_ONCE = 16

OnUnavailable = Literal["error", "stale", "missing"]
"""What becomes of views whose region does not answer: `AgentUnavailable`, the newest snapshot that is in the reader's
region, or missing values. The latter two are labelled in `FederatedRead.hops`."""

Outcome = Literal["joined", "stale", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HopOutcome:
    """What became of one hop: bytes are those of Arrow's columns, without framing; dollars by the plan's tariffs.

    `snapshots` has the digest and time of what was joined, by view; none for live reads and missing values.
    `age_seconds` is how old a `stale` answer's oldest snapshot was, and `problem` why the region did not answer.
    """

    region: str | None
    views: tuple[str, ...]
    outcome: Outcome
    rows: int
    planned_out: int
    planned_back: int
    bytes_out: int
    bytes_back: int
    planned_usd: Decimal
    usd: Decimal
    snapshots: dict[str, tuple[str, str]]
    age_seconds: float | None
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedRead:
    """The entity rows with features, as an Arrow table; the plan it went by, and what crossed each hop."""

    table: Any
    plan: JsonObject
    hops: tuple[HopOutcome, ...]

    @property
    def pinned(self) -> PinnedData | None:
        """What a model may pin; None for features that were named one by one, live reads, and stand-ins."""
        if self.plan["snapshot"] is None or any(hop.outcome != "joined" for hop in self.hops):
            return None
        return PinnedData(
            service=str(self.plan["service"]),
            service_digest=str(self.plan["service_digest"]),
            snapshot_digest=str(self.plan["snapshot"]),
        )

    def frame(self) -> pd.DataFrame:
        """The same as a data frame."""
        return cast("pd.DataFrame", self.table.to_pandas())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    table: Any | None
    sent: int
    received: int
    outcome: Outcome
    problem: str | None


class FederatedReads:
    """Reads over views of several regions; `region` is where this client is."""

    def __init__(self, transport: Transport, *, region: str | None) -> None:
        self._transport = transport
        self._region = region

    def plan(
        self,
        entity_rows: Any,
        *,
        service: str | None = None,
        features: Sequence[str] = (),
        snapshot: str | None = None,
        live: bool = False,
        live_until: datetime | None = None,
        region: str | None = None,
        residency: str = "unrestricted",
        on_unavailable: OnUnavailable = "error",
    ) -> JsonObject:
        """How a read would go, with nothing sent but the names and sizes of the columns of an Arrow table.

        A `service` (of a `snapshot`, else its newest) or `features` as `view:feature`. `live` reads the views' sources
        in place of snapshots, up to `live_until`. `residency` is the class of the entity rows.

        Raises:
            ResidencyViolation: naming the rule, the view, the class and the region.
            InvalidInput, FeatureServiceNotFound, FeatureViewNotFound, SnapshotNotFound, NotReady.
        """
        _check_names(entity_rows)
        columns: list[JsonValue] = [
            {"name": name, "bytes": _unfolded(entity_rows.column(name)).nbytes} for name in entity_rows.column_names
        ]
        body: dict[str, JsonValue] = {
            "service": service,
            "features": list(features),
            "snapshot": snapshot,
            "live": live,
            "live_until": None if live_until is None else format_time(live_until),
            "region": region or self._region,
            "residency": residency,
            "rows": entity_rows.num_rows,
            "columns": columns,
            "on_unavailable": on_unavailable,
        }
        return self._transport.post("/api/v1/features/plan", body)

    def read(self, entity_rows: Any, *, plan: JsonObject | None = None, **wanted: Any) -> FederatedRead:
        """Join features to the rows of an Arrow table, each view where it lives; `wanted` is as `plan` takes it.

        The entity rows' columns come first, then the features (those that are only there for on-demand views too).
        A plan that was made of the same rows is gone by; it is good for five minutes.

        Raises:
            ResidencyViolation: before anything leaves.
            AgentUnavailable: naming region and views, if a region does not answer and nothing may stand in.
            AgentNotTrusted, AnswerCorrupt: if who answers is not the agent, or answers something else.
            FairleadError: what an agent raised.
        """
        _check_names(entity_rows)
        going = plan or self.plan(entity_rows, **wanted)
        outputs, hops = cast("list[JsonObject]", going["outputs"]), cast("list[JsonObject]", going["hops"])
        if taken := sorted({str(each["column"]) for each in outputs} & set(entity_rows.column_names)):
            raise InvalidInput(
                f"The entity rows already have a column {taken[0]!r}, which is a feature.",
                hint="Leave it out or rename it.",
            )
        policy = cast("OnUnavailable", going["on_unavailable"])
        # Nothing is sent anywhere when it is known that one of them will not answer and nobody may stand in.
        for hop in hops:
            if hop["problem"] is not None and hop["stand_in"] is None:
                raise _no_answer(hop, str(hop["problem"]), policy)
        with ThreadPoolExecutor(max_workers=min(len(hops), _HOPS_AT_ONCE) or 1) as pool:
            asked = [pool.submit(self._ask, hop, entity_rows, policy) for hop in hops]
            answers = [each.result() for each in asked]
        table = entity_rows
        for output in outputs:
            name = f"{output['alias']}__{output['feature']}"
            tables = [each.table for each in answers if each.table is not None]
            column = next((each.column(name) for each in tables if name in each.column_names), None)
            if column is None:
                column = import_module("pyarrow").nulls(entity_rows.num_rows, _arrow_type(str(output["type"])))
            table = table.append_column(str(output["column"]), column)
        outcomes = tuple(_outcome(hop, answer, entity_rows.num_rows) for hop, answer in zip(hops, answers, strict=True))
        return FederatedRead(table=table, plan=going, hops=outcomes)

    def get_historical_features(
        self,
        entity_rows: pd.DataFrame | Any,
        *,
        plan: JsonObject | None = None,
        run_code: bool = False,
        **wanted: Any,
    ) -> FederatedRead:
        """As `read`, of a data frame or Arrow table, with the features of on-demand views, where `run_code` allows it.

        `entity_rows` holds the join keys, `event_timestamp` (aware, UTC), and any columns to keep, such as labels,
        which go nowhere.

        Raises:
            CodeRefused: if the service takes on-demand views, and `run_code` is not set; nothing is sent then.
            FairleadError: as `read` says.
        """
        arrow = _load_arrow()
        is_table = isinstance(entity_rows, arrow.Table)
        table = entity_rows if is_table else arrow.Table.from_pandas(entity_rows, preserve_index=False)
        going = plan or self.plan(table, **wanted)
        on_demand = None
        if going["service_digest"] is not None:
            path = f"/api/v1/features/services/{going['service']}/on-demand"
            on_demand = self._transport.get(path, digest=going["service_digest"])
        if on_demand is None or not on_demand["views"]:
            return self.read(table, plan=going)
        if not run_code:
            raise CodeRefused(
                f"The service {going['service']!r} takes features that code of its on-demand views makes.",
                hint="Where you trust who applied them: get_historical_features(..., run_code=True).",
            )
        from fairlead.sdk.on_demand import add_on_demand

        found = self.read(table, plan=going)
        computed = arrow.Table.from_pandas(add_on_demand(found.frame(), on_demand), preserve_index=False)
        return FederatedRead(table=computed, plan=going, hops=found.hops)

    def _ask(self, hop: JsonObject, entity_rows: Any, policy: OnUnavailable) -> _Answer:
        """Have a hop's rows joined, or whatever stands in for it."""
        sent = _numbered(entity_rows, cast("list[str]", hop["columns"]))
        problem = hop["problem"]
        if problem is None:
            try:
                table, received = self._join(hop, sent)
                return _Answer(table=table, sent=sent.nbytes, received=received, outcome="joined", problem=None)
            except Unavailable as error:
                problem = error.detail
                if hop["stand_in"] is None:
                    if not isinstance(error, AgentUnavailable):
                        error.attributes |= {"region": hop["region"], "views": _view_names(hop)}
                        raise
                    raise _no_answer(hop, problem, policy) from error
        stand_in = cast("JsonObject", hop["stand_in"])
        if stand_in["joiner"] is None:
            return _Answer(table=None, sent=0, received=0, outcome="missing", problem=str(problem))
        table, _ = self._join(stand_in, sent)
        # It is joined in the reader's region: nothing crosses.
        return _Answer(table=table, sent=0, received=0, outcome="stale", problem=str(problem))

    def _join(self, hop: JsonObject, entity_rows: Any) -> tuple[Any, int]:
        ticket = str(hop["ticket"])
        if hop["joiner"] == "service":
            answer = self._join_at_service(ticket, entity_rows)
            received = answer.nbytes
        else:
            agent = cast("JsonObject", hop["agent"])
            authorization = self._transport.authorization or ""
            answer, received = exchange(agent, ticket, entity_rows, authorization=authorization)
        return _in_order(answer, hop, entity_rows.num_rows), received

    def _join_at_service(self, ticket: str, entity_rows: Any) -> Any:
        arrow = _load_arrow()
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, entity_rows.schema) as writer:
            writer.write_table(entity_rows)
        response = self._transport.send(
            "POST",
            "/api/v1/features/federated/join",
            content=sink.getvalue().to_pybytes(),
            content_type=ARROW_STREAM,
            headers={"x-fairlead-ticket": ticket},
        )
        return arrow.ipc.open_stream(response.content).read_all()


def _numbered(entity_rows: Any, columns: Sequence[str]) -> Any:
    arrow = _load_arrow()
    sent = {name: _unfolded(entity_rows.column(name)) for name in columns}
    return arrow.table(sent | {ROW_NUMBER: arrow.array(range(entity_rows.num_rows), arrow.int64())})


def _unfolded(column: Any) -> Any:
    """A column with each value by itself, as joiners take it: a category's text for each row that is of it."""
    arrow = _load_arrow()
    if arrow.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column.cast(arrow.string()) if arrow.types.is_string_view(column.type) else column


def _in_order(answer: Any, hop: JsonObject, rows: int) -> Any:
    """The answer in the order of the entity rows, if it is one: each row once, and the columns that were asked for.

    Raises:
        AnswerCorrupt: if it is not.
    """
    arrow = _load_arrow()
    views = cast("list[JsonObject]", hop["views"])
    asked = [f"{view['alias']}__{feature}" for view in views for feature in cast("list[str]", view["features"])]
    numbers = answer.column(ROW_NUMBER) if ROW_NUMBER in answer.column_names else None
    if numbers is None or sorted(answer.column_names) != sorted([ROW_NUMBER, *asked]):
        raise AnswerCorrupt("An answer has other columns than those that were asked for.", region=hop.get("region"))
    if answer.num_rows == rows and numbers.equals(arrow.chunked_array([arrow.array(range(rows), arrow.int64())])):
        return answer
    ordered = answer.sort_by(ROW_NUMBER)
    if [*ordered.column(ROW_NUMBER).to_pylist()] != list(range(rows)):
        raise AgentUnavailable(
            f"The answer of {hop.get('region')} has {answer.num_rows} rows of {rows}: it broke off.",
            hint="Run the read again.",
            region=hop.get("region"),
        )
    return ordered


def _no_answer(hop: JsonObject, problem: str, policy: OnUnavailable) -> AgentUnavailable:
    views = _view_names(hop)
    older = "; no older snapshot of all of it is in the reader's region" if policy == "stale" else ""
    return AgentUnavailable(
        f"{', '.join(str(view) for view in views)} cannot be read in {hop['region']}: {problem.rstrip('.')}{older}.",
        hint="See: fairlead agent list. To go on without: --on-unavailable stale, or missing.",
        region=hop["region"],
        views=views,
    )


def _view_names(hop: JsonObject) -> list[JsonValue]:
    return [view["view"] for view in cast("list[JsonObject]", hop["views"])]


def _outcome(hop: JsonObject, answer: _Answer, rows: int) -> HopOutcome:
    read = hop if answer.outcome == "joined" else cast("JsonObject", hop["stand_in"])
    views = cast("list[JsonObject]", read["views"])
    usd_out, usd_back = Decimal(str(hop["usd_out"])), Decimal(str(hop["usd_back"]))
    planned_out, planned_back = cast("int", hop["bytes_out"]), cast("int", hop["bytes_back"])
    return HopOutcome(
        region=cast("str | None", hop["region"]),
        views=tuple(str(view["view"]) for view in views),
        outcome=answer.outcome,
        rows=rows,
        planned_out=planned_out,
        planned_back=planned_back,
        bytes_out=answer.sent,
        bytes_back=answer.received,
        planned_usd=usd_out + usd_back,
        usd=_share(usd_out, answer.sent, planned_out) + _share(usd_back, answer.received, planned_back),
        snapshots={
            str(view["view"]): (str(view["snapshot"]), str(view["as_of"])) for view in views if view["snapshot"]
        },
        age_seconds=cast("float | None", read.get("age_seconds")),
        problem=answer.problem,
    )


def _share(usd: Decimal, moved: int, planned: int) -> Decimal:
    return usd * moved / planned if planned else Decimal(0)


def _check_names(entity_rows: Any) -> None:
    names: list[str] = list(entity_rows.column_names)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"The entity rows have two columns {repeated[0]!r}.", hint="Give each its own name.")
    if EVENT_TIMESTAMP not in names:
        raise InvalidInput(
            f"The entity rows have no column {EVENT_TIMESTAMP!r}, which says as of when each row is meant.",
            hint=f"They have: {', '.join(names)[:400]}.",
        )


def _arrow_type(kind: str) -> Any:
    """The Arrow type of a Feast type, for a column that has no values."""
    arrow = _load_arrow()
    if kind.endswith("_LIST"):
        return arrow.list_(_arrow_type(kind.removesuffix("_LIST")))
    scalars: dict[str, Any] = {
        "INT32": arrow.int32(),
        "INT64": arrow.int64(),
        "FLOAT": arrow.float32(),
        "DOUBLE": arrow.float64(),
        "BOOL": arrow.bool_(),
        "BYTES": arrow.binary(),
        "UNIX_TIMESTAMP": arrow.timestamp("us", tz="UTC"),
    }
    return scalars.get(kind, arrow.string())


def _load_arrow() -> Any:
    try:
        return import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtra("Federated reads need Arrow.", hint="Run: pip install 'fairlead[features]'") from error
