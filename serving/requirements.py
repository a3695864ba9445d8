"""Locks what a bundle needs: exact versions with the sha256 of their wheels, for one Python on one platform.

The roots are the model's own requirements and what the service itself imports. Where this release was tested with all
of them, the lock is read from the release's own (`bundled/uv.lock`): that asks nobody, and gives the same on every
machine. Where a model wants something else, uv asks the package index, keeps to the release's versions where it can,
and builds nothing: to build a source distribution is to run its code. A lock that is given is taken as it is.

MLflow is left out unless the model is loaded through it: most models need only their own library.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from fairlead.core.errors import InvalidInput, MissingExtra, Unavailable
from fairlead.core.ids import Digest, sha256_digest

SERVICE_REQUIREMENTS = ("bentoml", "numpy", "opentelemetry-exporter-otlp-proto-http", "pandas", "pyyaml")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""The Pythons that a lock can be for."""

LOCK_MAX_BYTES = 2 * 2**20
OFFLINE = "offline"
"""The package index of a worker that must ask none."""

_MLFLOW = frozenset({"mlflow", "mlflow-skinny", "mlflow-tracing"})
_PLATFORM = "x86_64-unknown-linux-gnu"
_INDEX_SECONDS = 120
_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+_-]+)(?P<hashes>(?: --hash=\S+)+)")
_COMMENT = re.compile(r"(?m)^[ \t]*#.*$")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_SECRET = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPackage:
    """One package. `hashes` are `sha256:...` of the wheels that may be installed, sorted."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Everything that is installed for a bundle, sorted by name. `source` says where its hashes are from."""

    packages: tuple[LockedPackage, ...]
    source: Literal["release", "index", "given"]

    @property
    def pins(self) -> list[str]:
        """`name==version` for each package."""
        return [f"{each.name}=={each.version}" for each in self.packages]

    @property
    def text(self) -> str:
        """The lock as a requirements file that pip and uv take with `--require-hashes`."""
        lines = (
            " \\\n    ".join([f"{each.name}=={each.version}", *(f"--hash={found}" for found in each.hashes)])
            for each in self.packages
        )
        return "".join(f"{line}\n" for line in lines)

    @property
    def digest(self) -> Digest:
        """The sha256 of the text."""
        return sha256_digest(self.text.encode())


def lock_requirements(
    model_requirements: Iterable[str],
    *,
    needs_mlflow: bool,
    libraries: Iterable[str] = (),
    python: str = PYTHONS[0],
    index: str | None = None,
) -> Lock:
    """The lock of what the model asks for, what the service needs, and everything that those depend on.

    Args:
        model_requirements: lines of a requirements file. The model's own exact pin is kept, whatever the release has.
        needs_mlflow: whether the model is loaded through MLflow.
        libraries: what loads the model, for one that does not list it.
        python: one of `PYTHONS`.
        index: URL of a package index; None: the one that uv is configured for; `OFFLINE`: none is asked.

    Raises:
        InvalidInput: if a line of the model is no requirement or names a package by URL, or nothing satisfies all.
        Unavailable: if an index is needed and does not answer, or must not be asked.
    """
    wanted = [Requirement(name) for name in SERVICE_REQUIREMENTS]
    wanted += [_without_mlflow_ui(each) for each in _parse(model_requirements) if needs_mlflow or not _is_mlflow(each)]
    named = {canonicalize_name(each.name) for each in wanted}
    if "xgboost-cpu" in named:
        # MLflow lists both, and the other one would put its own files, and CUDA's, in the same place.
        wanted = [each for each in wanted if canonicalize_name(each.name) != "xgboost"]
    wanted += [Requirement(name) for name in libraries if canonicalize_name(name) not in named]
    if needs_mlflow and "mlflow-skinny" not in named:
        wanted.append(Requirement("mlflow-skinny"))
    packages = _from_release(wanted, python)
    if packages is not None:
        return Lock(packages=packages, source="release")
    if index == OFFLINE:
        strange = ", ".join(sorted({str(each) for each in wanted if not _release_has(each, python)})) or "a combination"
        raise Unavailable(
            f"This release's own lock does not hold {strange}, and no package index may be asked.",
            hint="Build it where FAIRLEAD_PACKAGE_INDEX is not offline, or give a lock: fairlead bundle REFERENCE "
            "--lock FILE",
        )
    return Lock(packages=_from_index(wanted, python, index), source="index")


