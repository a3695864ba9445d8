from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from fairlead.core.clock import SystemClock
from fairlead.core.errors import (
    AlreadyExists,
    Archived,
    BytesReleased,
    Conflict,
    InvalidInput,
    ModelNotFound,
    ModelVersionNotFound,
    StaleRevision,
    VersionInUse,
)
from fairlead.core.ids import Digest
from fairlead.registry.audit import AuditLog
from fairlead.registry.cards import CARD_MAX_BYTES, Cards
from fairlead.registry.evaluations import Evaluations
from fairlead.registry.lifecycle import Lifecycle
from fairlead.registry.models import ModelChange
from fairlead.registry.paging import PageRequest
from fairlead.registry.plans import NoDeployments
from fairlead.registry.policy import Policy
from fairlead.registry.retention import RetentionPolicies, reclaim_artifact
from fairlead.registry.retention_policy import RetentionPolicy, VersionFacts, decide, from_json, to_json
from fairlead.registry.tables import ArtifactRow, ReplicaRow, UploadRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.version_states import mark_ready
from tests.record_world import LABELS, World

NOW = SystemClock().now()
US = "aws:us-east-1"


class Pinned(NoDeployments):
    """One deployment, of version 2."""

    def pinned(self, workspace_id: str, model: str, version: int | None) -> Sequence[str]:
        del workspace_id, model
        return ("live",) if version in {None, 2} else ()


def lifecycle(world: World) -> Lifecycle:
    return Lifecycle(world.database, world.clock)


def retention(world: World) -> RetentionPolicies:
    return RetentionPolicies(world.database, world.clock)


def put(world: World, name: str = "few", **parts: Any) -> None:
    retention(world).put(world.owner, name, RetentionPolicy(**parts), expected_revision=None)


def listed(world: World, shown: Any = "active") -> list[int]:
    return [each.version for each in world.versions.list(world.owner, "churn", PageRequest(), shown=shown).items]


@pytest.fixture
def churn(world: World) -> World:
    """The model `churn` with three versions."""
    world.model()
    for _ in range(3):
        world.version()
    return world


def test_an_archived_version_is_hidden_readable_and_not_promotable(churn: World) -> None:
    archived = lifecycle(churn).archive_version(churn.owner, "churn", 2, is_archived=True)
    assert archived.archived_at is not None
    assert (listed(churn), listed(churn, "archived")) == ([3, 1], [2])
    assert churn.versions.resolve(churn.owner, "churn/2").version.version == 2
    with pytest.raises(Archived, match="churn/2 is archived"):
        churn.promotions.request(churn.owner, "churn", 2, "dev", expected_revision=0)
    with pytest.raises(Archived):
        churn.aliases.set(churn.owner, "churn", "best", 2, expected_revision=0)
    assert lifecycle(churn).archive_version(churn.owner, "churn", 2, is_archived=True) == archived
    lifecycle(churn).archive_version(churn.owner, "churn", 2, is_archived=False)
    assert listed(churn) == [3, 2, 1]
    churn.promotions.request(churn.owner, "churn", 2, "dev", expected_revision=0)


def test_an_archived_model_is_hidden_and_takes_no_new_version(churn: World) -> None:
    lifecycle(churn).archive_model(churn.owner, "churn", is_archived=True)
    assert churn.models.list(churn.owner, PageRequest()).items == ()
    (shown,) = churn.models.list(churn.owner, PageRequest(), shown="archived").items
    assert shown.name == churn.models.get(churn.owner, "churn").name == "churn"
    for act in (
        churn.version,
        lambda: churn.promotions.request(churn.owner, "churn", 1, "dev", expected_revision=0),
    ):
        with pytest.raises(Archived, match="fairlead model unarchive churn"):
            act()
    lifecycle(churn).archive_model(churn.owner, "churn", is_archived=False)
    assert churn.version().version == 4


def test_a_promotion_that_waits_is_not_applied_to_what_was_archived_meanwhile(churn: World) -> None:
    churn.policy("production", Policy(approvals=1))
    asked = churn.promotions.request(churn.caller("bea", "promote"), "churn", 1, "production", expected_revision=0)
    lifecycle(churn).archive_version(churn.owner, "churn", 1, is_archived=True)
    with pytest.raises(Archived):
        churn.promotions.approve(churn.owner, asked.id or "")


