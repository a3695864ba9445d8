"""Feast as its users know it, over a region's own replica and online store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import FeatureDefinitionInvalid, PermissionDenied
from fairlead.featurestore.applied import FeatureObject
from fairlead.sdk.feast_objects import load_repository, to_wire
from tests.featurestore.feature_fleet import FeatureFleet, day, entity_rows, open_feature_fleet
from tests.fleet import ADMIN, REGIONS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
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
    (world.sources / "feature_store.yaml").write_text("project: clinic\nprovider: local\nregistry: registry.db\n")
    (world.sources / "definitions.py").write_text(REPOSITORY)
    wire: Any = to_wire(load_repository(world.sources))
    return [FeatureObject(kind=each["kind"], spec=each["spec"]) for each in wire]


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
    assert world.store.feast.write(ADMIN, "diagnosis", EU, tmp_path / "repo") == snapshot.digest

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

    with pytest.raises(PermissionDenied, match="for reading"):
        feast.materialize(start_date=day(0), end_date=day(9))
    with pytest.raises(PermissionDenied, match="for reading"):
        feast.apply([feast.get_entity("patient")])
    # What was refused had no effect.
    again: Any = FeatureStore(repo_path=str(tmp_path / "repo"))
    rows = again.get_online_features(features=service, entity_rows=[{"patient_id": 1}]).to_dict()
    assert rows["marker"] == ["a"]


def test_views_that_run_code_are_refused_by_name(world: FeatureFleet, repository: list[FeatureObject]) -> None:
    world.apply(repository)
    with pytest.raises(FeatureDefinitionInvalid, match="OnDemandFeatureView"):
        world.apply([FeatureObject(kind="OnDemandFeatureView", spec={"spec": {"name": "ratio"}})])
    cells = next(each for each in repository if each.spec.get("spec", {}).get("name") == "cells")
    spec = {**cells.spec["spec"], "featureTransformation": {"userDefinedFunction": {"name": "f", "body": "gASV"}}}
    with pytest.raises(FeatureDefinitionInvalid, match="transformation"):
        world.apply([FeatureObject(kind="FeatureView", spec={"spec": spec})])


def test_what_is_no_feast_object_is_refused() -> None:
    with pytest.raises(FeatureDefinitionInvalid, match="no Feast object"):
        to_wire(["cells"])
