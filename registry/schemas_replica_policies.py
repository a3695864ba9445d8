"""The wire models of replica policies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fairlead.registry.replica_policy import DAYS_MAX, NEWEST_MAX, PATTERN_MAX_LENGTH, PATTERNS_MAX
from fairlead.registry.wire import AnswerModel, RequestModel, Time

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=PATTERN_MAX_LENGTH)]
Patterns = Annotated[list[Pattern], Field(max_length=PATTERNS_MAX)]


class MatchIn(RequestModel):
    """What a policy is about; what is left out matches everything. `*` and `?` are wild cards."""

    models: Patterns = Field(default_factory=list[str])
    kinds: Annotated[list[Literal["model", "bundle", "snapshot", "feature-log"]], Field(max_length=4)] = Field(
        default_factory=list[Literal["model", "bundle", "snapshot", "feature-log"]]
    )
    residency: Patterns = Field(default_factory=list[str])
    environments: Patterns = Field(default_factory=list[str])


class RetentionIn(RequestModel):
    """How long the policy applies to versions that no environment needs: while one of both is true."""

    newest: Annotated[int | None, Field(ge=0, le=NEWEST_MAX, description="So many versions of a model.")] = None
    days: Annotated[int | None, Field(ge=0, le=DAYS_MAX, description="So long after it was registered.")] = None


class ReplicaPolicyIn(RequestModel):
    """Where the artifacts that it matches should be."""

    match: MatchIn = Field(default_factory=MatchIn)
    regions: Annotated[list[Pattern], Field(max_length=PATTERNS_MAX, examples=[["aws:us-east-1", "gcp:europe-*"]])]
    retention: RetentionIn | None = None


class MatchOut(AnswerModel):
    """What a policy is about."""

    models: list[str]
    kinds: list[str]
    residency: list[str]
    environments: list[str]


class RetentionOut(AnswerModel):
    """How long it applies to versions that no environment needs."""

    newest: int | None
    days: int | None


class ReplicaPolicyOut(AnswerModel):
    """A policy; `revision` is the answer's ETag."""

    name: str
    match: MatchOut
    regions: list[str]
    retention: RetentionOut | None
    revision: int
    updated_by: str
    updated_at: Time


class DriftOut(AnswerModel):
    """A replica that is not as it should be; `state` is null where there is none."""

    artifact: str
    kind: str
    residency: str
    location: str
    region: str
    drift: Literal["missing", "damaged", "unwanted"]
    state: str | None
