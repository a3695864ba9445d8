"""Promotion: a request to move an environment to a version, its plan, its gates, and the way back.

Asking evaluates the environment's policy, and every promotion policy that governs the model there, and plans the
move: each gate with its value and limit, the replicas still missing with their bytes and dollars, the deployments
touched. A gate that fails refuses; a policy that asks for approvals waits for them; else the pointer moves at once. The
last approval evaluates every gate again and moves the pointer only if it still stands where it stood when the promotion
was asked for: else the promotion is STALE.

    (asked) -> APPLIED | REFUSED | AWAITING_APPROVAL
    AWAITING_APPROVAL -> APPLIED | REFUSED | REJECTED | WITHDRAWN | STALE

Everything happens with the model's row locked, so there is one winner for each revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.errors import (
    Conflict,
    FairleadError,
    GateRefused,
    InvalidInput,
    JsonValue,
    PermissionDenied,
    PlanOutdated,
    SelfApproval,
    StaleRevision,
)
from fairlead.core.ports import BundleIndex, Clock, CopyPricing, DeploymentIndex, SnapshotIndex
from fairlead.registry.aliases import advance_refs, check_revision, current_pointer, move_pointer, require_ready
from fairlead.registry.environments import find_environment
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import REASON_MAX_LENGTH, parse_text
from fairlead.registry.models import find_model, require_unarchived
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.plans import (
    NoDeployments,
    Plan,
    Subject,
    Surroundings,
    changes_between,
    make_plan,
    plan_to_json,
)
from fairlead.registry.promotion_policy import Approver
from fairlead.registry.promotion_record import (
    APPLIED,
    AWAITING_APPROVAL,
    PLANNED,
    REFUSED,
    REJECTED,
    STALE,
    STATES,
    WITHDRAWN,
    Promotion,
    find_promotion,
    record_event,
    render_promotions,
    retire_rivals,
    words_on,
)
from fairlead.registry.role_holders import held_roles
from fairlead.registry.tables import ApprovalRow, PromotionRow, RegisteredModelRow
from fairlead.registry.version_records import find_version


class Promotions:
    """Plans, asks for, approves, rejects and lists promotions."""

    def __init__(  # noqa: PLR0917  (ports)
        self,
        database: Database,
        clock: Clock,
        catalog: Catalog,
        deployments: DeploymentIndex | None = None,
        copies: CopyPricing | None = None,
        bundles: BundleIndex | None = None,
        snapshots: SnapshotIndex | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._around = Surroundings(
            catalog=catalog,
            deployments=NoDeployments() if deployments is None else deployments,
            copies=copies,
            bundles=bundles,
            snapshots=snapshots,
        )

    def plan(
        self,
        caller: Caller,
        model: str,
        version: int,
        environment: str,
        *,
        expected_revision: int | None = None,
        is_emergency: bool = False,
    ) -> Promotion:
        """What a promotion would do and what each gate says; nothing is kept.

        Raises:
            StaleRevision: if an expected revision is given and is not current.
            ModelNotFound, ModelVersionNotFound, EnvironmentNotFound: if there is no such thing.
            NotReady: if the version's bytes are not verified.
            Conflict: if the environment holds the version already.
        """
        with self._database.read() as session:
            attempt = self._attempt(
                session,
                caller,
                model=model,
                version=version,
                environment=environment,
                expected_revision=expected_revision,
                is_emergency=is_emergency,
            )
            plan = make_plan(session, self._around, attempt, self._clock.now())
        return Promotion(
            id=None,
            state=PLANNED,
            reference=attempt.reference,
            environment=attempt.environment.name,
            base_revision=attempt.base_revision,
            revision=None,
            reason="",
            plan=plan_to_json(plan),
            requested_by=caller.principal,
            requested_at=self._clock.now(),
            approvals=(),
            finished_at=None,
        )

    def request(
        self,
        caller: Caller,
        model: str,
        version: int,
        environment: str,
        *,
        expected_revision: int,
        reason: str = "",
        is_emergency: bool = False,
        basis: Mapping[str, str] | None = None,
        key: IdempotencyKey | None = None,
    ) -> Promotion:
        """Ask for an environment to point at a version; the answer is APPLIED or AWAITING_APPROVAL.

        `basis` is that of a plan which was looked at: the request is refused if anything of it has changed. An
        emergency sets freezes aside for those who hold a role that the policy names for it.

        Raises:
            PlanOutdated: naming in `changes` what is no longer as the basis says.
            InvalidInput: if an emergency has no reason.
            GateRefused: if a gate fails, with `plan` and the refused promotion's id; the refusal is on record.
            StaleRevision: if the environment's pointer is not at the expected revision.
            ModelNotFound, ModelVersionNotFound, EnvironmentNotFound: if there is no such thing.
            NotReady: if the version's bytes are not verified.
            Conflict: if the environment holds the version already.
        """
        checked = parse_text(reason, what="reason", max_length=REASON_MAX_LENGTH)
        if is_emergency and not checked.strip():
            raise InvalidInput("An emergency needs a reason.", hint="Say why; it is kept: --reason TEXT")

        def ask(session: Session) -> Promotion:
            attempt = self._attempt(
                session,
                caller,
                model=model,
                version=version,
                environment=environment,
                expected_revision=expected_revision,
                is_emergency=is_emergency,
                lock=True,
            )
            return self._request(session, caller, attempt, checked, basis)

        return self._decide(
            lambda session: run_once(
                session, caller, self._clock, key, result_type=Promotion, action=lambda: ask(session)
            )
        )

    def approve(self, caller: Caller, promotion_id: str, *, comment: str = "") -> Promotion:
        """Approve a promotion; the last approval that is needed applies it.

        Approving twice changes nothing, unless the approver holds another role by now.

        Raises:
            SelfApproval: if the caller asked for it; the attempt is on record.
            GateRefused: if the last approval finds a gate that fails now; the promotion is REFUSED.
            StaleRevision: if the environment moved since; the promotion is STALE.
            Conflict: if the promotion is finished.
            PromotionNotFound: if there is no such promotion.
        """
        checked = parse_text(comment, what="comment", max_length=REASON_MAX_LENGTH)
        return self._decide(lambda session: self._approve(session, caller, promotion_id, checked))

    def reject(self, caller: Caller, promotion_id: str, *, comment: str = "") -> Promotion:
        """End a promotion that awaits approval. Its requester may, too: that withdraws it.

        Raises:
            Conflict: if the promotion is finished.
            PromotionNotFound: if there is no such promotion.
        """
        checked = parse_text(comment, what="comment", max_length=REASON_MAX_LENGTH)
        with self._database.write() as session:
            row, model = self._open_promotion(session, caller, promotion_id)
            self._give_word(session, caller, model, row, is_approval=False, comment=checked)
            return self._finish(session, caller, model, row, REJECTED, action="model.promote.reject")

    def withdraw(self, caller: Caller, promotion_id: str, *, comment: str = "") -> Promotion:
        """Take back what one asked for oneself, while it awaits approval.

        Raises:
            PermissionDenied: if somebody else asked for it.
            Conflict: if the promotion is finished.
            PromotionNotFound: if there is no such promotion.
        """
        checked = parse_text(comment, what="comment", max_length=REASON_MAX_LENGTH)
        with self._database.write() as session:
            row, model = self._open_promotion(session, caller, promotion_id)
            if row.requested_by != caller.principal:
                raise PermissionDenied(
                    f"{row.requested_by!r} asked for this promotion, and nobody else withdraws it.",
                    hint=f"An approver may end it: fairlead model approve {row.id} --reject",
                )
            return self._finish(
                session, caller, model, row, WITHDRAWN, action="model.promote.withdraw", facts={"comment": checked}
            )

    def get(self, caller: Caller, promotion_id: str) -> Promotion:
        """One promotion.

        Raises:
            PromotionNotFound: if there is none with that id.
        """
        with self._database.read() as session:
            return render_promotions(session, [find_promotion(session, caller, promotion_id)])[0]

    def list(
        self, caller: Caller, page: PageRequest, *, model: str | None = None, state: str | None = None
    ) -> Page[Promotion]:
        """Promotions, newest first.

        Raises:
            ModelNotFound: if a model is named that does not exist.
            InvalidInput: if a state is named that does not exist.
        """
        query = select(PromotionRow).where(PromotionRow.workspace_id == caller.workspace_id)
        if state is not None:
            if state not in STATES:
                raise InvalidInput(f"{state[:40]!r} is no state of a promotion.", hint=f"Use {', '.join(STATES)}.")
            query = query.where(PromotionRow.state == state)
        with self._database.read() as session:
            if model is not None:
                query = query.where(PromotionRow.model_id == find_model(session, caller.workspace_id, model).id)
            listing = ("promotions", caller.workspace_id, model, state)
            rows = page.fetch(session, query, [PromotionRow.id], listing=listing, descending=True)
            return Page(items=tuple(render_promotions(session, rows.items)), next_page_token=rows.next_page_token)

    def _decide(self, decide: Callable[[Session], Promotion]) -> Promotion:
        # A refusal is kept too, so it is raised after the commit.
        refusal: FairleadError | None = None
        promotion: Promotion | None = None
        with self._database.write() as session:
            try:
                promotion = decide(session)
            except _Recorded as recorded:
                refusal = recorded.refusal
        if refusal is not None:
            raise refusal
        return cast("Promotion", promotion)

    def _attempt(
        self,
        session: Session,
        caller: Caller,
        *,
        model: str,
        version: int,
        environment: str,
        expected_revision: int | None,
        is_emergency: bool,
        lock: bool = False,
    ) -> Subject:
        model_row = find_model(session, caller.workspace_id, model, lock=lock)
        environment_row = find_environment(session, caller.workspace_id, environment, lock=lock)
        version_row = find_version(session, model_row, version)
        if expected_revision is not None:
            check_revision(session, model_row, environment_row.name, expected_revision)
        held, revision = current_pointer(session, model_row, environment_row.name)
        if held == version:
            raise Conflict(
                f"{environment_row.name} holds {model_row.name}/{version} already.",
                hint=f"See how it came there: fairlead model history {model_row.name}@{environment_row.name}",
                revision=revision,
            )
        require_unarchived(model_row, version_row)
        require_ready(model_row, version_row)
        roles = held_roles(session, caller, model_row.name, environment_row.name) if is_emergency else None
        return Subject(
            model=model_row,
            version=version_row,
            environment=environment_row,
            held=held,
            base_revision=revision,
            requested_by=caller.principal,
            emergency_roles=roles,
        )

    def _request(
        self, session: Session, caller: Caller, attempt: Subject, reason: str, basis: Mapping[str, str] | None
    ) -> Promotion:
        plan = make_plan(session, self._around, attempt, self._clock.now())
        if basis is not None and (changes := changes_between(basis, plan.basis)):
            raise PlanOutdated(
                f"{attempt.reference} was planned for {attempt.environment.name} when the world was another: "
                f"{'; '.join(changes)}.",
                hint=f"Plan again: fairlead model plan {attempt.reference} --to {attempt.environment.name} --out FILE",
                changes=[*changes],
            )
        row = PromotionRow(
            workspace_id=caller.workspace_id,
            residency=attempt.model.residency,
            model_id=attempt.model.id,
            version=attempt.version.version,
            environment=attempt.environment.name,
            base_revision=attempt.base_revision,
            state=AWAITING_APPROVAL,
            reason=reason,
            plan=plan_to_json(plan),
            requested_by=caller.principal,
            requested_at=self._clock.now(),
        )
        session.add(row)
        session.flush()
        if plan.failed:
            self._refuse(session, caller, attempt.model, row, plan)
        if plan.pending:
            record_event(session, caller, self._clock.now(), action="model.promote.request", of=(attempt.model, row))
            return render_promotions(session, [row])[0]
        return self._apply(session, caller, attempt.model, row)

    def _approve(self, session: Session, caller: Caller, promotion_id: str, comment: str) -> Promotion:
        row, model = self._open_promotion(session, caller, promotion_id)
        if row.requested_by == caller.principal:
            record_event(session, caller, self._clock.now(), action="model.promote.self-approval", of=(model, row))
            raise _Recorded(
                SelfApproval(
                    f"{caller.principal!r} asked for this promotion and cannot approve it.",
                    hint=f"Someone else runs: fairlead model approve {row.id}",
                    promotion=row.id,
                )
            )
        if not self._give_word(session, caller, model, row, is_approval=True, comment=comment):
            return render_promotions(session, [row])[0]
        emergency = cast("list[str] | None", row.plan.get("emergency_roles"))
        words = [word for word in words_on(session, [row])[row.id] if word.is_approval]
        version = find_version(session, model, row.version)
        require_unarchived(model, version)
        attempt = Subject(
            model=model,
            version=version,
            environment=find_environment(session, row.workspace_id, row.environment, lock=True),
            held=current_pointer(session, model, row.environment)[0],
            base_revision=row.base_revision,
            requested_by=row.requested_by,
            approvers=tuple(Approver(principal=word.principal, roles=frozenset(word.roles)) for word in words),
            emergency_roles=None if emergency is None else frozenset(emergency),
        )
        plan = make_plan(session, self._around, attempt, self._clock.now())
        row.plan = plan_to_json(plan)
        record_event(
            session,
            caller,
            self._clock.now(),
            action="model.promote.approve",
            of=(model, row),
            facts={"comment": comment, "roles": [*sorted(held_roles(session, caller, model.name, row.environment))]},
        )
        if plan.pending:
            return render_promotions(session, [row])[0]
        try:
            check_revision(session, model, row.environment, row.base_revision)
        except StaleRevision as stale:
            self._finish(session, caller, model, row, STALE, action="model.promote.stale")
            raise _Recorded(stale) from stale
        if plan.failed:
            self._refuse(session, caller, model, row, plan)
        return self._apply(session, caller, model, row)

    def _apply(self, session: Session, caller: Caller, model: RegisteredModelRow, row: PromotionRow) -> Promotion:
        advance_refs(session, row.workspace_id)
        retire_rivals(session, model, row.environment, self._clock.now(), keep=row.id)
        approvers = [word.principal for word in words_on(session, [row])[row.id] if word.is_approval]
        move = move_pointer(
            session,
            caller,
            self._clock,
            model,
            name=row.environment,
            to_version=row.version,
            kind="promote",
            facts={
                "promotion": row.id,
                "requested_by": row.requested_by,
                "approvers": [*approvers],
                "gates": cast("JsonValue", row.plan["gates"]),
                "policy_revision": cast("int", row.plan["policy_revision"]),
                "policies": cast("JsonValue", row.plan["policies"]),
            },
            reason=row.reason,
            promotion_id=row.id,
        )
        row.state, row.revision, row.finished_at = APPLIED, move.revision, move.moved_at
        session.flush()
        return render_promotions(session, [row])[0]

    def _refuse(
        self, session: Session, caller: Caller, model: RegisteredModelRow, row: PromotionRow, plan: Plan
    ) -> None:
        failed = [gate for gate in plan.gates if gate.verdict == "failed"]
        self._finish(session, caller, model, row, REFUSED, action="model.promote.refuse")
        raise _Recorded(
            GateRefused(
                f"{model.name}/{row.version} may not hold {row.environment}: {failed[0].detail}",
                hint=failed[0].next_step,
                plan=cast("JsonValue", row.plan),
                promotion=row.id,
            )
        )

    def _finish(
        self,
        session: Session,
        caller: Caller,
        model: RegisteredModelRow,
        row: PromotionRow,
        state: str,
        *,
        action: str,
        facts: Mapping[str, JsonValue] | None = None,
    ) -> Promotion:
        row.state, row.finished_at = state, self._clock.now()
        failed = [gate["gate"] for gate in row.plan["gates"] if gate["verdict"] == "failed"]
        record_event(
            session,
            caller,
            self._clock.now(),
            action=action,
            of=(model, row),
            facts={"failed": failed, **(facts or {})},
        )
        session.flush()
        return render_promotions(session, [row])[0]

    def _open_promotion(
        self, session: Session, caller: Caller, promotion_id: str
    ) -> tuple[PromotionRow, RegisteredModelRow]:
        row = find_promotion(session, caller, promotion_id)
        model = session.get_one(
            RegisteredModelRow, (row.workspace_id, row.model_id), with_for_update={"key_share": True}
        )
        session.refresh(row, with_for_update=True)
        if row.state == STALE:
            raise StaleRevision(
                f"{model.name}@{row.environment} was moved after this promotion was asked for.",
                hint=f"Ask again: fairlead model promote {model.name}/{row.version} --to {row.environment}",
                expected=row.base_revision,
                actual=current_pointer(session, model, row.environment)[1],
            )
        if row.state != AWAITING_APPROVAL:
            raise Conflict(f"The promotion {row.id!r} is {row.state}; nothing can be added to it.", state=row.state)
        return row, model

    def _give_word(
        self,
        session: Session,
        caller: Caller,
        model: RegisteredModelRow,
        row: PromotionRow,
        *,
        is_approval: bool,
        comment: str,
    ) -> bool:
        """Keep the caller's word; whether that is news."""
        roles = sorted(held_roles(session, caller, model.name, row.environment))
        word = session.get(ApprovalRow, (row.workspace_id, row.id, caller.principal))
        if word is None:
            word = ApprovalRow(workspace_id=row.workspace_id, promotion_id=row.id, principal=caller.principal)
            session.add(word)
        elif word.is_approval == is_approval and word.roles == roles:
            return False
        word.is_approval, word.comment, word.decided_at = is_approval, comment, self._clock.now()
        word.roles = roles
        session.flush()
        return True


class _Recorded(Exception):
    """A refusal whose record is to be kept: the transaction commits, and then the refusal is raised."""

    def __init__(self, refusal: FairleadError) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
