"""MLflow's client, without the plug-in and with it, against `fairlead server`; its runs are in MLflow's own server."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow import sklearn as mlflow_sklearn
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sklearn.linear_model import LogisticRegression

from tests.records import migrated_database
from tests.registry.mlflow.stock import Registry, stock_registry

pytestmark = pytest.mark.timeout(600)

ROWS = np.array([[1.0], [2.0], [20.0], [30.0]])
EXPECTED = [1, 1, 0, 0]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with migrated_database(request, folder) as url, stock_registry(folder, url) as registry:
        yield registry


@pytest.fixture
def registry(running: Registry) -> Registry:
    """A server that this file's tests share, each with models of its own, and a client without the plug-in."""
    mlflow.set_registry_uri(running.url)
    return running


def test_a_model_is_logged_registered_brought_here_and_outlives_its_run(registry: Registry, tracking: str) -> None:
    mlflow.set_tracking_uri(tracking)
    client = MlflowClient()
    client.create_registered_model("refused")
    with pytest.raises(MlflowException, match="fairlead tracking-server add") as refused:
        client.create_model_version("refused", "models:/m-0123456789abcdef", await_creation_for=0)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    registry.admin("tracking-server", "add", "lab", tracking)

    model = cast("Any", LogisticRegression()).fit(ROWS, EXPECTED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mlflow.start_run() as run:
            logged = mlflow_sklearn.log_model(
                model, name="model", registered_model_name="leavers", pip_requirements=["scikit-learn"]
            )
            mlflow.log_text("hello", "notes/readme.txt")
    assert client.get_model_version("leavers", str(logged.registered_model_version)).status == "READY"
    versions = [
        mlflow.register_model(f"models:/{logged.model_id}", "leavers"),
        mlflow.register_model(f"runs:/{run.info.run_id}/model", "leavers"),
        client.create_model_version("leavers", f"runs:/{run.info.run_id}/notes", run.info.run_id),
        client.create_model_version("leavers", f"{run.info.artifact_uri}/notes", run.info.run_id),
        client.copy_model_version("models:/leavers/1", "others"),
    ]
    assert [client.get_model_version(each.name, each.version).status for each in versions] == ["READY"] * 5
    client.set_registered_model_alias("leavers", "champion", "2")

    client.delete_logged_model(logged.model_id)
    client.delete_run(run.info.run_id)
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    for uri in ("models:/leavers@champion", "models:/leavers/3", "models:/others/1", "models:/leavers/1"):
        assert mlflow.pyfunc.load_model(uri).predict(ROWS).tolist() == EXPECTED
    notes = Path(download_artifacts("models:/leavers/4"))
    assert (notes / "readme.txt").read_text() == "hello"

    with pytest.raises(MlflowException, match=r"no files|does not have it|FAILED_REGISTRATION"):
        client.create_model_version("leavers", "models:/m-0123456789abcdef")


def use_plugin(registry: Registry, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let MLflow reach the registry by the plug-in, with a token that is Fairlead's alone."""
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    for name, value in {
        "FAIRLEAD_HOME": str(home),
        "FAIRLEAD_URL": registry.url,
        "FAIRLEAD_TOKEN": registry.secret,
        "MLFLOW_TRACKING_AUTH": "fairlead",
    }.items():
        monkeypatch.setenv(name, value)
    mlflow.set_registry_uri(registry.url.replace("http://", "fairlead://"))


def test_with_the_plug_in_the_server_needs_to_reach_no_tracking_server(
    registry: Registry, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_plugin(registry, monkeypatch, tmp_path / "home")
    mlflow.set_tracking_uri(tracking)
    client = MlflowClient()
    model = cast("Any", LogisticRegression()).fit(ROWS, EXPECTED)
    saved = tmp_path / "saved"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow_sklearn.save_model(model, str(saved), pip_requirements=["scikit-learn"])
        with mlflow.start_run() as run:
            logged = mlflow_sklearn.log_model(
                model, name="model", registered_model_name="buyers", pip_requirements=["scikit-learn"]
            )
            mlflow.log_text("hello", "notes/readme.txt")
    versions = [
        client.get_model_version("buyers", str(logged.registered_model_version)),
        mlflow.register_model(f"models:/{logged.model_id}", "buyers", tags={"k": "v"}),
        mlflow.register_model(f"runs:/{run.info.run_id}/model", "buyers"),
        mlflow.register_model(str(saved), "buyers"),
        mlflow.register_model(saved.as_uri(), "buyers"),
        client.create_model_version("buyers", f"runs:/{run.info.run_id}/notes", run.info.run_id, description="notes"),
        client.copy_model_version("models:/buyers/1", "copies"),
        mlflow.register_model("models:/buyers/2", "copies"),
    ]
    found = [client.get_model_version(each.name, each.version) for each in versions]
    assert [each.status for each in found] == ["READY"] * 8
    assert {each.run_id for each in found[:3]} == {run.info.run_id}
    assert [each.source for each in found[:4]] == [f"models:/{logged.model_id}"] * 3 + [str(saved)]
    assert (found[1].tags, found[5].run_id, found[5].description) == ({"k": "v"}, run.info.run_id, "notes")
    assert registry.admin.json("model", "show", "buyers/1")["flavor"] == "sklearn"
    client.set_registered_model_alias("buyers", "champion", "2")
    with pytest.raises(MlflowException) as unknown:
        client.create_model_version("nobody", str(saved))
    assert unknown.value.error_code == "RESOURCE_DOES_NOT_EXIST"

    client.delete_logged_model(logged.model_id)
    client.delete_run(run.info.run_id)
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    for uri in ("models:/buyers@champion", "models:/buyers/3", "models:/buyers/5", "models:/copies/latest"):
        assert mlflow.pyfunc.load_model(uri).predict(ROWS).tolist() == EXPECTED
    assert client.get_model_version_download_uri("buyers", "6").endswith("/models/buyers/6")
    for uri in ("models:/buyers/6", client.get_model_version_download_uri("buyers", "6")):
        assert (Path(download_artifacts(uri)) / "readme.txt").read_text() == "hello"
        assert Path(download_artifacts(f"{uri}/readme.txt")).read_text() == "hello"
        assert [each.path for each in list_artifacts(uri)] == [f"{'' if uri[0] == 'm' else '6/'}readme.txt"]
    events = registry.admin.json("audit", "--action", "version.register")
    assert len([each for each in events if each["subject"].startswith(("buyers/", "copies/"))]) == 8


@pytest.mark.parametrize("is_plugin", [False, True], ids=["stock", "plug-in"])
def test_every_registry_method_of_the_client_works(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_plugin: bool
) -> None:
    if is_plugin:
        use_plugin(registry, monkeypatch, tmp_path / "home")
    iris, greet = ("lily", "hail") if is_plugin else ("iris", "greet")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    client = MlflowClient()
    made = client.create_registered_model(iris, tags={"a": "1"}, description="petals")
    assert (made.name, made.tags, made.description) == (iris, {"a": "1"}, "petals")
    (tmp_path / "model" / "data").mkdir(parents=True)
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    (tmp_path / "model" / "data" / "big.bin").write_bytes(bytes(range(256)) * 5_000)
    (tmp_path / "model" / "empty.txt").write_bytes(b"")
    source = f"{registry.url}/api/2.0/mlflow-artifacts/artifacts/uploads/{iris}"
    get_artifact_repository(source).log_artifacts(str(tmp_path / "model"))
    version = client.create_model_version(iris, source, run_id="abc", tags={"k": "v"}, description="first")
    assert (version.version, version.tags, version.run_id) == ("1", {"k": "v"}, "abc")
    assert client.get_model_version_download_uri(iris, "1").endswith(f"/models/{iris}/1")
    got = Path(download_artifacts(f"models:/{iris}/1", dst_path=str(tmp_path / "got")))
    assert (got / "data" / "big.bin").read_bytes() == bytes(range(256)) * 5_000
    assert (got / "empty.txt").read_bytes() == b""

    client.update_registered_model(iris, "flowers")
    client.update_model_version(iris, "1", "one")
    client.set_registered_model_tag(iris, "b", 2)
    client.delete_registered_model_tag(iris, "a")
    client.set_model_version_tag(iris, "1", "k2", "v2")
    client.delete_model_version_tag(iris, "1", "k")
    client.set_registered_model_alias(iris, "champion", "1")
    found = client.get_registered_model(iris)
    assert (found.description, found.tags, found.aliases) == ("flowers", {"b": "2"}, {"champion": "1"})
    by_alias = client.get_model_version_by_alias(iris, "champion")
    assert (by_alias.description, by_alias.tags, by_alias.aliases) == ("one", {"k2": "v2"}, ["champion"])
    assert [each.name for each in client.search_registered_models(f"name = '{iris}'")] == [iris]
    assert [each.version for each in client.search_model_versions(f"name = '{iris}'")] == ["1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert client.transition_model_version_stage(iris, "1", "Staging").current_stage == "Staging"
        assert [each.version for each in client.get_latest_versions(iris, ["Staging"])] == ["1"]
    with pytest.raises(MlflowException, match=r"never|cannot be renamed"):
        client.rename_registered_model(iris, "rose")
    prompt = client.register_prompt(greet, "Hello {{name}}", commit_message="first")
    client.set_prompt_alias(greet, "live", prompt.version)
    loaded = client.load_prompt(f"prompts:/{greet}@live")
    assert loaded is not None
    assert loaded.template == "Hello {{name}}"
    assert [each.name for each in client.search_prompts(f"name = '{greet}'")] == [greet]
    client.delete_registered_model_alias(iris, "champion")
    client.delete_model_version(iris, "1")
    client.delete_registered_model(iris)
    with pytest.raises(MlflowException) as missing:
        client.get_registered_model(iris)
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"
