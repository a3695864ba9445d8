from __future__ import annotations

from functools import partial

import pytest

from fairlead.core.errors import (
    AliasNotFound,
    Conflict,
    FairleadError,
    InvalidDigest,
    InvalidInput,
    InvalidReference,
    ModelNotFound,
    ModelVersionNotFound,
    ResidencyViolation,
    UploadNotFound,
)
from fairlead.registry.audit import AuditLog
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.paging import PageRequest
from fairlead.registry.tables import UploadRow
from fairlead.registry.version_records import ModelVersion, VersionError
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.version_states import mark_failed
from tests.record_world import World, run_together, unknown_id


def test_a_version_is_pending_until_its_bytes_were_read_back(world: World) -> None:
    world.model()
    upload = world.upload()
    pending = world.versions.register(world.owner, "churn", VersionDraft(upload_id=upload))
    assert (pending.reference, pending.state, pending.artifact_digest) == ("churn/1", "PENDING", None)
    digest = world.verify(upload)
    ready = world.versions.get(world.owner, "churn", 1)
    assert (ready.state, ready.artifact_digest) == ("READY", digest)
    assert (ready.ready_at, ready.sent_bytes, ready.size_bytes) == (world.clock.now(), 900, 2_000_000_000)
    events = AuditLog(world.database).list(world.owner, PageRequest(), subject="churn/1").items
    assert [event.action for event in events] == ["version.register", "version.ready"]


def test_a_version_on_a_verified_upload_is_ready_at_once(world: World) -> None:
    world.model()
    assert world.version().state == "READY"


def test_a_version_keeps_what_its_author_said(world: World) -> None:
    world.model()
    world.version()
    digest = "sha256:" + 64 * "a"
    draft = VersionDraft(
        upload_id=world.upload(),
        flavor="sklearn",
        signature={"inputs": [{"name": "age", "type": "double"}]},
        metrics={"auc": 0.91, "val/loss": -1.5e-300},
        params={"depth": 3, "nested": {"on": True, "none": None}},
        feature_service="churn_v1",
        feature_service_digest=digest,
        snapshot_digest=digest,
        parent_version=1,
        run_id="run 7",
        description="The second.",
        tags={"a": "1"},
    )
    made = world.versions.register(world.owner, "churn", draft)
    assert world.versions.get(world.owner, "churn", 2) == made
    for field in ("flavor", "signature", "metrics", "params", "feature_service", "snapshot_digest", "parent_version"):
        assert getattr(made, field) == getattr(draft, field)
    assert (made.run_id, made.description, made.tags) == ("run 7", "The second.", {"a": "1"})


def test_a_failed_upload_fails_its_versions_and_takes_no_more(world: World) -> None:
    world.model()
    upload = world.upload()
    world.versions.register(world.owner, "churn", VersionDraft(upload_id=upload))
    with world.database.write() as session:
        row = session.get_one(UploadRow, (world.owner.workspace_id, upload))
        row.state, row.error_code, row.error_detail = "FAILED", "corrupt-pack", "A pack is damaged"
        mark_failed(
            session,
            world.owner.workspace_id,
            upload,
            code="corrupt-pack",
            detail="A pack is damaged",
            now=world.clock.now(),
        )
    failed = world.versions.get(world.owner, "churn", 1)
    assert (failed.state, failed.error) == ("FAILED", VersionError(code="corrupt-pack", detail="A pack is damaged"))
    with pytest.raises(Conflict, match="A pack is damaged"):
        world.versions.register(world.owner, "churn", VersionDraft(upload_id=upload))
    assert world.version().version == 2


def test_an_upload_that_does_not_fit_is_refused(world: World) -> None:
    world.model()
    world.model("patients", residency="eu")
    for model, upload, error in (
        ("churn", unknown_id(), UploadNotFound),
        ("churn", "nonsense", UploadNotFound),
        ("churn", world.upload(kind="bundle"), InvalidInput),
        ("patients", world.upload(), ResidencyViolation),
        ("nobody", world.upload(), ModelNotFound),
    ):
        with pytest.raises(error):
            world.versions.register(world.owner, model, VersionDraft(upload_id=upload))
    assert world.models.get(world.owner, "churn").last_version == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": {"auc": float("nan")}},
        {"metrics": {"auc": float("inf")}},
        {"metrics": {str(number): 1.0 for number in range(1001)}},
        {"metrics": {"a\0": 1.0}},
        {"params": {"a": "\0"}},
        {"params": {"a": 2**63}},
        {"params": {"a": "\ud800"}},
        {"params": {"a": "x" * 300_000}},
        {"signature": {"a": float("nan")}},
        {"snapshot_digest": "sha256:short"},
        {"feature_service": "a/b"},
        {"flavor": "x" * 64},
        {"description": "x" * 20_001},
        {"tags": {"": "x"}},
    ],
)
def test_what_no_database_or_reader_could_keep_is_refused(world: World, wrong: dict[str, object]) -> None:
    world.model()
    draft = VersionDraft(upload_id=world.upload(), **wrong)  # pyright: ignore[reportArgumentType]  (wrong on purpose)
    with pytest.raises((InvalidInput, InvalidDigest)):
        world.versions.register(world.owner, "churn", draft)


