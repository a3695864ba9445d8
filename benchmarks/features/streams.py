"""How fast pushed rows are durable, online and elsewhere, over HTTP with the embedded server of a home of its own.

    python benchmarks/features/streams.py [--rows 400000] [--singles 400] [--messages 20000] [--redis REDIS_URL]

Prints a JSON object for each part: latencies in milliseconds, throughput in rows a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

arrow: Any = pa
REGIONS = ("aws:us-east-1", "gcp:europe-west4")
SEED = 7


def main() -> None:
    """Measure, in a home that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--singles", type=int, default=400)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--redis", default=None)
    parser.add_argument("--log-alone", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"FAIRLEAD_HOME": f"{folder}/home", "FAIRLEAD_FEATURE_LOG_AFTER": "PT1S"}
        told("log", append(Path(folder)))
        if options.log_alone:
            return
        import fairlead

        try:
            with fairlead.connect() as client:
                prepare(client, Path(folder))
                told("singles", push_singles(client, options.singles))
                told("bulk", push_bulk(client, options.rows))
                told("elsewhere", push_elsewhere(client))
                if options.redis:
                    told("redis", consume(client, options.redis, options.messages))
        finally:
            subprocess.run([sys.executable, "-m", "fairlead.cli.main", "stop", "--all"], check=True)


def told(name: str, figures: dict[str, float]) -> None:
    """Print the figures of one part, when it is done."""
    sys.stdout.write(json.dumps({name: figures}) + "\n")
    sys.stdout.flush()


def append(folder: Path) -> dict[str, float]:
    """The log by itself, without HTTP and online stores: rows of five floats, each commit synced to the disk."""
    from fairlead.featurestore.event_log import OFFLINE, EventLog

    log = EventLog.open(folder / "items.log.sqlite", workspace_id="w", view="items", region=REGIONS[0])
    found: dict[str, float] = {}

    def push(prefix: str, pushes: int, rows: int) -> None:
        table = arrow.Table.from_pandas(frame(rows, start=0, at=datetime.now(UTC)), preserve_index=False)
        for number in range(pushes):
            ids = [f"{prefix}/{number}/{row}" for row in range(rows)]
            log.append(table, ids, to=OFFLINE, view_digest="v", principal="p", now=datetime.now(UTC))

    for threads, pushes, rows in ((1, 300, 1), (16, 100, 1), (1, 30, 1000), (1, 20, 20_000)):
        runners = [
            threading.Thread(target=push, args=(f"{rows}/{each}/{threads}", pushes, rows)) for each in range(threads)
        ]
        began, busy = time.perf_counter(), time.process_time()
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        name = f"{threads}_threads_of_{rows}_rows_per_second"
        found[name] = round(threads * pushes * rows / (time.perf_counter() - began))
        found[name.replace("second", "cpu_second")] = round(threads * pushes * rows / (time.process_time() - busy))
    found["bytes_per_event_remembered"] = round(remembered(log))
    log.close()
    return found


def remembered(log: Any) -> float:
    """What is left of an event on the disk when its row has been sealed."""
    import sqlite3

    with sqlite3.connect(log.path) as connection:
        connection.execute("DELETE FROM batches")
        connection.commit()
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return log.path.stat().st_size / connection.execute("SELECT count(*) FROM events").fetchone()[0]


