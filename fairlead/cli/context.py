"""What every command has: `--output`, and a connection made when it is first needed."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.output import Output, OutputFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fairlead.sdk.client import Fairlead

_OUTPUT_OPTION = Annotated[
    OutputFormat, typer.Option("--output", "-o", help="How to print the answer.", envvar="FAIRLEAD_OUTPUT")
]
_output: ContextVar[Output | None] = ContextVar("output", default=None)


def current_output() -> Output:
    """How this command answers."""
    return _output.get() or Output()


@contextmanager
def connected() -> Iterator[tuple[Fairlead, Output]]:
    """The client that the environment names, and the output."""
    import fairlead  # noqa: PLC0415

    with fairlead.connect() as client:
        yield client, current_output()


def group(help_text: str, *, add_completion: bool = False) -> typer.Typer:
    """A group of commands, with plain help (drawing boxes costs a quarter of a second)."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, add_completion=add_completion)


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of a group, and give it `--output`."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*arguments: Any, output: OutputFormat, **options: Any) -> None:  # noqa: ANN401  (any command's)
            _output.set(Output(output))
            function(*arguments, **options)

        # Typer reads a command's options from its signature.
        signature = inspect.signature(function, eval_str=True)
        option = inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, default="human", annotation=_OUTPUT_OPTION)
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # pyright: ignore[reportAttributeAccessIssue]  (inspect reads it)
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()} | {"output": _OUTPUT_OPTION}
        return app.command(name)(run)

    return register