def parse_lock(text: str, *, source: Literal["index", "given"] = "given") -> Lock:
    """Read a requirements file in which every package has an exact version and sha256 hashes, and nothing else is.

    Raises:
        InvalidInput: naming the line that is something else.
    """
    packages: dict[str, LockedPackage] = {}
    # A comment ends with its line, whatever it ends with: what stands below it would be hidden in it.
    for line in _COMMENT.sub("", text).replace("\\\n", " ").splitlines():
        plain = " ".join(line.split(" #", 1)[0].split())
        if not plain or plain.startswith("#"):
            continue
        found = _LINE.fullmatch(plain)
        hashes = [] if found is None else [each.removeprefix("--hash=") for each in found["hashes"].split()]
        name = "" if found is None else canonicalize_name(found["name"])
        if found is None or name in packages or not all(_HASH.fullmatch(each) for each in hashes):
            raise InvalidInput(
                f"The lock's line {plain[:120]!r} is no `name==version --hash=sha256:...`, or its package is there "
                "twice.",
                hint="Make one with: uv pip compile --generate-hashes --no-build requirements.in",
            )
        packages[name] = LockedPackage(name=name, version=found["version"], hashes=tuple(sorted(set(hashes))))
    if not packages:
        raise InvalidInput("The lock names no package.")
    return Lock(packages=tuple(packages[name] for name in sorted(packages)), source=source)


@cache
def release_lock() -> bytes:
    """The lock that this release was tested with, as uv writes it."""
    return (resources.files("fairlead.serving.bundled") / "uv.lock").read_bytes()


@cache
def _release() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """The packages of the release's lock by name: several versions of one where Pythons differ."""
    packages: dict[str, list[Mapping[str, Any]]] = {}
    for each in tomllib.loads(release_lock().decode())["package"]:
        packages.setdefault(str(each["name"]), []).append(cast("Mapping[str, Any]", each))
    return packages


def _environment(python: str, extra: str = "") -> dict[str, str]:
    # The patch release is that of nobody's machine; hardly a marker looks at it.
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.9",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.9",
        "python_version": python,
        "sys_platform": "linux",
        "extra": extra,
    }


def _applies(marker: str | None, python: str) -> bool:
    return marker is None or Marker(marker).evaluate(_environment(python))


def _candidate(name: str, python: str, version: str | None = None) -> Mapping[str, Any] | None:
    """The release's version of a package on a Python."""
    for each in _release().get(name, ()):
        markers = cast("list[str]", each.get("resolution-markers", []))
        is_for = not markers or any(_applies(marker, python) for marker in markers)
        if (version == each["version"] if version is not None else is_for) and each.get("wheels"):
            return each
    return None


def _release_has(requirement: Requirement, python: str) -> bool:
    found = _candidate(canonicalize_name(requirement.name), python)
    return found is not None and requirement.specifier.contains(found["version"], prereleases=True)


def _from_release(wanted: Sequence[Requirement], python: str) -> tuple[LockedPackage, ...] | None:
    """The closure of what is wanted, or None where the release has not all of it."""
    locked: dict[str, LockedPackage] = {}
    seen: set[tuple[str, str]] = set()
    pending: list[tuple[str, str | None, frozenset[str]]] = []
    for each in wanted:
        if each.marker is not None and not each.marker.evaluate(_environment(python)):
            continue
        if not _release_has(each, python):
            return None
        pending.append((canonicalize_name(each.name), None, frozenset(each.extras)))
    while pending:
        name, version, extras = pending.pop()
        package = _candidate(name, python, version)
        if package is None:
            return None
        hashes = _hashes_for(package, python)
        if not hashes:
            return None
        locked[name] = LockedPackage(name=name, version=str(package["version"]), hashes=hashes)
        optional = cast("Mapping[str, Any]", package.get("optional-dependencies", {}))
        for extra in ("", *sorted(extras)):
            if (name, extra) not in seen:
                seen.add((name, extra))
                found = optional.get(extra, []) if extra else package.get("dependencies", [])
                pending += [
                    (str(each["name"]), each.get("version"), frozenset(cast("list[str]", each.get("extra", []))))
                    for each in found
                    if _applies(each.get("marker"), python)
                ]
    return tuple(locked[name] for name in sorted(locked))


