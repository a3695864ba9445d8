"""`fairlead audit`, `fairlead ledger`: what happened and what it cost."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.core.errors import IntegrityError

app = group("What happened and what it cost.")

Newest = Annotated[int | None, typer.Option(help="Only so many of the newest, newest first.", min=1)]


@command(app, "audit")
def audit(
    *,
    subject: Annotated[str | None, typer.Option(help="Only of this subject, such as churn/2.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as model.promote.")] = None,
    newest: Newest = None,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the hash chain instead.")] = False,
    anchor: Annotated[
        str | None, typer.Option(help="With --verify: an anchor kept from before, as SEQUENCE:HASH.")
    ] = None,
) -> None:
    """Print the audit trail, or verify its hash chain."""
    if anchor is not None and not verify:
        raise typer.BadParameter("An anchor is for --verify.", param_hint="--anchor")
    with connected() as (client, output):
        if verify:
            verdict = client.audit.verify(anchor=anchor)
            output.record(verdict, name="anchor")
            if not verdict.get("is_intact"):
                raise IntegrityError(
                    f"The audit trail was changed: {verdict.get('problem')} at event {verdict.get('sequence')}.",
                    hint="Every event before that one is as it was written.",
                )
            return
        columns = ["sequence", "happened_at", "actor", "action", "subject", "facts"]
        events = client.audit.list(subject=subject, action=action, newest_first=newest is not None)
        output.table(islice(events, newest), columns)


@command(app, "ledger")
def ledger(
    *,
    subject: Annotated[str | None, typer.Option(help="Only of this subject.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind: upload, replicate, repair, deploy.")] = None,
    newest: Newest = None,
    by: Annotated[str | None, typer.Option(help="Sums by kind, region, or a label such as team.")] = None,
) -> None:
    """Print what moves and deployments cost in bytes, dollars and grams of CO2."""
    with connected() as (client, output):
        if by is not None:
            output.table(
                client.ledger.summary(by=by), ["key", "entries", "moved_bytes", "planned_usd", "actual_usd", "gco2"]
            )
            return
        columns = ["recorded_at", "kind", "subject", "source_region", "region", "moved_bytes", "actual_usd", "gco2"]
        entries = client.ledger.list(subject=subject, kind=kind, newest_first=newest is not None)
        output.table(islice(entries, newest), columns)
