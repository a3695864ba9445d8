"""`fairlead policy` and `fairlead role`: what a promotion asks for, and whose word counts."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.output import without_controls
from fairlead.cli.parsing import read_named_resource

if TYPE_CHECKING:
    from fairlead.sdk.promotion_policies import PromotionPolicy

app = group("Promotion policies: gates, approvers and freezes, by model and environment.")
role_app = group("Roles: who may approve, override and roll back, for which models in which environments.")

_Name = Annotated[str, typer.Argument(help="Policy.")]
_Revision = Annotated[int | None, typer.Option(help="Refuse unless the policy still has this revision.")]


@command(app, "list")
def list_() -> None:
    """List the policies by name."""
    with connected() as (client, output):
        columns = ["name", "match.models", "match.environments", "gates", "approvals", "required_regions", "revision"]
        rows = [
            row.to_json() | {"gates": [gate["expression"] for gate in row.gates]} if output.form == "human" else row
            for row in client.promotion_policies.list()
        ]
        output.table(rows, columns)


@command(app, "show")
def show(name: _Name) -> None:
    """Show one policy, as its owners write it."""
    with connected() as (client, output):
        found = client.promotion_policies.get(name)
        output.record(found, human=lambda _: _as_text(name, found))


@command(app, "apply", has_dry_run=True)
def apply(
    files: Annotated[list[Path], typer.Argument(help="YAML or JSON resources of kind PromotionPolicy.")],
    *,
    revision: _Revision = None,
) -> None:
    """Create or replace policies from files, and print what changes."""
    wanted = [read_named_resource(file, "PromotionPolicy") for file in files]
    with connected() as (client, output):
        outcomes: list[dict[str, Any]] = []
        for name, spec in wanted:
            before = client.promotion_policies.find(name)
            applied = client.promotion_policies.apply(name, spec, revision=revision)
            diff = _diff(name, before, applied)
            outcomes.append({**applied.to_json(), "is_changed": bool(diff), "diff": diff})
            if output.form == "human":
                output.record({"diff": diff}, human=lambda row, of=name: row["diff"] or f"{of}: no change")
        if output.form == "markdown":
            for outcome in outcomes:
                output.record(outcome, markdown=lambda row: f"```diff\n{row['diff']}\n```")
        elif output.form != "human":
            output.table(outcomes, ["name"])
        if not is_dry_run():
            output.message("\n".join(f"{each['name']} is at revision {each['revision']}." for each in outcomes))


@command(app, "delete", has_dry_run=True)
def delete(name: _Name, *, revision: _Revision = None) -> None:
    """Remove a policy; what it asked for is asked for no longer."""
    with connected() as (client, output):
        client.promotion_policies.delete(name, revision=revision)
        output.message(f"Removed {name}.")


@command(role_app, "bind", has_dry_run=True)
def bind(
    principal: Annotated[str, typer.Argument(help="Principal, or group:NAME.")],
    role: Annotated[
        str,
        typer.Argument(
            help="viewer, contributor, promoter, approver, deployer, admin; on-call; or one that policies ask for."
        ),
    ],
    *,
    models: Annotated[str, typer.Option(help="Pattern of model names.")] = "*",
    environments: Annotated[str, typer.Option(help="Pattern of environments.")] = "*",
) -> None:
    """Give somebody a role for some models in some environments."""
    with connected() as (client, output):
        output.record(client.role_bindings.bind(principal, role, models=models, environments=environments))


@command(role_app, "list")
def list_bindings(
    principal: Annotated[str | None, typer.Option(help="Only of this principal, or group:NAME.")] = None,
) -> None:
    """List who has which role, for which models in which environments."""
    with connected() as (client, output):
        columns = ["id", "principal", "role", "models", "environments", "created_by", "created_at"]
        output.table(client.role_bindings.list(principal=principal), columns)


@command(role_app, "unbind", has_dry_run=True)
def unbind(binding: Annotated[str, typer.Argument(help="Id of the binding.")]) -> None:
    """Take a role away; what was approved in it stays approved."""
    with connected() as (client, output):
        client.role_bindings.unbind(binding)
        output.message(f"Removed {binding}.")


def _diff(name: str, before: PromotionPolicy | None, after: PromotionPolicy) -> str:
    old = "" if before is None else _as_text(name, before)
    label = "absent" if before is None else f"revision {before.revision}"
    lines = difflib.unified_diff(
        old.splitlines(), _as_text(name, after).splitlines(), f"{name} ({label})", f"{name} (wanted)", lineterm=""
    )
    return without_controls("\n".join(lines))


def _as_text(name: str, policy: PromotionPolicy) -> str:
    import yaml

    document = {
        "apiVersion": "fairlead/v1",
        "kind": "PromotionPolicy",
        "metadata": {"name": name},
        "spec": policy.spec(),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
