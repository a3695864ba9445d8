"""`fairlead place`, `bundle`, `deploy`, `predict`: where models run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.features import parse_value
from fairlead.cli.output import Output
from fairlead.cli.parsing import parse_pairs, read_document, read_resource
from fairlead.cli.placements import describe_placement
from fairlead.cli.plans import describe_deployment_plan
from fairlead.sdk.records import Deployment

app = group("Placement, bundles and predictions.")
deploy_app = group("Deployments: plan, apply, status.")

Regions = Annotated[list[str] | None, typer.Option("--region", help="Run in this region; repeat for more.")]
PlacementId = Annotated[str | None, typer.Option("--placement", help="Run where this placement says.")]
Name = Annotated[str | None, typer.Option(help="Name of the deployment; none: the model's.")]
Reference = Annotated[str, typer.Argument(help="NAME/VERSION, or NAME@ENVIRONMENT to follow it.", metavar="REFERENCE")]


@command(app, "place")
def place(request: Annotated[Path, typer.Argument(help="YAML or JSON placement request (- for stdin).")]) -> None:
    """Ask where to run: regions, cost, latency and carbon, and why the runner-up lost."""
    with connected() as (client, output):
        output.record(client.place(read_resource(request, "PlacementRequest")), human=describe_placement)


@command(app, "bundle", has_dry_run=True)
def bundle(
    reference: Annotated[
        str | None, typer.Argument(help="NAME/VERSION or NAME@ALIAS; none: list all.", metavar="REFERENCE")
    ] = None,
    *,
    wait: Annotated[bool, typer.Option(help="Wait until it is built, stored and read back.")] = True,
) -> None:
    """Build the BentoML bundle of a version; the same version gives the same digest."""
    with connected() as (client, output):
        if reference is None:
            output.table(client.bundles.list(), ["reference", "state", "digest", "size_bytes", "error_detail", "id"])
        else:
            has_waited = wait and not is_dry_run()
            output.record(client.bundles.build(reference, wait=has_waited), name="digest" if has_waited else "id")


@command(deploy_app, "plan")
def plan(reference: Reference, *, placement: PlacementId = None, region: Regions = None, name: Name = None) -> None:
    """Show what applying would start, replace and stop, and what it costs."""
    with connected() as (client, output):
        planned = client.deploy(reference, placement=placement, regions=region, name=name, dry_run=True)
        output.record(planned.plan or {}, human=describe_deployment_plan)


@command(deploy_app, "apply")
def apply(
    reference: Reference,
    *,
    placement: PlacementId = None,
    region: Regions = None,
    name: Name = None,
    wait: Annotated[bool, typer.Option(help="Wait until every region answers.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")] = False,
) -> None:
    """Run a version in the regions of a placement, or the named ones."""
    with connected() as (client, output):
        deployment = client.deploy(reference, placement=placement, regions=region, name=name, dry_run=dry_run)
        if deployment.plan is not None:
            output.record(deployment.plan, human=describe_deployment_plan)
            return
        if wait:
            deployment = client.deployments.wait_ready(deployment.name)
        _show(output, deployment)


@command(deploy_app, "status")
def status(name: Annotated[str | None, typer.Argument(help="Deployment; none: all.")] = None) -> None:
    """Show what runs where."""
    with connected() as (client, output):
        if name is None:
            columns = ["name", "model", "environment", "desired_version", "state", "endpoint"]
            output.table(client.deployments.list(), columns)
            return
        _show(output, client.deployments.get(name))


@command(deploy_app, "destroy", has_dry_run=True)
def destroy(name: Annotated[str, typer.Argument(help="Deployment.")]) -> None:
    """Stop a deployment everywhere."""
    with connected() as (client, output):
        client.deployments.delete(name)
        if not is_dry_run():
            output.message(f"{name} is being stopped everywhere.")


@command(app, "predict")
def predict(
    name: Annotated[str, typer.Argument(help="Deployment.")],
    *,
    entity: Annotated[list[str] | None, typer.Option(help="KEY=VALUE[,VALUE...]; repeat for more keys.")] = None,
    rows: Annotated[Path | None, typer.Option(help='JSON or YAML file {"rows": [{feature: value}]}.')] = None,
) -> None:
    """Ask a deployment, by entity keys or by ready rows of features."""
    if (entity is None) == (rows is None):
        raise typer.BadParameter("Give either --entity or --rows.")
    with connected() as (client, output):
        if entity is not None:
            keys = {
                key: [parse_value(item) for item in values.split(",")] for key, values in parse_pairs(entity).items()
            }
            answer: Any = client.deployments.predict(name, entities=keys)
        else:
            answer = client.deployments.predict(name, rows=read_document(rows or Path("-")).get("rows") or [])
        output.record(answer)


def _show(output: Output, deployment: Deployment) -> None:
    if output.form != "human":
        output.record(deployment)
        return
    follows = "" if deployment.environment is None else f", follows {deployment.environment}"
    output.message(f"{deployment.name}: {deployment.state}{follows}, {deployment.endpoint or 'no endpoint yet'}")
    columns = ["region", "state", "version", "bundle_digest", "health", "endpoint_url", "error_detail"]
    output.table(deployment.regions, columns)