def test_a_deleted_version_is_not_there_until_it_is_restored(churn: World) -> None:
    churn.aliases.set(churn.owner, "churn", "best", 2, expected_revision=0)
    lifecycle(churn).delete_version(churn.owner, "churn", 2)
    asks: list[Callable[[], object]] = [
        lambda: churn.versions.get(churn.owner, "churn", 2),
        lambda: churn.versions.resolve(churn.owner, "churn/2"),
        lambda: churn.versions.update(churn.owner, "churn", 2, description="x"),
        lambda: churn.promotions.request(churn.owner, "churn", 2, "dev", expected_revision=0),
        lambda: lifecycle(churn).delete_version(churn.owner, "churn", 2),
        lambda: Cards(churn.database, churn.clock).get(churn.owner, "churn", 2),
    ]
    for ask in asks:
        with pytest.raises(ModelVersionNotFound, match="fairlead model restore churn/2"):
            ask()
    assert (listed(churn), listed(churn, "deleted")) == ([3, 1], [2])
    assert churn.aliases.get(churn.owner, "churn", "best").version is None
    assert churn.version().version == 4
    restored = lifecycle(churn).restore_version(churn.owner, "churn", 2)
    assert lifecycle(churn).restore_version(churn.owner, "churn", 2) == restored
    assert (restored.state, restored.deleted_at, listed(churn)) == ("READY", None, [4, 3, 2, 1])
    with pytest.raises(ModelVersionNotFound, match="never had"):
        lifecycle(churn).restore_version(churn.owner, "churn", 9)


def test_a_deleted_model_keeps_its_name_and_comes_back_with_what_went_with_it(churn: World) -> None:
    lifecycle(churn).delete_version(churn.owner, "churn", 1)
    churn.clock.advance(timedelta(hours=1))
    lifecycle(churn).delete_model(churn.owner, "churn")
    for ask in (
        lambda: churn.models.get(churn.owner, "churn"),
        lambda: churn.models.update(churn.owner, "churn", ModelChange(description="x")),
        lambda: churn.versions.resolve(churn.owner, "churn/3"),
        churn.version,
    ):
        with pytest.raises(ModelNotFound, match="fairlead model restore churn"):
            ask()
    with pytest.raises(AlreadyExists, match="fairlead model restore churn"):
        churn.models.create(churn.owner, name="churn", labels=LABELS)
    (gone,) = churn.models.list(churn.owner, PageRequest(), shown="deleted").items
    assert gone.deleted_at is not None
    lifecycle(churn).restore_model(churn.owner, "churn")
    assert (listed(churn), listed(churn, "deleted")) == ([3, 2], [1])
    actions = [each.action for each in AuditLog(churn.database).list(churn.owner, PageRequest()).items]
    assert {"version.delete", "model.delete", "model.restore"} <= set(actions)
    with pytest.raises(ModelNotFound):
        lifecycle(churn).restore_model(churn.owner, "never")


def test_what_an_environment_or_a_deployment_holds_stays(churn: World) -> None:
    churn.promotions.request(churn.owner, "churn", 1, "dev", expected_revision=0)
    with_deployment = Lifecycle(churn.database, churn.clock, Pinned())
    acts: list[tuple[Callable[[], object], str]] = [
        (lambda: lifecycle(churn).delete_version(churn.owner, "churn", 1), "fairlead model promote"),
        (lambda: lifecycle(churn).delete_model(churn.owner, "churn"), "fairlead model promote"),
        (lambda: lifecycle(churn).archive_version(churn.owner, "churn", 1, is_archived=True), "promote"),
        (lambda: lifecycle(churn).archive_model(churn.owner, "churn", is_archived=True), "promote"),
        (lambda: with_deployment.delete_version(churn.owner, "churn", 2), "fairlead deploy destroy live"),
        (lambda: with_deployment.archive_version(churn.owner, "churn", 2, is_archived=True), "deploy destroy live"),
    ]
    for act, hint in acts:
        with pytest.raises(VersionInUse, match=hint):
            act()
    with_deployment.delete_version(churn.owner, "churn", 3)
    assert listed(churn) == [2, 1]


def test_a_retention_policy_deletes_what_is_surplus_and_releases_it_later(churn: World) -> None:
    for number in (1, 2, 3):
        churn.replica(churn.versions.get(churn.owner, "churn", number), US)
    churn.promotions.request(churn.owner, "churn", 1, "dev", expected_revision=0)
    put(churn, models=("churn*",), keep_last=1, release_deleted_after_days=7)
    (step,) = retention(churn).plan(churn.owner)
    assert (step.reference, step.action, step.policy) == ("churn/2", "delete", "few")
    assert retention(churn).run(churn.owner) == (step,)
    assert retention(churn).run(churn.owner) == ()
    assert listed(churn, "deleted") == [2]
    lifecycle(churn).restore_version(churn.owner, "churn", 2)
    retention(churn).run(churn.owner)
    churn.clock.advance(timedelta(days=8))
    (release,) = retention(churn).run(churn.owner)
    assert (release.reference, release.action, release.bytes) == ("churn/2", "release", 1_000_000_000)
    with pytest.raises(BytesReleased):
        lifecycle(churn).restore_version(churn.owner, "churn", 2)
    with churn.database.read() as session:
        wanted = select(ReplicaRow.is_wanted).where(ReplicaRow.workspace_id == churn.owner.workspace_id)
        assert sorted(session.scalars(wanted)) == [False, True, True]


