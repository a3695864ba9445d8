"""Retention: the policies in the record, what would go by them now, and letting it go.

A worker applies every policy once an hour, and anyone may ask at any time what would go. To delete is as when somebody
does it. To release the bytes of a deleted version means that it cannot be restored any more: once the last version that
had an artifact is released, none of its replicas is wanted, and the collector takes them away, block by block what
nothing else stands on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import JsonValue, RetentionPolicyNotFound, VersionInUse
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock, DeploymentIndex
from fairlead.registry import audit
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.lifecycle import delete_version, record_event
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.promotion_record import AWAITING_APPROVAL
from fairlead.registry.retention_policy import (
    Going,
    RetentionPolicy,
    VersionFacts,
    check_policy,
    decide,
    from_json,
    to_json,
)
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables import (
    AliasMoveRow,
    AliasRow,
    ArtifactRow,
    EnvironmentRow,
    ModelVersionRow,
    PromotionRow,
    RegisteredModelRow,
    ReplicaRow,
    WorkspaceRow,
)
from fairlead.registry.tables_lifecycle import RetentionPolicyRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fairlead.registry.retention_policy import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRetentionPolicy:
    """A policy and its revision."""

    name: str
    policy: RetentionPolicy
    revision: int
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionStep:
    """A version that goes. `bytes` are those of its replicas that are then nobody's; what others share is counted in.

    They go when the step is a release; a deletion keeps them for as long as the policy says.
    """

    reference: str
    action: Action
    policy: str
    because: str
    bytes: int


class RetentionPolicies:
    """Applies, shows and removes retention policies; says what would go by them, and lets it go."""

    def __init__(self, database: Database, clock: Clock, deployments: DeploymentIndex | None = None) -> None:
        self._database = database
        self._clock = clock
        self._deployments = deployments

    def list(self, caller: Caller, page: PageRequest) -> Page[AppliedRetentionPolicy]:
        """Policies by name."""
        query = select(RetentionPolicyRow).where(RetentionPolicyRow.workspace_id == caller.workspace_id)
        listing = ("retention-policies", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [RetentionPolicyRow.name], listing=listing).map(_to_applied)

    def get(self, caller: Caller, name: str) -> AppliedRetentionPolicy:
        """One policy.

        Raises:
            RetentionPolicyNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return _to_applied(_find(session, caller, name))

    def put(
        self, caller: Caller, name: str, policy: RetentionPolicy, *, expected_revision: int | None
    ) -> AppliedRetentionPolicy:
        """Apply a policy: create it or replace it. One that is there already, word for word, keeps its revision.

        Raises:
            InvalidInput: if the policy is not valid.
            StaleRevision: if it is not at the expected revision (0: not there).
        """
        parse_name(name, what="retention policy")
        check_policy(policy)
        document = to_json(policy)
        with self._database.write() as session:
            session.get(WorkspaceRow, caller.workspace_id, with_for_update={"key_share": True})
            row = session.get(RetentionPolicyRow, (caller.workspace_id, name), with_for_update=True)
            before = None if row is None else dict(row.document)
            _check_revision(name, 0 if row is None else row.revision, expected_revision)
            if row is not None and before == document:
                return _to_applied(row)
            if row is None:
                row = RetentionPolicyRow(workspace_id=caller.workspace_id, name=name, revision=0)
                session.add(row)
            row.document, row.revision = document, row.revision + 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            facts: dict[str, JsonValue] = {"revision": row.revision, "before": before, "after": document}
            audit.record(session, caller, self._clock, action="retention-policy.apply", subject=name, facts=facts)
            return _to_applied(row)

    def delete(self, caller: Caller, name: str, *, expected_revision: int | None) -> None:
        """Remove a policy; nothing goes by it any longer.

        Raises:
            RetentionPolicyNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
        """
        with self._database.write() as session:
            row = _find(session, caller, name, lock=True)
            _check_revision(name, row.revision, expected_revision)
            facts: dict[str, JsonValue] = {"revision": row.revision, "before": dict(row.document)}
            session.delete(row)
            audit.record(session, caller, self._clock, action="retention-policy.delete", subject=name, facts=facts)

    def plan(self, caller: Caller, drafts: Mapping[str, RetentionPolicy] | None = None) -> tuple[RetentionStep, ...]:
        """What would go now, in order of model and version, with policies that are not applied yet in place of theirs.

        Raises:
            InvalidInput: if a draft is not valid.
        """
        for draft in (drafts or {}).values():
            check_policy(draft)
        with self._database.read() as session:
            return tuple(
                step
                for _, step, _ in _steps(session, self._deployments, caller.workspace_id, self._clock.now(), drafts)
            )

    def run(self, caller: Caller) -> tuple[RetentionStep, ...]:
        """Let go what would go now; what went."""
        with self._database.write() as session:
            return self.apply(session, caller, self._clock.now())

    def sweep(self, session: Session, now: datetime) -> None:
        """Let go what the policies of every workspace say; what workers do once an hour."""
        for workspace_id in session.scalars(select(RetentionPolicyRow.workspace_id).distinct()).all():
            self.apply(session, system_caller(workspace_id, "retention"), now)

    def apply(self, session: Session, caller: Caller, now: datetime) -> tuple[RetentionStep, ...]:
        """Let go what would go at a time, within a transaction."""
        done: list[RetentionStep] = []
        released: list[ModelVersionRow] = []
        for model, step, row in [*_steps(session, self._deployments, caller.workspace_id, now, None)]:
            facts: dict[str, JsonValue] = {"policy": step.policy, "because": step.because}
            session.refresh(model, with_for_update={"key_share": True})
            session.refresh(row)
            if step.action == "release":
                # Restored a moment ago.
                if row.deleted_at is None:
                    continue
                row.released_at = now
                record_event(session, caller, now, action="version.release", of=(model, row), facts=facts)
                released.append(row)
            else:
                try:
                    delete_version(session, caller, self._clock, self._deployments, of=(model, row), facts=facts)
                except VersionInUse:
                    continue
            done.append(step)
        session.flush()
        # After all models are locked, as whoever registers locks the model before the artifact.
        for row in sorted(released, key=lambda row: (row.residency, row.artifact_digest or "")):
            release_artifact(session, row, now)
        return tuple(done)


