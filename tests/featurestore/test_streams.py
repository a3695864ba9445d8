"""Pushed rows: taken where they may be, once each, sealed, replicated, in snapshots and online."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fairlead.core.canonical import canonical_json
from fairlead.core.db import dry_run
from fairlead.core.errors import FeatureRowsInvalid, InvalidInput, PushSourceNotFound, ResidencyViolation
from fairlead.core.ids import sha256_digest
from fairlead.featurestore.log_lag import LogLag
from fairlead.featurestore.log_positions import positions_of
from fairlead.featurestore.pushed_rows import columns_of_arrow, columns_of_json
from fairlead.featurestore.pushes import Pushed, PushTo
from fairlead.featurestore.snapshots import find_snapshot, record_of, snapshot_parts
from tests.featurestore.feature_fleet import (
    FeatureFleet,
    cells_view,
    day,
    genes_view,
    open_feature_fleet,
    patient,
    service,
)
from tests.fleet import ADMIN, REGIONS

arrow: Any = pa
US, EU = REGIONS["virginia"], REGIONS["eemshaven"]
STREAM = {"name": "measurements", "type": "PUSH_SOURCE"}


@contextlib.contextmanager
def open_world(root: Path, url: str | None = None) -> Generator[FeatureFleet]:
    with open_feature_fleet(root, url) as fleet:
        fleet.cells([(1, 0, 1.0), (2, 2, 2.5)])
        fleet.genes([(1, 1, "a")])
        fleet.apply(definitions(fleet))
        yield fleet


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_world(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def world_of_each(tmp_path: Path, database_url: str) -> Iterator[FeatureFleet]:
    """One on each kind of database, for what asks it most."""
    with open_world(tmp_path, database_url) as fleet:
        yield fleet


def definitions(fleet: FeatureFleet) -> list[Any]:
    return [
        patient(),
        cells_view(fleet.sources / "cells.parquet", streamSource=STREAM),
        genes_view(fleet.sources / "genes.parquet", streamSource={"name": "sequencer", "type": "PUSH_SOURCE"}),
        service(),
    ]


def row(number: int, at: float, radius: Any, **more: Any) -> dict[str, Any]:
    return {"patient_id": number, "event_timestamp": day(at).isoformat(), "radius": radius, **more}


def push(
    world: FeatureFleet,
    rows: Sequence[Mapping[str, Any]],
    *,
    source: str = "measurements",
    region: str | None = US,
    to: PushTo = "online_and_offline",
    ids: Sequence[str] | None = None,
) -> Pushed:
    return world.store.streams.pushes.push(ADMIN, source, columns_of_json(rows), to=to, region=region, ids=ids)


def keep(world: FeatureFleet, *, later: float = 11) -> None:
    """Let the time pass that a row waits for others, and the rows be sealed, read back and copied."""
    world.fleet.clock.advance(timedelta(seconds=later))
    world.store.streams.keep(None)
    world.run()
    world.store.streams.keep(None)


def lags(world: FeatureFleet, view: str = "cells") -> list[LogLag]:
    return world.store.streams.lags.of_view(ADMIN, view)


def cells_of(world: FeatureFleet, **options: Any) -> list[tuple[int, float | None]]:
    """The patients and radii of a snapshot of now."""
    taken = world.snapshot(**options)
    assert taken.state == "READY", taken.error_detail
    return rows_of(world, taken.digest)


def rows_of(world: FeatureFleet, digest: str | None) -> list[tuple[int, float | None]]:
    entities = arrow.table(
        {
            "patient_id": arrow.array(range(1, 8), arrow.int64()),
            "event_timestamp": arrow.array([world.fleet.clock.now()] * 7, arrow.timestamp("us", tz="UTC")),
        }
    )
    joined = world.store.historical.join(ADMIN, entities, snapshot=digest, region=EU).rows
    pairs = zip(joined.column("patient_id").to_pylist(), joined.column("radius").to_pylist(), strict=True)
    return [(number, radius) for number, radius in pairs if radius is not None]


def test_pushed_rows_are_in_the_next_snapshot_beside_those_of_the_source(world: FeatureFleet) -> None:
    pushed = push(world, [row(1, 5, 9.5), row(3, 5, 3.5)])
    assert [(each.view, each.accepted, each.first, each.last) for each in pushed.views] == [("cells", 2, 1, 2)]
    assert cells_of(world) == [(1, 9.5), (2, 2.5), (3, 3.5)]
    keep(world)
    assert cells_of(world) == [(1, 9.5), (2, 2.5), (3, 3.5)]


def test_an_event_counts_once_also_when_it_comes_again_after_its_segment_was_sealed(world: FeatureFleet) -> None:
    push(world, [row(1, 5, 9.5, event_id="a")])
    keep(world)
    again = push(world, [row(1, 5, 9.5, event_id="a"), row(2, 5, 4.5, event_id="b")])
    assert (again.views[0].accepted, again.views[0].duplicates, again.views[0].first) == (1, 1, 2)
    keep(world)
    assert (lags(world)[0].rows, lags(world)[0].unsealed_rows, lags(world)[0].segments) == (2, 0, 2)


def test_equal_rows_without_ids_are_one_event(world: FeatureFleet) -> None:
    push(world, [row(1, 5, 9.5)])
    table = arrow.table(
        {
            "radius": arrow.array([9.5, 9.5], arrow.float64()),
            "event_timestamp": arrow.array([day(5)] * 2, arrow.timestamp("ns", tz="UTC")),
            "patient_id": arrow.array([1, 4], arrow.int32()),
        }
    )
    pushed = world.store.streams.pushes.push(ADMIN, "measurements", columns_of_arrow(table), region=US)
    assert (pushed.views[0].accepted, pushed.views[0].duplicates) == (1, 1)


def test_an_event_that_two_regions_took_counts_once_in_a_snapshot(world_of_each: FeatureFleet) -> None:
    world = world_of_each
    push(world, [row(1, 5, 9.5, event_id="a")], region=US)
    push(world, [row(1, 5, 7.5, event_id="a"), row(3, 5, 3.5, event_id="b")], region=EU)
    keep(world)
    taken = world.snapshot()
    part = next(part for part in taken.artifacts if part.view == "cells")
    assert part.rows == 4
    assert rows_of(world, taken.digest) == [(1, 9.5), (2, 2.5), (3, 3.5)]


def test_a_snapshot_of_an_earlier_time_has_none_of_what_was_pushed_later(world: FeatureFleet) -> None:
    push(world, [row(1, 5, 9.5)])
    before = world.fleet.clock.now()
    world.fleet.clock.advance(timedelta(seconds=1))
    push(world, [row(1, 6, 10.5)])
    keep(world)
    assert cells_of(world, as_of=before) == [(1, 9.5), (2, 2.5)]
    assert cells_of(world) == [(1, 10.5), (2, 2.5)]


def test_the_record_of_a_snapshot_names_how_much_of_each_log_it_holds(world_of_each: FeatureFleet) -> None:
    world = world_of_each
    plain = world.snapshot()
    log = push(world, [row(1, 5, 9.5), row(3, 5, 3.5)]).views[0].log
    taken = world.snapshot()
    assert [part.logs for part in plain.artifacts] == [(), ()]
    positions = {part.view: part.logs for part in taken.artifacts}
    assert positions == {"cells": ({"log": log, "region": US, "through": 2},), "genes": ()}
    with world.fleet.database.read() as session:
        found = find_snapshot(session, ADMIN.workspace_id, taken.id)
        record: Any = record_of(found, snapshot_parts(session, found), positions_of(session, found))
    assert taken.digest == sha256_digest(canonical_json(record))
    assert record["artifacts"][0]["logs"] == [{"log": log, "region": US, "through": 2}]
    assert "logs" not in record["artifacts"][1]


def test_bad_rows_are_named_by_index_and_nothing_of_the_push_is_kept(world: FeatureFleet) -> None:
    rows: list[dict[str, Any]] = [
        row(1, 5, 9.5),
        row(2, 5, "wide"),
        row(3, 500, 1.0),
        {"patient_id": None, **row(3, 5, 1)},
    ]
    rows[3]["patient_id"] = None
    with pytest.raises(FeatureRowsInvalid) as caught:
        push(world, rows)
    assert caught.value.attributes["rows"] == [
        {"row": 1, "column": "radius", "reason": "is no FLOAT"},
        {"row": 2, "column": "event_timestamp", "reason": "lies in the future"},
        {"row": 3, "column": "patient_id", "reason": "is missing"},
    ]
    assert "wide" not in str(caught.value)
    assert lags(world) == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "A push of 0 rows"),
        ([{"patient_id": 1, "radius": 1.0}], "event_timestamp"),
        ([row(1, 5, 1.0, colour="red")], "colour"),
    ],
)
def test_rows_that_are_not_of_the_views_columns_are_refused(world: FeatureFleet, rows: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        push(world, rows)


def test_a_table_has_to_have_every_column_and_an_object_may_lack_features(world: FeatureFleet) -> None:
    table = arrow.table({"patient_id": [1], "event_timestamp": arrow.array([day(5)], arrow.timestamp("us", tz="UTC"))})
    with pytest.raises(InvalidInput, match="radius"):
        world.store.streams.pushes.push(ADMIN, "measurements", columns_of_arrow(table), region=US)
    sparse = {name: value for name, value in row(1, 5, None).items() if name != "radius"}
    assert push(world, [sparse, row(2, 5, 1.0)]).views[0].accepted == 2
    assert push(world, [sparse | {"patient_id": 3}]).views[0].accepted == 1


@pytest.mark.parametrize("name", ["ä" * 200, "cells [new]"])
def test_a_view_has_a_log_whatever_it_is_called(world: FeatureFleet, name: str) -> None:
    objects = definitions(world)
    objects.append(
        cells_view(world.sources / "cells.parquet", name=name, streamSource={"name": "more", "type": "PUSH_SOURCE"})
    )
    world.apply(objects)
    assert push(world, [row(1, 5, 9.5)], source="more").views[0].accepted == 1
    assert [log.view for log in world.store.streams.logs.of_view(ADMIN.workspace_id, name)] == [name]


def test_a_source_that_no_view_takes_is_not_found(world: FeatureFleet) -> None:
    with pytest.raises(PushSourceNotFound, match="nothing"):
        push(world, [row(1, 5, 1.0)], source="nothing")


def test_rows_under_a_residency_class_are_taken_inside_alone(world: FeatureFleet) -> None:
    rows = [{"patient_id": 1, "event_timestamp": day(5).isoformat(), "marker": "b"}]
    with pytest.raises(ResidencyViolation) as caught:
        push(world, rows, source="sequencer", region=US)
    assert caught.value.attributes["regions"] == [EU]
    assert EU in (caught.value.hint or "")
    assert push(world, rows, source="sequencer", region=None).region == EU
    keep(world)
    assert [each.region for each in lags(world, "genes")[0].regions] == [EU]


def test_each_region_states_how_far_it_is_behind_a_log(world_of_each: FeatureFleet) -> None:
    world = world_of_each
    push(world, [row(1, 5, 9.5), row(3, 5, 3.5)])
    world.fleet.clock.advance(timedelta(seconds=7))
    (lag,) = lags(world)
    by_region = {each.region: (each.through, each.behind_rows, each.behind_seconds) for each in lag.regions}
    assert (lag.region, lag.rows, lag.unsealed_rows) == (US, 2, 2)
    assert by_region == {US: (2, 0, 0.0), EU: (0, 2, 7.0)}
    told = world.store.streams.lags.render(ADMIN)
    labels = f'view="cells",log="{lag.log}",taken_in="{US}",region="{EU}"'
    assert f"fairlead_log_behind_seconds{{{labels}}} 7.0\n" in told
    keep(world)
    (lag,) = lags(world)
    assert {each.region: (each.through, each.behind_rows) for each in lag.regions} == {US: (2, 0), EU: (2, 0)}


def test_a_rehearsal_checks_rows_and_keeps_none(world: FeatureFleet) -> None:
    with dry_run():
        assert push(world, [row(1, 5, 9.5)]).views[0].accepted == 1
        with pytest.raises(FeatureRowsInvalid):
            push(world, [row(1, 500, 9.5)])
    assert lags(world) == []


def online(world: FeatureFleet, region: str) -> dict[int, float | None]:
    rows = world.store.online.read(ADMIN, "diagnosis", {"patient_id": [1, 2, 3]}, region=region).rows
    return {each["patient_id"]: each["radius"] for each in rows}


def test_pushed_rows_are_online_at_once_where_they_are_taken_and_elsewhere_with_their_segment(
    world_of_each: FeatureFleet,
) -> None:
    world = world_of_each
    world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    assert push(world, [row(1, 5, 9.5), row(3, 5, 3.5)]).views[0].is_online is True
    assert online(world, US) == {1: 9.5, 2: 2.5, 3: 3.5}
    assert online(world, EU) == {1: 1.0, 2: 2.5, 3: None}
    keep(world)
    assert online(world, EU) == {1: 9.5, 2: 2.5, 3: 3.5}
    (lag,) = lags(world)
    assert {each.region: [store.through for store in each.online] for each in lag.regions} == {US: [2], EU: [2]}


def test_rows_for_one_destination_are_not_in_the_other(world: FeatureFleet) -> None:
    world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    push(world, [row(1, 5, 9.5)], to="online")
    push(world, [row(2, 5, 8.5)], to="offline")
    assert online(world, US) == {1: 9.5, 2: 2.5, 3: None}
    assert cells_of(world) == [(1, 1.0), (2, 8.5)]


def test_a_store_that_is_made_later_has_what_was_pushed_since_its_snapshot(world: FeatureFleet) -> None:
    world.snapshot()
    assert push(world, [row(1, 5, 9.5)]).views[0].is_online is False
    keep(world)
    world.store.online.materialize(ADMIN, "diagnosis", snapshot=None)
    world.run()
    keep(world)
    assert online(world, US)[1] == online(world, EU)[1] == 9.5


def test_a_row_is_online_at_once_in_a_store_that_was_made_a_moment_ago(world: FeatureFleet) -> None:
    world.snapshot()
    world.store.online.materialize(ADMIN, "diagnosis")
    assert push(world, [row(1, 5, 9.5)]).views[0].is_online is False
    world.run()
    assert push(world, [row(2, 5, 8.5)]).views[0].is_online is True
    assert online(world, US)[2] == 8.5


def test_a_feature_that_is_new_is_missing_in_rows_that_were_pushed_before(world: FeatureFleet) -> None:
    push(world, [row(1, 5, 9.5)])
    keep(world)
    push(world, [row(2, 5, 8.5)])
    features = [{"name": "radius", "valueType": "FLOAT"}, {"name": "texture", "valueType": "STRING"}]
    table = arrow.table(
        {
            "patient_id": arrow.array([1], arrow.int64()),
            "event_timestamp": arrow.array([day(0)], arrow.timestamp("us", tz="UTC")),
            "radius": arrow.array([1.0]),
            "texture": ["rough"],
        }
    )
    arrow.parquet.write_table(table, world.sources / "cells.parquet")
    objects = definitions(world)
    objects[1] = cells_view(world.sources / "cells.parquet", streamSource=STREAM, features=features)
    world.apply(objects)
    world.fleet.clock.advance(timedelta(seconds=2))
    push(world, [row(3, 5, 7.5, texture="smooth")])
    assert cells_of(world) == [(1, 9.5), (2, 8.5), (3, 7.5)]
    keep(world)
    assert cells_of(world) == [(1, 9.5), (2, 8.5), (3, 7.5)]


def test_a_value_that_is_none_of_a_later_type_is_missing_and_never_rounded(world: FeatureFleet) -> None:
    push(world, [row(1, 5, 9.0), row(2, 5, 1.5)])
    world.cells([(1, 0, 1.0)])
    objects = definitions(world)
    features = [{"name": "radius", "valueType": "INT64"}]
    objects[1] = cells_view(world.sources / "cells.parquet", streamSource=STREAM, features=features)
    world.apply(objects)
    assert cells_of(world) == [(1, 9)]
