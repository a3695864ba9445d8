"""`fairlead deploy`: plan, apply, watch, take back and compare what runs where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.deployment_text import describe_deployment, describe_deployment_plan, describe_revisions
from fairlead.cli.parsing import API_VERSION, read_document, read_named_resource
from fairlead.cli.replicate import parse_duration
from fairlead.core.errors import InvalidInput
from fairlead.sdk.artifacts import READY_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairlead.cli.output import Output
    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.records import Deployment

app = group("Deployments: plan, apply, compare, roll back.")

Regions = Annotated[list[str] | None, typer.Option("--region", help="Run in this region; repeat for more.")]
PlacementId = Annotated[str | None, typer.Option("--placement", help="Run where this placement says.")]
Name = Annotated[str | None, typer.Option(help="Name of the deployment; none: the model's.")]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="Where it runs: TARGET, or REGION=TARGET; repeat for more. None: local."),
]
Canary = Annotated[
    str | None, typer.Option(metavar="STEPS", help="Move traffic by these percentages, such as 5,25,100.")
]
BlueGreen = Annotated[bool, typer.Option("--blue-green", help="Move all traffic at once, and keep the old beside it.")]
Pause = Annotated[str | None, typer.Option(help="How long each share of traffic is watched, such as 5m.")]
ErrorRate = Annotated[float | None, typer.Option(help="Go back where more requests than this share fail.")]
P95 = Annotated[float | None, typer.Option(help="Go back where the 95th percentile takes longer.")]
Least = Annotated[int | None, typer.Option("--min-replicas", help="Replicas in each region, at least.")]
Most = Annotated[int | None, typer.Option("--max-replicas", help="Replicas in each region, at most.")]
What = Annotated[
    str,
    typer.Argument(
        help="NAME/VERSION, NAME@ENVIRONMENT to follow it, or a file: a Deployment, or a plan.", metavar="WHAT"
    ),
]
DeploymentName = Annotated[str, typer.Argument(help="Deployment.")]
Wait = Annotated[bool, typer.Option(help="Wait until every region answers.")]


@command(app, "plan")
def plan(
    what: What,
    *,
    placement: PlacementId = None,
    region: Regions = None,
    name: Name = None,
    target: Targets = None,
    canary: Canary = None,
    blue_green: BlueGreen = False,
    pause: Pause = None,
    max_error_rate: ErrorRate = None,
    max_p95_ms: P95 = None,
    min_replicas: Least = None,
    max_replicas: Most = None,
    out: Annotated[Path | None, typer.Option(help="Keep the plan in this file, for: deploy apply FILE.")] = None,
) -> None:
    """Show what applying would start, replace, scale and stop, and what it costs and emits."""
    strategy = _strategy(canary, pause, max_error_rate, max_p95_ms, is_blue_green=blue_green)
    request = _request(
        what,
        placement=placement,
        regions=region,
        name=name,
        targets=target,
        strategy=strategy,
        least=min_replicas,
        most=max_replicas,
    )
    with connected() as (client, output):
        planned = client.deployments.apply(**request, dry_run=True).plan or {}
        output.record(planned, human=describe_deployment_plan)
        if out is not None:
            spec = {"request": request, "plan": planned}
            metadata = {"name": planned["name"]}
            document = {"apiVersion": API_VERSION, "kind": "DeploymentPlan", "metadata": metadata, "spec": spec}
            out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            output.message(f"Kept. To do exactly this: fairlead deploy apply {out}")


@command(app, "apply")
def apply(
    what: What,
    *,
    placement: PlacementId = None,
    region: Regions = None,
    name: Name = None,
    target: Targets = None,
    canary: Canary = None,
    blue_green: BlueGreen = False,
    pause: Pause = None,
    max_error_rate: ErrorRate = None,
    max_p95_ms: P95 = None,
    min_replicas: Least = None,
    max_replicas: Most = None,
    wait: Wait = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")] = False,
) -> None:
    """Run a version in the regions of a placement, or the named ones; or do what a plan says, if it still holds."""
    strategy = _strategy(canary, pause, max_error_rate, max_p95_ms, is_blue_green=blue_green)
    request = _request(
        what,
        placement=placement,
        regions=region,
        name=name,
        targets=target,
        strategy=strategy,
        least=min_replicas,
        most=max_replicas,
    )
    with connected() as (client, output):
        deployment = client.deployments.apply(**request, dry_run=dry_run)
        if deployment.plan is not None:
            output.record(deployment.plan, human=describe_deployment_plan)
            return
        _show(output, _await(client, output, deployment, request["strategy"]) if wait else deployment)


@command(app, "status")
def status(name: Annotated[str | None, typer.Argument(help="Deployment; none: all.")] = None) -> None:
    """Show what runs where, and how far the newest revision has come."""
    with connected() as (client, output):
        if name is None:
            columns = ["name", "model", "environment", "desired_version", "revision", "revision_state", "endpoint"]
            output.table(client.deployments.list(), columns)
            return
        _show(output, client.deployments.get(name))


@command(app, "diff")
def diff(name: DeploymentName) -> None:
    """Compare what should run with what the targets really run now; the exit code is 7 where they differ."""
    with connected() as (client, output):
        found = client.deployments.drift(name)
        output.table(found, ["region", "target", "drift", "wanted_version", "version", "details"])
        if any(each.drift != "none" for each in found):
            raise typer.Exit(7)


@command(app, "history")
def history(name: DeploymentName) -> None:
    """Show every state that a deployment was to have, with its steps."""
    with connected() as (client, output):
        found = list(client.deployments.history(name))
        if output.form == "human":
            output.record({"revisions": [each.to_json() for each in found]}, human=describe_revisions)
            return
        output.table(found, ["number", "state", "cause", "version", "regions", "why"])


@command(app, "rollback", has_dry_run=True)
def rollback(
    name: DeploymentName,
    *,
    to: Annotated[int | None, typer.Option(help="Revision; none: the last that was live before.")] = None,
    reason: Annotated[str, typer.Option(help="Why.")],
    wait: Wait = True,
) -> None:
    """Make an earlier revision the newest, in all regions at once."""
    with connected() as (client, output):
        deployment = client.deployments.roll_back(name, to_revision=to, reason=reason)
        is_waiting = wait and not is_dry_run()
        _show(output, _await(client, output, deployment, None) if is_waiting else deployment)


@command(app, "replan", has_dry_run=True)
def replan(name: DeploymentName) -> None:
    """Solve a deployment's placement anew, and show what applying the answer would change."""
    with connected() as (client, output):
        found = client.deployments.replan(name)
        output.record(found, human=lambda row: describe_deployment_plan(row["plan"]), name="placement_id")
        if not is_dry_run():
            plan = cast("dict[str, Any]", found["plan"])
            reference = (
                f"{plan['model']}/{plan['version']}"
                if plan["environment"] is None
                else f"{plan['model']}@{plan['environment']}"
            )
            output.message(
                f"To do so: fairlead deploy apply {reference} --name {name} --placement {found['placement_id']}"
            )


