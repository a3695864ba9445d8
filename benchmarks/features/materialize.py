"""Materializing into online stores: Fairlead's engines against `feast materialize`, into SQLite and into Redis.

    .venv/bin/python benchmarks/features/materialize.py [--rows 1000000,10000000] [--stores sqlite,redis]
        [--engines fairlead,feast] [--repeat 1] [--seed 1]

One view with five features; ten rows of each entity, in random order. Every run is a process of its own, which has
imported what it needs before the clock starts. Feast reads the source with its default offline store. Fairlead reads
the rows of a snapshot, as a region does; what it costs to make those rows of the source, once for all regions, is
measured beside it (`snapshot`), and so is the next snapshot, in which 2 % of the entities have a new row (`fairlead,
delta`). Afterwards both stores are asked for the same 1000 entities, and have to give the same values.
"""

# ruff: noqa: S608  (every query is made of this file's own text)

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

FEATURES = {"conv_rate": "DOUBLE", "acc_rate": "FLOAT", "trips": "INT64", "is_new": "BOOL", "city": "STRING"}
ROWS_OF_ENTITY = 10
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
AS_OF = FIRST + timedelta(days=60)
SAMPLE = 1000


def generate(rows: int, folder: Path, seed: int) -> None:
    """Write the source, and the source of the next snapshot: one more row of each fiftieth entity."""
    import duckdb

    made = (
        "(random() * 100)::DOUBLE AS conv_rate, (random() * 100)::FLOAT AS acc_rate, "
        "(random() * 1000)::BIGINT AS trips, random() < 0.5 AS is_new, 'city_' || (random() * 99)::INTEGER AS city"
    )
    with duckdb.connect(config={"memory_limit": "2GiB", "temp_directory": str(folder), "threads": 1}) as connection:
        connection.execute(f"SET TimeZone = 'UTC'; SELECT setseed({seed / 1000})")
        entities = rows // ROWS_OF_ENTITY
        connection.execute(
            f"COPY (SELECT (hash(i) % {entities})::BIGINT AS driver_id, {made}, TIMESTAMPTZ '{FIRST:%F}' + "
            f"INTERVAL (i * 2000003 % 4000037) SECOND AS event_timestamp FROM range({rows}) t(i)) "
            f"TO '{folder}/source.parquet' (ROW_GROUP_SIZE 131072)"
        )
        connection.execute(
            f"COPY (SELECT * FROM '{folder}/source.parquet' UNION ALL SELECT i * 50, {made}, "
            f"TIMESTAMPTZ '{FIRST:%F}' + INTERVAL 50 DAY FROM range({entities // 50}) t(i)) "
            f"TO '{folder}/next.parquet' (ROW_GROUP_SIZE 131072)"
        )
        connection.execute(
            f"COPY (SELECT * FROM '{folder}/next.parquet' WHERE event_timestamp = TIMESTAMPTZ '{FIRST:%F}' + "
            f"INTERVAL 50 DAY) TO '{folder}/added.parquet'"
        )


def view(folder: Path, source: str) -> Any:
    """Fairlead's definition of the view."""
    from fairlead.catalog import UNRESTRICTED
    from fairlead.featurestore.definitions import Column, ViewDefinition
    from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition

    return ViewDefinition(
        name="stats",
        entities=("driver",),
        keys=(Column(name="driver_id", type="INT64"),),
        features=tuple(Column(name=name, type=kind) for name, kind in FEATURES.items()),
        source=SourceDefinition(
            place=ParquetFiles(uri=str(folder / f"{source}.parquet")),
            timestamp_field="event_timestamp",
            created_timestamp_column=None,
            field_mapping={},
        ),
        ttl_seconds=None,
        residency=UNRESTRICTED,
    )


def snapshot(folder: Path, source: str) -> Callable[[], None]:
    """Make a snapshot's rows of a source."""
    from fairlead.featurestore.rows import write_rows
    from fairlead.featurestore.sources import Sources

    def run() -> None:
        write_rows(
            view(folder, source),
            as_of=AS_OF,
            sources=Sources(),
            destination=folder / f"{source}.rows.parquet",
            scratch=folder,
        )

    return run


