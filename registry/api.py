"""The record's routes, for the composition root to mount below `/api/v1`."""

from __future__ import annotations

from fastapi import APIRouter

from fairlead.catalog import load_catalog
from fairlead.core.db import Database
from fairlead.core.ports import BundleIndex, Clock, CopyPricing, DeploymentIndex, SnapshotIndex
from fairlead.registry.aliases import Aliases
from fairlead.registry.api_imports import imports_router
from fairlead.registry.api_issuers import issuers_router
from fairlead.registry.api_lifecycle import cards_router, lifecycle_router, retention_router
from fairlead.registry.api_models import aliases_router, models_router, versions_router
from fairlead.registry.api_operations import audit_router, ledger_router, tokens_router
from fairlead.registry.api_promotion import environments_router, history_router, promotions_router, rollbacks_router
from fairlead.registry.api_promotion_policies import evaluations_router, promotion_policies_router
from fairlead.registry.api_replica_policies import replica_policies_router
from fairlead.registry.api_role_bindings import role_bindings_router
from fairlead.registry.api_signatures import signers_router, version_signatures_router
from fairlead.registry.api_workspaces import workspaces_router
from fairlead.registry.audit import AuditLog
from fairlead.registry.cards import Cards
from fairlead.registry.environments import Environments
from fairlead.registry.evaluations import Evaluations
from fairlead.registry.history import History
from fairlead.registry.identity import Tokens
from fairlead.registry.imports import Imports
from fairlead.registry.issuers import Issuers
from fairlead.registry.ledger import Ledger
from fairlead.registry.lifecycle import Lifecycle
from fairlead.registry.models import Models
from fairlead.registry.promotion import Promotions
from fairlead.registry.promotion_policies import PromotionPolicies
from fairlead.registry.replica_policies import ReplicaPolicies
from fairlead.registry.retention import RetentionPolicies
from fairlead.registry.role_bindings import RoleBindings
from fairlead.registry.rollback import Rollbacks
from fairlead.registry.signers import Signers
from fairlead.registry.version_signatures import VersionSignatures
from fairlead.registry.versions import Versions
from fairlead.registry.workspaces import Workspaces


def record_routers(
    database: Database,
    clock: Clock,
    *,
    replica_policies: ReplicaPolicies,
    deployments: DeploymentIndex | None = None,
    copies: CopyPricing | None = None,
    bundles: BundleIndex | None = None,
    snapshots: SnapshotIndex | None = None,
) -> list[APIRouter]:
    """Every route of the record: models, versions, aliases, environments, promotions, policies, tokens, audit, ledger.

    `deployments` says which deployments a promotion touches; without it none are named. `copies` prices the replicas
    that it waits for; without it each is priced as a copy from its cheapest source. `bundles` says which bundle a
    version was built into, `snapshots` what was found of the features that it was trained on.
    """
    return [
        models_router(Models(database, clock)),
        versions_router(Versions(database, clock)),
        lifecycle_router(Lifecycle(database, clock, deployments)),
        cards_router(Cards(database, clock)),
        retention_router(RetentionPolicies(database, clock, deployments)),
        imports_router(Imports(database, clock)),
        aliases_router(Aliases(database, clock)),
        environments_router(Environments(database, clock)),
        replica_policies_router(replica_policies),
        promotion_policies_router(PromotionPolicies(database, clock)),
        evaluations_router(Evaluations(database, clock)),
        history_router(History(database, clock, bundles)),
        promotions_router(Promotions(database, clock, load_catalog(), deployments, copies, bundles, snapshots)),
        rollbacks_router(Rollbacks(database, clock)),
        role_bindings_router(RoleBindings(database, clock)),
        signers_router(Signers(database, clock)),
        version_signatures_router(VersionSignatures(database, clock)),
        tokens_router(Tokens(database, clock)),
        workspaces_router(Workspaces(database, clock)),
        issuers_router(Issuers(database, clock)),
        audit_router(AuditLog(database)),
        ledger_router(Ledger(database)),
    ]
