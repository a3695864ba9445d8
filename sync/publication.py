"""Publication: each location holds what the names pointed at, signed, so that it can answer without the registry.

A workspace's `refs_revision` grows with every move of a pointer. A location that was last written at an older one gets
the set as of now: the aliases and environments of the models whose residency class lets their data be there. Names of
other models are not written there either.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fairlead.core.ids import Digest
from fairlead.registry import work
from fairlead.registry.keys import active_key_id
from fairlead.registry.locations import Location, get_location
from fairlead.registry.tables import (
    PLAIN_KEY_ID,
    AliasRow,
    ArtifactRow,
    EnvironmentRow,
    LocationRow,
    ModelVersionRow,
    RegisteredModelRow,
    WorkspaceRow,
)
from fairlead.sync.shelves import open_location
from fairlead.sync.store.refs import Ref, RefSet, RefTarget, write_refs

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.work import LeasedWork

PUBLISH_REFS = "publish-refs"
"""The work of writing a location's signed refs; its subject is the location's id."""


def derive_publications(session: Session, now: datetime) -> None:
    """Require work for every location whose signed refs are older than the workspace's."""
    behind = (
        select(LocationRow)
        .join(WorkspaceRow, WorkspaceRow.workspace_id == LocationRow.workspace_id)
        .where(
            WorkspaceRow.refs_revision > 0,
            LocationRow.published_refs_revision < WorkspaceRow.refs_revision,
            LocationRow.kind == "storage",
            LocationRow.state != "RETIRED",
        )
    )
    for location in session.scalars(behind).all():
        work.require_work(
            session,
            workspace_id=location.workspace_id,
            residency="unrestricted",
            kind=PUBLISH_REFS,
            subject=location.id,
            region=location.region,
            priority=work.URGENT,
            now=now,
        )


class Publication:
    """The handler of `publish-refs`. `signing_key` is an Ed25519 private key, as its 32 raw bytes."""

    def __init__(self, database: Database, clock: Clock, *, open_store: StoreOpener, signing_key: bytes) -> None:
        self._database = database
        self._clock = clock
        self._open_store = open_store
        self._signing_key = signing_key

    def __call__(self, leased: LeasedWork) -> None:
        """Write one location's signed refs as of now, and record the revision.

        Raises:
            LeaseLost: if another worker took over.
            StaleRevision: if the location holds a newer revision than the record has (which an old backup may cause).
            LocationUnavailable, PermissionDenied, StorageFull: from the location; it is tried again.
        """
        with self._database.read() as session:
            location = get_location(session, leased.workspace_id, leased.subject)
            refs = collect_refs(session, leased.workspace_id, location, self._clock.now())
        if refs.revision > 0:
            write_refs(open_location(self._open_store, location), refs, self._signing_key)
        with self._database.write() as session:
            session.execute(
                update(LocationRow)
                .where(LocationRow.workspace_id == leased.workspace_id, LocationRow.id == location.id)
                .values(published_refs_revision=refs.revision)
            )
            work.finish(session, leased)


def collect_refs(session: Session, workspace_id: str, location: Location, now: datetime) -> RefSet:
    """Every alias and environment that may be known at a location, as of the workspace's present revision.

    None of them where the workspace encrypts: refs are readable to all who read the location, the record's copy is not.
    """
    # Read first: a move that commits between the two reads is then published once more, instead of not at all.
    workspace = session.get_one(WorkspaceRow, workspace_id)
    if active_key_id(session, workspace_id) != PLAIN_KEY_ID:
        return RefSet(workspace=workspace_id, revision=workspace.refs_revision, issued_at=now, refs=())
    environments = frozenset(
        session.scalars(select(EnvironmentRow.name).where(EnvironmentRow.workspace_id == workspace_id))
    )
    query = (
        select(RegisteredModelRow, AliasRow, ModelVersionRow.artifact_digest, ArtifactRow.key_id)
        .join(
            AliasRow,
            (AliasRow.workspace_id == RegisteredModelRow.workspace_id) & (AliasRow.model_id == RegisteredModelRow.id),
        )
        .join(
            ModelVersionRow,
            (ModelVersionRow.workspace_id == AliasRow.workspace_id)
            & (ModelVersionRow.model_id == AliasRow.model_id)
            & (ModelVersionRow.version == AliasRow.version),
        )
        .join(
            ArtifactRow,
            (ArtifactRow.workspace_id == ModelVersionRow.workspace_id)
            & (ArtifactRow.residency == ModelVersionRow.residency)
            & (ArtifactRow.digest == ModelVersionRow.artifact_digest),
        )
        .where(
            RegisteredModelRow.workspace_id == workspace_id,
            ModelVersionRow.state == "READY",
            ModelVersionRow.artifact_digest.is_not(None),
        )
        .order_by(RegisteredModelRow.name, AliasRow.name)
    )
    refs = tuple(
        _to_ref(
            model, alias, RefTarget(digest=Digest(digest or ""), residency=model.residency, key_id=key_id), environments
        )
        for model, alias, digest, key_id in session.execute(query)
        if location.permits(model.residency, None)
    )
    return RefSet(workspace=workspace_id, revision=workspace.refs_revision, issued_at=now, refs=refs)


def _to_ref(model: RegisteredModelRow, alias: AliasRow, target: RefTarget, environments: Collection[str]) -> Ref:
    return Ref(
        name=f"{model.name}@{alias.name}",
        kind="environment" if alias.name in environments else "alias",
        revision=alias.revision,
        targets=(target,),
        issued_at=alias.moved_at,
    )
