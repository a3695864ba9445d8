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
from fairlead.serving.bundle import Recipe, build_bundle
from fairlead.serving.requirements import lock_requirements
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
    rooms = (("serving/bundled", "service.py"), ("serving/bundled", "model_runner.py"))
    sources = [ROOT / folder / name for folder, name in (*rooms, ("featurestore", "online_reader.py"))]
    digests = ",".join(f'"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"' for source in sources)
    written = (
        f'{{"artifact_digest":"sha256:{"ab" * 32}","feature_service":"diagnosis","format":1,'
        f'"reference":"Churn EU/2","service_name":"churn_eu","sources":[{digests}]}}'
    )
    assert recipe.digest == "sha256:" + hashlib.sha256(written.encode()).hexdigest()
    assert recipe.version == "ab" * 16


def test_a_bundle_is_the_tree_that_its_format_says(bundle: Path, weights: tuple[float, ...]) -> None:
    found = {file.relative_to(bundle).as_posix() for file in bundle.rglob("*") if file.is_file()}
    own = {f"src/fairlead_bundle/{name}" for name in ("service.py", "model_runner.py", "online_reader.py")}
    own |= {"bento.yaml", "env/python/requirements.txt", "src/fairlead_bundle/bundle.json"}
    assert found >= own | {f"src/model/{path}" for path in model_files(*weights)}
    assert {path for path in found if path.startswith("src/fairlead_bundle/")} - own == {
        "src/fairlead_bundle/__init__.py"
    }
    assert (bundle / "src/fairlead_bundle/bundle.json").read_text() == (
        f'{{"artifact_digest":"sha256:{"ab" * 32}","feature_service":"diagnosis","format":1,'
        '"reference":"Churn EU/2","service_name":"churn_eu"}\n'
    )
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


def test_a_model_s_own_pin_is_kept_and_mlflow_is_left_out() -> None:
    lines = ["mlflow==3.17.2", "scikit-learn==1.7.0", "# a comment", "--no-binary :none:", "", "numpy>=1"]
    locked = lock_requirements(lines, needs_mlflow=False)
    assert "scikit-learn==1.7.0" in locked
    assert locked == sorted(locked, key=lambda line: line.partition("==")[0])
    assert not any(line.startswith("mlflow") for line in locked)
    assert any(line.startswith("mlflow") for line in lock_requirements(lines, needs_mlflow=True))
    assert lock_requirements(["left-pad-of-the-future>=3"], needs_mlflow=False).count("left-pad-of-the-future>=3") == 1


@pytest.mark.parametrize("line", ["not a requirement", "evil @ https://evil.example/evil.whl"])
def test_a_requirement_that_no_lock_can_hold_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        lock_requirements([line], needs_mlflow=False)
