"""What crosses the wire about features."""

from __future__ import annotations

import base64
import math
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from fairlead.core.clock import format_time
from fairlead.featurestore.applied import Definition, PinnedService
from fairlead.featurestore.comparing import Comparison
from fairlead.featurestore.definition_changes import Change, PlannedChange
from fairlead.featurestore.definitions import SERVICE
from fairlead.featurestore.differences import Effect
from fairlead.featurestore.joins import output_names
from fairlead.featurestore.online import OnlineAnswer, OnlineState, OnlineStateName
from fairlead.featurestore.snapshots import Snapshot, SnapshotPart, SnapshotState

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
ENTITIES_AT_ONCE = 10_000


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ObjectRequest(_Body):
    """One definition: its kind, and `MessageToDict(obj.to_proto())` of the Feast object."""

    kind: Annotated[str, Field(examples=["FeatureView"])]
    spec: dict[str, Any]


class ApplyRequest(_Body):
    """Definitions to apply together."""

    objects: list[ObjectRequest]
    dry_run: bool = False
    force: Annotated[bool, Field(description="Also what breaks a model that holds an environment.")] = False
    project: Annotated[
        str | None, Field(max_length=255, description="The Feast project that has these definitions and no others.")
    ] = None
    prune: Annotated[bool, Field(description="Take away what the project has no more.")] = False


class DifferenceAnswer(BaseModel):
    """One difference: `breaks` a reader, changes the `values` it gets, or `adds` something; null: not on that side."""

    path: str
    effect: Effect
    before: Any
    after: Any


class ChangeAnswer(BaseModel):
    """What applying does to one name."""

    kind: str
    name: str
    change: Change
    digest: str
    version: int
    previous_digest: str | None
    reason: str | None
    breaks: list[str]
    used_by: list[str]
    differences: list[DifferenceAnswer]

    @classmethod
    def of(cls, planned: PlannedChange) -> ChangeAnswer:
        """Render a record."""
        return cls(
            kind=planned.kind,
            name=planned.name,
            change=planned.change,
            digest=planned.digest,
            version=planned.number,
            previous_digest=planned.previous_digest,
            reason=planned.reason,
            breaks=list(planned.breaks),
            used_by=list(planned.used_by),
            differences=[DifferenceAnswer.model_validate(each, from_attributes=True) for each in planned.differences],
        )


class ApplyAnswer(BaseModel):
    """The plan; with `applied` it was carried out."""

    applied: bool
    changes: list[ChangeAnswer]


class SideAnswer(BaseModel):
    """One side: what was named, and the version of the view or service (and the snapshot) that it is."""

    reference: str
    kind: str
    name: str
    digest: str
    version: int
    snapshot: str | None


class ComparisonAnswer(BaseModel):
    """Two sides, and what differs."""

    before: SideAnswer
    after: SideAnswer
    differences: list[DifferenceAnswer]

    @classmethod
    def of(cls, comparison: Comparison) -> ComparisonAnswer:
        """Render a record."""
        return cls.model_validate(comparison, from_attributes=True)


class DefinitionAnswer(BaseModel):
    """What a name stands for now. `content` is what its digest names, `spec` what was sent."""

    kind: str
    name: str
    digest: str
    version: int
    residency: str | None
    content: dict[str, Any]
    spec: dict[str, Any]
    updated_by: str
    updated_at: Time

    @classmethod
    def of(cls, definition: Definition) -> DefinitionAnswer:
        """Render a record."""
        return cls(
            kind=definition.kind,
            name=definition.name,
            digest=definition.digest,
            version=definition.number,
            # A service has none of its own: its views do.
            residency=None if definition.kind == SERVICE else definition.residency,
            content=dict(definition.content),
            spec=dict(definition.spec),
            updated_by=definition.updated_by,
            updated_at=definition.updated_at,
        )


class InputAnswer(BaseModel):
    """A column of a training set that an on-demand view is made of, and whether it is only there for that."""

    column: str
    view: str
    feature: str
    is_hidden: bool