@command(app, "destroy", has_dry_run=True)
def destroy(
    name: DeploymentName,
    *,
    wait: Annotated[bool, typer.Option(help="Wait until it has ended everywhere.")] = False,
) -> None:
    """Stop a deployment everywhere."""
    with connected() as (client, output):
        client.deployments.delete(name)
        if is_dry_run():
            return
        output.message(f"{name} is being stopped everywhere.")
        if wait:
            client.deployments.wait_gone(name)
            output.message(f"{name} is gone.")


def _request(
    what: str,
    *,
    placement: str | None,
    regions: Sequence[str] | None,
    name: str | None,
    targets: Sequence[str] | None,
    strategy: dict[str, Any] | None,
    least: int | None,
    most: int | None,
) -> dict[str, Any]:
    """What to ask the server for: by the options, or as a file says, to which options then add nothing."""
    path = Path(what)
    if path.suffix in {".json", ".yaml", ".yml"} and path.is_file():
        if any(each is not None for each in (placement, regions, name, targets, strategy, least, most)):
            raise InvalidInput(f"{path} says all there is to say: leave the options out, or the file.")
        return _request_of(path)
    scaling = {"min_replicas": least, "max_replicas": most}
    return {
        "reference": what,
        "placement": placement,
        "regions": None if regions is None else list(regions),
        "name": name,
        "targets": _targets(targets),
        "scaling": {key: value for key, value in scaling.items() if value is not None},
        "strategy": strategy,
    }


