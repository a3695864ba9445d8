"""A Feast repository over a region, as its user has it: reading, materializing, pushing, and no other write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import select

from fairlead.core.errors import InvalidInput, PermissionDenied
from fairlead.featurestore.tables_feast import FeastMaterializationRow
from fairlead.sdk.client import Fairlead
from tests.running_server import RunningServer, running_server

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
REGION = "aws:us-east-1"
NOW = datetime.now(UTC).replace(microsecond=0)

REPOSITORY = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Float64

patient = Entity(name="patient", join_keys=["patient_id"])  # its type is in the file
cells = FeatureView(
    name="cells",
    entities=[patient],
    ttl=timedelta(days=36500),
    schema=[Field(name="radius", dtype=Float64, description="in micrometres")],
    source=PushSource(
        name="cells_push",
        batch_source=FileSource(name="cells", path="cells.parquet", timestamp_field="event_timestamp"),
    ),
)
rates = FeatureView(
    name="rates",
    entities=[],
    schema=[Field(name="rate", dtype=Float64)],
    source=PushSource(
        name="rates_push",
        batch_source=FileSource(name="rates", path="rates.parquet", timestamp_field="event_timestamp"),
    ),
)
diagnosis = FeatureService(name="diagnosis", features=[cells])
market = FeatureService(name="market", features=[rates])
"""
FEAST = "project: clinic\nprovider: local\nregistry: registry.db\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clinic:
    server: RunningServer
    client: Fairlead
    folder: Path


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A service that is applied and has a snapshot."""
    folder = tmp_path_factory.mktemp("clinic")
    repository = folder / "repository"
    repository.mkdir()
    times = [NOW - timedelta(days=3), NOW - timedelta(days=2), NOW - timedelta(days=1)]
    rows = pd.DataFrame({"patient_id": [1, 2, 1], "event_timestamp": times, "radius": [1.0, 2.0, 1.5]})
    rows.to_parquet(repository / "cells.parquet")
    pd.DataFrame({"event_timestamp": times, "rate": [1.0, 1.25, 1.5]}).to_parquet(repository / "rates.parquet")
    (repository / "definitions.py").write_text(REPOSITORY)
    (repository / "feature_store.yaml").write_text(FEAST)
    database = f"sqlite:///{folder / 'fairlead.db'}"
    with (
        running_server(folder, database, has_worker=True) as server,
        server.connect() as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        # As its user's shell has them, for what Feast tells Fairlead.
        patch.setenv("FAIRLEAD_URL", server.url)
        patch.setenv("FAIRLEAD_TOKEN", server.token)
        client.locations.add("virginia", REGION, str(folder / "virginia"))
        assert client.features.apply(repository)["applied"]
        client.features.snapshot("diagnosis")
        yield Clinic(server=server, client=client, folder=folder)


def open_feast(folder: Path) -> Any:
    from feast import FeatureStore

    return FeatureStore(repo_path=str(folder))


def online(store: Any, patient: int) -> Any:
    rows = store.get_online_features(
        features=store.get_feature_service("diagnosis"), entity_rows=[{"patient_id": patient}]
    )
    return rows.to_dict()["radius"][0]


def test_feast_materializes_a_region_into_a_store_of_its_own_and_the_record_knows(
    clinic: Clinic, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    snapshot = clinic.client.features.feast_repo("diagnosis", region=REGION, to=repo, own_online_store=True)
    store = open_feast(repo)
    store.materialize(NOW - timedelta(days=10), NOW)
    assert (online(store, 1), online(store, 2)) == (1.5, 2.0)
    with clinic.server.service.database.read() as session:
        (kept,) = session.scalars(select(FeastMaterializationRow)).all()
    assert (kept.view, kept.snapshot_digest) == ("cells", snapshot)
    assert (kept.start_at, kept.end_at) == (NOW - timedelta(days=10), NOW)
    # Told again, it is kept once; a repository that is written again goes on where it was.
    interval = {"view": "cells", "snapshot": snapshot, "start": kept.start_at.isoformat(), "end": NOW.isoformat()}
    clinic.client.features.report_materialized("diagnosis", region=REGION, store=kept.store, intervals=[interval])
    (repo / "registry.db").unlink()
    clinic.client.features.feast_repo("diagnosis", region=REGION, to=repo, own_online_store=True)
    intervals = open_feast(repo).get_feature_view("cells").materialization_intervals
    assert intervals == [(NOW - timedelta(days=10), NOW)]
    with pytest.raises(InvalidInput, match="ends before it begins"):
        clinic.client.features.report_materialized(
            "diagnosis", region=REGION, store="mine", intervals=[interval | {"start": "2999-01-01T00:00:00Z"}]
        )


@pytest.mark.parametrize("own_online_store", [True, False])
def test_what_would_change_a_region_is_refused_before_it_has_an_effect(
    clinic: Clinic, tmp_path: Path, *, own_online_store: bool
) -> None:
    from feast import Entity, ValueType
    from feast.feature_view import FeatureViewState
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    repo = tmp_path / "repo"
    clinic.client.features.feast_repo("diagnosis", region=REGION, to=repo, own_online_store=own_online_store)
    store = open_feast(repo)
    before = {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    rows = pd.DataFrame({"patient_id": [1], "event_timestamp": [NOW]})
    job = store.get_historical_features(entity_df=rows, features=["cells:radius"])
    kept = SavedDatasetFileStorage(path=str(repo / "kept.parquet"))
    writes: list[Callable[[], Any]] = [
        lambda: store.apply([Entity(name="ward", join_keys=["ward"], value_type=ValueType.INT64)]),
        lambda: store.apply([], objects_to_delete=[store.get_feature_view("cells")], partial=False),
        lambda: store.delete_feature_view("cells"),
        lambda: store.disable_feature_view("cells"),
        lambda: store.delete_feature_service("diagnosis"),
        lambda: store.create_saved_dataset(job, name="kept", storage=kept),
        store.teardown,
    ]
    for write in writes:
        with pytest.raises(PermissionDenied, match="for reading"):
            write()
        assert [view.name for view in store.list_feature_views(allow_cache=True)] == ["cells"]
    # A state is a note of Feast's, and of this process alone.
    open_feast(repo).set_feature_view_state("cells", FeatureViewState.MATERIALIZING)
    for each in (store, open_feast(repo)):
        assert [view.name for view in each.list_feature_views()] == ["cells"]
        assert [service.name for service in each.list_feature_services()] == ["diagnosis"]
    assert {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()} == before


def test_rows_are_written_to_a_store_of_its_own_before_anything_was_materialized(
    clinic: Clinic, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    clinic.client.features.feast_repo("diagnosis", region=REGION, to=repo, own_online_store=True)
    store = open_feast(repo)
    rows = pd.DataFrame({"patient_id": [2], "event_timestamp": [NOW], "radius": [7.0]})
    store.write_to_online_store("cells", rows)
    assert online(store, 2) == 7.0


def test_what_feast_pushes_is_pushed_to_fairlead(clinic: Clinic, tmp_path: Path) -> None:
    from feast.data_source import PushMode

    clinic.client.features.materialize("diagnosis", regions=[REGION])
    repo = tmp_path / "repo"
    clinic.client.features.feast_repo("diagnosis", region=REGION, to=repo)
    store = open_feast(repo)
    with pytest.raises(PermissionDenied, match="by its workers"):
        store.materialize(NOW - timedelta(days=10), NOW)
    assert online(store, 2) == 2.0
    pushed = pd.DataFrame({"patient_id": [2], "event_timestamp": [NOW], "radius": [7.0]})
    store.push("cells_push", pushed, to=PushMode.ONLINE_AND_OFFLINE)
    answer: Any = clinic.client.features.online("diagnosis", {"patient_id": [2]}, region=REGION)
    assert answer["rows"][0]["radius"] == 7.0
    (log,) = clinic.client.features.logs("cells")
    assert log["rows"] == 2, "one event for each destination"


def test_rows_of_no_entity_are_pushed_and_materialized_by_feast_too(clinic: Clinic, tmp_path: Path) -> None:
    from feast.data_source import PushMode

    clinic.client.features.snapshot("market")
    clinic.client.features.materialize("market", regions=[REGION])
    clinic.client.features.feast_repo("market", region=REGION, to=tmp_path / "near")
    clinic.client.features.feast_repo("market", region=REGION, to=tmp_path / "mine", own_online_store=True)
    near, mine = open_feast(tmp_path / "near"), open_feast(tmp_path / "mine")
    mine.materialize(NOW - timedelta(days=10), NOW)
    pushed = pd.DataFrame({"event_timestamp": [NOW], "rate": [7.0]})
    near.push("rates_push", pushed, to=PushMode.ONLINE_AND_OFFLINE)
    mine.write_to_online_store("rates", pushed.assign(rate=8.0))
    taken = [
        store.get_online_features(features=store.get_feature_service("market"), entity_rows=[{"any": 1}]).to_dict()
        for store in (near, mine)
    ]
    assert taken == [{"rate": [7.0]}, {"rate": [8.0]}]
    (log,) = clinic.client.features.logs("rates")
    assert log["rows"] == 2, "one event for each destination"


def test_a_folder_of_somebody_else_is_not_written_to(clinic: Clinic, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(FEAST)
    with pytest.raises(InvalidInput, match="did not write"):
        clinic.client.features.feast_repo("diagnosis", region=REGION, to=tmp_path)
    assert (tmp_path / "feature_store.yaml").read_text() == FEAST


def test_a_snapshots_rows_are_written_to_a_file_or_it_is_said_why_not(clinic: Clinic, tmp_path: Path) -> None:
    digest = next(clinic.client.features.snapshots(service="diagnosis")).digest or ""
    exported = clinic.client.features.export(digest, "cells", tmp_path / "cells.parquet")
    assert list(pd.read_parquet(exported.path)["radius"]) == [1.0, 1.5, 2.0]
    for destination in (tmp_path, tmp_path / "nowhere" / "cells.parquet"):
        with pytest.raises(InvalidInput, match="cannot be written"):
            clinic.client.features.export(digest, "cells", destination)
    assert [path.name for path in tmp_path.iterdir()] == ["cells.parquet"]