class KeyAnswer(BaseModel):
    """A join key of a service, under the name that callers give it."""

    name: str
    type: str


class OnDemandAnswer(BaseModel):
    """An on-demand view: the features that are taken of it, and Feast's JSON of it, with its code."""

    view: str
    alias: str
    features: list[str]
    spec: dict[str, Any]


class OnDemandViewsAnswer(BaseModel):
    """What is to be computed of a service's stored features where they are read, and of which columns."""

    service_digest: str
    keys: list[KeyAnswer]
    inputs: list[InputAnswer]
    views: list[OnDemandAnswer]

    @classmethod
    def of(cls, pinned: PinnedService) -> OnDemandViewsAnswer:
        """Render a version of a service."""
        inputs = [
            InputAnswer(column=column, view=projection.view, feature=feature, is_hidden=feature in projection.hidden)
            for projection, feature, column in output_names(pinned.service)
            if projection.alias == projection.view
        ]
        views = [
            OnDemandAnswer(
                view=each.view, alias=each.alias, features=list(each.features), spec=dict(pinned.on_demand[each.view])
            )
            for each in pinned.service.on_demand
        ]
        keys = [KeyAnswer(name=each.name, type=each.type) for each in pinned.keys]
        return cls(service_digest=pinned.digest, keys=keys, inputs=inputs, views=views)


class DefinitionPage(BaseModel):
    """Some definitions, by name."""

    items: list[DefinitionAnswer]
    next_page_token: str | None


class ErrorAnswer(BaseModel):
    """Why something failed."""

    code: str
    detail: str


def _error(code: str | None, detail: str | None) -> ErrorAnswer | None:
    return None if code is None else ErrorAnswer(code=code, detail=detail or "")


class SnapshotRequest(_Body):
    """As of when; the present if left out."""

    as_of: AwareDatetime | None = None


class RewritingAnswer(BaseModel):
    """That an erasure took rows out of a part, whose artifact was `old_digest`, its rows `old_rows_digest` before."""

    erasure: str
    old_digest: str
    old_rows_digest: str | None
    rows_removed: int


class LogPositionAnswer(BaseModel):
    """Up to which row of a log a part of a snapshot holds what was pushed."""

    log: str
    region: str
    through: int


class SnapshotPartAnswer(BaseModel):
    """A view's rows with the features of one residency class, in a snapshot."""

    view: str
    view_digest: str
    residency: str
    region: str
    features: list[str] | None
    digest: str | None
    rows_digest: str | None
    rows: int | None
    deltas: int | None
    sent_bytes: int | None
    statistics: dict[str, Any] | None
    rewritten: list[RewritingAnswer]
    logs: list[LogPositionAnswer]

    @classmethod
    def of(cls, part: SnapshotPart) -> SnapshotPartAnswer:
        """Render a record."""
        return cls(
            view=part.view,
            view_digest=part.view_digest,
            residency=part.residency,
            region=part.region,
            features=None if part.features is None else list(part.features),
            digest=part.digest,
            rows_digest=part.rows_digest,
            rows=part.rows,
            deltas=part.deltas,
            sent_bytes=part.sent_bytes,
            statistics=None if part.statistics is None else dict(part.statistics),
            rewritten=[RewritingAnswer.model_validate(each, from_attributes=True) for each in part.rewritten],
            logs=[LogPositionAnswer.model_validate(each) for each in part.logs],
        )


class RegionLackAnswer(BaseModel):
    """Features of a view that may not be in a region, and why."""

    region: str
    view: str
    features: list[str]
    residency: str
    reason: str


