"""Three regions on one machine that serve features of patients, with a feature server in each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.app.edge_cache import connect_as
from fairlead.app.feature_http import create_feature_app
from fairlead.app.feature_server import FeatureServer
from fairlead.app.http import Server, listen
from fairlead.sdk.client import Fairlead
from tests.running_server import RunningServer, running_server

arrow: Any = pa
parquet: Any = pq

REGIONS = {"virginia": "aws:us-east-1", "oregon": "aws:us-west-2", "eemshaven": "gcp:europe-west4"}
US, WEST, EU = REGIONS["virginia"], REGIONS["oregon"], REGIONS["eemshaven"]
NOW = datetime.now(UTC).replace(microsecond=0)

REPOSITORY = """
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int64, String, UnixTimestamp

patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)
cells = FeatureView(
    name="cells",
    entities=[patient],
    ttl=timedelta(days=300),
    schema=[
        Field(name="radius", dtype=Float32),
        Field(name="area", dtype=Float64),
        Field(name="count", dtype=Int64),
        Field(name="word", dtype=String),
        Field(name="is_large", dtype=Bool),
        Field(name="raw", dtype=Bytes),
        Field(name="seen", dtype=UnixTimestamp),
        Field(name="shape", dtype=Array(Float32)),
    ],
    source=FileSource(name="cells_source", path="cells.parquet", timestamp_field="event_timestamp"),
)
genes = FeatureView(
    name="genes",
    entities=[patient],
    schema=[Field(name="marker", dtype=String)],
    source=FileSource(name="genes_source", path="genes.parquet", timestamp_field="event_timestamp"),
    tags={"fairlead.residency": "eu"},
)
rates = FeatureView(
    name="rates",
    entities=[],
    schema=[Field(name="rate", dtype=Float64)],
    source=FileSource(name="rates_source", path="rates.parquet", timestamp_field="event_timestamp"),
)
asked = RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])


@on_demand_feature_view(sources=[cells[["radius"]], asked], schema=[Field(name="scaled", dtype=Float64)])
def scaling(inputs: pd.DataFrame) -> pd.DataFrame:
    frame = pd.DataFrame()
    frame["scaled"] = inputs["radius"] * inputs["factor"]
    return frame


profile = FeatureService(name="profile", features=[cells])
diagnosis = FeatureService(name="diagnosis", features=[cells[["radius"]], genes])
scaled = FeatureService(name="scaled", features=[cells[["word"]], scaling])
market = FeatureService(name="market", features=[rates])
priced = FeatureService(name="priced", features=[cells[["word"]], rates])
"""


FEAST = """
project: plain
registry: registry.db
provider: local
online_store: {type: sqlite, path: online.db}
entity_key_serialization_version: 3
"""


@dataclass(slots=True, kw_only=True)
class Site:
    """A feature server that runs, and how to stop it."""

    server: FeatureServer
    url: str
    http: httpx2.Client
    process: Server
    thread: threading.Thread
    away: threading.Event

    def stop(self) -> None:
        """Die, as far as clients can tell."""
        self.process.should_exit = True
        self.thread.join()


@dataclass(slots=True, kw_only=True)
class FeatureWorld:
    """A registry with a worker, and regions that serve."""

    server: RunningServer
    client: Fairlead
    folder: Path
    sites: dict[str, Site] = field(default_factory=dict[str, Site])

    @contextlib.contextmanager
    def serving(self, region: str, *, is_listed: bool = True, **options: Any) -> Generator[Site]:
        """A feature server of a region."""
        engine = options.pop("engine", None) or self.server.service.features.online_engines.of(region)
        client = self.server.connect()
        away = threading.Event()

        def connect(token: str) -> Fairlead:
            # Nobody listens at port 9: as when the registry is away.
            return connect_as(client.settings, "http://127.0.0.1:9" if away.is_set() else client.url)(token)

        server = FeatureServer(client, engine=engine, region=region, connect=connect, **options)
        listener = listen("127.0.0.1", 0)
        process = Server(create_feature_app(server))
        thread = threading.Thread(target=process.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listed = self.client.features.servers.register(region=region, url=url).id if is_listed else None
        headers = {"authorization": f"Bearer {self.server.token}"}
        try:
            with httpx2.Client(base_url=url, headers=headers, trust_env=False) as http:
                yield Site(server=server, url=url, http=http, process=process, thread=thread, away=away)
        finally:
            process.should_exit = True
            thread.join()
            server.close()
            client.close()
            if listed is not None:
                self.client.features.servers.remove(listed)


def write_sources(folder: Path) -> None:
    """Rows of patients 1 to 20; the last is long ago, and the third has nothing but a time. And rates, of nobody."""
    ids = list(range(1, 21))
    moments = [NOW - timedelta(days=each) for each in ids]
    moments[-1] = NOW - timedelta(days=400)
    columns = {
        "radius": arrow.array([each / 10 for each in ids], arrow.float32()),
        "area": arrow.array([float("inf") if each == 5 else each * 1.1 for each in ids], arrow.float64()),
        "count": arrow.array(ids, arrow.int64()),
        "word": arrow.array([f"é{each}" for each in ids]),
        "is_large": arrow.array([each > 10 for each in ids]),
        "raw": arrow.array([bytes([each]) for each in ids]),
        "seen": arrow.array(moments, arrow.timestamp("us", tz="UTC")),
        "shape": arrow.array([[each / 3, 0.5] for each in ids], arrow.list_(arrow.float32())),
    }
    columns = {
        # Feast's server shows a missing time as the least number that there is.
        name: arrow.array(
            [None if at == 2 and name != "seen" else value for at, value in enumerate(column.to_pylist())], column.type
        )
        for name, column in columns.items()
    }
    keys = {"patient_id": ids, "event_timestamp": arrow.array(moments, arrow.timestamp("us", tz="UTC"))}
    parquet.write_table(arrow.table({**keys, **columns}), folder / "cells.parquet")
    parquet.write_table(arrow.table({**keys, "marker": [f"m{each}" for each in ids]}), folder / "genes.parquet")
    rates = {"event_timestamp": keys["event_timestamp"], "rate": [each / 4 for each in ids]}
    parquet.write_table(arrow.table(rates), folder / "rates.parquet")


@contextlib.contextmanager
def feature_world(folder: Path, database_url: str) -> Generator[FeatureWorld]:
    """Everything applied, snapshotted and materialized; no feature server yet."""
    repository = folder / "repository"
    repository.mkdir()
    write_sources(repository)
    (repository / "definitions.py").write_text(REPOSITORY)
    (repository / "feature_store.yaml").write_text(FEAST)
    with running_server(folder, database_url, has_worker=True) as server, server.connect() as client:
        for name, region in REGIONS.items():
            client.locations.add(name, region, str(folder / name))
        client.features.apply(repository)
        for service in ("profile", "diagnosis", "scaled", "market", "priced"):
            client.features.snapshot(service)
            client.features.materialize(service, regions=list(REGIONS.values()))
        yield FeatureWorld(server=server, client=client, folder=folder)
