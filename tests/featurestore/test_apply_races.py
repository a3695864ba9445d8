"""A promotion and a breaking change at the same moment: whoever comes second sees what the first has done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from fairlead.core.errors import FeaturesInUse
from fairlead.featurestore import applied
from fairlead.featurestore.applied import FeatureDefinitions, PlannedChange
from fairlead.registry import promotion
from fairlead.registry.policy import Policy
from fairlead.registry.promotion import Promotion
from fairlead.registry.tables import AliasRow
from fairlead.registry.version_registration import VersionDraft
from tests.featurestore.test_comparing import WIDE, objects
from tests.record_world import World, make_world, run_together
from tests.records import open_record

NARROW = objects([("radius", "FLOAT")])
ROUNDS = 5
A_WHILE = 0.3
"""Seconds in which the other one would be done if nothing held it up."""


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A version of `churn` takes both columns of `cells`, and holds no environment yet."""
    with open_record(database_url) as database:
        made = make_world(database)
        definitions = FeatureDefinitions(made.database, made.clock)
        definitions.apply(made.owner, objects(WIDE))
        pinned = definitions.get_service(made.owner, "diagnosis")
        made.model()
        upload = made.upload()
        made.verify(upload)
        draft = VersionDraft(upload_id=upload, feature_service="diagnosis", feature_service_digest=pinned.digest)
        made.versions.register(made.owner, "churn", draft)
        made.policy("production", Policy())
        yield made


def promote(world: World, revision: int = 0) -> Promotion:
    return world.promotions.request(world.owner, "churn", 1, "production", expected_revision=revision)


def narrow(world: World) -> list[PlannedChange]:
    return FeatureDefinitions(world.database, world.clock).apply(world.owner, NARROW)


def test_a_change_waits_for_a_promotion_that_has_begun_and_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving, done = threading.Event(), threading.Event()
    real: Any = promotion.move_pointer

    def slow(*arguments: Any, **options: Any) -> Any:
        moving.set()
        assert not done.wait(A_WHILE), "it was applied beside a promotion that was not over"
        return real(*arguments, **options)

    def change() -> str:
        moving.wait(10)
        try:
            narrow(world)
        except FeaturesInUse as refused:
            return refused.detail
        finally:
            done.set()
        return "applied"

    monkeypatch.setattr(promotion, "move_pointer", slow)
    promoted, changed = run_together(partial(promote, world), change)
    assert isinstance(promoted, Promotion)
    assert promoted.state == "APPLIED"
    assert "churn/1 (production)" in str(changed)


def test_a_promotion_waits_for_a_change_that_has_looked_who_uses_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, done = threading.Event(), threading.Event()
    real: Any = applied.service_users

    def slow(*arguments: Any) -> Any:
        users = real(*arguments)
        looked.set()
        assert not done.wait(A_WHILE), "a model came into production beside a change that looked for such"
        return users

    def come() -> Promotion:
        looked.wait(10)
        try:
            return promote(world)
        finally:
            done.set()

    monkeypatch.setattr(applied, "service_users", slow)
    changed, promoted = run_together(partial(narrow, world), come)
    assert isinstance(changed, list)
    assert {each.change for each in changed if each.name == "cells"} == {"changed"}
    assert isinstance(promoted, Promotion)
    assert promoted.state == "APPLIED"


def test_both_at_once_end_as_if_one_had_come_after_the_other(world: World) -> None:
    definitions = FeatureDefinitions(world.database, world.clock)
    for revision in range(ROUNDS):
        changed, promoted = run_together(partial(narrow, world), partial(promote, world, revision))
        assert isinstance(promoted, Promotion)
        assert promoted.state == "APPLIED"
        is_narrow = definitions.get_service(world.owner, "diagnosis").number == 2
        assert is_narrow != isinstance(changed, FeaturesInUse)
        # Whoever changes it from here on is told.
        definitions.apply(world.owner, objects(WIDE))
        with pytest.raises(FeaturesInUse, match=r"churn/1 \(production\)"):
            narrow(world)
        with world.database.write() as session:
            session.execute(update(AliasRow).values(version=None))
