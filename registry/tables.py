"""The record's tables.

Every row carries its workspace and every unique key begins with it. Whatever can hold restricted data (artifacts,
replicas, work, events) carries its residency class, which never changes. Order is by revision, never by clock.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import Base, JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id

JsonObject = dict[str, Any]

DIGEST = name_type(71)
ROW_ID = String(36)
PLAIN_KEY_ID = "plain"
"""The key id of what Fairlead does not encrypt itself; a part of every object path and of the block index's key."""


INDEXED_TAG_LENGTH = 255
SHORT_TAG = f"length(value) <= {INDEXED_TAG_LENGTH}"
"""Which values of versions' tags are in an index; a search for one has to say the same."""


class WorkspaceRow(Base):
    """A tenant. `refs_revision` grows with every move of a pointer; signed refs are published as of it.

    `jurisdiction` is where the database itself is (None: not stated, so outside of every one).
    """

    __tablename__ = "workspaces"

    workspace_id: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    jurisdiction: Mapped[str | None] = mapped_column(name_type(16))
    refs_revision: Mapped[int] = mapped_column(BigInteger, default=0)
    # What was restored goes on from the sequence of its copy, though its audit log begins anew.
    record_base: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class InWorkspace(Base):
    """The base of all that a workspace holds: its id is the first part of every primary key."""

    __abstract__ = True

    workspace_id: Mapped[str] = mapped_column(
        name_type(63), ForeignKey("workspaces.workspace_id"), primary_key=True, sort_order=-2
    )


