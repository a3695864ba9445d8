"""Uploads, copies and collections in any order, one inside another, killed anywhere: what is needed is never lost."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from fairlead.core.errors import LeaseLost
from fairlead.registry.tables import ReplicaRow
from fairlead.registry.uploads import Upload
from fairlead.sync.collection import GRACE
from fairlead.sync.store.writer import WrittenArtifact
from fairlead.sync.upkeep import UPKEEP, Upkeeps
from fairlead.sync.worker import Worker
from tests.fleet import ADMIN, BACK_OFF, Fleet, open_fleet
from tests.stores import Crash, CrashingStore
from tests.sync.test_collection_races import InterruptedStore, forget, hold_on

NAMES = ("virginia", "eemshaven")
SHARED = random.Random(1).randbytes(6_000)
# Contents that share a file, and one that is uploaded again byte for byte: its packs are born again under their names.
CONTENTS = {
    1: {"shared.bin": SHARED, "head": b"one"},
    2: {"shared.bin": SHARED, "head": b"two", "dead": random.Random(2).randbytes(20_000)},
    3: {"other.bin": random.Random(3).randbytes(3_000)},
}


class CollectionMachine(RuleBasedStateMachine):
    """What was acknowledged and is still referred to is readable wherever it is reported VERIFIED, at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.open: list[tuple[int, Upload]] = []
        self.written: list[tuple[int, Upload, WrittenArtifact]] = []
        self.completed: dict[str, tuple[int, WrittenArtifact]] = {}
        self.contents: dict[str, int] = {}

    @initialize()
    def open_fleet(self) -> None:
        root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.fleet: Fleet = self.stack.enter_context(open_fleet(root, names=NAMES))

    def teardown(self) -> None:
        self.stack.close()

    @rule(content=st.sampled_from(sorted(CONTENTS)))
    def begin(self, content: int) -> None:
        self.open.append((content, self.fleet.begin(near="virginia")))

    @rule(content=st.sampled_from(sorted(CONTENTS)))
    def register(self, content: int) -> None:
        upload = self.fleet.begin(near="virginia")
        self.written.append((content, upload, self.fleet.write(upload, CONTENTS[content])))
        self.complete()
        self.fleet.run()

    @precondition(lambda self: self.open)
    @rule()
    def ask_and_write(self) -> None:
        content, upload = self.open.pop(0)
        # The upload's time may be over; then its client learns so, here or at the end.
        with contextlib.suppress(LeaseLost):
            self.written.append((content, upload, self.fleet.write(upload, CONTENTS[content])))

    @precondition(lambda self: self.written)
    @rule()
    def complete(self) -> None:
        content, upload, written = self.written.pop(0)
        with contextlib.suppress(LeaseLost):
            self.fleet.complete(upload, written)
            self.contents[written.digest] = content

    @rule()
    def run(self) -> None:
        self.fleet.run()

    @rule()
    def let_leases_pass(self) -> None:
        self.fleet.clock.advance(BACK_OFF)

    @precondition(lambda self: self.contents)
    @rule(which=st.integers(0, 5))
    def forget(self, which: int) -> None:
        """Somebody removes an artifact from the record; its objects are garbage from now on."""
        digest = sorted(self.contents)[which % len(self.contents)]
        forget(self.fleet, digest)

    @rule(name=st.sampled_from(NAMES), rounds=st.integers(1, 3))
    def collect(self, name: str, rounds: int) -> None:
        for _ in range(rounds):
            hold_on(self.fleet)
            self.fleet.clock.advance(GRACE + timedelta(minutes=1))
            self.collect_once(name)

    @rule(name=st.sampled_from(NAMES), call=st.integers(1, 12))
    def crash_a_collection(self, name: str, call: int) -> None:
        self.fleet.clock.advance(GRACE + timedelta(minutes=1))
        self.fleet.wrap = lambda where, store: CrashingStore(store, call) if where == name else store
        with contextlib.suppress(Crash):
            self.collect_once(name)
        self.fleet.wrap = lambda _name, store: store
        self.fleet.clock.advance(BACK_OFF)

    @rule(name=st.sampled_from(NAMES), call=st.integers(1, 8), operation=st.sampled_from(("read", "write")))
    def collect_while_uploads_are_verified_and_copied(self, name: str, call: int, operation: str) -> None:
        def meanwhile() -> None:
            self.fleet.wrap = lambda _name, store: store
            self.collect(name, 2)

        self.interrupt(name, operation, call, meanwhile)
        self.fleet.run()
        self.fleet.wrap = lambda _name, store: store

    @rule(name=st.sampled_from(NAMES), operation=st.sampled_from(("list", "read", "delete")), call=st.integers(1, 4))
    def verify_and_copy_within_a_collection(self, name: str, operation: str, call: int) -> None:
        def meanwhile() -> None:
            self.fleet.wrap = lambda _name, store: store
            if self.written:
                self.complete()
            duties = self.fleet.duties
            handlers = {kind: handler for kind, handler in duties.handlers.items() if kind != UPKEEP}
            Worker(
                self.fleet.database, self.fleet.clock, regions=None, handlers=handlers, derivers=duties.derivers
            ).run_until_idle()

        self.fleet.clock.advance(GRACE + timedelta(minutes=1))
        self.interrupt(name, operation, call, meanwhile)
        self.collect_once(name)
        self.fleet.wrap = lambda _name, store: store

    @invariant()
    def what_is_reported_verified_is_whole(self) -> None:
        with self.fleet.database.read() as session:
            verified = session.scalars(select(ReplicaRow).where(ReplicaRow.state == "VERIFIED")).all()
        names = {self.fleet.location(name).id: name for name in NAMES}
        for row in verified:
            expected = CONTENTS[self.contents[row.artifact_digest]]
            assert self.fleet.read(row.artifact_digest, names[row.location_id]) == expected

    def collect_once(self, name: str) -> None:
        """One pass by a worker that does nothing else."""
        Upkeeps(self.fleet.database, self.fleet.clock).request(ADMIN, "collect", location=name)
        handlers = {UPKEEP: self.fleet.duties.handlers[UPKEEP]}
        worker = Worker(self.fleet.database, self.fleet.clock, regions=None, handlers=handlers, derivers=[])
        worker.run_until_idle()

    def interrupt(self, name: str, operation: str, call: int, meanwhile: Callable[[], None]) -> None:
        self.fleet.wrap = lambda where, store: (
            InterruptedStore(store, operation, call, meanwhile) if where == name else store
        )


TestCollection = CollectionMachine.TestCase
TestCollection.settings = settings(max_examples=settings().max_examples // 3, stateful_step_count=14)
