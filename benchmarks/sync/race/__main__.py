"""Bring four versions of a real model to three emulated clouds, by Fairlead and by what people use otherwise.

    .venv/bin/python -m benchmarks.sync.race [--work .tools/race] [--precision bf16 fp32]

The first run installs the peers below the work folder and trains the model there (some minutes); later ones take what
is there. Everything is sent from one machine to S3 (moto), Google Cloud Storage (gcp-storage-emulator) and Azure Blob
Storage (Azurite) on loopback, each behind a proxy that counts the bytes of TCP payload. Dollars are the catalog's
egress tariffs from aws:us-east-1 to the regions that the emulators stand for. Prints Markdown, and writes
`results.json` and plots into the work folder.

Fairlead's bytes are measured like everybody's, with layouts, manifests and requests. Its time is that of registering
the version in a folder at home and copying to one cloud after the other; that of squeezing a file is without reading
it; the other peers' is that of their programs from start to end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sync.race.clouds import Destination, running_clouds
from benchmarks.sync.race.contestants import VERSIONS, Contestant, Copier, Encoder, Ours, Run
from benchmarks.sync.race.encoder_only import encoder_table
from benchmarks.sync.race.peers import Peers
from benchmarks.sync.race.tables import race_tables, read_back_table, seconds_table, target_lines

HERE = Path(__file__).parent
# Otherwise every question of gcsfs to an emulator waits for a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


def main() -> None:
    """Run the race and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".tools/race"))
    parser.add_argument("--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    options = parser.parse_args()
    precisions: list[str] = options.precision
    began = time.perf_counter()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    peers = Peers(work)
    models = make_models(peers, work / "models")
    print(f"{platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores; {peers.versions()}")
    results = {precision: race(precision, models / precision, peers, work) for precision in precisions}
    for line in race_tables(results):
        print(line)
    print("\n**Fairlead against the best of the others, all three destinations together**\n")
    for line in target_lines(results, Ours.name):
        print(line)
    print("\n**Seconds of copying alone, by destination**\n")
    for line in seconds_table(results, (Ours.name, "rclone")):
        print(line)
    print("\n**Fairlead: reading every byte back at the three destinations, on top**\n")
    for line in read_back_table(results, Ours.name):
        print(line)
    print("\n**Without the embeddings: squeezing alone, nothing sent**\n")
    for line in encoder_table(models / "encoder", precisions, peers, work):
        print(line)
    record = work / "results.json"
    record.write_text(
        json.dumps(
            {
                precision: {
                    version: {name: dataclasses.asdict(run) for name, run in runs.items()}
                    for version, runs in versions.items()
                }
                for precision, versions in results.items()
            },
            indent=1,
        )
    )
    subprocess.run([peers.python, HERE / "plots.py", record, work], check=True)
    print(f"\n{time.perf_counter() - began:.0f} seconds in all", file=sys.stderr)


def make_models(peers: Peers, folder: Path) -> Path:
    """The versions of the model, made once."""
    if not (folder / "complete").exists():
        print(f"training the model's versions below {folder}", file=sys.stderr, flush=True)
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        subprocess.run([peers.python, HERE / "weights.py", folder], check=True, env=environment, stdout=sys.stderr)
        (folder / "complete").touch()
    return folder


def race(precision: str, models: Path, peers: Peers, work: Path) -> dict[str, dict[str, Run]]:
    """Let all contestants push all versions of one precision; runs by version and contestant."""

    def encoder(name: str, method: str, *, has_base: bool = False) -> Encoder:
        return Encoder(name, method, precision, peers=peers, work=work, has_base=has_base)

    contestants: list[Contestant] = [
        Ours(work / "ours"),
        Copier("rclone", peers),
        Copier("aws s3 sync", peers),
        Copier("s5cmd", peers),
        encoder("zstd, rclone", "zstd"),
        encoder("ZipNN, rclone", "zipnn"),
        encoder("XOR + zstd, rclone", "xor", has_base=True),
        encoder("XOR + ZipNN, rclone", "zipnn-delta", has_base=True),
        encoder("zstd --patch-from, rclone", "patch", has_base=True),
        encoder("Xet's method, rclone", "xet"),
    ]
    runs: dict[str, dict[str, Run]] = {version: {} for version in VERSIONS}
    with tempfile.TemporaryDirectory() as logs, running_clouds(Path(logs)) as clouds:
        for contestant in contestants:
            let_push(contestant, models, clouds, runs)
    return runs


def let_push(
    contestant: Contestant, models: Path, clouds: Sequence[Destination], runs: dict[str, dict[str, Run]]
) -> None:
    """Let one contestant push all its versions into buckets of its own, which are dropped afterwards."""
    mine = [cloud for cloud in clouds if cloud.name in contestant.destinations]
    buckets = {cloud.name: cloud.new_bucket() for cloud in mine}
    for version in contestant.versions:
        run = runs[version][contestant.name] = contestant.push(models, version, buckets, mine)
        print(
            f"{models.name} {version} {contestant.name}: {run.sent} {run.seconds:.2f} s {run.cpu_seconds:.2f} CPU-s",
            file=sys.stderr,
            flush=True,
        )
    for cloud in mine:
        cloud.drop(buckets[cloud.name])


if __name__ == "__main__":
    main()
