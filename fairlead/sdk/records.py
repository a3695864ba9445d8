"""What the API answers, as frozen records. Times are aware UTC, sizes are bytes, digests are `sha256:<hex>`."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, cast

from fairlead.core.clock import format_time, parse_time
from fairlead.core.errors import InvalidInput, JsonValue, ServerUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record read from JSON; members that this client does not know yet are ignored."""

    @classmethod
    def from_json(cls, members: dict[str, JsonValue]) -> Self:
        """Read the JSON object of an answer.

        Raises:
            ServerUnavailable: if it is no such record; the server is then of another version, or none of ours.
        """
        hints = _hints(cls)
        try:
            return cls(**{name: _read(hints[name], members[name]) for name in hints if name in members})
        except (TypeError, AttributeError, InvalidInput) as error:
            raise ServerUnavailable(
                f"The server's answer is not a {cls.__name__} as this client knows it.",
                hint="Check that server and client are of one version: fairlead --version",
            ) from error

    def to_json(self) -> dict[str, JsonValue]:
        """The record as plain JSON, for `--output json`."""
        return {f.name: _write(getattr(self, f.name)) for f in dataclasses.fields(self)}


@functools.cache
def _hints(cls: type[Record]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _read(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return _read(next(option for option in arguments if option is not types.NoneType), value)
    if origin is tuple:
        return tuple(_read(arguments[0], item) for item in value)
    if kind is datetime:
        return parse_time(value)
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_json(value)
    return value


def _write(value: object) -> JsonValue:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, tuple):
        return [_write(item) for item in cast("tuple[object, ...]", value)]
    return cast("JsonValue", value)


JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel(Record):
    """A name under which versions are registered; `regions` is None where every permitted location is wanted."""

    name: str
    residency: str
    last_version: int
    regions: tuple[str, ...] | None = None
    description: str = ""
    labels: JsonObject = field(default_factory=dict[str, Any])
    tags: JsonObject = field(default_factory=dict[str, Any])
    aliases: JsonObject = field(default_factory=dict[str, Any])
    created_by: str = ""
    created_at: datetime | None = None
    archived_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion(Record):
    """One version. `artifact_digest` names its bytes; `sent_bytes` is what registering it put on the wire.

    `resolved_from` and `as_of` are None unless the server was away: then they name the location whose copy of the
    record answered, and when that copy was made.
    """

    name: str
    version: int
    reference: str
    state: str
    residency: str
    artifact_digest: str | None = None
    description: str = ""
    flavor: str | None = None
    signature: JsonObject | None = None
    metrics: JsonObject = field(default_factory=dict[str, Any])
    params: JsonObject = field(default_factory=dict[str, Any])
    tags: JsonObject = field(default_factory=dict[str, Any])
    aliases: tuple[str, ...] = ()
    feature_service: str | None = None
    feature_service_digest: str | None = None
    snapshot_digest: str | None = None
    parent_version: int | None = None
    run_id: str | None = None
    error: JsonObject | None = None
    size_bytes: int | None = None
    sent_bytes: int | None = None
    source: str | None = None
    run_link: str | None = None
    code_commit: str | None = None
    stage: str | None = None
    created_by: str = ""
    created_at: datetime | None = None
    ready_at: datetime | None = None
    archived_at: datetime | None = None
    deleted_at: datetime | None = None
    resolved_from: str | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Location(Record):
    """A bucket and prefix (or folder) in a region, which holds replicas (storage) or what was asked of it (a cache).

    WARMING (what should be there is on its way) -> ACTIVE -> DRAINING (being retired) -> RETIRED. `options` go to the
    filesystem, `settings` are Fairlead's; neither holds a secret.
    """

    id: str
    name: str
    region: str
    url: str
    jurisdiction: str = ""
    kind: str = "storage"
    state: str = "ACTIVE"
    options: JsonObject = field(default_factory=dict[str, Any])
    settings: JsonObject = field(default_factory=dict[str, Any])
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica(Record):
    """An artifact at a location; only a VERIFIED one is ever read."""

    location: str
    region: str
    url: str
    state: str
    domain: JsonObject
    location_state: str = "ACTIVE"
    options: JsonObject = field(default_factory=dict[str, Any])
    client_access: str = "direct"
    layout_key: str | None = None
    stored_bytes: int | None = None
    moved_bytes: int | None = None
    source_region: str | None = None
    verified_at: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact(Record):
    """Everything that travels under one digest, and where it is."""

    digest: str
    kind: str
    residency: str
    size_bytes: int
    file_count: int
    replicas: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion(Record):
    """A request to point an environment at a version; `id` is None for a dry run.

    States: PLANNED, AWAITING_APPROVAL, APPLIED, REFUSED, REJECTED, WITHDRAWN, STALE.
    """

    id: str | None = None
    state: str
    reference: str
    environment: str
    base_revision: int
    revision: int | None = None
    reason: str = ""
    plan: JsonObject = field(default_factory=dict[str, Any])
    requested_by: str = ""
    requested_at: datetime | None = None
    approvals: tuple[JsonObject, ...] = ()
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove(Record):
    """One move of an alias or environment; `revision` is the one that it made.

    `not_rechecked` names the gates that a roll-back did not ask again.
    """

    name: str
    revision: int
    kind: str
    from_version: int | None = None
    to_version: int | None = None
    promotion_id: str | None = None
    reason: str = ""
    moved_by: str = ""
    moved_at: datetime | None = None
    not_rechecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding(Record):
    """A version that held a name at a time, as it was recorded then.

    `promotion` is the one by which it came (or had come before a roll-back), with gates, values and approvers.
    """

    reference: str
    at: datetime
    move: AliasMove
    artifact_digest: str | None = None
    residency: str = ""
    snapshot_digest: str | None = None
    feature_service: str | None = None
    run_id: str | None = None
    code_commit: str | None = None
    parent_version: int | None = None
    bundle: str | None = None
    regions: tuple[str, ...] = ()
    promotion: Promotion | None = None
    not_rechecked: tuple[str, ...] = ()
    audit_sequence: int | None = None
    event_hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Record):
    """A protected alias with a policy; `revision` is the policy's."""

    name: str
    rank: int
    policy: JsonObject
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Record):
    """An API token; `secret` is set in the answer that made it, and never again."""

    id: str
    name: str
    principal: str
    scopes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    by_roles: bool = False
    models: tuple[str, ...] | None = None
    environments: tuple[str, ...] | None = None
    secret: str | None = field(default=None, repr=False)
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent(Record):
    """What happened, by whom; `sequence` and `event_hash` are set once it is sealed into the chain."""

    id: str
    actor: str
    action: str
    subject: str
    happened_at: datetime
    residency: str = ""
    facts: JsonObject = field(default_factory=dict[str, Any])
    sequence: int | None = None
    event_hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry(Record):
    """One move or deployment; dollars and grams are decimal text."""

    kind: str
    subject: str
    region: str
    planned_bytes: int
    moved_bytes: int
    planned_usd: str
    actual_usd: str
    gco2: str
    source_region: str | None = None
    gco2_method: str = ""
    price_source: str = ""
    labels: JsonObject = field(default_factory=dict[str, Any])
    recorded_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Record):
    """The data of a feature service as of a time; `digest` is set once it is READY.

    `lacks` has what regions may not hold of it: `{region, view, features, residency, reason}` each.
    """

    id: str
    service: str
    state: str
    service_digest: str | None = None
    as_of: datetime | None = None
    digest: str | None = None
    artifacts: tuple[JsonObject, ...] = ()
    lacks: tuple[JsonObject, ...] = ()
    error: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFreshness(Record):
    """How far a region is in one view: the latest event time that it serves (None: not told), and as of when."""

    view: str
    as_of: datetime
    materialized_at: datetime
    watermark: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSnapshot(Record):
    """A snapshot that a region keeps beside what it serves, for those who hold or held an environment."""

    snapshot: str
    state: str
    rows: int | None = None
    materialized_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineState(Record):
    """What one region's online store serves, and should. `missing_views` may not be in the region at all.

    Unless `is_atomic`, reads see rows of two snapshots while one takes the place of the other.
    """

    region: str
    state: str
    service: str = ""
    wanted_snapshot: str | None = None
    snapshot: str | None = None
    rows: int | None = None
    missing_views: tuple[str, ...] = ()
    engine: str | None = None
    is_atomic: bool | None = None
    materialized_at: datetime | None = None
    views: tuple[ViewFreshness, ...] = ()
    kept: tuple[KeptSnapshot, ...] = ()
    error: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle(Record):
    """A version's BentoML package; `digest` is set once it is READY."""

    id: str
    reference: str
    state: str
    digest: str | None = None
    recipe: str = ""
    base_image: str | None = None
    papers: tuple[str, ...] = ()
    size_bytes: int | None = None
    error_code: str | None = None
    error_detail: str | None = None
    created_at: datetime | None = None
    ready_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment(Record):
    """What should run where, and what does; `plan` is set by a dry run alone, which has no regions."""

    name: str
    model: str
    state: str = ""
    environment: str | None = None
    desired_version: int | None = None
    bundle_digest: str | None = None
    placement_id: str | None = None
    revision: int = 0
    revision_state: str | None = None
    live_revision: int | None = None
    failure: str | None = None
    regions: tuple[JsonObject, ...] = ()
    steps: tuple[JsonObject, ...] = ()
    advice: tuple[str, ...] = ()
    endpoint: str | None = None
    plan: JsonObject | None = None

    @property
    def is_ready(self) -> bool:
        """Whether every region runs the wanted version's bundle alone, and requests have an address to go to.

        What runs where nobody can say an address, as on a target that is only written for, needs none.
        """
        return (
            (self.endpoint is not None or not any(region.get("endpoint_url") for region in self.regions))
            and bool(self.regions)
            and self.revision_state in {None, "LIVE"}
            and all(
                region["state"] == "RUNNING"
                and region["version"] == self.desired_version
                and region["bundle_digest"] == self.bundle_digest
                for region in self.regions
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlacement(Record):
    """A fleet's answer; `placements` holds, by model, the id under which its placement is kept."""

    placements: JsonObject
    answer: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement(Record):
    """A placement request and the engine's answer, kept under an id."""

    id: str
    request: JsonObject
    answer: JsonObject
