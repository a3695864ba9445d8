"""Replica policies: which artifacts should be in which regions, and for how long. Pure: values in, answers out.

Without a policy an artifact should be wherever its residency class and its own regions permit. A policy governs the
artifacts that it matches by model, kind and residency class; an artifact that is governed should be in the regions of
those of its policies that also apply to it (its environments, its age), and else only where it came in. What residency
forbids no policy permits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import cast

from fairlead.core.errors import InvalidInput, JsonValue

KINDS = ("model", "bundle", "snapshot", "feature-log")
PATTERNS_MAX = 100
PATTERN_MAX_LENGTH = 255
NEWEST_MAX = 1_000_000
DAYS_MAX = 36_500


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long a policy applies to a version that no environment needs: while it is one of the newest, or young."""

    newest: int | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPolicy:
    """Where the artifacts that it matches should be. Empty patterns match everything; `*` and `?` are wild cards."""

    models: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    residency: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    regions: tuple[str, ...] = ("*",)
    retention: Retention | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One model version that an artifact belongs to.

    `environments` are those that it holds, that it may be rolled back to, or that it was just asked for; `newer` is
    how many versions of the model came after it.
    """

    model: str
    environments: frozenset[str]
    newer: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFacts:
    """What policies look at. An artifact that belongs to no model version has no uses, and its own age."""

    kind: str
    residency: str
    created_at: datetime
    uses: tuple[Use, ...]


def wanted_regions(policies: Sequence[ReplicaPolicy], artifact: ArtifactFacts, now: datetime) -> tuple[str, ...] | None:
    """The patterns of the regions where an artifact should be, or None where no policy governs it: everywhere."""
    governing = [policy for policy in policies if _governs(policy, artifact)]
    if not governing:
        return None
    applying = (policy for policy in governing if _applies(policy, artifact, now))
    return tuple(dict.fromkeys(pattern for policy in applying for pattern in policy.regions))


def is_match(patterns: Sequence[str], value: str) -> bool:
    """Whether a value is like one of the patterns."""
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def to_json(policy: ReplicaPolicy) -> dict[str, JsonValue]:
    """A policy as the record keeps it, and as its owners write it."""
    retention = policy.retention
    return {
        "match": {
            "models": [*policy.models],
            "kinds": [*policy.kinds],
            "residency": [*policy.residency],
            "environments": [*policy.environments],
        },
        "regions": [*policy.regions],
        "retention": None if retention is None else {"newest": retention.newest, "days": retention.days},
    }


def from_json(document: Mapping[str, object]) -> ReplicaPolicy:
    """Read a policy from the record."""
    match = cast("Mapping[str, list[str]]", document["match"])
    retention = cast("Mapping[str, int | None] | None", document["retention"])
    return ReplicaPolicy(
        models=tuple(match["models"]),
        kinds=tuple(match["kinds"]),
        residency=tuple(match["residency"]),
        environments=tuple(match["environments"]),
        regions=tuple(cast("list[str]", document["regions"])),
        retention=None if retention is None else Retention(newest=retention["newest"], days=retention["days"]),
    )


def check_policy(policy: ReplicaPolicy, regions: Sequence[str]) -> None:
    """Refuse a policy that could not mean what its owner thinks; `regions` are those of the catalog.

    Raises:
        InvalidInput: naming the member and what it may hold.
    """
    for name in ("models", "kinds", "residency", "environments", "regions"):
        patterns: tuple[str, ...] = getattr(policy, name)
        if len(patterns) > PATTERNS_MAX or any(not 0 < len(each) <= PATTERN_MAX_LENGTH for each in patterns):
            raise InvalidInput(f"`{name}` holds at most {PATTERNS_MAX} texts of 1 to {PATTERN_MAX_LENGTH} characters.")
    for kind in policy.kinds:
        if kind not in KINDS:
            raise InvalidInput(f"{kind[:40]!r} is no kind of artifact.", hint=f"Use {', '.join(KINDS)}.")
    for pattern in policy.regions:
        if not any(fnmatchcase(region, pattern) for region in regions):
            raise InvalidInput(
                f"No region of the catalog is like {pattern[:80]!r}.",
                hint="Write regions such as aws:us-east-1, or patterns such as gcp:europe-*.",
                region=pattern[:80],
            )
    retention = policy.retention
    if retention is not None:
        if retention.newest is None and retention.days is None:
            raise InvalidInput("The retention says neither `newest` nor `days`.", hint="Leave it out to keep for ever.")
        for name, value, limit in (("newest", retention.newest, NEWEST_MAX), ("days", retention.days, DAYS_MAX)):
            if value is not None and not 0 <= value <= limit:
                raise InvalidInput(f"`retention.{name}` is a whole number from 0 to {limit}.")


def _governs(policy: ReplicaPolicy, artifact: ArtifactFacts) -> bool:
    return (
        (not policy.kinds or artifact.kind in policy.kinds)
        and (not policy.residency or is_match(policy.residency, artifact.residency))
        and (not policy.models or any(is_match(policy.models, use.model) for use in artifact.uses))
    )


def _applies(policy: ReplicaPolicy, artifact: ArtifactFacts, now: datetime) -> bool:
    if not artifact.uses:
        # What belongs to no model version is in no environment, and only its age can end it.
        return not policy.environments and _is_kept(policy.retention, newer=None, age=now - artifact.created_at)
    uses = [use for use in artifact.uses if not policy.models or is_match(policy.models, use.model)]
    return any(_applies_to_use(policy, use, now) for use in uses)


def _applies_to_use(policy: ReplicaPolicy, use: Use, now: datetime) -> bool:
    if policy.environments:
        return any(is_match(policy.environments, environment) for environment in use.environments)
    # Whatever an environment needs outlives retention.
    return bool(use.environments) or _is_kept(policy.retention, newer=use.newer, age=now - use.created_at)


def _is_kept(retention: Retention | None, *, newer: int | None, age: timedelta) -> bool:
    if retention is None:
        return True
    is_new = retention.newest is not None and newer is not None and newer < retention.newest
    is_young = retention.days is not None and age <= timedelta(days=retention.days)
    return is_new or is_young