def fairlead_store(folder: Path, url: str | None, source: str) -> Any:
    """The engine, the store's name and what it should hold."""
    from fairlead.featurestore.joins import ViewRows
    from fairlead.featurestore.online_choice import EngineChoice, OnlineEngines
    from fairlead.featurestore.online_engines import StoreContents, StoreName
    from fairlead.featurestore.online_sqlite import OnlineFolder
    from fairlead.featurestore.services import Projection, ServiceDefinition

    for module in ("duckdb", "pyarrow.compute", "pyarrow.parquet"):
        import_module(module)
    choice = EngineChoice() if url is None else EngineChoice(type="redis", options={"url": url, "socket_timeout": 60})
    engine = OnlineEngines(OnlineFolder(root=folder / "online"), {"*": choice}).of("aws:us-east-1")
    stats = view(folder, source)
    projection = Projection(view="stats", alias="stats", features=tuple(FEATURES), join_key_map={})
    contents = StoreContents(
        service=ServiceDefinition(name="drivers", projections=(projection,)),
        views={"stats": stats},
        rows={"stats": [ViewRows(view=stats, path=folder / f"{source}.rows.parquet")]},
        meta={"service_digest": "s", "snapshot": source, "as_of": "t", "region": "aws:us-east-1"},
    )
    return engine, StoreName(workspace_id="w", service="drivers", region="aws:us-east-1"), contents


def fairlead(folder: Path, url: str | None) -> Callable[[], None]:
    """Materialize the whole snapshot."""
    engine, name, contents = fairlead_store(folder, url, "source")

    def run() -> None:
        engine.write(name, contents, scratch=folder)

    return run


def fairlead_delta(folder: Path, url: str | None) -> Callable[[], None]:
    """Materialize the next snapshot upon the one that is there, from the delta that the snapshot is stored as."""
    from fairlead.featurestore.online_engines import StoreChanges

    engine, name, contents = fairlead_store(folder, url, "next")
    changes = StoreChanges(base="source", files={"stats": [(folder / "added.parquet",)]})

    def run() -> None:
        if engine.apply(name, contents, changes, scratch=folder) is None:
            raise SystemExit("the delta was not applied")

    return run


def feast_store(folder: Path, url: str | None) -> Any:
    """A Feast repository over the source, applied."""
    import yaml

    for module in ("dask.dataframe", "pandas", "pyarrow.parquet"):
        import_module(module)
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import from_value_type

    repository = folder / "feast"
    repository.mkdir(exist_ok=True)
    online = {"type": "sqlite", "path": str(repository / "online.db")}
    if url is not None:
        online = {"type": "redis", "connection_string": url.removeprefix("redis://").partition("/")[0] + ",db=1"}
    config = {
        "project": "drivers",
        "provider": "local",
        "registry": str(repository / "registry.db"),
        "offline_store": {"type": "file"},
        "online_store": online,
        "entity_key_serialization_version": 3,
    }
    (repository / "feature_store.yaml").write_text(yaml.safe_dump(config))
    store = FeatureStore(repo_path=str(repository))
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    fields = [
        Field(name=name, dtype=from_value_type(getattr(ValueType, kind)))
        for name, kind in {"driver_id": "INT64", **FEATURES}.items()
    ]
    source = FileSource(name="s", path=str(folder / "source.parquet"), timestamp_field="event_timestamp")
    stats = FeatureView(name="stats", entities=[driver], schema=fields, source=source, ttl=timedelta(0))
    store.apply([driver, stats])
    return store


def feast(folder: Path, url: str | None) -> Callable[[], None]:
    """`feast materialize` over all time."""
    store = feast_store(folder, url)

    def run() -> None:
        store.materialize(start_date=FIRST - timedelta(days=1), end_date=AS_OF)

    return run