def test_json_that_is_nested_too_deep_is_refused(world: World) -> None:
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(InvalidInput, match="deep"):
        world.versions.register(world.owner, "churn", VersionDraft(upload_id=world.upload(), params=deep))


def test_a_parent_that_does_not_exist_is_refused_and_burns_no_number(world: World) -> None:
    world.model()
    with pytest.raises(ModelVersionNotFound):
        world.versions.register(world.owner, "churn", VersionDraft(upload_id=world.upload(), parent_version=9))
    assert world.version().version == 1


def test_only_description_and_tags_of_a_version_change(world: World) -> None:
    world.model()
    made = world.version()
    changed = world.versions.update(world.owner, "churn", 1, description="new", tags={"a": "1"})
    again = world.versions.update(world.owner, "churn", 1, tags={"a": None, "b": "2"})
    assert (changed.description, changed.tags) == ("new", {"a": "1"})
    assert (again.description, again.tags) == ("new", {"b": "2"})
    assert again.artifact_digest == made.artifact_digest


@pytest.mark.parametrize("version", [0, -1, 2, 2**31, 2**63, 10**40])
def test_a_version_that_does_not_exist_is_not_found(world: World, version: int) -> None:
    world.model()
    world.version()
    with pytest.raises(ModelVersionNotFound):
        world.versions.get(world.owner, "churn", version)


def test_versions_are_listed_newest_first(world: World) -> None:
    world.model()
    for _ in range(3):
        world.version()
    page = world.versions.list(world.owner, "churn", PageRequest(size=2))
    rest = world.versions.list(world.owner, "churn", PageRequest(size=2, token=page.next_page_token))
    assert [each.version for each in (*page.items, *rest.items)] == [3, 2, 1]


def test_a_reference_resolves_to_a_number_or_to_where_its_alias_stands(world: World) -> None:
    world.model()
    world.version()
    world.version()
    world.aliases.set(world.owner, "churn", "champion", 2, expected_revision=0)
    for reference, version, revision in (("churn/1", 1, None), ("models:/churn@champion", 2, 1)):
        found = world.versions.resolve(world.owner, reference)
        assert (found.version.version, found.revision) == (version, revision)
    assert world.versions.get(world.owner, "churn", 2).aliases == ("champion",)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("churn", InvalidReference),
        ("churn/0", InvalidReference),
        ("churn/99999999999999999999", InvalidReference),
        ("churn/2", ModelVersionNotFound),
        ("fraud/1", ModelNotFound),
        ("churn@nobody", AliasNotFound),
        ("churn@production", AliasNotFound),
        ("", InvalidReference),
    ],
)
def test_a_reference_that_names_nothing_is_refused(world: World, reference: str, error: type[FairleadError]) -> None:
    world.model()
    world.version()
    with pytest.raises(error):
        world.versions.resolve(world.owner, reference)


def test_a_repeated_registration_makes_one_version(world: World) -> None:
    world.model()
    draft = VersionDraft(upload_id=world.upload(), metrics={"auc": 0.5}, signature={"a": [1, 2.5, None]})
    key = IdempotencyKey(key="k", request_sha256="0" * 64)
    first = world.versions.register(world.owner, "churn", draft, key=key)
    assert world.versions.register(world.owner, "churn", draft, key=key) == first
    assert world.models.get(world.owner, "churn").last_version == 1


def test_concurrent_registrations_get_different_numbers(world: World) -> None:
    world.model()
    drafts = [VersionDraft(upload_id=world.upload()) for _ in range(12)]
    made = run_together(*(partial(world.versions.register, world.owner, "churn", draft) for draft in drafts))
    numbers = [each.version for each in made if isinstance(each, ModelVersion)]
    assert sorted(numbers) == list(range(1, 13))


def test_registering_while_the_upload_is_being_verified_always_ends_ready(world: World) -> None:
    world.model()
    for number in range(1, 9):
        upload = world.upload()
        draft = VersionDraft(upload_id=upload)
        run_together(partial(world.verify, upload), partial(world.versions.register, world.owner, "churn", draft))
        assert world.versions.get(world.owner, "churn", number).state == "READY"
