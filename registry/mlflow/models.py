"""Registered models as MLflow handles them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from fairlead.catalog import parse_residency
from fairlead.core.db import Database
from fairlead.core.errors import Conflict, InvalidInput, InvalidName, ModelNotFound, ModelVersionNotFound
from fairlead.core.ports import Clock, DeploymentIndex
from fairlead.registry import audit
from fairlead.registry.aliases import Aliases
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.identity import Caller
from fairlead.registry.lifecycle import delete_model
from fairlead.registry.mlflow.records import (
    NO_STAGE,
    Pair,
    Wire,
    find_by_alias,
    find_model,
    find_version,
    latest_of_each_stage,
    render_models,
    render_versions,
    wire_of_model,
)
from fairlead.registry.models import Labels, ModelChange, Models, RegisteredModel, apply_change, render_model
from fairlead.registry.tables import ModelTagRow, RegisteredModelRow

UNASSIGNED = "unassigned"
OWNER_TAG, TEAM_TAG, COST_CENTRE_TAG = "fairlead.owner", "fairlead.team", "fairlead.cost_centre"
RESIDENCY_TAG = "fairlead.residency"
_STAGES = {stage.lower(): stage for stage in (NO_STAGE, "Staging", "Production", "Archived")}


@dataclass(frozen=True, slots=True)
class MlflowModels:
    """Registers, shows, changes and deletes models; sets and resolves their aliases."""

    database: Database
    clock: Clock
    models: Models
    aliases: Aliases
    deployments: DeploymentIndex | None = None

    def create(
        self,
        caller: Caller,
        *,
        name: str,
        description: str,
        tags: Mapping[str, str],
        key: IdempotencyKey | None = None,
    ) -> Wire:
        """Register a model. The caller owns it; tags say otherwise, and which residency class it has.

        The name of a deleted model may be registered again; its version numbers go on.

        Raises:
            AlreadyExists: if the name is taken.
            InvalidInput: if the name, a tag or the residency class is not valid.
        """
        labels = Labels(
            owner=tags.get(OWNER_TAG) or caller.principal,
            team=tags.get(TEAM_TAG) or UNASSIGNED,
            cost_centre=tags.get(COST_CENTRE_TAG) or UNASSIGNED,
        )
        made = self._revive(caller, name, labels, description, tags) or self.models.create(
            caller,
            name=name,
            labels=labels,
            residency=tags.get(RESIDENCY_TAG) or "unrestricted",
            description=description,
            tags=tags,
            key=key,
        )
        return wire_of_model(made)

    def get(self, caller: Caller, name: str) -> Wire:
        """One model.

        Raises:
            ModelNotFound: if there is none of that name.
        """
        with self.database.read() as session:
            return render_models(session, [find_model(session, caller.workspace_id, name)])[0]

    def update(self, caller: Caller, name: str, description: str) -> Wire:
        """Change a model's description.

        Raises:
            ModelNotFound: if there is none of that name.
        """
        found = self.get(caller, name)
        changed = self.models.update(caller, name, ModelChange(description=description))
        return {**wire_of_model(changed), "latest_versions": found["latest_versions"], "aliases": found["aliases"]}

    def rename(self, caller: Caller, name: str, new_name: str) -> Wire:
        """Names never change, so only the name that a model has already is taken.

        Raises:
            ModelNotFound: if there is none of that name.
            InvalidInput: if the new name is another one.
        """
        found = self.get(caller, name)
        if new_name != name:
            raise InvalidInput(
                f"Registered model '{name}' cannot be renamed: names stay, because audit, signatures and deployments "
                "name models by them.",
                hint=f"Register '{new_name[:80]}' and copy versions there: MlflowClient.copy_model_version.",
            )
        return found

    def set_tag(self, caller: Caller, name: str, key: str, value: str | None) -> None:
        """Set a tag of a model, or remove it with None.

        Raises:
            ModelNotFound: if there is none of that name.
            InvalidInput: if the tag is not valid.
        """
        self.get(caller, name)
        self.models.update(caller, name, ModelChange(tags={key: value}))

    def delete(self, caller: Caller, name: str) -> None:
        """Delete a model with its versions and aliases. It can be restored until its name is created again.

        Raises:
            ModelNotFound: if there is none of that name.
            Conflict: if one of its versions holds an environment.
        """
        with self.database.write() as session:
            model = find_model(session, caller.workspace_id, name, lock=True)
            delete_model(session, caller, self.clock, self.deployments, model=model)

    def latest_versions(self, caller: Caller, name: str, stages: Sequence[str]) -> list[Wire]:
        """The newest version of each stage, or of the given stages.

        Raises:
            ModelNotFound: if there is none of that name.
            InvalidInput: if a stage is not known.
        """
        wanted = {parse_stage(stage) for stage in stages}
        with self.database.read() as session:
            model = find_model(session, caller.workspace_id, name)
            found = latest_of_each_stage(session, [model]).get(model.id, [])
            kept: list[Pair] = [pair for pair in found if not wanted or (pair[1].stage or NO_STAGE) in wanted]
            return render_versions(session, kept)

    def set_alias(self, caller: Caller, name: str, alias: str, version: int) -> None:
        """Point an alias at a version, wherever it pointed before.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            InvalidName, Conflict: if the name cannot be an alias, or is an environment's.
            NotReady: if the version's bytes are not verified.
        """
        try:
            self.aliases.set(caller, name, alias, version, expected_revision=None)
        except (ModelNotFound, ModelVersionNotFound, InvalidName):
            # What is missing is said in MLflow's words.
            with self.database.read() as session:
                find_model(session, caller.workspace_id, name)
                find_version(session, caller.workspace_id, name, version)
            raise

    def delete_alias(self, caller: Caller, name: str, alias: str) -> None:
        """Delete an alias.

        Raises:
            ModelNotFound, AliasNotFound: if there is no such thing.
            Conflict: if it is an environment.
        """
        with self.database.read() as session:
            find_model(session, caller.workspace_id, name)
        self.aliases.delete(caller, name, alias, expected_revision=None)

    def version_by_alias(self, caller: Caller, name: str, alias: str) -> Wire:
        """The version that an alias points to; `latest` is the newest one.

        Raises:
            ModelNotFound, AliasNotFound: if there is no such thing.
        """
        with self.database.read() as session:
            if alias.lower() == "latest":
                model = find_model(session, caller.workspace_id, name)
                newest = max(
                    latest_of_each_stage(session, [model]).get(model.id, []),
                    key=lambda pair: pair[1].version,
                    default=None,
                )
                if newest is not None:
                    return render_versions(session, [newest])[0]
            return render_versions(session, [find_by_alias(session, caller.workspace_id, name, alias)])[0]

    def _revive(
        self, caller: Caller, name: str, labels: Labels, description: str, tags: Mapping[str, str]
    ) -> RegisteredModel | None:
        """The deleted model that had the name, as if it were new; None where there was none."""
        now = self.clock.now()
        with self.database.write() as session:
            row = session.scalars(
                select(RegisteredModelRow).where(
                    RegisteredModelRow.workspace_id == caller.workspace_id,
                    RegisteredModelRow.name == (name if name.isprintable() else ""),
                    RegisteredModelRow.deleted_at.is_not(None),
                )
            ).one_or_none()
            if row is None:
                return None
            residency = parse_residency(tags.get(RESIDENCY_TAG) or row.residency)
            if residency != row.residency:
                raise Conflict(
                    f"The deleted model {row.name!r} was of residency class {row.residency!r}, which never changes.",
                    hint="Register the model under another name.",
                )
            of_model = (ModelTagRow.workspace_id == row.workspace_id, ModelTagRow.model_id == row.id)
            gone = dict.fromkeys(session.scalars(select(ModelTagRow.key).where(*of_model)))
            change = ModelChange(
                description=description,
                owner=labels.owner,
                team=labels.team,
                cost_centre=labels.cost_centre,
                tags={**gone, **tags},
            )
            row.deleted_at = None
            facts = apply_change(session, row, change, now)
            audit.record_at(
                session, caller, now, action="model.restore", subject=row.name, residency=row.residency, facts=facts
            )
            session.flush()
            return render_model(session, row)


def parse_stage(text: str) -> str:
    """A stage in its one spelling.

    Raises:
        InvalidInput: if it is none of them.
    """
    stage = _STAGES.get(text.lower())
    if stage is None:
        raise InvalidInput(
            f"Invalid Model Version stage: {text[:40]}.", hint=f"Value must be one of {', '.join(_STAGES.values())}."
        )
    return stage
