"""A record to act on: tables, a workspace, callers, and the rows that other packages would write."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from fairlead.app.problem_handlers import install_problem_handlers
from fairlead.catalog import load_catalog
from fairlead.core.db import Database
from fairlead.core.errors import FairleadError
from fairlead.core.ids import new_row_id, sha256_digest
from fairlead.registry.access import install_access
from fairlead.registry.aliases import Aliases
from fairlead.registry.api import record_routers
from fairlead.registry.environments import Environments
from fairlead.registry.identity import Caller, Scope, Tokens, bootstrap
from fairlead.registry.models import Labels, Models, RegisteredModel
from fairlead.registry.policy import Policy
from fairlead.registry.promotion import Promotions
from fairlead.registry.replica_policies import ReplicaPolicies, model_uses
from fairlead.registry.rollback import Rollbacks
from fairlead.registry.tables import ArtifactRow, LocationRow, ReplicaRow, UploadRow, WorkspaceRow
from fairlead.registry.version_records import ModelVersion
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.version_states import mark_ready
from fairlead.registry.versions import Versions
from fairlead.testing.clock import ManualClock

Outcome = TypeVar("Outcome")
LABELS = Labels(owner="ana", team="churn", cost_centre="cc-7")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The record's use cases over one database, in a workspace of their own."""

    database: Database
    clock: ManualClock
    owner_secret: str
    owner: Caller

    @property
    def models(self) -> Models:
        return Models(self.database, self.clock)

    @property
    def versions(self) -> Versions:
        return Versions(self.database, self.clock)

    @property
    def aliases(self) -> Aliases:
        return Aliases(self.database, self.clock)

    @property
    def environments(self) -> Environments:
        return Environments(self.database, self.clock)

    @property
    def promotions(self) -> Promotions:
        return Promotions(self.database, self.clock, load_catalog())

    @property
    def rollbacks(self) -> Rollbacks:
        return Rollbacks(self.database, self.clock)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.database, self.clock)

    def caller(self, principal: str, *scopes: Scope) -> Caller:
        """Someone else in the same workspace."""
        return Caller(workspace_id=self.owner.workspace_id, principal=principal, scopes=frozenset(scopes))

    def secret(self, principal: str, *scopes: Scope) -> str:
        """A token for someone."""
        return self.tokens.create(self.owner, name=principal, principal=principal, scopes=scopes).secret

    def model(self, name: str = "churn", *, residency: str = "unrestricted") -> RegisteredModel:
        """A registered model."""
        return self.models.create(self.owner, name=name, labels=LABELS, residency=residency)

    def location(self, region: str) -> str:
        """The id of a location in a region, made unless there is one."""
        with self.database.write() as session:
            found = session.scalars(
                select(LocationRow).where(
                    LocationRow.workspace_id == self.owner.workspace_id, LocationRow.name == region
                )
            ).one_or_none()
            if found is None:
                found = LocationRow(
                    workspace_id=self.owner.workspace_id,
                    name=region,
                    region=region,
                    jurisdiction=load_catalog().region(region).jurisdiction,
                    url=f"file:///{region}",
                    created_at=self.clock.now(),
                )
                session.add(found)
                session.flush()
            return found.id

    def upload(self, *, residency: str = "unrestricted", kind: str = "model") -> str:
        """The id of an upload whose bytes are handed over and not verified yet."""
        location = self.location("aws:us-east-1")
        with self.database.write() as session:
            row = UploadRow(
                workspace_id=self.owner.workspace_id,
                residency=residency,
                kind=kind,
                location_id=location,
                state="VERIFYING",
                sent_bytes=900,
                created_by="ana",
                created_at=self.clock.now(),
                expires_at=self.clock.now() + timedelta(hours=1),
            )
            session.add(row)
            session.flush()
            return row.id

    def verify(self, upload: str, *, content: bytes = b"") -> str:
        """Do what a worker does when every byte of an upload was read back; the artifact's digest."""
        digest = sha256_digest(content or upload.encode())
        now = self.clock.now()
        with self.database.write() as session:
            row = session.get_one(UploadRow, (self.owner.workspace_id, upload), with_for_update=True)
            row.state, row.artifact_digest = "READY", digest
            if session.get(ArtifactRow, (row.workspace_id, row.residency, digest)) is None:
                session.add(
                    ArtifactRow(
                        workspace_id=row.workspace_id,
                        residency=row.residency,
                        digest=digest,
                        kind=row.kind,
                        size_bytes=2_000_000_000,
                        file_count=2,
                        created_at=now,
                    )
                )
                session.flush()
            mark_ready(session, row.workspace_id, upload, digest, now)
        return digest

    def replica(self, version: ModelVersion, region: str, state: str = "VERIFIED") -> None:
        """Put a version's replica in a region into a state."""
        location = self.location(region)
        with self.database.write() as session:
            session.merge(
                ReplicaRow(
                    workspace_id=self.owner.workspace_id,
                    residency=version.residency,
                    artifact_digest=version.artifact_digest,
                    location_id=location,
                    state=state,
                    stored_bytes=1_000_000_000 if state == "VERIFIED" else None,
                    updated_at=self.clock.now(),
                )
            )

    def version(self, model: str = "churn", *, metrics: Mapping[str, float] | None = None) -> ModelVersion:
        """A READY version of a model."""
        upload = self.upload()
        self.verify(upload)
        return self.versions.register(self.owner, model, VersionDraft(upload_id=upload, metrics=metrics or {}))

    def policy(self, environment: str, policy: Policy) -> None:
        """Set an environment's policy."""
        present = self.environments.get(self.owner, environment)
        self.environments.put(
            self.owner, environment, rank=present.rank, wanted=policy, expected_revision=present.revision
        )

    def refs_revision(self) -> int:
        """How often a pointer of the workspace has moved."""
        with self.database.read() as session:
            return session.get_one(WorkspaceRow, self.owner.workspace_id).refs_revision

    @contextlib.contextmanager
    def http(self, secret: str | None = None) -> Generator[TestClient]:
        """The record's routes behind a real application; the owner's token unless another is given."""
        with TestClient(make_app(self), headers={"authorization": f"Bearer {secret or self.owner_secret}"}) as client:
            yield client


def make_app(world: World) -> FastAPI:
    """An application with the record's routes."""
    app = FastAPI()
    install_access(app, world.tokens.authenticate)
    install_problem_handlers(app)
    policies = ReplicaPolicies(world.database, world.clock, catalog=load_catalog(), uses=(model_uses,))
    for router in record_routers(world.database, world.clock, replica_policies=policies):
        app.include_router(router, prefix="/api/v1")
    return app


def make_world(database: Database) -> World:
    """A workspace of its own in a database that others may share."""
    clock = ManualClock()
    issued = bootstrap(database, clock, principal="ana", workspace_id=f"w-{new_row_id()}")
    owner = Tokens(database, clock).authenticate(issued.secret)
    return World(database=database, clock=clock, owner_secret=issued.secret, owner=owner)


def run_together(*actions: Callable[[], Outcome]) -> list[Outcome | FairleadError]:
    """Start actions at the same moment, each in a thread; what each gave, or the error of ours that it raised."""
    start = threading.Barrier(len(actions), timeout=30)

    def run(action: Callable[[], Outcome]) -> Outcome | FairleadError:
        start.wait()
        try:
            return action()
        except FairleadError as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


def unknown_id() -> str:
    """An id that names nothing."""
    # The same in every test process: it names tests.
    return "01a1ff8f-c06e-7a55-b697-be9177949992"
