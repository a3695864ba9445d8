"""A scrub finds whatever is not what it should be, and has it mended from another replica."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.core.ids import digest_hex
from fairlead.registry.audit import Sealer
from fairlead.registry.tables import LocationRow
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.refs import generate_signing_key, refs_key
from fairlead.sync.store.writer import WrittenArtifact
from fairlead.sync.upkeep_duties import UpkeepRules
from fairlead.testing.objects import FaultyStore
from tests.fleet import ADMIN, Fleet, flip_a_byte, open_fleet
from tests.records import WORKSPACE
from tests.sync.test_collection import run_task

BODY = random.Random(7).randbytes(150_000)
FILES = {"weights.bin": BODY, "config.json": b"{}"}
NAMES = ("virginia", "eemshaven")


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=NAMES) as fleet:
        yield fleet


@pytest.fixture
def written(fleet: Fleet) -> WrittenArtifact:
    _, written = fleet.register(FILES)
    fleet.run()
    return written


def path_of(fleet: Fleet, written: WrittenArtifact, kind: str, name: str = "virginia") -> Path:
    root = fleet.folder(name) / WORKSPACE / "unrestricted" / "plain"
    digits = digest_hex(written.digest)
    if kind == "pack":
        return fleet.packs(name)[0]
    if kind == "manifest":
        return root / "manifests" / f"{digits}.json"
    return fleet.folder(name) / (fleet.replica(written.digest, name).layout_key or "")


@pytest.mark.parametrize("kind", ["pack", "layout", "manifest"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "missing", "swapped"])
def test_every_harm_to_every_object_is_found_and_healed(
    fleet: Fleet, written: WrittenArtifact, kind: str, harm: str
) -> None:
    path = path_of(fleet, written, kind)
    if harm == "flipped":
        flip_a_byte(path)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif harm == "missing":
        path.unlink()
    else:
        _, other = fleet.register({"other.bin": os.urandom(2_000)})
        fleet.run()
        packs = [pack for pack in fleet.packs("virginia") if pack != path]
        path.write_bytes((packs[0] if kind == "pack" else path_of(fleet, other, kind)).read_bytes())

    done = run_task(fleet, "scrub")

    (finding,) = done.findings
    assert finding["object"] == path.relative_to(fleet.folder("virginia")).as_posix()
    assert finding["harm"] == harm
    assert finding["code"] == ("object-not-found" if harm == "missing" else f"corrupt-{kind}")
    assert finding["artifacts"] == [written.digest]
    assert finding["action"] == "being mended from another replica"
    assert fleet.states(written.digest)["virginia"] == "VERIFIED"
    assert fleet.read(written.digest, "virginia") == FILES
    assert run_task(fleet, "scrub").outcome["damaged"] in {0, 1}, "what was superseded by mending may lie there yet"
    assert fleet.artifact(written.digest).replicas[0].state == "VERIFIED"


def test_a_location_that_was_rolled_back_is_found_out(fleet: Fleet, written: WrittenArtifact) -> None:
    # A newer layout was in use; somebody restored the bucket as it was before it.
    flip_a_byte(fleet.packs("virginia")[0])
    run_task(fleet, "scrub")
    newer = path_of(fleet, written, "layout")
    assert newer.name.startswith("0000000002-")
    newer.unlink()
    (finding,) = [each for each in run_task(fleet, "scrub").findings if each["harm"] == "rolled-back"]
    assert finding["object"] == newer.relative_to(fleet.folder("virginia")).as_posix()
    assert fleet.read(written.digest, "virginia") == FILES


def test_old_refs_in_place_of_new_ones_are_found_out_and_written_again(fleet: Fleet, written: WrittenArtifact) -> None:
    assert written.digest
    with fleet.database.write() as session:
        location_id = fleet.location("virginia").id
        session.get_one(LocationRow, (WORKSPACE, location_id)).published_refs_revision = 5
    store = open_store(fleet.location("virginia").url)
    store.write(refs_key(WORKSPACE, 4), b"an older set")
    done = run_task(fleet, "scrub", is_dry_run=True)
    assert [(each["code"], each["harm"]) for each in done.findings] == [("stale-revision", "rolled-back")]
    store.write(refs_key(WORKSPACE, 5), b"not what was signed")
    done = run_task(fleet, "scrub")
    assert [(each["code"], each["action"]) for each in done.findings] == [("bad-signature", "written again")]
    with fleet.database.read() as session:
        assert session.get_one(LocationRow, (WORKSPACE, location_id)).published_refs_revision == -1


def test_what_a_former_key_signed_counts_for_as_long_as_that_is_believed(
    fleet: Fleet, written: WrittenArtifact
) -> None:
    assert written.digest
    Sealer(fleet.database, fleet.clock).seal_once()
    fleet.settle()
    former, fleet.signing_key = fleet.signing_key, generate_signing_key()
    fleet.former_signing_keys = (former,)
    assert run_task(fleet, "scrub").findings == []
    fleet.former_signing_keys = ()
    done = run_task(fleet, "scrub")
    assert {(each["code"], each["action"]) for each in done.findings} == {("bad-signature", "written again")}
    fleet.settle()
    assert run_task(fleet, "scrub").findings == []


def test_a_pack_that_several_artifacts_share_is_read_once_and_all_of_them_are_mended(fleet: Fleet) -> None:
    made = [fleet.register(FILES)[1]]
    fleet.run()
    made += [fleet.register({**FILES, "config.json": b"%d" % number})[1] for number in range(2)]
    fleet.run()
    shared = max(fleet.packs("virginia"), key=lambda path: path.stat().st_size)
    flip_a_byte(shared)
    store = FaultyStore(open_store(fleet.location("virginia").url), [])
    fleet.wrap = lambda name, opened: store if name == "virginia" else opened
    looked = run_task(fleet, "scrub", is_dry_run=True)
    assert looked.outcome["packs_read"] == len(fleet.packs("virginia"))
    fleet.wrap = lambda _name, opened: opened
    (finding,) = run_task(fleet, "scrub").findings
    assert finding["artifacts"] == sorted(each.digest for each in made)
    for each in made:
        assert fleet.read(each.digest, "virginia")["weights.bin"] == BODY


def test_without_another_replica_the_finding_says_what_to_do(fleet: Fleet) -> None:
    fleet.register(FILES, regions=["aws:us-east-1"])
    fleet.run()
    flip_a_byte(fleet.packs("virginia")[0])
    (finding,) = run_task(fleet, "scrub").findings
    assert finding["action"] == "no other replica is VERIFIED: register the files again"


def test_foreign_objects_and_damaged_leftovers_are_told_of_and_left_alone(
    fleet: Fleet, written: WrittenArtifact
) -> None:
    root = fleet.folder("virginia") / WORKSPACE / "unrestricted" / "plain"
    (root / "README").write_text("mine")
    fleet.write(fleet.begin(near="virginia"), {"left": os.urandom(500)})
    left = min(fleet.packs("virginia"), key=lambda path: path.stat().st_size)
    flip_a_byte(left)
    found = {str(each["code"]): each for each in run_task(fleet, "scrub").findings}
    assert found["foreign-object"]["action"] == "left alone"
    assert found["corrupt-pack"]["action"] == "nothing stands on it: left for collection"
    assert fleet.states(written.digest)["virginia"] == "VERIFIED"


def test_slices_together_read_everything_once(fleet: Fleet) -> None:
    for number in range(6):
        fleet.register({"weights.bin": os.urandom(3_000), "number": b"%d" % number}, regions=["aws:us-east-1"])
    fleet.run()
    whole = run_task(fleet, "scrub")
    parts = [run_task(fleet, "scrub", slice=number, of=3) for number in (1, 2, 3)]
    assert sum(part.checked_objects for part in parts) == whole.checked_objects == 18
    assert all(part.checked_objects < 18 for part in parts)
    assert run_task(fleet, "scrub", sample=0.0).checked_objects == 0


def test_the_calendar_reads_one_slice_a_day_and_leaves_none_out(fleet: Fleet) -> None:
    fleet.upkeep = UpkeepRules(scrub_days=3)
    _, written = fleet.register(FILES)
    fleet.run()
    (first,) = fleet.packs("virginia")
    flip_a_byte(first)
    for _ in range(3):
        fleet.clock.advance(timedelta(days=1, minutes=1))
        fleet.run()
    assert fleet.actions().count("replica.corrupt") == 1
    assert fleet.read(written.digest, "virginia") == FILES
    # Two days of absence put the rest off, and leave nothing out.
    flip_a_byte(max((path for path in fleet.packs("virginia") if path != first), key=lambda path: path.stat().st_size))
    fleet.clock.advance(timedelta(days=2))
    fleet.run()
    for _ in range(2):
        fleet.clock.advance(timedelta(days=1, minutes=1))
        fleet.run()
    assert fleet.actions().count("replica.corrupt") == 2


def test_a_whole_scrub_says_of_every_sound_replica_that_it_was_read(fleet: Fleet, written: WrittenArtifact) -> None:
    before = fleet.replica(written.digest, "virginia").verified_at
    fleet.clock.advance(timedelta(hours=1))
    run_task(fleet, "scrub")
    after = fleet.replica(written.digest, "virginia").verified_at
    assert before is not None
    assert after is not None
    assert after - before >= timedelta(hours=1)
    assert fleet.artifacts.get(ADMIN, written.digest).replicas[0].error_code is None
