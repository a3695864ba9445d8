"""Moving from MLflow: its client's whole registry surface, bytes that are never wrong, and the import of a registry."""

from __future__ import annotations

import inspect
import re
import secrets
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy import MetaData, create_engine

import fairlead
from fairlead.core.errors import InvalidInput, ModelNotFound, PermissionDenied
from fairlead.sdk.mlflow_files import files_at
from fairlead.sdk.mlflow_registry import open_registry
from tests.acceptance.command_line import ROOT
from tests.records import migrated_database
from tests.registry.mlflow.stock import Registry, stock_registry
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with migrated_database(request, folder) as url, stock_registry(folder, url) as running:
        yield running


def upload(registry: Registry, path: str, folder: Path) -> str:
    source = f"{registry.url}/api/2.0/mlflow-artifacts/artifacts/{path}"
    get_artifact_repository(source).log_artifacts(str(folder))
    return source


class Recorded:
    """A client, and the names of its methods that were called."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self._client, name)


def registry_methods() -> set[str]:
    """The methods of MLflow's client that speak to a registry."""
    methods = inspect.getmembers(MlflowClient, callable)
    marks = ("_get_registry_client", "self._create_model_version(")
    return {name for name, each in methods if name[0] != "_" and any(mark in inspect.getsource(each) for mark in marks)}


