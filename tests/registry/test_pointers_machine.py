"""Aliases, promotions, approvals and roll-backs in any order, against a model of a few lines."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fairlead.core.db import Database
from fairlead.core.errors import AliasNotFound, Conflict, GateRefused, SelfApproval, StaleRevision
from fairlead.registry.audit import Sealer, verify
from fairlead.registry.paging import PageRequest
from fairlead.registry.policy import MetricGate, Policy
from fairlead.registry.promotion_record import APPLIED, AWAITING_APPROVAL, REFUSED, STALE
from tests.record_world import World, make_world

QUALITY = {1: 0.9, 2: 0.8, 3: 0.4}
ENVIRONMENTS = {
    "dev": Policy(),
    "staging": Policy(gates=(MetricGate(metric="auc", comparison=">=", limit=0.5),), previous_environment="dev"),
    "production": Policy(previous_environment="staging", approvals=1),
}
versions = st.sampled_from(sorted(QUALITY))
pointers = st.sampled_from(["champion", *ENVIRONMENTS])
environments = st.sampled_from(sorted(ENVIRONMENTS))
slips = st.sampled_from([0, 0, 0, -1, 1])


@dataclass
class Pointer:
    """What a pointer is: where it stands, and every place where it stood."""

    version: int | None = None
    moves: list[int | None] = field(default_factory=list["int | None"])

    def move(self, version: int | None) -> None:
        self.version = version
        self.moves.append(version)

    @property
    def revision(self) -> int:
        return len(self.moves)


class Pointers(RuleBasedStateMachine):
    """Every call has the outcome that the small model predicts, and nothing else moves."""

    names = itertools.count()
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.model = f"churn-{next(self.names)}"
        self.world.model(self.model)
        for quality in QUALITY.values():
            self.world.version(self.model, metrics={"auc": quality})
        self.expected = {name: Pointer() for name in ("champion", *ENVIRONMENTS)}
        self.waiting: dict[str, tuple[int, int]] = {}
        self.refs = self.world.refs_revision()

    def moved(self, name: str, version: int | None) -> None:
        self.expected[name].move(version)
        self.refs += 1
        if name == "production":
            self.waiting = {}

    @rule(name=pointers, version=versions, slip=slips)
    def set_alias(self, name: str, version: int, slip: int) -> None:
        revision = self.expected[name].revision + slip
        try:
            self.world.aliases.set(self.world.owner, self.model, name, version, expected_revision=revision)
        except StaleRevision:
            assert slip
        except Conflict:
            assert name in ENVIRONMENTS
        else:
            assert not slip
            self.moved(name, version)

    @rule(slip=slips)
    def delete_alias(self, slip: int) -> None:
        pointer = self.expected["champion"]
        try:
            self.world.aliases.delete(
                self.world.owner, self.model, "champion", expected_revision=pointer.revision + slip
            )
        except StaleRevision:
            assert slip
        except AliasNotFound:
            assert pointer.version is None
        else:
            self.moved("champion", None)

    @rule(environment=environments, version=versions, slip=slips)
    def promote(self, environment: str, version: int, slip: int) -> None:
        pointer = self.expected[environment]
        policy = ENVIRONMENTS[environment]
        previous = policy.previous_environment
        has_come_up = previous is None or version in self.expected[previous].moves
        is_good = all(QUALITY[version] >= gate.limit for gate in policy.gates)
        try:
            done = self.world.promotions.request(
                self.world.owner, self.model, version, environment, expected_revision=pointer.revision + slip
            )
        except StaleRevision:
            assert slip
        except GateRefused:
            assert not slip
            assert not (has_come_up and is_good)
        except Conflict:
            assert pointer.version == version
        else:
            assert not slip
            assert has_come_up
            assert is_good
            assert done.state == (AWAITING_APPROVAL if policy.approvals else APPLIED)
            if policy.approvals:
                self.waiting[done.id or ""] = (version, pointer.revision)
            else:
                self.moved(environment, version)

    @precondition(lambda self: self.waiting)
    @rule(who=st.sampled_from(["ana", "ben"]))
    def approve(self, who: str) -> None:
        promotion, (version, base) = next(iter(self.waiting.items()))
        assert base == self.expected["production"].revision
        try:
            done = self.world.promotions.approve(self.world.caller(who, "approve"), promotion)
        except SelfApproval:
            assert who == "ana"
        else:
            assert who == "ben"
            assert done.state == APPLIED
            self.moved("production", version)

    @rule(environment=environments, to_version=st.none() | versions, slip=slips)
    def roll_back(self, environment: str, to_version: int | None, slip: int) -> None:
        pointer = self.expected[environment]
        holders = [version for version in reversed(pointer.moves) if version != pointer.version]
        try:
            done = self.world.rollbacks.move_back(
                self.world.owner,
                self.model,
                environment,
                expected_revision=pointer.revision + slip,
                reason="a drill",
                to_version=to_version,
            )
        except StaleRevision:
            assert slip
        except Conflict:
            assert to_version not in holders if to_version is not None else not holders
        else:
            assert not slip
            assert done.move.to_version == (holders[0] if to_version is None else to_version)
            self.moved(environment, done.move.to_version)

    @invariant()
    def pointers_stand_where_the_model_says(self) -> None:
        wanted = {name: each.version for name, each in self.expected.items() if each.version is not None}
        assert self.world.models.get(self.world.owner, self.model).aliases == wanted
        assert self.world.refs_revision() == self.refs

    def teardown(self) -> None:
        everything = PageRequest(size=500)
        for name, pointer in self.expected.items():
            history = self.world.aliases.history(self.world.owner, self.model, name, everything).items
            assert [move.to_version for move in reversed(history)] == pointer.moves
            assert [move.revision for move in reversed(history)] == list(range(1, pointer.revision + 1))
        promotions = self.world.promotions.list(self.world.owner, everything, model=self.model).items
        assert {each.id for each in promotions if each.state == AWAITING_APPROVAL} == set(self.waiting)
        assert {each.state for each in promotions} <= {AWAITING_APPROVAL, APPLIED, REFUSED, STALE}
        Sealer(self.world.database, self.world.clock).seal_once()
        assert verify(self.world.database, self.world.owner.workspace_id).is_intact


def test_pointers_do_what_a_simple_model_says_in_any_order(shared_database: Database) -> None:
    world = make_world(shared_database)
    for name, policy in ENVIRONMENTS.items():
        world.policy(name, policy)

    class Machine(Pointers):
        pass

    Machine.world = world
    run_state_machine_as_test(Machine, settings=settings(max_examples=15, stateful_step_count=25))
