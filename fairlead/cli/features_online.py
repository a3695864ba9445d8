"""`fairlead features serve`, `servers`, `check` and `skew`: feature servers, and whether what they serve is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.features import app
from fairlead.core.errors import ExitCode

if TYPE_CHECKING:
    from fairlead.cli.output import Output
    from fairlead.sdk.online_checks import OnlineCheck

servers = group("Feature servers that clients find by themselves.")

_COLUMNS = ["id", "region", "url", "is_alive", "seen_at"]


@command(app, "serve")
def serve(
    *,
    region: Annotated[str, typer.Option(help="Region whose online stores are on this machine, or in its Redis.")],
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.")] = 6566,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    url: Annotated[str | None, typer.Option(help="Address that clients are told; none: where it listens.")] = None,
    run_code: Annotated[bool, typer.Option("--run-code", help="Run code of on-demand views in this process.")] = False,
    log_features: Annotated[
        float, typer.Option(min=0, max=1, help="Share of answers that are noted, for `features skew`.")
    ] = 0.0,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file of the certificate and its chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    offline_seconds: Annotated[
        float, typer.Option(min=0, help="How long a known token goes on while the registry is away.")
    ] = 3600,
) -> None:
    """Serve a region's online features over HTTP, as `feast serve` does; until SIGTERM."""
    from fairlead.app.feature_http import Serving, serve_features
    from fairlead.app.settings import ServerSettings

    with connected() as (client, _):
        serving = Serving(
            region=region,
            host=host,
            port=port,
            url=url,
            run_code=run_code,
            log_features=log_features,
            certificate=tls_certificate,
            key=tls_key,
            offline_seconds=offline_seconds,
        )
        serve_features(client, ServerSettings.read(), serving)


@command(servers, "list")
def list_() -> None:
    """List feature servers, and whether they were heard of lately."""
    with connected() as (client, output):
        output.table(client.features.servers.list(), _COLUMNS)


@command(servers, "add", has_dry_run=True)
def add(
    url: Annotated[str, typer.Argument(help="Where it answers: https://HOST:PORT.")],
    *,
    region: Annotated[str, typer.Option(help="Region that it serves.")],
) -> None:
    """List a feature server; clients send their tokens to it."""
    with connected() as (client, output):
        output.record(client.features.servers.register(region=region, url=url), name="id")


@command(servers, "remove", has_dry_run=True)
def remove(server: Annotated[str, typer.Argument(help="Id of the server.")]) -> None:
    """Take a feature server off the list."""
    with connected() as (client, output):
        client.features.servers.remove(server)
        output.message(f"{server} is off the list.")


_Service = Annotated[str, typer.Argument(help="Name of the feature service.", metavar="SERVICE")]
_Snapshot = Annotated[str | None, typer.Option(help="Digest of the snapshot to compare with; none: as described.")]


@command(app, "check", has_dry_run=True)
def check(
    service: _Service,
    *,
    snapshot: _Snapshot = None,
    sample: Annotated[int, typer.Option(min=1, help="About how many entities of each view.")] = 1000,
    seed: Annotated[str, typer.Option(help="The same seed takes the same entities.")] = "fairlead",
) -> None:
    """Compare what each region serves with the snapshot that it should serve; exit code 1 where they differ.

    Regions compare within themselves, so no value of restricted data leaves one.
    """
    with connected() as (client, output):
        wait = not is_dry_run()
        found = client.features.checks.parity(service, snapshot=snapshot, sample=sample, seed=seed, wait=wait)
        if output.form != "human":
            output.record(found, name="id")
        elif not is_dry_run():
            output.table(
                [
                    {"region": each.region, "snapshot": (each.findings or {}).get("served"), **_counted(view)}
                    for each in found.regions
                    for view in (each.findings or {}).get("views", [])
                ],
                ["region", "view", "entities", "sampled", "differences", "newer", "snapshot"],
            )
        _end(found, output)


@command(app, "skew", has_dry_run=True)
def skew(
    service: _Service,
    *,
    snapshot: _Snapshot = None,
    psi: Annotated[float, typer.Option(min=0, help="Greatest population stability index of a feature.")] = 0.2,
    ks: Annotated[float, typer.Option(min=0, help="Greatest Kolmogorov-Smirnov statistic of a feature.")] = 0.2,
) -> None:
    """Compare what feature servers logged with a snapshot (the newest by default); exit code 1 where it is skewed.

    Servers log where they are started with `--log-features SHARE`.
    """
    with connected() as (client, output):
        found = client.features.checks.skew(service, snapshot=snapshot, psi=psi, ks=ks, wait=not is_dry_run())
        if output.form != "human":
            output.record(found, name="id")
        else:
            rows = [
                {"region": each.region, **feature}
                for each in found.regions
                for feature in (each.findings or {}).get("features", [])
            ]
            if rows:
                output.table(rows, ["region", "view", "feature", "psi", "ks", "logged", "expected", "is_over"])
        _end(found, output)


def _counted(view: dict[str, Any]) -> dict[str, Any]:
    differences = ", ".join(f"{number} {kind}" for kind, number in view["differences"].items())
    return {**view, "differences": differences or "none"}


def _end(found: OnlineCheck, output: Output) -> None:
    if is_dry_run():
        return
    for problem in found.problems:
        output.message(problem)
    if found.problems:
        raise typer.Exit(ExitCode.FAILURE)
