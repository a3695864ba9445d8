"""Replicas under any order of registrations, crashes, failed stores, damage and wipes, against a model of two dicts."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairlead.catalog import Residency, check
from fairlead.core.errors import FairleadError, ResidencyViolation
from fairlead.core.ports import ObjectStore
from fairlead.registry.tables import WorkRow
from fairlead.testing.objects import Action, Fault, FaultyStore, Operation
from tests.fleet import ADMIN, BACK_OFF, REGIONS, Fleet, flip_a_byte, open_fleet
from tests.stores import Crash, CrashingStore

NAMES = tuple(REGIONS)
# Two contents that share a file, so that artifacts share packs.
CONTENTS = {
    1: {"shared.bin": b"\x01" * 9_000 + bytes(range(256)), "head": b"one"},
    2: {"shared.bin": b"\x01" * 9_000 + bytes(range(256)), "head": b"two"},
    3: {"other.bin": bytes(range(256)) * 20},
}
RESIDENCIES = ("unrestricted", "eu")


class ReplicaMachine(RuleBasedStateMachine):
    """What was acknowledged is readable wherever it is reported VERIFIED, and converges everywhere it may be."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.acknowledged: dict[tuple[str, str], dict[str, bytes]] = {}
        self.damaged: set[str] = set()

    @initialize()
    def open(self) -> None:
        root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.fleet: Fleet = self.stack.enter_context(open_fleet(root))

    def teardown(self) -> None:
        self.stack.close()

    @rule(
        content=st.sampled_from(sorted(CONTENTS)), residency=st.sampled_from(RESIDENCIES), near=st.sampled_from(NAMES)
    )
    def register(self, content: int, residency: str, near: str) -> None:
        upload_id, written = self.fleet.register(CONTENTS[content], residency=residency, near=near)
        self.run()
        if self.fleet.uploads.get(ADMIN, upload_id).state == "READY":
            self.acknowledged[residency, written.digest] = CONTENTS[content]

    @rule()
    def run(self) -> None:
        self.fleet.run()

    @rule(
        name=st.sampled_from(NAMES),
        operation=st.sampled_from(("read", "write", "size", "list")),
        call=st.integers(1, 6),
        action=st.sampled_from((Action.FAIL, Action.LOSE_REPLY, Action.DIE)),
    )
    def run_with_a_failing_store(self, name: str, operation: Operation, call: int, action: Action) -> None:
        def wrap(where: str, store: ObjectStore) -> ObjectStore:
            fault = Fault(operation=operation, call=call, action=action)
            return FaultyStore(store, [fault]) if where == name else store

        self.fleet.wrap = wrap
        self.fleet.run()
        self.fleet.wrap = lambda _name, store: store

    @rule(name=st.sampled_from(NAMES), call=st.integers(1, 12))
    def crash_the_worker(self, name: str, call: int) -> None:
        self.fleet.wrap = lambda where, store: CrashingStore(store, call) if where == name else store
        with contextlib.suppress(Crash):
            self.fleet.run()
        self.fleet.wrap = lambda _name, store: store

    @rule()
    def let_leases_and_back_offs_pass(self) -> None:
        self.fleet.clock.advance(BACK_OFF)

    # One location at a time is damaged or wiped, so what was acknowledged is still somewhere.
    @precondition(lambda self: self.acknowledged and not self.damaged and self.is_settled())
    @rule(name=st.sampled_from(NAMES), is_wiped=st.booleans(), which=st.integers(0, 5))
    def damage(self, name: str, is_wiped: bool, which: int) -> None:  # noqa: FBT001  (Hypothesis passes it by name)
        packs = self.fleet.packs(name)
        if is_wiped:
            self.fleet.wipe(name)
        elif packs:
            flip_a_byte(packs[which % len(packs)])
        else:
            return
        self.damaged.add(name)

    @precondition(lambda self: self.damaged)
    @rule()
    def look_after_a_day_and_heal(self) -> None:
        self.converge()

    @invariant()
    def nothing_is_where_it_may_not_be(self) -> None:
        for name in NAMES:
            for folder in self.fleet.folder(name).glob("acme/*"):
                if folder.name in RESIDENCIES:
                    check(Residency(folder.name), REGIONS[name])

    @invariant()
    def what_is_reported_verified_is_readable(self) -> None:
        for (residency, digest), files in self.acknowledged.items():
            for replica in self.fleet.artifact(digest).replicas:
                if replica.residency == residency and replica.state == "VERIFIED":
                    self.check_readable(digest, replica.location.name, residency, files)

    def check_readable(self, digest: str, name: str, residency: str, files: dict[str, bytes]) -> None:
        if name in self.damaged:
            # Nobody has looked yet: then the bytes or a typed error, and never other bytes.
            with contextlib.suppress(FairleadError):
                assert self.fleet.read(digest, name, residency) == files
        else:
            assert self.fleet.read(digest, name, residency) == files

    def is_settled(self) -> bool:
        return self.fleet.count(WorkRow) == 0

    def converge(self) -> None:
        """A day later, when every replica is read again, all of it is everywhere it may be."""
        self.fleet.settle()
        self.fleet.clock.advance(BACK_OFF * 300)
        self.fleet.settle()
        self.damaged.clear()
        assert self.is_settled()
        for (residency, digest), files in self.acknowledged.items():
            for name in NAMES:
                with contextlib.suppress(ResidencyViolation):
                    check(Residency(residency), REGIONS[name])
                    assert self.fleet.read(digest, name, residency) == files


TestReplicas = ReplicaMachine.TestCase
# An example opens a database and three folders; it costs as much as three of a pure function.
TestReplicas.settings = settings(max_examples=settings().max_examples // 3, stateful_step_count=12)
