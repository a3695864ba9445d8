"""Builds one bundle in two fresh clones, under other paths, users and clocks, and compares the digests.

    python benchmarks/serving/two_clones.py

Each clone gets an environment of its own from the lock, registers the same files with an embedded server of its own,
and asks for the bundle as a user does. The second one lies in a folder of another name, has another home and another
user (a real one where this runs as root and the user may run this Python), another time zone and language, and a clock
that is 400 days ahead.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GIT = shutil.which("git") or "git"
NOBODY = 65534
LATER = """
import datetime as module, getpass, os, time

real = time.time
time.time = lambda: real() + 400 * 86400


class Later(module.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)


module.datetime = Later
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A clone, and who builds in it."""

    folder: Path
    variables: dict[str, str]
    user: int | None = None
    made_with: str = sys.executable

    @property
    def python(self) -> Path:
        """The Python of the clone's own environment."""
        return self.folder / "clone" / ".venv" / "bin" / "python"


def prepare(place: Place) -> None:
    """Clone the commit that is checked out, and make its environment."""
    place.folder.mkdir(parents=True)
    subprocess.run([GIT, "clone", "--quiet", "--no-hardlinks", ROOT, place.folder / "clone"], check=True)
    uv = [sys.executable, "-m", "uv", "sync", "--quiet", "--frozen", "--no-dev", "--link-mode", "copy"]
    environment = {name: said for name, said in os.environ.items() if name != "VIRTUAL_ENV"}
    extras = ["--extra", "server", "--extra", "serving", "--extra", "features"]
    subprocess.run([*uv, *extras, "--python", place.made_with], cwd=place.folder / "clone", env=environment, check=True)
    if place.user is not None:
        give(place.folder, place.user)


def give(folder: Path, user: int) -> None:
    """Make a folder, and all that is in it, a user's."""
    for each in (folder, *folder.rglob("*")):
        os.chown(each, user, user, follow_symlinks=False)


def build(place: Place, model: Path) -> str:
    """The digest of the bundle that is built there."""
    files = place.folder / "model"
    shutil.copytree(model, files)
    home = place.folder / "home"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place.folder),
        "FAIRLEAD_HOME": str(home),
        "FAIRLEAD_PACKAGE_INDEX": "offline",
        **place.variables,
    }

    def fairlead(*arguments: str) -> str:
        command = [str(place.python), "-m", "fairlead.cli.main", *arguments]
        finished = subprocess.run(
            command, env=environment, cwd=place.folder, user=place.user, capture_output=True, text=True, check=False
        )
        if finished.returncode:
            raise SystemExit(f"{place.folder.name}: {finished.stderr}")
        return finished.stdout

    if place.user is not None:
        give(files, place.user)
    try:
        labels = ["--label", "owner=ana", "--label", "team=growth", "--label", "cost_centre=cc-42"]
        fairlead("model", "register", "churn", str(files), *labels)
        return str(json.loads(fairlead("bundle", "churn/1", "--output", "json"))["digest"])
    finally:
        fairlead("stop")


def version_of(place: Place) -> str:
    """The version of a Python."""
    told = subprocess.run([place.made_with, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.split()[1]


def main() -> None:
    """Build twice, and say what came of it."""
    other_python = python_of(NOBODY) if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="two-clones-") as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        model = root / "model"
        subprocess.run([sys.executable, ROOT / "examples" / "tested_model.py", model], check=True, capture_output=True)
        clock = root / "clock"
        clock.mkdir()
        (clock / "sitecustomize.py").write_text(LATER, encoding="utf-8")
        first = Place(folder=root / "one", variables={"USER": "ana"})
        second = Place(
            folder=root / "a folder of another name" / ".hidden",
            variables={
                "USER": "ben",
                "LOGNAME": "ben",
                "TZ": "Asia/Tokyo",
                "LANG": "C",
                "TMPDIR": "/var/tmp",  # noqa: S108  (another one than the first)
                "PYTHONPATH": str(clock),
                "PYTHONHASHSEED": "7",
                "SOURCE_DATE_EPOCH": "86400",
            },
            user=None if other_python is None else NOBODY,
            made_with=other_python or sys.executable,
        )
        digests: list[str] = []
        for place in (first, second):
            prepare(place)
            digests.append(build(place, model))
    commit = subprocess.run([GIT, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    print(f"commit {commit.stdout.strip()}, {platform.system()} {platform.machine()}")
    print(f"first:  {digests[0]} (Python {version_of(first)})")
    who = "another user by name alone" if second.user is None else "the user nobody"
    print(f"second: {digests[1]} (Python {version_of(second)}, {who})")
    assert digests[0] == digests[1], "the two bundles differ"
    print("equal")


def python_of(user: int) -> str | None:
    """A Python that a user may run: this one, or the system's, which may be of another patch release."""
    for python in (sys.executable, *(f"/usr/bin/python3.{minor}" for minor in (11, 12, 13, 14))):
        try:
            subprocess.run([python, "-c", ""], user=user, cwd="/", capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    return None


if __name__ == "__main__":
    main()
