"""Deployments: what should run where, as a plan before anything happens and as desired state afterwards.

A deployment is bound to an environment of a model, whose pointer it follows, or to one version. Its regions come from a
placement's answer or from a list; either way each must be inside the model's residency class, and a region outside is
refused here, before a row is written. Each change is a revision; making it true is the work of
`fairlead.serving.rollout`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog, Residency, check
from fairlead.core.db import Database
from fairlead.core.errors import (
    AlreadyExists,
    DeploymentNotFound,
    EnvironmentNotFound,
    InvalidInput,
    JsonValue,
    LocationNotFound,
    NotFound,
    NotReady,
    PlanOutdated,
    ResidencyViolation,
)
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import REASON_MAX_LENGTH, parse_row_id, parse_text
from fairlead.registry.locations import traffic_locations
from fairlead.registry.models import find_model
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import EnvironmentRow, RegisteredModelRow
from fairlead.registry.version_records import find_version
from fairlead.serving import revisions
from fairlead.serving.bundles import READY
from fairlead.serving.deploy_targets import find_target
from fairlead.serving.deployment_plan import DeploymentPlan, make_plan
from fairlead.serving.deployment_spec import (
    DeploymentSpec,
    RegionSpec,
    ScalingDraft,
    listed_regions,
    placed_regions,
)
from fairlead.serving.deployment_view import (
    Deployment,
    Revision,
    local_specs,
    seen_now,
    show_deployment,
    show_revision,
)
from fairlead.serving.desired import ACTIVE, DELETING, desired_of
from fairlead.serving.placements import StoredPlacement
from fairlead.serving.profiles import measured_rate
from fairlead.serving.strategy import Strategy
from fairlead.serving.tables import DeploymentRow, PlacementRow
from fairlead.serving.tables_targets import DeploymentRevisionRow
from fairlead.serving.targets import DeployTarget

__all__ = ["Deployment", "DeploymentDraft", "Deployments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentDraft:
    """What a caller asks for. One of `environment` and `version`; one of `placement_id` and `regions`.

    `targets` say by region where it runs, `*` for those not named; else on the local target.
    """

    model: str
    name: str | None = None
    environment: str | None = None
    version: int | None = None
    placement_id: str | None = None
    regions: tuple[str, ...] | None = None
    targets: Mapping[str, str] = field(default_factory=dict[str, str])
    scaling: ScalingDraft = field(default_factory=ScalingDraft)
    strategy: Strategy | None = None


class Deployments:
    """Plans, applies, shows, takes back and deletes deployments."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        local: DeployTarget | None = None,
        gateway_url: Callable[[], str | None] = lambda: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._local = local
        self._gateway_url = gateway_url
        self._wake = wake

    def plan(
        self, caller: Caller, draft: DeploymentDraft, *, placement: StoredPlacement | None = None
    ) -> DeploymentPlan:
        """What `apply` would do, with bytes, dollars and grams; nothing is changed.

        `placement` is the one that the draft names, where it is at hand.

        Raises:
            As `apply`.
        """
        with self._database.read() as session:
            model, spec = self._check(session, caller, draft, placement)
            return self._plan(session, draft, model, spec)

    def apply(
        self,
        caller: Caller,
        draft: DeploymentDraft,
        *,
        plan_digest: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> Deployment:
        """Write down what should run; workers make it true. Applying to a name that exists changes that deployment.

        With the `digest` of a plan that was made before, only if the plan would be the same now.

        Raises:
            InvalidInput: if the draft names both or neither of two things of which it needs one, or its replicas make
                no range.
            ModelNotFound, ModelVersionNotFound, EnvironmentNotFound, NotFound: if something named does not exist.
            DeployTargetNotFound: if a target does not exist.
            NotReady: if a version named outright is not READY.
            ResidencyViolation: if a region lies where the model's residency class does not permit.
            LocationNotFound: if a region has no location, so nothing could be read there.
            AlreadyExists: if the name is another model's deployment, or one that is being deleted.
            PlanOutdated: if the plan rests on what is so no more.
        """
        with self._database.write() as session:
            name = run_once(
                session,
                caller,
                self._clock,
                key,
                result_type=str,
                action=lambda: self._apply(session, caller, draft, plan_digest),
            )
            deployment = self._show(session, find_deployment(session, caller.workspace_id, name))
        self._wake()
        return deployment

    def get(self, caller: Caller, name: str) -> Deployment:
        """One deployment, with the health of what runs on this machine as it is now.

        Raises:
            DeploymentNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            row = find_deployment(session, caller.workspace_id, name)
            deployment, here = self._show(session, row), local_specs(session, row)
        return deployment if self._local is None else seen_now(deployment, here, self._local)

    def list(self, caller: Caller, page: PageRequest) -> Page[Deployment]:
        """Deployments by name."""
        query = select(DeploymentRow).where(DeploymentRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            found = page.fetch(session, query, [DeploymentRow.name], listing=("deployments", caller.workspace_id))
            return found.map(lambda row: self._show(session, row))

    def history(self, caller: Caller, name: str, page: PageRequest) -> Page[Revision]:
        """The revisions of a deployment, oldest first.

        Raises:
            DeploymentNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            row = find_deployment(session, caller.workspace_id, name)
            query = select(DeploymentRevisionRow).where(
                DeploymentRevisionRow.workspace_id == row.workspace_id, DeploymentRevisionRow.deployment_id == row.id
            )
            listing = ("deployment-revisions", caller.workspace_id, row.id)
            found = page.fetch(session, query, [DeploymentRevisionRow.number], listing=listing)
            return found.map(lambda each: show_revision(session, each))

    def roll_back(
        self,
        caller: Caller,
        name: str,
        *,
        to_revision: int | None = None,
        reason: str,
        key: IdempotencyKey | None = None,
    ) -> Deployment:
        """Make an earlier revision the newest: all of it at once, whatever its strategy was.

        None goes back to the one that was LIVE before. Where the environment points at another version by now, the
        deployment is pinned to the revision's version, and follows nothing until it is applied again.

        Raises:
            DeploymentNotFound: if the workspace has none of this name.
            NotFound: if the revision does not exist, was never LIVE, or there is none to go back to.
            NotReady: if the deployment is being deleted.
            ResidencyViolation, LocationNotFound, DeployTargetNotFound: if the revision's regions or targets are not
                what they were.
        """
        with self._database.write() as session:
            run_once(
                session,
                caller,
                self._clock,
                key,
                result_type=str,
                action=lambda: self._roll_back(session, caller, name, to_revision, reason),
            )
            deployment = self._show(session, find_deployment(session, caller.workspace_id, name))
        self._wake()
        return deployment

    def delete(self, caller: Caller, name: str) -> Deployment:
        """Stop every region, after it has finished its requests, and forget the deployment. May be repeated.

        Raises:
            DeploymentNotFound: if the workspace has none of this name.
        """
        with self._database.write() as session:
            row = find_deployment(session, caller.workspace_id, name, lock=True)
            if row.state != DELETING:
                row.state, row.updated_at = DELETING, self._clock.now()
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="deployment.delete",
                    subject=row.name,
                    residency=row.residency,
                    facts={"deployment": row.id},
                )
            deployment = self._show(session, row)
        self._wake()
        return deployment

    def _check(
        self, session: Session, caller: Caller, draft: DeploymentDraft, placement: StoredPlacement | None = None
    ) -> tuple[RegisteredModelRow, DeploymentSpec]:
        model = find_model(session, caller.workspace_id, draft.model)
        if (draft.environment is None) == (draft.version is None):
            raise InvalidInput(
                "A deployment follows an environment or runs one version: name one of the two.",
                hint=f"Use: fairlead deploy apply {model.name} --environment production",
            )
        if draft.environment is not None:
            key = (caller.workspace_id, parse_name(draft.environment, what="environment"))
            if session.get(EnvironmentRow, key) is None:
                raise EnvironmentNotFound(
                    f"There is no environment {draft.environment!r}.", environment=draft.environment
                )
        elif (version := find_version(session, model, draft.version or 0)).state != READY:
            raise NotReady(f"{model.name}/{version.version} is {version.state}.", hint="Wait until it is READY.")
        wanted = _wanted_regions(session, caller, _with_measured_rate(session, model, draft), placement)
        if unknown := set(draft.targets) - {"*"} - {each.region for each in wanted}:
            raise InvalidInput(
                f"A target is named for {min(unknown)}, which is none of the deployment's regions.",
                hint=f"Its regions are {', '.join(each.region for each in wanted)}.",
            )
        self._check_regions(session, caller, model, wanted)
        spec = DeploymentSpec(
            environment=draft.environment,
            version=draft.version,
            placement_id=draft.placement_id,
            regions=tuple(wanted),
            strategy=draft.strategy,
        )
        return model, spec

    def _check_regions(
        self, session: Session, caller: Caller, model: RegisteredModelRow, wanted: list[RegionSpec]
    ) -> None:
        here = {location.region for location in traffic_locations(session, caller.workspace_id)}
        for each in wanted:
            self._catalog.within(caller.workspace_id).region(each.region)
            check(Residency(model.residency), each.region)
            if model.regions is not None and each.region not in model.regions:
                raise ResidencyViolation(
                    f"{model.name!r} may be in {', '.join(model.regions)} only, not in {each.region}.",
                    hint="Choose a region inside.",
                    region=each.region,
                )
            if each.region not in here:
                raise LocationNotFound(
                    f"No active location is in {each.region}, so no bundle could be read there.",
                    hint=f"Add one: fairlead location add NAME --region {each.region} --url URL",
                    region=each.region,
                )
            target = find_target(session, caller.workspace_id, each.target)
            if target.regions is not None and each.region not in target.regions:
                raise InvalidInput(
                    f"The target {target.name!r} takes no deployments in {each.region}.",
                    hint=f"It takes them in {', '.join(target.regions)}.",
                    region=each.region,
                )

    def _plan(
        self, session: Session, draft: DeploymentDraft, model: RegisteredModelRow, spec: DeploymentSpec
    ) -> DeploymentPlan:
        name = parse_name(draft.name or model.name, what="deployment")
        desired = desired_of(session, model, spec.environment, spec.version)
        return make_plan(session, self._catalog, model, name=name, spec=spec, desired=desired)

    def _apply(self, session: Session, caller: Caller, draft: DeploymentDraft, plan_digest: str | None) -> str:
        model, spec = self._check(session, caller, draft)
        now = self._clock.now()
        name = parse_name(draft.name or model.name, what="deployment")
        row = session.scalars(
            select(DeploymentRow)
            .where(DeploymentRow.workspace_id == caller.workspace_id, DeploymentRow.name == name)
            .with_for_update()
        ).one_or_none()
        if plan_digest is not None and self._plan(session, draft, model, spec).digest != plan_digest:
            raise PlanOutdated(
                f"What the plan of {name!r} rests on has changed since it was made.",
                hint="Look at what would happen now: fairlead deploy plan",
                deployment=name,
            )
        if row is None:
            row = DeploymentRow(
                workspace_id=caller.workspace_id,
                name=name,
                model_id=model.id,
                residency=model.residency,
                state=ACTIVE,
                revision=0,
                created_by=caller.principal,
                created_at=now,
                updated_at=now,
            )
            session.add(row)
        elif row.model_id != model.id or row.state != ACTIVE:
            reason = "is being deleted" if row.state != ACTIVE else "serves another model"
            raise AlreadyExists(f"The deployment {name!r} {reason}.", hint="Choose another name, or wait.", name=name)
        elif row.revision == 0:
            revisions.adopt(session, row, now)
        self._ask_for(session, caller, row, spec, cause="apply")
        regions: list[JsonValue] = [each.region for each in spec.regions]
        facts: dict[str, JsonValue] = {
            "deployment": row.id,
            "model": model.name,
            "environment": row.environment,
            "version": row.version,
            "placement": row.placement_id,
            "regions": regions,
            "revision": row.revision,
            "targets": cast("list[JsonValue]", sorted({each.target for each in spec.regions})),
            "strategy": None if spec.strategy is None else spec.strategy.to_json(),
        }
        audit.record(
            session,
            caller,
            self._clock,
            action="deployment.apply",
            subject=name,
            residency=row.residency,
            facts=facts,
        )
        return name

    def _ask_for(
        self,
        session: Session,
        caller: Caller,
        row: DeploymentRow,
        spec: DeploymentSpec,
        *,
        cause: str,
        why: str | None = None,
    ) -> None:
        now = self._clock.now()
        row.environment, row.version = spec.environment, spec.version
        row.placement_id, row.spec, row.updated_at = spec.placement_id, spec.to_json(), now
        session.flush()
        revisions.add_revision(session, row, spec, cause=cause, by=caller.principal, now=now, why=why)
        if revisions.live_revision(session, row) is None:
            # Nothing runs that could be kept meanwhile, so its regions are seen to wait at once.
            revisions.lay_out(session, row, spec, now)

    def _roll_back(self, session: Session, caller: Caller, name: str, to_revision: int | None, reason: str) -> str:
        row = find_deployment(session, caller.workspace_id, name, lock=True)
        if row.state != ACTIVE:
            raise NotReady(f"The deployment {name!r} is being deleted.", hint="Apply it again once it is gone.")
        why = parse_text(reason, what="reason", max_length=REASON_MAX_LENGTH)
        found = revisions.reached_before(session, row, to_revision)
        model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
        spec = DeploymentSpec.from_json(found.document)
        desired = desired_of(session, model, spec.environment, spec.version)
        points_at = None if desired.version is None else desired.version.version
        is_pinned = points_at != found.version
        spec = DeploymentSpec(
            environment=None if is_pinned else spec.environment,
            version=found.version if is_pinned else spec.version,
            placement_id=spec.placement_id,
            regions=spec.regions,
            # Going back is no time for experiments.
            strategy=None,
        )
        self._check_regions(session, caller, model, list(spec.regions))
        self._ask_for(session, caller, row, spec, cause="rollback", why=why)
        facts: dict[str, JsonValue] = {
            "deployment": row.id,
            "revision": row.revision,
            "to_revision": found.number,
            "version": found.version,
            "is_pinned": is_pinned,
            "reason": why,
        }
        audit.record(
            session,
            caller,
            self._clock,
            action="deployment.rollback",
            subject=row.name,
            residency=row.residency,
            facts=facts,
        )
        return row.name

    def _show(self, session: Session, row: DeploymentRow) -> Deployment:
        return show_deployment(session, self._catalog, row, self._gateway_url())


