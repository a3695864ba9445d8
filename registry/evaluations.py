"""Evaluations: what was measured of a version after it was registered, for gates to ask.

An evaluation has a name, such as `fairness`, and metrics. The newest one of a name counts; earlier ones stay on record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_metrics
from fairlead.registry.models import find_model
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables_governance import EvaluationRow
from fairlead.registry.version_records import find_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation of a version; `dataset` names what it was measured on."""

    id: str
    reference: str
    name: str
    dataset: str | None
    metrics: Mapping[str, float]
    created_by: str
    created_at: datetime


class Evaluations:
    """Records and lists evaluations."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def record(
        self,
        caller: Caller,
        model: str,
        version: int,
        *,
        name: str,
        metrics: Mapping[str, float],
        dataset: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> Evaluation:
        """Record what was measured.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            InvalidInput: if a name or a metric is not valid, or there is no metric.
        """
        checked_name = parse_name(name, what="evaluation")
        checked_dataset = None if dataset is None else parse_name(dataset, what="dataset")
        checked = parse_metrics(metrics)
        if not checked:
            raise InvalidInput("An evaluation holds at least one metric.", hint="Give --metric NAME=NUMBER.")

        def act(session: Session) -> Evaluation:
            model_row = find_model(session, caller.workspace_id, model)
            row = EvaluationRow(
                workspace_id=caller.workspace_id,
                model_id=model_row.id,
                version=find_version(session, model_row, version).version,
                name=checked_name,
                dataset=checked_dataset,
                metrics=checked,
                created_by=caller.principal,
                created_at=self._clock.now(),
            )
            session.add(row)
            session.flush()
            audit.record_at(
                session,
                caller,
                row.created_at,
                action="version.evaluate",
                subject=f"{model_row.name}/{version}",
                residency=model_row.residency,
                facts={"evaluation": row.id, "name": row.name, "dataset": row.dataset, "metrics": {**checked}},
            )
            return _to_evaluation(model_row.name, row)

        with self._database.write() as session:
            return run_once(session, caller, self._clock, key, result_type=Evaluation, action=lambda: act(session))

    def list(self, caller: Caller, model: str, version: int, page: PageRequest) -> Page[Evaluation]:
        """A version's evaluations, newest first.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
        """
        with self._database.read() as session:
            model_row = find_model(session, caller.workspace_id, model)
            find_version(session, model_row, version)
            query = select(EvaluationRow).where(
                EvaluationRow.workspace_id == caller.workspace_id,
                EvaluationRow.model_id == model_row.id,
                EvaluationRow.version == version,
            )
            listing = ("evaluations", caller.workspace_id, model_row.id, str(version))
            rows = page.fetch(session, query, [EvaluationRow.id], listing=listing, descending=True)
            return rows.map(lambda row: _to_evaluation(model_row.name, row))


def _to_evaluation(model: str, row: EvaluationRow) -> Evaluation:
    return Evaluation(
        id=row.id,
        reference=f"{model}/{row.version}",
        name=row.name,
        dataset=row.dataset,
        metrics=row.metrics,
        created_by=row.created_by,
        created_at=row.created_at,
    )
