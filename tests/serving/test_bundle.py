from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import Digest
from fairlead.serving.bundle import build_bundle
from fairlead.serving.recipe import Recipe
from fairlead.sync.store.manifest import build_manifest
from tests.serving.models import model_files, write_model

ROOT = Path(__file__).parents[2]


def test_two_builds_in_two_folders_at_two_times_are_equal_to_the_byte(
    bundle: Path, recipe: Recipe, weights: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "imported"
    # Hidden, as ~/.fairlead is: there BentoML refuses to open files that it is told of.
    elsewhere = tmp_path / ".fairlead" / "a folder of another name"
    elsewhere.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.setenv("TINY_MODEL_MARKER", str(marker))
    time.sleep(1.1)
    build_bundle(recipe, write_model(elsewhere / "model", *weights), elsewhere / "bundle")
    assert build_manifest(elsewhere / "bundle").digest == build_manifest(bundle).digest
    # The other half of the promise: nothing of the model ran while it was built.
    assert not marker.exists()


def test_a_bundle_names_no_path_of_the_machine_that_built_it(bundle: Path) -> None:
    for file in bundle.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert str(bundle.parent).encode() not in data
            assert b"fairlead-bundle-" not in data


def test_a_bundle_holds_the_version_s_files_unchanged(bundle: Path, weights: tuple[float, ...]) -> None:
    for path, data in model_files(*weights).items():
        assert (bundle / "src" / "model" / path).read_bytes() == data
    said = json.loads((bundle / "src" / "fairlead_bundle" / "bundle.json").read_text())
    assert said["reference"] == "Churn EU/2"
    assert said["artifact_digest"] == "sha256:" + "ab" * 32


def test_a_recipe_s_digest_is_that_of_its_canonical_json(recipe: Recipe) -> None:
    # The bytes that docs/reference/format.md describes; another form of them needs another format.
    names = ("service.py", "model_runner.py", "model_loaders.py", "batcher.py", "tracing.py")
    sources = [*(ROOT / "serving/bundled" / name for name in names), ROOT / "featurestore/online_reader.py"]
    digests = [f'"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"' for source in [*sources, ROOT / "uv.lock"]]
    written = (
        f'{{"allows_pickle":false,"artifact_digest":"sha256:{"ab" * 32}","base_image":null,'
        '"feature_service":"diagnosis","format":2,"lock":null,"python":"3.11","reference":"Churn EU/2",'
        f'"release":{digests[-1]},"service_file":null,"service_name":"churn_eu","service_source":null,'
        f'"sources":[{",".join(digests[:-1])}]}}'
    )
    assert recipe.digest == "sha256:" + hashlib.sha256(written.encode()).hexdigest()
    assert recipe.version == "ab" * 16


def test_a_bundle_is_the_tree_that_its_format_says(bundle: Path, weights: tuple[float, ...]) -> None:
    found = {file.relative_to(bundle).as_posix() for file in bundle.rglob("*") if file.is_file()}
    modules = ("__init__", "service", "model_runner", "model_loaders", "batcher", "tracing", "online_reader")
    own = {f"src/fairlead_bundle/{name}.py" for name in modules} | {"src/fairlead_bundle/bundle.json"}
    beside = {"bento.yaml", "sbom.cdx.json", "env/python/requirements.txt", "env/python/requirements.lock.txt"}
    assert found >= own | beside | {f"src/model/{path}" for path in model_files(*weights)}
    assert {path for path in found if path.startswith("src/fairlead_bundle/")} == own
    said = json.loads((bundle / "src/fairlead_bundle/bundle.json").read_text())
    lock = (bundle / "env/python/requirements.lock.txt").read_bytes()
    assert said.pop("schema").keys() == {"rows", "answer"}
    assert said == {
        "allows_pickle": False,
        "artifact_digest": "sha256:" + "ab" * 32,
        "feature_service": "diagnosis",
        "format": 2,
        "lock": f"sha256:{hashlib.sha256(lock).hexdigest()}",
        "python": "3.11",
        "reference": "Churn EU/2",
        "service_name": "churn_eu",
    }
    written = yaml.safe_load((bundle / "bento.yaml").read_text())
    assert (written["service"], written["name"]) == ("fairlead_bundle.service:Prediction", "churn_eu")
    assert (written["version"], str(written["creation_time"])) == ("ab" * 16, "2020-01-01 00:00:00+00:00")


def test_a_bundle_locks_exact_versions_and_needs_neither_mlflow_nor_feast(bundle: Path) -> None:
    lines = (bundle / "env" / "python" / "requirements.txt").read_text().split()
    assert all("==" in line for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert {"bentoml", "numpy", "pandas", "pyyaml"} <= names
    assert not {name for name in names if name.startswith(("mlflow", "feast", "fairlead"))}


def test_bentoml_imports_the_exported_bundle(bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / "churn.bento.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(bundle, arcname=".")
    home = tmp_path / "home"
    home.mkdir()
    script = f"import bentoml; print(bentoml.import_bento({str(archive)!r}).tag)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip().endswith(f"churn_eu:{'ab' * 16}")


def test_a_version_without_an_mlmodel_file_is_refused_with_the_next_step(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="MLmodel") as refusal:
        build_bundle(recipe, tmp_path / "model", tmp_path / "bundle")
    assert "save_model" in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "flavors: [sklearn]",
        "flavors: {python_function: [1]}",
        "[" * 100_000,
        "flavors: {a: 1}\n" + "#" * 2**20,
        "flavors: {a: \ud800}",
        "flavors: {a: 2026-99-99}",
    ],
    ids=["list", "odd flavor", "deep", "large", "not text", "no date"],
)
def test_an_mlmodel_file_that_makes_no_sense_is_refused(recipe: Recipe, tmp_path: Path, text: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InvalidInput, match="MLmodel"):
        build_bundle(recipe, tmp_path / "model", tmp_path / "bundle")


def test_a_recipe_is_named_by_what_goes_into_the_bundle(recipe: Recipe) -> None:
    same = Recipe(
        reference=recipe.reference, artifact_digest=recipe.artifact_digest, feature_service=recipe.feature_service
    )
    other = Recipe(reference=recipe.reference, artifact_digest=Digest("sha256:" + "0" * 64), feature_service=None)
    assert recipe.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("churn/1", "churn"),
        ("Churn EU/2", "churn_eu"),
        ("9 lives/1", "model_9_lives"),
        ("größe/3", "gr_e"),
        ("日本/1", "model"),
    ],
)
def test_any_model_name_gives_a_name_that_bentoml_permits(reference: str, expected: str) -> None:
    recipe = Recipe(reference=reference, artifact_digest=Digest("sha256:" + "0" * 64), feature_service=None)
    assert recipe.service_name == expected
