"""From definitions to the same answer in every region, and no further than each region may."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.core.errors import NotReady, ReplicaUnavailable, ResidencyViolation
from fairlead.featurestore.online_reader import STATUS, OnlineReader
from tests.featurestore.feature_fleet import FeatureFleet, day, entity_rows, open_feature_fleet
from tests.fleet import ADMIN, REGIONS, flip_a_byte

US, EU = REGIONS["virginia"], REGIONS["eemshaven"]
CELLS = [(1, 0, 1.0), (1, 2, 1.5), (1, 9, 9.0), (2, 0, 2.0), (2, 2, None)]
GENES = [(1, 1, "a"), (1, 8, "leak"), (3, 1, "c")]


@contextlib.contextmanager
def open_world(folder: Path, url: str | None = None) -> Generator[FeatureFleet]:
    with open_feature_fleet(folder, url) as fleet:
        fleet.cells(CELLS)
        fleet.genes(GENES)
        fleet.apply(fleet.definitions())
        yield fleet


@pytest.fixture
def world_on_each_database(database_url: str, tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_world(tmp_path, database_url) as world:
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_world(tmp_path) as world:
        yield world


def test_a_snapshot_is_joined_in_time_and_served_where_its_classes_permit(world_on_each_database: FeatureFleet) -> None:
    world = world_on_each_database
    snapshot = world.snapshot(as_of=day(5))
    assert (snapshot.state, [part.rows for part in snapshot.artifacts]) == ("READY", [4, 2])
    cells, genes = snapshot.artifacts
    assert (cells.statistics or {})["max_event_time"]
    assert genes.statistics == {"rows": 2, "left_out": 0}  # what restricted rows hold stays where they are
    assert world.fleet.states(cells.digest or "") == {"eemshaven": "VERIFIED", "virginia": "VERIFIED"}
    assert world.fleet.states(genes.digest or "") == {"eemshaven": "VERIFIED"}

    # Nothing after a row's own time is seen: not day 2 on day 1, and nothing that the snapshot does not hold.
    entities = entity_rows([(1, 1), (1, 4), (2, 4), (3, 4), (1, 9), (1, 1)], label=[0, 1, 2, 3, 4, 5])
    joined = world.store.historical.join(ADMIN, entities, snapshot=snapshot.digest, region=EU)
    assert joined.rows.column_names == ["patient_id", "event_timestamp", "label", "radius", "marker"]
    assert joined.rows.column("label").to_pylist() == [0, 1, 2, 3, 4, 5]
    assert joined.rows.column("radius").to_pylist() == [1.0, 1.5, None, None, 1.5, 1.0]
    assert joined.rows.column("marker").to_pylist() == ["a", "a", None, "c", "a", "a"]

    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    states = {state.region: state for state in world.store.online.states(ADMIN, "diagnosis")}
    assert {region: (state.state, state.snapshot) for region, state in states.items()} == {
        US: ("READY", snapshot.digest),
        EU: ("READY", snapshot.digest),
    }
    assert (states[US].missing_views, states[US].rows) == (("genes",), 2)
    assert (states[EU].missing_views, states[EU].rows) == ((), 4)

    asked = {"patient_id": [1, 3, 99]}
    in_eu = world.store.online.read(ADMIN, "diagnosis", asked, region=EU)
    in_us = world.store.online.read(ADMIN, "diagnosis", asked, region=US)
    assert in_eu.snapshot == in_us.snapshot == snapshot.digest
    assert [(row["radius"], row["marker"]) for row in in_eu.rows] == [(1.5, "a"), (None, "c"), (None, None)]
    assert [(row["radius"], row["marker"]) for row in in_us.rows] == [(1.5, None), (None, None), (None, None)]
    assert [row[STATUS] for row in in_eu.rows] == [
        {"cells": "present", "genes": "present"},
        {"cells": "not_found", "genes": "present"},
        {"cells": "not_found", "genes": "not_found"},
    ]
    assert [row[STATUS]["genes"] for row in in_us.rows] == ["not_in_region"] * 3


def test_the_same_data_taken_twice_has_the_same_digest(world: FeatureFleet) -> None:
    first, second = world.snapshot(as_of=day(5)), world.snapshot(as_of=day(5))
    assert first.digest == second.digest
    assert first.id != second.id
    later = world.snapshot(as_of=day(6))
    assert later.digest != first.digest
    assert [part.digest for part in later.artifacts] == [part.digest for part in first.artifacts]


def test_restricted_features_are_read_for_no_region_outside(world: FeatureFleet) -> None:
    snapshot = world.snapshot()
    shutil.rmtree(world.fleet.root / "features" / "rows")
    for region in (US, None):
        with pytest.raises(ResidencyViolation, match="residency class 'eu'"):
            world.store.historical.join(ADMIN, entity_rows([(1, 4)]), snapshot=snapshot.digest, region=region)
    # The rows were not even fetched.
    assert not (world.fleet.root / "features" / "rows").exists()


def test_a_newer_snapshot_replaces_the_one_that_is_served(world: FeatureFleet) -> None:
    first = world.snapshot(as_of=day(5))
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    path = Path(world.store.online.address(ADMIN, "diagnosis", EU) or "")
    reader = OnlineReader(path)
    assert reader.read({"patient_id": [1]}, now=day(10))[0] == first.digest
    second = world.snapshot()
    digest, rows = reader.read({"patient_id": [1]}, now=day(10))
    assert (digest, rows[0]["radius"], rows[0]["marker"]) == (second.digest, 9.0, "leak")


def test_a_lost_store_is_made_again(world: FeatureFleet) -> None:
    snapshot = world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    path = Path(world.store.online.address(ADMIN, "diagnosis", EU) or "")
    path.unlink()
    with pytest.raises(ReplicaUnavailable, match="not on this machine"):
        world.store.online.read(ADMIN, "diagnosis", {"patient_id": [1]}, region=EU)
    world.run()
    assert OnlineReader(path).meta["snapshot"] == snapshot.digest


def test_features_older_than_their_ttl_are_not_given_out(world: FeatureFleet) -> None:
    world.snapshot(as_of=day(5))
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    world.fleet.clock.advance(timedelta(days=2))
    (row,) = world.store.online.read(ADMIN, "diagnosis", {"patient_id": [1]}, region=EU).rows
    assert row["radius"] == 1.5  # measured exactly ten days ago
    world.fleet.clock.advance(timedelta(microseconds=1))
    (row,) = world.store.online.read(ADMIN, "diagnosis", {"patient_id": [1]}, region=EU).rows
    assert (row["radius"], row["marker"]) == (None, "a")
    assert row[STATUS] == {"cells": "expired", "genes": "present"}


def test_a_damaged_replica_is_never_joined_and_is_mended_from_another(world: FeatureFleet) -> None:
    snapshot = world.snapshot()
    shutil.rmtree(world.fleet.root / "features" / "rows")
    for pack in world.fleet.packs("virginia"):
        flip_a_byte(pack)
    world.store.online.materialize(ADMIN, "diagnosis", regions=[US])
    world.run()
    world.fleet.settle()
    world.run()
    (state,) = world.store.online.states(ADMIN, "diagnosis")
    assert (state.region, state.state, state.snapshot) == (US, "READY", snapshot.digest)
    assert "replica.report" in world.fleet.actions()


def test_a_service_that_nobody_materialized_says_what_to_do(world: FeatureFleet) -> None:
    with pytest.raises(NotReady, match="fairlead features materialize diagnosis"):
        world.store.online.read(ADMIN, "diagnosis", {"patient_id": [1]})
    with pytest.raises(NotReady, match="fairlead features snapshot diagnosis"):
        world.store.online.materialize(ADMIN, "diagnosis")