class TokenRow(InWorkspace):
    """An API token: only the sha256 of its secret is kept."""

    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("secret_sha256"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    name: Mapped[str] = mapped_column(name_type())
    principal: Mapped[str] = mapped_column(name_type())
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JsonType)
    groups: Mapped[list[str]] = mapped_column(JsonType, default=list)
    # Whether only what roles give may be done with it; and the patterns that it is limited to (None: to none).
    by_roles: Mapped[bool] = mapped_column(default=False)
    models: Mapped[list[str] | None] = mapped_column(JsonType)
    environments: Mapped[list[str] | None] = mapped_column(JsonType)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(name_type())
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ArtifactRow(InWorkspace):
    """Something that travels: a model version's files, a feature snapshot's view, a bundle. Named by its manifest."""

    __tablename__ = "artifacts"
    __table_args__ = (Index(None, "workspace_id", "residency", "tensor_signature"),)

    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # model | snapshot | bundle
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    file_count: Mapped[int] = mapped_column(Integer)
    regions: Mapped[list[str] | None] = mapped_column(JsonType)  # None: every region that residency permits
    labels: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    key_id: Mapped[str] = mapped_column(name_type(63), default=PLAIN_KEY_ID)
    # Names, dtypes and shapes of its tensors, hashed: artifacts with the same one are likely bases of each other.
    tensor_signature: Mapped[str | None] = mapped_column(String(64))
    # When the last version that had it was given up: no replica of it is wanted, and the collector takes them all.
    released_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LocationRow(InWorkspace):
    """A bucket and prefix in a region.

    A *storage* location: WARMING (its backfill runs) -> ACTIVE -> DRAINING (being retired) -> RETIRED. A *cache* keeps
    what was asked of it and is no replica. `options` go to the file system; `settings` are ours.
    """

    __tablename__ = "locations"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    name: Mapped[str] = mapped_column(name_type())
    region: Mapped[str] = mapped_column(name_type(63))
    jurisdiction: Mapped[str] = mapped_column(name_type(16))
    url: Mapped[str] = mapped_column(Text)
    options: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    kind: Mapped[str] = mapped_column(String(16), default="storage")  # storage | cache
    state: Mapped[str] = mapped_column(String(16), default="ACTIVE")
    settings: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    published_refs_revision: Mapped[int] = mapped_column(BigInteger, default=-1)
    # Up to which event of the sealed audit log the copy of the record that lies here goes.
    published_record_sequence: Mapped[int] = mapped_column(BigInteger, default=-1)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ReplicaRow(InWorkspace):
    """An artifact at a location, as it should be and as it is.

    PENDING (wanted, not there) -> COPYING -> VERIFIED (its own bytes were read back) -> CORRUPT (a read failed) ->
    COPYING ... ; FAILED keeps the last error and is tried again.
    """

    __tablename__ = "replicas"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "residency", "artifact_digest"],
            ["artifacts.workspace_id", "artifacts.residency", "artifacts.digest"],
        ),
        ForeignKeyConstraint(["workspace_id", "location_id"], ["locations.workspace_id", "locations.id"]),
        Index(None, "workspace_id", "state"),
    )

    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    artifact_digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    location_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    layout_key: Mapped[str | None] = mapped_column(Text)
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    moved_bytes: Mapped[int | None] = mapped_column(BigInteger)
    source_location_id: Mapped[str | None] = mapped_column(ROW_ID)
    # The hop of the cheapest distribution tree that should bring it, and what that should move and cost.
    planned_source_location_id: Mapped[str | None] = mapped_column(ROW_ID)
    planned_bytes: Mapped[int | None] = mapped_column(BigInteger)
    planned_usd: Mapped[str | None] = mapped_column(String(32))
    # False: no policy wants it here any longer; the collector takes it away.
    is_wanted: Mapped[bool] = mapped_column(default=True)
    error_code: Mapped[str | None] = mapped_column(String(63))
    verified_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UploadRow(InWorkspace):
    """A client's permission to write one artifact's packs into one location, under a fenced lease.

    OPEN -> VERIFYING (handed over) -> READY | FAILED; EXPIRED where the client never came back.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "location_id"], ["locations.workspace_id", "locations.id"]),
        Index(None, "workspace_id", "state"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    residency: Mapped[str] = mapped_column(name_type(63))
    key_id: Mapped[str] = mapped_column(name_type(63), default=PLAIN_KEY_ID)
    kind: Mapped[str] = mapped_column(String(16))
    location_id: Mapped[str] = mapped_column(ROW_ID)
    state: Mapped[str] = mapped_column(String(16))
    regions: Mapped[list[str] | None] = mapped_column(JsonType)
    labels: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    artifact_digest: Mapped[str | None] = mapped_column(DIGEST)
    layout_key: Mapped[str | None] = mapped_column(Text)
    sent_bytes: Mapped[int | None] = mapped_column(BigInteger)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WorkRow(InWorkspace):
    """One difference between what should be true and what is, which a worker may lease.

    The row goes away when the work is done; a lost row is derived again from the desired state. `lease_token` only
    grows: whoever holds an older one records nothing.
    """

    __tablename__ = "work"
    __table_args__ = (
        UniqueConstraint("workspace_id", "kind", "subject"),
        Index(None, "region", "not_before"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    residency: Mapped[str] = mapped_column(name_type(63))
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(name_type(512))
    region: Mapped[str] = mapped_column(name_type(63))
    priority: Mapped[int] = mapped_column(Integer, default=100)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_holder: Mapped[str | None] = mapped_column(String(255))
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    progress_bytes: Mapped[int | None] = mapped_column(BigInteger)
    total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    # Moved by all attempts together: what was paid for, whatever became of it.
    moved_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    # What the running attempt is at (copy, verify ...) and how fast it goes.
    phase: Mapped[str | None] = mapped_column(String(16))
    bytes_per_second: Mapped[int | None] = mapped_column(BigInteger)
    # Where a copy reads from, and what it may yet cost: budgets count it as spent.
    source_region: Mapped[str | None] = mapped_column(name_type(63))
    reserved_usd: Mapped[str | None] = mapped_column(String(32))
    # Packs (hexadecimal) that earlier attempts brought to the destination: the next one finds their blocks there.
    written_packs: Mapped[list[str] | None] = mapped_column(JsonType)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RegisteredModelRow(InWorkspace):
    """A name under which versions are registered, with who answers for it."""

    __tablename__ = "registered_models"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    name: Mapped[str] = mapped_column(name_type())
    residency: Mapped[str] = mapped_column(name_type(63))
    regions: Mapped[list[str] | None] = mapped_column(JsonType)
    description: Mapped[str] = mapped_column(Text, default="")
    owner: Mapped[str] = mapped_column(name_type())
    team: Mapped[str] = mapped_column(name_type())
    cost_centre: Mapped[str] = mapped_column(name_type())
    last_version: Mapped[int] = mapped_column(Integer, default=0)
    archived_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class _OfModel(InWorkspace):
    __abstract__ = True

    model_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, sort_order=-1)


class ModelTagRow(_OfModel):
    """A label of a registered model."""

    __tablename__ = "model_tags"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
        Index(None, "workspace_id", "key"),
    )

    key: Mapped[str] = mapped_column(name_type(), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class ModelVersionRow(_OfModel):
    """One version of a model: PENDING (its bytes are not verified) -> READY | FAILED. Numbers are never reused."""

    __tablename__ = "model_versions"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
        Index(None, "workspace_id", "artifact_digest"),
        Index(None, "workspace_id", "upload_id"),
        *(
            Index(None, "workspace_id", name, postgresql_where=text(is_said), sqlite_where=text(is_said))
            for name in ("run_id", "code_commit", "snapshot_digest")
            for is_said in (f"{name} IS NOT NULL",)
        ),
    )

    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    id: Mapped[str] = mapped_column(ROW_ID, default=new_row_id)
    state: Mapped[str] = mapped_column(String(16))
    residency: Mapped[str] = mapped_column(name_type(63))
    upload_id: Mapped[str | None] = mapped_column(ROW_ID)
    artifact_digest: Mapped[str | None] = mapped_column(DIGEST)
    description: Mapped[str] = mapped_column(Text, default="")
    flavor: Mapped[str | None] = mapped_column(String(63))
    signature: Mapped[JsonObject | None] = mapped_column(JsonType)
    metrics: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    params: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    feature_service: Mapped[str | None] = mapped_column(name_type())
    feature_service_digest: Mapped[str | None] = mapped_column(DIGEST)
    snapshot_digest: Mapped[str | None] = mapped_column(DIGEST)
    parent_version: Mapped[int | None] = mapped_column(Integer)
    run_id: Mapped[str | None] = mapped_column(name_type())
    # Where MLflow says that its files come from, and what it links to.
    source: Mapped[str | None] = mapped_column(Text)
    run_link: Mapped[str | None] = mapped_column(Text)
    stage: Mapped[str | None] = mapped_column(String(16))
    code_commit: Mapped[str | None] = mapped_column(name_type())
    archived_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # When its bytes were given up: it cannot be restored any more.
    released_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ready_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # When its description, tags or stage last changed; None: never.
    changed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class VersionTagRow(_OfModel):
    """A label of a model version."""

    __tablename__ = "version_tags"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
        ),
        Index(None, "workspace_id", "key"),
        # Long values do not fit into an index of PostgreSQL's.
        Index(
            "ix_version_tags_value",
            *("workspace_id", "key", "value", "model_id", "version"),
            postgresql_where=text(SHORT_TAG),
            sqlite_where=text(SHORT_TAG),
        ),
    )

    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    key: Mapped[str] = mapped_column(name_type(), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class AliasRow(_OfModel):
    """A movable pointer. An environment's pointer is an alias with the environment's name, moved only by promotion.

    `revision` grows with every move; a deleted alias keeps its row (version None), so that its revisions go on.
    """

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
    )

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    version: Mapped[int | None] = mapped_column(Integer)
    revision: Mapped[int] = mapped_column(BigInteger)
    moved_by: Mapped[str] = mapped_column(name_type())
    moved_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AliasMoveRow(_OfModel):
    """One move of an alias: the history that roll-back and auditors read."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
    )

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # set | delete | promote | rollback
    from_version: Mapped[int | None] = mapped_column(Integer)
    to_version: Mapped[int | None] = mapped_column(Integer)
    promotion_id: Mapped[str | None] = mapped_column(ROW_ID)
    reason: Mapped[str] = mapped_column(Text, default="")
    moved_by: Mapped[str] = mapped_column(name_type())
    moved_at: Mapped[datetime] = mapped_column(UtcDateTime)


