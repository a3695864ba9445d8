"""How what runs differs from what should: asked of the targets at this moment, region by region.

Workers mend what they find within seconds (or, where somebody changes the same thing again and again, within half a
minute); this is for who wants to see it first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import FairleadError, InvalidInput, NotFound
from fairlead.registry.identity import Caller
from fairlead.serving.deploy_targets import find_target, render_workload
from fairlead.serving.deployments import find_deployment
from fairlead.serving.desired import STOPPING, regions_of
from fairlead.serving.tables import DeploymentRegionRow
from fairlead.serving.targets import LOCAL, DeployTarget, EndpointSpec, RunningEndpoint
from fairlead.serving.workload import Document, Workload

Drift = Literal["none", "missing", "unready", "changed", "outdated", "unwanted", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionDrift:
    """How one region differs from what it should run.

    `missing`: nothing runs; `unready`: it lives and does not answer; `changed`: somebody changed it by hand, as
    `details` say; `outdated`: it is another version, or has not moved to what is wanted yet; `unwanted`: it is on its
    way out; `unknown`: its target cannot be asked.
    """

    region: str
    target: str
    drift: Drift
    wanted_version: int | None
    version: int | None
    wanted_digest: str | None
    bundle_digest: str | None
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionDocuments:
    """A region's workload in the words of a target."""

    target: str
    region: str
    documents: tuple[Document, ...]


class DeploymentDrifts:
    """Compares, and shows what is compared."""

    def __init__(self, database: Database, open_target: Callable[[str, str], DeployTarget]) -> None:
        self._database = database
        self._open_target = open_target

    def find(self, caller: Caller, name: str) -> list[RegionDrift]:
        """Every region of a deployment, with how it differs; `none` where it does not.

        Raises:
            DeploymentNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            rows = [_detached(session, each) for each in self._rows(session, caller, name)]
        return [self._compare(row) for row in rows]

    def render(
        self, caller: Caller, name: str, *, target: str | None = None, region: str | None = None
    ) -> list[RegionDocuments]:
        """What targets are given for a deployment; with `target`, what that one would be given.

        Raises:
            DeploymentNotFound, DeployTargetNotFound: if either is not there.
            NotFound: if the region is none of the deployment's.
            InvalidInput: if nothing is known yet of what should run, or the target cannot express it.
        """
        with self._database.read() as session:
            rows = [each for each in self._rows(session, caller, name) if region in {None, each.region}]
            if not rows:
                raise NotFound(f"The deployment {name!r} has no region {region!r}.", hint="See: fairlead deploy status")
            wanted = [
                (find_target(session, caller.workspace_id, target or row.target), row.region, row.wanted_workload)
                for row in rows
            ]
        found: list[RegionDocuments] = []
        for applied, where, workload in wanted:
            if workload is None:
                raise InvalidInput(
                    f"What runs in {where} is not known before the bundle is READY and has come there.",
                    hint=f"See what it waits for: fairlead deploy status {name}",
                )
            documents = render_workload(applied, Workload.from_json(workload))
            found.append(RegionDocuments(target=applied.name, region=where, documents=documents))
        return found

    def _rows(self, session: Session, caller: Caller, name: str) -> Sequence[DeploymentRegionRow]:
        return regions_of(session, find_deployment(session, caller.workspace_id, name))

    def _compare(self, row: DeploymentRegionRow) -> RegionDrift:
        document = row.workload or row.wanted_workload
        running: RunningEndpoint | None = None
        error: str | None = None
        if document is not None:
            spec = EndpointSpec(workspace_id=row.workspace_id, workload=Workload.from_json(document))
            try:
                target = self._open_target(row.workspace_id, row.running_target or row.target or LOCAL)
                running = target.observe(spec)
            except FairleadError as failure:
                error = str(failure)
        drift, details = _drift(row, running, error)
        return RegionDrift(
            region=row.region,
            target=row.running_target or row.target,
            drift=drift,
            wanted_version=row.wanted_version,
            version=None if running is None else running.spec.workload.version,
            wanted_digest=row.wanted_digest,
            bundle_digest=None if running is None else running.spec.bundle_digest,
            details=details,
        )


def _drift(
    row: DeploymentRegionRow, running: RunningEndpoint | None, error: str | None
) -> tuple[Drift, tuple[str, ...]]:
    if error is not None:
        return "unknown", (error,)
    if row.state == STOPPING:
        return "unwanted", ("It is on its way out.",)
    if running is None:
        return "missing", ("Nothing runs here.",)
    if not running.is_ready:
        return "unready", ("It lives and does not answer.",)
    if running.differences:
        return "changed", running.differences
    if row.url is not None and running.url != row.url:
        return "missing", (f"What ran at {row.url} does not; {running.url} does.",)
    return _lag(row, running)


def _lag(row: DeploymentRegionRow, running: RunningEndpoint) -> tuple[Drift, tuple[str, ...]]:
    """Whether what runs, and is well, is what is wanted by now."""
    if row.wanted_digest is not None and running.spec.bundle_digest != row.wanted_digest:
        return "outdated", (f"It runs version {running.spec.workload.version}, and {row.wanted_version} is wanted.",)
    if row.wanted_workload is not None and row.workload != row.wanted_workload:
        return "outdated", _changes(row.workload or {}, row.wanted_workload)
    return "none", ()


def _changes(now: dict[str, object], wanted: dict[str, object]) -> tuple[str, ...]:
    names = [name for name in wanted if now.get(name) != wanted[name] and name != "former"]
    said = [f"{name}: {now.get(name)} -> {wanted[name]}" for name in names]
    return tuple(said) or ("The former revision is to end.",)


def _detached(session: Session, row: DeploymentRegionRow) -> DeploymentRegionRow:
    """A row whose values are read, and may be looked at after the session."""
    session.refresh(row)
    session.expunge(row)
    return row
