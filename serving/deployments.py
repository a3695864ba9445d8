"""Deployments: what should run where, as a plan before anything happens and as desired state afterwards.

A deployment is bound to an environment of a model, whose pointer it follows, or to one version. Its regions come from a
placement's answer or from a list; either way each must be inside the model's residency class, and a region outside is
refused here, before a row is written. Making it true is the work of `fairlead.serving.rollout`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast
from urllib.parse import quote

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
    ResidencyViolation,
)
from fairlead.core.ids import RegionId, parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.ledger import decimal_text, transfer_cost
from fairlead.registry.limits import parse_row_id
from fairlead.registry.locations import traffic_locations
from fairlead.registry.models import find_model
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import ArtifactRow, EnvironmentRow, RegisteredModelRow
from fairlead.registry.versions import find_version
from fairlead.serving.artifacts import verified_replicas
from fairlead.serving.bundles import READY
from fairlead.serving.desired import ACTIVE, DELETING, STOPPING, WAITING, Desired, desired_of, regions_of, route_name
from fairlead.serving.tables import DeploymentRegionRow, DeploymentRow, PlacementRow
from fairlead.serving.targets import DeployTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentDraft:
    """What a caller asks for. One of `environment` and `version`; one of `placement_id` and `regions`."""

    model: str
    name: str | None = None
    environment: str | None = None
    version: int | None = None
    placement_id: str | None = None
    regions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """What would happen in one region: `start`, `replace`, `keep` or `stop`.

    `bytes` still have to come to the region from `source_region`, for `usd` (decimal text).
    """

    region: str
    action: str
    from_version: int | None
    to_version: int | None
    bytes: int
    usd: str
    source_region: str | None
    usd_per_hour: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPlan:
    """What a deployment would change. `bundle_state` is MISSING where the version was never bundled."""

    name: str
    model: str
    environment: str | None
    version: int | None
    residency: str
    bundle_state: str
    bundle_digest: str | None
    steps: tuple[PlanStep, ...]
    bytes: int
    usd: str
    usd_per_hour: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionStatus:
    """One region of a deployment. `health` is `up` where its process lives, `down` where it does not."""

    region: str
    state: str
    health: str
    version: int | None
    bundle_digest: str | None
    endpoint_url: str | None
    process_id: int | None
    usd_per_hour: str | None
    error_code: str | None
    error_detail: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment and its regions, in the order in which requests try them.

    `desired_version` and `bundle_digest` are what every region is on its way to; `endpoint` is the one address.
    """

    name: str
    model: str
    environment: str | None
    state: str
    residency: str
    desired_version: int | None
    bundle_digest: str | None
    placement_id: str | None
    regions: tuple[RegionStatus, ...]
    endpoint: str | None
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One region that a draft asks for, in its place in the order."""

    region: RegionId
    usd_per_hour: str | None


class Deployments:
    """Plans, applies, shows and deletes deployments."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        target: DeployTarget,
        gateway_url: Callable[[], str | None] = lambda: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._target = target
        self._gateway_url = gateway_url
        self._wake = wake

    def plan(self, caller: Caller, draft: DeploymentDraft) -> DeploymentPlan:
        """What `apply` would do, with bytes and dollars; nothing is changed.

        Raises:
            As `apply`.
        """
        with self._database.read() as session:
            model, wanted = self._check(session, caller, draft)
            desired = desired_of(session, model, draft.environment, draft.version)
            return self._plan(session, draft, model, wanted, desired)

    def apply(self, caller: Caller, draft: DeploymentDraft, *, key: IdempotencyKey | None = None) -> Deployment:
        """Write down what should run; workers make it true. Applying to a name that exists changes that deployment.

        Raises:
            InvalidInput: if the draft names both or neither of two things of which it needs one.
            ModelNotFound, ModelVersionNotFound, EnvironmentNotFound, NotFound: if something named does not exist.
            NotReady: if a version named outright is not READY.
            ResidencyViolation: if a region lies where the model's residency class does not permit.
            LocationNotFound: if a region has no location, so nothing could be read there.
            AlreadyExists: if the name is another model's deployment, or one that is being deleted.
        """
        with self._database.write() as session:
            name = run_once(
                session,
                caller,
                self._clock,
                key,
                result_type=str,
                action=lambda: self._apply(session, caller, draft),
            )
            deployment = self._render(session, _find(session, caller.workspace_id, name))
        self._wake()
        return deployment

    def get(self, caller: Caller, name: str) -> Deployment:
        """One deployment.

        Raises:
            DeploymentNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            return self._render(session, _find(session, caller.workspace_id, name))

    def list(self, caller: Caller, page: PageRequest) -> Page[Deployment]:
        """Deployments by name."""
        query = select(DeploymentRow).where(DeploymentRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            found = page.fetch(session, query, [DeploymentRow.name], listing=("deployments", caller.workspace_id))
            return found.map(lambda row: self._render(session, row))

    def delete(self, caller: Caller, name: str) -> Deployment:
        """Stop every region, after it has finished its requests, and forget the deployment. May be repeated.

        Raises:
            DeploymentNotFound: if the workspace has none of this name.
        """
        with self._database.write() as session:
            row = _find(session, caller.workspace_id, name, lock=True)
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
            deployment = self._render(session, row)
        self._wake()
        return deployment

    def _check(
        self, session: Session, caller: Caller, draft: DeploymentDraft
    ) -> tuple[RegisteredModelRow, list[_Wanted]]:
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
        wanted = _wanted_regions(session, caller, draft)
        here = {location.region for location in traffic_locations(session, caller.workspace_id)}
        for each in wanted:
            self._catalog.region(each.region)
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
        return model, wanted

    def _apply(self, session: Session, caller: Caller, draft: DeploymentDraft) -> str:
        model, wanted = self._check(session, caller, draft)
        now = self._clock.now()
        name = parse_name(draft.name or model.name, what="deployment")
        row = session.scalars(
            select(DeploymentRow)
            .where(DeploymentRow.workspace_id == caller.workspace_id, DeploymentRow.name == name)
            .with_for_update()
        ).one_or_none()
        if row is None:
            row = DeploymentRow(
                workspace_id=caller.workspace_id,
                name=name,
                model_id=model.id,
                residency=model.residency,
                state=ACTIVE,
                created_by=caller.principal,
                created_at=now,
                updated_at=now,
            )
            session.add(row)
        elif row.model_id != model.id or row.state != ACTIVE:
            reason = "is being deleted" if row.state != ACTIVE else "serves another model"
            raise AlreadyExists(f"The deployment {name!r} {reason}.", hint="Choose another name, or wait.", name=name)
        row.environment, row.version = draft.environment, draft.version
        row.placement_id, row.updated_at = draft.placement_id, now
        session.flush()
        _set_regions(session, row, wanted, now)
        session.flush()
        regions: list[JsonValue] = [each.region for each in wanted]
        facts: dict[str, JsonValue] = {
            "deployment": row.id,
            "model": model.name,
            "environment": row.environment,
            "version": row.version,
            "placement": row.placement_id,
            "regions": regions,
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

    def _plan(
        self,
        session: Session,
        draft: DeploymentDraft,
        model: RegisteredModelRow,
        wanted: list[_Wanted],
        desired: Desired,
    ) -> DeploymentPlan:
        name = parse_name(draft.name or model.name, what="deployment")
        row = session.scalars(
            select(DeploymentRow).where(DeploymentRow.workspace_id == model.workspace_id, DeploymentRow.name == name)
        ).one_or_none()
        running = {} if row is None else {each.region: each for each in regions_of(session, row)}
        to_version = None if desired.version is None else desired.version.version
        steps: list[PlanStep] = []
        total = Decimal(0)
        for each in wanted:
            now = running.pop(each.region, None)
            size, usd, source = self._replication(session, model, desired, each.region)
            total += usd
            from_version = None if now is None else now.version
            action = "start" if from_version is None else "keep" if from_version == to_version else "replace"
            steps.append(
                PlanStep(
                    region=each.region,
                    action=action,
                    from_version=from_version,
                    to_version=to_version,
                    bytes=size,
                    usd=decimal_text(usd) or "0",
                    source_region=source,
                    usd_per_hour=each.usd_per_hour,
                )
            )
        steps += [
            PlanStep(
                region=gone.region,
                action="stop",
                from_version=gone.version,
                to_version=None,
                bytes=0,
                usd="0",
                source_region=None,
                usd_per_hour=None,
            )
            for gone in running.values()
        ]
        rates = [Decimal(each.usd_per_hour) for each in wanted if each.usd_per_hour is not None]
        return DeploymentPlan(
            name=name,
            model=model.name,
            environment=draft.environment,
            version=to_version,
            residency=model.residency,
            bundle_state="MISSING" if desired.bundle is None else desired.bundle.state,
            bundle_digest=None if desired.bundle is None else desired.bundle.digest,
            steps=tuple(steps),
            bytes=sum(step.bytes for step in steps),
            usd=decimal_text(total) or "0",
            usd_per_hour=decimal_text(sum(rates, Decimal(0))) if rates else None,
        )

    def _replication(
        self, session: Session, model: RegisteredModelRow, desired: Desired, region: str
    ) -> tuple[int, Decimal, str | None]:
        """Bytes that still have to come to a region, what that costs, and from where.

        Until the bundle exists its model stands for it: a bundle's files are the model's but for some tens of KB.
        """
        if desired.version is None or desired.version.artifact_digest is None:
            return 0, Decimal(0), None
        digest = desired.version.artifact_digest
        if desired.bundle is not None and desired.bundle.digest is not None:
            digest = desired.bundle.digest
        sources = {
            location.region for location, _ in verified_replicas(session, model.workspace_id, model.residency, digest)
        }
        artifact = session.get(ArtifactRow, (model.workspace_id, model.residency, digest))
        if region in sources or not sources or artifact is None:
            return 0, Decimal(0), None
        costs = {
            source: transfer_cost(
                self._catalog, source_region=source, region=region, size_bytes=artifact.size_bytes
            ).usd
            for source in sources
        }
        source = min(costs, key=lambda each: (costs[each], each))
        return artifact.size_bytes, costs[source], source

    def _render(self, session: Session, row: DeploymentRow) -> Deployment:
        model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
        desired = desired_of(session, model, row.environment, row.version)
        address = self._gateway_url()
        return Deployment(
            name=row.name,
            model=model.name,
            environment=row.environment,
            state=row.state,
            residency=row.residency,
            desired_version=None if desired.version is None else desired.version.version,
            bundle_digest=None if desired.bundle is None else desired.bundle.digest,
            placement_id=row.placement_id,
            regions=tuple(self._status(row, each) for each in regions_of(session, row)),
            endpoint=None if address is None else f"{address}/{quote(route_name(row))}",
            created_by=row.created_by,
            created_at=row.created_at,
        )

    def _status(self, row: DeploymentRow, each: DeploymentRegionRow) -> RegionStatus:
        running = self._target.observe(row.workspace_id, row.name, each.region)
        return RegionStatus(
            region=each.region,
            state=each.state,
            health="up" if running is not None and running.url == each.url else "down",
            version=each.version,
            bundle_digest=each.bundle_digest,
            endpoint_url=each.url,
            process_id=each.process_id,
            usd_per_hour=each.usd_per_hour,
            error_code=each.error_code,
            error_detail=each.error_detail,
            updated_at=each.updated_at,
        )


def _find(session: Session, workspace_id: str, name: str, *, lock: bool = False) -> DeploymentRow:
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


def _wanted_regions(session: Session, caller: Caller, draft: DeploymentDraft) -> list[_Wanted]:
    if (draft.placement_id is None) == (draft.regions is None):
        raise InvalidInput(
            "A deployment needs its regions from a placement or as a list: name one of the two.",
            hint="Ask for a placement first: fairlead place",
        )
    if draft.regions is not None:
        if not draft.regions:
            raise InvalidInput("The list of regions is empty.", hint="Name at least one region.")
        return [_Wanted(region=RegionId(region), usd_per_hour=None) for region in dict.fromkeys(draft.regions)]
    row_id = parse_row_id(draft.placement_id or "", NotFound, what="placement")
    row = session.get(PlacementRow, (caller.workspace_id, row_id))
    if row is None:
        raise NotFound(f"There is no placement {row_id}.", hint="Ask for one: fairlead place", placement=row_id)
    choices = cast("list[dict[str, Any]]", row.answer["placement"]["choices"])
    choices = sorted(choices, key=lambda each: (-each["load_requests_per_second"], each["region"]))
    return [
        _Wanted(
            region=RegionId(each["region"]),
            usd_per_hour=decimal_text(Decimal(str(each["compute_usd"])) + Decimal(str(each["serving_egress_usd"]))),
        )
        for each in choices
    ]


def _set_regions(session: Session, row: DeploymentRow, wanted: list[_Wanted], now: datetime) -> None:
    present = {each.region: each for each in regions_of(session, row)}
    for position, each in enumerate(wanted):
        region = present.pop(each.region, None)
        if region is None:
            region = DeploymentRegionRow(
                workspace_id=row.workspace_id, deployment_id=row.id, region=each.region, state=WAITING
            )
            session.add(region)
        elif region.state == STOPPING:
            region.state = WAITING
        region.position, region.usd_per_hour, region.updated_at = position, each.usd_per_hour, now
    for gone in present.values():
        gone.state, gone.updated_at = STOPPING, now
