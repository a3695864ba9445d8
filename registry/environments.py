"""Environments: protected aliases in an order, each with a policy that has revisions.

The present policy is in the row; every earlier one is in the audit event that replaced it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import load_catalog
from fairlead.core.db import Database
from fairlead.core.errors import Conflict, EnvironmentNotFound, InvalidInput, StaleRevision
from fairlead.core.ids import parse_alias
from fairlead.core.ports import Clock
from fairlead.registry import audit, policy
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_tag_key
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.policy import Policy
from fairlead.registry.tables import AliasRow, EnvironmentRow, WorkspaceRow

RANK_MAX = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment. `rank` orders it among the others; `revision` is that of its policy."""

    name: str
    rank: int
    policy: Policy
    revision: int
    updated_by: str
    updated_at: datetime


class Environments:
    """Shows environments and sets their policies."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def list(self, caller: Caller, page: PageRequest) -> Page[Environment]:
        """Environments in their order."""
        query = select(EnvironmentRow).where(EnvironmentRow.workspace_id == caller.workspace_id)
        keys = [EnvironmentRow.rank, EnvironmentRow.name]
        with self._database.read() as session:
            rows = page.fetch(session, query, keys, listing=("environments", caller.workspace_id))
        return rows.map(_to_environment)

    def get(self, caller: Caller, name: str) -> Environment:
        """One environment.

        Raises:
            EnvironmentNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return _to_environment(find_environment(session, caller.workspace_id, name))

    def put(self, caller: Caller, name: str, *, rank: int, wanted: Policy, expected_revision: int) -> Environment:
        """Create an environment (expected revision 0) or replace its rank and policy.

        Raises:
            StaleRevision: if the environment is not at the expected revision.
            InvalidInput: if the policy or the rank makes no sense.
            UnknownRegion: if the catalog has not one of the required regions.
            EnvironmentNotFound: if the previous environment does not exist.
            Conflict: if a model uses the name as an alias.
        """
        alias = parse_alias(name)
        if not 0 <= rank <= RANK_MAX:
            raise InvalidInput(f"A rank is a whole number from 0 to {RANK_MAX}.", hint="dev is 10, production 30.")
        policy.check_policy(wanted)
        for gate in wanted.gates:
            parse_tag_key(gate.metric, what="metric")
        for region in wanted.required_regions:
            load_catalog().region(region)
        with self._database.write() as session:
            # In the order in which a promotion takes them.
            row = session.get(EnvironmentRow, (caller.workspace_id, alias), with_for_update=True)
            # Aliases move under this lock, so none takes the name while it becomes an environment's.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update={"key_share": True})
            actual = 0 if row is None else row.revision
            if row is None:
                # Somebody may have created it while this waited. Not locked, or writers could wait in a ring.
                created = session.get(EnvironmentRow, (caller.workspace_id, alias), populate_existing=True)
                actual = 0 if created is None else created.revision
            if actual != expected_revision or (row is None and actual):
                raise StaleRevision(
                    f"The environment {alias!r} is at revision {actual}, not {expected_revision}.",
                    hint=f"Look at its policy and try again: fairlead environment policy {alias}",
                    expected=expected_revision,
                    actual=actual,
                )
            _check_previous(session, caller.workspace_id, alias, rank, wanted.previous_environment)
            before = None if row is None else dict(row.policy)
            if row is None:
                _refuse_used_name(session, caller.workspace_id, alias)
                row = EnvironmentRow(workspace_id=caller.workspace_id, name=alias, revision=0)
                session.add(row)
            row.rank, row.policy, row.revision = rank, policy.to_json(wanted), actual + 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            audit.record(
                session,
                caller,
                self._clock,
                action="environment.policy",
                subject=alias,
                facts={"revision": row.revision, "rank": rank, "before": before, "after": policy.to_json(wanted)},
            )
            return _to_environment(row)


def find_environment(session: Session, workspace_id: str, name: str, *, lock: bool = False) -> EnvironmentRow:
    """The row of an environment. Locked, its policy cannot change until the transaction ends; others may lock it too.

    Raises:
        EnvironmentNotFound: if there is none of that name.
        InvalidName: if none could have that name.
    """
    row = session.get(
        EnvironmentRow, (workspace_id, parse_alias(name)), with_for_update={"read": True} if lock else None
    )
    if row is None:
        raise EnvironmentNotFound(
            f"There is no environment {name[:255]!r}.",
            hint="List them with: fairlead environment list",
            environment=name[:255],
        )
    return row


def _check_previous(session: Session, workspace_id: str, name: str, rank: int, previous: str | None) -> None:
    if previous is None:
        return
    if previous == name or find_environment(session, workspace_id, previous).rank >= rank:
        raise InvalidInput(
            f"{previous!r} does not come before {name!r}.", hint="The previous environment has a lower rank."
        )


def _refuse_used_name(session: Session, workspace_id: str, name: str) -> None:
    used = select(AliasRow.name).where(AliasRow.workspace_id == workspace_id, AliasRow.name == name).limit(1)
    if session.scalar(used) is not None:
        raise Conflict(
            f"Models use {name!r} as an alias, so it cannot become an environment.", hint="Choose another name."
        )


def _to_environment(row: EnvironmentRow) -> Environment:
    return Environment(
        name=row.name,
        rank=row.rank,
        policy=policy.from_json(row.policy),
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
