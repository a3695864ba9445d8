"""`feast.FeatureStore` over views of several regions: the same call, and each view joined where it lives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from fairlead.core.errors import AgentUnavailable, InvalidInput
from tests.featurestore.feature_fleet import view_spec
from tests.featurestore.federation_world import EU, US, WEST, FederationWorld, day, open_federation, tagged

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)

WANTED = ["cells:radius", "genes:marker", "visits:count"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationWorld]:
    with open_federation(tmp_path_factory.mktemp("federation")) as found:
        yield found


@pytest.fixture(scope="module")
def store(world: FederationWorld, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A repository in the west, where only the source without a home can be read."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float32, Int64, String

    folder = tmp_path_factory.mktemp("west")
    (folder / "visits.parquet").write_bytes((world.sources / "visits.parquet").read_bytes())
    found: Any = FeatureStore(
        config=RepoConfig(
            project="clinic",
            provider="local",
            registry=str(folder / "registry.db"),
            offline_store={
                "type": "fairlead.featurestore.feast_offline.FairleadOfflineStore",
                "federation": {"url": world.server.url, "token": world.server.token, "region": WEST},
            },
            online_store=None,
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)
    views: list[Any] = [
        FeatureView(
            name=name,
            entities=[patient],
            ttl=timedelta(days=10) if name == "cells" else timedelta(0),
            schema=[Field(name=feature, dtype=kind)],
            source=FileSource(path=f"{name}.parquet", timestamp_field="event_timestamp"),
            tags={"fairlead.home": home} if home else {},
        )
        for name, feature, kind, home in (
            ("cells", "radius", Float32, US),
            ("genes", "marker", String, EU),
            ("visits", "count", Int64, None),
        )
    ]
    relatives = [
        views[0].with_name(name).with_join_key_map({"patient_id": f"{name}_id"}) for name in ("child", "parent")
    ]
    found.apply([patient, *views, FeatureService(name="family", features=relatives)])
    return found


@pytest.fixture(autouse=True)
def signs_of_life(world: FederationWorld, store: Any) -> None:  # noqa: ARG001  (made before)
    """However long Feast took to import."""
    for agent in world.agents.values():
        agent.sign()


def frame(*rows: tuple[int, float]) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": [row[0] for row in rows], "event_timestamp": [day(row[1]) for row in rows]})


def test_feast_gets_features_of_all_regions_in_the_order_of_the_entity_rows(store: Any) -> None:
    rows = frame((1, 1), (1, 4), (2, 4), (3, 4), (7, 3)).assign(label=range(5))
    table = store.get_historical_features(entity_df=rows, features=WANTED, full_feature_names=True).to_arrow()
    assert table.column_names == [*rows.columns, "cells__radius", "genes__marker", "visits__count"]
    assert table["label"].to_pylist() == list(range(5))
    assert table["cells__radius"].to_pylist() == [1.0, 1.5, None, None, None]
    assert table["genes__marker"].to_pylist() == ["b", "b", None, "c", None]
    assert table["visits__count"].to_pylist() == [3, 3, 5, None, None]


def test_a_view_of_another_region_is_taken_twice_by_different_keys(store: Any) -> None:
    rows = frame((1, 1), (2, 1)).rename(columns={"patient_id": "child_id"}).assign(parent_id=[2, 1])
    family = store.get_feature_service("family")
    table = store.get_historical_features(entity_df=rows, features=family, full_feature_names=True).to_arrow()
    assert table["child__radius"].to_pylist() == [1.0, 2.0]
    assert table["parent__radius"].to_pylist() == [2.0, 1.0]


def test_a_view_without_an_entity_is_joined_in_its_region_too(world: FederationWorld, store: Any) -> None:
    from feast import FeatureView, Field, FileSource
    from feast.types import Float64

    path = world.sources / "rates.parquet"
    pd.DataFrame({"event_timestamp": [day(0), day(3)], "rate": [1.0, 1.5]}).to_parquet(path)
    rates = view_spec("rates", [("rate", "DOUBLE")], path, entities=[], entityColumns=[])
    world.apply([tagged(rates, home=EU)])
    source = FileSource(path="rates.parquet", timestamp_field="event_timestamp")
    schema, tags = [Field(name="rate", dtype=Float64)], {"fairlead.home": EU}
    store.apply([FeatureView(name="rates", entities=[], schema=schema, source=source, tags=tags)])
    rows = frame((1, 1), (2, 4), (3, -1))
    both = store.get_historical_features(entity_df=rows, features=["rates:rate", "genes:marker"]).to_arrow()
    assert both.column_names == [*rows.columns, "rate", "marker"]
    assert (both["rate"].to_pylist(), both["marker"].to_pylist()) == ([1.0, 1.5, None], ["b", None, None])
    alone = store.get_historical_features(entity_df=rows[["event_timestamp"]], features=["rates:rate"]).to_arrow()
    assert (alone.column_names, alone["rate"]) == (["event_timestamp", "rate"], both["rate"])


def test_what_agents_cannot_answer_is_refused(store: Any) -> None:
    with pytest.raises(InvalidInput, match="home region"):
        store.get_historical_features(entity_df=None, features=WANTED, start_date=day(0), end_date=day(9))
    job = store.get_historical_features(entity_df=frame((1, 1)), features=WANTED, filter_by_created_timestamp=True)
    with pytest.raises(InvalidInput, match="event timestamps alone"):
        job.to_df()


def test_a_region_that_is_gone_is_an_error_or_is_labelled(
    world: FederationWorld, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world.agents[US].stop()
    with pytest.raises(AgentUnavailable, match=US):
        store.get_historical_features(entity_df=frame((1, 1)), features=WANTED).to_df()
    store.config.offline_store.federation.on_unavailable = "missing"
    table = store.get_historical_features(entity_df=frame((1, 1)), features=WANTED).to_arrow()
    assert (table["radius"].to_pylist(), table["marker"].to_pylist()) == ([None], ["b"])
    assert f"MISSING: cells of {US}, which did not answer" in caplog.text
