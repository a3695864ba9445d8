"""What becomes of models that are needed no more: archived, deleted, restored; their cards; and retention policies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import parse_model_reference, parse_name
from fairlead.sdk.records import JsonObject, ModelVersion, Record, RegisteredModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Card(Record):
    """What people say of a model or version, in Markdown; without one the text is empty and the revision 0."""

    reference: str
    text: str
    revision: int = 0
    updated_by: str | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy(Record):
    """How long versions of some models (patterns; none: all) are kept; None says nothing."""

    name: str
    models: tuple[str, ...] = ()
    keep_last: int | None = None
    keep_held_days: int | None = None
    delete_archived_after_days: int | None = None
    release_deleted_after_days: int | None = None
    revision: int = 0
    updated_by: str = ""
    updated_at: datetime | None = None

    def spec(self) -> JsonObject:
        """What its owners wrote."""
        members = self.to_json()
        for name in ("name", "revision", "updated_by", "updated_at"):
            del members[name]
        return {name: value for name, value in members.items() if value not in (None, [])}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionStep(Record):
    """A version that goes: `delete` can be taken back, `release` gives up its bytes."""

    reference: str
    action: str
    policy: str
    because: str
    bytes: int = 0


class Lifecycle:
    """Archives, deletes and restores. A reference is NAME for a model, NAME/VERSION for a version."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def archive(self, reference: str) -> RegisteredModel | ModelVersion:
        """Hide a model or version from lists; it can be read and not promoted.

        Raises:
            VersionInUse: if an environment or a deployment holds it.
        """
        return self._post(reference, "archive")

    def unarchive(self, reference: str) -> RegisteredModel | ModelVersion:
        """Take a model or version out of the archive."""
        return self._post(reference, "unarchive")

    def delete(self, reference: str) -> None:
        """Delete a model with its versions, or a version, and the aliases that point there.

        Raises:
            VersionInUse: if an environment or a deployment holds it.
        """
        self._transport.request("DELETE", path_of(reference))

    def restore(self, reference: str) -> RegisteredModel | ModelVersion:
        """Take a deletion back; aliases stay deleted.

        Raises:
            BytesReleased: if a version's bytes were let go.
        """
        return self._post(reference, "restore")

    def _post(self, reference: str, verb: str) -> RegisteredModel | ModelVersion:
        answer = self._transport.post(f"{path_of(reference)}/{verb}")
        return ModelVersion.from_json(answer) if "version" in answer else RegisteredModel.from_json(answer)


class Cards:
    """Model cards. A reference is NAME for a model's card, NAME/VERSION for a version's."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, reference: str) -> Card:
        """A card."""
        return Card.from_json(self._transport.get(f"{path_of(reference)}/card"))

    def put(self, reference: str, text: str, *, revision: int | None = None) -> Card:
        """Write a card; an empty text takes it away.

        Raises:
            InvalidInput: if it is larger than 256 KiB.
            StaleRevision: if a revision is given and the card is not at it (0: there was never one).
        """
        path = f"{path_of(reference)}/card"
        return Card.from_json(self._transport.request("PUT", path, body={"text": text}, if_match=revision))

    def draft(self, reference: str) -> str:
        """A card that is yet to be written, filled with what the record knows."""
        return cast("str", self._transport.get(f"{path_of(reference)}/card/draft")["text"])


class RetentionPolicies:
    """Retention policies, what would go by them, and letting it go."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[RetentionPolicy]:
        """All policies by name."""
        return map(RetentionPolicy.from_json, self._transport.items("/api/v1/retention-policies"))

    def get(self, name: str) -> RetentionPolicy:
        """One policy.

        Raises:
            RetentionPolicyNotFound: if there is none of that name.
        """
        return RetentionPolicy.from_json(self._transport.get(_policy_path(name)))

    def apply(self, name: str, spec: Mapping[str, JsonValue], *, revision: int | None = None) -> RetentionPolicy:
        """Create or replace a policy; workers apply it within the hour.

        Raises:
            InvalidInput: if it is not valid.
            StaleRevision: if a revision is given and the policy is not at it (0: not there yet).
        """
        answer = self._transport.request("PUT", _policy_path(name), body=dict(spec), if_match=revision)
        return RetentionPolicy.from_json(answer)

    def delete(self, name: str, *, revision: int | None = None) -> None:
        """Remove a policy; nothing goes by it any longer."""
        self._transport.request("DELETE", _policy_path(name), if_match=revision)

    def plan(self, drafts: Mapping[str, Mapping[str, JsonValue]] | None = None) -> tuple[RetentionStep, ...]:
        """What would go now; `drafts` are policies that are looked at as if they were applied."""
        body: dict[str, JsonValue] = {"drafts": {name: dict(spec) for name, spec in (drafts or {}).items()}}
        return _steps(self._transport.post("/api/v1/retention/plan", body))

    def run(self) -> tuple[RetentionStep, ...]:
        """Let go what would go now, without waiting for the hour; what went."""
        return _steps(self._transport.post("/api/v1/retention/run"))


def path_of(reference: str) -> str:
    """The API's path of a model (NAME) or version (NAME/VERSION).

    Raises:
        InvalidInput: if it is neither.
    """
    if "/" not in reference and "@" not in reference:
        return f"/api/v1/models/{quote(parse_name(reference), safe='')}"
    parsed = parse_model_reference(reference)
    if parsed.version is None:
        raise InvalidInput(f"{reference} may name another version tomorrow.", hint="Write NAME or NAME/VERSION.")
    return f"/api/v1/models/{quote(parsed.name, safe='')}/versions/{parsed.version}"


def _policy_path(name: str) -> str:
    return f"/api/v1/retention-policies/{quote(parse_name(name, what='retention policy'), safe='')}"


def _steps(answer: JsonObject) -> tuple[RetentionStep, ...]:
    return tuple(RetentionStep.from_json(step) for step in cast("list[JsonObject]", answer["steps"]))
