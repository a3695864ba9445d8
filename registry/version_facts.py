"""What is known of a version at this moment, as the gates' expressions see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.ports import BundleIndex, SnapshotFinding, SnapshotIndex
from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow, VersionTagRow
from fairlead.registry.tables_governance import EvaluationRow
from fairlead.registry.version_signatures import signature_facts

EVALUATIONS_MAX = 500
"""How many of a version's evaluations, the newest, are looked at."""


def version_facts(
    session: Session,
    model: RegisteredModelRow,
    version: ModelVersionRow,
    *,
    replica_states: Mapping[str, str],
    bundles: BundleIndex | None,
    snapshots: SnapshotIndex | None = None,
    now: datetime,
) -> dict[str, Any]:
    """The facts of one version, by the names in `CONTEXT`."""
    signatures = signature_facts(session, model, version, now)
    return {
        "version": version.version,
        "metrics": dict(version.metrics),
        "params": dict(version.params),
        "tags": _tags(session, version),
        "signature": version.signature,
        "signature_verified": bool(signatures),
        "signatures": signatures,
        "flavor": version.flavor,
        "digest": version.artifact_digest,
        "residency": version.residency,
        "age": now - version.created_at,
        "created_by": version.created_by,
        "lineage": {
            "parent": version.parent_version,
            "run": version.run_id,
            "code_commit": version.code_commit,
            "feature_service": version.feature_service,
            "feature_service_digest": version.feature_service_digest,
        },
        "snapshot": version.snapshot_digest,
        "expectations": {
            f"{each.name} {each.measure}": {
                "passed": each.is_passed,
                "required": each.is_required,
                "value": each.value,
            }
            for each in snapshot_findings(snapshots, version)
        },
        "bundle": None if bundles is None else bundles.bundle_of(model.workspace_id, model.id, version.version),
        "smoke_test": _smoke_test(model, version, bundles, now),
        "replicas": dict(replica_states),
        "evaluations": _evaluations(session, version, now),
    }


def snapshot_findings(snapshots: SnapshotIndex | None, version: ModelVersionRow) -> Sequence[SnapshotFinding]:
    """What was found of the snapshot that a version pins."""
    if snapshots is None or version.snapshot_digest is None:
        return ()
    return snapshots.findings(version.workspace_id, version.snapshot_digest)


def _smoke_test(
    model: RegisteredModelRow, version: ModelVersionRow, bundles: BundleIndex | None, now: datetime
) -> dict[str, Any] | None:
    found = None if bundles is None else bundles.smoke_test_of(model.workspace_id, model.id, version.version)
    if found is None:
        return None
    return {
        "passed": found.is_passed,
        "answered": found.answered,
        "compared": found.compared,
        "age": max(now - found.finished_at, timedelta(0)),
    }


def _tags(session: Session, version: ModelVersionRow) -> dict[str, str]:
    rows = session.scalars(
        select(VersionTagRow).where(
            VersionTagRow.workspace_id == version.workspace_id,
            VersionTagRow.model_id == version.model_id,
            VersionTagRow.version == version.version,
        )
    )
    return {row.key: row.value for row in rows}


def _evaluations(session: Session, version: ModelVersionRow, now: datetime) -> dict[str, Any]:
    rows = session.scalars(
        select(EvaluationRow)
        .where(
            EvaluationRow.workspace_id == version.workspace_id,
            EvaluationRow.model_id == version.model_id,
            EvaluationRow.version == version.version,
        )
        .order_by(EvaluationRow.id.desc())
        .limit(EVALUATIONS_MAX)
    )
    newest: dict[str, Any] = {}
    for row in rows:
        newest.setdefault(
            row.name,
            {
                "metrics": dict(row.metrics),
                "dataset": row.dataset,
                "age": max(now - row.created_at, timedelta(0)),
                "by": row.created_by,
            },
        )
    return newest
