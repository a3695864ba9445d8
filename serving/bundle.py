"""Builds a Bento from the verified files of a model version, so that two builds are equal to the byte.

BentoML builds the service part in a subprocess, from a context that holds only our own code; the model's files are put
in place afterwards. So no code of an artifact is importable while anything is built, and no ignore file of a model can
leave a file of it out. What BentoML makes of the moment (the creation time in `bento.yaml`) is set to a constant.

    bento.yaml  README.md  apis/  env/            as BentoML writes them
    src/fairlead_bundle/                          service, model runner, online reader, bundle.json
    src/model/                                    the version's files, unchanged: their blocks are stored already
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import InvalidInput, JsonValue, MissingExtra, Unavailable
from fairlead.core.ids import Digest, digest_hex, sha256_digest
from fairlead.serving.processes import without_folders
from fairlead.serving.requirements import lock_requirements

RECIPE_FORMAT = 1
SERVICE = "fairlead_bundle.service:Prediction"
BUILD_SECONDS = 180
_TEXT_MAX_BYTES = 2**20
_CREATION_TIME = "2020-01-01T00:00:00+00:00"
_SOURCES = (
    ("fairlead.serving.bundled", "service.py"),
    ("fairlead.serving.bundled", "model_runner.py"),
    ("fairlead.featurestore", "online_reader.py"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a bundle is made of. Equal recipes, built in equal environments, give equal bundles."""

    reference: str
    artifact_digest: Digest
    feature_service: str | None

    @property
    def digest(self) -> Digest:
        """Names the recipe together with the code that goes into every bundle."""
        sources: list[JsonValue] = [sha256_digest(data) for _, data in bundled_sources()]
        return sha256_digest(canonical_json({**self.facts(), "sources": sources}))

    def facts(self) -> dict[str, JsonValue]:
        """What the bundle says of itself, in `bundle.json`."""
        return {
            "format": RECIPE_FORMAT,
            "reference": self.reference,
            "artifact_digest": self.artifact_digest,
            "feature_service": self.feature_service,
            "service_name": self.service_name,
        }

    @property
    def service_name(self) -> str:
        """The model's name, brought to the letters that BentoML permits."""
        name = re.sub(r"[^a-z0-9]+", "_", self.reference.rpartition("/")[0].lower()).strip("_")
        return name if name[:1].isalpha() else f"model_{name}".rstrip("_")

    @property
    def version(self) -> str:
        """BentoML's version: derived, where BentoML would take the time."""
        return digest_hex(self.artifact_digest)[:32]


@cache
def bundled_sources() -> tuple[tuple[str, bytes], ...]:
    """The modules that every bundle carries, as (file name, bytes)."""
    return tuple((name, (resources.files(package) / name).read_bytes()) for package, name in _SOURCES)


def build_bundle(recipe: Recipe, model: Path, destination: Path) -> None:
    """Make `destination` (which must not exist) a Bento of the MLflow model folder `model`, which is left empty.

    Both must be on one file system: the model's files are moved, not copied.

    Raises:
        InvalidInput: if the model has no MLmodel file or its requirements cannot be read.
        MissingExtra: if BentoML is not installed here.
        Unavailable: if BentoML does not build it; the end of its log is in the detail.
    """
    described = _read_mlmodel(model)
    requirements_file = model / "requirements.txt"
    lines = _read_text(requirements_file).splitlines() if requirements_file.exists() else []
    requirements = lock_requirements(lines, needs_mlflow=_needs_mlflow(described))
    with tempfile.TemporaryDirectory(prefix="fairlead-bundle-", dir=destination.parent) as scratch:
        context, home = Path(scratch) / "context", Path(scratch) / "home"
        _write_context(context, recipe, requirements)
        home.mkdir()
        _run_bentoml(context, home, recipe.version)
        built = home / "bentos" / recipe.service_name / recipe.version
        _fix_creation_time(built / "bento.yaml")
        shutil.copytree(built, destination, ignore=shutil.ignore_patterns("__pycache__"))
    model.rename(destination / "src" / "model")


def _read_mlmodel(model: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load(_read_text(model / "MLmodel"))
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


def _read_text(path: Path) -> str:
    # Both files that are read here are written by people and libraries, a few KB each.
    if path.stat().st_size > _TEXT_MAX_BYTES:
        raise InvalidInput(f"The version's {path.name} has more than {_TEXT_MAX_BYTES} bytes.")
    return path.read_text(encoding="utf-8")


def _needs_mlflow(described: dict[str, Any]) -> bool:
    flavors: dict[str, Any] = described["flavors"]
    loader = str(flavors.get("python_function", {}).get("loader_module", "mlflow."))
    return "sklearn" not in flavors and loader.startswith("mlflow.")


def _write_context(context: Path, recipe: Recipe, requirements: list[str]) -> None:
    package = context / "fairlead_bundle"
    package.mkdir(parents=True)
    (package / "__init__.py").write_bytes(b"")
    for name, data in bundled_sources():
        (package / name).write_bytes(data)
    (package / "bundle.json").write_bytes(canonical_json(recipe.facts()) + b"\n")
    bentofile = {
        "service": SERVICE,
        "name": recipe.service_name,
        "description": f"# {recipe.reference}\n\nServes the model version {recipe.artifact_digest}.\n",
        "include": ["fairlead_bundle/"],
        # In a file they would be refused: BentoML opens none below a hidden folder, such as ~/.fairlead.
        "python": {"packages": requirements, "lock_packages": False},
    }
    # JSON is YAML.
    (context / "bentofile.yaml").write_text(json.dumps(bentofile), encoding="utf-8")


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


def _fix_creation_time(bento_yaml: Path) -> None:
    text = bento_yaml.read_text(encoding="utf-8")
    fixed, count = re.subn(r"(?m)^creation_time: .*$", f"creation_time: {_CREATION_TIME}", text)
    if count != 1:
        raise Unavailable("BentoML wrote a bento.yaml of an unknown form.", hint="Use BentoML 1.4.")
    bento_yaml.write_text(fixed, encoding="utf-8")
