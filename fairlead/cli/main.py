"""The `fairlead` command: its groups, and how errors become exit codes.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 authentication or permission, 5 conflict, 6 refused by a gate or
rule, 7 partial success.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead import __version__
from fairlead.cli import audit, deploy, environment, features, location, model, server, token
from fairlead.cli.context import current_output, group
from fairlead.core.errors import ExitCode, FairleadError
from fairlead.core.problems import to_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

app = group("Models and features, versioned once and true in every cloud they may go to.", add_completion=True)
app.add_typer(server.app)
app.add_typer(model.app, name="model")
app.add_typer(features.app, name="features")
app.add_typer(environment.app, name="environment")
app.add_typer(location.app, name="location")
app.add_typer(deploy.app)
app.add_typer(deploy.deploy_app, name="deploy")
app.add_typer(token.app, name="token")
app.add_typer(audit.app)


@app.callback(invoke_without_command=True, no_args_is_help=True)
def root(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False
) -> None:
    """Models and features, versioned once and true in every cloud they may go to."""
    if version:
        sys.stdout.write(f"fairlead {__version__}\n")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors go to stderr, and the exit code says their kind."""
    try:
        result = app(args=None if arguments is None else list(arguments), prog_name="fairlead", standalone_mode=False)
    except FairleadError as error:
        return _tell(error)
    except typer.TyperException as error:
        error.show()
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("Interrupted. Run the same command again to go on.\n")
        return 130
    except TimeoutError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.FAILURE
    except BrokenPipeError:
        # The reader of our output left (`| head`); nothing is wrong, and the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001  (the last place that can say something readable)
        logging.getLogger("fairlead").debug("unexpected", exc_info=True)
        if os.environ.get("FAIRLEAD_DEBUG"):
            raise
        sys.stderr.write(f"error: {type(error).__name__}: {error}\nThis is a bug. Set FAIRLEAD_DEBUG=1 to see where.\n")
        return ExitCode.FAILURE
    return result if isinstance(result, int) else ExitCode.OK


def _tell(error: FairleadError) -> int:
    if current_output().form == "json":
        sys.stderr.write(json.dumps(to_problem(error), indent=2, ensure_ascii=False) + "\n")
        return error.exit_code
    sys.stderr.write(f"error: {error.detail}\n")
    plan = error.attributes.get("plan")
    if isinstance(plan, dict):
        from fairlead.cli.plans import describe_plan  # noqa: PLC0415

        sys.stderr.write(describe_plan(plan))
    if error.hint:
        sys.stderr.write(f"{error.hint}\n")
    return error.exit_code