def _request_of(path: Path) -> dict[str, Any]:
    kind = read_document(path).get("kind")
    if kind == "DeploymentPlan":
        _, spec = read_named_resource(path, "DeploymentPlan")
        try:
            return {**spec["request"], "plan_digest": spec["plan"]["digest"]}
        except (KeyError, TypeError):
            raise InvalidInput(f"{path} is no plan that was kept by `deploy plan --out`.") from None
    name, spec = read_named_resource(path, "Deployment")
    known = {"reference", "placement", "regions", "targets", "scaling", "strategy"}
    if (unknown := sorted(set(spec) - known)) or not isinstance(spec.get("reference"), str):
        wrong = f"has no member {unknown[0]!r}" if unknown else "needs a reference, such as churn@production"
        raise InvalidInput(f"The spec of a Deployment {wrong}.", hint="See docs/reference/deployments.md.")
    return {"name": name, "strategy": None, **spec}


def _targets(options: Sequence[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in options or ():
        region, equals, target = option.partition("=")
        key, value = (region, target) if equals else ("*", option)
        if key in found:
            raise InvalidInput(f"Two targets are named for {'all regions' if key == '*' else key}.")
        found[key] = value
    return found


def _strategy(
    canary: str | None,
    pause: str | None,
    max_error_rate: float | None,
    max_p95_ms: float | None,
    *,
    is_blue_green: bool,
) -> dict[str, Any] | None:
    limits = {"pause": pause, "max_error_rate": max_error_rate, "max_p95_ms": max_p95_ms}
    body: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    if canary is None and not is_blue_green:
        if body:
            raise InvalidInput(f"--{next(iter(body)).replace('_', '-')} goes with --canary or --blue-green.")
        return None
    if canary is not None and is_blue_green:
        raise InvalidInput("Either --canary or --blue-green.")
    if canary is None:
        return {"blue_green": body}
    try:
        steps = [int(each.strip().removesuffix("%")) for each in canary.split(",")]
    except ValueError:
        raise InvalidInput(f"{canary[:40]!r} are no percentages.", hint="Write them like 5,25,100.") from None
    return {"canary": {"steps": steps, **body}}


def _await(client: Fairlead, output: Output, deployment: Deployment, strategy: dict[str, Any] | None) -> Deployment:
    body: dict[str, Any] = {} if not strategy else next(iter(strategy.values()))
    watched = len(body.get("steps") or [100]) * parse_duration(str(body.get("pause") or "5m")) if strategy else 0.0
    return client.deployments.wait_ready(
        deployment.name, timeout_seconds=READY_TIMEOUT_SECONDS + watched, notify=output.message
    )


def _show(output: Output, deployment: Deployment) -> None:
    output.record(deployment, human=describe_deployment)
    if output.form == "human":
        columns = ["region", "state", "version", "bundle_digest", "health", "endpoint_url", "error_detail"]
        if any(region.get("target") != "local" for region in deployment.regions):
            columns.insert(1, "target")
        if any(region.get("former_version") is not None for region in deployment.regions):
            columns.insert(3, "traffic_percent")
        output.table(deployment.regions, columns)
        for line in deployment.advice:
            output.message(line)
