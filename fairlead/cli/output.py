"""Where answers go: data to stdout, everything else to stderr.

`human` draws tables that fit the terminal, `json` prints the SDK's records as JSON, `quiet` prints the first column
alone, for pipes. Colour and progress bars appear only on a terminal, and never with NO_COLOR set.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

OutputFormat = Literal["human", "json", "quiet"]
_PIPE_WIDTH = 160


class Output:
    """How one command answers."""

    def __init__(
        self, form: OutputFormat = "human", *, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.form: OutputFormat = form
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr

    def table(
        self, items: Iterable[Record | dict[str, Any]], columns: Sequence[str], *, title: str | None = None
    ) -> None:
        """Show many things of one kind; `columns` are the members that `human` shows, dots reach inside."""
        rows = [item.to_json() if isinstance(item, Record) else item for item in items]
        if self.form == "json":
            self._print_json(rows)
        elif self.form == "quiet":
            for row in rows:
                self._stdout.write(f"{render_value(reach(row, columns[0]))}\n")
        else:
            self._print_table(
                [[render_value(reach(row, column)) for column in columns] for row in rows], columns, title
            )

    def record(self, item: Record | dict[str, Any], *, human: Callable[[dict[str, Any]], str] | None = None) -> None:
        """Show one thing: by `human`'s text, or as a list of its members."""
        row = item.to_json() if isinstance(item, Record) else item
        if self.form == "json":
            self._print_json(row)
        elif self.form == "quiet":
            self._stdout.write(f"{render_value(next(iter(row.values()), ''))}\n")
        elif human is not None:
            self._stdout.write(human(row).rstrip() + "\n")
        else:
            width = max((len(key) for key in row), default=0)
            for key, value in row.items():
                if value not in (None, "", [], {}):
                    self._stdout.write(f"{_words(key):<{width}}  {render_value(value)}\n")

    def message(self, text: str) -> None:
        """Tell the person something that is not data."""
        if self.form != "quiet":
            self._stderr.write(text + "\n")

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar of bytes (done, total) on a terminal; silent elsewhere."""
        if self.form != "human" or not self._stderr.isatty():
            yield lambda _done, _total: None
            return
        from rich.console import Console  # noqa: PLC0415  (rich costs more than the rest of a command)
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(file=self._stderr), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _print_json(self, value: object) -> None:
        self._stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def _print_table(self, rows: list[list[str]], columns: Sequence[str], title: str | None) -> None:
        from rich import box  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
        for column in columns:
            table.add_column(_words(column.rpartition(".")[2]), overflow="fold")
        for row in rows:
            # Text, not markup: a name such as `[red]` is a name.
            table.add_row(*(Text(cell) for cell in row))
        width = None if self._stdout.isatty() else _PIPE_WIDTH
        Console(file=self._stdout, width=width, highlight=False).print(table)


def reach(row: dict[str, Any], path: str) -> object:
    """The member of a JSON object at a dotted path; None where there is none."""
    value: object = row
    for key in path.split("."):
        value = cast("dict[str, object]", value).get(key) if isinstance(value, dict) else None
    return value


def render_value(value: object) -> str:
    """A JSON value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(render_value(item) for item in cast("list[object]", value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={render_value(item)}" for key, item in cast("dict[str, object]", value).items()) or "-"
    text = str(value)
    if text.startswith("sha256:") and len(text) == 71:  # noqa: PLR2004
        return text[:19]
    # A name from outside must not move the cursor or colour the terminal.
    return "".join(character if character.isprintable() else "?" for character in text)


def _words(key: str) -> str:
    return key.replace("_", " ")
