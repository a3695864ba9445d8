"""Wire models of what a new version may be stored as a difference to."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fairlead.registry.bases import BaseCandidate, BaseReason


class BasesRequest(BaseModel):
    """What is to be uploaded: a version of which model, made from which one, with which tensors."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, Field(max_length=255)] = None
    parent_version: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    tensor_signature: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None


class BaseAnswer(BaseModel):
    """An artifact that the upload's location holds. `layout_key` is where its layout is there."""

    digest: str
    location: str
    layout_key: str
    reason: BaseReason

    @classmethod
    def of(cls, candidate: BaseCandidate, location: str) -> BaseAnswer:
        """Render a record."""
        return cls(digest=candidate.digest, location=location, layout_key=candidate.layout_key, reason=candidate.reason)


class BasesAnswer(BaseModel):
    """The likeliest first."""

    bases: list[BaseAnswer]