def release_artifact(session: Session, version: ModelVersionRow, now: datetime) -> None:
    """Let no replica of a version's files be wanted, unless another version has the same.

    The artifact's row is locked first, so a version that comes to have it meanwhile is seen here, or sees it released.
    """
    if version.artifact_digest is None:
        return
    artifact = session.get(
        ArtifactRow, (version.workspace_id, version.residency, version.artifact_digest), with_for_update=True
    )
    if artifact is None or artifact.kind != "model" or _has_other_users(session, version, frozenset()):
        return
    artifact.released_at = now
    _want_replicas(session, artifact, now, is_wanted=False)


def reclaim_artifact(session: Session, artifact: ArtifactRow, now: datetime) -> None:
    """Want the replicas of a released artifact again: somebody has just uploaded the same files."""
    if artifact.released_at is None:
        return
    artifact.released_at = None
    _want_replicas(session, artifact, now, is_wanted=True)


def _want_replicas(session: Session, artifact: ArtifactRow, now: datetime, *, is_wanted: bool) -> None:
    session.execute(
        update(ReplicaRow)
        .where(
            ReplicaRow.workspace_id == artifact.workspace_id,
            ReplicaRow.residency == artifact.residency,
            ReplicaRow.artifact_digest == artifact.digest,
        )
        .values(is_wanted=is_wanted, updated_at=now)
    )


def _steps(
    session: Session,
    deployments: DeploymentIndex | None,
    workspace_id: str,
    now: datetime,
    drafts: Mapping[str, RetentionPolicy] | None,
) -> Iterator[tuple[RegisteredModelRow, RetentionStep, ModelVersionRow]]:
    rows = session.scalars(select(RetentionPolicyRow).where(RetentionPolicyRow.workspace_id == workspace_id))
    policies = {row.name: from_json(row.document) for row in rows} | dict(drafts or {})
    if not policies:
        return
    models = select(RegisteredModelRow).where(RegisteredModelRow.workspace_id == workspace_id)
    environments = frozenset(
        session.scalars(select(EnvironmentRow.name).where(EnvironmentRow.workspace_id == workspace_id))
    )
    for model in session.scalars(models.order_by(RegisteredModelRow.name)).all():
        governing = {name: policy for name, policy in policies.items() if policy.governs(model.name)}
        if not governing:
            continue
        versions = session.scalars(
            select(ModelVersionRow)
            .where(ModelVersionRow.workspace_id == workspace_id, ModelVersionRow.model_id == model.id)
            .order_by(ModelVersionRow.version)
        ).all()
        by_number = {row.version: row for row in versions}
        facts = _facts(session, deployments, model, versions, environments=environments, now=now)
        going = decide(governing, facts, model_archived_at=model.archived_at, now=now)
        together = frozenset(each.version for each in going)
        for each in going:
            row = by_number[each.version]
            yield model, _to_step(session, model, row, each, together), row


