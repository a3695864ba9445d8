"""Versions and their model archived, deleted, restored and promoted in any order, against a model of a few lines."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fairlead.core.db import Database
from fairlead.core.errors import FairleadError
from fairlead.registry.lifecycle import Lifecycle
from fairlead.registry.paging import PageRequest
from tests.record_world import World, make_world

versions = st.integers(1, 4)
whether = st.booleans()


class Lives(RuleBasedStateMachine):
    """Every call has the outcome that the small model predicts, and lists show exactly what they should."""

    names = itertools.count()
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.model = f"life-{next(self.names)}"
        self.world.model(self.model)
        self.last = 0
        self.archived: set[int] = set()
        # Which deletion took a version away: 0 its own, else that of the model.
        self.deleted: dict[int, int] = {}
        self.deletions = 0
        self.is_model_archived = self.is_model_deleted = False
        self.held: int | None = None
        self.moves = 0

    @property
    def living(self) -> set[int]:
        return {number for number in range(1, self.last + 1) if number not in self.deleted}

    def outcome(self, act: Callable[[], Any]) -> str:
        try:
            act()
        except FairleadError as error:
            return error.code
        return "done"

    def missing(self, version: int | None = None) -> str | None:
        if self.is_model_deleted:
            return "model-not-found"
        return "model-version-not-found" if version is not None and version not in self.living else None

    @property
    def lifecycle(self) -> Lifecycle:
        return Lifecycle(self.world.database, self.world.clock)

    @rule()
    def register(self) -> None:
        expected = self.missing() or ("archived" if self.is_model_archived else "done")
        assert self.outcome(lambda: self.world.version(self.model)) == expected
        self.last += expected == "done"

    @rule(version=versions, is_archived=whether)
    def archive_version(self, *, version: int, is_archived: bool) -> None:
        changes = is_archived and version not in self.archived
        expected = self.missing(version) or ("version-in-use" if changes and version == self.held else "done")
        act = self.lifecycle.archive_version
        assert self.outcome(lambda: act(self.world.owner, self.model, version, is_archived=is_archived)) == expected
        if expected == "done":
            (self.archived.add if is_archived else self.archived.discard)(version)

    @rule(is_archived=whether)
    def archive_model(self, *, is_archived: bool) -> None:
        changes = is_archived and not self.is_model_archived
        expected = self.missing() or ("version-in-use" if changes and self.held is not None else "done")
        act = self.lifecycle.archive_model
        assert self.outcome(lambda: act(self.world.owner, self.model, is_archived=is_archived)) == expected
        if expected == "done":
            self.is_model_archived = is_archived

    @rule(version=versions)
    def delete_version(self, version: int) -> None:
        expected = self.missing(version) or ("version-in-use" if version == self.held else "done")
        act = self.lifecycle.delete_version
        assert self.outcome(lambda: act(self.world.owner, self.model, version)) == expected
        if expected == "done":
            self.deleted[version] = 0

    @rule()
    def delete_model(self) -> None:
        expected = self.missing() or ("version-in-use" if self.held is not None else "done")
        assert self.outcome(lambda: self.lifecycle.delete_model(self.world.owner, self.model)) == expected
        if expected == "done":
            self.deletions += 1
            self.deleted |= dict.fromkeys(self.living, self.deletions)
            self.is_model_deleted = True

    @rule(version=versions)
    def restore_version(self, version: int) -> None:
        expected = "model-not-found" if self.is_model_deleted else "done"
        if expected == "done" and version > self.last:
            expected = "model-version-not-found"
        act = self.lifecycle.restore_version
        assert self.outcome(lambda: act(self.world.owner, self.model, version)) == expected
        if expected == "done":
            self.deleted.pop(version, None)

    @rule()
    def restore_model(self) -> None:
        self.lifecycle.restore_model(self.world.owner, self.model)
        if self.is_model_deleted:
            self.deleted = {number: by for number, by in self.deleted.items() if by != self.deletions}
            self.is_model_deleted = False

    @rule(version=versions)
    def promote(self, version: int) -> None:
        expected = self.missing(version)
        if expected is None and version == self.held:
            expected = "conflict"
        if expected is None and (self.is_model_archived or version in self.archived):
            expected = "archived"
        ask = self.world.promotions.request
        found = self.outcome(lambda: ask(self.world.owner, self.model, version, "dev", expected_revision=self.moves))
        assert found == (expected or "done")
        if expected is None:
            self.held = version
            self.moves += 1

    @invariant()
    def lists_show_what_is_there(self) -> None:
        # So that no two deletions happen at one moment.
        self.world.clock.advance(timedelta(milliseconds=1))
        page = PageRequest(size=100)
        for shown, expected in {
            "active": not self.is_model_deleted and not self.is_model_archived,
            "archived": not self.is_model_deleted and self.is_model_archived,
            "deleted": self.is_model_deleted,
        }.items():
            found: Any = self.world.models.list(self.world.owner, page, name_prefix=self.model, shown=shown)  # pyright: ignore[reportArgumentType]  (one of its states)
            assert (self.model in {each.name for each in found.items}) is expected
        if self.is_model_deleted:
            return
        for shown, numbers in {
            "active": self.living - self.archived,
            "archived": self.living & self.archived,
            "deleted": set(self.deleted),
        }.items():
            listed: Any = self.world.versions.list(self.world.owner, self.model, page, shown=shown)  # pyright: ignore[reportArgumentType]  (one of its states)
            assert {each.version for each in listed.items} == numbers


def test_archived_deleted_and_restored_in_any_order(shared_database: Database) -> None:
    class OverOneDatabase(Lives):
        world = make_world(shared_database)

    run_state_machine_as_test(OverOneDatabase, settings=settings(max_examples=5, stateful_step_count=20))
