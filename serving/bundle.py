"""Builds a Bento from the verified files of a model version, so that two builds are equal to the byte.

BentoML builds the service part in a subprocess, from a context that holds only our own code; the model's files are put
in place afterwards. So no code of an artifact is importable while anything is built, and no ignore file of a model can
leave a file of it out. What BentoML makes of the moment and the machine (the creation time, the Python) is set to what
the recipe says. A user's own service is put in place afterwards too, and nobody imports it.

    bento.yaml  README.md  apis/  env/            as BentoML writes them
    env/python/requirements.lock.txt              the lock
    sbom.cdx.json                                 what is in it
    src/fairlead_bundle/                          the modules of the recipe, and bundle.json
    src/fairlead_user_service.py                  the user's own service, where there is one
    src/model/                                    the version's files, unchanged: their blocks are stored already
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import InvalidInput, JsonValue, MissingExtra, PickleRefused, Unavailable
from fairlead.serving.bundle_features import PACKAGES, BundledFeatures, entities_schema
from fairlead.serving.bundled.model_loaders import native_flavor, pickle_in
from fairlead.serving.processes import without_folders
from fairlead.serving.recipe import Recipe, bundled_sources, find_service
from fairlead.serving.requirements import PYTHONS, Lock, lock_requirements, parse_lock
from fairlead.serving.sbom import bill_of_materials
from fairlead.serving.signature_schema import schema_of

SERVICE = "fairlead_bundle.service:Prediction"
USER_SERVICE = "fairlead_user_service"
SBOM = "sbom.cdx.json"
LOCK = "env/python/requirements.lock.txt"
BUILD_SECONDS = 180
_BUNDLE_FORMAT = 2
_TEXT_MAX_BYTES = 2**20
_SPELLED_OUT_MAX = 16 * 2**20
_CREATION_TIME = "2020-01-01T00:00:00+00:00"
_LIBRARIES = {
    "sklearn": ("scikit-learn", "skops"),
    "xgboost": ("xgboost",),
    "lightgbm": ("lightgbm",),
    "onnx": ("onnxruntime",),
    "transformers": ("torch", "transformers"),
}
# Distributions that bring the library under another name.
_SAME = {"xgboost": {"xgboost-cpu"}, "onnxruntime": {"onnxruntime-gpu"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltBundle:
    """What a build wrote beside the files: the lock and the SBOM, as they lie in the bundle."""

    lock: Lock
    sbom: str


def build_bundle(
    recipe: Recipe,
    model: Path,
    destination: Path,
    *,
    features: BundledFeatures | None = None,
    lock: Lock | None = None,
    index: str | None = None,
) -> BuiltBundle:
    """Make `destination` (which must not exist) a Bento of the MLflow model folder `model`, which is left empty.

    Both must be on one file system: the model's files are moved, not copied. `features` are those of the recipe's
    version of the feature service. A `lock` that an earlier build recorded is used again; `index` is as for
    `lock_requirements`.

    Raises:
        InvalidInput: if the model has no MLmodel file, or its requirements, signature or service cannot be read.
        PickleRefused: if the model is a pickle and the recipe does not allow it.
        MissingExtra: if BentoML is not installed here.
        Unavailable: if BentoML does not build it (the end of its log is in the detail), or a package index is needed
            and does not answer.
    """
    described = _read_mlmodel(model)
    flavor = native_flavor(described["flavors"])
    pickle = pickle_in(model, described)
    if pickle is not None and not recipe.allows_pickle:
        raise _refused_pickle(recipe, pickle)
    python = _python_of(described, recipe)
    packages = PACKAGES if features is not None and features.facts is not None else ()
    if lock is None and recipe.lock:
        lock = parse_lock(recipe.lock)
        _check_lock(lock, packages)
    elif lock is None:
        lock = _lock(model, described, flavor, packages, python=python, index=index)
    facts = _facts(
        recipe,
        described,
        features,
        lock,
        python,
        allows_pickle=recipe.allows_pickle and (flavor is None or bool(pickle)),
    )
    service = _service_source(recipe, model)
    with tempfile.TemporaryDirectory(prefix="fairlead-bundle-", dir=destination.parent) as scratch:
        context, home = Path(scratch) / "context", Path(scratch) / "home"
        files = _write_context(context, recipe, facts, lock, python)
        home.mkdir()
        _run_bentoml(context, home, recipe.version)
        built = home / "bentos" / recipe.service_name / recipe.version
        _fix_machine(built, python)
        if service is not None:
            _put_service(built, service)
            files[f"{USER_SERVICE}.py"] = service.encode()
        sbom = bill_of_materials(recipe, lock, files)
        (built / SBOM).write_bytes(sbom)
        (built / LOCK).write_text(lock.text, encoding="utf-8")
        shutil.copytree(built, destination, ignore=shutil.ignore_patterns("__pycache__"))
    model.rename(destination / "src" / "model")
    return BuiltBundle(lock=lock, sbom=sbom.decode())


def _check_lock(lock: Lock, packages: Sequence[str]) -> None:
    if missing := sorted({*packages} - {each.name for each in lock.packages}):
        raise InvalidInput(
            f"The lock has no {missing[0]}, which the functions of the model's on-demand views need.",
            hint="Add it, or leave the lock out.",
        )


def _lock(
    model: Path,
    described: dict[str, Any],
    flavor: str | None,
    packages: Sequence[str],
    *,
    python: str,
    index: str | None,
) -> Lock:
    file = model / "requirements.txt"
    lines = _read_text(file).splitlines() if file.exists() else []
    listed = {re.split(r"[^\w.-]", line.strip(), maxsplit=1)[0].lower() for line in lines}
    libraries = [each for each in _LIBRARIES.get(flavor or "", ()) if not listed & _SAME.get(each, set())]
    libraries += packages
    loader = str(described["flavors"].get("python_function", {}).get("loader_module", "mlflow."))
    needs_mlflow = flavor is None and loader.startswith("mlflow.")
    return lock_requirements(lines, needs_mlflow=needs_mlflow, libraries=libraries, python=python, index=index)


def _python_of(described: dict[str, Any], recipe: Recipe) -> str:
    """The Python that the model was made with, where a bundle can have it."""
    said = str(described["flavors"].get("python_function", {}).get("python_version", ""))
    minor = ".".join(said.split(".")[:2])
    return minor if minor in PYTHONS else recipe.python


def _facts(
    recipe: Recipe,
    described: dict[str, Any],
    features: BundledFeatures | None,
    lock: Lock,
    python: str,
    *,
    allows_pickle: bool,
) -> dict[str, JsonValue]:
    """What the bundle says of itself, in `bundle.json`."""
    return {
        "format": _BUNDLE_FORMAT,
        "reference": recipe.reference,
        "artifact_digest": recipe.artifact_digest,
        "feature_service": recipe.feature_service,
        "feature_service_digest": recipe.feature_service_digest,
        "on_demand": None if features is None or features.facts is None else dict(features.facts),
        "service_name": recipe.service_name,
        "python": python,
        "lock": lock.digest,
        "allows_pickle": allows_pickle,
        "schema": {"entities": entities_schema(features), **schema_of(described)},
    }


def _refused_pickle(recipe: Recipe, reason: str) -> PickleRefused:
    name, reference = (shlex.quote(each) for each in (recipe.reference.rpartition("/")[0], recipe.reference))
    return PickleRefused(
        f"{recipe.reference} cannot be bundled: {reason} A pickle can run any code when it is opened.",
        hint="Save it as safetensors, ONNX, skops or in its library's own format; or allow it: "
        f"fairlead bundle policy {name} --allow-pickle, then fairlead bundle {reference}",
        reference=recipe.reference,
    )


def _service_source(recipe: Recipe, model: Path) -> str | None:
    """The user's own service as text, where the recipe names one."""
    if recipe.service_file is None:
        return recipe.service_source
    file = model / recipe.service_file
    if not file.is_file():
        raise InvalidInput(
            f"{recipe.reference} has no file {recipe.service_file!r}.",
            hint="Give it as it is called in the version, such as code/service.py.",
        )
    return _read_text(file)


