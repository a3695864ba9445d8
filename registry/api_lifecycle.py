"""Routes that archive, delete and restore; of model cards; and of retention policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field, StringConstraints

from fairlead.core.ids import NAME_MAX_LENGTH
from fairlead.registry.access import MayAdmin, MayRead, MayWrite
from fairlead.registry.api_models import Version
from fairlead.registry.cards import CARD_MAX_BYTES
from fairlead.registry.retention_policy import NUMBER_MAX, PATTERNS_MAX, from_json, to_json
from fairlead.registry.schemas import ModelOut, Name, VersionOut
from fairlead.registry.wire import AnswerModel, IfMatch, Listing, RequestModel, Time, WantedPage, etag

if TYPE_CHECKING:
    from fairlead.registry.cards import Cards
    from fairlead.registry.lifecycle import Lifecycle
    from fairlead.registry.retention import AppliedRetentionPolicy, RetentionPolicies, RetentionStep

_Pattern = Annotated[str, StringConstraints(min_length=1, max_length=NAME_MAX_LENGTH)]
_Days = Annotated[int | None, Field(ge=0, le=NUMBER_MAX)]


class CardIn(RequestModel):
    """A card's text, in Markdown; an empty one takes the card away."""

    text: Annotated[str, StringConstraints(max_length=CARD_MAX_BYTES), Field(examples=["# Churn: who may leave."])]


class CardOut(AnswerModel):
    """A card, as the text that was written; `revision` is the answer's ETag."""

    reference: str
    text: str
    revision: int
    updated_by: str | None
    updated_at: Time | None


class CardDraftOut(AnswerModel):
    """The text of a card that is yet to be written."""

    text: str


class RetentionPolicyIn(RequestModel):
    """How long versions of some models are kept; what is left out says nothing."""

    models: Annotated[list[_Pattern], Field(max_length=PATTERNS_MAX, description="Patterns; none: every model.")] = (
        Field(default_factory=list[str])
    )
    keep_last: Annotated[int | None, Field(ge=1, le=NUMBER_MAX)] = None
    keep_held_days: _Days = None
    delete_archived_after_days: _Days = None
    release_deleted_after_days: _Days = None


class RetentionPolicyOut(AnswerModel):
    """A policy; `revision` is the answer's ETag."""

    name: str
    models: list[str]
    keep_last: int | None
    keep_held_days: int | None
    delete_archived_after_days: int | None
    release_deleted_after_days: int | None
    revision: int
    updated_by: str
    updated_at: Time


class RetentionPlanIn(RequestModel):
    """Policies, by name, that are looked at as if they were applied."""

    drafts: Annotated[dict[Name, RetentionPolicyIn], Field(max_length=20)] = Field(default_factory=dict)


class RetentionStepOut(AnswerModel):
    """A version that goes. Its bytes go when it is released; until then it can be restored."""

    reference: str
    action: Literal["delete", "release"]
    policy: str
    because: str
    bytes: int


class RetentionStepsOut(AnswerModel):
    """What goes, and the bytes at all locations that are then nobody's."""

    steps: list[RetentionStepOut]
    released_bytes: int


def lifecycle_router(lifecycle: Lifecycle) -> APIRouter:
    """Archiving, deleting and restoring."""
    router = APIRouter(tags=["models"])

    @router.post("/models/{name}/archive", response_model=ModelOut)
    def archive_model(name: str, caller: MayWrite) -> Any:
        """Hide a model from lists; it can be read and not promoted."""
        return lifecycle.archive_model(caller, name, is_archived=True)

    @router.post("/models/{name}/unarchive", response_model=ModelOut)
    def unarchive_model(name: str, caller: MayWrite) -> Any:
        """Take a model out of the archive."""
        return lifecycle.archive_model(caller, name, is_archived=False)

    @router.delete("/models/{name}", status_code=204)
    def delete_model(name: str, caller: MayWrite) -> None:
        """Delete a model with its versions and aliases; it can be restored while its bytes are kept."""
        lifecycle.delete_model(caller, name)

    @router.post("/models/{name}/restore", response_model=ModelOut)
    def restore_model(name: str, caller: MayWrite) -> Any:
        """Restore a deleted model, with the versions that were deleted together with it."""
        return lifecycle.restore_model(caller, name)

    @router.post("/models/{name}/versions/{version}/archive", response_model=VersionOut)
    def archive_version(name: str, version: Version, caller: MayWrite) -> Any:
        """Hide a version from lists; it can be read and not promoted."""
        return lifecycle.archive_version(caller, name, version, is_archived=True)

    @router.post("/models/{name}/versions/{version}/unarchive", response_model=VersionOut)
    def unarchive_version(name: str, version: Version, caller: MayWrite) -> Any:
        """Take a version out of the archive."""
        return lifecycle.archive_version(caller, name, version, is_archived=False)

    @router.delete("/models/{name}/versions/{version}", status_code=204)
    def delete_version(name: str, version: Version, caller: MayWrite) -> None:
        """Delete a version and its aliases; it can be restored while its bytes are kept."""
        lifecycle.delete_version(caller, name, version)

    @router.post("/models/{name}/versions/{version}/restore", response_model=VersionOut)
    def restore_version(name: str, version: Version, caller: MayWrite) -> Any:
        """Restore a deleted version."""
        return lifecycle.restore_version(caller, name, version)

    return router


