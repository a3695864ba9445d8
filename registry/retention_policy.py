"""Retention policies: which versions go by themselves, and when. Pure: policies and facts in, what goes out.

A version goes because one policy says so and none keeps it. What an environment, an alias or a deployment holds never
goes, nor what awaits approval, nor a model's newest version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal, cast

from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ids import NAME_MAX_LENGTH
from fairlead.registry.limits import parse_text

PATTERNS_MAX = 100
NUMBER_MAX = 100_000

Action = Literal["delete", "release"]
"""To delete (which can be taken back), or to release the bytes of what is deleted (which cannot)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long versions of some models are kept; None says nothing.

    `keep_last`: of the READY versions, older ones than so many are deleted. `keep_held_days`: what held an environment
    in the last so many days is kept from that. `delete_archived_after_days`: what has been archived for so long is
    deleted. `release_deleted_after_days`: the bytes of what has been deleted for so long are let go.
    """

    models: tuple[str, ...] = ()
    keep_last: int | None = None
    keep_held_days: int | None = None
    delete_archived_after_days: int | None = None
    release_deleted_after_days: int | None = None

    def governs(self, model: str) -> bool:
        """Whether the policy is about a model; no pattern means every one."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """What a policy looks at of one version. `held_until` is when it last held an environment; None: it never did."""

    version: int
    state: str
    archived_at: datetime | None
    deleted_at: datetime | None
    released_at: datetime | None
    held_until: datetime | None
    is_held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """A version that goes, by which policy, and why."""

    version: int
    action: Action
    policy: str
    because: str


def decide(
    policies: Mapping[str, RetentionPolicy],
    versions: Sequence[VersionFacts],
    *,
    model_archived_at: datetime | None,
    now: datetime,
) -> list[Going]:
    """What goes of one model by the policies that govern it (by name); `versions` are all of it, oldest first."""
    ready = [each.version for each in versions if each.deleted_at is None and each.state == "READY"]
    newest = max((each.version for each in versions if each.deleted_at is None), default=None)
    going: list[Going] = []
    for each in versions:
        for name, policy in sorted(policies.items()):
            found = _release(policy, each, now) if each.deleted_at is not None else None
            if each.deleted_at is None and not each.is_held and each.version != newest:
                found = _archived(policy, each, model_archived_at, now)
                if found is None and not any(_keeps(other, each, now) for other in policies.values()):
                    found = _surplus(policy, each, ready)
            if found is not None:
                going.append(Going(version=each.version, action=found[0], policy=name, because=found[1]))
                break
    return going


def _release(policy: RetentionPolicy, version: VersionFacts, now: datetime) -> tuple[Action, str] | None:
    days = policy.release_deleted_after_days
    if days is None or version.released_at is not None or version.deleted_at is None:
        return None
    if now - version.deleted_at < timedelta(days=days):
        return None
    return "release", f"deleted for {(now - version.deleted_at).days} days (at most {days})"


def _archived(
    policy: RetentionPolicy, version: VersionFacts, model_archived_at: datetime | None, now: datetime
) -> tuple[Action, str] | None:
    since = min((at for at in (version.archived_at, model_archived_at) if at is not None), default=None)
    days = policy.delete_archived_after_days
    if days is None or since is None or now - since < timedelta(days=days):
        return None
    return "delete", f"archived for {(now - since).days} days (at most {days})"


def _surplus(policy: RetentionPolicy, version: VersionFacts, ready: Sequence[int]) -> tuple[Action, str] | None:
    if policy.keep_last is None or version.state != "READY":
        return None
    newer = sum(number > version.version for number in ready)
    return (
        None if newer < policy.keep_last else ("delete", f"{newer} newer versions (the last {policy.keep_last} stay)")
    )


def _keeps(policy: RetentionPolicy, version: VersionFacts, now: datetime) -> bool:
    days = policy.keep_held_days
    if days is None or version.held_until is None:
        return False
    return now - version.held_until <= timedelta(days=days)


def check_policy(policy: RetentionPolicy) -> None:
    """Refuse a policy that says nothing sensible.

    Raises:
        InvalidInput: naming the part.
    """
    if len(policy.models) > PATTERNS_MAX or any(not 0 < len(each) <= NAME_MAX_LENGTH for each in policy.models):
        raise InvalidInput(f"A policy matches at most {PATTERNS_MAX} patterns of 1 to {NAME_MAX_LENGTH} characters.")
    for pattern in policy.models:
        parse_text(pattern, what="pattern")
    numbers = {name: value for name, value in to_json(policy).items() if name != "models" and value is not None}
    for name, value in numbers.items():
        least = 1 if name == "keep_last" else 0
        if not least <= cast("int", value) <= NUMBER_MAX:
            raise InvalidInput(f"{name} is {value}, and must be {least} to {NUMBER_MAX}.", hint="Correct it.")
    if not numbers:
        raise InvalidInput("The policy lets nothing go and keeps nothing.", hint="Say keep_last, or one of the days.")


def to_json(policy: RetentionPolicy) -> dict[str, JsonValue]:
    """A policy as the record keeps it, and as its owners write it."""
    return {
        "models": [*policy.models],
        "keep_last": policy.keep_last,
        "keep_held_days": policy.keep_held_days,
        "delete_archived_after_days": policy.delete_archived_after_days,
        "release_deleted_after_days": policy.release_deleted_after_days,
    }


def from_json(document: Mapping[str, object]) -> RetentionPolicy:
    """Read a policy from the record."""

    def number(name: str) -> int | None:
        return cast("int | None", document.get(name))

    return RetentionPolicy(
        models=tuple(cast("list[str]", document.get("models") or [])),
        keep_last=number("keep_last"),
        keep_held_days=number("keep_held_days"),
        delete_archived_after_days=number("delete_archived_after_days"),
        release_deleted_after_days=number("release_deleted_after_days"),
    )
