"""`fairlead audit`, `fairlead ledger`: what happened and what it cost."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.context import command, connected, current_output, group, listing
from fairlead.core.errors import IntegrityError

app = group("What happened and what it cost.")
audit_app = group("Who did what, sealed into a hash chain.", is_listing=True)

Newest = Annotated[int | None, typer.Option(help="Only so many of the newest, newest first.", min=1)]
_AnchorOption = Annotated[str | None, typer.Option(help="An anchor kept from before, as SEQUENCE:HASH.")]


@listing(audit_app)
def audit(
    *,
    subject: Annotated[str | None, typer.Option(help="Only of this subject, such as churn/2.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as model.promote.")] = None,
    newest: Newest = None,
) -> None:
    """Print the audit trail."""
    with connected() as (client, output):
        columns = ["sequence", "happened_at", "actor", "action", "subject", "facts"]
        events = client.audit.list(subject=subject, action=action, newest_first=newest is not None)
        output.table(islice(events, newest), columns)


@command(audit_app, "verify")
def verify(
    file: Annotated[Path | None, typer.Argument(help="An exported log to check; without it, the server's.")] = None,
    *,
    anchor: _AnchorOption = None,
) -> None:
    """Recompute the hash chain: any edited, removed, inserted or reordered event is found.

    With an anchor, a tail that was cut off is found too. An exported file is checked without a server.
    """
    if file is None:
        with connected() as (client, output):
            verdict = client.audit.verify(anchor=anchor)
            output.record(verdict, name="anchor")
    else:
        from fairlead.core.audit_chain import parse_anchor
        from fairlead.sdk.audit_export import check_export

        verdict = asdict(check_export(file, anchor=None if anchor is None else parse_anchor(anchor)))
        current_output().record(verdict, name="anchor")
    _require_intact(verdict)


@command(audit_app, "export")
def export(file: Annotated[Path, typer.Argument(help="The new file.")]) -> None:
    """Write all sealed events into one file, and print its anchor: keep that elsewhere."""
    with connected() as (client, output):
        output.record(asdict(client.audit.export(file)), name="anchor")


def _require_intact(verdict: dict[str, Any]) -> None:
    if not verdict.get("is_intact"):
        raise IntegrityError(
            f"The audit trail was changed: {verdict.get('problem')} at event {verdict.get('sequence')}.",
            hint="Every event before that one is as it was written.",
        )


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
