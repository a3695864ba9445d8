"""`fairlead features erase`, `erasures` and `certificate`: one subject leaves every region, and a paper says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.context import command, connected, current_output, group, is_dry_run
from fairlead.cli.parsing import parse_pairs, read_document

app = group("Erasures.")

_DAYS = 7 * 86_400


@command(app, "erase", has_dry_run=True)
def erase(
    subject: Annotated[
        list[str],
        typer.Argument(help="Value of an entity; repeat where several name the subject.", metavar="ENTITY=VALUE"),
    ],
    *,
    reason: Annotated[str, typer.Option(help="Why, for the certificate; it should not name the subject.")],
    wait: Annotated[bool, typer.Option(help="Wait until it is done: the collector's grace at least.")] = False,
) -> None:
    """Remove one subject from every snapshot, log and online store, in every region.

    The value stays here: the server is told a salted hash.
    """
    with connected() as (client, output):
        erasure = client.erasures.request(parse_pairs(subject), reason=reason)
        if wait and not is_dry_run():
            with output.waiting("Erasing"):
                erasure = client.erasures.wait(erasure.id, timeout_seconds=_DAYS)
        output.record(erasure, name="id")


@command(app, "erasures")
def erasures() -> None:
    """List the erasures, newest first."""
    with connected() as (client, output):
        columns = ["id", "keys", "state", "rows_removed", "missing", "requested_by", "requested_at", "finished_at"]
        rows = [
            row.to_json() | {"missing": len(row.missing)} if output.form == "human" else row
            for row in client.erasures.list()
        ]
        output.table(rows, columns)


@command(app, "erasure")
def erasure(erasure: Annotated[str, typer.Argument(help="Erasure, by its id.")]) -> None:
    """Show one erasure: what it still lacks, and the models that were trained on the subject."""
    with connected() as (client, output):
        output.record(client.erasures.get(erasure), name="state")


@command(app, "certificate")
def certificate(
    erasure: Annotated[str, typer.Argument(help="Erasure, by its id; with --verify the file of a certificate.")],
    *,
    to: Annotated[Path | None, typer.Option(help="Write the signed certificate to this file.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check a file without a server; needs --key.")] = False,
    key: Annotated[
        list[str] | None, typer.Option(help="A trusted public key, as 64 hexadecimal digits; repeat for more.")
    ] = None,
) -> None:
    """Show or save the signed certificate of an erasure, or verify one offline."""
    from fairlead.core.certificates import read_statement, trusted, verify_certificate

    if verify:
        statement = verify_certificate(read_document(Path(erasure)), trusted(key or []))
        current_output().record(statement, name="erasure")
        current_output().message("The certificate is genuine.")
        return
    with connected() as (client, output):
        envelope: dict[str, Any] = client.erasures.certificate(erasure)
        if to is not None:
            to.write_text(json.dumps(envelope) + "\n", encoding="utf-8")
            output.message(f"Wrote {to}.")
        output.record(envelope if output.form == "json" else read_statement(envelope), name="erasure")
