"""Documents that a person has read: what is written must stay what was read.

With WRITE_GOLDEN=1 in the environment they are written anew, for somebody to read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check_golden(name: str, written: Mapping[str, str]) -> None:
    """Compare all the files of one set, by path below it."""
    folder = FOLDER / name
    if os.environ.get("WRITE_GOLDEN") == "1":
        for path, text in written.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    kept = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert sorted(kept) == sorted(written)
    for path, text in written.items():
        assert kept[path].read_text(encoding="utf-8") == text, path
