"""Aliases, promotions, policies, roles, approvals and roll-backs in any order, against a model of a few lines."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fairlead.core.db import Database
from fairlead.core.errors import AliasNotFound, Conflict, GateRefused, PermissionDenied, SelfApproval, StaleRevision
from fairlead.registry.audit import Sealer, verify
from fairlead.registry.paging import PageRequest
from fairlead.registry.policy import MetricGate, Policy
from fairlead.registry.promotion_policies import PromotionPolicies
from fairlead.registry.promotion_policy import Approvers, PromotionPolicy
from fairlead.registry.promotion_record import APPLIED, AWAITING_APPROVAL, REFUSED, STALE, WITHDRAWN
from fairlead.registry.role_bindings import RoleBindings
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
        self.approvers: dict[str, dict[str, bool]] = {}
        self.is_risk_asked = False
        self.risk_of_cho: str | None = None
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

    @rule()
    def ask_for_the_risk_officer_or_no_longer(self) -> None:
        policies = PromotionPolicies(self.world.database, self.world.clock)
        if self.is_risk_asked:
            policies.delete(self.world.owner, self.model, expected_revision=None)
        else:
            asked = (Approvers(count=1, role="risk"),)
            wanted = PromotionPolicy(models=(self.model,), environments=("production",), approvals=asked)
            policies.put(self.world.owner, self.model, wanted, expected_revision=0)
        self.is_risk_asked = not self.is_risk_asked

    @rule()
    def make_cho_the_risk_officer_or_no_longer(self) -> None:
        bindings = RoleBindings(self.world.database, self.world.clock)
        if self.risk_of_cho is None:
            bound = bindings.bind(self.world.owner, principal="cho", role="risk", models=self.model)
            self.risk_of_cho = bound.id
        else:
            bindings.unbind(self.world.owner, self.risk_of_cho)
            self.risk_of_cho = None

    @precondition(lambda self: self.waiting)
    @rule(who=st.sampled_from(["ana", "ben"]))
    def withdraw(self, who: str) -> None:
        promotion = next(iter(self.waiting))
        try:
            done = self.world.promotions.withdraw(self.world.caller(who, "promote"), promotion)
        except PermissionDenied:
            assert who == "ben"
        else:
            assert (who, done.state) == ("ana", WITHDRAWN)
            del self.waiting[promotion]

    @precondition(lambda self: self.waiting)
    @rule(who=st.sampled_from(["ana", "ben", "cho"]))
    def approve(self, who: str) -> None:
        promotion, (version, base) = next(iter(self.waiting.items()))
        assert base == self.expected["production"].revision
        try:
            done = self.world.promotions.approve(self.world.caller(who, "approve"), promotion)
        except SelfApproval:
            assert who == "ana"
        else:
            assert who != "ana"
            given = self.approvers.setdefault(promotion, {})
            is_risk = who == "cho" and self.risk_of_cho is not None
            is_news = given.get(who) is not is_risk
            given[who] = is_risk
            is_enough = is_news and (not self.is_risk_asked or any(given.values()))
            assert done.state == (APPLIED if is_enough else AWAITING_APPROVAL)
            if is_enough:
                self.moved("production", version)

    @rule(environment=environments)
    def roll_back_without_being_on_call(self, environment: str) -> None:
        try:
            self.world.rollbacks.move_back(
                self.world.caller("ben", "promote"),
                self.model,
                environment,
                expected_revision=self.expected[environment].revision,
                reason="a slip",
            )
        except PermissionDenied:
            return
        raise AssertionError("Whoever is not on call rolled back.")

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
        assert {each.state for each in promotions} <= {AWAITING_APPROVAL, APPLIED, REFUSED, STALE, WITHDRAWN}
        Sealer(self.world.database, self.world.clock).seal_once()
        assert verify(self.world.database, self.world.owner.workspace_id).is_intact


def test_pointers_do_what_a_simple_model_says_in_any_order(shared_database: Database) -> None:
    world = make_world(shared_database)
    for name, policy in ENVIRONMENTS.items():
        world.policy(name, policy)

    class Machine(Pointers):
        pass

    Machine.world = world
    run_state_machine_as_test(Machine, settings=settings(max_examples=12, stateful_step_count=25))
