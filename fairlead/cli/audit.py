"""`fairlead audit`, `fairlead ledger`, `fairlead work`: what happened, what it cost, what goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.core.errors import IntegrityError

app = group("What happened and what it cost.")


@command(app, "audit")
def audit(
    *,
    subject: Annotated[str | None, typer.Option(help="Only of this subject, such as churn/2.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as model.promote.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the hash chain instead.")] = False,
) -> None:
    """Print the audit trail, or verify its hash chain."""
    with connected() as (client, output):
        if verify:
            verdict = client.audit.verify()
            output.record(verdict)
            if not verdict.get("is_intact"):
                raise IntegrityError("The audit trail was changed.", hint="Compare it with your last exported anchor.")
            return
        columns = ["sequence", "happened_at", "actor", "action", "subject", "facts"]
        output.table(client.audit.list(subject=subject, action=action), columns)


@command(app, "ledger")
def ledger(
    *,
    subject: Annotated[str | None, typer.Option(help="Only of this subject.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind: upload, replicate, repair, deploy.")] = None,
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
        output.table(client.ledger.list(subject=subject, kind=kind), columns)


@command(app, "work")
def work() -> None:
    """Show what workers are doing and what waits for one."""
    with connected() as (client, output):
        columns = [
            "kind",
            "subject",
            "region",
            "attempts",
            "lease_holder",
            "progress_bytes",
            "total_bytes",
            "error.detail",
        ]
        output.table(client.work(), columns)
