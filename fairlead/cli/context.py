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
_MAKERS = ("add", "create", "register", "set", "apply", "begin")
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


def group(help_text: str, *, add_completion: bool = False, is_listing: bool = False) -> typer.Typer:
    """A group of commands, with plain help (drawing boxes costs a quarter of a second).

    One that `is_listing` does something by its own name too (see `listing`).
    """
    return typer.Typer(
        help=help_text,
        short_help=help_text,
        no_args_is_help=not is_listing,
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

    def register(function: Callable[..., None]) -> Callable[..., None]:
        # Given here, the summary in a group's list is not cut off.
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        return app.command(name, short_help=summary)(_with_common_options(function, has_dry_run=has_dry_run))

    return register


def listing(app: typer.Typer) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as what a group does when none of its commands is named; it gets `--output` too."""
    return lambda function: app.callback(invoke_without_command=True)(_with_common_options(function, has_dry_run=False))


def _with_common_options(function: Callable[..., None], *, has_dry_run: bool) -> Callable[..., None]:
    common: dict[str, tuple[object, object]] = {"output": (_OUTPUT_OPTION, "human")}
    if has_dry_run:
        common["dry_run"] = (_DRY_RUN_OPTION, False)

    @functools.wraps(function)
    def run(*arguments: Any, output: OutputFormat, context: typer.Context, **options: Any) -> None:
        if context.invoked_subcommand is not None:
            return
        _output.set(Output(output, nothing=_nothing_to_list(context)))
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
    added = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for option, (annotation, default) in common.items()
    ]
    added.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]  (inspect reads it)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _nothing_to_list(context: typer.Context) -> str:
    """What to type where a list has nothing to show: the command of the same group that makes something."""
    group = context.parent
    if group is None or group.parent is None:
        return f"There is nothing to list. See: {context.command_path} --help"
    made_by = next((name for name in _MAKERS if name in getattr(group.command, "commands", {})), None)
    if made_by is None:
        return f"There is nothing to list. See: {group.command_path} --help"
    return f"There is none yet. To make one: {group.command_path} {made_by} --help"
