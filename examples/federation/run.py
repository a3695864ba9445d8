"""Three regions of three clouds, each a process of its own, joined into one training set; then one of them is killed.

    python examples/federation/run.py

Run it from a checkout after `make install`. Everything is on loopback: a server that stands for S3, a PostgreSQL
cluster, a DuckDB file, the registry, and a feature agent for each region. Nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import pandas as pd  # noqa: E402  (after the path)
from make_sources import START, fill_bucket, fill_duckdb, fill_postgres  # noqa: E402

import fairlead  # noqa: E402
from fairlead.cli.features_federation import describe_plan, label  # noqa: E402
from fairlead.core.errors import AgentUnavailable, ResidencyViolation  # noqa: E402
from tests.servers.object_stores import moto_server  # noqa: E402
from tests.servers.postgres import postgres_server  # noqa: E402

US, EU, WEST = "aws:us-east-1", "gcp:europe-west4", "azure:westeurope"


def main() -> None:
    """Start everything, read, lose a region, and read again."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fairlead-federation-")))
        sources = start_sources(stack, folder)
        # The registry's worker takes the snapshots; an agent can reach the source of its own region and no other.
        url, token = start_registry(
            stack, folder, {name: each for own in sources.values() for name, each in own.items()}
        )
        os.environ |= {"FAIRLEAD_URL": url, "FAIRLEAD_TOKEN": token}
        agents = {region: start_agent(stack, folder, region, own) for region, own in sources.items()}
        for agent in agents.values():
            print(read_until(agent, "The feature agent of"))
        # The reader needs the names of the sources, to apply the repository, and none of the keys to them.
        os.environ |= {
            name: sources[region][name] for region, name in ((US, "PAYMENTS_BUCKET"), (WEST, "VISITS_DATABASE"))
        }
        os.environ["FAIRLEAD_REGION"] = WEST
        client = stack.enter_context(contextlib.closing(fairlead.connect(url, token=token, home=folder / "reader")))

        say("Each region's views, and how a model's features would be read by a client in azure:westeurope")
        client.features.apply(HERE / "repo")
        for service in ("credit", "marketing"):
            snapshot = client.features.snapshot(service)
            for part in snapshot.artifacts:
                wait_for_replicas(client, part["digest"], part["residency"])
        customers = entity_rows()
        show_plan(client, customers)

        say("The training set: every row kept, in its place, with what was known at its time")
        read = client.federation.get_historical_features(customers, service="credit")
        print(read.frame().head(5).to_string(index=False))
        show_hops(read)

        say("The same from the sources themselves, up to now")
        live = client.federation.get_historical_features(customers, service="credit", live=True)
        print(f"The same rows: {read.frame().equals(live.frame())}")

        say("Entity rows that may not leave the EU: refused before anything is sent")
        try:
            client.federation.get_historical_features(customers, service="credit", residency="eu")
        except ResidencyViolation as refused:
            print(f"{refused.code}: {refused.detail}")

        say(f"The process of {US} is killed")
        agents[US].kill()
        agents[US].wait()
        for policy in ("error", "stale", "missing"):
            print(f"--on-unavailable {policy}")
            show_without(client, customers, policy)

        say("What crossed the clouds, as the ledger has it")
        show_ledger(client)


def start_sources(stack: contextlib.ExitStack, folder: Path) -> dict[str, dict[str, str]]:
    """A bucket, a PostgreSQL database and a DuckDB file with rows; by region, the environment that leads to its own."""
    bucket = stack.enter_context(moto_server(folder))
    database = stack.enter_context(postgres_server(folder))
    url = bucket.new_bucket()
    fill_bucket(url, bucket.options)
    fill_postgres(database.admin_url)
    visits = folder / "westeurope" / "visits.duckdb"
    visits.parent.mkdir()
    fill_duckdb(visits)
    return {
        US: {
            "PAYMENTS_BUCKET": url,
            "AWS_ENDPOINT_URL": bucket.options["endpoint_url"],
            "AWS_ACCESS_KEY_ID": bucket.options["key"],
            "AWS_SECRET_ACCESS_KEY": bucket.options["secret"],
        },
        EU: {"FAIRLEAD_FEATURE_CONNECTIONS": f'{{"ledger": "{database.admin_url}"}}'},
        WEST: {"VISITS_DATABASE": str(visits), "FAIRLEAD_FEATURE_SOURCE_ROOTS": str(visits.parent)},
    }


