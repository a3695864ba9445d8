"""A whole Fairlead, made by the command line alone: features, a model that was trained on them, three regions.

It is dear (a bundle and three endpoints), so the tests that need one share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq

from tests.acceptance.command_line import LABELS, CommandLine, leave_nothing, options, write_folder
from tests.serving.models import expected, model_files

arrow: Any = pa
parquet: Any = pq
T = TypeVar("T")

REGIONS = ("aws:us-east-1", "gcp:europe-west4", "azure:westeurope")
WEIGHTS = (0.5, -0.25, 0.125)
ROWS = {1: (1.0, 2.0, 40.0), 2: (3.0, 1.0, 51.0), 3: (0.5, 0.25, 33.0)}
BODY = {"entities": {"sample_id": [1, 2, 3]}}
MODEL_BYTES = 2 * 2**20

_DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

sample = Entity(name="sample", join_keys=["sample_id"], value_type=ValueType.INT64)
sizes = FeatureView(
    name="sizes", entities=[sample], ttl=timedelta(days=36500),
    schema=[Field(name="radius", dtype=Float64), Field(name="texture", dtype=Float64)],
    source=FileSource(name="sizes_source", path="sizes.parquet", timestamp_field="event_timestamp"),
)
ages = FeatureView(
    name="ages", entities=[sample], ttl=timedelta(days=36500), schema=[Field(name="age", dtype=Float64)],
    source=FileSource(name="ages_source", path="ages.parquet", timestamp_field="event_timestamp"),
)
diagnosis = FeatureService(name="diagnosis", features=[sizes, ages])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """`triage@production` deployed in three regions; `fairlead` is its owner's command line."""

    fairlead: CommandLine
    model: Path
    snapshot: dict[str, Any]
    version: dict[str, Any]
    bundle: dict[str, Any]

    @property
    def home(self) -> Path:
        return self.fairlead.home

    def location(self, region: str) -> Path:
        """The folder that stands for a region's bucket."""
        return self.home / "locations" / region.replace(":", "-")

    def online_store(self, region: str) -> Path:
        """The folder of a region's online stores."""
        return self.home / "features" / "online" / region.replace(":", "_")

    def endpoint_folder(self, region: str) -> Path:
        """The folder that a region's process of the deployment works in."""
        return self.home / "serving" / "deployments" / "default" / "triage" / region.replace(":", "-")

    def status(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.fairlead.json("deploy", "status", "triage"))

    def replicas(self, digest: str) -> dict[str, dict[str, Any]]:
        """An artifact's replicas by region, as the service tells them."""
        return {each["region"]: each for each in self.get(f"/api/v1/artifacts/{digest}")["replicas"]}

    def get(self, path: str) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.fairlead.token}"}
        answer = httpx2.get(self.fairlead.address["url"] + path, headers=headers, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.json())

    def wait_healthy(self) -> dict[str, dict[str, Any]]:
        """Wait until every region runs what it should and answers; the regions."""

        # A command, which starts the service where it is gone; a process for each look would keep what starts waiting.
        self.status()

        def is_healthy() -> dict[str, dict[str, Any]] | None:
            found = {each["region"]: each for each in self.get("/api/v1/deployments/triage")["regions"]}
            right = all(
                each["state"] == "RUNNING" and each["health"] == "up" and each["bundle_digest"] == self.bundle["digest"]
                for each in found.values()
            )
            return found if right and set(found) == set(REGIONS) else None

        return when(is_healthy, seconds=240, pause=0.5)


def predictions(url: str, *, prefer: str | None = None) -> list[float]:
    """The predictions of the three samples, which must be given; by a gateway, from the region that is preferred."""
    headers = {} if prefer is None else {"x-fairlead-prefer": prefer}
    answer = httpx2.post(f"{url}/predict", json=BODY, headers=headers, timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert prefer is None or answer.headers["x-fairlead-region"] == prefer
    return cast("list[float]", answer.json()["predictions"])


def true_predictions() -> list[float]:
    """What the model says of the three samples, computed here."""
    return [expected(row, *WEIGHTS) for row in ROWS.values()]


def is_ready(port: int) -> bool:
    """Whether the endpoint of a bundle at a port of this machine answers that it is ready."""
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def when(look: Callable[[], T | None], *, seconds: float = 60, pause: float = 0.1) -> T:
    """What `look` gives, once it gives something."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(pause)
    return found


def write_feast_repository(folder: Path) -> Path:
    """A Feast repository with two views of three samples, whose files lie in it."""
    measured_at = datetime(2026, 3, 1, 9, tzinfo=UTC)
    write_folder(
        folder,
        {
            "feature_store.yaml": b"project: clinic\nprovider: local\nregistry: registry.db\n",
            "definitions.py": _DEFINITIONS.encode(),
        },
    )
    for name, features in (("sizes", ("radius", "texture")), ("ages", ("age",))):
        columns: dict[str, Any] = {
            "sample_id": arrow.array(list(ROWS), arrow.int64()),
            "event_timestamp": arrow.array([measured_at] * len(ROWS), arrow.timestamp("us", tz="UTC")),
        }
        for feature in features:
            position = ("radius", "texture", "age").index(feature)
            columns[feature] = arrow.array([row[position] for row in ROWS.values()], arrow.float64())
        parquet.write_table(arrow.table(columns), folder / f"{name}.parquet")
    return folder


@contextmanager
def running_world(root: Path) -> Generator[World]:
    """Make the world, and leave nothing of it running."""
    fairlead = CommandLine(home=root / ".fairlead")
    try:
        yield _make(fairlead, root)
    finally:
        leave_nothing(fairlead.home)


def _make(fairlead: CommandLine, root: Path) -> World:
    fairlead("features", "apply", write_feast_repository(root / "clinic"))
    snapshot = fairlead.json("features", "snapshot", "diagnosis")
    files = model_files(*WEIGHTS, extra_bytes=MODEL_BYTES)
    model = write_folder(root / "model", files)
    pinned = ("--snapshot", snapshot["digest"], "--metric", "accuracy=0.97")
    version = fairlead.json("model", "register", "triage", model, *LABELS, *pinned)
    fairlead("model", "where", "triage/1", "--wait")
    fairlead("features", "materialize", "diagnosis")
    fairlead("model", "promote", "triage/1", "--to", "production")
    bundle = fairlead.json("bundle", "triage@production")
    fairlead("deploy", "apply", "triage@production", *options("--region", REGIONS))
    return World(fairlead=fairlead, model=model, snapshot=snapshot, version=version, bundle=bundle)
