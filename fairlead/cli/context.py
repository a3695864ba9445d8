"""What every command has: `--output`, and a connection made when it is first needed."""

from __future__ import annotations

import functools
import inspect
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.output import Output, OutputFormat, discard_stdout

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from fairlead.sdk.client import Fairlead

_OUTPUT_OPTION = Annotated[
    OutputFormat, typer.Option("--output", "-o", help="How to print the answer.", envvar="FAIRLEAD_OUTPUT")
]
_DRY_RUN_OPTION = Annotated[bool, typer.Option("--dry-run", help="Check and show what would be; change nothing.")]
_output: ContextVar[Output | None] = ContextVar("output", default=None)
_is_dry_run: ContextVar[bool] = ContextVar("is_dry_run", default=False)


def current_output() -> Output:
    """How this command answers."""
    return _output.get() or Output()


def is_dry_run() -> bool:
    """Whether this command was asked to change nothing; then there is nothing to wait for either."""
    return _is_dry_run.get()


@contextmanager
def connected() -> Generator[tuple[Fairlead, Output]]:
    """The client that the environment names, and the output."""
    from stamina.instrumentation import set_on_retry_hooks

    import fairlead

    # Retries are no answer: structlog, where it is installed, would print them to stdout.
    set_on_retry_hooks([])
    with fairlead.connect() as connection:
        client = connection.dry_run() if is_dry_run() else connection
        client.record.notify = current_output().message
        yield client, current_output()


def group(help_text: str, *, add_completion: bool = False) -> typer.Typer:
    """A group of commands, with plain help (drawing boxes costs a quarter of a second)."""
    return typer.Typer(
        help=help_text,
        short_help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=add_completion,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def command(
    app: typer.Typer, name: str, *, has_dry_run: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of a group, and give it `--output`, and `--dry-run` where it changes state.

    A command whose dry run says more than its answer (a plan) has an option of its own instead.
    """
    common: dict[str, tuple[object, object]] = {"output": (_OUTPUT_OPTION, "human")}
    if has_dry_run:
        common["dry_run"] = (_DRY_RUN_OPTION, False)

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*arguments: Any, output: OutputFormat, **options: Any) -> None:
            _output.set(Output(output))
            _is_dry_run.set(has_dry_run and options.pop("dry_run"))
            try:
                function(*arguments, **options)
                if is_dry_run():
                    current_output().message("A dry run: nothing was changed.")
                sys.stdout.flush()
            except BrokenPipeError:
                discard_stdout()

        # Typer reads a command's options from its signature.
        signature = inspect.signature(function, eval_str=True)
        options = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for option, (annotation, default) in common.items()
        ]
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *options])  # pyright: ignore[reportAttributeAccessIssue]  (inspect reads it)
        run.__annotations__ = {p.name: p.annotation for p in [*signature.parameters.values(), *options]}
        # Given here, the summary in a group's list is not cut off.
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        return app.command(name, short_help=summary)(run)

    return register
