"""Views without an entity (`entities=[]`): joined by time alone, and nobody is asked for a key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import FeatureDefinitionInvalid, FeatureRowsInvalid, InvalidInput
from fairlead.featurestore.definition_reading import by_name, read_all
from fairlead.featurestore.definitions import DUMMY_ENTITY, DUMMY_KEY, DUMMY_VALUE, VIEW, read_view
from fairlead.featurestore.joins import ViewRows, join_point_in_time
from fairlead.featurestore.pushed_rows import columns_of_arrow, columns_of_json
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.services import Projection, ServiceDefinition
from fairlead.featurestore.sources import Sources
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
from tests.featurestore.test_feast import EU, load, write
from tests.fleet import ADMIN, REGIONS

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
arrow: Any = pa
parquet: Any = pq
US = REGIONS["virginia"]
TIMES = arrow.timestamp("us", tz="UTC")

REPOSITORY = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Float32, Float64, Int64

patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)
cells = FeatureView(
    name="cells",
    entities=[patient],
    schema=[Field(name="radius", dtype=Float32)],
    source=FileSource(name="cells_source", path="cells.parquet", timestamp_field="event_timestamp"),
)
rates = FeatureView(
    name="rates",
    entities=[],
    ttl=timedelta(days=36500),
    schema=[Field(name="rate", dtype=Float64)],
    source=PushSource(
        name="rates_push",
        batch_source=FileSource(name="rates_source", path="rates.parquet", timestamp_field="event_timestamp"),
    ),
)
diagnosis = FeatureService(name="diagnosis", features=[cells, rates])
market = FeatureService(name="market", features=[rates.with_name("today")])
"""

COMPUTED = """
import pandas as pd
from feast import FeatureService, FeatureView, Field, FileSource, KafkaSource, RequestSource
from feast.data_format import JsonFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64

rates = FeatureView(name="rates", entities=[], source=FileSource(name="rates_source", path="rates.parquet"))
loads = StreamFeatureView(
    name="loads",
    schema=[Field(name="load", dtype=Float64)],
    source=KafkaSource(
        name="loads_topic",
        kafka_bootstrap_servers="127.0.0.1:9",
        topic="loads",
        timestamp_field="event_timestamp",
        message_format=JsonFormat(schema_json="load double"),
        batch_source=FileSource(
            name="loads_source",
            path="rates.parquet",
            timestamp_field="event_timestamp",
            field_mapping={"rate": "load"},
        ),
    ),
)
asked = RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])


@on_demand_feature_view(sources=[rates, asked], schema=[Field(name="scaled", dtype=Float64)])
def scaling(inputs: pd.DataFrame) -> pd.DataFrame:
    made = pd.DataFrame()
    made["scaled"] = inputs["rate"] * inputs["factor"]
    return made


market = FeatureService(name="market", features=[loads, scaling])
"""


def write_rates(path: Path, rows: Sequence[tuple[float, float | None]], **columns: Any) -> Path:
    """Write (day, rate) as a source."""
    times = arrow.array([day(at) for at, _ in rows], TIMES)
    rates = arrow.array([rate for _, rate in rows], arrow.float64())
    parquet.write_table(arrow.table({"event_timestamp": times, "rate": rates, **columns}), path)
    return path


def rates_view(path: Path, **changes: Any) -> Any:
    spec = {"entities": [DUMMY_ENTITY], "entityColumns": [{"name": "__dummy_id", "valueType": "STRING"}], **changes}
    return view_spec("rates", [("rate", "DOUBLE")], path, **spec)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        fleet.cells([(1, 0, 1.25), (2, 0, 2.0)])
        write_rates(fleet.sources / "rates.parquet", [(0, 1.0), (2, 1.5), (4, None), (9, 9.0)])
        yield fleet


def moments(*days: float | None, **columns: Any) -> Any:
    """Entity rows of nobody."""
    times = [None if at is None else day(at) for at in days]
    return arrow.table({"event_timestamp": arrow.array(times, TIMES), **columns})


def test_what_stands_for_no_entity_is_called_as_feast_calls_it() -> None:
    from feast import feature_view

    assert (DUMMY_ENTITY, DUMMY_KEY.name, DUMMY_VALUE) == (
        feature_view.DUMMY_ENTITY_NAME,
        feature_view.DUMMY_ENTITY_ID,
        feature_view.DUMMY_ENTITY_VAL,
    )


def test_however_it_is_written_it_is_one_version(tmp_path: Path) -> None:
    key, rate = {"name": "__dummy_id", "valueType": "STRING"}, {"name": "rate", "valueType": "DOUBLE"}
    forms: list[dict[str, Any]] = [{}, {"entities": []}, {"entityColumns": []}, {"features": [key, rate]}]
    views = [read_view(rates_view(tmp_path / "rates.parquet", **form).spec, {}) for form in forms]
    assert {view.digest for view in views} == {views[0].digest}
    assert (views[0].keys, views[0].asked_keys) == ((DUMMY_KEY,), ())


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([patient(), rates_view(Path("r"), entities=["patient", "__dummy"])], "'__dummy', which is not defined"),
        (
            [
                rates_view(Path("r")),
                service(features=[{"featureViewName": "rates", "joinKeyMap": {"__dummy_id": "x"}}]),
            ],
            "maps the join key '__dummy_id', which view 'rates' does not have",
        ),
    ],
)
def test_what_stands_for_no_entity_can_be_neither_defined_nor_used(objects: list[Any], said: str) -> None:
    with pytest.raises(FeatureDefinitionInvalid, match=said) as refused:
        read_all(by_name(objects))
    assert refused.value.hint


