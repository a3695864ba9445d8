from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from fairlead.core.errors import InvalidInput, PickleRefused
from fairlead.core.ids import Digest
from fairlead.serving.bundle import build_bundle
from fairlead.serving.recipe import BundleWish, Recipe, check_base_image
from fairlead.serving.requirements import OFFLINE, parse_lock
from fairlead.serving.sbom import bill_of_materials
from fairlead.serving.signature_schema import schema_of
from fairlead.sync.store.manifest import build_manifest
from tests.serving.models import COLUMNS, model_files, write_model

ROOT = Path(__file__).parents[2]


def test_two_builds_by_other_users_in_other_folders_at_other_times_are_equal_to_the_byte(
    bundle: Path, recipe: Recipe, weights: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "imported"
    # Hidden, as ~/.fairlead is: there BentoML refuses to open files that it is told of.
    elsewhere = tmp_path / ".fairlead" / "a folder of another name"
    elsewhere.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("HOME", str(elsewhere))
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    monkeypatch.setenv("HOSTNAME", "another-machine")
    monkeypatch.setenv("LANG", "C")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("TINY_MODEL_MARKER", str(marker))
    moved_clock(elsewhere, monkeypatch)
    built = build_bundle(recipe, write_model(elsewhere / "model", *weights), elsewhere / "bundle", index=OFFLINE)
    assert built.sbom == (bundle / "sbom.cdx.json").read_text()
    assert build_manifest(elsewhere / "bundle").digest == build_manifest(bundle).digest
    # The other half of the promise: nothing of the model ran while it was built.
    assert not marker.exists()


def moved_clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python that is started from now on believes that it is 400 days later, and another user."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import getpass, os, time\n"
        "real = time.time\n"
        "time.time = lambda: real() + 400 * 86400\n"
        "import datetime as module\n"
        "class Later(module.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return cls.fromtimestamp(time.time(), tz)\n"
        "module.datetime = Later\n"
        "getpass.getuser = os.getlogin = lambda: 'somebody-else'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))


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
    names = ("service", "model_runner", "model_loaders", "batcher", "tracing", "bodies", "on_demand")
    others = (ROOT / "featurestore" / name for name in ("online_reader.py", "on_demand_code.py"))
    sources = [*(ROOT / "serving/bundled" / f"{name}.py" for name in names), *others]
    digests = [f'"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"' for source in [*sources, ROOT / "uv.lock"]]
    written = (
        f'{{"allows_pickle":false,"artifact_digest":"sha256:{"ab" * 32}","base_image":null,'
        '"feature_service":"diagnosis","feature_service_digest":null,"format":2,"lock":null,"python":"3.11",'
        '"reference":"Churn EU/2",'
        f'"release":{digests[-1]},"service_file":null,"service_name":"churn_eu","service_source":null,'
        f'"sources":[{",".join(digests[:-1])}]}}'
    )
    assert recipe.digest == "sha256:" + hashlib.sha256(written.encode()).hexdigest()
    assert recipe.version == "ab" * 16


def test_a_bundle_is_the_tree_that_its_format_says(bundle: Path, weights: tuple[float, ...]) -> None:
    found = {file.relative_to(bundle).as_posix() for file in bundle.rglob("*") if file.is_file()}
    modules = ("__init__", "service", "model_runner", "model_loaders", "batcher", "tracing", "on_demand")
    modules += ("bodies", "online_reader", "on_demand_code")
    own = {f"src/fairlead_bundle/{name}.py" for name in modules} | {"src/fairlead_bundle/bundle.json"}
    beside = {"bento.yaml", "sbom.cdx.json", "env/python/requirements.txt", "env/python/requirements.lock.txt"}
    assert found >= own | beside | {f"src/model/{path}" for path in model_files(*weights)}
    assert {path for path in found if path.startswith("src/fairlead_bundle/")} == own
    said = json.loads((bundle / "src/fairlead_bundle/bundle.json").read_text())
    lock = (bundle / "env/python/requirements.lock.txt").read_bytes()
    assert said.pop("schema").keys() == {"entities", "rows", "answer"}
    assert said == {
        "allows_pickle": False,
        "artifact_digest": "sha256:" + "ab" * 32,
        "feature_service": "diagnosis",
        "feature_service_digest": None,
        "on_demand": None,
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


@pytest.mark.timeout(20)
@pytest.mark.parametrize("form", ["[{}]", "!!pairs [a: [{}]]"])
def test_a_few_aliases_that_stand_for_gigabytes_are_refused(recipe: Recipe, tmp_path: Path, form: str) -> None:
    lines = [f"a{number}: &a{number} {form.format(', '.join([f'*a{number - 1}'] * 30))}" for number in range(1, 9)]
    text = "\n".join(["a0: &a0 x", *lines, "flavors: {python_function: {python_version: *a8, loader_module: *a8}}"])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text(text)
    with pytest.raises(InvalidInput, match="MLmodel"):
        build_bundle(recipe, tmp_path / "model", tmp_path / "out")


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


def test_requests_and_answers_have_the_form_of_the_signature(bundle: Path) -> None:
    described = yaml.safe_load((bundle / "apis" / "openapi.yaml").read_text())
    row = described["paths"]["/predict_rows"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    rows = row["properties"]["rows"]
    assert rows["items"]["required"] == list(COLUMNS)
    assert rows["items"]["properties"]["radius"] == {"type": ["number", "null"]}
    assert rows["items"]["additionalProperties"] is False


TENSOR = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, 2, -1]}}


