"""Erasure: after it, no byte of the subject is anywhere that Fairlead keeps, everything else is as it was, and a
certificate says so."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select

from fairlead.app.schema import metadata
from fairlead.core.certificates import verify_certificate
from fairlead.core.errors import BadSignature, ErasureNotFound, InvalidInput, NotReady
from fairlead.core.subjects import Subject
from fairlead.featurestore.erasures import Erasure
from fairlead.registry.paging import PageRequest
from fairlead.sync.inventory import list_objects
from fairlead.sync.store.fetch import BlockUse, iter_blocks
from fairlead.sync.store.pack import read_pack_index
from fairlead.sync.store.refs import public_keys_of
from fairlead.sync.upkeep_duties import UpkeepRules
from tests.featurestore.feature_fleet import FeatureFleet, day, entity_rows, open_feature_fleet
from tests.fleet import ADMIN
from tests.records import WORKSPACE

SUBJECT, MARKER = 4, "NM_007294-of-patient-4"
ROWS = [(patient, number / 2, 10.0 + patient + number) for patient in range(1, 7) for number in range(4)]
GENES = [(patient, 0.0, MARKER if patient == SUBJECT else f"NM_00{patient}") for patient in range(1, 7)]


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[FeatureFleet]:
    with open_feature_fleet(tmp_path, database_url) as opened:
        opened.fleet.upkeep = UpkeepRules()
        opened.cells(ROWS)
        opened.genes(GENES)
        opened.apply(opened.definitions())
        yield opened


def request(fleet: FeatureFleet, value: int = SUBJECT, entity: str = "patient") -> Erasure:
    named = Subject.of({entity: value})
    return fleet.store.erasures.request(
        ADMIN, entities=[entity], salt=named.salt, subject_hash=named.digest, reason="request 2026-117"
    )


def get(fleet: FeatureFleet, erasure: Erasure) -> Erasure:
    return fleet.store.erasures.get(ADMIN, erasure.id)


def finish(fleet: FeatureFleet, erasure: Erasure, rounds: int = 30) -> Erasure:
    """Let days pass, in which the collector takes its steps."""
    for _ in range(rounds):
        fleet.run()
        if get(fleet, erasure).state == "DONE":
            break
        fleet.fleet.clock.advance(fleet.fleet.upkeep.collect_grace)
    found = get(fleet, erasure)
    assert found.state == "DONE", found.missing
    return found


def holds(folder: Path, text: str) -> list[Path]:
    """The files below a folder that hold a text as it is."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def stored_blocks(fleet: FeatureFleet) -> list[bytes]:
    """Every block in every pack of every location, as it was before it was encoded."""
    found: list[bytes] = []
    for name in ("virginia", "eemshaven"):
        location = fleet.fleet.location(name)
        store = fleet.fleet.open_store(location.url, location.options)
        for each in list_objects(store, WORKSPACE):
            if each.kind == "pack" and each.domain is not None and each.digest is not None:
                uses = [BlockUse(block) for block in read_pack_index(store, each.domain, each.digest)]
                found += map(bytes, iter_blocks(store, each.domain, uses, is_decoded=True))
    return found


def values(fleet: FeatureFleet, snapshot: str, region: str = "gcp:europe-west4") -> list[Any]:
    rows = entity_rows([(patient, 9.0) for patient in range(1, 7)])
    joined = fleet.store.historical.join(ADMIN, rows, snapshot=snapshot, region=region)
    return list(zip(joined.rows.column("radius").to_pylist(), joined.rows.column("marker").to_pylist(), strict=True))


def test_a_subject_leaves_every_place_and_nothing_else_changes(fleet: FeatureFleet) -> None:
    first = fleet.snapshot(as_of=day(3))
    fleet.cells([*ROWS, (1, 4.0, 1.5), (SUBJECT, 4.0, 2.5)])
    second = fleet.snapshot(as_of=day(5))
    fleet.store.online.materialize(ADMIN, "diagnosis")
    fleet.fleet.settle()
    fleet.run()
    before = values(fleet, first.digest or "")
    assert holds(fleet.fleet.root / "features", MARKER)
    assert any(MARKER.encode() in block for block in stored_blocks(fleet))

    asked = request(fleet)
    fleet.run()
    # Readers go on, and see it at once.
    after = values(fleet, first.digest or "")
    assert after[SUBJECT - 1] == (None, None)
    assert [each for number, each in enumerate(after) if number != SUBJECT - 1] == [
        each for number, each in enumerate(before) if number != SUBJECT - 1
    ]
    with pytest.raises(NotReady):
        fleet.store.erasures.certificate(ADMIN, asked.id)

    done = finish(fleet, asked)
    assert done.missing == ()
    (fleet.sources / "genes.parquet").unlink()
    assert holds(fleet.fleet.root / "features", MARKER) == []
    assert not any(MARKER.encode() in block for block in stored_blocks(fleet))
    assert MARKER not in str(fleet.store.online.read(ADMIN, "diagnosis", {"patient_id": [SUBJECT]}).rows)
    status = fleet.store.online.read(ADMIN, "diagnosis", {"patient_id": [SUBJECT]}).rows[0]["_status"]
    assert set(status.values()) <= {"not_found", "not_in_region"}
    assert values(fleet, first.digest or "") == after
    # The digest that models pin still names the snapshot, and each part says what it is now.
    found = fleet.store.snapshots.get(ADMIN, second.digest or "")
    assert found.id == second.id
    assert {part.rows for part in found.artifacts} == {21, 5}
    assert all(part.rewritten[0].erasure == asked.id for part in found.artifacts)
    check_certificate(fleet, asked, {first.digest, second.digest})


