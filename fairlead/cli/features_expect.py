"""`fairlead features expect` and `fairlead features report`: what snapshots are held to, and what they are like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.features import app as features_app
from fairlead.cli.parsing import API_VERSION, read_named_resource

app = group("Expectations: what must be true of a snapshot before it is served or promoted with.")

KIND = "FeatureExpectations"
_Name = Annotated[str, typer.Argument(help="Set of expectations.")]
_Revision = Annotated[int | None, typer.Option(help="Refuse unless the set still has this revision.")]


@command(app, "list")
def list_() -> None:
    """List the sets of expectations by name."""
    with connected() as (client, output):
        rows = [
            row.to_json() | {"expectations": [each["name"] for each in row.expectations]}
            if output.form == "human"
            else row
            for row in client.expectations.list()
        ]
        output.table(rows, ["name", "service", "view", "expectations", "revision", "updated_at"])


@command(app, "show")
def show(name: _Name) -> None:
    """Show a set of expectations, as its owners write it."""
    import yaml

    with connected() as (client, output):
        found = client.expectations.get(name)
        document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": found.spec()}
        output.record(found, human=lambda _: yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100))


@command(app, "apply", has_dry_run=True)
def apply(
    files: Annotated[list[Path], typer.Argument(help=f"YAML or JSON resources of kind {KIND}.")],
    *,
    revision: _Revision = None,
) -> None:
    """Create or replace sets of expectations from files; the newest snapshots are checked anew."""
    wanted = [read_named_resource(file, KIND) for file in files]
    with connected() as (client, output):
        applied = [client.expectations.apply(name, spec, revision=revision) for name, spec in wanted]
        if output.form != "human":
            output.table(applied, ["name"])
            return
        for each in applied:
            will = "would be" if is_dry_run() else "is"
            count = len(each.expectations)
            output.message(f"{each.name}: {count} expectations; it {will} at revision {each.revision}.")


@command(app, "delete", has_dry_run=True)
def delete(name: _Name, *, revision: _Revision = None) -> None:
    """Remove a set of expectations; what it asked for is asked for no longer."""
    with connected() as (client, output):
        client.expectations.delete(name, revision=revision)
        output.message(f"Removed {name}.")


@command(features_app, "report")
def report(
    snapshot: Annotated[str, typer.Argument(help="Snapshot, by its digest or id.")],
    *,
    to: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
    region: Annotated[str | None, typer.Option(help="Region you read from, for data under a residency class.")] = None,
) -> None:
    """Report on a snapshot: what was expected of it, and how its features are spread beside the one before."""
    from fairlead.cli.snapshot_page import write_page

    with connected() as (client, output):
        found: Any = client.expectations.report(snapshot, region=region)
        if to is not None:
            to.write_text(write_page(found), encoding="utf-8")
            output.message(f"Wrote {to}.")
        if output.form != "human":
            output.record(found)
            return
        state = "may be served" if found["is_released"] else "is not served: not everything is as expected"
        output.message(f"{found['service']} as of {found['as_of']}, {found['digest']}: {state}.")
        findings = [each | {"state": _state(each)} for check in found["checks"] for each in check["results"]]
        if findings:
            output.table(findings, ["state", "set", "name", "measure", "value", "limit", "detail"])
        features = [
            {"view": part["view"], "rows": part["rows"], **_in_short(each)}
            for part in found["parts"]
            for each in part["features"]
        ]
        if features:
            output.table(features, ["view", "feature", "rows", "missing", "psi", "ks"])
        for part in found["parts"]:
            if part["hidden"]:
                output.message(f"{part['view']} ({part['rows']} rows) is not shown. {part['hidden']}")


def _state(finding: dict[str, Any]) -> str:
    if finding["passed"]:
        return "passed"
    return "FAILED" if finding["severity"] == "error" else "warning"


def _in_short(feature: dict[str, Any]) -> dict[str, Any]:
    def rounded(value: float | None) -> str | None:
        return None if value is None else f"{value:.3f}"

    return {
        "feature": feature["name"],
        "missing": feature["missing"],
        "psi": rounded(feature["psi"]),
        "ks": rounded(feature["ks"]),
    }
