"""The tools that guard the layers and the types see every package, also those behind a link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINKED = ["registry", "sync", "featurestore", "serving", "migrations"]


def _packages() -> list[str]:
    """The folders below `fairlead` that hold Python, through the links."""
    walk = os.walk(ROOT / "fairlead", followlinks=True)
    folders = [Path(folder).relative_to(ROOT) for folder, _, files in walk if any(f.endswith(".py") for f in files)]
    return sorted(folder.as_posix() for folder in folders)


def _copy_tree(target: Path, *, sources: bool) -> None:
    """Copy the packages with their links: all sources, or only the folders."""

    def skipped(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or (not sources and Path(folder, name).is_file())]

    shutil.copy(ROOT / "pyproject.toml", target)
    for folder in ["fairlead", *LINKED]:
        shutil.copytree(ROOT / folder, target / folder, symlinks=True, ignore=skipped)


def _run(tool: str, folder: Path) -> str:
    finished = subprocess.run(
        [Path(sys.executable).with_name(tool)], cwd=folder, capture_output=True, check=False, text=True
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    return finished.stdout


def test_an_import_that_points_up_is_refused_in_every_package(tmp_path: Path) -> None:
    _copy_tree(tmp_path, sources=True)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "import_contracts.py", tmp_path / "tests")
    violations = {
        "fairlead.core": "fairlead.catalog",
        "fairlead.catalog": "fairlead.registry",
        "fairlead.registry": "fairlead.sync",
        "fairlead.sync": "fairlead.featurestore",
        "fairlead.sync.store": "fairlead.catalog",
        "fairlead.featurestore": "fairlead.serving",
        "fairlead.serving": "fairlead.sdk",
        "fairlead.sdk": "fairlead.registry",
        "fairlead.mlflow_plugin": "fairlead.registry",
        "fairlead.app": "fairlead.testing",
    }
    for importer, imported in violations.items():
        (tmp_path / importer.replace(".", "/") / "planted.py").write_text(f"import {imported}\n")

    report = _run("lint-imports", tmp_path)

    missed = [edge for edge in violations.items() if "{}.planted -> {}".format(*edge) not in report]
    assert missed == [], report


def test_a_type_error_is_found_in_every_package(tmp_path: Path) -> None:
    _copy_tree(tmp_path, sources=False)
    (tmp_path / "tests" / "registry").mkdir(parents=True)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    planted = [f"{folder}/planted.py" for folder in [*_packages(), "tests", "tests/registry"]]
    for file in planted:
        (tmp_path / file).write_text('number: int = "a text"\n')

    report = _run("pyright", tmp_path)

    assert [file for file in planted if f"{file}:1:15 - error" not in report] == [], report
