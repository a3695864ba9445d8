"""Versions of another registry: their numbers, what is brought up to date, and what stays as somebody left it here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from fairlead.core.errors import InvalidInput
from fairlead.registry.imports import IMPORTED_TAG, ImportedVersion, Imports
from fairlead.registry.paging import PageRequest
from fairlead.registry.version_registration import Origin, VersionDraft
from fairlead.registry.version_states import mark_failed
from tests.record_world import World

THEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def bring(
    world: World, number: int, *, upload: str | None = None, stage: str | None = None, tags: Mapping[str, str] = {}
) -> ImportedVersion:
    origin = Origin(key=f"churn/{number}", number=number, created_at=THEN, stage=stage)
    draft = VersionDraft(upload_id=upload, source="s3://old/model", run_id="abc", tags=tags)
    return Imports(world.database, world.clock).bring(world.owner, "churn", draft, origin)


def test_a_version_keeps_its_number_time_stage_and_source_where_the_number_is_free(world: World) -> None:
    world.model()
    third = bring(world, 3, upload=world.upload(), stage="Production", tags={"a": "1"})
    assert third.outcome == "created"
    seen = third.version
    assert (seen.version, seen.created_at, seen.stage, seen.source) == (3, THEN, "Production", "s3://old/model")
    assert seen.tags == {"a": "1", IMPORTED_TAG: "churn/3"}
    assert bring(world, 1, upload=world.upload()).version.version == 1
    assert world.version().version == 4
    assert bring(world, 4, upload=world.upload()).version.version == 5
    known = Imports(world.database, world.clock).list(world.owner, "churn", PageRequest())
    assert [(each.origin, each.version) for each in known.items] == [("churn/1", 1), ("churn/3", 3), ("churn/4", 5)]


def test_what_came_before_is_brought_up_to_date_and_not_made_twice(world: World) -> None:
    world.model()
    bring(world, 1, upload=world.upload())
    world.versions.update(world.owner, "churn", 1, tags={"ours": "1"})
    assert bring(world, 1).outcome == "unchanged"
    changed = bring(world, 1, stage="Archived", tags={"theirs": "2"})
    assert (changed.outcome, changed.version.version, changed.version.stage) == ("changed", 1, "Archived")
    assert changed.version.tags == {"ours": "1", "theirs": "2", IMPORTED_TAG: "churn/1"}


def test_a_new_version_needs_its_files_and_one_that_failed_may_come_again(world: World) -> None:
    world.model()
    with pytest.raises(InvalidInput, match="files are not here"):
        bring(world, 1)
    upload = world.upload()
    bring(world, 1, upload=upload)
    with world.database.write() as session:
        mark_failed(session, world.owner.workspace_id, upload, code="corrupt-pack", detail="", now=world.clock.now())
    again = bring(world, 1, upload=world.upload())
    assert (again.outcome, again.version.version) == ("created", 2)


def test_only_an_admin_imports(world: World) -> None:
    world.model()
    body: dict[str, Any] = {
        "origin": {"key": "churn/2", "version": 2, "created_at": "2024-05-06T07:08:09Z"},
        "has_files": False,
    }
    with world.http(world.secret("bea", "write")) as http:
        assert http.post("/api/v1/models/churn/imports", json=body).status_code == 403
    with world.http() as http:
        answer = http.post("/api/v1/models/churn/imports", json=body)
        assert (answer.status_code, answer.json()["version"]["state"]) == (200, "READY")
        assert http.get("/api/v1/models/churn/imports").json()["items"][0]["version"] == 2
