"""`fairlead server`, `worker`, `db`: running Fairlead itself."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli.context import command, group
from fairlead.core.errors import MissingExtra

app = group("Running Fairlead itself.")
db_app = group("The metadata database.")
app.add_typer(db_app, name="db")


@command(app, "server")
def server(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)] = 8470,
    worker: Annotated[bool, typer.Option(help="Run a worker for every region inside.")] = True,
) -> None:
    """Serve the registry's REST API (health at /healthz, documentation at /docs)."""
    try:
        from fairlead.app.server import serve  # noqa: PLC0415  (the server's packages take seconds to import)
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    serve(host=host, port=port, has_worker=worker)


@command(app, "worker")
def worker(
    *,
    region: Annotated[list[str], typer.Option(help="CLOUD:REGION whose work to do; repeat for more.")],
) -> None:
    """Do a region's work: verify, replicate, materialize, deploy."""
    try:
        from fairlead.app.worker import run_worker  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    run_worker(regions=region)


@command(db_app, "upgrade")
def upgrade() -> None:
    """Bring the metadata database to this version's schema."""
    try:
        from fairlead.app.schema import upgrade_configured  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    upgrade_configured()


def _missing(error: ModuleNotFoundError) -> MissingExtra:
    return MissingExtra(
        f"Running a server needs {error.name}, which is not installed.", hint="Run: pip install 'fairlead[all]'"
    )
