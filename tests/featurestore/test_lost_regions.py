"""A region that is lost for good holds no certificate up: it is named there, and cleared before it serves again."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.certificates import verify_certificate
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput
from fairlead.featurestore.erasures import Erasure
from fairlead.featurestore.recorded import feature_rows
from fairlead.registry.audit import Sealer
from fairlead.registry.location_losses import Loss, Losses
from fairlead.sync.record_rows import registry_rows
from fairlead.sync.restoration import restore_record
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.record import RecordCopy
from fairlead.sync.store.refs import key_id_of, public_key_of, public_keys_of
from fairlead.sync.upkeep_duties import UpkeepRules
from fairlead.sync.worker import Worker
from tests.featurestore.feature_fleet import (
    FeatureFleet,
    cells_view,
    day,
    feature_fleet_of,
    genes_view,
    open_feature_fleet,
    patient,
)
from tests.featurestore.feature_fleet import service as service_of
from tests.featurestore.test_erasures import GENES, MARKER, ROWS, SUBJECT, get, holds, request, stored_blocks
from tests.fleet import ADMIN, Fleet
from tests.records import WORKSPACE, migrated_sqlite_file

LOST, STAYS = "aws:us-east-1", "gcp:europe-west4"


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[FeatureFleet]:
    with open_feature_fleet(tmp_path, database_url) as opened:
        opened.fleet.upkeep = UpkeepRules()
        opened.cells(ROWS)
        opened.genes(GENES)
        sources = opened.sources
        views = [
            cells_view(sources / "cells.parquet"),
            genes_view(sources / "genes.parquet", residency="unrestricted"),
        ]
        opened.apply([patient(), *views, service_of()])
        yield opened


def worker_of(fleet: FeatureFleet, region: str) -> Worker:
    duties = fleet.fleet.duties
    return Worker(
        fleet.fleet.database,
        fleet.fleet.clock,
        regions=[region],
        handlers={**duties.handlers, **fleet.store.handlers},
        derivers=[*duties.derivers, *fleet.store.derivers([region])],
    )


def run_alone(fleet: FeatureFleet, region: str, rounds: int = 8) -> None:
    """The workers of one region, for as many days as the collector needs."""
    here = worker_of(fleet, region)
    for _ in range(rounds):
        here.run_until_idle()
        fleet.fleet.clock.advance(fleet.fleet.upkeep.collect_grace)


def give_up(fleet: FeatureFleet, name: str = "virginia", reason: str = "the data centre burnt down") -> Loss:
    return Losses(fleet.fleet.database, fleet.fleet.clock).give_up(ADMIN, name, reason=reason, has_region=True)


def certificate(fleet: FeatureFleet, asked: Erasure) -> Mapping[str, Any]:
    envelope = fleet.store.erasures.certificate(ADMIN, asked.id)
    return verify_certificate(envelope, public_keys_of([fleet.fleet.signing_key]))


def test_what_is_lost_is_certified_as_lost_and_cleared_when_it_comes_back(fleet: FeatureFleet) -> None:
    fleet.snapshot(as_of=day(3))
    fleet.store.online.materialize(ADMIN, "diagnosis")
    fleet.fleet.settle()
    fleet.run()
    lost = fleet.fleet.location("virginia")
    asked = request(fleet)
    folder, away = fleet.fleet.root / "virginia", fleet.fleet.root / "away"
    run_alone(fleet, STAYS)
    folder.rename(away)
    assert get(fleet, asked).state == "RUNNING"
    with pytest.raises(InvalidInput):
        give_up(fleet, reason=" ")
    said = give_up(fleet)
    assert (said.location.state, said.has_region, said.artifact_count) == ("RETIRED", True, 0)
    assert give_up(fleet).lost_at == said.lost_at
    run_alone(fleet, STAYS)
    found = get(fleet, asked)
    assert found.state == "DONE", found.missing
    stated = certificate(fleet, asked)
    (given_up,) = stated["given_up"]
    assert given_up["location"] == "virginia"
    assert given_up["given_up_by"] == ADMIN.principal
    assert given_up["reason"] == "the data centre burnt down"
    assert (given_up["bytes"], given_up["cleared_at"]) == ("not rewritten", None)
    assert {each["region"] for each in stated["stores"] if each.get("given_up")} == {LOST}
    assert [each["location"] for each in stated["locations"]] == ["eemshaven"]

    # It was not lost after all: nothing of it serves before the subject has left it too.
    away.rename(folder)
    added = fleet.fleet.locations.add(ADMIN, name="virginia", region=LOST, url=lost.url)
    assert (added.state, added.id != lost.id) == ("WARMING", True)
    assert any(MARKER.encode() in block for block in stored_blocks(fleet))
    for _ in range(8):
        fleet.run()
        state = fleet.fleet.location("virginia").state
        assert state == "WARMING" or not any(MARKER.encode() in block for block in stored_blocks(fleet))
        fleet.fleet.clock.advance(fleet.fleet.upkeep.collect_grace)
    assert fleet.fleet.location("virginia").state == "ACTIVE"
    (fleet.sources / "genes.parquet").unlink()
    assert holds(fleet.fleet.root / "features", MARKER) == []
    again = certificate(fleet, asked)
    assert again["given_up"][0]["cleared_at"]
    assert {each["location"] for each in again["locations"]} == {"virginia", "eemshaven"}
    assert not [each for each in again["stores"] if each.get("given_up")]
    read = fleet.store.online.read(ADMIN, "diagnosis", {"patient_id": [SUBJECT]}, region=LOST)
    assert set(read.rows[0]["_status"].values()) == {"not_found"}


def test_an_artifact_that_only_the_lost_location_had_is_named(fleet: FeatureFleet) -> None:
    taken = fleet.store.snapshots.take(ADMIN, "diagnosis", as_of=day(3))
    worker_of(fleet, STAYS).run_until_idle()
    parts = fleet.store.snapshots.get(ADMIN, taken.id).artifacts
    assert {part.region for part in parts} == {STAYS}
    asked = request(fleet)
    waiting = fleet.store.snapshots.take(ADMIN, "diagnosis", as_of=day(4))
    said = give_up(fleet, "eemshaven")
    assert set(said.artifacts) == {part.digest for part in parts}
    run_alone(fleet, LOST)
    found = get(fleet, asked)
    assert found.state == "DONE", found.missing
    assert {each["digest"] for each in certificate(fleet, asked)["lost"]} == set(said.artifacts)
    assert fleet.store.snapshots.get(ADMIN, waiting.id).state == "FAILED"


def test_a_registry_that_is_restored_knows_what_was_given_up(fleet: FeatureFleet, tmp_path: Path) -> None:
    fleet.fleet.record_sources = (registry_rows, feature_rows)
    fleet.snapshot(as_of=day(3))
    fleet.fleet.settle()
    lost = fleet.fleet.location("virginia")
    asked = request(fleet)
    folder, away = fleet.fleet.root / "virginia", fleet.fleet.root / "away"
    folder.rename(away)
    give_up(fleet)
    run_alone(fleet, STAYS)
    assert get(fleet, asked).state == "DONE"
    stated = certificate(fleet, asked)
    Sealer(fleet.fleet.database, fleet.fleet.clock).seal_once()
    fleet.fleet.clock.advance(timedelta(seconds=6))
    fleet.fleet.settle()

    path = tmp_path / "restored.db"
    path.write_bytes(migrated_sqlite_file())
    database = Database(f"sqlite:///{path}")
    try:
        key = public_key_of(fleet.fleet.signing_key)
        store = open_store(fleet.fleet.folder("eemshaven").as_uri())
        copy = RecordCopy.open(store, WORKSPACE, {key_id_of(key): key}, seen_sequence=0)
        restore_record(database, fleet.fleet.clock, [copy])
        restored = Fleet(
            root=fleet.fleet.root,
            database=database,
            clock=fleet.fleet.clock,
            signing_key=fleet.fleet.signing_key,
            upkeep=fleet.fleet.upkeep,
        )
        again = feature_fleet_of(restored, tmp_path / "restored")
        assert certificate(again, asked) == stated
        away.rename(folder)
        assert restored.locations.add(ADMIN, name="virginia", region=LOST, url=lost.url).state == "WARMING"
        for _ in range(8):
            again.run()
            restored.clock.advance(restored.upkeep.collect_grace)
        assert restored.location("virginia").state == "ACTIVE"
        assert not any(MARKER.encode() in block for block in stored_blocks(again))
        now = certificate(again, asked)
        assert now["given_up"][0]["cleared_at"]
        assert {each["location"] for each in now["locations"]} == {"virginia", "eemshaven"}
    finally:
        database.close()
