"""The promises about bytes, each under the fault that would break it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from fairlead.core.errors import ArtifactNotFound, FairleadError, IntegrityError, ObjectNotFound
from fairlead.core.ports import ObjectStore
from fairlead.registry.locations import get_location
from fairlead.registry.replicas import REPLICATE, ReplicaKey, require_replica_work
from fairlead.registry.tables import LocationRow, ReplicaRow, WorkRow
from fairlead.testing.objects import Action, Fault, FaultyStore
from tests.fleet import ADMIN, BACK_OFF, REGIONS, Fleet, flip_a_byte, open_fleet
from tests.records import WORKSPACE
from tests.stores import Crash, CrashingStore

FILES = {"weights.bin": os.urandom(200_000), "config.json": b"{}"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path) as fleet:
        yield fleet


def everywhere(fleet: Fleet, digest: str) -> None:
    for name in REGIONS:
        assert fleet.read(digest, name) == FILES


def test_p1_what_was_acknowledged_survives_the_loss_of_every_other_region(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    for name in REGIONS:
        others = [other for other in REGIONS if other != name]
        for other in others:
            fleet.folder(other).rename(fleet.root / f"{other}.away")
        assert fleet.read(written.digest, name) == FILES
        for other in others:
            (fleet.root / f"{other}.away").rename(fleet.folder(other))


@pytest.mark.parametrize("part", ["packs", "layouts", "manifests"])
def test_p2_a_flipped_byte_anywhere_gives_an_error_and_never_other_bytes(fleet: Fleet, part: str) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    for path in [each for each in fleet.folder("virginia").rglob("*") if part in each.parts and each.is_file()]:
        whole = path.read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
            with contextlib.suppress(IntegrityError, FairleadError):
                assert fleet.read(written.digest, "virginia") == FILES
        path.write_bytes(whole)


def test_p2_a_damaged_replica_is_never_offered_while_it_is_mended(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    flip_a_byte(fleet.packs("amsterdam")[0])
    with pytest.raises(IntegrityError):
        fleet.read(written.digest, "amsterdam")
    fleet.artifacts.report(ADMIN, written.digest, location="amsterdam", code="corrupt-block")

    seen: set[str] = set()

    def watch(name: str, store: ObjectStore) -> ObjectStore:
        if name == "amsterdam":
            seen.add(fleet.replica(written.digest, "amsterdam").state)
        return store

    fleet.wrap = watch
    fleet.run()
    assert seen == {"CORRUPT", "COPYING"}
    everywhere(fleet, written.digest)
    (repair,) = fleet.ledger("repair")
    assert repair.region == REGIONS["amsterdam"]


@pytest.mark.parametrize("action", [Action.FLIP, Action.CUT])
def test_p3_bytes_that_a_store_damages_on_their_way_in_are_never_reported_verified(
    fleet: Fleet, action: Action
) -> None:
    for call in range(1, 4):
        files = {**FILES, "call": bytes([call])}
        _, written = fleet.register(files)
        fleet.wrap = lambda name, store, call=call: (
            FaultyStore(store, [Fault(operation="write", call=call, action=action)]) if name == "amsterdam" else store
        )
        fleet.run()
        if fleet.states(written.digest)["amsterdam"] == "VERIFIED":
            assert fleet.read(written.digest, "amsterdam") == files
            assert call > 1, "the pack is written first"
        fleet.wrap = lambda _name, store: store
        fleet.settle()
        assert fleet.read(written.digest, "amsterdam") == files


def test_p3_nothing_is_ready_before_every_byte_was_read(fleet: Fleet) -> None:
    # However far the verifying worker came: it was killed, so nothing is visible.
    for call in (1, 2, 4, 6):
        upload_id, written = fleet.register({**FILES, "call": str(call).encode()})
        fleet.wrap = lambda _name, store, call=call: CrashingStore(store, call)
        try:
            fleet.run()
        except Crash:
            assert fleet.uploads.get(ADMIN, upload_id).state == "VERIFYING"
            with pytest.raises(ArtifactNotFound):
                fleet.artifact(written.digest)
        fleet.wrap = lambda _name, store: store
        fleet.settle()
        assert fleet.uploads.get(ADMIN, upload_id).state == "READY"


@pytest.mark.parametrize("name", ["virginia", "amsterdam"])
def test_p5_a_crash_at_any_call_of_a_copy_loses_and_doubles_nothing(fleet: Fleet, name: str) -> None:
    shared = FILES["weights.bin"]
    crashes = 0
    digests: list[str] = []
    for call in range(1, 22, 3):
        _, written = fleet.register({"weights.bin": shared, "head": str(call).encode()})
        digests.append(written.digest)
        fleet.wrap = lambda where, store, call=call: CrashingStore(store, call) if where == name else store
        with contextlib.suppress(Crash):
            fleet.run()
            crashes -= 1
        crashes += 1
        fleet.wrap = lambda _name, store: store
        fleet.settle()
    assert crashes > 2
    for digest in digests:
        for region in REGIONS:
            assert fleet.read(digest, region)["weights.bin"] == shared
    paid = [(row.subject, row.region) for row in fleet.ledger("replicate")]
    assert len(paid) == len(set(paid)) == 2 * len(digests)


def test_p5_a_lost_reply_or_a_full_retry_pays_once(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    for call in range(1, 4):
        fleet.wrap = lambda name, store, call=call: (
            FaultyStore(store, [Fault(operation="write", call=call, action=Action.LOSE_REPLY)])
            if name == "amsterdam"
            else store
        )
        fleet.run()
        fleet.clock.advance(BACK_OFF)
    fleet.wrap = lambda _name, store: store
    fleet.settle()
    everywhere(fleet, written.digest)
    assert len(fleet.ledger("replicate")) == 2
    assert len(fleet.packs("amsterdam")) == len(fleet.packs("virginia")), "packs are named by their content"


WORKER = """
import sys
from datetime import timedelta
from fairlead.catalog import load_catalog
from fairlead.core.clock import SystemClock
from fairlead.core.db import Database
from fairlead.sync.duties import sync_duties
from fairlead.sync.store.objects import open_store
from fairlead.sync.worker import Worker