def find_deployment(session: Session, workspace_id: str, name: str, *, lock: bool = False) -> DeploymentRow:
    """The row of a deployment.

    Raises:
        DeploymentNotFound: if the workspace has none of this name.
    """
    query = select(DeploymentRow).where(
        DeploymentRow.workspace_id == workspace_id, DeploymentRow.name == parse_name(name, what="deployment")
    )
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise DeploymentNotFound(
            f"There is no deployment {name[:80]!r}.",
            hint="List them with: fairlead deploy status",
            deployment=name[:80],
        )
    return row


def _with_measured_rate(session: Session, model: RegisteredModelRow, draft: DeploymentDraft) -> DeploymentDraft:
    """The draft with what a replica was measured to answer, where neither it nor a placement says."""
    is_ranged = draft.scaling.min_replicas is not None or draft.scaling.max_replicas is not None
    if not is_ranged or draft.placement_id is not None or draft.scaling.requests_per_second_per_replica is not None:
        return draft
    bundle = desired_of(session, model, draft.environment, draft.version).bundle
    if bundle is None or bundle.digest is None:
        return draft
    rate = measured_rate(session, model.workspace_id, bundle.digest)
    return replace(draft, scaling=replace(draft.scaling, requests_per_second_per_replica=rate))


def _wanted_regions(
    session: Session, caller: Caller, draft: DeploymentDraft, placement: StoredPlacement | None
) -> list[RegionSpec]:
    if (draft.placement_id is None) == (draft.regions is None):
        raise InvalidInput(
            "A deployment needs its regions from a placement or as a list: name one of the two.",
            hint="Ask for a placement first: fairlead place",
        )
    if draft.regions is not None:
        if not draft.regions:
            raise InvalidInput("The list of regions is empty.", hint="Name at least one region.")
        return listed_regions(draft.regions, draft.targets, draft.scaling)
    if placement is not None:
        return placed_regions(placement.request, placement.answer, draft.targets, draft.scaling)
    row_id = parse_row_id(draft.placement_id or "", NotFound, what="placement")
    row = session.get(PlacementRow, (caller.workspace_id, row_id))
    if row is None:
        raise NotFound(f"There is no placement {row_id}.", hint="Ask for one: fairlead place", placement=row_id)
    return placed_regions(row.request, row.answer, draft.targets, draft.scaling)
