from __future__ import annotations

from functools import partial

import pytest

from fairlead.core.errors import (
    AlreadyExists,
    IdempotencyKeyReused,
    InvalidInput,
    InvalidName,
    ModelNotFound,
    ResidencyViolation,
    UnknownRegion,
    UnknownResidency,
)
from fairlead.registry.idempotency import KEPT_FOR, IdempotencyKey, forget_old_keys
from fairlead.registry.models import Labels, ModelChange
from tests.record_world import LABELS, World, run_together


def key(name: str, request: str = "a") -> IdempotencyKey:
    return IdempotencyKey(key=name, request_sha256=request * 64)


def test_a_model_is_registered_with_who_answers_and_who_pays(world: World) -> None:
    made = world.models.create(
        world.owner,
        name="churn",
        labels=LABELS,
        residency="EU",
        regions=["gcp:europe-west4", "azure:westeurope"],
        description="Who leaves.",
        tags={"team/tier": "gold"},
    )
    assert world.models.get(world.owner, "churn") == made
    assert made.labels == LABELS
    assert made.residency == "eu"
    assert made.regions == ("azure:westeurope", "gcp:europe-west4")
    assert made.tags == {"team/tier": "gold"}
    assert (made.last_version, made.created_by) == (0, "ana")


def test_a_name_is_taken_once_also_when_written_in_another_unicode_form(world: World) -> None:
    world.model("café")
    with pytest.raises(AlreadyExists):
        world.model("cafe\u0301")
    assert world.models.get(world.owner, "cafe\u0301").name == "café"


@pytest.mark.parametrize("name", ["", "a/b", "a\0", "a\nb", "..", " a", "x" * 256, "a:b", "a@b", "\u202e"])
def test_a_name_that_could_mislead_is_refused(world: World, name: str) -> None:
    with pytest.raises(InvalidName):
        world.model(name)
    with pytest.raises((InvalidName, ModelNotFound)):
        world.models.get(world.owner, name)


@pytest.mark.parametrize("missing", ["owner", "team", "cost_centre"])
def test_a_model_without_a_label_is_refused(world: World, missing: str) -> None:
    labels = {"owner": "ana", "team": "churn", "cost_centre": "cc-7"} | {missing: " "}
    with pytest.raises(InvalidInput, match=missing):
        world.models.create(world.owner, name="churn", labels=Labels(**labels))


def test_regions_are_known_and_inside_the_residency_class(world: World) -> None:
    for residency, regions, error in (
        ("moon", None, UnknownResidency),
        ("unrestricted", ["aws:moon-1"], UnknownRegion),
        ("eu", ["aws:us-east-1"], ResidencyViolation),
        ("unrestricted", list[str](), InvalidInput),
    ):
        with pytest.raises(error):
            world.models.create(world.owner, name="churn", labels=LABELS, residency=residency, regions=regions)


def test_a_change_leaves_alone_what_it_does_not_name(world: World) -> None:
    world.models.create(world.owner, name="churn", labels=LABELS, description="old", tags={"a": "1", "b": "2"})
    world.clock.advance(KEPT_FOR)
    changed = world.models.update(world.owner, "churn", ModelChange(team="growth", tags={"a": None, "c": "3"}))
    assert changed.labels == Labels(owner="ana", team="growth", cost_centre="cc-7")
    assert changed.tags == {"b": "2", "c": "3"}
    assert changed.description == "old"
    assert changed.updated_at == world.clock.now()
    assert world.models.get(world.owner, "churn") == changed


def test_a_change_that_is_not_valid_changes_nothing(world: World) -> None:
    made = world.model("churn")
    for change in (
        ModelChange(owner=""),
        ModelChange(description="\0"),
        ModelChange(description="x" * 20_001),
        ModelChange(tags={"a\0": "x"}),
        ModelChange(tags={str(number): "x" for number in range(101)}),
        ModelChange(description="new", tags={"a": "x" * 100_001}),
    ):
        with pytest.raises(InvalidInput):
            world.models.update(world.owner, "churn", change)
    assert world.models.get(world.owner, "churn") == made


def test_a_call_that_is_repeated_with_its_key_gives_the_first_answer(world: World) -> None:
    made = world.models.create(world.owner, name="churn", labels=LABELS, tags={"a": "1"}, key=key("k"))
    assert world.models.create(world.owner, name="churn", labels=LABELS, tags={"a": "1"}, key=key("k")) == made


def test_a_key_belongs_to_one_request_and_one_principal(world: World) -> None:
    world.models.create(world.owner, name="churn", labels=LABELS, key=key("k"))
    with pytest.raises(IdempotencyKeyReused):
        world.models.create(world.owner, name="fraud", labels=LABELS, key=key("k", "b"))
    world.models.create(world.caller("ben", "write"), name="fraud", labels=LABELS, key=key("k", "b"))


def test_a_call_that_failed_may_be_repeated_with_its_key(world: World) -> None:
    world.model("churn")
    with pytest.raises(AlreadyExists):
        world.models.create(world.owner, name="churn", labels=LABELS, key=key("k"))
    assert world.models.create(world.owner, name="fraud", labels=LABELS, key=key("k", "b")).name == "fraud"


def test_a_key_is_forgotten_after_a_day(world: World) -> None:
    world.models.create(world.owner, name="churn", labels=LABELS, key=key("k"))
    world.clock.advance(KEPT_FOR)
    assert world.models.create(world.owner, name="fraud", labels=LABELS, key=key("k", "b")).name == "fraud"
    world.clock.advance(KEPT_FOR)
    assert forget_old_keys(world.database, world.clock) >= 1


def test_of_many_calls_with_one_key_at_once_one_registers_and_all_get_its_answer(world: World) -> None:
    create = partial(world.models.create, world.owner, name="churn", labels=LABELS, key=key("k"))
    answers = run_together(*[create] * 8)
    assert answers == [world.models.get(world.owner, "churn")] * 8


def test_of_many_who_take_one_name_at_once_one_gets_it(world: World) -> None:
    outcomes = run_together(*[partial(world.model, "churn")] * 8)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyExists"] * 7 + ["RegisteredModel"]