def _read_mlmodel(model: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load(_read_text(model / "MLmodel"))
        if _spelled_out(described, {}) > _SPELLED_OUT_MAX:
            described = None
    # Aliases in YAML may lead to themselves.
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError):
        described = None
    flavors = cast("dict[str, Any]", described).get("flavors") if isinstance(described, dict) else None
    if not isinstance(flavors, dict) or not isinstance(
        cast("dict[str, Any]", flavors).get("python_function", {}), dict
    ):
        raise InvalidInput(
            "The version holds no readable MLmodel file, so nothing says how to load it.",
            hint="Register a folder that MLflow saved, for example with mlflow.pyfunc.save_model.",
        )
    return cast("dict[str, Any]", described)


def _spelled_out(value: object, known: dict[int, int]) -> int:
    """How long a YAML document is without aliases: a few lines of lists of lists may stand for gigabytes.

    Raises:
        RecursionError: if an alias leads to itself.
    """
    if isinstance(value, str | bytes):
        return len(value) + 1
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if id(value) not in known:
        members = cast("dict[object, object] | list[object]", value)
        parts = [*members, *members.values()] if isinstance(members, dict) else members
        known[id(value)] = 1 + sum(_spelled_out(each, known) for each in parts)
    return known[id(value)]


def _read_text(path: Path) -> str:
    # Both files that are read here are written by people and libraries, a few KB each.
    if path.stat().st_size > _TEXT_MAX_BYTES:
        raise InvalidInput(f"The version's {path.name} has more than {_TEXT_MAX_BYTES} bytes.")
    return path.read_text(encoding="utf-8")


