"""The wire models of imported versions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from fairlead.registry.imports import ORIGIN_MAX_LENGTH
from fairlead.registry.limits import NUMBERS_MAX_COUNT
from fairlead.registry.schemas import Description, Name, Tags, VersionOut
from fairlead.registry.wire import AnswerModel, RequestModel, VersionNumber

Stage = Literal["Staging", "Production", "Archived"]


class OriginIn(RequestModel):
    """What a version was in the registry that it comes from."""

    key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=ORIGIN_MAX_LENGTH,
            description="Names it among all that comes into this model; kept as the tag `fairlead.imported_from`.",
        ),
    ]
    version: Annotated[VersionNumber, Field(description="Its number there; the next one is used where it is taken.")]
    created_at: Annotated[AwareDatetime, Field(strict=False)]
    stage: Stage | None = None


class ImportIn(RequestModel):
    """A version of another registry."""

    origin: OriginIn
    upload_id: Annotated[str | None, Field(description="Its files; null if it was imported before or has none.")] = None
    has_files: Annotated[bool, Field(description="False for a prompt.")] = True
    source: Annotated[str | None, Field(max_length=2_000)] = None
    run_id: Name | None = None
    run_link: Annotated[str | None, Field(max_length=2_000)] = None
    flavor: str | None = None
    signature: dict[str, Any] | None = None
    metrics: Annotated[dict[Name, float], Field(max_length=NUMBERS_MAX_COUNT)] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    description: Description = ""
    tags: Tags = Field(default_factory=dict)


class ImportOut(AnswerModel):
    """A version that came from elsewhere."""

    outcome: Annotated[
        Literal["created", "changed", "unchanged", "deleted"],
        Field(description="deleted: it was imported before, then deleted here, and stays so."),
    ]
    version: VersionOut


class KnownImportOut(AnswerModel):
    """What was imported before."""

    origin: str
    version: int
    state: str
    is_deleted: bool
    description: str
    stage: str | None
    tags: dict[str, str]