def test_the_same_files_keep_their_bytes_while_any_version_has_them_and_come_back_when_uploaded_again(
    churn: World,
) -> None:
    first = churn.versions.get(churn.owner, "churn", 1)
    churn.replica(first, US)
    twin = churn.versions.register(churn.owner, "churn", VersionDraft(upload_id=first.upload_id))
    put(churn, release_deleted_after_days=0)

    def released() -> bool:
        with churn.database.read() as session:
            key = (churn.owner.workspace_id, "unrestricted", first.artifact_digest)
            return session.get_one(ArtifactRow, key).released_at is not None

    lifecycle(churn).delete_version(churn.owner, "churn", 1)
    assert [step.bytes for step in retention(churn).run(churn.owner)] == [0]
    assert not released()
    lifecycle(churn).delete_version(churn.owner, "churn", twin.version)
    retention(churn).run(churn.owner)
    assert released()
    with pytest.raises(Conflict, match="let go"):
        churn.versions.register(churn.owner, "churn", VersionDraft(upload_id=first.upload_id))
    with churn.database.write() as session:
        key = (churn.owner.workspace_id, "unrestricted", first.artifact_digest)
        reclaim_artifact(session, session.get_one(ArtifactRow, key), churn.clock.now())
    assert not released()
    assert churn.versions.register(churn.owner, "churn", VersionDraft(upload_id=first.upload_id)).state == "READY"


def test_bytes_stay_where_a_version_of_the_same_files_becomes_ready_while_they_are_let_go(churn: World) -> None:
    first = churn.versions.get(churn.owner, "churn", 1)
    key = (churn.owner.workspace_id, "unrestricted", first.artifact_digest)
    put(churn, release_deleted_after_days=0)
    lifecycle(churn).delete_version(churn.owner, "churn", 1)
    upload = churn.upload()
    again = churn.versions.register(churn.owner, "churn", VersionDraft(upload_id=upload))
    releasing = threading.Thread(target=lambda: retention(churn).run(churn.owner))
    with churn.database.write() as session:
        # What the worker does that has read the files back.
        session.get_one(ArtifactRow, key, with_for_update=True)
        row = session.get_one(UploadRow, (churn.owner.workspace_id, upload))
        row.state, row.artifact_digest = "READY", first.artifact_digest
        session.flush()
        mark_ready(session, churn.owner.workspace_id, upload, Digest(str(first.artifact_digest)), NOW)
        releasing.start()
        releasing.join(0.5)
        assert releasing.is_alive()
    releasing.join(30)
    assert churn.versions.get(churn.owner, "churn", again.version).state == "READY"
    with churn.database.read() as session:
        assert session.get_one(ArtifactRow, key).released_at is None


def test_no_version_is_registered_on_bytes_that_are_being_let_go(churn: World) -> None:
    first = churn.versions.get(churn.owner, "churn", 1)
    churn.model("copycat")
    put(churn, release_deleted_after_days=0)
    lifecycle(churn).delete_version(churn.owner, "churn", 1)
    outcomes: list[object] = []

    def register() -> None:
        try:
            outcomes.append(churn.versions.register(churn.owner, "copycat", VersionDraft(upload_id=first.upload_id)))
        except Conflict as error:
            outcomes.append(error)

    registering = threading.Thread(target=register)
    with churn.database.write() as session:
        assert retention(churn).apply(session, churn.owner, churn.clock.now())
        registering.start()
        registering.join(0.5)
        assert registering.is_alive()
    registering.join(30)
    assert [type(outcome) for outcome in outcomes] == [Conflict]


def test_a_policy_that_is_not_applied_yet_is_planned_with(churn: World) -> None:
    assert retention(churn).plan(churn.owner) == ()
    steps = retention(churn).plan(churn.owner, {"draft": RetentionPolicy(keep_last=1)})
    assert [step.reference for step in steps] == ["churn/1", "churn/2"]
    assert retention(churn).run(churn.owner) == ()
    for wrong in (RetentionPolicy(), RetentionPolicy(keep_last=0), RetentionPolicy(models=("",), keep_last=1)):
        with pytest.raises(InvalidInput):
            retention(churn).put(churn.owner, "wrong", wrong, expected_revision=None)


