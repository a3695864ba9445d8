"""Feast is imported without compiling its type checks, and makes them all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
import typeguard
from fairlead.core.errors import FairleadError
from fairlead.sdk.feast_objects import load_repository

checked, folder = typeguard.typechecked, Path.cwd()
try:
    print(load_repository(folder).objects)
except FairleadError as error:
    print(error)
assert typeguard.typechecked is checked
# What is defined by hand in the same process is checked too, each time.
import feast
for _ in range(2):
    try:
        feast.FileSource(name=1, path="rows.parquet")
    except typeguard.TypeCheckError as error:
        print(error)
assert feast.Entity(name="b", value_type=feast.ValueType.INT64).to_proto().spec.name == "b"
"""


def run(folder: Path, definitions: str) -> list[str]:
    (folder / "feature_store.yaml").write_text("project: p\nprovider: local\nregistry: registry.db\n")
    (folder / "definitions.py").write_text(definitions)
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True, cwd=folder, timeout=100
    )
    return finished.stdout.splitlines()


def test_a_definition_is_checked_when_it_is_made(tmp_path: Path) -> None:
    refused, *by_hand = run(tmp_path, "from feast import Entity\nEntity(name='a', tags='none')\n")
    assert "TypeCheckError" in refused
    assert 'argument "tags" (str)' in refused
    assert len([line for line in by_hand if 'argument "name" (int)' in line]) == 2
