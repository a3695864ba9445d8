"""A byte that changed on disk is refused, never served, told of, and mended from another region."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.command_line import LABELS, CommandLine, write_folder
from tests.acceptance.world import REGIONS
from tests.serving.models import model_files

pytestmark = pytest.mark.timeout(180)

DAMAGED_REGION = "gcp:europe-west4"
PARTS = ("packs/*/*.pack", "layouts/*/*.json.gz", "manifests/*.json")


@pytest.fixture(scope="module")
def model(fairlead: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The files of a model that is VERIFIED in three regions, and its digest. It is the home's only artifact."""
    folder = write_folder(tmp_path_factory.mktemp("model"), model_files(0.5, 0.25, 0.125, extra_bytes=300_000))
    version = fairlead.json("model", "register", "churn", folder, *LABELS)
    fairlead("model", "where", "churn/1", "--wait")
    return folder, version["artifact_digest"]


@pytest.mark.parametrize("part", PARTS)
def test_a_download_passes_over_a_damaged_replica_which_is_then_mended(
    fairlead: CommandLine, model: tuple[Path, str], part: str, tmp_path: Path
) -> None:
    folder, digest = model
    before = states(fairlead, "churn/1")
    flip_bits(fairlead.home / "locations" / "gcp-europe-west4", part)
    reports = len(fairlead.json("audit", "--action", "replica.report"))

    there = fairlead.as_(FAIRLEAD_REGION=DAMAGED_REGION)
    there("model", "download", "churn/1", tmp_path / "copy")
    assert read_folder(tmp_path / "copy") == read_folder(folder)
    assert len(fairlead.json("audit", "--action", "replica.report")) == reports + 1

    fairlead("model", "where", "churn/1", "--wait")
    after = states(fairlead, "churn/1")
    assert {each["state"] for each in after.values()} == {"VERIFIED"}
    assert after[DAMAGED_REGION]["verified_at"] > before[DAMAGED_REGION]["verified_at"]
    assert fairlead.json("model", "show", "churn/1")["artifact_digest"] == digest
    assert_whole(fairlead, "churn/1")


@pytest.mark.usefixtures("model")
def test_verify_finds_the_damage_says_where_and_has_it_mended(fairlead: CommandLine) -> None:
    flip_bits(fairlead.home / "locations" / "gcp-europe-west4", PARTS[0])
    answer = fairlead("model", "verify", "churn/1", "--output", "json", code=7)
    verdicts = {row["region"]: row["verdict"] for row in answer.json}
    assert verdicts.pop(DAMAGED_REGION) in {"corrupt-block", "corrupt-pack"}
    assert set(verdicts.values()) == {"verified"}
    assert answer.problem["type"] == "urn:fairlead:error:partial-failure"
    fairlead("model", "where", "churn/1", "--wait")
    assert_whole(fairlead, "churn/1")
    assert {entry["region"] for entry in fairlead.json("ledger", "--kind", "repair")} == {DAMAGED_REGION}


def test_with_every_replica_damaged_nothing_is_served_and_good_bytes_bring_all_back(
    fairlead: CommandLine, model: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = model
    damaged: dict[Path, bytes] = {}
    for region in REGIONS:
        damaged |= flip_bits(fairlead.home / "locations" / region.replace(":", "-"), PARTS[0])
    problem = fairlead.refused("model", "download", "churn/1", tmp_path / "copy", code=1)
    assert problem["type"] == "urn:fairlead:error:replica-unavailable"
    assert all(region in problem["detail"] for region in REGIONS)
    assert list(tmp_path.iterdir()) == []

    # Somebody finds the bytes of one region in a backup; the others come from there.
    for file, data in damaged.items():
        if "aws-us-east-1" in file.parts:
            file.write_bytes(data)
    fairlead("model", "where", "churn/1", "--wait")
    assert_whole(fairlead, "churn/1")
    fairlead("model", "download", "churn/1", tmp_path / "copy")
    assert read_folder(tmp_path / "copy") == read_folder(folder)


def test_a_new_version_never_builds_on_a_damaged_block(
    fairlead: CommandLine, model: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = model
    flip_bits(fairlead.home / "locations" / "gcp-europe-west4", PARTS[0])
    changed = write_folder(tmp_path / "model", read_folder(folder) | {"requirements.txt": b"numpy\n"})
    version = fairlead.json("model", "register", "churn", changed)
    # The weights are not sent again, so the second version shares the block that nobody has met yet.
    assert version["sent_bytes"] < 50_000
    fairlead("model", "where", version["reference"], "--wait")
    assert_whole(fairlead, version["reference"])
    there = fairlead.as_(FAIRLEAD_REGION=DAMAGED_REGION)
    there("model", "download", version["reference"], tmp_path / "copy")
    assert read_folder(tmp_path / "copy") == read_folder(changed)


def flip_bits(folder: Path, pattern: str) -> dict[Path, bytes]:
    """Change one bit in the middle of every file that fits; what the files held."""
    held = {file: file.read_bytes() for file in folder.rglob(pattern)}
    assert held, f"no {pattern} in {folder}"
    for file, data in held.items():
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 1
        file.write_bytes(changed)
    return held


def assert_whole(fairlead: CommandLine, reference: str) -> None:
    """Every byte of every replica reads back. (A damaged pack may still lie there, used by nobody.)"""
    rows = fairlead.json("model", "verify", reference)
    assert {row["region"]: row["verdict"] for row in rows} == dict.fromkeys(REGIONS, "verified")


def states(fairlead: CommandLine, reference: str) -> dict[str, dict[str, Any]]:
    return {row["region"]: row for row in fairlead.json("model", "where", reference)}


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