def start_registry(stack: contextlib.ExitStack, folder: Path, environment: Mapping[str, str]) -> tuple[str, str]:
    """The registry with a worker, and a folder as the storage of each region; its address and the owner's token."""
    settings = {**os.environ, **environment, "FAIRLEAD_HOME": str(folder / "registry"), "FAIRLEAD_JURISDICTION": "EU"}
    fairlead_command("db", "upgrade", environment=settings)
    process = start(stack, folder / "registry.log", settings, "server", "--port", "0")
    token = read_until(process, "The owner's token").rpartition(" ")[2]
    url = read_until(process, "Fairlead answers at").split()[3].rstrip(";")
    with contextlib.closing(fairlead.connect(url, token=token, home=folder / "setup")) as client:
        for region in (US, EU, WEST):
            place = folder / "storage" / region.partition(":")[2]
            place.mkdir(parents=True)
            client.locations.add(region.partition(":")[2], region=region, url=place.as_uri())
    return url, token


def start_agent(
    stack: contextlib.ExitStack, folder: Path, region: str, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    """The feature agent of a region, in a process of its own."""
    name = region.partition(":")[2]
    settings = {**os.environ, **environment, "FAIRLEAD_HOME": str(folder / name), "FAIRLEAD_REGION": region}
    return start(stack, folder / f"{name}.log", settings, "agent", "serve", "--region", region, "--port", "0")


def start(stack: contextlib.ExitStack, log: Path, environment: Mapping[str, str], *words: str) -> subprocess.Popen[str]:
    """A process of `fairlead` that ends when this one does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fairlead.cli.main", *words],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=stack.enter_context(log.open("w")),
        text=True,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    """The first line of a process that begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line.strip()
    sys.exit(f"A process ended before it said: {beginning}")


def fairlead_command(*words: str, environment: Mapping[str, str]) -> None:
    """One command of `fairlead`."""
    subprocess.run([sys.executable, "-m", "fairlead.cli.main", *words], env=dict(environment), check=True)


def wait_for_replicas(client: Any, digest: str, residency: str) -> None:
    """Until every region that may has its own copy of an artifact."""
    expected = {EU, WEST} if residency == "eu" else {US, EU, WEST}
    deadline = time.monotonic() + 60
    while {each.region for each in client.artifacts.get(digest).replicas if each.state == "VERIFIED"} != expected:
        if time.monotonic() > deadline:
            sys.exit(f"{digest} was not copied in time")
        time.sleep(0.2)


def entity_rows() -> pd.DataFrame:
    """Who is asked about, when, and what became of them: the label goes nowhere."""
    rows = range(1000)
    return pd.DataFrame(
        {
            "customer_id": [1 + number * 7 % 220 for number in rows],
            "event_timestamp": [START + pd.Timedelta(days=7 + number % 50) for number in rows],
            "defaulted": [number % 11 == 0 for number in rows],
        }
    )


def show_plan(client: Any, customers: pd.DataFrame) -> None:
    """The plan, as `fairlead features get-historical credit --explain` shows it."""
    import pyarrow as pa

    table = pa.Table.from_pandas(customers, preserve_index=False)
    print(describe_plan(client.federation.plan(table, service="credit")))


def show_hops(read: Any) -> None:
    """What crossed, beside what was planned."""
    for hop in read.hops:
        print(
            f"  {hop.region:<18} {', '.join(hop.views):<10} {hop.outcome}: {hop.bytes_out} bytes out, {hop.bytes_back} "
            f"back (planned {hop.planned_back})"
        )


def show_without(client: Any, customers: pd.DataFrame, policy: str) -> None:
    """What a read gives while a region is away."""
    try:
        read = client.federation.get_historical_features(customers, service="marketing", on_unavailable=policy)
    except AgentUnavailable as error:
        print(f"  {error.code}: {error.detail}")
        return
    known = int(read.frame()["paid_30d"].notna().sum())
    print(f"  {len(read.frame())} rows, {known} of them with paid_30d")
    for line in labels(read):
        print(f"  {line}")


def labels(read: Any) -> Iterator[str]:
    """What is said of each hop that was not joined in its region."""
    return (label(hop) for hop in read.hops if hop.outcome != "joined")


def show_ledger(client: Any) -> None:
    """The ledger's rows of federated reads, once the agents have told of them."""
    deadline = time.monotonic() + 30
    rows: list[Any] = []
    # A snapshot read and a live one, in two regions, there and back.
    while len(rows) < 8 and time.monotonic() < deadline:
        time.sleep(0.2)
        rows = [row for row in client.ledger.list(kind="federate") if row.source_region != row.region]
    for row in rows:
        print(f"  {row.source_region:<18} -> {row.region:<18} {row.moved_bytes:>8} bytes  ${row.actual_usd}")


def say(text: str) -> None:
    """A headline."""
    print(f"\n== {text} ==", flush=True)


if __name__ == "__main__":
    main()
