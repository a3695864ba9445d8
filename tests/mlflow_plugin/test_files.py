"""Files of versions through the plug-in: from the nearest sound replica, from the cache, and never with a wrong byte.

The registry is `fairlead://`, so the embedded server of the test's home.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

import fairlead
from fairlead.core.errors import ReplicaUnavailable
from fairlead.mlflow_plugin.registry_store import FairleadRegistryStore
from tests.acceptance.command_line import leave_nothing, write_folder

pytestmark = pytest.mark.timeout(300)

NEAR = "gcp:europe-west4"
FILES = {"MLmodel": b"flavors:\n  sklearn: {}\n", "data/weights.bin": bytes(range(256)) * 2_000, "data/empty": b""}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    variables = {"FAIRLEAD_HOME": str(home), "FAIRLEAD_REGION": NEAR, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield home
    leave_nothing(home)


@pytest.fixture(scope="module")
def uri(home: Path) -> str:
    """The address of the files of a version that three regions have."""
    store = FairleadRegistryStore("fairlead://")
    store.create_registered_model("churn")
    version = store.create_model_version("churn", str(write_folder(home / "model", FILES)))
    assert version.status == "PENDING_REGISTRATION"
    with fairlead.connect() as client:
        client.models.wait_ready("churn/1")
        client.models.wait_replicated("churn/1")
    return store.get_model_version_download_uri("churn", "1")


def read(folder: str | Path) -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def damage(home: Path, location: str) -> None:
    packs = list((home / "locations" / location).rglob("*.pack"))
    assert packs
    for pack in packs:
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)


def test_files_are_listed_and_read_whole_or_in_part(uri: str, tmp_path: Path) -> None:
    repository = get_artifact_repository(uri)
    assert [(each.path, each.is_dir, each.file_size) for each in repository.list_artifacts()] == [
        ("MLmodel", False, len(FILES["MLmodel"])),
        ("data", True, None),
    ]
    assert [each.path for each in repository.list_artifacts("data")] == ["data/empty", "data/weights.bin"]
    assert repository.list_artifacts("MLmodel") == []
    assert read(repository.download_artifacts("", str(tmp_path))) == FILES
    assert read(repository.download_artifacts("data")) == {
        path.removeprefix("data/"): data for path, data in FILES.items() if path.startswith("data/")
    }
    assert Path(repository.download_artifacts("data/weights.bin")).read_bytes() == FILES["data/weights.bin"]
    with pytest.raises(MlflowException) as missing:
        repository.download_artifacts("data/nothing")
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_changed_download_changes_no_other(uri: str) -> None:
    repository = get_artifact_repository(uri)
    first = Path(repository.download_artifacts(""))
    (first / "registered_model_meta").write_text("MLflow writes this into what it loads")
    (first / "MLmodel").write_bytes(b"!")
    assert read(repository.download_artifacts("")) == FILES


def test_a_wrong_byte_is_never_read_but_fetched_elsewhere_or_refused(home: Path, uri: str, tmp_path: Path) -> None:
    repository = get_artifact_repository(uri)
    shutil.rmtree(home / "cache")
    damage(home, "gcp-europe-west4")
    assert read(repository.download_artifacts("")) == FILES
    with fairlead.connect() as client:
        reported = list(client.audit.list(action="replica.report"))
        assert len(reported) == 1
        client.models.wait_replicated("churn/1")
    for location in (home / "locations").iterdir():
        damage(home, location.name)
    assert read(repository.download_artifacts("")) == FILES

    for kept in (home / "cache" / "files").rglob("*"):
        if kept.is_file() and kept.stat().st_size > 100:
            kept.chmod(0o600)
            kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with pytest.raises(MlflowException) as refused:
        repository.download_artifacts("", str(tmp_path))
    assert isinstance(refused.value.__cause__, ReplicaUnavailable)
    assert "data/weights.bin" not in read(tmp_path)


def test_a_token_that_may_only_read_registers_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fairlead.connect() as client:
        token = client.tokens.create("reader", principal="rita", scopes=["read"]).secret
    monkeypatch.setenv("FAIRLEAD_TOKEN", str(token))
    store = FairleadRegistryStore("fairlead://")
    assert store.get_registered_model("churn").name == "churn"
    with pytest.raises(MlflowException) as refused:
        store.create_model_version("churn", str(home / "model"))
    assert refused.value.error_code == "PERMISSION_DENIED"