def _facts(
    session: Session,
    deployments: DeploymentIndex | None,
    model: RegisteredModelRow,
    versions: Sequence[ModelVersionRow],
    *,
    environments: frozenset[str],
    now: datetime,
) -> list[VersionFacts]:
    of_model = (AliasRow.workspace_id == model.workspace_id, AliasRow.model_id == model.id)
    held = {row.version for row in session.scalars(select(AliasRow).where(*of_model)) if row.version is not None}
    waiting = select(PromotionRow.version).where(
        PromotionRow.workspace_id == model.workspace_id,
        PromotionRow.model_id == model.id,
        PromotionRow.state == AWAITING_APPROVAL,
    )
    held.update(session.scalars(waiting))
    if deployments is not None and deployments.pinned(model.workspace_id, model.name, None):
        held.update(row.version for row in versions if deployments.pinned(model.workspace_id, model.name, row.version))
    until = _held_until(session, model, environments, now)
    return [
        VersionFacts(
            version=row.version,
            state=row.state,
            archived_at=row.archived_at,
            deleted_at=row.deleted_at,
            released_at=row.released_at,
            held_until=until.get(row.version),
            is_held=row.version in held,
        )
        for row in versions
    ]


def _held_until(
    session: Session, model: RegisteredModelRow, environments: frozenset[str], now: datetime
) -> dict[int, datetime]:
    """When each version last held an environment: now, or when the next move took it away."""
    moves = session.scalars(
        select(AliasMoveRow)
        .where(
            AliasMoveRow.workspace_id == model.workspace_id,
            AliasMoveRow.model_id == model.id,
            AliasMoveRow.name.in_(environments),
        )
        .order_by(AliasMoveRow.name, AliasMoveRow.revision)
    ).all()
    by_name: defaultdict[str, list[AliasMoveRow]] = defaultdict(list)
    for move in moves:
        by_name[move.name].append(move)
    until: dict[int, datetime] = {}
    for of_name in by_name.values():
        ends = [*(move.moved_at for move in of_name[1:]), now]
        for move, end in zip(of_name, ends, strict=True):
            if move.to_version is not None:
                until[move.to_version] = max(until.get(move.to_version, end), end)
    return until


def _to_step(
    session: Session, model: RegisteredModelRow, row: ModelVersionRow, going: Going, together: frozenset[int]
) -> RetentionStep:
    stored = 0
    if row.artifact_digest is not None and not _has_other_users(session, row, together):
        query = select(func.sum(ReplicaRow.stored_bytes)).where(
            ReplicaRow.workspace_id == row.workspace_id,
            ReplicaRow.residency == row.residency,
            ReplicaRow.artifact_digest == row.artifact_digest,
        )
        stored = int(session.scalar(query) or 0)
    return RetentionStep(
        reference=f"{model.name}/{row.version}",
        action=going.action,
        policy=going.policy,
        because=going.because,
        bytes=stored,
    )


def _has_other_users(session: Session, version: ModelVersionRow, but: frozenset[int]) -> bool:
    """Whether a version has the same files that is not released; `but` leaves out some of the same model."""
    query = select(ModelVersionRow.model_id, ModelVersionRow.version).where(
        ModelVersionRow.workspace_id == version.workspace_id,
        ModelVersionRow.residency == version.residency,
        ModelVersionRow.artifact_digest == version.artifact_digest,
        ModelVersionRow.released_at.is_(None),
    )
    return any(
        model_id != version.model_id or (number != version.version and number not in but)
        for model_id, number in session.execute(query)
    )


def _find(session: Session, caller: Caller, name: str, *, lock: bool = False) -> RetentionPolicyRow:
    key = (caller.workspace_id, parse_name(name, what="retention policy"))
    row = session.get(RetentionPolicyRow, key, with_for_update=lock or None)
    if row is None:
        raise RetentionPolicyNotFound(
            f"There is no retention policy {name[:80]!r}.", hint="See: fairlead retention list"
        )
    return row


def _check_revision(name: str, actual: int, expected: int | None) -> None:
    require_revision(
        f"The retention policy {name!r}",
        actual,
        expected,
        hint=f"Look at it and try again: fairlead retention show {name}",
    )


def _to_applied(row: RetentionPolicyRow) -> AppliedRetentionPolicy:
    return AppliedRetentionPolicy(
        name=row.name,
        policy=from_json(row.document),
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
