"""Checks of what online stores serve: asked for here, done by the workers of the regions, and read together here.

Each region's worker compares its own store with its own verified replica, so no value leaves a region. What it tells
are counts, and of views without a residency class a few keys and a fingerprint of the sample. Regions that serve the
same snapshot and agree with it agree with each other; their fingerprints say so once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED
from fairlead.core.db import Database
from fairlead.core.errors import FeatureCheckNotFound, InvalidInput, JsonValue, NotReady
from fairlead.core.ids import new_row_id
from fairlead.core.ports import Clock
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.online_engines import NEWEST
from fairlead.featurestore.online_parity import KINDS
from fairlead.featurestore.snapshots import find_snapshot, newest_snapshot
from fairlead.featurestore.tables import OnlineStateRow, SnapshotPartRow
from fairlead.featurestore.tables_servers import FeatureCheckRegionRow, FeatureCheckRow
from fairlead.registry import audit, work
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller

ONLINE_CHECK = "online-check"
"""The work of one region's part of a check; its subject is `REGION/CHECK`."""

PARITY, SKEW = "parity", "skew"
PENDING, DONE = "PENDING", "DONE"
SAMPLE_MAX = 100_000

CheckKind = Literal["parity", "skew"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionCheck:
    """What one region found; `findings` are those of its views."""

    region: str
    state: str
    findings: Mapping[str, Any] | None
    error_detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineCheck:
    """A check, what its regions found, and what that comes to.

    `is_done` once every region is; `problems` says, in words, what is not as it should be.
    """

    id: str
    kind: str
    service: str
    snapshot: str
    settings: Mapping[str, Any]
    created_at: datetime
    is_done: bool
    problems: tuple[str, ...]
    regions: tuple[RegionCheck, ...]


class OnlineChecks:
    """Asks for checks and reads them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def start(
        self,
        caller: Caller,
        kind: CheckKind,
        service: str,
        *,
        snapshot: str | None = None,
        settings: Mapping[str, JsonValue],
        key: IdempotencyKey | None = None,
    ) -> OnlineCheck:
        """Ask every region that serves a service for its part.

        `snapshot` is what is compared with: the one that each region should serve by default (`parity`), or the newest
        one (`skew`).

        Raises:
            FeatureServiceNotFound, SnapshotNotFound: if there is none.
            NotReady: if no region serves the service.
            InvalidInput: if the snapshot is of another service.
        """
        with self._database.write() as session:
            found = run_once(
                session,
                caller,
                self._clock,
                key,
                result_type=str,
                action=lambda: self._start(session, caller, kind, service, snapshot=snapshot, settings=settings),
            )
            return _load(session, caller.workspace_id, found)

    def get(self, caller: Caller, check: str) -> OnlineCheck:
        """A check, as far as it is done.

        Raises:
            FeatureCheckNotFound: if there is none of that id.
        """
        with self._database.read() as session:
            return _load(session, caller.workspace_id, check)

    def _start(
        self,
        session: Session,
        caller: Caller,
        kind: CheckKind,
        service: str,
        *,
        snapshot: str | None,
        settings: Mapping[str, JsonValue],
    ) -> str:
        find_pinned_service(session, caller.workspace_id, service)
        digest, newest = _digest(session, caller, service, snapshot)
        states = _serving(session, caller.workspace_id, service)
        if not states:
            raise NotReady(
                f"No region serves {service!r} online.",
                hint=f"Ask for it: fairlead features materialize {service}",
                service=service,
            )
        now = self._clock.now()
        row = FeatureCheckRow(
            workspace_id=caller.workspace_id,
            id=new_row_id(),
            kind=kind,
            service=service,
            snapshot_digest=digest or newest,
            # Where none was named, each region is held to what it should serve.
            slot=digest or (NEWEST if kind == PARITY else newest),
            settings=dict(settings),
            created_by=caller.principal,
            created_at=now,
        )
        session.add(row)
        session.flush()
        for state in states:
            part = FeatureCheckRegionRow(
                workspace_id=caller.workspace_id, check_id=row.id, region=state.region, state=PENDING
            )
            session.add(part)
        session.flush()
        _require(session, row, [state.region for state in states], now)
        audit.record(
            session,
            caller,
            self._clock,
            action=f"online.check-{kind}",
            subject=service,
            facts={"check": row.id, "snapshot": row.snapshot_digest},
        )
        return row.id


def derive_online_checks(session: Session, now: datetime) -> None:
    """Ask again for parts of checks whose work was lost."""
    query = select(FeatureCheckRegionRow).where(FeatureCheckRegionRow.state == PENDING)
    for part in session.scalars(query):
        _require(session, session.get_one(FeatureCheckRow, (part.workspace_id, part.check_id)), [part.region], now)


def _require(session: Session, row: FeatureCheckRow, regions: Sequence[str], now: datetime) -> None:
    classes = select(SnapshotPartRow.residency).where(SnapshotPartRow.workspace_id == row.workspace_id)
    snapshot = find_snapshot(session, row.workspace_id, row.snapshot_digest)
    found = set(session.scalars(classes.where(SnapshotPartRow.snapshot_id == snapshot.id)))
    for region in regions:
        work.require_work(
            session,
            workspace_id=row.workspace_id,
            residency=max(found, key=lambda each: (each != UNRESTRICTED, each), default=UNRESTRICTED),
            kind=ONLINE_CHECK,
            subject=f"{region}/{row.id}",
            region=region,
            priority=work.USUAL,
            now=now,
        )


def _digest(session: Session, caller: Caller, service: str, reference: str | None) -> tuple[str | None, str]:
    """The snapshot that was named, if one was, and the one to compare with."""
    row = (
        newest_snapshot(session, caller.workspace_id, service)
        if reference is None
        else find_snapshot(session, caller.workspace_id, reference)
    )
    if row is None or row.digest is None:
        raise NotReady(
            f"The service {service!r} has no snapshot that is READY."
            if row is None
            else f"The snapshot {reference} is {row.state}.",
            hint=f"Take one: fairlead features snapshot {service}",
        )
    if row.service != service:
        raise InvalidInput(f"The snapshot {reference} is of {row.service!r}, not of {service!r}.", hint="Name one.")
    return None if reference is None else row.digest, row.digest


def _serving(session: Session, workspace_id: str, service: str) -> list[OnlineStateRow]:
    query = select(OnlineStateRow).where(
        OnlineStateRow.workspace_id == workspace_id,
        OnlineStateRow.service == service,
        OnlineStateRow.served_snapshot.is_not(None),
    )
    return list(session.scalars(query.order_by(OnlineStateRow.region)))


def _load(session: Session, workspace_id: str, check: str) -> OnlineCheck:
    row = session.get(FeatureCheckRow, (workspace_id, check))
    if row is None:
        raise FeatureCheckNotFound(
            f"There is no check {check[:80]!r}.", hint="Make one: fairlead features check SERVICE", check=check[:80]
        )
    query = select(FeatureCheckRegionRow).where(
        FeatureCheckRegionRow.workspace_id == workspace_id, FeatureCheckRegionRow.check_id == check
    )
    regions = tuple(
        RegionCheck(region=part.region, state=part.state, findings=part.findings, error_detail=part.error_detail)
        for part in session.scalars(query.order_by(FeatureCheckRegionRow.region))
    )
    return OnlineCheck(
        id=row.id,
        kind=row.kind,
        service=row.service,
        snapshot=row.snapshot_digest,
        settings=row.settings,
        created_at=row.created_at,
        is_done=all(part.state == DONE for part in regions),
        problems=tuple([*_problems(regions), *_disagreements(regions)] if row.kind == PARITY else _skewed(regions)),
        regions=regions,
    )


def _problems(regions: Sequence[RegionCheck]) -> list[str]:
    found: list[str] = []
    for part in regions:
        if part.error_detail is not None:
            found.append(f"{part.region}: {part.error_detail}")
        said = part.findings or {}
        if said and said["served"] != said["expected"]:
            found.append(f"{part.region} serves {said['served'] or 'nothing'}, not {said['expected']}")
        for view in cast("list[dict[str, Any]]", said.get("views", [])):
            differences = view["differences"]
            counts = ", ".join(f"{differences[kind]} {kind}" for kind in KINDS if kind in differences)
            if "form" in differences:
                found.append(f"{part.region} describes {view['view']} otherwise than the snapshot")
            elif counts:
                found.append(f"{part.region}, {view['view']}: {counts} of {view['sampled']} sampled")
    return found


def _disagreements(regions: Sequence[RegionCheck]) -> list[str]:
    """Views whose samples are not the same in regions that serve the same snapshot."""
    prints: dict[tuple[str, str], dict[str, list[str]]] = {}
    for part in regions:
        said = part.findings or {}
        for view in cast("list[dict[str, Any]]", said.get("views", [])):
            # Rows that are pushed reach regions one after the other.
            if view["fingerprint"] is not None and not view["newer"]:
                named = prints.setdefault((said["served"], view["view"]), {})
                named.setdefault(view["fingerprint"], []).append(part.region)
    return [
        f"{view} is not the same in {' and '.join(', '.join(each) for each in sorted(named.values()))}"
        for (_, view), named in sorted(prints.items())
        if len(named) > 1
    ]


def _skewed(regions: Sequence[RegionCheck]) -> list[str]:
    found: list[str] = []
    for part in regions:
        if part.error_detail is not None:
            found.append(f"{part.region}: {part.error_detail}")
        features = cast("list[dict[str, Any]]", (part.findings or {}).get("features", []))
        found += [f"{part.region}: {each['view']}:{each['feature']} is skewed" for each in features if each["is_over"]]
    if all(part.findings is not None and not part.findings["files"] for part in regions):
        found.append("no region has noted what it served: fairlead features serve --log-features SHARE")
    return found
