"""`feast.FeatureStore` with Fairlead as its offline store, over files as Feast's users have them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.core.errors import FeatureSourceInvalid, InvalidInput, Unavailable
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)

STORE = "fairlead.featurestore.feast_offline.FairleadOfflineStore"
START = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


class Repository:
    """A Feast repository in a folder, and the few objects that the tests are about."""

    def __init__(
        self, folder: Path, *, offline: dict[str, object] | None = None, batch_engine: dict[str, object] | None = None
    ) -> None:
        from feast import Entity, FeatureStore, RepoConfig, ValueType

        self.folder = folder
        self.store: Any = FeatureStore(
            config=RepoConfig(
                project="clinic",
                provider="local",
                registry=str(folder / "registry.db"),
                offline_store={"type": STORE} | (offline or {}),
                batch_engine=batch_engine or {"type": "local"},
                online_store={"type": "sqlite", "path": str(folder / "online.db")},
                entity_key_serialization_version=3,
                repo_path=folder,
            )
        )
        self.patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)

    def source(self, name: str, rows: dict[str, Sequence[object]], **options: Any) -> Any:
        from feast import FileSource

        pq.write_table(pa.table(rows), self.folder / f"{name}.parquet")
        options = {"timestamp_field": "event_timestamp"} | options
        return FileSource(name=name, path=f"{name}.parquet", **options)

    def view(self, name: str, source: Any, features: dict[str, Any], **options: Any) -> Any:
        from feast import FeatureView, Field

        options = {"entities": [self.patient], "ttl": timedelta(0)} | options
        schema = [Field(name=each, dtype=kind) for each, kind in features.items()]
        return FeatureView(name=name, source=source, schema=schema, **options)

    def ask(self, entity_df: object, *features: str, **options: Any) -> Any:
        return self.store.get_historical_features(entity_df=entity_df, features=list(features), **options)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Patients' pulses, with a backfill, a tie and a late row."""
    from feast.types import Float64, Int64

    found = Repository(tmp_path)
    source = found.source(
        "pulses",
        {
            "patient_id": [1, 1, 1, 2, 2, 3, 3],
            "pulse": [60, 61, 62, 70, 71, 80, 81],
            "noise": [0.5, float("nan"), 0.25, None, 1.0, 2.0, 3.0],
            "event_timestamp": [at(0), at(5), at(5), at(0), at(50), at(1), at(1)],
            "created": [at(0), at(5), at(6), at(0), at(50), at(1), at(1)],
        },
        created_timestamp_column="created",
    )
    pulses = found.view("pulses", source, {"pulse": Int64, "noise": Float64}, ttl=timedelta(hours=24))
    found.store.apply([found.patient, source, pulses])
    return found


def frame(rows: Sequence[tuple[object, datetime | None]]) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": [key for key, _ in rows], "event_timestamp": [time for _, time in rows]})


def test_every_entity_row_is_kept_in_order_with_what_was_known_then(repository: Repository) -> None:
    rows = [(2, at(60)), (1, at(5)), (1, at(4)), (1, at(4)), (2, at(-1)), (9, at(5)), (1, at(29)), (1, at(29.1))]
    asked = frame(rows).assign(label=range(len(rows)))
    job = repository.ask(asked, "pulses:pulse")
    found = job.to_arrow()
    assert found.column_names == ["patient_id", "event_timestamp", "label", "pulse"]
    assert found["label"].to_pylist() == list(range(len(rows)))
    # The last is one of 24 hours and six minutes ago.
    assert found["pulse"].to_pylist() == [71, 62, 60, 60, None, None, 62, None]
    assert found.schema.field("pulse").type == pa.int64()
    assert [len(batch) for batch in job.to_batches(5)] == [5, 3]
    assert job.metadata.min_event_timestamp == at(-1)
    assert sorted(job.metadata.keys) == ["label", "patient_id"]


def test_the_latest_created_row_counts_among_those_of_one_time_and_then_the_greatest_values(
    repository: Repository,
) -> None:
    found = repository.ask(frame([(1, at(5)), (3, at(1))]), "pulses:pulse", "pulses:noise").to_arrow()
    assert found["pulse"].to_pylist() == [62, 81]
    assert found["noise"].to_pylist() == [0.25, 3.0]


