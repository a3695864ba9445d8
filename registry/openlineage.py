"""Events as OpenLineage's run events: what was made of what, for a lineage backend that speaks that standard.

A version that is READY is a run of the job that trains its model: snapshot, feature service and parent go in, the
version comes out. A snapshot that is READY is a run of the job that takes it. A deployment in a region is a run of the
deployment's job, which the version goes into. Datasets are `models/NAME` and `features/SERVICE` in the namespace
`fairlead://WORKSPACE`; which version of one it was says the facet `version`. A run's id is the event's, so an event
that is delivered twice is one run.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.clock import format_time
from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow
from fairlead.registry.webhook_messages import VERSION, Format, Telling, sign_standard

PRODUCER = f"https://pypi.org/project/fairlead/{VERSION}"
SCHEMA_URL = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets"
_FACET_SCHEMAS = {
    "version": f"{_FACETS}/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
    "jobType": f"{_FACETS}/2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
    "parent": f"{_FACETS}/1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet",
    # What the standard has no facet for, described by the base that all facets share.
    "fairlead": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet",
}


def render_openlineage(session: Session, telling: Telling) -> Sequence[Mapping[str, Any]]:
    """The run event that an audit event is, if it is one. A `Render`."""
    event = telling.event
    if event.action == "version.ready":
        return _of_version(session, telling)
    if event.action == "snapshot.ready" and telling.has_facts:
        service, digest = str(event.facts.get("service")), str(event.facts.get("digest"))
        output = _dataset(telling, f"features/{service}", digest)
        about = {"as_of": event.facts.get("as_of"), "snapshot": event.subject}
        return [_run_event(telling, job=f"features.{service}", kind="SNAPSHOT", outputs=[output], about=about)]
    if event.action == "deployment.run" and telling.has_facts:
        return _of_deployment(telling)
    return []


def _of_version(session: Session, telling: Telling) -> list[dict[str, Any]]:
    name, _, number = telling.event.subject.rpartition("/")
    found = session.execute(
        select(ModelVersionRow)
        .join(
            RegisteredModelRow,
            (RegisteredModelRow.workspace_id == ModelVersionRow.workspace_id)
            & (RegisteredModelRow.id == ModelVersionRow.model_id),
        )
        .where(
            ModelVersionRow.workspace_id == telling.workspace_id,
            RegisteredModelRow.name == name,
            ModelVersionRow.version == int(number),
        )
    ).scalar_one_or_none()
    if found is None:
        return []
    inputs: list[dict[str, Any]] = []
    if found.snapshot_digest is not None:
        inputs.append(_dataset(telling, f"features/{found.feature_service or 'unnamed'}", found.snapshot_digest))
    elif found.feature_service is not None:
        inputs.append(_dataset(telling, f"features/{found.feature_service}", found.feature_service_digest))
    if found.parent_version is not None:
        inputs.append(_dataset(telling, f"models/{name}", str(found.parent_version)))
    about: dict[str, Any] = {"version": f"{name}/{number}"}
    if telling.has_facts:
        about |= {"digest": found.artifact_digest, "code_commit": found.code_commit, "training_run": found.run_id}
    event = _run_event(
        telling,
        job=f"models.{name}",
        kind="TRAINING",
        inputs=inputs,
        outputs=[_dataset(telling, f"models/{name}", number)],
        about={key: value for key, value in about.items() if value is not None},
    )
    # A run elsewhere is named where its id has the standard's form, which MLflow's has.
    training_run = _as_uuid(found.run_id)
    if training_run is not None:
        parent = {"run": {"runId": training_run}, "job": {"namespace": _namespace(telling), "name": f"training.{name}"}}
        event["run"]["facets"]["parent"] = _facet("parent", parent)
    return [event]


def _of_deployment(telling: Telling) -> list[dict[str, Any]]:
    event = telling.event
    name = event.facts.get("model")
    version = event.facts.get("to_version")
    inputs = [] if name is None or version is None else [_dataset(telling, f"models/{name}", str(version))]
    about = {key: event.facts.get(key) for key in ("region", "bundle", "revision") if event.facts.get(key) is not None}
    output = _dataset(telling, f"deployments/{event.subject}", str(event.facts.get("revision")))
    return [
        _run_event(
            telling, job=f"deployments.{event.subject}", kind="DEPLOYMENT", inputs=inputs, outputs=[output], about=about
        )
    ]


def _run_event(
    telling: Telling,
    *,
    job: str,
    kind: str,
    inputs: Sequence[Mapping[str, Any]] = (),
    outputs: Sequence[Mapping[str, Any]] = (),
    about: Mapping[str, Any],
) -> dict[str, Any]:
    job_type = {"processingType": "BATCH", "integration": "FAIRLEAD", "jobType": kind}
    facts = {"sequence": telling.event.sequence, "actor": telling.event.actor, **about}
    return {
        "eventType": "COMPLETE",
        "eventTime": format_time(telling.event.happened_at),
        "producer": PRODUCER,
        "schemaURL": SCHEMA_URL,
        "run": {"runId": telling.event.id, "facets": {"fairlead": _facet("fairlead", facts)}},
        "job": {
            "namespace": _namespace(telling),
            "name": job,
            "facets": {"jobType": _facet("jobType", job_type)},
        },
        "inputs": list(inputs),
        "outputs": list(outputs),
    }


def _dataset(telling: Telling, name: str, version: str | None) -> dict[str, Any]:
    facets = {} if version is None else {"version": _facet("version", {"datasetVersion": version})}
    return {"namespace": _namespace(telling), "name": name, "facets": facets}


def _facet(name: str, members: Mapping[str, Any]) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": _FACET_SCHEMAS[name], **members}


def _namespace(telling: Telling) -> str:
    return f"fairlead://{telling.workspace_id}"


def _as_uuid(run_id: str | None) -> str | None:
    try:
        return None if run_id is None else str(uuid.UUID(run_id))
    except ValueError:
        return None


OPENLINEAGE_FORMAT = Format(
    actions=("version.ready", "snapshot.ready", "deployment.run"), render=render_openlineage, sign=sign_standard
)