_FACTS = st.builds(
    VersionFacts,
    version=st.integers(1, 9),
    state=st.sampled_from(["READY", "PENDING", "FAILED"]),
    archived_at=st.none() | st.just(NOW - timedelta(days=5)),
    deleted_at=st.none() | st.just(NOW - timedelta(days=5)),
    released_at=st.none(),
    held_until=st.none() | st.just(NOW - timedelta(days=5)),
    is_held=st.booleans(),
)
_DAYS = st.none() | st.integers(0, 10)
_POLICIES = st.builds(
    RetentionPolicy,
    keep_last=st.none() | st.integers(1, 5),
    keep_held_days=_DAYS,
    delete_archived_after_days=_DAYS,
    release_deleted_after_days=_DAYS,
)


@given(st.lists(_FACTS, unique_by=lambda each: each.version), st.lists(_POLICIES, max_size=3))
def test_nothing_goes_that_is_held_or_newest_or_kept(
    facts: list[VersionFacts], policies: list[RetentionPolicy]
) -> None:
    facts.sort(key=lambda each: each.version)
    named = {str(index): policy for index, policy in enumerate(policies)}
    by_number = {each.version: each for each in facts}
    living = [each.version for each in facts if each.deleted_at is None]
    for going in decide(named, facts, model_archived_at=None, now=NOW):
        fact, policy = by_number[going.version], named[going.policy]
        if going.action == "release":
            assert fact.deleted_at is not None
            assert policy.release_deleted_after_days is not None
            continue
        assert fact.deleted_at is None
        assert not fact.is_held
        assert going.version != max(living)
        if fact.archived_at is None:
            newer = [each for each in facts if each.deleted_at is None and each.version > going.version]
            assert len([each for each in newer if each.state == "READY"]) >= (policy.keep_last or 1)
            kept = [each.keep_held_days for each in policies if each.keep_held_days is not None]
            assert fact.held_until is None or all(days < 5 for days in kept)
    for policy in policies:
        assert from_json(to_json(policy)) == policy


def test_a_card_is_kept_as_the_text_that_was_written(churn: World) -> None:
    cards = Cards(churn.database, churn.clock)
    text = "# Churn\n\n<script>alert(1)</script> [x](javascript:alert(1))\n"
    assert (cards.get(churn.owner, "churn").text, cards.get(churn.owner, "churn").revision) == ("", 0)
    written = cards.put(churn.owner, "churn", text, expected_revision=0)
    assert (written.text, written.revision) == (text, 1)
    assert cards.put(churn.owner, "churn", text).revision == 1
    assert cards.put(churn.owner, "churn", "of one", version=2).reference == "churn/2"
    assert (cards.get(churn.owner, "churn").text, cards.get(churn.owner, "churn", 1).text) == (text, "")
    with pytest.raises(StaleRevision):
        cards.put(churn.owner, "churn", "other", expected_revision=0)
    for wrong in ("x" * (CARD_MAX_BYTES + 1), "é" * (CARD_MAX_BYTES // 2 + 1), "\0"):
        with pytest.raises(InvalidInput):
            cards.put(churn.owner, "churn", wrong)
    with churn.http() as http:
        answer = http.get("/api/v1/models/churn/card")
        assert (answer.headers["content-type"], answer.json()["text"]) == ("application/json", text)


def test_a_card_is_drafted_from_what_the_record_knows(churn: World) -> None:
    version = churn.version(metrics={"auc": 0.97})
    Evaluations(churn.database, churn.clock).record(
        churn.owner, "churn", version.version, name="fair", metrics={"gap": 0.01}
    )
    cards = Cards(churn.database, churn.clock)
    text = cards.draft(churn.owner, "churn", version.version)
    assert f"| Digest | {version.artifact_digest} |" in text
    assert "|  | auc | 0.97 |" in text
    assert "| fair | gap | 0.01 |" in text
    assert "## Intended use" in cards.draft(churn.owner, "churn")


def test_the_lifecycle_over_http(churn: World) -> None:
    with churn.http() as http:
        base = "/api/v1/models/churn"
        assert http.post(f"{base}/versions/1/archive").json()["archived_at"] is not None
        assert [each["version"] for each in http.get(f"{base}/versions?state=archived").json()["items"]] == [1]
        assert http.delete(f"{base}/versions/1").status_code == 204
        gone = http.get(f"{base}/versions/1")
        assert (gone.status_code, "restore churn/1" in gone.json()["hint"]) == (404, True)
        assert http.post(f"{base}/versions/1/restore").json()["deleted_at"] is None
        assert http.put("/api/v1/retention-policies/few", json={"keep_last": 1}).json()["revision"] == 1
        assert len(http.post("/api/v1/retention/plan", json={}).json()["steps"]) == 2
        assert http.delete("/api/v1/retention-policies/few").status_code == 204
        assert http.delete(base).status_code == 204
        assert http.get(base).status_code == 404
        assert http.get("/api/v1/models?state=deleted").json()["items"][0]["name"] == "churn"
        assert http.post(f"{base}/restore").status_code == 200