def test_of_equal_rows_one_that_is_not_a_number_gives_way(tmp_path: Path) -> None:
    from feast.types import Float64

    found = Repository(tmp_path)
    columns: dict[str, Any] = {"patient_id": [1, 1], "noise": [0.25, float("nan")], "event_timestamp": [at(0), at(0)]}
    source = found.source("noises", columns)
    found.store.apply([found.patient, source, found.view("noises", source, {"noise": Float64})])
    assert found.ask(frame([(1, at(1))]), "noises:noise").to_arrow()["noise"].to_pylist() == [0.25]


def test_rows_that_were_not_written_yet_do_not_count_when_that_is_asked_for(repository: Repository) -> None:
    rows = frame([(1, at(5)), (1, at(5.5)), (1, at(6))])
    assert repository.ask(rows, "pulses:pulse").to_arrow()["pulse"].to_pylist() == [62, 62, 62]
    strict = repository.ask(rows, "pulses:pulse", filter_by_created_timestamp=True)
    assert strict.to_arrow()["pulse"].to_pylist() == [61, 61, 62]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_zone_and_precision_mean_the_same(repository: Repository, zone: str | None, unit: str) -> None:
    times: Any = pd.Series(pd.DatetimeIndex([at(4), at(5)]))
    times = times.dt.tz_convert(zone) if zone else times.dt.tz_localize(None)
    asked = pd.DataFrame({"patient_id": [1, 1], "event_timestamp": times.dt.as_unit(unit)})
    found = repository.ask(asked, "pulses:pulse").to_df()
    assert found["pulse"].tolist() == [60, 62]
    assert [each.to_pydatetime() for each in found["event_timestamp"]] == [at(4), at(5)]


def test_features_keep_the_types_that_their_source_has(tmp_path: Path) -> None:
    from feast.types import Array, Bool, Bytes, Float32, Int32, Json, String, UnixTimestamp

    columns: dict[str, tuple[Any, list[Any], Any]] = {
        "small": (pa.int32(), [1, 2], Int32),
        "half": (pa.float32(), [0.5, None], Float32),
        "flag": (pa.bool_(), [True, None], Bool),
        "raw": (pa.binary(), [b"\x00", None], Bytes),
        "moment": (pa.timestamp("us"), [datetime(1980, 1, 1), None], UnixTimestamp),  # noqa: DTZ001  (as the source has it)
        "texts": (pa.list_(pa.string()), [["a"], []], Array(String)),
        "nested": (pa.struct([("name", pa.string())]), [{"name": "x"}, None], Json),
    }
    found = Repository(tmp_path)
    rows: dict[str, Any] = {name: pa.array(values, kind) for name, (kind, values, _) in columns.items()}
    rows |= {"patient_id": [1, 2], "event_timestamp": [at(0), at(0)]}
    source = found.source("kinds", rows)
    view = found.view("kinds", source, {name: kind for name, (_, _, kind) in columns.items()})
    found.store.apply([found.patient, source, view])
    table = found.ask(frame([(2, at(1)), (1, at(1))]), *(f"kinds:{name}" for name in columns)).to_arrow()
    for name, (kind, values, _) in columns.items():
        assert table.schema.field(name).type == kind, name
        assert table[name].to_pylist() == values[::-1], name


def test_text_is_read_as_times_and_the_only_column_of_times_is_found(repository: Repository) -> None:
    text = pd.DataFrame({"patient_id": [1], "event_timestamp": ["2026-01-01T14:00:00+09:00"]})
    assert repository.ask(text, "pulses:pulse").to_arrow()["pulse"].to_pylist() == [62]
    renamed = frame([(1, at(5))]).rename(columns={"event_timestamp": "seen"})
    assert repository.ask(renamed, "pulses:pulse").to_arrow()["pulse"].to_pylist() == [62]


