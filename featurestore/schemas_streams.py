"""What crosses the wire of streams."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fairlead.featurestore.log_lag import LogLag
from fairlead.featurestore.push_sources import PushSource
from fairlead.featurestore.pushed_rows import ROWS_MAX
from fairlead.featurestore.pushes import Pushed
from fairlead.registry.wire import AnswerModel, RequestModel, Time


class PushRequest(RequestModel):
    """Rows to push, each an object with the view's columns; times as RFC 3339, bytes as base64.

    An event's id is its member `event_id`, or comes in `event_ids`; without either it is derived from the row.
    """

    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=ROWS_MAX)]
    event_ids: Annotated[list[str] | None, Field(max_length=ROWS_MAX)] = None


class PushedViewAnswer(AnswerModel):
    """What became of a push in one view; `first` and `last` number its new rows in the log."""

    view: str
    accepted: int
    duplicates: int
    log: str | None
    first: int | None
    last: int | None
    is_online: bool | None


class PushAnswer(AnswerModel):
    """What became of a push. It is durable."""

    source: str
    region: str
    views: list[PushedViewAnswer]

    @classmethod
    def of(cls, pushed: Pushed) -> PushAnswer:
        """Render a record."""
        return cls.model_validate(pushed)


class PushSourceAnswer(AnswerModel):
    """A stream: what its messages look like and which views they are rows of."""

    name: str
    kind: str
    topic: str
    format: str | None
    views: list[str]
    transformed: list[str]

    @classmethod
    def of(cls, source: PushSource) -> PushSourceAnswer:
        """Render a record."""
        return cls(
            name=source.name,
            kind=source.kind,
            topic=source.topic,
            format=source.format,
            views=[view.name for view in source.views],
            transformed=list(source.transformed),
        )


class OnlineLagAnswer(AnswerModel):
    """How far the online store of a service in a region has read a log."""

    service: str
    through: int
    behind_rows: int


class RegionLagAnswer(AnswerModel):
    """How far a region is behind a log."""

    region: str
    through: int
    behind_rows: int
    behind_seconds: float
    online: list[OnlineLagAnswer]


class LogLagAnswer(AnswerModel):
    """A log of a view, and how far each region is behind it."""

    log: str
    view: str
    residency: str
    region: str
    rows: int
    unsealed_rows: int
    oldest_unsealed_at: Time | None
    segments: int
    reported_at: Time
    regions: list[RegionLagAnswer]

    @classmethod
    def of(cls, lag: LogLag) -> LogLagAnswer:
        """Render a record."""
        return cls.model_validate(lag)


class LogLagList(AnswerModel):
    """The logs of a view, all of them: one for each machine that takes rows."""

    items: list[LogLagAnswer]
