"""The wire models of models, versions and aliases."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from fairlead.core.ids import NAME_MAX_LENGTH
from fairlead.registry.limits import DESCRIPTION_MAX_LENGTH, NUMBERS_MAX_COUNT, TAG_VALUE_MAX_LENGTH, TAGS_MAX_COUNT
from fairlead.registry.wire import AnswerModel, RequestModel, Time, VersionNumber

Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_MAX_LENGTH)]
Description = Annotated[str, StringConstraints(max_length=DESCRIPTION_MAX_LENGTH)]
TagValue = Annotated[str, StringConstraints(max_length=TAG_VALUE_MAX_LENGTH)]
Tags = Annotated[dict[Name, TagValue], Field(max_length=TAGS_MAX_COUNT)]
TagChanges = Annotated[
    dict[Name, TagValue | None], Field(max_length=TAGS_MAX_COUNT, description="A null removes the tag.")
]
Digest = Annotated[str, StringConstraints(max_length=71), Field(examples=["sha256:" + 64 * "0"])]


class LabelsIn(RequestModel):
    """Who answers for a model and who pays for it; all three are required."""

    owner: Name
    team: Name
    cost_centre: Name


class LabelChanges(RequestModel):
    """Labels to change."""

    owner: Name | None = None
    team: Name | None = None
    cost_centre: Name | None = None


class LabelsOut(AnswerModel):
    """Who answers for a model and who pays for it."""

    owner: str
    team: str
    cost_centre: str


class ModelIn(RequestModel):
    """A model to register."""

    name: Name
    labels: LabelsIn
    residency: Annotated[str, Field(description="Where its data may be; never changes.")] = "unrestricted"
    regions: Annotated[
        list[str] | None, Field(description="Where versions are kept; null: every location that residency permits.")
    ] = None
    description: Description = ""
    tags: Tags = Field(default_factory=dict)


class ModelChangeIn(RequestModel):
    """What to change of a model; members left out stay."""

    description: Description | None = None
    labels: LabelChanges | None = None
    tags: TagChanges | None = None


class ModelOut(AnswerModel):
    """A registered model."""

    name: str
    residency: str
    regions: list[str] | None
    description: str
    labels: LabelsOut
    tags: dict[str, str]
    aliases: Annotated[dict[str, int], Field(description="The version that each alias and environment names.")]
    last_version: int
    created_by: str
    created_at: Time
    updated_at: Time
    archived_at: Time | None
    deleted_at: Time | None


class VersionIn(RequestModel):
    """A version to register on an upload."""

    upload_id: str
    flavor: str | None = None
    signature: dict[str, Any] | None = None
    metrics: Annotated[dict[Name, float], Field(max_length=NUMBERS_MAX_COUNT)] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    feature_service: Name | None = None
    feature_service_digest: Digest | None = None
    snapshot_digest: Digest | None = None
    parent_version: VersionNumber | None = None
    run_id: Name | None = None
    source: Annotated[
        str | None, Field(max_length=2_000, description="Where MLflow says that its files come from; a note.")
    ] = None
    run_link: Annotated[str | None, Field(max_length=2_000)] = None
    code_commit: Annotated[Name | None, Field(description="The commit of the code that made it.")] = None
    description: Description = ""
    tags: Tags = Field(default_factory=dict)


class VersionChangeIn(RequestModel):
    """What to change of a version; members left out stay."""

    description: Description | None = None
    tags: TagChanges | None = None


class ErrorOut(AnswerModel):
    """Why something failed."""

    code: str
    detail: str


class VersionOut(AnswerModel):
    """One version of a model."""

    name: str
    version: int
    reference: str
    state: Annotated[str, Field(description="PENDING, READY (every byte was read back) or FAILED.")]
    residency: str
    artifact_digest: str | None
    description: str
    flavor: str | None
    signature: dict[str, Any] | None
    metrics: dict[str, float]
    params: dict[str, Any]
    feature_service: str | None
    feature_service_digest: str | None
    snapshot_digest: str | None
    parent_version: int | None
    run_id: str | None
    tags: dict[str, str]
    aliases: list[str]
    upload_id: str | None
    error: ErrorOut | None
    created_by: str
    created_at: Time
    ready_at: Time | None
    sent_bytes: int | None
    size_bytes: int | None
    source: Annotated[str | None, Field(description="Where MLflow says that its files come from.")]
    run_link: str | None
    code_commit: str | None
    stage: Annotated[str | None, Field(description="The label that MLflow calls a stage; null: none.")]
    archived_at: Time | None
    deleted_at: Time | None


class ResolvedOut(VersionOut):
    """The version that a reference names; `resolved_revision` is the alias's, null for a version's number."""

    resolved_revision: int | None = None


class AliasIn(RequestModel):
    """Where an alias is to point."""

    version: VersionNumber


class AliasOut(AnswerModel):
    """A pointer as it stands."""

    name: str
    version: int | None
    revision: int
    moved_by: str | None
    moved_at: Time | None


class AliasMoveOut(AnswerModel):
    """One move of a pointer; `revision` is the one that it made."""

    name: str
    kind: Annotated[str, Field(description="set, delete, promote or rollback.")]
    from_version: int | None
    to_version: int | None
    revision: int
    promotion_id: str | None
    reason: str
    moved_by: str
    moved_at: Time
