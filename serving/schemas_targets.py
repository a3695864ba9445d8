"""Deploy targets as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fairlead.registry.wire import AnswerModel, RequestModel, Time


class TargetIn(RequestModel):
    """A deploy target, as its document says it."""

    kind: str = Field(max_length=63, examples=["kubernetes"])
    delivery: str = Field(max_length=16, examples=["cluster"])
    regions: list[str] | None = Field(default=None, max_length=200, description="None: any region.")
    settings: dict[str, Any] = Field(default_factory=dict[str, Any], description="As the kind says.")
    delivery_settings: dict[str, Any] = Field(default_factory=dict[str, Any], description="As the delivery says.")


class TargetOut(AnswerModel):
    """A deploy target; `local`, which is always there, is at revision 0."""

    name: str
    kind: str
    delivery: str
    regions: list[str] | None
    settings: dict[str, Any]
    delivery_settings: dict[str, Any]
    revision: int
    updated_by: str | None
    updated_at: Time | None


class DocumentOut(AnswerModel):
    """One file in the words of a target's platform."""

    path: str
    text: str


class DocumentsOut(AnswerModel):
    """What a target is given for a deployment in one region."""

    target: str
    region: str
    documents: list[DocumentOut]