def _write_context(
    context: Path, recipe: Recipe, facts: dict[str, JsonValue], lock: Lock, python: str
) -> dict[str, bytes]:
    """Write what BentoML builds from; answers the bundle's own files by their paths below `src`."""
    files = {"fairlead_bundle/__init__.py": b"", "fairlead_bundle/bundle.json": canonical_json(facts) + b"\n"}
    files |= {f"fairlead_bundle/{name}": data for name, data in bundled_sources()}
    (context / "fairlead_bundle").mkdir(parents=True)
    for path, data in files.items():
        (context / path).write_bytes(data)
    bentofile = {
        "service": SERVICE,
        "name": recipe.service_name,
        "description": f"# {recipe.reference}\n\nServes the model version {recipe.artifact_digest}.\n",
        "include": ["fairlead_bundle/"],
        # In a file they would be refused: BentoML opens none below a hidden folder, such as ~/.fairlead.
        "python": {"packages": lock.pins, "lock_packages": False},
        "docker": {"python_version": python} if recipe.base_image is None else {"base_image": recipe.base_image},
    }
    # JSON is YAML.
    (context / "bentofile.yaml").write_text(json.dumps(bentofile), encoding="utf-8")
    return files


def _run_bentoml(context: Path, home: Path, version: str) -> None:
    command = [sys.executable, "-m", "bentoml", "build", str(context), "--version", version]
    command += ["--bentofile", str(context / "bentofile.yaml")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BENTOML_", "FAIRLEAD_"))}
    environment |= {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_ENABLE_FEATURES": "no_image",
    }
    try:
        result = subprocess.run(
            command,
            cwd=context,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"BentoML did not build the bundle within {BUILD_SECONDS} s.") from None
    if result.returncode:
        tail = without_folders("\n".join((result.stdout + result.stderr).splitlines()[-15:]))
        if "No module named bentoml" in tail:
            raise MissingExtra(
                "BentoML is not installed here.", hint="Install it with: pip install 'fairlead[serving]'"
            )
        raise Unavailable(f"BentoML refused the bundle: {tail}")


def _fix_machine(built: Path, python: str) -> None:
    """Take the moment and the machine out of what BentoML wrote."""
    bento_yaml = built / "bento.yaml"
    text = bento_yaml.read_text(encoding="utf-8")
    fixed, times = re.subn(r"(?m)^creation_time: .*$", f"creation_time: {_CREATION_TIME}", text)
    fixed, pythons = re.subn(r"(?m)^  python_version: .*$", f"  python_version: '{python}'", fixed)
    if (times, pythons) != (1, 1):
        raise Unavailable("BentoML wrote a bento.yaml of an unknown form.", hint="Use BentoML 1.4.")
    bento_yaml.write_text(fixed, encoding="utf-8")
    (built / "env" / "python" / "version.txt").write_text(python, encoding="utf-8")


def _put_service(built: Path, source: str) -> None:
    """Put the user's service in the place of the generated one, unseen: what it offers is known once it runs."""
    (built / "src" / f"{USER_SERVICE}.py").write_text(source, encoding="utf-8")
    bento_yaml = built / "bento.yaml"
    described = yaml.safe_load(bento_yaml.read_text(encoding="utf-8"))
    own = find_service(source)
    described["service"] = f"{USER_SERVICE}:{own.cls}"
    described["entry_service"] = own.name
    described["services"] = [{"name": own.name, "service": "", "models": [], "dependencies": [], "config": {}}]
    described["creation_time"] = _CREATION_TIME
    described["schema"] = {"name": own.name, "type": "service", "routes": []}
    bento_yaml.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    shutil.rmtree(built / "apis")
