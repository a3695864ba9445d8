from __future__ import annotations

import os
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from fairlead.core.errors import ArtifactNotFound, InvalidDigest, InvalidInput, LocationNotFound, NotReady
from fairlead.core.ids import sha256_digest
from fairlead.registry.replicas import ReplicaKey
from fairlead.registry.tables import ReplicaRow, WorkRow
from tests.fleet import ADMIN, Fleet, open_fleet
from tests.records import WORKSPACE

FILES = {"model.bin": os.urandom(50_000)}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia", "amsterdam")) as fleet:
        yield fleet


def test_an_artifact_should_be_wherever_residency_and_its_regions_permit(fleet: Fleet) -> None:
    fleet.add("eemshaven")
    _, anywhere = fleet.register({"a": b"1"})
    _, in_europe = fleet.register({"a": b"2"}, residency="eu", near="amsterdam")
    _, in_one = fleet.register({"a": b"3"}, regions=["gcp:europe-west4"])
    fleet.run()
    assert set(fleet.states(anywhere.digest)) == {"virginia", "amsterdam", "eemshaven"}
    assert set(fleet.states(in_europe.digest)) == {"amsterdam", "eemshaven"}
    assert set(fleet.states(in_one.digest)) == {"eemshaven"}


def test_a_location_that_is_added_later_is_filled(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    _, restricted = fleet.register({"a": b"us"}, residency="us")
    worker = fleet.worker()
    worker.run_until_idle()
    fleet.add("eemshaven")
    worker.run_until_idle()
    assert fleet.read(written.digest, "eemshaven") == FILES
    assert set(fleet.states(restricted.digest)) == {"virginia"}


def test_an_artifact_that_is_uploaded_again_for_more_regions_goes_there_too(fleet: Fleet) -> None:
    _, written = fleet.register(FILES, regions=["aws:us-east-1"])
    fleet.run()
    assert set(fleet.states(written.digest)) == {"virginia"}
    fleet.register(FILES, regions=["azure:westeurope"], near="amsterdam")
    fleet.run()
    assert fleet.states(written.digest) == {"virginia": "VERIFIED", "amsterdam": "VERIFIED"}


def test_replica_rows_and_work_that_were_lost_are_derived_again(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    with fleet.database.write() as session:
        for row in session.scalars(select(ReplicaRow)):
            if row.location_id == fleet.replica(written.digest, "amsterdam").location.id:
                session.delete(row)
    assert set(fleet.states(written.digest)) == {"virginia"}
    fleet.run()
    assert fleet.states(written.digest) == {"virginia": "VERIFIED", "amsterdam": "VERIFIED"}


def test_a_reported_replica_is_out_of_service_at_once_and_mending_is_asked_for(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    fleet.artifacts.report(ADMIN, written.digest, location="virginia", code="corrupt-block")
    fleet.artifacts.report(ADMIN, written.digest, location="virginia", code="corrupt-block")
    assert fleet.states(written.digest) == {"virginia": "CORRUPT", "amsterdam": "VERIFIED"}
    assert fleet.replica(written.digest, "virginia").error_code == "corrupt-block"
    assert fleet.count(WorkRow) == 1
    assert fleet.actions().count("replica.report") == 1


def test_a_report_that_was_wrong_moves_no_bytes(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    fleet.artifacts.report(ADMIN, written.digest, location="virginia", code="corrupt-block")
    fleet.run()
    assert fleet.states(written.digest) == {"virginia": "VERIFIED", "amsterdam": "VERIFIED"}
    assert fleet.ledger("repair") == []


def test_reports_of_what_does_not_exist_are_refused(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    report = fleet.artifacts.report
    with pytest.raises(InvalidInput):
        report(ADMIN, written.digest, location="virginia", code="location-unavailable")
    with pytest.raises(LocationNotFound):
        report(ADMIN, written.digest, location="paris", code="corrupt-block")
    with pytest.raises(ArtifactNotFound):
        report(ADMIN, sha256_digest(b"?"), location="virginia", code="corrupt-block")
    with pytest.raises(InvalidDigest):
        report(ADMIN, "sha256:", location="virginia", code="corrupt-block")


def test_verifying_reads_every_replica_again(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    fleet.clock.advance(timedelta(hours=1))
    asked_at = fleet.clock.now()
    fleet.artifacts.verify(ADMIN, written.digest)
    fleet.run()
    for name in ("virginia", "amsterdam"):
        verified_at = fleet.replica(written.digest, name).verified_at
        assert verified_at is not None
        assert verified_at >= asked_at


def test_there_is_nothing_to_verify_before_bytes_were_read_back_once(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    with pytest.raises(ArtifactNotFound):
        fleet.artifacts.verify(ADMIN, written.digest)
    fleet.run()
    fleet.artifacts.report(ADMIN, written.digest, location="virginia", code="corrupt-pack")
    with pytest.raises(NotReady):
        fleet.artifacts.verify(ADMIN, written.digest, location="virginia")


def test_a_subject_names_its_replica() -> None:
    key = ReplicaKey(workspace_id=WORKSPACE, residency="eu", artifact_digest=sha256_digest(b"x"), location_id="0197-x")
    assert ReplicaKey.from_subject(WORKSPACE, key.subject) == key