def _hashes_for(package: Mapping[str, Any], python: str) -> tuple[str, ...]:
    """The hashes of the wheels that this Python can install, on any platform."""
    minor = int(python.partition(".")[2])
    found: set[str] = set()
    for wheel in package["wheels"]:
        try:
            tags = parse_wheel_filename(str(wheel["url"]).rpartition("/")[2])[3]
        except InvalidWheelFilename:
            continue
        for tag in tags:
            number = re.fullmatch(r"(?:cp|py)3(\d*)", tag.interpreter)
            is_exact = number is not None and number[1] == str(minor) and tag.abi in {f"cp3{minor}", "none", "abi3"}
            is_older = number is not None and int(number[1] or 0) <= minor and tag.abi in {"none", "abi3"}
            if is_exact or is_older:
                found.add(str(wheel["hash"]))
    return tuple(sorted(found))


def _from_index(wanted: Sequence[Requirement], python: str, index: str | None) -> tuple[LockedPackage, ...]:
    with tempfile.TemporaryDirectory(prefix="fairlead-lock-") as scratch:
        roots, locked = Path(scratch) / "requirements.in", Path(scratch) / "requirements.txt"
        roots.write_text("".join(f"{each}\n" for each in wanted), encoding="utf-8")
        # What stands in the file is kept to where it can be.
        preferred = (_candidate(name, python) for name in sorted(_release()))
        locked.write_text(
            "".join(f"{each['name']}=={each['version']}\n" for each in preferred if each is not None), encoding="utf-8"
        )
        command = ["pip", "compile", str(roots), "--output-file", str(locked), "--generate-hashes"]
        command += ["--no-build", "--no-header", "--no-annotate", "--quiet", "--python-version", python]
        result = run_uv([*command, "--python-platform", _PLATFORM], index=index, seconds=_INDEX_SECONDS)
        if result.returncode:
            said = result.stderr.replace(f"{scratch}/", "").strip()[-1500:]
            if "No solution found" in said or "Failed to parse" in said:
                raise InvalidInput(
                    f"The model's requirements cannot be locked: {said}",
                    hint="Register the version again with other pip requirements, or give a lock: fairlead bundle "
                    "REFERENCE --lock FILE",
                )
            raise Unavailable(
                f"The package index did not lock the model's requirements: {said}",
                hint="See FAIRLEAD_PACKAGE_INDEX, or give a lock: fairlead bundle REFERENCE --lock FILE",
            )
        return parse_lock(locked.read_text(encoding="utf-8"), source="index").packages


def run_uv(command: Sequence[str], *, index: str | None, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run uv with the settings of this machine's package indexes, and none of ours. What it says names no secret.

    Raises:
        Unavailable: if it takes longer than `seconds`.
        MissingExtra: if it is not installed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FAIRLEAD_", "VIRTUAL_"))}
    if index == OFFLINE:
        environment["UV_OFFLINE"] = "1"
    elif index is not None:
        environment["UV_DEFAULT_INDEX"] = index
    try:
        result = subprocess.run(
            [sys.executable, "-m", "uv", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"uv did not finish within {seconds:g} s.", hint="See FAIRLEAD_PACKAGE_INDEX.") from None
    if "No module named uv" in result.stderr:
        raise MissingExtra("uv is not installed here.", hint="Install it with: pip install 'fairlead[serving]'")
    result.stderr = _SECRET.sub("", result.stderr)
    return result


def _is_mlflow(requirement: Requirement) -> bool:
    return canonicalize_name(requirement.name) in _MLFLOW


def _without_mlflow_ui(requirement: Requirement) -> Requirement:
    """MLflow without its server and console, which no bundle needs."""
    if canonicalize_name(requirement.name) != "mlflow":
        return requirement
    return Requirement(f"mlflow-skinny{SpecifierSet(str(requirement.specifier))}")


def _parse(lines: Iterable[str]) -> Iterable[Requirement]:
    for line in lines:
        text = line.split("#", 1)[0].strip()
        if not text or text.startswith("-"):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            raise InvalidInput(
                f"{text[:120]!r} in the model's requirements.txt is no requirement.",
                hint="Register the version again with valid pip requirements.",
            ) from None
        if requirement.url:
            raise InvalidInput(
                f"The model's requirement {requirement.name!r} names a URL, which no lock can hold.",
                hint="Publish the package to an index, or ship its code with the model.",
            )
        yield requirement
