"""Feast as its users know it, over a region's own replica and online store."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fairlead.core.errors import FeatureDefinitionInvalid, InvalidInput, PermissionDenied
from fairlead.featurestore.api_feast import FeastRegistryAnswer
from fairlead.featurestore.applied import FeatureObject
from fairlead.featurestore.schemas import OnDemandViewsAnswer
from fairlead.sdk.feast_objects import load_repository, to_wire
from fairlead.sdk.feast_repo import write_feast_repo
from fairlead.sdk.on_demand import add_on_demand
from tests.featurestore.feature_fleet import FeatureFleet, day, entity_rows, open_feature_fleet
from tests.fleet import ADMIN, REGIONS

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
EU = REGIONS["eemshaven"]

REPOSITORY = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Int64, String

patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)
cells = FeatureView(
    name="cells",
    entities=[patient],
    ttl=timedelta(days=36500),  # Feast measures it against the wall clock
    schema=[Field(name="radius", dtype=Float32), Field(name="patient_id", dtype=Int64)],
    source=FileSource(name="cells_source", path="cells.parquet", timestamp_field="event_timestamp"),
)
genes = FeatureView(
    name="genes",
    entities=[patient],
    schema=[Field(name="marker", dtype=String)],
    source=FileSource(name="genes_source", path="genes.parquet", timestamp_field="event_timestamp"),
    tags={"fairlead.residency": "eu"},
)
diagnosis = FeatureService(name="diagnosis", features=[cells, genes[["marker"]]], owner="ana")
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        fleet.cells([(1, 0, 1.25), (1, 2, 0.1), (1, 9, 9.0), (2, 0, 2.0), (2, 2, None)])
        fleet.genes([(1, 1, "a"), (3, 1, "c")])
        yield fleet


@pytest.fixture
def repository(world: FeatureFleet) -> list[FeatureObject]:
    return load(world, REPOSITORY)


def test_feast_over_a_region_gives_the_same_values_as_fairlead(
    world: FeatureFleet, repository: list[FeatureObject], tmp_path: Path
) -> None:
    from feast import FeatureStore

    assert set(world.apply(repository).values()) == {"added"}
    assert set(world.apply(repository).values()) == {"unchanged"}
    snapshot = world.snapshot(as_of=day(5))
    assert snapshot.error_detail is None
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    assert write(world, tmp_path / "repo") == snapshot.digest

    feast: Any = FeatureStore(repo_path=str(tmp_path / "repo"))
    service = feast.get_feature_service("diagnosis")
    ids = [1, 2, 3, 99]
    online = feast.get_online_features(features=service, entity_rows=[{"patient_id": each} for each in ids]).to_dict()
    ours = world.store.online.read(ADMIN, "diagnosis", {"patient_id": ids}, region=EU).rows
    for feature in ("radius", "marker"):
        assert online[feature] == [row[feature] for row in ours]
    assert ours[0]["radius"] == pytest.approx(0.1)

    entities = entity_rows([(1, 1), (1, 4), (2, 3), (3, 4), (9, 1)])
    frame = entities.to_pandas()
    theirs = feast.get_historical_features(entity_df=frame, features=service).to_df()
    theirs = theirs.sort_values(["patient_id", "event_timestamp"])
    joined = world.store.historical.join(ADMIN, entities, snapshot=snapshot.digest, region=EU).rows.to_pandas()
    for feature in ("radius", "marker"):
        expected = [None if value != value else value for value in theirs[feature].tolist()]  # noqa: PLR0124  (NaN)
        found = [None if value != value else value for value in joined[feature].tolist()]  # noqa: PLR0124
        assert found == expected

    with pytest.raises(PermissionDenied, match="by its workers"):
        feast.materialize(start_date=day(0), end_date=day(9))
    with pytest.raises(PermissionDenied, match="for reading"):
        feast.apply([feast.get_entity("patient")])
    # What was refused had no effect.
    again: Any = FeatureStore(repo_path=str(tmp_path / "repo"))
    rows = again.get_online_features(features=service, entity_rows=[{"patient_id": 1}]).to_dict()
    assert rows["marker"] == ["a"]


STREAMING = """
import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast import KafkaSource, PushSource, RequestSource, ValueType
from feast.data_format import JsonFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float32, Float64, Int64, String

patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)
pushed = PushSource(
    name="cells_push",
    batch_source=FileSource(name="cells_source", path="cells.parquet", timestamp_field="event_timestamp"),
)
cells = FeatureView(
    name="cells",
    entities=[patient],
    schema=[Field(name="radius", dtype=Float64), Field(name="patient_id", dtype=Int64)],
    source=pushed,
)
genes = StreamFeatureView(
    name="genes",
    entities=[patient],
    schema=[Field(name="marker", dtype=String), Field(name="patient_id", dtype=Int64)],
    source=KafkaSource(
        name="genes_topic",
        kafka_bootstrap_servers="127.0.0.1:9",
        topic="genes",
        timestamp_field="event_timestamp",
        message_format=JsonFormat(schema_json="marker string"),
        batch_source=FileSource(name="genes_source", path="genes.parquet", timestamp_field="event_timestamp"),
    ),
)
scale = RequestSource(name="scale", schema=[Field(name="factor", dtype=Float64)])