class EnvironmentRow(InWorkspace):
    """A protected alias with a policy; `rank` orders dev before staging before production."""

    __tablename__ = "environments"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    rank: Mapped[int] = mapped_column(Integer)
    policy: Mapped[JsonObject] = mapped_column(JsonType)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PromotionRow(InWorkspace):
    """A request to move an environment: AWAITING_APPROVAL -> APPLIED | REFUSED | REJECTED | WITHDRAWN | STALE."""

    __tablename__ = "promotions"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
        Index(None, "workspace_id", "model_id", "state"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    residency: Mapped[str] = mapped_column(name_type(63))
    model_id: Mapped[str] = mapped_column(ROW_ID)
    version: Mapped[int] = mapped_column(Integer)
    environment: Mapped[str] = mapped_column(name_type())
    base_revision: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(24))
    reason: Mapped[str] = mapped_column(Text, default="")
    plan: Mapped[JsonObject] = mapped_column(JsonType)
    requested_by: Mapped[str] = mapped_column(name_type())
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ApprovalRow(InWorkspace):
    """One principal's word on a promotion."""

    __tablename__ = "approvals"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "promotion_id"], ["promotions.workspace_id", "promotions.id"]),
    )

    promotion_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    principal: Mapped[str] = mapped_column(name_type(), primary_key=True)
    is_approval: Mapped[bool]
    # The roles that the principal held for this promotion when it gave its word.
    roles: Mapped[list[str]] = mapped_column(JsonType, default=list)
    comment: Mapped[str] = mapped_column(Text, default="")
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditEventRow(InWorkspace):
    """What happened, by whom. Written in the same transaction as the change; sealed into the chain soon after."""

    __tablename__ = "audit_events"
    __table_args__ = (UniqueConstraint("workspace_id", "sequence"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    residency: Mapped[str] = mapped_column(name_type(63))
    actor: Mapped[str] = mapped_column(name_type())
    action: Mapped[str] = mapped_column(String(63))
    subject: Mapped[str] = mapped_column(name_type(512))
    facts: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    happened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    previous_hash: Mapped[str | None] = mapped_column(String(64))
    event_hash: Mapped[str | None] = mapped_column(String(64))


class LedgerRow(InWorkspace):
    """What one move or deployment cost. Dollars and grams are decimal text, so that sums are exact."""

    __tablename__ = "ledger"
    __table_args__ = (UniqueConstraint("workspace_id", "cause"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    residency: Mapped[str] = mapped_column(name_type(63))
    cause: Mapped[str] = mapped_column(name_type(512))  # what was paid for, once: a retry adds no second row
    kind: Mapped[str] = mapped_column(String(32))  # upload | replicate | repair | snapshot | deploy | federate
    subject: Mapped[str] = mapped_column(name_type(512))
    source_region: Mapped[str | None] = mapped_column(name_type(63))
    region: Mapped[str] = mapped_column(name_type(63))
    planned_bytes: Mapped[int] = mapped_column(BigInteger)
    moved_bytes: Mapped[int] = mapped_column(BigInteger)
    planned_usd: Mapped[str] = mapped_column(String(32))
    actual_usd: Mapped[str] = mapped_column(String(32))
    gco2: Mapped[str] = mapped_column(String(32))
    gco2_method: Mapped[str] = mapped_column(Text)
    price_source: Mapped[str] = mapped_column(Text)
    labels: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdempotencyRow(InWorkspace):
    """The answer that a creating call once gave; it exists only for committed success."""

    __tablename__ = "idempotency"

    principal: Mapped[str] = mapped_column(name_type(), primary_key=True)
    key: Mapped[str] = mapped_column(name_type(), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(Integer)
    answer: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
