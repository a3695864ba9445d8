"""A feature under a residency class of its own stays inside, and everybody is told what a region lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.core.errors import FeatureDefinitionInvalid, NotReady, ResidencyViolation
from fairlead.featurestore.applied import FeatureObject
from fairlead.featurestore.online_reader import STATUS
from tests.featurestore.feature_fleet import (
    FeatureFleet,
    cells_view,
    day,
    entity_rows,
    open_feature_fleet,
    patient,
    service,
    view_spec,
)
from tests.fleet import ADMIN, REGIONS

arrow: Any = pa
parquet: Any = pq
US, EU = REGIONS["virginia"], REGIONS["eemshaven"]
COLUMNS = [("radius", "FLOAT"), ("ward", "STRING")]


def cells(path: Path, *, ward: str | None = "eu", view: str = "unrestricted", key: str | None = None) -> FeatureObject:
    found = view_spec("cells", COLUMNS, path, tags={"fairlead.residency": view})
    features: Any = found.spec["spec"]["features"]
    if ward is not None:
        features[1]["tags"] = {"fairlead.residency": ward}
    if key is not None:
        found.spec["spec"]["entityColumns"][0]["tags"] = {"fairlead.residency": key}
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        table = {
            "patient_id": arrow.array([1, 1, 1, 2], arrow.int64()),
            # Two rows of patient 1 tie, and their greatest features are in different rows.
            "event_timestamp": arrow.array([day(0), day(2), day(2), day(1)], arrow.timestamp("us", tz="UTC")),
            "radius": [0.5, 1.5, 1.0, 2.0],
            "ward": ["old", "a", "b", None],
        }
        parquet.write_table(arrow.table(table), fleet.sources / "cells.parquet")
        fleet.apply([patient(), cells(fleet.sources / "cells.parquet"), service(views={"cells": COLUMNS})])
        yield fleet


def test_each_class_of_a_view_is_an_artifact_that_stays_inside(world: FeatureFleet) -> None:
    snapshot = world.snapshot(as_of=day(5))
    assert snapshot.state == "READY"
    inside, outside = snapshot.artifacts
    assert (inside.residency, inside.features, inside.rows) == ("eu", ("ward",), 4)
    assert (outside.residency, outside.features, outside.rows) == ("unrestricted", ("radius",), 4)
    assert world.fleet.states(inside.digest or "") == {"eemshaven": "VERIFIED"}
    assert set(world.fleet.states(outside.digest or "")) == {"eemshaven", "virginia"}
    assert inside.statistics == {"rows": 4, "left_out": 0}

    joined = world.store.historical.join(ADMIN, entity_rows([(1, 3), (2, 3), (1, 1)]), service="diagnosis", region=EU)
    # Ties are settled class by class.
    assert joined.rows.column("radius").to_pylist() == [1.5, 2.0, 0.5]
    assert joined.rows.column("ward").to_pylist() == ["b", None, "old"]
    with pytest.raises(ResidencyViolation, match="'eu'"):
        world.store.historical.join(ADMIN, entity_rows([(1, 3)]), service="diagnosis", region=US)


def test_a_region_serves_what_it_may_and_says_what_it_lacks(world: FeatureFleet) -> None:
    snapshot = world.snapshot(as_of=day(5))
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    states = {state.region: state for state in world.store.online.states(ADMIN, "diagnosis")}
    assert (states[EU].snapshot, states[EU].missing_views) == (snapshot.digest, ())
    assert (states[US].snapshot, states[US].missing_views) == (snapshot.digest, ("cells:ward",))
    (here,) = world.store.online.read(ADMIN, "diagnosis", {"patient_id": [1]}, region=EU).rows
    assert (here["radius"], here["ward"], here[STATUS]) == (1.5, "b", {"cells": "present"})
    (there,) = world.store.online.read(ADMIN, "diagnosis", {"patient_id": [1]}, region=US).rows
    assert (there["radius"], there["ward"]) == (1.5, None)
    assert there[STATUS] == {"cells": "present", "cells:ward": "not_in_region"}


def test_a_region_is_given_the_features_that_may_be_there(world: FeatureFleet) -> None:
    snapshot = world.snapshot(as_of=day(5))
    rows = entity_rows([(1, 3), (2, 3)])
    there = world.store.historical.join(ADMIN, rows, service="diagnosis", region=US, leave_out=True)
    assert there.rows.column_names == ["patient_id", "event_timestamp", "radius"]
    assert there.not_in_region == ("ward",)
    for region, absent in ((US, ("ward",)), (EU, ())):
        found = world.store.exports.export(ADMIN, snapshot.digest or "", "cells", region=region, leave_out=True)
        table = parquet.read_table(found.path)
        assert (found.not_in_region, "ward" in table.column_names) == (absent, not absent)
    # Side by side as in joins: the last row of a tie is made of the last of each class.
    assert table.to_pylist()[:3] == [
        {"patient_id": 1, "radius": 0.5, "ward": "old", "event_timestamp": day(0)},
        {"patient_id": 1, "radius": 1.0, "ward": "a", "event_timestamp": day(2)},
        {"patient_id": 1, "radius": 1.5, "ward": "b", "event_timestamp": day(2)},
    ]
    with pytest.raises(ResidencyViolation, match="'eu'"):
        world.store.exports.export(ADMIN, snapshot.digest or "", "cells", region=US)
    compiled = {
        region: {view.features[0].name if len(view.features) == 1 else "both" for view in registry_views(world, region)}
        for region in (US, EU)
    }
    assert compiled == {US: {"radius"}, EU: {"both"}}


def registry_views(world: FeatureFleet, region: str) -> list[Any]:
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry: Any = Registry()
    registry.ParseFromString(world.store.feast.compile(ADMIN, "diagnosis", region).content)
    return [view.spec for view in registry.feature_views]


def test_a_snapshot_says_what_each_region_lacks_and_why(world: FeatureFleet) -> None:
    (lack,) = world.snapshot(as_of=day(5)).lacks
    assert (lack.region, lack.view, lack.features, lack.residency) == (US, "cells", ("ward",), "eu")
    assert lack.reason == f"Data of residency class 'eu' must stay in EU; {US} is in US."


def test_time_travel_reads_the_newest_snapshot_that_is_not_later(world: FeatureFleet) -> None:
    early, late = world.snapshot(as_of=day(1)), world.snapshot(as_of=day(5))
    rows = entity_rows([(1, 9)])
    for moment, snapshot in ((1, early), (4.9, early), (5, late), (9, late)):
        joined = world.store.historical.join(ADMIN, rows, service="diagnosis", as_of=day(moment), region=EU)
        assert joined.snapshot == snapshot.digest
    with pytest.raises(NotReady, match=r"no snapshot as of 2026-02-20T00.* or before") as caught:
        world.store.historical.join(ADMIN, rows, service="diagnosis", as_of=day(0.5), region=EU)
    assert "--as-of 2026-02-20T00" in (caught.value.hint or "")


def test_a_class_of_a_column_is_within_its_views_and_stays(world: FeatureFleet) -> None:
    path = world.sources / "cells.parquet"
    for changed in (None, "us"):
        with pytest.raises(FeatureDefinitionInvalid, match="'ward' of view 'cells' is under the residency class 'eu'"):
            world.apply([cells(path, ward=changed)])
    # It is remembered of a feature that was gone for a while.
    world.apply([cells_view(path), service(views={"cells": [("radius", "FLOAT")]})])
    with pytest.raises(FeatureDefinitionInvalid, match="cannot become 'unrestricted'"):
        world.apply([cells(path, ward=None)])
    assert world.apply([cells(path)]) == {"cells": "changed", "diagnosis": "changed"}


def test_what_keys_may_not_follow_is_refused(world: FeatureFleet) -> None:
    path = world.sources / "other.parquet"
    for changes, message in (
        ({"ward": "us", "view": "eu"}, "may so be where the view's keys"),
        ({"ward": "unrestricted", "view": "eu"}, "may so be where the view's keys"),
        ({"key": "eu"}, "keys lie with every feature"),
    ):
        spec = cells(path, **changes)
        spec.spec["spec"]["name"] = "other"
        with pytest.raises(FeatureDefinitionInvalid, match=message):
            world.apply([spec])
    spec = cells(path, ward="eu", view="eea")
    spec.spec["spec"]["name"] = "other"
    assert world.apply([spec]) == {"other": "added"}
