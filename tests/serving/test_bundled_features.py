"""A bundle computes what its model takes on demand as the feature server does, from its functions' text alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import Digest
from fairlead.featurestore.applied import FeatureObject, find_pinned_service
from fairlead.featurestore.online_engines import StoreName
from fairlead.sdk.client import Fairlead
from fairlead.sdk.features import PinnedData
from fairlead.serving.bundle_features import bundled_features
from fairlead.serving.processes import free_port
from fairlead.serving.recipe import BundleWish, Recipe
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from tests.acceptance.command_line import kill
from tests.acceptance.world import is_ready
from tests.app.feature_world import FEAST, NOW, US, FeatureWorld, write_sources
from tests.running_server import RunningServer, running_server

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

REPOSITORY = """
from typing import Any, Dict

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String, UnixTimestamp

patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)
cells = FeatureView(
    name="cells",
    entities=[patient],
    schema=[
        Field(name="radius", dtype=Float32),
        Field(name="count", dtype=Int64),
        Field(name="word", dtype=String),
        Field(name="seen", dtype=UnixTimestamp),
        Field(name="shape", dtype=Array(Float32)),
    ],
    source=FileSource(name="cells_source", path="cells.parquet", timestamp_field="event_timestamp"),
)
# About no entity: nobody is asked for its key.
market = FeatureView(
    name="market",
    entities=[],
    schema=[Field(name="rate", dtype=Float64)],
    source=FileSource(name="market_source", path="market.parquet", timestamp_field="event_timestamp"),
)
asked = RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64), Field(name="unit", dtype=String)])


@on_demand_feature_view(
    sources=[cells[["radius", "count"]], asked],
    schema=[Field(name="scaled", dtype=Float32), Field(name="rounded", dtype=Int64)],
)
def scaling(inputs: pd.DataFrame) -> pd.DataFrame:
    frame = pd.DataFrame()
    frame["scaled"] = inputs["radius"] * inputs["factor"]
    frame["rounded"] = inputs["count"] / inputs["factor"] + inputs["patient_id"]
    return frame


@on_demand_feature_view(
    sources=[cells[["word", "shape"]], market, asked],
    schema=[Field(name="label", dtype=String), Field(name="total", dtype=Float64)],
    mode="python",
)
def labelling(inputs: Dict[str, Any]) -> Dict[str, Any]:
    import math

    if "burst" in inputs["unit"]:
        raise ZeroDivisionError("a secret of somebody's data")
    return {
        "label": [None if word is None else word + unit for word, unit in zip(inputs["word"], inputs["unit"])],
        "total": [
            math.nan if shape is None else math.fsum(shape) * rate
            for shape, rate in zip(inputs["shape"], inputs["rate"], strict=True)
        ],
    }


@on_demand_feature_view(
    sources=[cells[["seen"]], asked], schema=[Field(name="year", dtype=Int64)], mode="python", singleton=True
)
def dating(inputs: Dict[str, Any]) -> Dict[str, Any]:
    return {"year": inputs["seen"].year if inputs["factor"] is not None else None}


computed = FeatureService(name="computed", features=[cells[["count"]], market, scaling, labelling, dating])
stored = FeatureService(name="stored", features=[cells[["count"]]])
"""

# It answers what it was given, so that a test sees the features.
MODEL = """
class _Model:
    def predict(self, frame):
        return [{name: str(value) for name, value in row.items()} for row in frame.to_dict("records")]

def _load_pyfunc(path):
    return _Model()
"""

COLUMNS = ("patient_id", "count", "rate", "factor", "unit", "scaled", "rounded", "label", "total", "year")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A bundle that runs in a process of its own, and what answers the same questions beside it."""

    url: str
    folder: Path
    feature_server: httpx2.Client
    client: Fairlead
    server: RunningServer

    def predict(self, entities: Mapping[str, Any]) -> httpx2.Response:
        return httpx2.post(f"{self.url}/predict", json={"entities": entities}, timeout=30, trust_env=False)


