"""`fairlead target`: where deployments may run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.parsing import API_VERSION, read_named_resource
from fairlead.core.errors import InvalidInput

if TYPE_CHECKING:
    from fairlead.sdk.deploy_targets import DeployTarget

app = group("Deploy targets: clusters, folders and branches where deployments may run.")

_Name = Annotated[str, typer.Argument(help="Target.")]
_Revision = Annotated[int | None, typer.Option(help="Refuse unless the target still has this revision.")]


@command(app, "apply", has_dry_run=True)
def apply(
    files: Annotated[list[Path], typer.Argument(help="YAML or JSON resources of kind DeployTarget.")],
    *,
    revision: _Revision = None,
) -> None:
    """Create or replace targets from files."""
    wanted = [read_named_resource(file, "DeployTarget") for file in files]
    with connected() as (client, output):
        applied = [client.targets.apply(name, spec, revision=revision) for name, spec in wanted]
        output.table(applied, ["name", "kind", "delivery", "regions", "revision"])


@command(app, "list")
def list_() -> None:
    """List the targets by name."""
    with connected() as (client, output):
        output.table(client.targets.list(), ["name", "kind", "delivery", "regions", "revision", "updated_by"])


@command(app, "show")
def show(name: _Name) -> None:
    """Show one target, as its owners write it."""
    with connected() as (client, output):
        found = client.targets.get(name)
        output.record(found, human=lambda _: _as_text(found))


@command(app, "delete", has_dry_run=True)
def delete(name: _Name, *, revision: _Revision = None) -> None:
    """Remove a target that no deployment uses."""
    with connected() as (client, output):
        client.targets.delete(name, revision=revision)
        if not is_dry_run():
            output.message(f"Removed {name}.")


@command(app, "render")
def render(
    name: _Name,
    deployment: Annotated[str, typer.Argument(help="Deployment.")],
    *,
    region: Annotated[str | None, typer.Option(help="Of this region alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the files below this folder.")] = None,
) -> None:
    """Show what a deployment is on a target, in its platform's words; nothing is applied."""
    with connected() as (client, output):
        rendered = client.targets.render(name, deployment, region=region)
        if out is None:
            documents = [document | {"region": each["region"]} for each in rendered for document in each["documents"]]
            if output.form == "human":
                for document in documents:
                    output.record(document, human=lambda row: f"# {row['path']}\n{row['text']}")
            else:
                output.table(documents, ["region", "path", "text"])
            return
        for each in rendered:
            for document in each["documents"]:
                path = _inside(out, f"{each['region'].replace(':', '-')}/{document['path']}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(document["text"], encoding="utf-8")
                output.message(f"Wrote {path}.")


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(f"A document asks to be written at {name!r}, which is outside of {folder}.")
    return path


def _as_text(target: DeployTarget) -> str:
    import yaml

    spec: dict[str, Any] = {"kind": target.kind, "delivery": target.delivery}
    if target.regions is not None:
        spec["regions"] = list(target.regions)
    if target.delivery_settings:
        spec["delivery_settings"] = target.delivery_settings
    if target.settings:
        spec["settings"] = target.settings
    document = {
        "apiVersion": API_VERSION,
        "kind": "DeployTarget",
        "metadata": {"name": target.name},
        "spec": spec,
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
