"""`fairlead record` and `fairlead restore`: the copies of the record, and a registry made again from them."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli.context import command, connected, current_output, group
from fairlead.cli.output import render_value
from fairlead.cli.parsing import parse_pairs
from fairlead.cli.server import server_packages
from fairlead.core.clock import format_time

app = group("Copies of the record, which answer while the server is away.")
restore_app = group("Restoring.")


@command(app, "show")
def show() -> None:
    """Show where copies of the record are, how far each goes, and the keys that sign them."""
    with connected() as (client, output):
        found = client.record.show()
        copies = [{**each.to_json(), "sequence": None if each.sequence < 0 else each.sequence} for each in found.copies]
        if output.form != "human":
            output.record({**found.to_json(), "copies": copies})
            return
        output.table(copies, ["region", "location", "sequence", "url"])
        if any(each["sequence"] is None for each in copies):
            output.message("A copy without a sequence was found damaged, and is being written again.")
        output.message("Signed by " + ", ".join(str(key) for key in found.public_keys.values()))


@command(restore_app, "restore")
def restore(
    url: Annotated[list[str], typer.Argument(help="URL of a location that holds a copy; more make the whole.")],
    *,
    database_url: Annotated[
        str | None, typer.Option(help="Database to make; none: FAIRLEAD_DATABASE_URL, or the one in the home.")
    ] = None,
    workspace: Annotated[str | None, typer.Option(help="Workspace; none: FAIRLEAD_WORKSPACE.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the filesystem; repeat for more.")] = None,
    trusted_key: Annotated[
        str | None, typer.Option(help="Public key (64 hexadecimal digits) whose signatures to believe.")
    ] = None,
    trust_on_first_use: Annotated[
        bool, typer.Option("--trust-on-first-use", help="Believe whichever key signed the copy.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check the copies; write nothing.")] = False,
) -> None:
    """Make a server's database again from a bucket; what was lost is told."""
    with server_packages():
        from fairlead.app.restoring import restore as run
    done = run(
        url,
        options=dict(parse_pairs(option)),
        workspace=workspace,
        database_url=database_url,
        trusted_key=trusted_key,
        is_first_use=trust_on_first_use,
        is_dry_run=dry_run,
    )
    output = current_output()
    output.record(
        {
            "workspace": done.workspace,
            "as_of": format_time(done.as_of),
            "sequence": done.sequence,
            "anchor": done.anchor,
            "rows": dict(done.rows),
            "lost": list(done.lost),
        },
        human=lambda row: "\n".join(
            [
                f"{row['workspace']} as of {row['as_of']} (sequence {row['sequence']}, audit anchor {row['anchor']})",
                *(f"  {table}: {render_value(count)}" for table, count in row["rows"].items()),
                "Not restored:",
                *(f"  {each}" for each in row["lost"]),
            ]
        ),
    )
    output.message(
        "A dry run: nothing was changed." if dry_run else "Start the server and its workers: they read every replica."
    )
