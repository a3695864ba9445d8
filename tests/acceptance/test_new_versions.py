"""A second `register` sends the difference, unasked; and an artifact crosses an air gap as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from tests.acceptance.command_line import LABELS, CommandLine, leave_nothing, write_folder

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model of 1 MB, and the same one fine-tuned."""
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.02, (512, 512)).astype(np.float32)
    tuned = (weights * (1 + rng.normal(0, 1e-4, weights.shape))).astype(np.float32)
    root = tmp_path_factory.mktemp("versions")
    return [
        write_folder(root / name, {"model.safetensors": save({"layer": values})})
        for name, values in (("first", weights), ("second", tuned))
    ]


def test_a_fine_tuned_version_is_sent_as_the_difference_and_read_back_whole(
    fairlead: CommandLine, versions: list[Path], tmp_path: Path
) -> None:
    first: dict[str, Any] = fairlead.json("model", "register", "tuned", versions[0], *LABELS)
    second: dict[str, Any] = fairlead.json("model", "register", "tuned", versions[1])
    assert first["upload"]["delta_blocks"] == 0
    assert second["upload"]["delta_blocks"] == 1
    assert second["upload"]["base"] == first["artifact_digest"]
    assert second["upload"]["sent_bytes"] < 0.6 * first["upload"]["sent_bytes"]
    fairlead("model", "where", "tuned/2", "--wait")
    fairlead("model", "verify", "tuned/2")
    fairlead("model", "download", "tuned/2", tmp_path / "copy")
    name = "model.safetensors"
    assert (tmp_path / "copy" / name).read_bytes() == (versions[1] / name).read_bytes()


def test_an_artifact_crosses_an_air_gap_as_one_file(
    fairlead: CommandLine, versions: list[Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    digest = fairlead.json("model", "register", "carried", versions[1], *LABELS)["artifact_digest"]
    file = tmp_path / "carried.fairlead"
    exported = fairlead.json("artifact", "export", "carried/1", file)
    assert (exported["artifact_digest"], exported["size_bytes"]) == (digest, file.stat().st_size)
    assert fairlead.json("verify", file)[0]["verdict"] == "verified"
    assert fairlead.json("verify", versions[1], "--digest", digest)[0]["verdict"] == "verified"

    there = CommandLine(home=tmp_path_factory.mktemp("there") / "home")
    try:
        assert there.json("artifact", "import", file, "--dry-run")["artifact_digest"] == digest
        version = there.json("artifact", "import", file, "--model", "carried", *LABELS)
        assert (version["artifact_digest"], version["state"]) == (digest, "READY")
    finally:
        leave_nothing(there.home)

    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)
    answer = fairlead("verify", file, "--output", "json", code=7)
    assert answer.json[0]["verdict"] in {"corrupt-block", "corrupt-pack"}
    fairlead("verify", tmp_path / "nothing", code=2)
