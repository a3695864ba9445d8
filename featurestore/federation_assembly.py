"""Federated reads, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.featurestore.agents import FeatureAgents
from fairlead.featurestore.federated_joins import FederatedJoins, ViewVersions
from fairlead.featurestore.federation import FederatedReads
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.sync.scratch import Scratch
from fairlead.sync.store.refs import public_keys_of

if TYPE_CHECKING:
    from fastapi import APIRouter

    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.featurestore.sources import Sources
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.replicas import Artifacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Use cases and routes of federated reads."""

    clock: Clock
    agents: FeatureAgents
    reads: FederatedReads
    joins: FederatedJoins
    versions: ViewVersions

    def routers(self) -> list[APIRouter]:
        """Every router, without the API's prefix."""
        from fairlead.featurestore.api_federation import agents_router, federation_router

        return [
            federation_router(self.reads, self.joins, self.versions, self.clock),
            agents_router(self.agents),
        ]


def assemble_federation(
    *,
    database: Database,
    clock: Clock,
    catalog: Catalog,
    artifacts: Artifacts,
    open_store: StoreOpener,
    folder: Path,
    sources: Sources,
    signing_keys: Sequence[bytes],
    is_local: bool,
    region: str | None = None,
) -> Federation:
    """Build federated reads; `folder` is the feature store's.

    The first of the signing keys signs tickets, and all are believed. `is_local`: the service serves one user, on that
    user's machine. `region` is where it runs, None where nobody says.
    """
    public_keys = tuple(public_keys_of(signing_keys).values())
    agents = FeatureAgents(database, clock, catalog=catalog, public_keys=public_keys)
    replicas = ReplicaRows(database, artifacts=artifacts, open_store=open_store, folder=folder / "rows")
    return Federation(
        clock=clock,
        agents=agents,
        reads=FederatedReads(
            database,
            clock,
            catalog=catalog,
            agents=agents,
            signing_key=signing_keys[0],
            is_local=is_local,
            region=region,
        ),
        joins=FederatedJoins(
            database,
            clock,
            replicas=replicas,
            sources=sources,
            scratch=Scratch(folder / "scratch"),
            public_keys=public_keys,
            region=region,
        ),
        versions=ViewVersions(database),
    )