def check_certificate(fleet: FeatureFleet, asked: Erasure, snapshots: set[str | None]) -> None:
    """It says what was done, and verifies without the server."""
    envelope = fleet.store.erasures.certificate(ADMIN, asked.id)
    keys = public_keys_of([fleet.fleet.signing_key])
    stated = verify_certificate(envelope, keys)
    assert stated["erasure"] == asked.id
    assert stated["rows_removed"] == 4 + 5 + 1
    assert {each["snapshot"] for each in stated["snapshots"]} == snapshots
    assert sorted((each["view"], each["rows_removed"]) for each in stated["artifacts"]) == [
        ("cells", 4),
        ("cells", 5),
        ("genes", 1),
    ]
    assert {(each["region"], each["engine"]) for each in stated["stores"]} == {
        ("aws:us-east-1", "sqlite"),
        ("gcp:europe-west4", "sqlite"),
    }
    assert {each["location"] for each in stated["locations"]} == {"virginia", "eemshaven"}
    assert all(each["checked_at"] for each in stated["locations"])
    assert sum(each["objects_deleted"] for each in stated["locations"]) > 0
    assert stated["not_reached"]
    assert str(SUBJECT) not in str(stated["keys"])
    subject = Subject(keys=tuple(stated["keys"]), salt=stated["salt"], digest=stated["subject_hash"])
    assert subject.is_meant([SUBJECT])
    assert not subject.is_meant([SUBJECT + 1])
    forged = {**envelope, "payload": envelope["payload"][:-8] + "AAAAAAA="}
    for wrong, trusted in ((forged, keys), (envelope, {})):
        with pytest.raises(BadSignature):
            verify_certificate(wrong, trusted)


def test_later_snapshots_leave_the_subject_out_until_it_comes_back(fleet: FeatureFleet) -> None:
    asked = request(fleet)
    fleet.run()
    later = fleet.snapshot()
    assert {part.view: part.rows for part in later.artifacts} == {"cells": 20, "genes": 5}
    fleet.fleet.clock.advance(fleet.fleet.upkeep.collect_grace)
    fleet.cells([*ROWS, (SUBJECT, 10.5, 3.0)])
    again = fleet.snapshot()
    assert {part.view: part.rows for part in again.artifacts}["cells"] == 21
    assert finish(fleet, asked).rows_removed == 0


def test_two_subjects_at_once_both_leave(fleet: FeatureFleet) -> None:
    taken = fleet.snapshot(as_of=day(3))
    asked = [request(fleet), request(fleet, 5)]
    for each in asked:
        assert finish(fleet, each).rows_removed == 5
    rows = {part.view: part.rows for part in fleet.store.snapshots.get(ADMIN, taken.id).artifacts}
    assert rows == {"cells": 16, "genes": 4}
    assert values(fleet, taken.digest or "")[3:5] == [(None, None)] * 2
    assert not any(MARKER.encode() in block for block in stored_blocks(fleet))


def test_what_nobody_knows_is_erased_too_and_a_wrong_name_is_refused(fleet: FeatureFleet) -> None:
    fleet.snapshot(as_of=day(3))
    nobody = request(fleet, 999, entity="patient_id")
    assert finish(fleet, nobody).rows_removed == 0
    assert [each.id for each in fleet.store.erasures.list(ADMIN, PageRequest()).items] == [nobody.id]
    with pytest.raises(InvalidInput):
        request(fleet, entity="nobody")
    with pytest.raises(ErasureNotFound):
        fleet.store.erasures.get(ADMIN, "00000000-0000-7000-8000-000000000000")


def test_nothing_in_the_record_holds_the_value(fleet: FeatureFleet) -> None:
    fleet.genes([(patient, 0.0, f"NM_{patient}") for patient in (1, 2, 77_123_457)])
    fleet.snapshot(as_of=day(3))
    asked = request(fleet, 77_123_457)
    finish(fleet, asked)
    with fleet.fleet.database.read() as session:
        there = set(inspect(session.get_bind()).get_table_names())
        for table in metadata().sorted_tables:
            if table.name in there:
                assert "77123457" not in str(session.execute(select(table)).all()), table.name
