"""Unpacks the wheels of a bundle's lock for one platform, as data: no code of a package runs, and nothing is built.

uv picks the wheel of each package that fits the platform and has one of the lock's hashes, and lays its files out.
"""

from __future__ import annotations

from pathlib import Path

from fairlead.core.errors import InvalidInput, Unavailable
from fairlead.serving.requirements import parse_lock, run_uv

_PLATFORMS = {"linux/amd64": "x86_64-unknown-linux-gnu", "linux/arm64": "aarch64-unknown-linux-gnu"}
_SECONDS = 900.0


def unpack_wheels(lock: str, destination: Path, *, platform: str, python: str, index: str | None) -> None:
    """Unpack every package of a lock (with its hashes) below `destination`, for a Python on a platform.

    Raises:
        InvalidInput: if the lock has a line without hashes, or a package has no wheel for the platform.
        Unavailable: if the package index does not answer.
    """
    # Written anew: of a text that reads as a lock, uv may take more for options than was looked at.
    read = parse_lock(lock)
    destination.mkdir(parents=True, exist_ok=True)
    requirements = destination.with_suffix(".txt")
    requirements.write_text(read.text, encoding="utf-8")
    command = ["pip", "install", "--target", str(destination), "--requirements", str(requirements)]
    command += ["--require-hashes", "--no-deps", "--no-build", "--no-compile-bytecode", "--link-mode", "hardlink"]
    command += ["--quiet", "--python-version", python, "--python-platform", _PLATFORMS[platform]]
    result = run_uv(command, index=index, seconds=_SECONDS)
    requirements.unlink()
    if result.returncode:
        said = result.stderr.replace(str(destination), "").strip()[-1000:]
        if "no wheels" in said or "no matching" in said or "Hash mismatch" in said or "No solution" in said:
            raise InvalidInput(
                f"The bundle's lock cannot be unpacked for {platform}: {said}",
                hint="Pin packages that have wheels for this platform, and build the bundle again.",
            )
        raise Unavailable(f"The wheels of the bundle did not come: {said}", hint="It is tried again by itself.")