def prepare(client: Any, folder: Path) -> None:
    """A view of five features with a push source, online in every region."""
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
    from feast.types import Float64

    frame(1, start=0, at=datetime(2026, 1, 1, tzinfo=UTC)).to_parquet(folder / "rows.parquet")
    item = Entity(name="item", join_keys=["item"], value_type=ValueType.INT64)
    source = FileSource(name="item_rows", path=str(folder / "rows.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(
        name="items",
        entities=[item],
        schema=[Field(name=f"f{number}", dtype=Float64) for number in range(5)],
        source=PushSource(name="changes", batch_source=source),
    )
    client.features.apply([item, view, FeatureService(name="shop", features=[view])])
    client.features.snapshot("shop")
    client.features.materialize("shop")


def frame(rows: int, *, start: int, at: datetime) -> pd.DataFrame:
    """Random rows of items from `start` on."""
    random = np.random.default_rng(SEED + start)
    features = {f"f{number}": random.random(rows) for number in range(5)}
    return pd.DataFrame({"item": range(start, start + rows), "event_timestamp": [at] * rows, **features})


def push_singles(client: Any, count: int) -> dict[str, float]:
    """One row at a time: until it is durable, and until a reader of the region sees it."""
    durable, visible = [], []
    for number in range(count):
        row = {"item": 0, "event_timestamp": datetime.now(UTC), **{f"f{each}": float(number) for each in range(5)}}
        began = time.perf_counter()
        client.features.push("changes", [row], region=REGIONS[0])
        durable.append(time.perf_counter() - began)
        while client.features.online("shop", {"item": [0]}, region=REGIONS[0])["rows"][0]["f0"] != float(number):
            pass
        visible.append(time.perf_counter() - began)
    return {
        "rows": count,
        **{f"durable_p{p}_ms": round(1000 * float(np.percentile(durable, p)), 2) for p in (50, 99)},
        **{f"visible_p{p}_ms": round(1000 * float(np.percentile(visible, p)), 2) for p in (50, 99)},
    }


def push_bulk(client: Any, rows: int) -> dict[str, float]:
    """As fast as one client pushes Arrow tables: into the log alone, into both, and all of it once more."""
    found: dict[str, float] = {"rows": rows}
    at = datetime.now(UTC) - timedelta(minutes=1)
    for name, to, start in (("offline", "offline", 10**6), ("both", "online_and_offline", 10**8)):
        table = arrow.Table.from_pandas(frame(rows, start=start, at=at), preserve_index=False)
        began = time.perf_counter()
        pushed = client.features.push("changes", table, to=to, region=REGIONS[0])
        found[f"{name}_rows_per_second"] = round(rows / (time.perf_counter() - began))
        assert pushed[0].accepted == rows
        if to == "offline":
            began = time.perf_counter()
            assert client.features.push("changes", table, to=to, region=REGIONS[0])[0].duplicates == rows
            found["again_rows_per_second"] = round(rows / (time.perf_counter() - began))
    return found


def push_elsewhere(client: Any) -> dict[str, float]:
    """Until another region's online store has a row, which comes with its segment; rows wait a second for others."""
    taken = []
    for number in range(3):
        row = {"item": 0, "event_timestamp": datetime.now(UTC), **{f"f{each}": -1.0 - number for each in range(5)}}
        began = time.perf_counter()
        client.features.push("changes", [row], region=REGIONS[0])
        while client.features.online("shop", {"item": [0]}, region=REGIONS[1])["rows"][0]["f0"] != -1.0 - number:
            time.sleep(0.02)
        taken.append(time.perf_counter() - began)
    return {
        "seal_after_seconds": 1.0,
        "median_seconds": round(float(np.median(taken)), 2),
        "most": round(max(taken), 2),
    }


def consume(client: Any, url: str, messages: int) -> dict[str, float]:
    """A Redis stream of JSON messages of one row each, through one consumer, with its acknowledgements."""
    import redis

    from fairlead.sdk.redis_streams import RedisStream
    from fairlead.sdk.streams import ConsumerRules, consumer_of

    at = datetime.now(UTC).isoformat()
    with redis.Redis.from_url(url) as broker, broker.pipeline(transaction=False) as pipe:
        for number in range(messages):
            row = {"item": 10**7 + number, "event_timestamp": at, **{f"f{each}": 1.5 for each in range(5)}}
            pipe.xadd("changes", {"value": json.dumps(row), "event_id": f"m/{number}"})
        pipe.execute()
    rules = ConsumerRules(batch=2000, wait_seconds=0.1)
    stream = RedisStream(url, "changes", group="benchmark")
    consumer = consumer_of(client.features, "changes", region=REGIONS[0], connect=lambda _topic: stream, rules=rules)
    began = time.perf_counter()
    done = consumer.run(threading.Event(), until_empty=True)
    seconds = time.perf_counter() - began
    assert done.accepted == messages
    return {"messages": messages, "messages_per_second": round(messages / seconds)}


if __name__ == "__main__":
    main()
