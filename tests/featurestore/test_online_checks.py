"""Checks find every difference that is planted, tell no restricted value, and measure skew of what was served."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fairlead.core.errors import FeatureCheckNotFound, InvalidInput, NotReady
from fairlead.featurestore.online_checks import ONLINE_CHECK, OnlineCheck
from fairlead.featurestore.online_engines import StoreName
from fairlead.featurestore.online_reader import ViewColumns
from fairlead.featurestore.served_log import ServedFolder, ServedLog
from fairlead.sync.worker import Worker
from tests.featurestore.feature_fleet import FeatureFleet, open_feature_fleet, service
from tests.fleet import ADMIN, REGIONS

parquet: Any = pq
US, EU = REGIONS["virginia"], REGIONS["eemshaven"]
PATIENTS = 30


@contextlib.contextmanager
def open_world(folder: Path, url: str | None = None) -> Generator[FeatureFleet]:
    with open_feature_fleet(folder, url) as fleet:
        fleet.cells([(each, 1.0, each / 2) for each in range(PATIENTS)])
        fleet.genes([(each, 1.0, f"marker {each}") for each in range(PATIENTS)])
        fleet.apply(fleet.definitions(ttl=None))
        fleet.snapshot()
        fleet.store.online.materialize(ADMIN, "diagnosis")
        fleet.run()
        yield fleet


@pytest.fixture
def world_on_each_database(database_url: str, tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_world(tmp_path, database_url) as world:
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_world(tmp_path) as world:
        yield world


def check(world: FeatureFleet, **settings: Any) -> OnlineCheck:
    kind: Any = settings.pop("kind", "parity")
    defaults: dict[str, Any] = {"sample": 1000, "seed": "s"} if kind == "parity" else {"psi": 0.2, "ks": 0.2}
    started = world.store.checks.start(
        ADMIN, kind, "diagnosis", snapshot=settings.pop("snapshot", None), settings=defaults | settings
    )
    assert not started.is_done
    world.run()
    found = world.store.checks.get(ADMIN, started.id)
    assert found.is_done
    return found


def plant(world: FeatureFleet, region: str, statement: str) -> None:
    """Change a region's store behind its back."""
    name = StoreName(workspace_id=ADMIN.workspace_id, service="diagnosis", region=region)
    path = str(world.store.online_engines.of(region).address(name))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(statement)


PLANTED = {
    "value": "UPDATE view_0 SET f0 = 99 WHERE k0 = 7",
    "missing": "DELETE FROM view_0 WHERE k0 = 8",
    "extra": "INSERT INTO view_0 SELECT 7000, event_timestamp, created_timestamp, f0 FROM view_0 WHERE k0 = 1",
    "stale": "UPDATE view_0 SET event_timestamp = event_timestamp - 1 WHERE k0 = 9",
    "ahead": "UPDATE view_0 SET event_timestamp = event_timestamp + 1 WHERE k0 = 10",
    "type": "UPDATE view_0 SET f0 = CAST(f0 AS INTEGER) WHERE k0 = 12",
}


def test_every_kind_of_difference_is_found_and_named(world_on_each_database: FeatureFleet) -> None:
    world = world_on_each_database
    found = check(world)
    assert found.problems == ()
    views = {(each.region, view["view"]): view for each in found.regions for view in (each.findings or {})["views"]}
    assert views.keys() == {(US, "cells"), (EU, "cells"), (EU, "genes")}
    assert {view["sampled"] for view in views.values()} == {PATIENTS}
    assert views[US, "cells"]["fingerprint"] == views[EU, "cells"]["fingerprint"]

    plant(world, US, ";".join(PLANTED.values()))
    found = check(world)
    said, disagreement = found.problems
    assert said == f"{US}, cells: 1 value, 1 type, 1 missing, 1 extra, 1 stale, 1 ahead of 31 sampled"
    assert disagreement == f"cells is not the same in {US} and {EU}"
    (region,) = (each for each in found.regions if each.region == US)
    (view,) = (region.findings or {})["views"]
    examples = {each["kind"]: (each["key"], each["feature"]) for each in view["examples"]}
    assert examples == {
        "value": ([7], "radius"),
        "missing": ([8], None),
        "extra": ([7000], None),
        "stale": ([9], None),
        "ahead": ([10], None),
        "type": ([12], "radius"),
    }


@pytest.mark.parametrize(
    ("statement", "view"),
    [
        ("DELETE FROM views WHERE alias = 'cells'", "cells"),
        ("UPDATE views SET ttl_microseconds = 1 WHERE alias = 'cells'", "cells"),
        ("UPDATE views SET features = replace(features, 'FLOAT', 'STRING') WHERE alias = 'cells'", "cells"),
        # What may not be in the region.
        ("UPDATE views SET is_missing = 0 WHERE alias = 'genes'", "genes"),
    ],
)
def test_a_view_that_is_described_otherwise_is_found(world: FeatureFleet, statement: str, view: str) -> None:
    plant(world, US, statement)
    assert f"{US} describes {view} otherwise than the snapshot" in check(world).problems


