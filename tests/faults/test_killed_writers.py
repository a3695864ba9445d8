"""Kill -9 at every step of writing, uploading and committing ends in the same digests, with nothing lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.core.errors import ObjectNotFound
from fairlead.sync.store.local import LocalStore
from fairlead.sync.store.manifest import build_manifest
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact
from tests.faults import killed_store
from tests.faults.killed_store import DOMAIN, PACK_BYTES, act

FILES = {f"{index}.bin": os.urandom(200_000) for index in range(3)} | {"config.json": b"{}"}


def _stored_bytes(location: Path) -> int:
    objects = (path for path in location.rglob("*") if path.is_file() and not path.name.startswith(".fairlead-tmp-"))
    return sum(path.stat().st_size for path in objects)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["write", "copy"])
def test_a_killed_process_is_finished_by_another_run_whenever_it_died(tmp_path: Path, what: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, body in FILES.items():
        (source / name).write_bytes(body)
    digest = build_manifest(source).digest
    write_artifact(LocalStore(tmp_path / "from", create=True), DOMAIN, source, pack_bytes=PACK_BYTES)
    root = Path(__file__).parents[2]
    finished = subprocess.run(
        [sys.executable, killed_store.__file__, what, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    runs, code = map(int, finished.stdout.split())
    assert code == 0
    assert runs > 15
    whole = _stored_bytes(tmp_path / str(runs))
    for number in range(1, runs):
        location = tmp_path / str(number)
        store = LocalStore(location, create=True)
        with contextlib.suppress(ObjectNotFound):
            # What is there before all is there is not seen, or is all there.
            ArtifactReader.open(store, DOMAIN, digest).verify()
        before = {path: path.stat().st_mtime_ns for path in location.rglob("*.pack")}
        act(what, tmp_path, location)
        reader = ArtifactReader.open(store, DOMAIN, digest)
        reader.verify()
        assert {path: reader.read_file(path) for path in FILES} == FILES
        assert {path: path.stat().st_mtime_ns for path in before} == before, "a pack was sent twice"
        assert _stored_bytes(location) == whole
