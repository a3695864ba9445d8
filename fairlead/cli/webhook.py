"""`fairlead webhook`: where events are sent to."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.core.errors import Unavailable

if TYPE_CHECKING:
    from fairlead.cli.output import Output
    from fairlead.sdk.webhooks import Webhook

app = group("Webhooks: addresses that events are sent to as they happen, signed.")

_Name = Annotated[str, typer.Argument(help="Webhook.")]
_Event = Annotated[list[str] | None, typer.Option(help="Only these actions, such as 'model.*'; may be repeated.")]
_Models = Annotated[str | None, typer.Option(help="Only of these models, such as 'churn-*'.")]
_Environments = Annotated[str | None, typer.Option(help="Only of these environments.")]
_Description = Annotated[str | None, typer.Option(help="What it is for.")]


@command(app, "create", has_dry_run=True)
def create(
    name: _Name,
    url: Annotated[str, typer.Argument(help="Address of the receiver: https, unless the server's operator lists it.")],
    *,
    event: _Event = None,
    models: _Models = None,
    environments: _Environments = None,
    form: Annotated[str, typer.Option("--format", help="fairlead, or openlineage for a lineage backend.")] = "fairlead",
    description: _Description = None,
    jurisdiction: Annotated[
        str | None,
        typer.Option(help="Where the receiver is, such as EU: facts of restricted events go only where they may be."),
    ] = None,
    credentials_env: Annotated[
        str | None, typer.Option(help="Variable of the workers, FAIRLEAD_WEBHOOK_..., that holds a bearer token.")
    ] = None,
    after: Annotated[int | None, typer.Option(help="Begin after this sequence instead of now.", min=0)] = None,
) -> None:
    """Send events to an address; the secret that signs them is printed this once."""
    with connected() as (client, output):
        made = client.webhooks.create(
            name,
            url,
            events=event or (),
            models=models or "*",
            environments=environments or "*",
            format=form,
            description=description or "",
            jurisdiction=jurisdiction,
            credentials_env=credentials_env,
            after=after,
        )
        _tell_secret(output, made)


@command(app, "list")
def list_() -> None:
    """List webhooks by name."""
    with connected() as (client, output):
        output.table(client.webhooks.list(), ["name", "url", "events", "state", "position", "failing_since"])


@command(app, "show")
def show(name: _Name) -> None:
    """Show a webhook: how far it was told, and since when it fails."""
    with connected() as (client, output):
        output.record(_shown(client.webhooks.get(name)), name="name")


@command(app, "update", has_dry_run=True)
def update(
    name: _Name,
    *,
    url: Annotated[str | None, typer.Option(help="Its new address.")] = None,
    event: _Event = None,
    models: _Models = None,
    environments: _Environments = None,
    description: _Description = None,
    active: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Send to it (again at once), or no longer.")
    ] = None,
    from_now: Annotated[bool, typer.Option("--from-now", help="Skip all that it was not told of.")] = False,
    revision: Annotated[int | None, typer.Option(help="Refuse unless it still has this revision.")] = None,
) -> None:
    """Change a webhook, disable it, or enable it again."""
    with connected() as (client, output):
        changed = client.webhooks.update(
            name,
            url=url,
            events=event,
            models=models,
            environments=environments,
            description=description,
            is_active=active,
            from_now=from_now,
            revision=revision,
        )
        output.record(_shown(changed), name="name")


@command(app, "delete", has_dry_run=True)
def delete(name: _Name) -> None:
    """Remove a webhook and what is known of its deliveries."""
    with connected() as (client, output):
        client.webhooks.delete(name)
        if not is_dry_run():
            output.message(f"Removed {name}.")


@command(app, "rotate-secret", has_dry_run=True)
def rotate_secret(
    name: _Name,
    *,
    overlap_hours: Annotated[float, typer.Option(help="How long the old secret signs too.", min=0, max=720)] = 24,
) -> None:
    """Make a new secret, printed this once; the old one signs beside it for a while."""
    with connected() as (client, output):
        _tell_secret(output, client.webhooks.rotate_secret(name, overlap_seconds=round(overlap_hours * 3600)))


@command(app, "test", has_dry_run=True)
def test(name: _Name) -> None:
    """Send a test event now, and fail unless the receiver takes it."""
    with connected() as (client, output):
        answer = client.webhooks.test(name)
        output.record(answer)
        if not answer.is_taken and not is_dry_run():
            raise Unavailable(
                answer.error or "The receiver did not take it.", hint=f"See: fairlead webhook show {name}"
            )


@command(app, "deliveries")
def deliveries(
    name: _Name,
    *,
    state: Annotated[str | None, typer.Option(help="Only PENDING, DELIVERED or DEAD ones.")] = None,
    newest: Annotated[int | None, typer.Option(help="Only so many of the newest.", min=1)] = None,
) -> None:
    """List what became of events at a webhook, newest first; dead letters are what it refused."""
    with connected() as (client, output):
        columns = ["id", "sequence", "action", "subject", "state", "attempts", "status", "error"]
        output.table(islice(client.webhooks.deliveries(name, state=state and state.upper()), newest), columns)


@command(app, "redeliver", has_dry_run=True)
def redeliver(
    name: _Name,
    delivery: Annotated[list[str] | None, typer.Argument(help="Ids of deliveries; none: all dead letters.")] = None,
) -> None:
    """Send deliveries again, or all dead letters."""
    with connected() as (client, output):
        output.record({"count": client.webhooks.redeliver(name, delivery or None)})


def _tell_secret(output: Output, made: Webhook) -> None:
    if is_dry_run():
        output.record(_shown(made), name="name")
        return
    output.message("Keep the secret now: it is not shown again.")
    output.record({"secret": made.secret} | _shown(made))


def _shown(webhook: Webhook) -> dict[str, object]:
    return {key: value for key, value in webhook.to_json().items() if key != "secret"}
