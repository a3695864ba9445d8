"""`fairlead images`: bundles as OCI images, in the registries of regions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fairlead.cli.amounts import render_size
from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.parsing import parse_pairs

app = group("Images: bundles as OCI images in the container registries of regions.")
registry_app = group("Container registries that images are pushed to.")
variant_app = group("Variants that every image has, by platform and accelerator.")
app.add_typer(registry_app, name="registry")
app.add_typer(variant_app, name="variant")

_Reference = Annotated[str, typer.Argument(help="NAME/VERSION or NAME@ALIAS.", metavar="REFERENCE")]
_Name = Annotated[str, typer.Argument(help="What to call it.")]


@command(registry_app, "add", has_dry_run=True)
def add_registry(
    name: _Name,
    *,
    region: Annotated[str, typer.Option(help="CLOUD:REGION, such as aws:us-east-1.")],
    url: Annotated[str, typer.Option(help="https://HOST[/PREFIX] that its repositories begin with.")],
    provider: Annotated[str, typer.Option(help="ecr, artifact-registry, acr, or oci for any other.")] = "oci",
    identity: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of who a worker is there, such as kind=static credentials=NAME; no secrets."),
    ] = None,
) -> None:
    """Add a container registry; images that deployments in its region need are pushed there."""
    with connected() as (client, output):
        found = dict(parse_pairs(identity))
        output.record(client.images.add_registry(name, region, url, provider=provider, identity=found))


@command(registry_app, "list")
def list_registries() -> None:
    """List the container registries."""
    with connected() as (client, output):
        output.table(client.images.registries(), ["name", "region", "jurisdiction", "provider", "url"])


@command(registry_app, "remove", has_dry_run=True)
def remove_registry(name: _Name) -> None:
    """Forget a container registry; images stay in it."""
    with connected() as (client, output):
        client.images.remove_registry(name)
        if not is_dry_run():
            output.message(f"Forgot {name}.")


@command(variant_app, "set", has_dry_run=True)
def set_variant(
    name: _Name,
    *,
    base: Annotated[str, typer.Option(help="Image that it is laid on: HOST/REPOSITORY@sha256:...")],
    platform: Annotated[str, typer.Option(help="linux/amd64 or linux/arm64.")] = "linux/amd64",
    accelerator: Annotated[list[str] | None, typer.Option(help="A board that it is for, such as L4.")] = None,
) -> None:
    """Have every image made with a variant; those that are wanted somewhere are made anew."""
    with connected() as (client, output):
        output.record(client.images.set_variant(name, platform=platform, base=base, accelerators=accelerator or ()))


@command(variant_app, "list")
def list_variants() -> None:
    """List the variants that every image has."""
    with connected() as (client, output):
        output.table(client.images.variants(), ["name", "platform", "accelerators", "base"])


@command(variant_app, "delete", has_dry_run=True)
def delete_variant(name: _Name) -> None:
    """Have images made without a variant from now on."""
    with connected() as (client, output):
        client.images.delete_variant(name)
        if not is_dry_run():
            output.message(f"Images have no variant {name} from now on.")


@command(app, "push", has_dry_run=True)
def push(
    reference: _Reference,
    *,
    registry: Annotated[list[str] | None, typer.Option(help="Only to this registry; may be repeated.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until every registry was seen to hold it.")] = True,
) -> None:
    """Push a bundle's image to the registries that it may be in, and read it back from each."""
    with connected() as (client, output):
        bundle = client.bundles.of(reference)
        found = client.images.push(bundle.id, registries=registry, wait=wait and not is_dry_run())
        output.record(found, human=_describe, name="digest")


@command(app, "status")
def status(reference: _Reference) -> None:
    """Show where a bundle's image is, and whether it is one digest everywhere."""
    with connected() as (client, output):
        output.record(client.images.status(client.bundles.of(reference).id), human=_describe, name="digest")


@command(app, "check", has_dry_run=True)
def check(reference: _Reference) -> None:
    """Have a bundle's image read back everywhere now, instead of within a day."""
    with connected() as (client, output):
        output.record(client.images.check(client.bundles.of(reference).id), human=_describe, name="digest")


@command(app, "list")
def list_() -> None:
    """List the bundles that have images."""
    with connected() as (client, output):
        output.table(client.images.list(), ["reference", "digest", "is_one", "size_bytes", "bundle_digest"])


def _describe(row: dict[str, Any]) -> str:
    size = "" if row["size_bytes"] is None else f", {render_size(row['size_bytes'])}"
    where = "the same in every registry" if row["is_one"] else "not yet the same in every registry"
    lines = [f"{row['reference']}: {row['digest'] or 'not pushed yet'}{size}, {where}"]
    lines += [
        f"  {each['name']:<12} {each['platform']:<12} {', '.join(each['accelerators']) or 'CPU':<12} {each['digest']}"
        for each in row["variants"]
    ]
    for each in row["registries"]:
        state = each["state"] if each["is_current"] or each["state"] != "VERIFIED" else "VERIFIED, being replaced"
        lines.append(f"  {each['registry']} ({each['region']}): {state} {each['image'] or ''}".rstrip())
        if each["error_detail"]:
            lines.append(f"    {each['error_detail']}")
    return "\n".join(lines)