hours = st.integers(0, 6).map(lambda hour: day(0) + timedelta(hours=hour))
values = st.none() | st.sampled_from([-1.5, -0.0, 0.0, 2.0])


@given(
    found=st.lists(st.tuples(hours, values), max_size=25),
    entities=st.lists(st.none() | hours, max_size=15),
    ttl=st.none() | st.integers(1, 4),
    column=st.sampled_from([None, "__dummy_id"]),
)
def test_every_row_gets_what_was_last_known_at_its_time(
    found: list[tuple[datetime, float | None]], entities: list[datetime | None], ttl: int | None, column: str | None
) -> None:
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        # A column of that name in the source means nothing; and what a caller sends of it neither.
        strange = {column: arrow.array([str(row) for row in range(len(found))])} if column else {}
        rows = arrow.table(
            {
                "event_timestamp": arrow.array([at for at, _ in found], TIMES),
                "rate": arrow.array([value for _, value in found], arrow.float64()),
                **strange,
            }
        )
        parquet.write_table(rows, scratch / "rates.parquet")
        changes = {} if ttl is None else {"ttl": f"{ttl * 3600}s"}
        view = read_view(rates_view(scratch / "rates.parquet", **changes).spec, {})
        statistics = write_rows(
            view, as_of=day(99), sources=Sources(), destination=scratch / "rows.parquet", scratch=scratch
        )
        asked = arrow.table({"event_timestamp": arrow.array(entities, TIMES)})
        if column:
            asked = asked.append_column(column, arrow.array(["x"] * len(entities), arrow.string()))
        taken = Projection(view="rates", alias="rates", features=("rate",), join_key_map={})
        joined = join_point_in_time(
            asked,
            ServiceDefinition(name="market", projections=(taken,)),
            {"rates": [ViewRows(view=view, path=scratch / "rows.parquet")]},
            scratch=scratch,
        )
    assert joined.column_names == [*asked.column_names, "rate"]
    assert joined.column("rate").to_pylist() == [_last_known(found, at, ttl) for at in entities]
    assert (statistics.rows, statistics.left_out, list(statistics.columns)) == (len(found), 0, ["rate"])


def _last_known(found: list[tuple[datetime, float | None]], at: datetime | None, ttl: int | None) -> float | None:
    known = [row for row in found if at is not None and row[0] <= at]
    last = max(known, key=lambda row: (row[0], row[1] is not None, row[1] or 0.0), default=None)
    if last is None or at is None or (ttl is not None and at - last[0] > timedelta(hours=ttl)):
        return None
    return last[1]


def test_a_feast_repository_with_such_views_works_from_apply_to_feast(world: FeatureFleet, tmp_path: Path) -> None:
    from feast import FeatureStore

    assert set(world.apply(load(world, REPOSITORY)).values()) == {"added"}
    assert set(world.apply(load(world, REPOSITORY)).values()) == {"unchanged"}
    for name in ("diagnosis", "market"):
        assert world.snapshot(name, as_of=day(5)).error_detail is None
        world.store.online.materialize(ADMIN, name)
    world.run()

    both = world.store.historical.join(ADMIN, entity_rows([(1, 1), (2, 3), (9, 3)]), service="diagnosis", region=EU)
    assert both.rows.column_names == ["patient_id", "event_timestamp", "radius", "rate"]
    assert both.rows.column("rate").to_pylist() == [1.0, 1.5, 1.5]
    assert both.rows.column("radius").to_pylist() == [1.25, 2.0, None]
    alone = world.store.historical.join(ADMIN, moments(-1, 1, None), service="market", region=EU)
    assert alone.rows.column("rate").to_pylist() == [None, 1.0, None]

    online = world.store.online
    read = online.read(ADMIN, "diagnosis", {"patient_id": [2, 9]}, region=EU)
    present = {"rates": "present"}
    assert read.rows == [
        {"patient_id": 2, "_status": {"cells": "present", **present}, "radius": 2.0, "rate": None},
        {"patient_id": 9, "_status": {"cells": "not_found", **present}, "radius": None, "rate": None},
    ]
    with pytest.raises(InvalidInput, match="'patient_id' is missing"):
        online.read(ADMIN, "diagnosis", {}, region=EU)
    assert online.read(ADMIN, "market", {}, region=EU).rows == [{"_status": {"today": "present"}, "rate": None}]
    assert len(online.read(ADMIN, "market", {"anything": [1, 2]}, region=EU).rows) == 2

    write(world, tmp_path / "repo")
    feast: Any = FeatureStore(repo_path=str(tmp_path / "repo"))
    taken = feast.get_feature_service("diagnosis")
    assert [(view.name, view.entities) for view in feast.list_feature_views()] == [
        ("cells", ["patient"]),
        ("rates", []),
    ]
    theirs = feast.get_online_features(features=taken, entity_rows=[{"patient_id": 2}]).to_dict()
    assert theirs == {"patient_id": [2], "radius": [2.0], "rate": [None]}
    frame = entity_rows([(1, 1), (2, 3)]).to_pandas()
    theirs = feast.get_historical_features(entity_df=frame, features=taken).to_df().sort_values("event_timestamp")
    assert theirs["rate"].tolist() == [1.0, 1.5]
    assert "__dummy_id" not in theirs.columns


