"""Which models stand on a feature service: those whose version an environment holds now.

The first environment (`dev`) does not count where there are others: what is only tried out holds nobody up.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from fairlead.registry.tables import AliasRow, EnvironmentRow, ModelVersionRow, RegisteredModelRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUser:
    """A model version that holds an environment, and the version of the service that it pins."""

    model: str
    version: int
    environment: str
    service: str
    service_digest: str

    def __str__(self) -> str:
        return f"{self.model}/{self.version} ({self.environment})"


def service_users(session: Session, workspace_id: str) -> list[ServiceUser]:
    """Every holder of an environment that pins a feature service, by model and rank of the environment."""
    mine = EnvironmentRow.workspace_id == workspace_id
    lowest, highest = session.execute(
        select(func.min(EnvironmentRow.rank), func.max(EnvironmentRow.rank)).where(mine)
    ).one()
    query = (
        select(
            RegisteredModelRow.name,
            ModelVersionRow.version,
            EnvironmentRow.name,
            ModelVersionRow.feature_service,
            ModelVersionRow.feature_service_digest,
        )
        .join(
            AliasRow,
            and_(AliasRow.workspace_id == RegisteredModelRow.workspace_id, AliasRow.model_id == RegisteredModelRow.id),
        )
        .join(
            EnvironmentRow,
            and_(EnvironmentRow.workspace_id == AliasRow.workspace_id, EnvironmentRow.name == AliasRow.name),
        )
        .join(
            ModelVersionRow,
            and_(
                ModelVersionRow.workspace_id == AliasRow.workspace_id,
                ModelVersionRow.model_id == AliasRow.model_id,
                ModelVersionRow.version == AliasRow.version,
            ),
        )
        .where(
            RegisteredModelRow.workspace_id == workspace_id,
            or_(EnvironmentRow.rank > (lowest or 0), EnvironmentRow.rank == highest),
            ModelVersionRow.feature_service.is_not(None),
            ModelVersionRow.feature_service_digest.is_not(None),
        )
        .order_by(RegisteredModelRow.name, EnvironmentRow.rank.desc())
    )
    return [
        ServiceUser(
            model=model, version=version, environment=environment, service=service or "", service_digest=digest or ""
        )
        for model, version, environment, service, digest in session.execute(query)
    ]