class SnapshotAnswer(BaseModel):
    """A service's data as of a time; `digest` is set once it is READY. `lacks` is what regions may not hold of it."""

    id: str
    service: str
    service_digest: str
    as_of: Time
    state: SnapshotState
    digest: str | None
    artifacts: list[SnapshotPartAnswer]
    error: ErrorAnswer | None
    created_by: str
    created_at: Time
    ready_at: Time | None
    lacks: list[RegionLackAnswer]

    @classmethod
    def of(cls, snapshot: Snapshot) -> SnapshotAnswer:
        """Render a record."""
        return cls(
            id=snapshot.id,
            service=snapshot.service,
            service_digest=snapshot.service_digest,
            as_of=snapshot.as_of,
            state=snapshot.state,
            digest=snapshot.digest,
            artifacts=[SnapshotPartAnswer.of(part) for part in snapshot.artifacts],
            error=_error(snapshot.error_code, snapshot.error_detail),
            created_by=snapshot.created_by,
            created_at=snapshot.created_at,
            ready_at=snapshot.ready_at,
            lacks=[RegionLackAnswer.model_validate(each, from_attributes=True) for each in snapshot.lacks],
        )


class SnapshotPage(BaseModel):
    """Some snapshots, newest first."""

    items: list[SnapshotAnswer]
    next_page_token: str | None


class MaterializeRequest(_Body):
    """Which snapshot (the newest from now on, if left out), and where (wherever the data may be)."""

    snapshot: str | None = None
    regions: list[str] | None = None


class ViewFreshnessAnswer(BaseModel):
    """How far a region is in one view; the watermark, its latest event time, is null where it may not be told."""

    view: str
    watermark: Time | None
    as_of: Time
    materialized_at: Time


class KeptSnapshotAnswer(BaseModel):
    """A snapshot that a region keeps beside what it serves, for those who hold or held an environment."""

    snapshot: str
    state: str
    rows: int | None
    materialized_at: Time | None


class OnlineStateAnswer(BaseModel):
    """What one region serves of a service. `path` is shown to admins.

    Unless `is_atomic`, reads see rows of two snapshots while one takes the place of the other.
    """

    service: str
    region: str
    state: OnlineStateName
    wanted_snapshot: str
    snapshot: str | None
    rows: int | None
    missing_views: list[str]
    engine: str | None
    is_atomic: bool | None
    materialized_at: Time | None
    views: list[ViewFreshnessAnswer]
    kept: list[KeptSnapshotAnswer]
    error: ErrorAnswer | None
    path: str | None = None

    @classmethod
    def of(cls, state: OnlineState, path: str | None = None) -> OnlineStateAnswer:
        """Render a record."""
        return cls(
            service=state.service,
            region=state.region,
            state=state.state,
            wanted_snapshot=state.wanted_snapshot,
            snapshot=state.snapshot,
            rows=state.rows,
            missing_views=list(state.missing_views),
            engine=state.engine,
            is_atomic=state.is_atomic,
            materialized_at=state.materialized_at,
            views=[ViewFreshnessAnswer.model_validate(each, from_attributes=True) for each in state.views],
            kept=[KeptSnapshotAnswer.model_validate(each, from_attributes=True) for each in state.kept],
            error=_error(state.error_code, state.error_detail),
            path=path,
        )


class OnlineStatePage(BaseModel):
    """Every region of a service; there is always one page."""

    items: list[OnlineStateAnswer]
    next_page_token: str | None = None


class OnlineRequest(_Body):
    """Entities to look up: for each join key its values, all lists of one length."""

    service: str
    region: str | None = None
    entities: dict[str, Annotated[list[Any], Field(max_length=ENTITIES_AT_ONCE)]]


class OnlineRowsAnswer(BaseModel):
    """One row for each entity: keys, features, and `_status` by view."""

    region: str
    snapshot: str
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, answer: OnlineAnswer) -> OnlineRowsAnswer:
        """Render a record."""
        rows = [{name: _plain(value) for name, value in row.items()} for row in answer.rows]
        return cls(region=answer.region, snapshot=answer.snapshot, rows=rows)


def _plain(value: Any) -> Any:
    """A value as JSON has it: times as text, bytes in base64, an infinity as the text that protobuf's JSON uses."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value
