"""The wheel holds the whole tree below one import name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKED = ["registry", "sync", "featurestore", "serving", "migrations"]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Every file of the checkout that git does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [Path(name) for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, because a build leaves things beside its sources."""
    tree = tmp_path_factory.mktemp("tree")
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tree / file, follow_symlinks=False)
    finished = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"],
        cwd=tree,
        capture_output=True,
        check=False,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    [built] = (tree / "dist").iterdir()
    return built


def test_the_wheel_holds_every_file_of_every_package(wheel: Path, files: list[Path]) -> None:
    expected = {file.as_posix() for file in files if file.parts[0] == "fairlead"}
    expected -= {f"fairlead/{package}" for package in LINKED}
    expected |= {f"fairlead/{file.as_posix()}" for file in files if file.parts[0] in LINKED}

    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert packed == expected, "Does [tool.setuptools.package-data] name the kind of file that is missing?"


def test_the_wheel_installs_one_import_name(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"fairlead"}


def test_every_package_is_typed_and_imports_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import fairlead, {', '.join(f'fairlead.{package}' for package in LINKED)}\n"
        "ours = [module for name, module in sys.modules.items() if name.split('.')[0] == 'fairlead']\n"
        "print(*[module.__file__ for module in ours], sep='\\n')"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True, text=True)
    assert [line for line in finished.stdout.splitlines() if not line.startswith(str(tmp_path))] == []
    assert [package for package in ["", *LINKED] if not (tmp_path / "fairlead" / package / "py.typed").exists()] == []
