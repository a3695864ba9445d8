"""`fairlead login`, `logout` and `whoami`: who somebody is for the server."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli.context import command, connected, current_output, group
from fairlead.core.errors import InvalidInput
from fairlead.sdk.settings import ClientSettings

app = group("Who one is for the server.")


@command(app, "login")
def login(
    *,
    issuer: Annotated[str | None, typer.Option(help="Where to log in, if there are several places.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Workspace; none: FAIRLEAD_WORKSPACE, or the only one.")] = None,
    device: Annotated[bool, typer.Option("--device", help="Show a code to enter on another machine.")] = False,
) -> None:
    """Log in at the issuer of a workspace of FAIRLEAD_URL; the login is kept in FAIRLEAD_HOME."""
    from fairlead.sdk.logins import Logins

    settings = ClientSettings.read()
    output = current_output()
    if settings.token is not None:
        output.message("FAIRLEAD_TOKEN is set, and goes before the login.")
    done = Logins(settings.home).log_in(
        _url(settings),
        issuer=issuer,
        workspace=workspace or settings.workspace,
        is_device=device,
        show=output.message,
    )
    output.record(
        {
            "url": done.url,
            "workspace": done.workspace,
            "issuer": done.name,
            "principal": done.principal,
            "expires_at": done.expires_at,
            "is_renewed": done.refresh_token is not None,
        }
    )


@command(app, "logout")
def logout() -> None:
    """Forget the login at FAIRLEAD_URL. Its API token ends in its minutes."""
    from fairlead.sdk.logins import Logins

    settings = ClientSettings.read()
    found = Logins(settings.home).log_out(_url(settings))
    current_output().message("Nobody was logged in." if found is None else f"{found.principal} is logged out.")


@command(app, "whoami")
def whoami() -> None:
    """Show who one is: principal, groups, workspace, scopes, roles, and until when."""
    with connected() as (client, output):
        output.record(client.whoami())


def _url(settings: ClientSettings) -> str:
    if settings.url is None:
        raise InvalidInput(
            "The embedded server's owner does not log in.", hint="Set FAIRLEAD_URL to the server to log in to."
        )
    return settings.url