def test_keys_with_gaps_are_keys_and_those_of_another_kind_are_refused(repository: Repository) -> None:
    found = repository.ask(frame([(1.0, at(5)), (None, at(5))]), "pulses:pulse").to_arrow()
    assert found["pulse"].to_pylist() == [62, None]
    assert repository.ask(frame([("1", at(5))]), "pulses:pulse").to_arrow()["pulse"].to_pylist() == [62]
    for wrong in ("one", 1.5):
        with pytest.raises(InvalidInput, match="patient_id"):
            repository.ask(frame([(wrong, at(5))]), "pulses:pulse").to_arrow()


def test_what_does_not_fit_is_said_before_anything_is_read(repository: Repository) -> None:
    with pytest.raises(InvalidInput, match="patient_id"):
        repository.ask(frame([(1, at(5))]).rename(columns={"patient_id": "id"}), "pulses:pulse").to_df()
    with pytest.raises(InvalidInput, match="already have a column 'pulse'"):
        repository.ask(frame([(1, at(5))]).assign(pulse=1), "pulses:pulse").to_df()
    with pytest.raises(KeyError, match="blood"):
        repository.ask(frame([(1, at(5))]), "pulses:blood")
    with pytest.raises(InvalidInput, match="no entity rows"):
        repository.ask(frame([]), "pulses:pulse")
    (repository.folder / "pulses.parquet").unlink()
    with pytest.raises(FeatureSourceInvalid, match="no file"):
        repository.ask(frame([(1, at(5))]), "pulses:pulse").to_df()


def test_names_mappings_and_several_views_are_as_in_feast(tmp_path: Path) -> None:
    from feast import Entity, ValueType
    from feast.types import Float32, Int64

    found = Repository(tmp_path)
    ward = Entity(name="ward", join_keys=["ward_id"], value_type=ValueType.STRING)
    stays = found.source(
        "stays",
        {"id": [1, 1], "ward": ["a", "b"], "t": [at(0), at(0)], "days": [3, 4]},
        timestamp_field="event_timestamp",
        field_mapping={"id": "patient_id", "ward": "ward_id", "t": "event_timestamp", "days": "length"},
    )
    heat = found.source("heat", {"ward_id": ["a", "b"], "celsius": [20.5, 25.0], "event_timestamp": [at(0), at(1)]})
    year = found.source("year", {"flu": [7, 8], "event_timestamp": [at(0), at(3)]})
    views = [
        found.view("stays", stays, {"length": Int64}, entities=[found.patient, ward]),
        found.view("heat", heat, {"celsius": Float32}, entities=[ward]),
        found.view("year", year, {"flu": Int64}, entities=[]),
    ]
    found.store.apply([found.patient, ward, stays, heat, year, *views])
    asked = pd.DataFrame({"patient_id": [1, 1], "ward_id": ["b", "a"], "event_timestamp": [at(2), at(0)]})
    names = ["stays:length", "heat:celsius", "year:flu"]
    rows = found.ask(asked, *names).to_arrow()
    assert rows.select(["length", "celsius", "flu"]).to_pylist() == [
        {"length": 4, "celsius": 25.0, "flu": 7},
        {"length": 3, "celsius": 20.5, "flu": 7},
    ]
    assert found.ask(asked, *names, full_feature_names=True).to_arrow().column_names[3:] == [
        "stays__length",
        "heat__celsius",
        "year__flu",
    ]
    from feast import FeatureService

    moved = FeatureService(
        name="moved",
        features=[
            views[1].with_name("origin").with_join_key_map({"ward_id": "from_ward"}),
            views[1].with_name("target").with_join_key_map({"ward_id": "to_ward"}),
        ],
    )
    found.store.apply([moved])
    asked = pd.DataFrame({"from_ward": ["a"], "to_ward": ["b"], "event_timestamp": [at(2)]})
    job = found.store.get_historical_features(entity_df=asked, features=moved, full_feature_names=True)
    assert job.to_arrow().to_pylist()[0] | {"event_timestamp": None} == {
        "from_ward": "a",
        "to_ward": "b",
        "event_timestamp": None,
        "origin__celsius": 20.5,
        "target__celsius": 25.0,
    }


