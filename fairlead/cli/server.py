"""`fairlead server`, `worker`, `stop`, `db`: running Fairlead itself."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli.context import command, current_output, group
from fairlead.core.errors import MissingExtra
from fairlead.sdk.embedded import Home
from fairlead.sdk.settings import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Generator

app = group("Running Fairlead itself.")
db_app = group("The metadata database.")
app.add_typer(db_app, name="db")


@command(app, "server")
def server(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)] = 8470,
    worker: Annotated[bool, typer.Option(help="Run a worker for every region inside.")] = True,
    processes: Annotated[
        int, typer.Option(help="How many processes answer; more than one need PostgreSQL.", min=1, max=64)
    ] = 1,
) -> None:
    """Serve the registry's REST API (health at /healthz, documentation at /docs)."""
    gc.disable()  # until the server answers: an eighth of its start would go into looking for garbage
    with server_packages():
        from fairlead.app.server import serve
    serve(host=host, port=port, has_worker=worker, processes=processes)


@command(app, "worker")
def worker(
    *,
    region: Annotated[list[str], typer.Option(help="CLOUD:REGION whose work to do; repeat for more.")],
) -> None:
    """Do a region's work: verify, replicate, materialize, deploy."""
    with server_packages():
        from fairlead.app.worker import run_worker
    run_worker(regions=region)


@command(app, "stop")
def stop(
    *,
    is_all: Annotated[
        bool, typer.Option("--all", help="Also stop the processes of its deployments and the gateway.")
    ] = False,
) -> None:
    """Stop the embedded server of FAIRLEAD_HOME; what it was doing goes on at the next start."""
    with server_packages():
        from fairlead.app.cleanup import stop_everything, stop_server
    home = Home(path=ClientSettings.read().home)
    if is_all:
        stop_everything(home)
        current_output().message(f"Nothing of {home.path} runs any more.")
    else:
        was_running = stop_server(home)
        current_output().message(f"The server of {home.path} {'is stopped' if was_running else 'was not running'}.")


@command(db_app, "upgrade")
def upgrade() -> None:
    """Bring the metadata database to this version's schema."""
    with server_packages():
        from fairlead.app.schema import upgrade_configured
    upgrade_configured()


@contextmanager
def server_packages() -> Generator[None]:
    """Import what only servers need; says which extra to install where it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "fairlead":
            raise
        raise MissingExtra(
            f"Running a server needs {error.name}, which is not installed.", hint="Run: pip install 'fairlead[all]'"
        ) from error
