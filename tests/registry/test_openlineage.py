"""OpenLineage: what is sent is valid by the standard's schema, and says what was made of what."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest

from fairlead.core.ids import sha256_digest
from fairlead.registry.audit import AuditEvent
from fairlead.registry.openlineage import OPENLINEAGE_FORMAT
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.webhook_messages import Telling
from tests.record_world import World

# The rules of version 2-0-2 of the standard, and of the facets that are sent.
_BASE_FACET: dict[str, Any] = {
    "type": "object",
    "required": ["_producer", "_schemaURL"],
    "properties": {
        "_producer": {"type": "string", "pattern": "^[a-z][a-z0-9+.-]*:"},
        "_schemaURL": {"type": "string", "pattern": "^https://openlineage.io/spec/.+[.]json#/"},
    },
}
_UUID = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
_NAMED = {"namespace": {"type": "string", "minLength": 1}, "name": {"type": "string", "minLength": 1}}


def _facets(**known: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"allOf": [_BASE_FACET, rules]} for name, rules in known.items()},
        "additionalProperties": _BASE_FACET,
    }


_DATASET: dict[str, Any] = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        **_NAMED,
        "facets": _facets(
            version={"required": ["datasetVersion"], "properties": {"datasetVersion": {"type": "string"}}}
        ),
    },
}
RUN_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time", "pattern": "^[0-9-]{10}T[0-9:.]+Z$"},
        "producer": {"type": "string", "pattern": "^https://"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {
                "runId": _UUID,
                "facets": _facets(
                    parent={
                        "required": ["run", "job"],
                        "properties": {
                            "run": {"type": "object", "required": ["runId"], "properties": {"runId": _UUID}},
                            "job": {"type": "object", "required": ["namespace", "name"], "properties": _NAMED},
                        },
                    }
                ),
            },
        },
        "job": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {
                **_NAMED,
                "facets": _facets(
                    jobType={
                        "required": ["processingType", "integration"],
                        "properties": {"processingType": {"enum": ["BATCH", "STREAMING", "SERVICE"]}},
                    }
                ),
            },
        },
        "inputs": {"type": "array", "items": _DATASET},
        "outputs": {"type": "array", "items": _DATASET},
    },
}
SNAPSHOT = sha256_digest(b"snapshot")


def told(world: World, action: str, subject: str, *, has_facts: bool = True, **facts: Any) -> list[Any]:
    event = AuditEvent(
        id=str(uuid.uuid4()),
        residency="unrestricted",
        actor="ana",
        action=action,
        subject=subject,
        facts=facts,
        happened_at=datetime.now(UTC),
        sequence=7,
        previous_hash=None,
        event_hash=None,
    )
    telling = Telling(workspace_id=world.owner.workspace_id, event=event, events=("*",), has_facts=has_facts)
    with world.database.read() as session:
        found = list(OPENLINEAGE_FORMAT.render(session, telling))
    for each in found:
        jsonschema.validate(each, RUN_EVENT)
        assert each["run"]["runId"] == event.id
    return found


def versions_of(datasets: Any) -> dict[str, str]:
    return {each["name"]: each["facets"]["version"]["datasetVersion"] for each in datasets}


def test_a_version_is_made_of_its_snapshot_and_parent_by_its_run(world: World) -> None:
    world.model()
    world.version()
    upload = world.upload()
    draft = VersionDraft(
        upload_id=upload,
        run_id="0123456789abcdef0123456789abcdef",
        code_commit="1a2b3c",
        parent_version=1,
        snapshot_digest=SNAPSHOT,
        feature_service="diagnosis",
    )
    world.versions.register(world.owner, "churn", draft)
    world.verify(upload)
    (event,) = told(world, "version.ready", "churn/2", digest="sha256:x")
    assert versions_of(event["inputs"]) == {"features/diagnosis": SNAPSHOT, "models/churn": "1"}
    assert versions_of(event["outputs"]) == {"models/churn": "2"}
    assert event["job"]["namespace"] == f"fairlead://{world.owner.workspace_id}"
    assert event["run"]["facets"]["parent"]["run"]["runId"] == "01234567-89ab-cdef-0123-456789abcdef"
    assert event["run"]["facets"]["fairlead"]["code_commit"] == "1a2b3c"
    (withheld,) = told(world, "version.ready", "churn/2", has_facts=False)
    assert "code_commit" not in withheld["run"]["facets"]["fairlead"]


def test_snapshots_and_deployments_are_runs_of_their_own_jobs(world: World) -> None:
    (taken,) = told(world, "snapshot.ready", "some-id", service="diagnosis", digest=SNAPSHOT, as_of="2026-01-01")
    assert versions_of(taken["outputs"]) == {"features/diagnosis": SNAPSHOT}
    (run,) = told(world, "deployment.run", "churn-eu", model="churn", to_version=3, region="aws:eu-west-1", revision=2)
    assert versions_of(run["inputs"]) == {"models/churn": "3"}
    assert run["job"]["name"] == "deployments.churn-eu"


@pytest.mark.parametrize("action", ["webhook.test", "model.promote", "alias.set"])
def test_what_makes_nothing_is_not_told(world: World, action: str) -> None:
    assert told(world, action, "churn/1") == []