def test_entity_rows_may_be_a_select_over_the_data_sources_and_over_nothing_else(repository: Repository) -> None:
    query = "SELECT patient_id, max(event_timestamp) AS event_timestamp FROM pulses GROUP BY 1 ORDER BY 1"
    assert repository.ask(query, "pulses:pulse").to_arrow()["pulse"].to_pylist() == [62, 71, 81]
    for refused in (
        "DELETE FROM pulses",
        "SELECT 1 AS patient_id; SELECT 2",
        "SELECT * FROM nowhere",
        "SELECT content FROM read_text('/etc/hostname')",
        "COPY pulses TO '/tmp/stolen.csv'",
        "SET lock_configuration = false",
    ):
        with pytest.raises(InvalidInput, match="SELECT"):
            repository.ask(refused, "pulses:pulse")


def test_without_entity_rows_all_entities_of_a_window_are_given_as_of_its_end(repository: Repository) -> None:
    job = repository.ask(None, "pulses:pulse", start_date=at(0), end_date=at(6))
    found = job.to_arrow()
    assert found["patient_id"].to_pylist() == [1, 2, 3]
    assert found["pulse"].to_pylist() == [62, 70, 81]
    assert set(found["event_timestamp"].to_pylist()) == {at(6)}
    assert repository.ask(None, "pulses:pulse", start_date=at(40), end_date=at(60)).to_arrow()["pulse"].to_pylist() == [
        71
    ]


def test_on_demand_views_are_computed_over_the_rows(repository: Repository) -> None:
    from feast import Field, RequestSource
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Int64

    request = RequestSource(name="asked", schema=[Field(name="extra", dtype=Int64)])

    @on_demand_feature_view(
        sources=[repository.store.get_feature_view("pulses"), request],
        schema=[Field(name="sum", dtype=Int64), Field(name="twice", dtype=Int64)],
    )
    def computed(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"sum": inputs["pulse"] + inputs["extra"], "twice": inputs["pulse"] * 2})

    repository.store.apply([computed])
    found = repository.ask(frame([(1, at(5)), (3, at(1))]).assign(extra=[1, 2]), "computed:sum").to_df()
    assert found["sum"].tolist() == [63, 83]
    assert "twice" not in found


def test_a_result_is_kept_and_read_back(repository: Repository, tmp_path: Path) -> None:
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    job = repository.ask(frame([(1, at(5)), (2, at(1))]), "pulses:pulse")
    storage = SavedDatasetFileStorage(path=str(tmp_path / "kept"))
    kept = repository.store.create_saved_dataset(from_=job, name="kept", storage=storage)
    assert sorted(kept.to_df()["pulse"]) == [62, 70]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)
    assert sorted(kept.to_df()["pulse"]) == [62, 70]
    job.persist(SavedDatasetFileStorage(path="one.parquet"))
    assert pq.read_table(repository.folder / "one.parquet").num_rows == 2


def test_materializing_takes_the_last_row_of_each_entity(repository: Repository) -> None:
    repository.store.materialize(start_date=at(-1), end_date=at(6))
    found = repository.store.get_online_features(
        features=["pulses:pulse"], entity_rows=[{"patient_id": each} for each in (1, 2)]
    ).to_dict()
    assert found["pulse"] == [62, 70]
    view, config = repository.store.get_feature_view("pulses"), repository.store.config
    job = repository.store._get_provider().offline_store.pull_latest_from_table_or_query(  # noqa: SLF001
        config, view.batch_source, ["patient_id"], ["noise", "pulse"], "event_timestamp", "created", at(1), at(49)
    )
    assert sorted(job.to_arrow().select(["patient_id", "pulse"]).to_pylist(), key=str) == [
        {"patient_id": 1, "pulse": 62},
        {"patient_id": 3, "pulse": 81},
    ]


