"""Which models' bundles may hold pickles: a policy of the model, else the server's setting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.models import find_model
from fairlead.registry.tables import RegisteredModelRow
from fairlead.serving.recipe import BundleRules
from fairlead.serving.tables_bundles import BundlePolicyRow


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePolicy:
    """What bundles of a model may hold. `updated_...` are None where the server's setting alone says so."""

    model: str
    allows_pickle: bool
    updated_by: str | None
    updated_at: datetime | None


class BundlePolicies:
    """Shows and sets the policies of models' bundles."""

    def __init__(self, database: Database, clock: Clock, *, rules: BundleRules) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules

    def get(self, caller: Caller, name: str) -> BundlePolicy:
        """What holds for a model now.

        Raises:
            ModelNotFound: if there is no such model.
        """
        with self._database.read() as session:
            return self._of(session, find_model(session, caller.workspace_id, name))

    def put(self, caller: Caller, name: str, *, allows_pickle: bool) -> BundlePolicy:
        """Say whether a model's bundles may hold pickles. Bundles that were built stay as they are.

        Raises:
            ModelNotFound: if there is no such model.
        """
        with self._database.write() as session:
            model = find_model(session, caller.workspace_id, name)
            row = session.get(BundlePolicyRow, (model.workspace_id, model.id))
            if row is None:
                row = BundlePolicyRow(workspace_id=model.workspace_id, model_id=model.id)
                session.add(row)
            row.allows_pickle, row.updated_by, row.updated_at = allows_pickle, caller.principal, self._clock.now()
            audit.record(
                session,
                caller,
                self._clock,
                action="bundle-policy.set",
                subject=model.name,
                residency=model.residency,
                facts={"allows_pickle": allows_pickle},
            )
            session.flush()
            return self._of(session, model)

    def _of(self, session: Session, model: RegisteredModelRow) -> BundlePolicy:
        row = session.get(BundlePolicyRow, (model.workspace_id, model.id))
        return BundlePolicy(
            model=model.name,
            allows_pickle=allows_pickle(session, model, self._rules),
            updated_by=None if row is None else row.updated_by,
            updated_at=None if row is None else row.updated_at,
        )


def allows_pickle(session: Session, model: RegisteredModelRow, rules: BundleRules) -> bool:
    """Whether a model's bundles may hold pickles."""
    row = session.get(BundlePolicyRow, (model.workspace_id, model.id))
    return rules.allows_pickle if row is None else row.allows_pickle