@on_demand_feature_view(sources=[cells, scale], schema=[Field(name="scaled", dtype=Float64)])
def scaled(inputs: pd.DataFrame) -> pd.DataFrame:
    made = pd.DataFrame()
    made["scaled"] = inputs["radius"] * inputs["factor"] * FACTOR
    return made


diagnosis = FeatureService(name="diagnosis", features=[genes, scaled])
"""


@dataclass(frozen=True, slots=True)
class InProcess:
    """The API's answers without its socket."""

    world: FeatureFleet
    service: str

    def get(self, _path: str, *, region: str, store: str | None) -> dict[str, Any]:
        compiled = self.world.store.feast.compile(ADMIN, self.service, region, store=store)
        return FeastRegistryAnswer.of(compiled, ADMIN).model_dump()

    def download(self, path: str, destination: Path, *, query: Mapping[str, str]) -> None:
        compiled = self.world.store.feast.compile(ADMIN, self.service, query["region"])
        shutil.copyfile(compiled.rows[f"rows/{path.rpartition('/')[2]}"], destination)


def write(world: FeatureFleet, folder: Path, *, service: str = "diagnosis") -> str:
    transport: Any = InProcess(world, service)
    return write_feast_repo(transport, service, EU, folder)


def load(world: FeatureFleet, text: str) -> list[FeatureObject]:
    (world.sources / "feature_store.yaml").write_text("project: clinic\nprovider: local\nregistry: registry.db\n")
    (world.sources / "definitions.py").write_text(text)
    wire: Any = to_wire(load_repository(world.sources).objects)
    return [FeatureObject(kind=each["kind"], spec=each["spec"]) for each in wire]


def test_streams_pushes_and_on_demand_views_come_unchanged_and_their_code_runs_where_it_is_read(
    world: FeatureFleet, tmp_path: Path
) -> None:
    from feast import FeatureStore

    objects = load(world, STREAMING.replace("FACTOR", "1"))
    assert set(world.apply(objects)) == {"patient", "cells_push", "cells_source", "cells", "genes_topic",
                                         "genes_source", "genes", "scaled", "diagnosis"}  # fmt: skip
    snapshot = world.snapshot(as_of=day(5))
    assert snapshot.error_detail is None
    pinned = world.store.definitions.on_demand(ADMIN, "diagnosis", snapshot.service_digest)
    found: Any = OnDemandViewsAnswer.of(pinned).model_dump()
    assert [(each["column"], each["is_hidden"]) for each in found["inputs"]] == [
        ("marker", False),
        ("cells__radius", True),
    ]
    entities = entity_rows([(1, 1), (1, 4), (3, 4)], factor=[2.0, 3.0, 4.0])
    joined = world.store.historical.join(ADMIN, entities, snapshot=snapshot.digest, region=EU).rows.to_pandas()
    ours = add_on_demand(joined, found)
    assert list(ours.columns) == ["patient_id", "event_timestamp", "factor", "marker", "scaled"]
    assert ours["scaled"].tolist()[:2] == [2.5, pytest.approx(0.3)]
    with pytest.raises(InvalidInput, match="'factor' is missing"):
        add_on_demand(joined.drop(columns=["factor"]), found)

    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    write(world, tmp_path / "repo")
    feast: Any = FeatureStore(repo_path=str(tmp_path / "repo"))
    service = feast.get_feature_service("diagnosis")
    rows = [{"patient_id": 1, "factor": 10.0}]
    assert feast.get_online_features(features=service, entity_rows=rows).to_dict()["scaled"] == [pytest.approx(1.0)]
    theirs = feast.get_historical_features(entity_df=entities.to_pandas(), features=service).to_df()
    theirs = theirs.sort_values(["patient_id", "event_timestamp"])
    assert theirs["scaled"].tolist()[:2] == ours["scaled"].tolist()[:2]