def test_rows_are_pushed_and_restored_without_a_key(world: FeatureFleet) -> None:
    world.apply(load(world, REPOSITORY))
    world.snapshot("market", as_of=day(5))
    world.store.online.materialize(ADMIN, "market")
    world.run()
    pushes = world.store.streams.pushes
    row = {"event_timestamp": day(7).isoformat(), "rate": 7.5}
    pushed = pushes.push(ADMIN, "rates_push", columns_of_json([row]), to="online_and_offline", region=US)
    assert [(each.view, each.accepted) for each in pushed.views] == [("rates", 1)]
    again = pushes.push(
        ADMIN, "rates_push", columns_of_json([{**row, "__dummy_id": "x"}]), to="online_and_offline", region=US
    )
    assert again.views[0].accepted == 0, "the same event"
    table = moments(8, rate=arrow.array([8.5]))
    pushes.push(ADMIN, "rates_push", columns_of_arrow(table), to="online_and_offline", region=US)
    with pytest.raises(FeatureRowsInvalid, match="'patient_id' is no column"):
        pushes.push(ADMIN, "rates_push", columns_of_json([{**row, "patient_id": 1}]), to="offline", region=US)
    assert world.store.online.read(ADMIN, "market", {}, region=US).rows[0]["rate"] == 8.5

    world.fleet.clock.advance(timedelta(seconds=11))
    world.store.streams.keep(None)
    world.run()
    newest = world.snapshot("market")
    assert newest.error_detail is None
    read = world.store.historical.join(ADMIN, moments(1, 7, 8, 9), snapshot=newest.digest, region=EU)
    assert read.rows.column("rate").to_pylist() == [1.0, 7.5, 8.5, 9.0]


def test_a_key_that_comes_or_goes_is_said_without_the_one_that_stands_for_none(world: FeatureFleet) -> None:
    source = world.sources / "cells.parquet"
    world.apply([patient(), cells_view(source), service(views={"cells": [("radius", "FLOAT")]})])
    nobody = cells_view(source, entities=[], entityColumns=[])
    (planned,) = [each for each in world.store.definitions.apply(ADMIN, [nobody], dry_run=True) if each.kind == VIEW]
    said = [(each.path, each.before, each.after) for each in planned.differences]
    assert said == [
        ("view cells / keys", ["patient_id: INT64"], []),
        ("view cells / entities", ["patient"], []),
    ]


def test_there_is_nobody_to_erase_in_them(world: FeatureFleet) -> None:
    world.apply(load(world, REPOSITORY))
    for name in (DUMMY_ENTITY, DUMMY_KEY.name):
        with pytest.raises(InvalidInput, match="stands for no entity"):
            world.store.erasures.request(ADMIN, entities=[name], salt="0" * 64, subject_hash="0" * 64, reason="")


def test_what_a_repository_leaves_out_is_found_out_and_what_stands_on_such_views_works(
    world: FeatureFleet, tmp_path: Path
) -> None:
    from feast import FeatureStore

    objects = load(world, COMPUTED)
    assert set(world.apply(objects).values()) == {"added"}
    assert world.snapshot("market", as_of=day(3)).error_detail is None
    world.store.online.materialize(ADMIN, "market")
    world.run()
    assert world.store.online.read(ADMIN, "market", {}, region=EU).rows[0] == {
        "_status": {"rates": "present", "loads": "present"},
        "rates__rate": 1.5,
        "load": 1.5,
    }
    write(world, tmp_path / "repo", service="market")
    feast: Any = FeatureStore(repo_path=str(tmp_path / "repo"))
    taken = feast.get_feature_service("market")
    asked = feast.get_online_features(features=taken, entity_rows=[{"factor": 2.0}, {"factor": 4.0}])
    assert asked.to_dict() == {"load": [1.5, 1.5], "scaled": [3.0, 6.0]}
    frame = moments(1, 3, factor=[2.0, 2.0]).to_pandas()
    theirs = feast.get_historical_features(entity_df=frame, features=taken).to_df()
    assert theirs.sort_values("event_timestamp")["scaled"].tolist() == [2.0, 3.0]


def test_an_entity_of_a_repository_that_is_called_as_feasts_own_is_refused(world: FeatureFleet) -> None:
    objects = load(world, REPOSITORY + 'own = Entity(name="__dummy", join_keys=["item"], value_type=ValueType.INT64)')
    with pytest.raises(FeatureDefinitionInvalid, match="Feast keeps"):
        world.apply(objects)