def listed_methods() -> set[str]:
    """The methods that the reference lists."""
    page = (ROOT / "docs" / "reference" / "mlflow.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))


def test_the_reference_lists_every_method_of_the_client_that_speaks_to_a_registry() -> None:
    assert listed_methods() == registry_methods()


def test_every_listed_method_works(registry: Registry, tracking: str, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(tracking)
    client: Any = Recorded(MlflowClient())
    client.create_registered_model("rose", description="red")
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    source = upload(registry, "uploads/rose", tmp_path)
    client.create_model_version("rose", source, run_link="https://runs.example/1")
    assert client.get_model_version("rose", "1").status == "READY"
    client.copy_model_version("models:/rose/1", "tulip")
    assert client.get_model_version("tulip", "1").run_link == "https://runs.example/1"
    assert client.get_model_version_download_uri("rose", "1").endswith("/models/rose/1")
    client.set_registered_model_tag("rose", "colour", "red")
    client.delete_registered_model_tag("rose", "colour")
    client.set_registered_model_alias("rose", "champion", "1")
    assert client.get_model_version_by_alias("rose", "champion").version == "1"
    client.delete_registered_model_alias("rose", "champion")
    client.set_model_version_tag("rose", "1", "k", "v")
    client.delete_model_version_tag("rose", "1", "k")
    assert client.update_registered_model("rose", "pink").description == "pink"
    assert client.update_model_version("rose", "1", "one").description == "one"
    assert client.get_registered_model("rose").latest_versions[0].version == "1"
    assert [each.name for each in client.search_registered_models("name ILIKE 'ROS%'")] == ["rose"]
    assert [each.version for each in client.search_model_versions("name = 'rose'")] == ["1"]
    assert client.transition_model_version_stage("rose", "1", "Production").current_stage == "Production"
    assert [each.version for each in client.get_latest_versions("rose")] == ["1"]
    client.rename_registered_model("rose", "rose")
    check_prompts(client)
    check_webhooks(client)
    client.delete_model_version("rose", "1")
    client.delete_registered_model("rose")
    assert registry_methods() <= client.called


def check_prompts(client: Any) -> None:
    """Prompts, as the stock client stores them: models and versions whose text is a tag."""
    client.create_prompt("greet", description="how we begin", tags={"team": "care"})
    with pytest.raises(MlflowException):
        client.create_registered_model("greet")
    first = client.create_prompt_version("greet", "Hello {{name}}", description="first", tags={"tone": "plain"})
    second = client.register_prompt(
        "greet", [{"role": "user", "content": "Hi {{name}}"}], commit_message="chat", model_config={"temperature": 0.5}
    )
    assert (first.version, second.version) == (1, 2)
    client.set_prompt_alias("greet", "live", 1)
    for loaded in (
        client.load_prompt("prompts:/greet/1"),
        client.load_prompt("greet", version=1),
        client.load_prompt("prompts:/greet@live"),
        client.get_prompt_version("greet", 1),
        client.get_prompt_version_by_alias("greet", "live"),
    ):
        assert (loaded.template, loaded.tags["tone"], loaded.aliases) == ("Hello {{name}}", "plain", ["live"])
    latest = client.load_prompt("prompts:/greet@latest")
    assert (latest.version, latest.template[0]["content"]) == (2, "Hi {{name}}")
    assert client.load_prompt("prompts:/greet@live").format(name="Ana") == "Hello Ana"
    assert client.load_prompt("nobody", allow_missing=True) is None
    client.set_prompt_tag("greet", "lang", "en")
    client.delete_prompt_tag("greet", "team")
    client.set_prompt_version_tag("greet", "1", "seen", "yes")
    client.delete_prompt_version_tag("greet", "1", "tone")
    assert (client.get_prompt("greet").tags["lang"], client.get_prompt("greet").description) == ("en", "how we begin")
    assert client.get_prompt_version("greet", "1").tags["seen"] == "yes"
    assert [each.name for each in client.search_prompts("name LIKE 'gre%'")] == ["greet"]
    assert [each.name for each in client.search_prompts("tags.lang = 'en'")] == ["greet"]
    assert sorted(each.version for each in client.search_prompt_versions("greet")) == [1, 2]
    assert "greet" not in [each.name for each in client.search_registered_models()]
    with mlflow.start_run() as run:
        client.link_prompt_version_to_run(run.info.run_id, "prompts:/greet/1")
    # Linking notes it at the run; the tag at the prompt is what older clients left.
    client.set_prompt_version_tag("greet", "1", "mlflow.prompt.associatedRunIds", run.info.run_id)
    client.detach_prompt_from_run(run.info.run_id, "prompts:/greet/1")
    logged = mlflow.initialize_logged_model(name="agent")
    client.link_prompt_version_to_model("greet", "1", logged.model_id)
    with mlflow.start_span(name="ask") as span:
        pass
    mlflow.flush_trace_async_logging()
    client.link_prompt_versions_to_trace([first], span.trace_id)
    client.delete_prompt_alias("greet", "live")
    client.delete_prompt_version("greet", "1")
    client.delete_prompt_version("greet", "2")
    client.delete_prompt("greet")
    assert client.get_prompt("greet") is None


def check_webhooks(client: Any) -> None:
    hook = client.create_webhook(
        "hook", "https://hooks.example.org/in", ["registered_model.created"], status="DISABLED"
    )
    assert client.get_webhook(hook.webhook_id).name == "hook"
    assert client.update_webhook(hook.webhook_id, description="where to").description == "where to"
    assert [each.webhook_id for each in client.list_webhooks()] == [hook.webhook_id]
    with pytest.raises(MlflowException):
        client.test_webhook("no-such-hook")
    client.delete_webhook(hook.webhook_id)


def flip(pack: Path, place: float) -> None:
    data = bytearray(pack.read_bytes())
    data[int(len(data) * place)] ^= 4
    pack.write_bytes(data)


def cut(pack: Path, place: float) -> None:
    pack.write_bytes(pack.read_bytes()[: int(pack.stat().st_size * place)])


DAMAGES = [(flip, 0.97), (cut, 0.5)]


def test_flipped_and_cut_bytes_never_reach_a_client(registry: Registry, tmp_path: Path) -> None:
    client = MlflowClient()
    for number, (damage, place) in enumerate(DAMAGES):
        name = f"damaged-{number}"
        files = {"small.bin": secrets.token_bytes(1000), "large.bin": secrets.token_bytes(10 * 2**20)}
        folder = tmp_path / name
        folder.mkdir()
        for path, data in files.items():
            (folder / path).write_bytes(data)
        before = set(registry.location.rglob("*.pack"))
        client.create_registered_model(name)
        client.create_model_version(name, upload(registry, name, folder))
        assert Path(download_artifacts(f"models:/{name}/1/small.bin")).read_bytes() == files["small.bin"]
        for pack in set(registry.location.rglob("*.pack")) - before:
            damage(pack, place)
        refused = 0
        for path, data in files.items():
            try:
                got = Path(download_artifacts(f"models:/{name}/1/{path}", dst_path=str(tmp_path / f"got-{name}")))
            except Exception:  # noqa: BLE001  (whatever the client makes of it, it is no file)
                refused += 1
            else:
                assert got.read_bytes() == data
        assert refused
        shutil.rmtree(tmp_path / f"got-{name}", ignore_errors=True)


def populate(tracking: str) -> str:
    """A registry as people have it, some of it broken; the run that was deleted."""
    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    mlflow.set_tracking_uri(tracking)
    with mlflow.start_run() as kept:
        mlflow.log_text("flavors: {}\n", "model/MLmodel")
        mlflow.log_text("weights" * 1000, "model/data/weights.txt")
    with mlflow.start_run() as gone:
        mlflow.log_text("bye", "model/MLmodel")
    client.create_registered_model("wine", tags={"team": "cellar", "fairlead.team": "cellar"}, description="vintages")
    source = f"runs:/{kept.info.run_id}/model"
    client.create_model_version("wine", source, kept.info.run_id, tags={"k": "v"}, description="one")
    client.create_model_version("wine", f"{kept.info.artifact_uri}/model", kept.info.run_id)
    client.create_model_version("wine", f"runs:/{gone.info.run_id}/model", gone.info.run_id)
    client.create_model_version("wine", "s3://bucket/of/somebody/else", await_creation_for=0)
    client.create_model_version("wine", source, kept.info.run_id, run_link="https://runs.example/1")
    client.delete_model_version("wine", "2")
    client.transition_model_version_stage("wine", "5", "Staging")
    for alias, version in (("champion", "1"), ("broken", "3"), ("production", "5")):
        client.set_registered_model_alias("wine", alias, version)
    client.create_registered_model("50% off")
    client.register_prompt("cheers", "To {{name}}")
    client.set_prompt_alias("cheers", "live", 1)
    client.delete_run(gone.info.run_id)
    return str(gone.info.run_id)


@pytest.fixture(scope="module")
def populated(tracking: str, tracking_folder: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_id = populate(tracking)
    (gone,) = (tracking_folder / "artifacts").rglob(run_id)
    shutil.rmtree(gone)
    return tracking


ONLY = ("--model", "wine", "--model", "cheers", "--model", "50*")
LEFT_OUT = {
    ("model", "50% off", "refused"),
    ("version", "wine/3", "missing"),
    ("version", "wine/4", "unreachable"),
    ("alias", "wine@broken", "missing"),
    ("alias", "wine@production", "refused"),
}


def left_out(report: dict[str, Any]) -> set[tuple[str, str, str]]:
    came = {"created", "changed", "unchanged", "deleted"}
    return {(item["kind"], item["source"], item["outcome"]) for item in report["items"] if item["outcome"] not in came}


def test_a_registry_is_imported_and_again_only_what_is_new(
    registry: Registry, populated: str, tracking_folder: Path
) -> None:
    with fairlead.connect(url=registry.url, token=registry.secret) as connection:

        def bring(uri: str, **options: Any) -> dict[str, Any]:
            return connection.imports.mlflow(uri, names=("wine", "cheers", "50*"), **options).to_json()

        rehearsed = bring(populated, dry_run=True)
        assert (rehearsed["is_dry_run"], left_out(rehearsed)) == (True, LEFT_OUT)
        with pytest.raises(ModelNotFound):
            connection.models.get("wine")

        report = bring(populated)
        assert left_out(report) == LEFT_OUT
        assert report["counts"] == rehearsed["counts"]
        why = {item["source"]: item["detail"] for item in report["items"]}
        assert "was deleted there" in why["wine/3"]
        assert "--artifacts" in why["wine/4"]
        assert connection.models.get("wine").labels["team"] == "cellar"

        client = MlflowClient()
        model = client.get_registered_model("wine")
        assert (model.description, model.aliases, model.tags["team"]) == ("vintages", {"champion": "1"}, "cellar")
        there = MlflowClient(tracking_uri=populated, registry_uri=populated)
        for number in ("1", "5"):
            ours, theirs = client.get_model_version("wine", number), there.get_model_version("wine", number)
            for field in ("creation_timestamp", "description", "source", "run_id", "run_link", "current_stage"):
                assert (getattr(ours, field) or "") == (getattr(theirs, field) or ""), field
            assert ours.status == "READY"
            assert theirs.tags.items() <= ours.tags.items()
        got = Path(download_artifacts("models:/wine@champion"))
        assert (got / "data" / "weights.txt").read_text() == "weights" * 1000
        cheers = client.load_prompt("prompts:/cheers@live")
        assert cheers is not None
        assert cheers.template == "To {{name}}"

        # The same registry by its database: what came by its server is not brought twice.
        database = f"sqlite:///{tracking_folder / 'mlflow.db'}"
        roots = [str(tracking_folder / "artifacts")]
        again = bring(database, artifact_roots=roots)
        assert (again["bytes"], left_out(again)) == (0, LEFT_OUT)
        assert {item["outcome"] for item in again["items"]} == {"unchanged", "missing", "refused", "unreachable"}
        there.set_model_version_tag("wine", "1", "k", registry.url)
        changed = bring(populated)
        assert [item["source"] for item in changed["items"] if item["outcome"] == "changed"] == ["wine/1"]
        assert client.get_model_version("wine", "1").tags["k"] == registry.url

    secret = weak_token(registry)
    with fairlead.connect(url=registry.url, token=secret) as weak, pytest.raises(PermissionDenied):
        weak.imports.mlflow(populated, names=["wine"], renames={"wine": "other"})
    only = ("--model", "50*", "--artifacts", roots[0])
    refused = registry.admin("import", "mlflow", database, *only, code=7)
    assert "model 50% off (refused)" in refused.stdout
    renamed = registry.admin("import", "mlflow", database, *only, "--rename", "50% off=half", "-o", "markdown")
    assert "| models created | 1 |" in renamed.stdout
    assert "It is called half here" in renamed.stdout


def weak_token(registry: Registry) -> str:
    """A token that may read and write, but not import."""
    with fairlead.connect(url=registry.url, token=registry.secret) as connection:
        return str(connection.tokens.create("weak", principal="bea", scopes=["read", "write"]).secret)


@pytest.mark.usefixtures("populated")
def test_a_database_is_read_the_same_whichever_kind_it_is(
    tracking_folder: Path, postgres_server: PostgresServer
) -> None:
    file = tracking_folder / "mlflow.db"
    with postgres_server.new_database() as url:
        copy_database(f"sqlite:///{file}", url)
        registries = [
            open_registry(uri, [str(tracking_folder / "artifacts")])
            for uri in (f"sqlite:///{file}", url.replace("postgresql+psycopg:", "postgresql:"))
        ]
        try:
            one, other = ([(model, each.versions(model)) for model in each.models()] for each in registries)
        finally:
            for each in registries:
                each.close()
    assert one == other
    assert {"wine", "cheers"} <= {model.name for model, _ in one}
    with pytest.raises(InvalidInput, match="no model registry"):
        open_registry(f"sqlite:///{empty_database(tracking_folder)}")
    with pytest.raises(InvalidInput, match="There is no file"):
        open_registry(f"sqlite:///{tracking_folder / 'nothing.db'}")
    assert not (tracking_folder / "nothing.db").exists()
    with pytest.raises(InvalidInput, match="no MLflow server"):
        open_registry("ftp://example.org")


def copy_database(source: str, target: str) -> None:
    metadata = MetaData()
    reading, writing = create_engine(source), create_engine(target)
    tables = ["registered_models", "registered_model_tags", "registered_model_aliases", "model_versions"]
    metadata.reflect(reading, only=[*tables, "model_version_tags"], resolve_fks=False)
    metadata.create_all(writing)
    with reading.connect() as there, writing.begin() as here:
        for table in metadata.sorted_tables:
            rows = [dict(row) for row in there.execute(table.select()).mappings()]
            if rows:
                here.execute(table.insert(), rows)
    reading.dispose()
    writing.dispose()


def empty_database(folder: Path) -> Path:
    file = folder / "empty.db"
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (id INTEGER)")
    engine.dispose()
    return file


@pytest.mark.parametrize(
    "address",
    [
        "/etc",
        "file:///etc/passwd",
        "file:///root/.aws",
        "s3://bucket/other",
        "s3://bucket-two/x",
        "s3://bucket/in/../x",
    ],
)
def test_files_are_read_below_the_named_roots_only(address: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    roots = [str(tmp_path), "s3://bucket/in"]
    for place in (address, f"{tmp_path}/../etc", str(tmp_path / "link"), (tmp_path / "link" / "passwd").as_uri()):
        with pytest.raises(PermissionDenied, match="--artifacts"):
            files_at(place, roots)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("a")
    files = files_at((tmp_path / "model").as_uri(), roots)
    assert files is not None
    assert files.sizes() == {"a.txt": 1}