RENAMED = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)
cells = FeatureView(
    name="cells",
    entities=[patient],
    ttl=timedelta(days=36500),
    schema=[Field(name=each, dtype=Float64) for each in ("radius", "area", "depth")],
    source=FileSource(name="cells_source", path="cells.parquet", timestamp_field="event_timestamp"),
)
diagnosis = FeatureService(
    name="diagnosis",
    features=[
        cells[["radius"]].with_name("origin").with_join_key_map({"patient_id": "origin_id"}),
        cells[["radius", "area"]].with_name("target").with_join_key_map({"patient_id": "target_id"}),
    ],
)
"""


def answer_of(store: Any, features: Any, rows: list[dict[str, Any]], *, is_full: bool) -> object:
    try:
        answer = store.get_online_features(features=features, entity_rows=rows, full_feature_names=is_full)
    except Exception as error:  # noqa: BLE001  (whichever Feast raises)
        return type(error), str(error)
    return answer.to_dict(include_event_timestamps=True), [list(each.statuses) for each in answer.proto.results]


def test_a_view_that_a_service_takes_by_other_names_is_read_by_its_own_too(world: FeatureFleet, tmp_path: Path) -> None:
    from feast import FeatureStore, RepoConfig

    arrow: Any = pq
    path = world.cells([(1, 0, 1.0), (2, 2, 2.0)])
    rows = arrow.read_table(path)
    arrow.write_table(rows.append_column("area", rows["radius"]).append_column("depth", rows["radius"]), path)
    world.apply(load(world, RENAMED))
    assert world.snapshot(as_of=day(5)).error_detail is None
    world.store.online.materialize(ADMIN, "diagnosis")
    world.run()
    write(world, tmp_path / "repo")

    feast: Any = FeatureStore(repo_path=str(tmp_path / "repo"))
    both = {"origin_id": 1, "target_id": 2}
    service = feast.get_feature_service("diagnosis")
    answer = feast.get_online_features(features=service, entity_rows=[both], full_feature_names=True).to_dict()
    assert answer == {name: [value] for name, value in both.items()} | {
        "origin__radius": [1.0],
        "target__radius": [2.0],
        "target__area": [2.0],
    }
    # Feast's own store over the same sources answers likewise, in values, times, states and errors.
    theirs: Any = FeatureStore(
        config=RepoConfig(
            project="fairlead",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
            entity_key_serialization_version=3,
            repo_path=world.sources,
        )
    )
    defined = runpy.run_path(str(world.sources / "definitions.py"))
    theirs.apply([defined[name] for name in ("patient", "cells", "diagnosis")])
    theirs.materialize(start_date=day(0), end_date=day(5))
    ids = [{"patient_id": each} for each in (2, 9, "1", 2.0)]
    questions: list[tuple[Any, list[dict[str, Any]]]] = [
        (service, [both, both | {"origin_id": 7}]),
        (["cells:radius"], ids),
        (["cells:area"], ids),
        (["cells:area", "cells:radius"], ids),
        (["cells:nothing"], ids),
        (["nowhere:radius"], ids),
        (["cells:radius"], [{"origin_id": 1}]),
    ]
    for features, rows in questions:
        for is_full in (True, False):
            answers = [answer_of(store, features, rows, is_full=is_full) for store in (feast, theirs)]
            assert answers[0] == answers[1]
    # What is not materialized is no value that is missing.
    with pytest.raises(InvalidInput, match="'depth'"):
        feast.get_online_features(features=["cells:depth", "cells:radius"], entity_rows=ids)


def test_another_text_of_a_function_is_another_version_of_all_that_stands_on_it(world: FeatureFleet) -> None:
    world.apply(load(world, STREAMING.replace("FACTOR", "1")))
    changed = world.apply(load(world, STREAMING.replace("FACTOR", "2")))
    assert {name for name, change in changed.items() if change == "changed"} == {"scaled", "diagnosis"}
    changed = world.apply(load(world, STREAMING.replace("FACTOR", "1")))
    assert {name for name, change in changed.items() if change == "changed"} == {"scaled", "diagnosis"}
    assert world.store.definitions.get_service(ADMIN, "diagnosis").number == 1
    changed = world.apply(load(world, STREAMING.replace("FACTOR", "1").replace('topic="genes"', 'topic="other"')))
    assert changed["genes"] == changed["genes_topic"] == changed["diagnosis"] == "changed"


def test_views_that_only_code_fills_are_refused_by_name(world: FeatureFleet, repository: list[FeatureObject]) -> None:
    world.apply(repository)
    with pytest.raises(FeatureDefinitionInvalid, match="'ratio' has no function"):
        world.apply([FeatureObject(kind="OnDemandFeatureView", spec={"spec": {"name": "ratio"}})])
    cells = next(each for each in repository if each.spec.get("spec", {}).get("name") == "cells")
    spec = {**cells.spec["spec"], "featureTransformation": {"userDefinedFunction": {"name": "f", "body": "gASV"}}}
    with pytest.raises(FeatureDefinitionInvalid, match="transformation"):
        world.apply([FeatureObject(kind="FeatureView", spec={"spec": spec})])


def test_what_is_no_feast_object_is_refused() -> None:
    with pytest.raises(FeatureDefinitionInvalid, match="no Feast object"):
        to_wire(["cells"])