def compare(folder: Path, url: str | None) -> Callable[[], None]:
    """Fail if sampled entities have other values in the one store than in the other."""
    import random

    entities = json.loads((folder / "case.json").read_text())["rows"] // ROWS_OF_ENTITY
    keys = random.Random(1).sample(range(entities), SAMPLE)
    engine, name, _ = fairlead_store(folder, url, "source")
    ours = engine.reader(name).read({"driver_id": keys})[1]
    theirs = feast_store(folder, url).get_online_features(
        [f"stats:{name}" for name in FEATURES], [{"driver_id": key} for key in keys]
    )
    columns: dict[str, list[Any]] = theirs.to_dict()
    other = sum(any(ours[index][name] != columns[name][index] for name in FEATURES) for index in range(len(keys)))

    def run() -> None:
        if other:
            raise SystemExit(f"{other} of {SAMPLE} entities have other values")

    return run


PARTS: dict[str, Callable[[Path, str | None], Callable[[], None]]] = {
    "snapshot": lambda folder, _: snapshot(folder, "source"),
    "next": lambda folder, _: snapshot(folder, "next"),
    "fairlead": fairlead,
    "fairlead, delta": fairlead_delta,
    "feast": feast,
    "compare": compare,
}


def measure(part: str, folder: Path, url: str | None) -> None:
    """Run one part in this process and print what it took, as JSON."""
    run = PARTS[part](folder, url)
    server = None if url is None else _server(url)
    before, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    server_cpu = 0.0 if server is None else _server_cpu(server)
    # What was imported is in memory already.
    resting = used.ru_maxrss
    run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "wall": time.perf_counter() - before,
        "cpu": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
        "peak_mib": after.ru_maxrss / 1024,
        "added_mib": (after.ru_maxrss - resting) / 1024,
        "server_cpu": 0.0 if server is None else _server_cpu(server) - server_cpu,
        "server_mib": 0.0 if server is None else server.info("memory")["used_memory"] / 2**20,
    }
    print(json.dumps(told))


def _server(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url)


def _server_cpu(server: Any) -> float:
    used = server.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def in_process(part: str, folder: Path, url: str | None) -> dict[str, float]:
    """Run one part in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder), *(["--url", url] if url else [])]
    environment = {**os.environ, "FEAST_USAGE": "False"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def race(rows: int, store: str, engines: list[str], repeat: int, seed: int) -> None:
    """Measure one number of rows into one store, and print a table's rows."""
    from tests.servers.redis_server import redis_server

    with tempfile.TemporaryDirectory(prefix="materialize-") as name:
        folder = Path(name)
        (folder / "case.json").write_text(json.dumps({"rows": rows}))
        generate(rows, folder, seed)
        for part in ("snapshot", "next") if "fairlead" in engines else ():
            _print(rows, store, part, [in_process(part, folder, None)])
        wanted = [part for part in ("feast", "fairlead", "fairlead, delta") if part.partition(",")[0] in engines]

        def run(url: str | None) -> None:
            for part in wanted:
                # A delta is applied once.
                times = 1 if part == "fairlead, delta" else repeat
                _print(rows, store, part, [in_process(part, folder, url) for _ in range(times)])
                if part == "fairlead" and "feast" in engines:
                    in_process("compare", folder, url)

        if store == "redis":
            with redis_server(folder) as server:
                run(server.url)
        else:
            run(None)


def _print(rows: int, store: str, part: str, runs: list[dict[str, float]]) -> None:
    def told(name: str) -> str:
        return f"{statistics.median(run[name] for run in runs):.1f}"

    print(
        f"| {rows:,} | {store} | {part} | {told('cpu')} | {told('server_cpu')} | {told('wall')} | {told('peak_mib')} "
        f"| {told('added_mib')} | {told('server_mib')} |",
        flush=True,
    )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,10000000")
    parser.add_argument("--stores", default="sqlite,redis")
    parser.add_argument("--engines", default="fairlead,feast")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    for hidden in ("--part", "--folder", "--url"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part is not None:
        measure(asked.part, Path(asked.folder), asked.url)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print("| rows | store | what | CPU-s | server CPU-s | wall s | peak MiB | added MiB | server MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for rows in map(int, asked.rows.split(",")):
        for store in asked.stores.split(","):
            race(rows, store, asked.engines.split(","), asked.repeat, asked.seed)
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
