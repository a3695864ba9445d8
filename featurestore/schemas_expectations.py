"""What crosses the wire about expectations, checks and reports."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from fairlead.featurestore.expectation_sets import AppliedExpectations
from fairlead.featurestore.expectations import (
    ALLOWED_MAX,
    EXPECTATIONS_MAX,
    ExpectationKind,
    Severity,
    expectation_to_json,
)
from fairlead.registry.wire import AnswerModel, RequestModel, Time

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Value = str | bool | int | float


class ExpectationIn(RequestModel):
    """One expectation: a kind, what it is about, and limits of its kind."""

    name: Name | None = None
    kind: ExpectationKind
    severity: Severity = "error"
    view: Annotated[Name | None, Field(description="Of which view, where the set is about a service.")] = None
    feature: Name | None = None
    at_most: Annotated[
        float | Annotated[str, StringConstraints(max_length=40)] | None,
        Field(description="A share of the rows; of freshness a duration, such as `36h`.", examples=[0.01]),
    ] = None
    min: float | None = None
    max: float | None = None
    allowed: Annotated[list[Value] | None, Field(max_length=ALLOWED_MAX)] = None
    by: Literal["keys", "keys_and_time"] | None = None
    change_at_most: Annotated[float | None, Field(description="Share of the rows of the snapshot before.")] = None
    psi_at_most: Annotated[float | None, Field(examples=[0.25])] = None
    ks_at_most: Annotated[float | None, Field(examples=[0.1])] = None


class ExpectationsIn(RequestModel):
    """What is expected of a service's snapshots, or of a view's rows in any snapshot."""

    service: Name | None = None
    view: Name | None = None
    expectations: Annotated[list[ExpectationIn], Field(min_length=1, max_length=EXPECTATIONS_MAX)]


class ExpectationsOut(AnswerModel):
    """A set of expectations as it is applied."""

    name: str
    service: str | None
    view: str | None
    expectations: list[dict[str, Any]]
    revision: int
    updated_by: str
    updated_at: Time

    @classmethod
    def of(cls, applied: AppliedExpectations) -> ExpectationsOut:
        """Render a record."""
        return cls(
            name=applied.name,
            service=applied.expected.service,
            view=applied.expected.view,
            expectations=[expectation_to_json(each) for each in applied.expected.expectations],
            revision=applied.revision,
            updated_by=applied.updated_by,
            updated_at=applied.updated_at,
        )


class FindingOut(AnswerModel):
    """What an expectation came to, by one measure. No value where it was not measured, or may not be told here."""

    set: str
    name: str
    kind: str
    measure: str
    view: str
    feature: str | None
    severity: str
    passed: bool
    value: float | None
    limit: str
    rows: int
    count: int | None
    detail: str


class CheckOut(AnswerModel):
    """The check of one part of a snapshot."""

    view: str
    residency: str
    state: str
    is_blocking: bool
    against: str | None
    results: list[FindingOut]
    checked_at: Time | None


class ChecksOut(AnswerModel):
    """The checks of a snapshot, by view and class."""

    items: list[CheckOut]


class BarOut(AnswerModel):
    """How many values lie between two numbers, or are one value (null: all others): now, and before."""

    lower: float | None
    upper: float | None
    value: str | None
    count: int
    previous: int


class FeatureReportOut(AnswerModel):
    """How one feature is spread."""

    name: str
    type: str
    missing: int
    previous_missing: int | None
    psi: float | None
    ks: float | None
    ks_p_value: float | None
    bars: list[BarOut]


class PartReportOut(AnswerModel):
    """One part; `hidden` says why its features are not shown."""

    view: str
    residency: str
    rows: int
    previous_rows: int | None
    hidden: str | None
    features: list[FeatureReportOut]


class SnapshotRowsOut(AnswerModel):
    """How many rows each view had in a snapshot."""

    digest: str
    as_of: Time
    rows: dict[str, int]


class ReportOut(AnswerModel):
    """What is known of a snapshot's data."""

    digest: str
    service: str
    as_of: Time
    previous: str | None
    previous_as_of: Time | None
    is_released: bool
    parts: list[PartReportOut]
    checks: list[CheckOut]
    history: list[SnapshotRowsOut]
