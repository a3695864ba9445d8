"""What nothing refers to goes away in steps, and nothing that is needed ever does."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from fairlead.core.errors import BeingCollected, BytesReleased
from fairlead.core.ids import digest_hex
from fairlead.core.ports import ObjectStore
from fairlead.registry import garbage
from fairlead.registry.lifecycle import Lifecycle
from fairlead.registry.models import Labels, Models
from fairlead.registry.retention import RetentionPolicies
from fairlead.registry.retention_policy import RetentionPolicy
from fairlead.registry.tables import ArtifactRow, ReplicaRow, UploadRow
from fairlead.registry.tables_bytes import GarbageRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.sync.collection import GRACE
from fairlead.sync.store import local as local_store
from fairlead.sync.store.objects import open_store
from fairlead.sync.upkeep import Task, Upkeep, Upkeeps
from fairlead.testing.objects import Action, Fault, FaultyStore
from tests.fleet import ADMIN, BACK_OFF, LABELS, Fleet, open_fleet
from tests.records import WORKSPACE
from tests.stores import Crash, CrashingStore

BODY = random.Random(7).randbytes(200_000)
FILES = {"weights.bin": BODY, "config.json": b"{}"}
ONE = ["aws:us-east-1"]


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia",)) as fleet:
        yield fleet


@pytest.fixture
def local_fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        yield fleet


@pytest.fixture
def wide_fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia", "eemshaven")) as fleet:
        yield fleet


def run_task(fleet: Fleet, task: Task, location: str = "virginia", **scope: bool | float) -> Upkeep:
    upkeeps = Upkeeps(fleet.database, fleet.clock)
    (asked,) = upkeeps.request(ADMIN, task, location=location, scope=scope)
    fleet.run()
    return upkeeps.get(ADMIN, asked.id)


def collect_all(fleet: Fleet, location: str = "virginia", rounds: int = 4) -> list[Upkeep]:
    """As many passes as an object takes from its mark to its grave and out of it, each after the grace."""
    passes: list[Upkeep] = []
    for _ in range(rounds):
        passes.append(run_task(fleet, "collect", location))
        fleet.clock.advance(GRACE + timedelta(minutes=1))
    return passes


def abandon(fleet: Fleet, files: dict[str, bytes]) -> None:
    """An upload whose client wrote everything and never came back."""
    fleet.write(fleet.begin(near="virginia", regions=ONE), files)


def objects(fleet: Fleet, name: str = "virginia") -> set[str]:
    root = fleet.folder(name) / WORKSPACE
    return {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and "refs" not in path.parts
    }


def states(fleet: Fleet) -> set[str]:
    with fleet.database.read() as session:
        return set(session.scalars(select(GarbageRow.state)))


def test_what_an_upload_left_behind_goes_after_two_graces_and_the_rest_stays(fleet: Fleet) -> None:
    _, kept = fleet.register(FILES, regions=ONE)
    fleet.run()
    needed = objects(fleet)
    abandon(fleet, {"other.bin": os.urandom(50_000)})
    assert len(objects(fleet)) == len(needed) + 3

    first = run_task(fleet, "collect")
    assert first.outcome["marked"] == 3
    assert {str(finding["code"]) for finding in first.findings} == {"unreferenced-pack", "abandoned-upload"}
    fleet.clock.advance(GRACE / 2)
    assert run_task(fleet, "collect").outcome["waiting"] == 3
    fleet.clock.advance(GRACE)
    assert run_task(fleet, "collect").outcome["withdrawn"] == 3
    assert len(objects(fleet)) == len(needed) + 3, "an index that names nothing is not yet a reason to delete"
    fleet.clock.advance(GRACE * 1.1)
    assert run_task(fleet, "collect").outcome["deleted"] == 3
    assert objects(fleet) == needed
    assert states(fleet) == {"DELETED"}
    fleet.clock.advance(GRACE * 1.1)
    run_task(fleet, "collect")
    assert states(fleet) == set()
    assert fleet.read(kept.digest, "virginia") == FILES


def test_a_dry_run_says_what_would_go_and_why_and_changes_nothing(local_fleet: Fleet) -> None:
    fleet = local_fleet
    abandon(fleet, FILES)
    before = objects(fleet)
    looked = run_task(fleet, "collect", is_dry_run=True)
    assert looked.outcome["marked"] == 3
    assert all(finding["action"] == "mark" and finding["due_at"] for finding in looked.findings)
    assert states(fleet) == set()
    assert objects(fleet) == before


def test_an_upload_that_is_told_of_a_marked_pack_keeps_it(fleet: Fleet) -> None:
    _, first = fleet.register(FILES, regions=ONE)
    fleet.run()
    forget_replicas(fleet)
    run_task(fleet, "collect")
    assert states(fleet) == {"MARKED"}
    upload = fleet.begin(near="virginia", regions=ONE)
    written = fleet.write(upload, {**FILES, "config.json": b'{"epoch": 2}'})
    assert written.reused_blocks == 1
    pack = first.layout.blocks[next(iter(first.layout.blocks))].pack
    with fleet.database.read() as session:
        assert not any(digest_hex(pack) in key for key in session.scalars(select(GarbageRow.object_key)))
    fleet.complete(upload, written)
    fleet.run()
    collect_all(fleet)
    assert fleet.read(written.digest, "virginia")["weights.bin"] == BODY


def test_a_pack_is_not_deleted_while_an_upload_is_open_that_was_told_of_it(fleet: Fleet) -> None:
    _, first = fleet.register(FILES, regions=ONE)
    fleet.run()
    upload = fleet.begin(near="virginia", regions=ONE)
    written = fleet.write(upload, {**FILES, "more": b"x"})
    assert written.reused_blocks == 2
    forget_replicas(fleet)
    keep_open(fleet, upload.id)
    # Its client is slow: it asks nothing more, and its lease is prolonged by hand.
    collect_all(fleet)
    assert "WITHDRAWN" in states(fleet)
    fleet.complete(upload, written)
    fleet.run()
    assert fleet.uploads.get(ADMIN, upload.id).state == "READY"
    collect_all(fleet)
    assert fleet.read(written.digest, "virginia") == {**FILES, "more": b"x"}
    assert first.digest != written.digest


def test_a_layout_that_is_superseded_goes_and_the_one_in_use_stays(local_fleet: Fleet) -> None:
    fleet = local_fleet
    _, written = fleet.register(FILES, regions=ONE)
    fleet.run()
    store = open_store(fleet.location("virginia").url)
    older = store.read(written.layout_key)
    stale = written.layout_key.replace("0000000001-", "0000000000-")
    store.write(stale, older)
    passes = collect_all(fleet)
    assert [finding["code"] for finding in passes[0].findings] == ["superseded-layout"]
    assert store.size(stale) is None
    assert store.size(written.layout_key)


def test_nothing_of_a_domain_goes_while_a_layout_in_use_cannot_be_read(local_fleet: Fleet) -> None:
    fleet = local_fleet
    _, written = fleet.register(FILES, regions=ONE)
    fleet.run()
    abandon(fleet, {"other": b"y" * 9_000})
    (fleet.folder("virginia") / written.layout_key).write_bytes(b"not a layout")
    before = objects(fleet)
    passes = collect_all(fleet, rounds=1)
    assert [finding["code"] for finding in passes[0].findings] == ["layout-unreadable"]
    assert objects(fleet) == before


def test_an_unwanted_replica_leaves_service_first_then_its_objects_go_and_its_row_last(wide_fleet: Fleet) -> None:
    fleet = wide_fleet
    _, written = fleet.register(FILES)
    fleet.run()
    with fleet.database.write() as session:
        here = ReplicaRow.location_id == fleet.location("virginia").id
        session.execute(update(ReplicaRow).where(here).values(is_wanted=False))
    run_task(fleet, "collect")
    assert fleet.states(written.digest)["virginia"] == "PENDING"
    assert objects(fleet)
    fleet.clock.advance(GRACE * 1.1)
    run_task(fleet, "collect")
    assert objects(fleet), "readers that were sent here go on for a while"
    fleet.clock.advance(GRACE * 1.1)
    run_task(fleet, "collect")
    assert objects(fleet) == set()
    assert "virginia" not in fleet.states(written.digest)
    assert "replica.remove" in fleet.actions()
    assert fleet.read(written.digest, "eemshaven") == FILES


def test_the_last_copy_stays_though_it_is_not_wanted(local_fleet: Fleet) -> None:
    fleet = local_fleet
    _, written = fleet.register(FILES, regions=ONE)
    fleet.run()
    with fleet.database.write() as session:
        session.execute(update(ReplicaRow).values(is_wanted=False))
    collect_all(fleet)
    assert fleet.read(written.digest, "virginia") == FILES


def test_the_bytes_of_a_deleted_version_go_when_its_retention_ends_and_not_before(local_fleet: Fleet) -> None:
    fleet = local_fleet
    versions = Versions(fleet.database, fleet.clock)
    Models(fleet.database, fleet.clock).create(ADMIN, name="churn", labels=Labels(**LABELS), residency="unrestricted")
    upload, kept = fleet.register(FILES, regions=ONE)
    versions.register(ADMIN, "churn", VersionDraft(upload_id=upload))
    fleet.run()
    needed = objects(fleet)
    tuned = {**FILES, "head.bin": random.Random(8).randbytes(50_000)}
    upload, doomed = fleet.register(tuned, regions=ONE)
    versions.register(ADMIN, "churn", VersionDraft(upload_id=upload))
    fleet.run()
    both = objects(fleet)
    assert both > needed

    lifecycle = Lifecycle(fleet.database, fleet.clock)
    retention = RetentionPolicies(fleet.database, fleet.clock)
    retention.put(ADMIN, "week", RetentionPolicy(release_deleted_after_days=7), expected_revision=None)
    lifecycle.delete_version(ADMIN, "churn", 2)
    collect_all(fleet)
    assert retention.run(ADMIN) == ()
    assert objects(fleet) == both
    assert fleet.read(doomed.digest, "virginia") == tuned

    fleet.clock.advance(timedelta(days=4))
    assert [(step.reference, step.action) for step in retention.run(ADMIN)] == [("churn/2", "release")]
    run_task(fleet, "collect")
    assert objects(fleet) == both, "readers that were sent here go on for a while"
    collect_all(fleet, rounds=5)
    assert objects(fleet) == needed
    assert fleet.read(kept.digest, "virginia") == FILES
    with pytest.raises(BytesReleased):
        lifecycle.restore_version(ADMIN, "churn", 2)


def test_foreign_objects_are_told_of_and_left_alone(local_fleet: Fleet) -> None:
    fleet = local_fleet
    _, _ = fleet.register(FILES, regions=ONE)
    fleet.run()
    note = fleet.folder("virginia") / WORKSPACE / "unrestricted" / "notes.txt"
    note.write_text("mine")
    passes = collect_all(fleet)
    assert passes[-1].findings[0]["code"] == "foreign-object"
    assert note.read_text() == "mine"


def test_temporary_files_of_killed_writers_go(local_fleet: Fleet) -> None:
    path = local_fleet.folder("virginia") / ".fairlead-tmp-dead"
    path.write_bytes(b"half")
    os.utime(path, (0, 0))
    done = run_task(local_fleet, "collect")
    assert done.outcome["temporary_files"] == 1
    assert not path.exists()


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_collector_that_is_killed_while_it_deletes_is_finished_by_the_next(local_fleet: Fleet, call: int) -> None:
    fleet = local_fleet
    _, kept = fleet.register(FILES, regions=ONE)
    fleet.run()
    needed = objects(fleet)
    abandon(fleet, {"other.bin": b"z" * 70_000})
    collect_all(fleet, rounds=2)

    class DyingStore(CrashingStore):
        """Dies in the n-th delete, which is made where its number is even."""

        deletes = 0

        def delete(self, key: str) -> None:
            DyingStore.deletes += 1
            if DyingStore.deletes >= call:
                if DyingStore.deletes % 2 == 0:
                    self._store.delete(key)
                raise Crash
            self._store.delete(key)

    fleet.wrap = lambda _name, store: DyingStore(store, 10**9)
    Upkeeps(fleet.database, fleet.clock).request(ADMIN, "collect", location="virginia")
    with pytest.raises(Crash):
        fleet.run()
    fleet.wrap = lambda _name, store: store
    assert "DELETING" in states(fleet)
    fleet.clock.advance(BACK_OFF)
    fleet.run()
    assert objects(fleet) == needed
    assert states(fleet) == {"DELETED"}
    assert fleet.read(kept.digest, "virginia") == FILES


def test_who_records_what_is_being_deleted_is_refused_and_reads_again_after_it(fleet: Fleet) -> None:
    key = f"{WORKSPACE}/unrestricted/plain/packs/00/{'0' * 64}.pack"
    place = (WORKSPACE, fleet.location("virginia").id)
    with fleet.database.write() as session:
        garbage.mark(session, *place, [(key, 1, "unreferenced-pack")], now=fleet.clock.now())

    def go_on(state: garbage.GarbageState) -> None:
        with fleet.database.write() as session:
            rows = garbage.list_garbage(session, *place)
            assert garbage.advance(session, *place, rows, state=state, now=fleet.clock.now()) == [key]

    go_on("WITHDRAWN")
    go_on("DELETING")
    with fleet.database.read() as session:
        before = garbage.find_graves(session, *place, fleet.clock.now())
    with pytest.raises(BeingCollected), fleet.database.write() as session:
        garbage.rescue(session, *place, [key], before)
    go_on("DELETED")
    with pytest.raises(BeingCollected), fleet.database.write() as session:
        # It was read before it was deleted, for all that is known.
        garbage.rescue(session, *place, [key], before)
    fleet.clock.advance(garbage.REQUEST_MAX * 1.1)
    with fleet.database.write() as session:
        after = garbage.find_graves(session, *place, fleet.clock.now())
        garbage.rescue(session, *place, [key], after)
        assert garbage.list_garbage(session, *place) == []


def test_a_rescued_object_is_not_moved_on_by_a_collector_that_looked_before(fleet: Fleet) -> None:
    key = f"{WORKSPACE}/unrestricted/plain/packs/00/{'0' * 64}.pack"
    place = (WORKSPACE, fleet.location("virginia").id)
    with fleet.database.write() as session:
        garbage.mark(session, *place, [(key, 1, "unreferenced-pack")], now=fleet.clock.now())
        rows = garbage.list_garbage(session, *place)
        garbage.advance(session, *place, rows, state="WITHDRAWN", now=fleet.clock.now())
        seen = garbage.list_garbage(session, *place)
    with fleet.database.write() as session:
        garbage.rescue(session, *place, [key])
    with fleet.database.write() as session:
        assert garbage.advance(session, *place, seen, state="DELETING", now=fleet.clock.now()) == []


def test_a_mostly_dead_pack_is_taken_apart_and_every_digest_stays(fleet: Fleet) -> None:
    dead = {f"dead-{number}": random.Random(number).randbytes(60_000) for number in range(4)}
    _, big = fleet.register({**FILES, **dead, "weights.bin": BODY[:60_000]}, regions=ONE)
    fleet.run()
    small = {"weights.bin": BODY[:60_000]}
    _, kept = fleet.register(small, regions=ONE)
    fleet.run()
    old_key = fleet.replica(kept.digest, "virginia").layout_key
    forget_replicas(fleet, big.digest)
    collect_all(fleet, rounds=3)
    replica = fleet.replica(kept.digest, "virginia")
    assert replica.layout_key != old_key
    assert "replica.repack" in fleet.actions()
    assert fleet.read(kept.digest, "virginia") == small
    collect_all(fleet)
    assert sum(path.stat().st_size for path in fleet.packs("virginia")) < 100_000
    assert fleet.read(kept.digest, "virginia") == small
    fleet.artifacts.verify(ADMIN, kept.digest)
    fleet.run()
    assert fleet.states(kept.digest) == {"virginia": "VERIFIED"}
    # And what comes next builds on the new pack.
    _, again = fleet.register({**small, "more": b"m"}, regions=ONE)
    assert again.reused_blocks == 1


def test_a_full_disk_during_a_repack_loses_nothing(local_fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = local_fleet
    dead = {"dead": random.Random(1).randbytes(90_000)}
    small = {"weights.bin": BODY[:20_000]}
    _, big = fleet.register({**small, **dead}, regions=ONE)
    fleet.run()
    _, kept = fleet.register(small, regions=ONE)
    fleet.run()
    forget_replicas(fleet, big.digest)
    # One pass marks, so that the dead half is known to be dead, and finds the disk full when it repacks.
    with monkeypatch.context() as patch:
        patch.setattr(local_store.os, "fsync", _no_space)
        full = run_task(fleet, "collect")
    assert "storage-full" in {str(finding["code"]) for finding in full.findings}
    assert fleet.read(kept.digest, "virginia") == small
    run_task(fleet, "collect")
    assert fleet.read(kept.digest, "virginia") == small
    assert "replica.repack" in fleet.actions()


def test_a_failing_store_delays_a_pass_and_ends_it_in_the_end(local_fleet: Fleet) -> None:
    fleet = local_fleet
    fleet.register(FILES, regions=ONE)
    fleet.run()

    def away(_name: str, store: ObjectStore) -> ObjectStore:
        return FaultyStore(store, [Fault(operation="list", call=1, action=Action.DIE)])

    upkeeps = Upkeeps(fleet.database, fleet.clock)
    (asked,) = upkeeps.request(ADMIN, "collect", location="virginia")
    fleet.wrap = away
    for _ in range(4):
        fleet.run()
        fleet.clock.advance(BACK_OFF)
    failed = upkeeps.get(ADMIN, asked.id)
    assert failed.state == "FAILED"
    assert failed.outcome["error"] == {
        "code": "location-unavailable",
        "detail": "The store was told to fail here.",
        "hint": None,
    }


def _no_space(_handle: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def forget_replicas(fleet: Fleet, digest: str | None = None) -> None:
    """As if no policy had wanted them for long."""
    with fleet.database.write() as session:
        query = select(ReplicaRow)
        for row in session.scalars(query if digest is None else query.where(ReplicaRow.artifact_digest == digest)):
            session.delete(row)
            artifact = session.get_one(ArtifactRow, (row.workspace_id, row.residency, row.artifact_digest))
            session.flush()
            session.delete(artifact)


def keep_open(fleet: Fleet, upload_id: str) -> None:
    with fleet.database.write() as session:
        row = session.get_one(UploadRow, (WORKSPACE, upload_id))
        row.expires_at = fleet.clock.now() + timedelta(days=30)
