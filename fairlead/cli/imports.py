"""`fairlead import`: bring in what another registry has."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fairlead.cli.amounts import render_size
from fairlead.cli.context import command, connected, group
from fairlead.cli.output import markdown_table, markdown_text
from fairlead.cli.parsing import parse_pairs
from fairlead.core.errors import PartialFailure
from fairlead.sdk.imports import LEFT_OUT

app = group("Import what another registry has.")


@command(app, "mlflow")
def mlflow(
    uri: Annotated[
        str,
        typer.Argument(help="http(s)://SERVER, or its database: sqlite:///FILE, postgresql://USER@HOST/NAME."),
    ],
    *,
    artifacts: Annotated[
        list[str] | None,
        typer.Option(help="Folder or bucket that files may be read from beside the server; repeat for more."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only these, such as 'churn-*'; repeat for more.")] = None,
    rename: Annotated[list[str] | None, typer.Option(help="THERE=HERE: what a model is to be called.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="owner=, team= and cost_centre= of models that are new here.")
    ] = None,
    residency: Annotated[str | None, typer.Option(help="Residency class of models that are new here.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at everything, and say what would come; change nothing.")
    ] = False,
) -> None:
    """Import an MLflow registry: models, prompts, versions, aliases, tags and files; again, only what is new."""
    with connected() as (client, output):
        report = client.imports.mlflow(
            uri,
            artifact_roots=artifacts or (),
            names=model or (),
            renames=parse_pairs(rename),
            labels=parse_pairs(label),
            residency=residency,
            dry_run=dry_run,
            bars=output.progress,
        )
        output.record(report, human=_describe, markdown=_describe_in_markdown, name="source")
        left_out = report.left_out
        if left_out:
            raise PartialFailure(
                f"{len(left_out)} of {len(report.items)} could not come: {_some(left_out)}.",
                hint="Mend what the report says, and run the same command again; what came is not brought twice.",
            )


def _describe(report: dict[str, Any]) -> str:
    lines = [_summary(report), ""]
    lines += [f"  {count:>6}  {what}" for what, count in report["counts"].items()]
    for title, items in _sections(report):
        lines += ["", f"{title}:"]
        lines += [f"  {item['kind']} {item['source']} ({item['outcome']}): {item['detail']}" for item in items]
    return "\n".join(lines)


def _describe_in_markdown(report: dict[str, Any]) -> str:
    parts = [f"**{markdown_text(_summary(report))}**", ""]
    parts.append(markdown_table(["what", "how many"], [[what, str(n)] for what, n in report["counts"].items()]))
    for title, items in _sections(report):
        rows = [[item["kind"], item["source"], item["outcome"], item["detail"]] for item in items]
        parts += [f"### {title}", "", markdown_table(["kind", "there", "outcome", "why"], rows)]
    return "\n".join(parts)


def _summary(report: dict[str, Any]) -> str:
    begin = "A dry run: what would come from" if report["is_dry_run"] else "Imported from"
    return f"{begin} {report['source']}: {render_size(report['bytes'])} of new files"


def _sections(report: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    left_out = [item for item in report["items"] if item["outcome"] in LEFT_OUT]
    notes = [item for item in report["items"] if item["detail"] and item["outcome"] not in LEFT_OUT]
    return [(title, items) for title, items in (("Could not come", left_out), ("Otherwise than there", notes)) if items]


def _some(items: list[Any]) -> str:
    return ", ".join(item.source for item in items[:3]) + (" ..." if len(items) > 3 else "")
