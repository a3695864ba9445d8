"""The `fairlead` command: its groups, and how errors become exit codes.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 authentication or permission, 5 conflict, 6 refused by a gate or
rule, 7 partial success, 8 awaiting approval (of `model promote --wait`); 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from typing import TYPE_CHECKING

import typer
from typer.exceptions import TyperException

from fairlead.cli.commands import command_line
from fairlead.cli.context import current_output
from fairlead.cli.output import without_controls
from fairlead.core.errors import ExitCode, FairleadError, InvalidInput, Unavailable
from fairlead.core.problems import to_problem
from fairlead.sync.store.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is shown escaped rather than being the end of the answer.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors go to stderr, and the exit code says their kind."""
    typed = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app = command_line(typed[0] if typed else None)
        return _leave(app(args=typed, prog_name="fairlead", standalone_mode=False))
    except SystemExit as leaving:
        return _leave(leaving.code)
    except typer.Abort:
        return _leave(INTERRUPTED)
    except TyperException as error:
        return _tell_usage(error, typed)
    except FairleadError as error:
        return _tell(error)
    except TimeoutError as error:
        return _tell(Unavailable(str(error)))
    except Exception as error:
        if os.environ.get("FAIRLEAD_DEBUG"):
            raise
        hint = "This is a mistake of Fairlead's. Set FAIRLEAD_DEBUG=1 to see where."
        return _tell(FairleadError(f"{type(error).__name__}: {error}", hint=hint))
    return ExitCode.OK


def _leave(code: object) -> int:
    if code == INTERRUPTED:
        sys.stderr.write("Interrupted. Run the same command again to go on.\n")
    return code if isinstance(code, int) else ExitCode.OK


def _tell_usage(error: TyperException, arguments: Sequence[str]) -> int:
    """A command that was typed wrongly: its options were not read, so what it says of its output is looked for."""
    text = " ".join(arguments).replace("=", " ")
    is_json = re.search(r"(^| )(--output|-o) ?json( |$)", text) or os.environ.get("FAIRLEAD_OUTPUT") == "json"
    context = getattr(error, "ctx", None)
    path = "fairlead" if context is None else context.command_path
    if not is_json:
        show: Callable[[], None] | None = getattr(error, "show", None)
        if show is None:
            return _tell(InvalidInput(error.format_message(), hint=f"See: {path} --help"))
        show()
        return error.exit_code
    return _tell(InvalidInput(error.format_message(), hint=f"See: {path} --help"), is_json=True)


def _tell(error: FairleadError, *, is_json: bool = False) -> int:
    if is_json or current_output().form == "json":
        # ASCII: an error may quote anything.
        sys.stderr.write(json.dumps(to_problem(error), indent=2) + "\n")
        return error.exit_code
    lines = [f"error: {error.detail}"]
    plan = error.attributes.get("plan")
    if isinstance(plan, dict):
        from fairlead.cli.plans import describe_plan

        lines.append(describe_plan(plan).rstrip())
    if error.hint:
        lines.append(error.hint)
    sys.stderr.write(without_controls("\n".join(lines)) + "\n")
    return error.exit_code


if __name__ == "__main__":
    main()