database = Database(sys.argv[1])
duties = sync_duties(
    database, SystemClock(), catalog=load_catalog(), open_store=open_store, signing_key=bytes(range(32))
)
worker = Worker(
    database,
    SystemClock(),
    regions=None,
    handlers=duties.handlers,
    derivers=duties.derivers,
    lease_ttl=timedelta(seconds=1),
)
print("ready", flush=True)
sys.stdin.readline()
worker.start()
sys.stdin.readline()
"""


def test_p5_a_worker_that_is_killed_is_replaced_and_all_arrives(fleet: Fleet) -> None:
    files = [{"weights.bin": os.urandom(2_000_000), "n": bytes([number])} for number in range(4)]
    fleet.clock.advance(timedelta(days=-1))  # leases and times of the workers are those of the real clock
    digests = [fleet.register(each)[1].digest for each in files]
    command = [sys.executable, "-c", WORKER, f"sqlite:///{fleet.root / 'fairlead.db'}"]
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]

    def start(worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        assert worker.stdin is not None
        assert worker.stdout.readline() == "ready\n"
        worker.stdin.write("\n")
        worker.stdin.flush()

    try:
        start(workers[0])
        time.sleep(0.3)
        workers[0].send_signal(signal.SIGKILL)
        start(workers[1])
        assert eventually(lambda: all(is_everywhere(fleet, digest) for digest in digests), 60)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    for digest, expected in zip(digests, files, strict=True):
        for name in REGIONS:
            assert fleet.read(digest, name) == expected
    paid = [(row.subject, row.region) for row in fleet.ledger("replicate")]
    assert len(paid) == len(set(paid)) == 2 * len(digests)


def is_everywhere(fleet: Fleet, digest: str) -> bool:
    try:
        states = fleet.states(digest)
    except ArtifactNotFound:
        return False
    return len(states) == len(REGIONS) and set(states.values()) == {"VERIFIED"}


def eventually(claim: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_p8_a_wiped_location_heals_to_the_same_digests_without_help(fleet: Fleet) -> None:
    digests = [fleet.register({**FILES, "n": bytes([number])})[1].digest for number in range(3)]
    fleet.run()
    fleet.wipe("eemshaven")
    fleet.clock.advance(timedelta(days=1, minutes=2))
    fleet.settle()
    for number, digest in enumerate(digests):
        assert fleet.states(digest) == dict.fromkeys(REGIONS, "VERIFIED")
        assert fleet.read(digest, "eemshaven") == {**FILES, "n": bytes([number])}
    assert fleet.count(WorkRow) == 0
    assert sum(row.moved_bytes for row in fleet.ledger("repair")) < 1.5 * len(FILES["weights.bin"]), (
        "what three artifacts share travels once"
    )


def test_p8_a_partition_that_ends_needs_no_help(fleet: Fleet) -> None:
    _, before = fleet.register(FILES)
    fleet.run()
    fleet.folder("amsterdam").rename(fleet.root / "away")
    _, during = fleet.register({**FILES, "more": b"x"})
    fleet.run()
    assert fleet.states(during.digest)["amsterdam"] != "VERIFIED"
    assert fleet.states(before.digest)["amsterdam"] == "VERIFIED", "a disk that is away is not a damaged one"
    (fleet.root / "away").rename(fleet.folder("amsterdam"))
    fleet.settle()
    assert fleet.read(during.digest, "amsterdam") == {**FILES, "more": b"x"}


def test_p9_a_planted_copy_out_of_residency_is_refused_before_any_write(fleet: Fleet) -> None:
    _, written = fleet.register(FILES, residency="eu", near="amsterdam")
    fleet.run()
    opened: list[str] = []

    def watch(name: str, store: ObjectStore) -> ObjectStore:
        opened.append(name)
        return store

    with fleet.database.write() as session:
        key = plant(fleet, written.digest)
        session.add(
            ReplicaRow(
                workspace_id=WORKSPACE,
                residency="eu",
                artifact_digest=written.digest,
                location_id=key.location_id,
                state="PENDING",
                updated_at=fleet.clock.now(),
            )
        )
        require_replica_work(session, REPLICATE, key, REGIONS["virginia"], fleet.clock.now())
    fleet.wrap = watch
    fleet.settle()
    refused = fleet.replica(written.digest, "virginia")
    assert (refused.state, refused.error_code) == ("FAILED", "residency-violation")
    assert "virginia" not in opened
    assert list((fleet.folder("virginia")).rglob("*.pack")) == []
    assert not (fleet.folder("virginia") / WORKSPACE / "eu").exists()
    assert "replica.refuse" in fleet.actions()
    assert fleet.count(WorkRow) == 0


def test_p9_a_location_that_lies_about_its_jurisdiction_gets_nothing(fleet: Fleet) -> None:
    # Somebody edits the record so that Virginia passes for a place in the EU: the catalog still knows better.
    with fleet.database.write() as session:
        session.execute(update(LocationRow).where(LocationRow.name == "virginia").values(jurisdiction="EU"))
    _, written = fleet.register(FILES, residency="eu", near="amsterdam")
    fleet.settle()
    assert fleet.states(written.digest)["virginia"] == "FAILED"
    assert not (fleet.folder("virginia") / WORKSPACE / "eu").exists()
    assert fleet.read(written.digest, "eemshaven") == FILES


def test_p9_blocks_are_never_shared_across_residency_classes(fleet: Fleet) -> None:
    _, restricted = fleet.register(FILES, residency="eu", near="amsterdam")
    fleet.run()
    _, free = fleet.register(FILES, near="amsterdam")
    fleet.run()
    assert free.digest == restricted.digest
    assert free.reused_blocks == 0
    for name in REGIONS:
        assert fleet.read(free.digest, name, "unrestricted") == FILES
    packs = {path.relative_to(fleet.folder("virginia")).parts[1] for path in fleet.packs("virginia")}
    assert packs == {"unrestricted"}


def plant(fleet: Fleet, digest: str) -> ReplicaKey:
    with fleet.database.read() as session:
        location = session.scalars(select(LocationRow).where(LocationRow.name == "virginia")).one()
        assert get_location(session, WORKSPACE, location.id).jurisdiction == "US"
        return ReplicaKey(workspace_id=WORKSPACE, residency="eu", artifact_digest=digest, location_id=location.id)


def test_p2_a_location_that_lost_an_object_gives_an_error(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    fleet.packs("virginia")[0].unlink()
    with pytest.raises(ObjectNotFound):
        fleet.read(written.digest, "virginia")