def write_model(folder: Path) -> Path:
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "echoing_model.py").write_text(MODEL)
    flavors = {"python_function": {"loader_module": "echoing_model", "code": "code"}}
    (folder / "MLmodel").write_text(json.dumps({"flavors": flavors}))
    return folder


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Generator[Endpoint]:
    folder = tmp_path_factory.mktemp("computed")
    repository = folder / "repository"
    repository.mkdir()
    write_sources(repository)
    pd.DataFrame({"event_timestamp": [NOW], "rate": [1.5]}).to_parquet(repository / "market.parquet")
    (repository / "definitions.py").write_text(REPOSITORY)
    (repository / "feature_store.yaml").write_text(FEAST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with running_server(folder, "", has_worker=True) as server, server.connect() as client:
            world = FeatureWorld(server=server, client=client, folder=folder)
            client.locations.add("virginia", US, str(folder / "virginia"))
            client.features.apply(repository)
            snapshot = client.features.snapshot("computed")
            client.features.materialize("computed", regions=[US])
            labels = {"owner": "ana", "team": "risk", "cost_centre": "cc-7"}
            client.models.register(
                "echo", write_model(folder / "model"), labels=labels, trained_on=PinnedData.of(snapshot)
            )
            bundle = client.bundles.build("echo/1")
            assert bundle.digest is not None
            store = open_store((folder / "virginia").as_uri())
            ArtifactReader.open(store, DedupDomain("default", "unrestricted"), Digest(bundle.digest)).download(
                folder / "bundle"
            )
            engine = server.service.features.online_engines.of(US)
            name = StoreName(workspace_id="default", service="computed", region=US)
            with (
                world.serving(US, run_code=True, is_listed=False) as site,
                served(folder, str(engine.address(name))) as url,
            ):
                yield Endpoint(url=url, folder=folder, feature_server=site.http, client=client, server=server)


@contextmanager
def served(folder: Path, store: str) -> Generator[str]:
    """The bundle, where neither Fairlead nor its settings are known."""
    (folder / "bentoml").mkdir()
    port = free_port()
    variables = {name: said for name, said in os.environ.items() if not name.startswith("FAIRLEAD_")}
    variables |= {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"}
    variables |= {"FAIRLEAD_ONLINE_STORE": store, "FAIRLEAD_REGION": US}
    command = [sys.executable, "-m", "bentoml", "serve", str(folder / "bundle"), "--host", "127.0.0.1"]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=variables,
        )
    try:
        deadline = time.monotonic() + 120
        while not is_ready(port):
            is_alive = process.poll() is None and time.monotonic() < deadline
            assert is_alive, (folder / "serve.log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        kill(process.pid)
        process.wait()


ENTITIES = {
    "patient_id": [1, 2, 3, 4, 20],
    "factor": [2.0, 0.5, 3, None, 7.25],
    "unit": ["mm", "cm", "m", None, "é"],
}


def plain(value: Any) -> Any:
    """A value as one of the two says it: the model's frame makes whole numbers of a column with gaps floats."""
    if value in {None, "None", "NaN", "nan"}:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def test_a_model_is_given_what_the_feature_server_answers(endpoint: Endpoint) -> None:
    # A missing unit is the caller's mistake in the function that adds texts.
    entities = {**ENTITIES, "unit": ["mm", "cm", "m", "km", "é"]}
    answer = endpoint.predict(entities)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, str]] = answer.json()["predictions"]
    said = endpoint.feature_server.post(
        "/get-online-features", json={"feature_service": "computed", "entities": entities}
    ).json()
    theirs = dict(zip(said["metadata"]["feature_names"], (each["values"] for each in said["results"]), strict=True))
    assert {*rows[0]} == {*COLUMNS} == {*theirs, "factor", "unit"}
    ours = {name: [plain(row[name]) for row in rows] for name in theirs}
    assert ours == {name: [plain(value) for value in values] for name, values in theirs.items()}
    assert ours["rounded"][:2] == [1.0, 6.0]
    assert ours["label"][2:4] == [None, "é4km"]
    # One entity alone is answered as it is among others.
    for number in range(len(rows)):
        alone = endpoint.predict({name: [values[number]] for name, values in entities.items()}).json()["predictions"]
        assert {name: plain(value) for name, value in alone[0].items()} == {
            name: plain(value) for name, value in rows[number].items()
        }


@pytest.mark.parametrize(
    ("change", "status", "detail"),
    [
        ({"factor": None}, 400, "'factor' is missing, a value that the on-demand view 'scaling' takes of the request."),
        ({"factor": ["wide"]}, 400, "'factor', which the on-demand view 'scaling' takes of the request, is DOUBLE"),
        ({"unit": [["mm"]]}, 400, "'unit', which"),
        ({"unit": ["burst"]}, 500, "'labelling' failed: ZeroDivisionError."),
        ({"patient_id": [4711]}, 404, 'no features of {"patient_id": 4711} ('),
    ],
)
def test_what_cannot_be_computed_is_named_without_code_or_data(
    endpoint: Endpoint, change: dict[str, Any], status: int, detail: str
) -> None:
    entities = {"patient_id": [1], "factor": [2.0], "unit": ["mm"], **change}
    answer = endpoint.predict({name: values for name, values in entities.items() if values is not None})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail in answer.json()["detail"]
    assert not any(each in answer.text for each in ("Traceback", "secret", "math", "File "))
    if status == 500:
        assert "a secret of somebody's data" in (endpoint.folder / "serve.log").read_text()


