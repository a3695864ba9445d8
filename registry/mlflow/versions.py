"""Model versions as MLflow handles them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database, is_dry_run
from fairlead.core.errors import InvalidInput, InvalidName, JsonValue, ModelNotFound, ModelVersionNotFound, NotReady
from fairlead.core.ports import Clock, DeploymentIndex
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.identity import Caller
from fairlead.registry.lifecycle import delete_version
from fairlead.registry.mlflow.filters import PROMPT_TAG
from fairlead.registry.mlflow.models import parse_stage
from fairlead.registry.mlflow.ports import VersionFiles
from fairlead.registry.mlflow.records import (
    NO_STAGE,
    Wire,
    find_files,
    find_model,
    find_version,
    render_versions,
    wire_of_version,
)
from fairlead.registry.mlflow.sources import Source, no_tracking_server, parse_source
from fairlead.registry.mlflow.staging import area_of
from fairlead.registry.models import to_labels
from fairlead.registry.tables import ModelVersionRow
from fairlead.registry.version_records import READY
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions

if TYPE_CHECKING:
    from fairlead.registry.mlflow.staging import Staging
    from fairlead.registry.mlflow.tracking_servers import TrackingServers

_COMMIT_TAG = "mlflow.source.git.commit"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRequest:
    """What a client says of a version; `own_authority` is the host and port by which it calls this server."""

    name: str
    source: str
    own_authority: str
    run_id: str | None = None
    run_link: str | None = None
    description: str = ""
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MlflowVersions:
    """Registers, shows, changes and deletes versions."""

    database: Database
    clock: Clock
    versions: Versions
    tracking_servers: TrackingServers
    staging: Staging
    files: VersionFiles
    deployments: DeploymentIndex | None = None

    def create(self, caller: Caller, request: VersionRequest, *, key: IdempotencyKey | None = None) -> Wire:
        """Register the next version of a model; it is pending until its files lie with us, verified.

        Raises:
            ModelNotFound, ModelVersionNotFound: if the model, or the version that is copied, does not exist.
            InvalidInput: if the source is none that its files can be brought from.
            ResidencyViolation, LocationNotFound: if no location takes the files.
        """
        is_prompt = request.tags.get(PROMPT_TAG, "").lower() == "true"
        # A prompt has no files; what stands for their source means nothing.
        source = None if is_prompt else parse_source(request.source)
        copied = None if source is None else _copied_version(source, request.own_authority)
        upload_id = None
        if source is not None and copied is None:
            with self.database.read() as session:
                find_model(session, caller.workspace_id, request.name)
            upload_id = self._find_files(caller, request, source)
        draft = VersionDraft(
            upload_id=upload_id,
            has_files=not is_prompt,
            source=request.source,
            run_link=request.run_link or None,
            run_id=request.run_id or None,
            code_commit=request.tags.get(_COMMIT_TAG) or None,
            description=request.description,
            tags=request.tags,
            flavor="prompt" if is_prompt else None,
        )

        find_upload = None if copied is None else partial(_find_upload, workspace_id=caller.workspace_id, copied=copied)
        try:
            made = self.versions.register(caller, request.name, draft, find_upload=find_upload, key=key)
        except (ModelNotFound, ModelVersionNotFound, InvalidName):
            # What is missing is said in MLflow's words.
            with self.database.read() as session:
                find_model(session, caller.workspace_id, request.name)
            raise
        return wire_of_version(made)

    def get(self, caller: Caller, name: str, version: int) -> Wire:
        """One version.

        Raises:
            ModelVersionNotFound: if there is none.
        """
        with self.database.read() as session:
            return render_versions(session, [find_version(session, caller.workspace_id, name, version)])[0]

    def update(self, caller: Caller, name: str, version: int, description: str) -> Wire:
        """Change a version's description.

        Raises:
            ModelVersionNotFound: if there is none.
        """
        self.get(caller, name, version)
        changed = self.versions.update(caller, name, version, description=description)
        return wire_of_version(changed, changed_at=self.clock.now())

    def set_tag(self, caller: Caller, name: str, version: int, key: str, value: str | None) -> None:
        """Set a tag of a version, or remove it with None.

        Raises:
            ModelVersionNotFound: if there is none.
            InvalidInput: if the tag is not valid.
        """
        self.get(caller, name, version)
        self.versions.update(caller, name, version, tags={key: value})

    def transition(self, caller: Caller, name: str, version: int, stage: str, *, archive_others: bool) -> Wire:
        """Label a version with a stage. Stages move nothing: what serves is moved by promotions.

        Raises:
            ModelVersionNotFound: if there is none.
            InvalidInput: if the stage is not known, or others are to be archived though it is no active one.
        """
        wanted = parse_stage(stage)
        if archive_others and wanted not in {"Staging", "Production"}:
            raise InvalidInput(
                f"Model version transition cannot archive existing model versions because '{wanted}' is not an Active "
                "stage.",
                hint="Valid stages are Staging and Production.",
            )
        now = self.clock.now()
        with self.database.write() as session:
            model = find_model(session, caller.workspace_id, name, lock=True)
            _, row = find_version(session, caller.workspace_id, name, version)
            others: Sequence[ModelVersionRow] = ()
            if archive_others:
                query = select(ModelVersionRow).where(
                    ModelVersionRow.workspace_id == model.workspace_id,
                    ModelVersionRow.model_id == model.id,
                    ModelVersionRow.version != version,
                    ModelVersionRow.stage == wanted,
                    ModelVersionRow.deleted_at.is_(None),
                )
                others = session.scalars(query).all()
            for other in others:
                other.stage, other.changed_at = "Archived", now
            facts: dict[str, JsonValue] = {
                "from": row.stage or NO_STAGE,
                "to": wanted,
                "archived": [other.version for other in others],
            }
            row.stage, row.changed_at = (None if wanted == NO_STAGE else wanted), now
            model.updated_at = now
            audit.record_at(
                session,
                caller,
                now,
                action="version.stage",
                subject=f"{model.name}/{row.version}",
                residency=row.residency,
                facts=facts,
            )
            session.flush()
            return render_versions(session, [(model, row)])[0]

    def delete(self, caller: Caller, name: str, version: int) -> None:
        """Delete a version and the aliases that point to it. Its record stays, and its number is not used again.

        Raises:
            ModelVersionNotFound: if there is none.
            Conflict: if it holds an environment.
        """
        with self.database.write() as session:
            model = find_model(session, caller.workspace_id, name, lock=True)
            _, row = find_version(session, caller.workspace_id, name, version)
            delete_version(session, caller, self.clock, self.deployments, of=(model, row))

    def _find_files(self, caller: Caller, request: VersionRequest, source: Source) -> str | None:
        """The upload that holds a source's files; None where a worker has to bring them from a tracking server.

        Raises:
            InvalidInput: if nobody can give us the files.
        """
        workspace_id = caller.workspace_id
        is_ours = source.authority == request.own_authority
        if source.kind == "path" and (is_ours or source.authority is None):
            staged = self.staging.find(area_of(caller), source.path)
            if staged is not None and staged.is_dir():
                with self.database.read() as session:
                    model = find_model(session, workspace_id, request.name)
                    residency, regions, labels = model.residency, model.regions, to_labels(model)
                if is_dry_run():
                    return None
                return self.files.store(caller, staged, residency=residency, regions=regions, labels=labels)
            if is_ours:
                raise InvalidInput(
                    f"Invalid model version source: nothing was uploaded to '{source.text[:200]}'.",
                    hint="Upload the files first; they are kept for a day.",
                )
        if not self.tracking_servers.can_reach(workspace_id, source.authority):
            raise no_tracking_server(source.text)
        if source.kind == "bucket" and not request.run_id:
            raise no_tracking_server(source.text)
        return None


def _copied_version(source: Source, own_authority: str) -> tuple[str, int] | None:
    """The version of ours that a source names, if any."""
    if source.kind == "version":
        return source.name, source.version
    if source.kind == "path" and source.authority in {None, own_authority}:
        return _own_version(source.path)
    return None


def _find_upload(session: Session, *, workspace_id: str, copied: tuple[str, int]) -> str:
    """The upload of a version that is copied."""
    name, version = copied
    state, upload_id = find_files(session, workspace_id, name, version)
    if state != READY or upload_id is None:
        raise NotReady(f"Model version {name}/{version} is {state}.", hint="Copy it once its files are verified.")
    return upload_id


def _own_version(path: str) -> tuple[str, int] | None:
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "models" and parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 10:
        return parts[1], int(parts[2])
    return None