def test_a_store_of_another_snapshot_is_found(world: FeatureFleet) -> None:
    plant(world, US, "UPDATE meta SET value = 'sha256:other' WHERE key = 'snapshot'")
    started = world.store.checks.start(ADMIN, "parity", "diagnosis", settings={"sample": 10, "seed": "s"})
    # A whole worker would first notice by itself, and make the store again.
    handlers = {ONLINE_CHECK: world.store.handlers[ONLINE_CHECK]}
    Worker(world.fleet.database, world.fleet.clock, regions=None, handlers=handlers, derivers=[]).run_until_idle()
    found = world.store.checks.get(ADMIN, started.id)
    assert any("serves sha256:other, not sha256:" in each for each in found.problems)


def test_values_and_keys_of_restricted_views_stay_in_their_region(world: FeatureFleet) -> None:
    plant(world, EU, "UPDATE view_1 SET f0 = 'somebody else' WHERE k0 = 7")
    found = check(world)
    assert found.problems == (f"{EU}, genes: 1 value of {PATIENTS} sampled",)
    (region,) = (each for each in found.regions if each.region == EU)
    (view,) = (each for each in (region.findings or {})["views"] if each["view"] == "genes")
    assert (view["examples"], view["fingerprint"]) == ([], None)
    assert "somebody" not in json.dumps(region.findings)
    assert "marker" not in json.dumps(view)


def test_a_sample_is_the_same_for_the_same_seed_and_of_about_the_size_that_was_asked_for(world: FeatureFleet) -> None:
    def sampled(seed: str, size: int) -> tuple[int, str]:
        (region,) = (each for each in check(world, sample=size, seed=seed).regions if each.region == US)
        (view,) = (region.findings or {})["views"]
        return view["sampled"], view["fingerprint"]

    assert sampled("a", 8) == sampled("a", 8)
    assert sampled("a", 8) != sampled("b", 8)
    assert 1 <= sampled("a", 8)[0] < PATIENTS


def test_what_was_served_is_compared_with_the_training_snapshot(world: FeatureFleet, tmp_path: Path) -> None:
    folder = ServedFolder(root=tmp_path / "features" / "served")
    assert check(world, kind="skew").problems == (
        "no region has noted what it served: fairlead features serve --log-features SHARE",
    )
    for radii in ([each / 2 for each in range(PATIENTS)], [100.0] * 60):
        log = ServedLog(folder, region=US, workspace_id=ADMIN.workspace_id, share=1.0)
        columns = {"radius": [*radii]}
        statuses = ["present"] * len(radii)
        log.note("diagnosis", "sha256:s", [ViewColumns("cells", statuses, [0] * len(radii), columns)])
        log.close()
        found = check(world, kind="skew")
        (region,) = (each for each in found.regions if each.region == US)
        (feature,) = (region.findings or {})["features"]
        assert (feature["view"], feature["feature"], feature["expected"]) == ("cells", "radius", PATIENTS)
        if len(radii) == PATIENTS:
            assert (feature["psi"], feature["is_over"], found.problems) == (pytest.approx(0.0, abs=1e-6), False, ())
    assert feature["psi"] > 0.2
    assert feature["ks"] == pytest.approx(60 / 90, abs=0.05)
    assert found.problems == (f"{US}: cells:radius is skewed",)


def test_logs_of_what_was_served_are_bounded_and_hold_no_keys(tmp_path: Path) -> None:
    folder = ServedFolder(root=tmp_path)
    for _ in range(3):
        log = ServedLog(folder, region=US, workspace_id="w", share=1.0, max_bytes=1)
        log.note("diagnosis", "sha256:s", [ViewColumns("cells", ["present"], [0], {"radius": [1.0]})])
        log.close()
    assert folder.files(US, "w", "diagnosis") == []  # each file alone is larger than what may be kept
    log = ServedLog(folder, region=US, workspace_id="w", share=1.0)
    log.note("diagnosis", "sha256:s", [ViewColumns("cells", ["present"], [0], {"radius": [1.0]})])
    log.close()
    (path,) = folder.files(US, "w", "diagnosis")
    assert parquet.read_table(path).column_names == ["radius", "__served_at", "__snapshot"]
    nobody = folder.of(US, "w", "asked for no longer")
    nobody.mkdir()
    for number, name in enumerate(("old.parquet", "old.draft", "new.parquet")):
        (nobody / name).write_bytes(b"")
        if number < 2:
            os.utime(nobody / name, (0, 0))
    nothing = ServedLog(folder, region=US, workspace_id="w", share=0.0)
    nothing.note("other", "sha256:s", [ViewColumns("cells", ["present"], [0], {"radius": [1.0]})])
    nothing.close()
    assert folder.files(US, "w", "other") == []
    assert [each.name for each in nobody.iterdir()] == ["new.parquet"]


def test_what_cannot_be_checked_is_refused(world: FeatureFleet) -> None:
    with pytest.raises(FeatureCheckNotFound):
        world.store.checks.get(ADMIN, "nothing")
    other = world.store.online.states(ADMIN, "diagnosis")[0].snapshot
    world.apply([service("second")])
    with pytest.raises(InvalidInput, match="is of 'diagnosis'"):
        world.store.checks.start(ADMIN, "parity", "second", snapshot=other, settings={"sample": 1, "seed": ""})
    world.snapshot("second")
    with pytest.raises(NotReady, match="No region serves"):
        world.store.checks.start(ADMIN, "parity", "second", settings={"sample": 1, "seed": ""})