def test_no_rows_are_lost_where_several_add_to_one_file(repository: Repository) -> None:
    from fairlead.featurestore.feast_appends import append_rows

    config, source = repository.store.config, repository.store.get_data_source("pulses")
    path = repository.folder / "pulses.parquet"
    parquet: Any = pq
    before = parquet.read_table(path)

    def add(_: int) -> None:
        append_rows(config, source, before.slice(0, 1), view="pulses")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert parquet.read_table(path).num_rows == before.num_rows + 12
    assert [each.name for each in repository.folder.glob("pulses*")] == ["pulses.parquet"]


def test_rows_are_added_to_a_file_and_to_a_folder(repository: Repository) -> None:
    more = pd.DataFrame(
        {"patient_id": [1], "pulse": [99], "noise": [1.0], "event_timestamp": [at(7)], "created": [at(7)]}
    )
    repository.store.write_to_offline_store("pulses", more)
    assert repository.ask(frame([(1, at(8)), (2, at(8))]), "pulses:pulse").to_arrow()["pulse"].to_pylist() == [99, 70]
    assert sorted(path.name for path in repository.folder.glob("pulses*")) == ["pulses.parquet"]
    with pytest.raises((InvalidInput, ValueError), match="columns"):
        repository.store.write_to_offline_store("pulses", more.drop(columns=["noise"]), reorder_columns=False)
    folder = repository.folder / "parts"
    folder.mkdir()
    (repository.folder / "pulses.parquet").rename(folder / "first.parquet")
    folder.rename(repository.folder / "pulses.parquet")
    repository.store.write_to_offline_store("pulses", more.assign(event_timestamp=at(9), pulse=100))
    assert repository.ask(frame([(1, at(9))]), "pulses:pulse").to_arrow()["pulse"].to_pylist() == [100]


def test_rows_are_added_by_the_names_of_the_view_where_the_source_has_others(tmp_path: Path) -> None:
    from feast.types import Int64

    found = Repository(tmp_path)
    rows: dict[str, Sequence[object]] = {"patient_id": [1], "raw": [60], "event_timestamp": [at(0)]}
    source = found.source("mapped", rows, field_mapping={"raw": "pulse", "nowhere": "noise"})
    found.store.apply([found.patient, source, found.view("mapped", source, {"pulse": Int64})])
    found.store.write_to_offline_store(
        "mapped", pd.DataFrame({"patient_id": [1], "raw": [99], "event_timestamp": [at(7)]})
    )
    asked = frame([(1, at(8)), (1, at(1))])
    assert found.ask(asked, "mapped:pulse").to_arrow()["pulse"].to_pylist() == [99, 60]


def test_rows_are_added_to_a_table_of_a_duckdb_database_and_to_no_query(tmp_path: Path) -> None:
    from feast.types import Int64

    from fairlead.featurestore.feast_sources import DuckDBSource

    database = tmp_path / "clinic.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE cells (patient_id BIGINT, pulse INTEGER, event_timestamp TIMESTAMP)")
    found = Repository(tmp_path)
    for name, table, query in (("cells", "cells", None), ("asked", None, "SELECT * FROM cells")):
        source = DuckDBSource(
            name=name, database=str(database), table=table, query=query, timestamp_field="event_timestamp"
        )
        found.store.apply([found.patient, source, found.view(name, source, {"pulse": Int64})])
    added = pd.DataFrame({"patient_id": [1, 2], "pulse": [60, None], "event_timestamp": [at(1), at(2)]})
    found.store.write_to_offline_store("cells", added)
    found.store.write_to_offline_store("cells", added.assign(pulse=[61, 62], event_timestamp=[at(3), at(4)]))
    asked = frame([(1, at(2)), (1, at(4)), (2, at(3)), (2, at(4))])
    assert found.ask(asked, "cells:pulse").to_arrow()["pulse"].to_pylist() == [60, 61, None, 62]
    with pytest.raises(InvalidInput, match="cannot be added"):
        found.store.write_to_offline_store("asked", added)
    with pytest.raises(InvalidInput, match="types"):
        found.store.write_to_offline_store("cells", added.assign(pulse=["many", "few"]))
    with duckdb.connect(str(database), read_only=True) as other:
        other.execute("FROM cells")
        with pytest.raises(Unavailable, match="opened for writing"):
            found.store.write_to_offline_store("cells", added)
    database.unlink()
    with pytest.raises(FeatureSourceInvalid):
        found.store.write_to_offline_store("cells", added)
    assert not database.exists()