@pytest.mark.parametrize(
    ("inputs", "row"),
    [
        (None, {"type": "object"}),
        ([{"type": "string", "required": True}], {"type": ["string", "null"]}),
        (
            [TENSOR],
            {
                "type": "array",
                "items": {"type": "array", "items": {"type": "integer"}},
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (
            [{"type": "long", "name": "age", "required": False}],
            {
                "type": "object",
                "properties": {"age": {"type": "integer"}},
                "required": [],
                "additionalProperties": False,
            },
        ),
    ],
)
def test_any_signature_has_a_schema(inputs: list[dict[str, Any]] | None, row: dict[str, Any]) -> None:
    signature = {"inputs": json.dumps(inputs), "outputs": json.dumps([{"type": "double", "name": "risk"}])}
    found = schema_of({"signature": None if inputs is None else signature})
    assert found["rows"] == {"type": "array", "items": row}
    predictions = found["answer"]["properties"]["predictions"]["items"]
    assert predictions == (
        {} if inputs is None else {"type": "object", "properties": {"risk": {"type": ["number", "null"]}}}
    )


def test_a_signature_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="signature"):
        schema_of({"signature": {"inputs": "[{]"}})


def test_the_list_of_what_is_in_a_bundle_is_valid_cyclonedx(bundle: Path, recipe: Recipe) -> None:
    text = (bundle / "sbom.cdx.json").read_text()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    said = json.loads(text)
    lock = parse_lock((bundle / "env/python/requirements.lock.txt").read_text())
    purls = {each["purl"] for each in said["components"] if each["type"] == "library"}
    assert purls == {f"pkg:pypi/{each.name}@{each.version}" for each in lock.packages}
    (model,) = [each for each in said["components"] if each["type"] == "machine-learning-model"]
    assert model["hashes"][0]["content"] == recipe.artifact_digest.removeprefix("sha256:")
    with_image = bill_of_materials(replace(recipe, base_image=f"python@sha256:{'1' * 64}"), lock, {})
    assert validator.validate_str(with_image.decode()) is None
    assert b'"container"' in with_image


OWN = """
import bentoml
from fairlead_bundle.model_runner import load_model

raise AssertionError("no builder runs this")


@bentoml.service(name="own-service", traffic={"timeout": 5})
class Own:
    pass
"""


def test_a_service_of_one_s_own_is_bundled_and_not_run(
    recipe: Recipe, weights: tuple[float, ...], tmp_path: Path
) -> None:
    image = f"registry.example/python@sha256:{'2' * 64}"
    model = write_model(tmp_path / "model", *weights)
    (model / "code" / "own.py").write_text(OWN)
    own = BundleWish(service_file="code/own.py").apply(replace(recipe, base_image=image))
    build_bundle(own, model, tmp_path / "bundle")
    bundle = tmp_path / "bundle"
    assert (bundle / "src" / "fairlead_user_service.py").read_text() == OWN
    described = yaml.safe_load((bundle / "bento.yaml").read_text())
    assert described["service"] == "fairlead_user_service:Own"
    assert described["services"][0]["name"] == described["entry_service"] == "own-service"
    assert described["docker"]["base_image"] == image
    assert f"FROM {image}" in (bundle / "env/docker/Dockerfile").read_text()
    # What it offers is its own matter.
    assert not (bundle / "apis").exists()
    names = {each["name"] for each in json.loads((bundle / "sbom.cdx.json").read_text())["components"]}
    assert "fairlead_user_service.py" in names


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def (", "no Python"),
        ("class A: pass", "has 0 classes"),
        ("@bentoml.service\nclass A: pass\n@bentoml.service()\nclass B: pass", "has 2 classes"),
        ("@bentoml.service(name=X)\nclass A: pass", "no plain text"),
        ("@bentoml.service(**X)\nclass A: pass", "no plain text"),
        (f"@{'.'.join('a' * 1500)}\nclass A: pass", "no Python source"),
        ("@bentoml.service(name='a\\nb')\nclass A: pass", "no name of a service"),
    ],
)
def test_a_file_that_is_no_service_is_refused(recipe: Recipe, source: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        BundleWish(service_source=source).apply(recipe)


def test_a_lock_without_what_every_bundle_needs_is_refused(recipe: Recipe) -> None:
    with pytest.raises(InvalidInput, match="no bentoml, which every bundle needs"):
        BundleWish(lock=f"numpy==2 --hash=sha256:{'0' * 64}").apply(recipe)


@pytest.mark.parametrize("path", ["../own.py", "/own.py", "a//own.py", "own.txt", "a\\own.py", "./own.py"])
def test_a_service_lies_in_the_version(recipe: Recipe, path: str) -> None:
    with pytest.raises(InvalidInput, match="no path"):
        BundleWish(service_file=path).apply(recipe)


def test_a_service_that_the_version_does_not_have_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has no file 'own\.py'"):
        build_bundle(replace(recipe, service_file="own.py"), write_model(tmp_path / "model", 1.0), tmp_path / "bundle")


def test_a_pickle_is_refused_with_the_command_that_allows_it(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    flavors = {
        "sklearn": {"serialization_format": "cloudpickle"},
        "python_function": {"loader_module": "mlflow.sklearn"},
    }
    (tmp_path / "model" / "MLmodel").write_text(json.dumps({"flavors": flavors}))
    with pytest.raises(PickleRefused, match="saved with cloudpickle") as refusal:
        build_bundle(recipe, tmp_path / "model", tmp_path / "bundle")
    assert "fairlead bundle policy 'Churn EU' --allow-pickle" in str(refusal.value)


@pytest.mark.parametrize("image", ["python:3.11-slim", "python", "python@sha256:12", f"a\nRUN b@sha256:{'0' * 64}"])
def test_a_base_image_is_named_by_digest(image: str) -> None:
    with pytest.raises(InvalidInput, match="not named by digest"):
        check_base_image(image)
    assert check_base_image(f"ghcr.io/acme/python@sha256:{'0' * 64}")
