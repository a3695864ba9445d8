"""Erasure: after it, no byte of the subject is anywhere that Fairlead keeps, everything else is as it was, and a
certificate says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select

from fairlead.app.schema import metadata
from fairlead.core.canonical import canonical_json
from fairlead.core.certificates import verify_certificate
from fairlead.core.errors import BadSignature, ErasureNotFound, InvalidInput, NotReady
from fairlead.core.ids import sha256_digest
from fairlead.core.subjects import Subject
from fairlead.featurestore import stored_rows
from fairlead.featurestore.erasures import Erasure
from fairlead.featurestore.recorded import feature_rows
from fairlead.featurestore.rewritings import rewritings
from fairlead.featurestore.served_log import ServedFolder
from fairlead.featurestore.snapshots import record_of
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.featurestore.tables_erasures import ErasedArtifactRow
from fairlead.registry.models import Labels, Models
from fairlead.registry.paging import PageRequest
from fairlead.registry.tables import ArtifactRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.sync.inventory import list_objects
from fairlead.sync.store.fetch import BlockUse, iter_blocks
from fairlead.sync.store.pack import read_pack_index
from fairlead.sync.store.refs import public_keys_of
from fairlead.sync.upkeep_duties import UpkeepRules
from tests.featurestore.feature_fleet import FeatureFleet, day, entity_rows, open_feature_fleet, patient
from tests.fleet import ADMIN, LABELS
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
    assert digest_of_first_record(fleet, second.id) == second.digest
    check_certificate(fleet, asked, {first.digest, second.digest})


def digest_of_first_record(fleet: FeatureFleet, snapshot_id: str) -> str:
    """The snapshot's digest, from what it says of itself after erasures."""
    with fleet.fleet.database.read() as session:
        row = session.get_one(SnapshotRow, (WORKSPACE, snapshot_id))
        parts = session.scalars(select(SnapshotPartRow).where(SnapshotPartRow.snapshot_id == snapshot_id)).all()
        for part in parts:
            session.expunge(part)
            taken_out = rewritings(session, row)[part.view, part.residency]
            part.artifact_digest, part.rows_digest = taken_out[0].old_digest, taken_out[0].old_rows_digest
            part.row_count = (part.row_count or 0) + sum(each.rows_removed for each in taken_out)
        return sha256_digest(canonical_json(record_of(row, parts)))


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


def test_models_are_listed_that_could_learn_of_the_subject_and_no_others(
    fleet: FeatureFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_rows, "MOST_DELTA_SHARE", 100.0)
    taught = fleet.snapshot(as_of=day(3))
    fleet.cells([each for each in ROWS if each[0] != SUBJECT])
    fleet.genes([each for each in GENES if each[0] != SUBJECT])
    # Its base holds the subject, and its delta takes the rows out again.
    untaught = fleet.snapshot(as_of=day(4))
    database, clock = fleet.fleet.database, fleet.fleet.clock
    Models(database, clock).create(ADMIN, name="prognosis", labels=Labels(**LABELS))
    for number, snapshot in enumerate((taught, untaught)):
        upload, _ = fleet.fleet.register({"model.bin": b"weights %d" % number})
        draft = VersionDraft(upload_id=upload, feature_service="diagnosis", snapshot_digest=snapshot.digest)
        Versions(database, clock).register(ADMIN, "prognosis", draft)
    before = labels_by_digest(fleet)
    asked = request(fleet)
    fleet.run()
    found = get(fleet, asked)
    assert found.rows_removed == 5
    assert [(each.model, each.version, each.snapshot) for each in found.models] == [("prognosis", 1, taught.digest)]
    with database.read() as session:
        replaced = [row for row in session.scalars(select(ErasedArtifactRow)) if row.state == "REPLACED"]
        assert [row.table for row in feature_rows(session, WORKSPACE)].count("erased_artifacts") == len(replaced)
    assert sorted(row.rows_removed or 0 for row in replaced) == [0, 0, 1, 4]
    # What was written anew are base and delta again, so that later days go on costing what they changed.
    parts = [fleet.store.snapshots.get(ADMIN, each.id).artifacts for each in (taught, untaught)]
    assert [{part.deltas for part in each} for each in parts] == [{0}, {1}]
    finish(fleet, asked)
    assert not any(MARKER.encode() in block for block in stored_blocks(fleet))
    after = labels_by_digest(fleet)
    # Whose they are, and who pays, is said of what takes their place.
    assert all(before[row.digest] and after[row.new_digest or ""] == before[row.digest] for row in replaced)


def labels_by_digest(fleet: FeatureFleet) -> dict[str, Any]:
    with fleet.fleet.database.read() as session:
        return {row.digest: dict(row.labels) for row in session.scalars(select(ArtifactRow))}


def test_a_machine_that_was_away_lets_go_of_its_copies_and_samples(fleet: FeatureFleet) -> None:
    fleet.snapshot(as_of=day(3))
    fleet.store.online.materialize(ADMIN, "diagnosis")
    fleet.fleet.settle()
    fleet.run()
    features = fleet.fleet.root / "features"
    shutil.copytree(features / "rows", fleet.fleet.root / "away")
    samples = ServedFolder(root=features / "served").of("gcp:europe-west4", WORKSPACE, "diagnosis")
    samples.mkdir(parents=True)
    now = fleet.fleet.clock.now().timestamp()
    for name, moment in (("before", now - 5), ("on-its-way", now + 5), ("after", now + 3600)):
        (samples / f"{name}.parquet").write_bytes(b"rows")
        os.utime(samples / f"{name}.parquet", (moment, moment))
    finish(fleet, request(fleet))
    assert [path.name for path in samples.iterdir()] == ["after.parquet"]
    shutil.copytree(fleet.fleet.root / "away", features / "rows", dirs_exist_ok=True)
    fleet.fleet.clock.advance(timedelta(days=30))
    assert holds(features, MARKER)
    fleet.run()
    assert holds(features, MARKER) == []


def test_an_entity_that_had_other_join_keys_is_erased_by_each_of_them(fleet: FeatureFleet) -> None:
    fleet.apply([patient(joinKey="case_id"), *fleet.definitions()[1:]])
    with pytest.raises(InvalidInput, match="case_id, patient_id"):
        request(fleet)
    assert request(fleet, entity="patient_id").keys == ("patient_id",)


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