def cards_router(cards: Cards) -> APIRouter:
    """Model cards."""
    router = APIRouter(tags=["models"])

    @router.get("/models/{name}/card", response_model=CardOut)
    def get_model_card(name: str, caller: MayRead, response: Response) -> Any:
        """Show a model's card; its revision is the ETag."""
        return _with_etag(response, cards.get(caller, name))

    @router.put("/models/{name}/card", response_model=CardOut)
    def put_model_card(name: str, body: CardIn, caller: MayWrite, expected: IfMatch, response: Response) -> Any:
        """Write a model's card. With `If-Match`, only if it is still at that revision ("0": there was never one)."""
        return _with_etag(response, cards.put(caller, name, body.text, expected_revision=expected))

    @router.get("/models/{name}/card/draft", response_model=CardDraftOut)
    def draft_model_card(name: str, caller: MayRead) -> Any:
        """Draft a model's card from what the record knows."""
        return {"text": cards.draft(caller, name)}

    @router.get("/models/{name}/versions/{version}/card", response_model=CardOut)
    def get_version_card(name: str, version: Version, caller: MayRead, response: Response) -> Any:
        """Show a version's card; its revision is the ETag."""
        return _with_etag(response, cards.get(caller, name, version))

    @router.put("/models/{name}/versions/{version}/card", response_model=CardOut)
    def put_version_card(  # noqa: PLR0917  (a route's parts)
        name: str, version: Version, body: CardIn, caller: MayWrite, expected: IfMatch, response: Response
    ) -> Any:
        """Write a version's card. With `If-Match`, only if it is still at that revision."""
        return _with_etag(response, cards.put(caller, name, body.text, version=version, expected_revision=expected))

    @router.get("/models/{name}/versions/{version}/card/draft", response_model=CardDraftOut)
    def draft_version_card(name: str, version: Version, caller: MayRead) -> Any:
        """Draft a version's card from what the record knows."""
        return {"text": cards.draft(caller, name, version)}

    return router


def retention_router(policies: RetentionPolicies) -> APIRouter:
    """Retention policies."""
    router = APIRouter(tags=["retention"])

    @router.get("/retention-policies", response_model=Listing[RetentionPolicyOut])
    def list_retention_policies(caller: MayRead, page: WantedPage) -> Any:
        """List the policies by name."""
        found = policies.list(caller, page)
        return {"items": [_policy_out(each) for each in found.items], "next_page_token": found.next_page_token}

    @router.get("/retention-policies/{name}", response_model=RetentionPolicyOut)
    def get_retention_policy(name: str, caller: MayRead, response: Response) -> Any:
        """Show a policy; its revision is the ETag."""
        found = policies.get(caller, name)
        response.headers.update(etag(found.revision))
        return _policy_out(found)

    @router.put("/retention-policies/{name}", response_model=RetentionPolicyOut)
    def put_retention_policy(
        name: str, body: RetentionPolicyIn, caller: MayAdmin, expected: IfMatch, response: Response
    ) -> Any:
        """Apply a policy. With `If-Match`, only if it is still at that revision ("0": not there yet)."""
        applied = policies.put(caller, name, from_json(body.model_dump()), expected_revision=expected)
        response.headers.update(etag(applied.revision))
        return _policy_out(applied)

    @router.delete("/retention-policies/{name}", status_code=204)
    def delete_retention_policy(name: str, caller: MayAdmin, expected: IfMatch) -> None:
        """Remove a policy; nothing goes by it any longer."""
        policies.delete(caller, name, expected_revision=expected)

    @router.post("/retention/plan", response_model=RetentionStepsOut)
    def plan_retention(body: RetentionPlanIn, caller: MayRead) -> Any:
        """Show what would go now."""
        drafts = {name: from_json(draft.model_dump()) for name, draft in body.drafts.items()}
        return _steps_out(policies.plan(caller, drafts))

    @router.post("/retention/run", response_model=RetentionStepsOut)
    def run_retention(caller: MayAdmin) -> Any:
        """Let go what would go now, without waiting for the hour."""
        return _steps_out(policies.run(caller))

    return router


def _with_etag(response: Response, card: Any) -> Any:
    response.headers.update(etag(card.revision))
    return card


def _policy_out(applied: AppliedRetentionPolicy) -> RetentionPolicyOut:
    return RetentionPolicyOut.model_validate(
        {
            "name": applied.name,
            **to_json(applied.policy),
            "revision": applied.revision,
            "updated_by": applied.updated_by,
            "updated_at": applied.updated_at,
        }
    )


def _steps_out(steps: tuple[RetentionStep, ...]) -> RetentionStepsOut:
    return RetentionStepsOut(
        steps=[RetentionStepOut.model_validate(step) for step in steps],
        released_bytes=sum(step.bytes for step in steps if step.action == "release"),
    )