def test_a_bundle_says_what_it_asks_for_and_carries_text_alone(endpoint: Endpoint) -> None:
    info = httpx2.post(f"{endpoint.url}/info", json={}, trust_env=False).json()
    assert (info["on_demand"], info["request"]) == (
        ["scaling", "labelling", "dating"],
        {"factor": "DOUBLE", "unit": "STRING"},
    )
    assert "feast" not in info["loaded_libraries"]
    described = httpx2.get(f"{endpoint.url}/docs.json", trust_env=False).json()
    schema = json.dumps(described["paths"]["/predict"]) + json.dumps(described.get("components", {}))
    assert all(f'"{name}"' in schema for name in ("patient_id", "factor", "unit"))
    said = json.loads((endpoint.folder / "bundle/src/fairlead_bundle/bundle.json").read_text())
    assert said["feature_service_digest"] == endpoint.client.models.resolve("echo/1").feature_service_digest
    assert said["on_demand"]["keys"] == [["patient_id", "INT64"]]
    assert ["cells", "radius"] in said["on_demand"]["hidden"]
    dating = said["on_demand"]["views"][2]
    assert (dating["name"], dating["mode"], dating["function"]) == ("dating", "python", "dating")
    assert dating["text"].startswith("@on_demand_feature_view(")
    assert (dating["is_singleton"], dating["inputs"]) == (True, [["cells", "seen", "UNIX_TIMESTAMP"]])
    lock = (endpoint.folder / "bundle/env/python/requirements.txt").read_text()
    assert "pyarrow==" in lock
    assert "feast" not in lock


REFUSED = """

SCALE = 3.0


@on_demand_feature_view(sources=[cells[["radius"]]], schema=[Field(name="tripled", dtype=Float32)])
def tripling(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"tripled": inputs["radius"] * SCALE})


refused = FeatureService(name="refused", features=[tripling])
"""


def test_a_function_that_is_not_whole_is_refused_when_its_bundle_is_built(endpoint: Endpoint) -> None:
    client, repository = endpoint.client, endpoint.folder / "repository"
    (repository / "definitions.py").write_text(REPOSITORY + REFUSED)
    client.features.apply(repository)
    digest = str(client.features.on_demand("refused")["service_digest"])
    known = client.models.resolve("echo/1")
    pinned = PinnedData(service="refused", service_digest=digest, snapshot_digest=known.snapshot_digest or "")
    client.models.register("echo", write_model(endpoint.folder / "other"), trained_on=pinned)
    with pytest.raises(
        InvalidInput, match="'tripling' cannot run in a bundle: it takes 'SCALE' from the module"
    ) as caught:
        client.bundles.build("echo/2")
    assert "SCALE = 3.0" not in str(caught.value)
    # A service of one's own computes what it likes, and so needs none of it.
    own = BundleWish(service_source="import bentoml\n\n\n@bentoml.service\nclass Own:\n    pass\n")
    recipe = Recipe(
        reference="echo/2",
        artifact_digest=Digest(known.artifact_digest or ""),
        feature_service="refused",
        feature_service_digest=digest,
    )
    assert own.apply(recipe).feature_service_digest is None


def test_a_plan_of_substrait_is_refused_by_its_mode(endpoint: Endpoint) -> None:
    definitions, owner = endpoint.server.service.features.definitions, endpoint.server.owner
    spec = json.loads(json.dumps(dict(definitions.on_demand(owner, "computed").on_demand["dating"])))["spec"]
    plan = {"substraitTransformation": {"substraitPlan": "AAAA"}}
    view = {**spec, "name": "planned", "mode": "substrait", "singleton": False, "featureTransformation": plan}
    service = {"name": "plans", "features": [{"featureViewName": "planned", "featureColumns": view["features"]}]}
    objects = [FeatureObject(kind="OnDemandFeatureView", spec=view), FeatureObject(kind="FeatureService", spec=service)]
    definitions.apply(owner, objects)
    digest = definitions.on_demand(owner, "plans").digest
    with (
        endpoint.server.service.database.read() as session,
        pytest.raises(InvalidInput, match="'planned' cannot run in a bundle: its mode is substrait"),
    ):
        bundled_features(session, owner.workspace_id, "plans", digest)


def test_what_is_bundled_of_features_follows_from_the_pinned_version_alone(endpoint: Endpoint) -> None:
    owner = endpoint.server.owner
    digest = endpoint.client.models.resolve("echo/1").feature_service_digest or ""
    with endpoint.server.service.database.read() as session:
        found = bundled_features(session, owner.workspace_id, "computed", digest)
        stored = find_pinned_service(session, owner.workspace_id, "stored").digest
        # Nothing is computed for a service that takes no on-demand view; its keys are known all the same.
        plain = bundled_features(session, owner.workspace_id, "stored", stored)
    said = json.loads((endpoint.folder / "bundle/src/fairlead_bundle/bundle.json").read_text())
    assert said["on_demand"] == found.facts
    assert (plain.facts, [key.name for key in plain.keys]) == (None, ["patient_id"])
    # What Feast pickled stays out.
    assert all("body" not in view for view in said["on_demand"]["views"])