def test_feast_learns_the_columns_of_a_postgresql_source_by_the_connection_that_it_is_read_by(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    from feast import Entity, FeatureView
    from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
    from feast.types import Array, Float64, Int32, Int64, String, UnixTimestamp

    with postgres_server.new_database() as url:
        address = url.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(address) as connection:
            connection.execute(
                "CREATE TABLE pulses AS SELECT 1::bigint AS patient_id, 60::smallint AS pulse, 0.5::float8 AS noise,"
                " 'a'::varchar(3) AS label, ARRAY[1, 2] AS parts, now()::date AS seen,"
                " timestamptz '2026-01-01 01:00+00' AS event_timestamp"
            )
        found = Repository(tmp_path, offline={"connections": {"clinic": address}})
        source = PostgreSQLSource(
            name="pulses", table="pulses", timestamp_field="event_timestamp", tags={"fairlead.connection": "clinic"}
        )
        patient = Entity(name="patient", join_keys=["patient_id"])
        found.store.apply([patient, source, FeatureView(name="pulses", entities=[patient], source=source)])
        view = found.store.get_feature_view("pulses")
        assert [each.dtype for each in view.entity_columns] == [Int64]
        assert {each.name: each.dtype for each in view.features} == {
            "pulse": Int32,
            "noise": Float64,
            "label": String,
            "parts": Array(Int32),
            "seen": UnixTimestamp,
        }
        assert found.ask(frame([(1, at(2)), (1, at(0))]), "pulses:pulse").to_arrow()["pulse"].to_pylist() == [60, None]


def test_rows_are_added_to_a_table_of_postgresql_all_or_none(postgres_server: PostgresServer, tmp_path: Path) -> None:
    from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
    from feast.types import Array, Int64

    with postgres_server.new_database() as url:
        address = url.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(address) as connection:
            connection.execute(
                "CREATE TABLE cells (patient_id bigint, pulse smallint, parts int[], event_timestamp timestamptz)"
            )
        found = Repository(tmp_path, offline={"connections": {"default": address}})
        sources = [
            PostgreSQLSource(name=name, table=table, query=query, timestamp_field="event_timestamp", tags=tags)
            for name, table, query, tags in (
                ("cells", "cells", None, None),
                ("asked", None, "SELECT * FROM cells", None),
                ("absent", "cells", None, {"fairlead.connection": "nowhere"}),
            )
        ]
        views = [found.view(each.name, each, {"pulse": Int64, "parts": Array(Int64)}) for each in sources]
        found.store.apply([found.patient, *sources[:2], *views[:2]])
        added = pd.DataFrame(
            {"patient_id": [1, 2], "pulse": [60, None], "parts": [[1, 2], None], "event_timestamp": [at(1), at(2)]}
        )
        found.store.write_to_offline_store("cells", added)
        asked = frame([(1, at(2)), (2, at(3))])
        kept = found.ask(asked, "cells:pulse", "cells:parts").to_arrow()
        assert kept["pulse"].to_pylist() == [60, None]
        assert kept["parts"].to_pylist() == [[1, 2], None]
        with pytest.raises(InvalidInput, match="types"):
            found.store.write_to_offline_store("cells", added.assign(pulse=[61, 2**40]))
        assert found.ask(asked, "cells:pulse").to_arrow()["pulse"].to_pylist() == [60, None]
        with pytest.raises(InvalidInput, match="cannot be added"):
            found.store.write_to_offline_store("asked", added)
        write: Any = found.store._get_provider().offline_write_batch  # noqa: SLF001
        with pytest.raises(FeatureSourceInvalid, match="'nowhere'"):
            write(found.store.config, views[2], pa.Table.from_pandas(added), None)
    with pytest.raises(Unavailable):
        write(found.store.config, views[0], pa.Table.from_pandas(added), None)
