"""Where answers go: data to stdout, everything else to stderr.

`human` draws tables that fit the terminal, `json` prints the SDK's records as JSON, `quiet` prints one member of each
thing alone, for pipes. Progress bars and colour appear on a terminal only, colour never with NO_COLOR set. Whatever a
name from outside holds, no form prints a control character: JSON escapes it, the others show a `?`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

OutputFormat = Literal["human", "json", "quiet", "markdown"]

_PIPE_WIDTH = 160
_COLUMN_GAP = 3
_LEAST_WIDTH = 7
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHORT_DIGEST_LENGTH = 19
_DIGITS_INSIDE = re.compile(r"(?<![0-9a-f])([0-9a-f]{12})[0-9a-f]{52}(?![0-9a-f])")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{1,6}Z")
_NOTHING: tuple[object, ...] = (None, "", [], {})


class Output:
    """How one command answers."""

    def __init__(
        self,
        form: OutputFormat = "human",
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        nothing: str = "There is nothing to list.",
    ) -> None:
        """`nothing` is what `human` says in the place of an empty table."""
        self.form: OutputFormat = form
        self._nothing = nothing
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr

    def table(
        self, items: Iterable[Record | dict[str, Any]], columns: Sequence[str], *, title: str | None = None
    ) -> None:
        """Show many things of one kind.

        `columns` are the members that `human` shows (dots reach inside, digests are shortened) and the first of them is
        what `quiet` prints; `json` prints everything.
        """
        rows = [item.to_json() if isinstance(item, Record) else item for item in items]
        if self.form == "json":
            self._print_json(rows)
        elif self.form == "quiet":
            self._stdout.writelines(f"{render_value(reach(row, columns[0]))}\n" for row in rows)
        elif self.form == "markdown":
            heads = [_words(column.rpartition(".")[2]) for column in columns]
            cells = [[render_value(reach(row, column)) for column in columns] for row in rows]
            self._stdout.write(markdown_table(heads, cells))
        elif not rows:
            self.message(self._nothing)
        else:
            self._print_table(rows, columns, title)

    def record(
        self,
        item: Record | dict[str, Any],
        *,
        human: Callable[[dict[str, Any]], str] | None = None,
        markdown: Callable[[dict[str, Any]], str] | None = None,
        name: str | None = None,
    ) -> None:
        """Show one thing: by `human`'s text (or `markdown`'s), or as a list of its members.

        `name` is the member that `quiet` prints, the first one if none is given.
        """
        row = item.to_json() if isinstance(item, Record) else item
        if self.form == "json":
            self._print_json(row)
        elif self.form == "quiet":
            self._stdout.write(f"{render_value(row[name] if name else next(iter(row.values()), None))}\n")
        elif self.form == "markdown":
            members = [[f"{_words(key)}", render_value(value)] for key, value in row.items() if value not in _NOTHING]
            text = markdown_table(["", ""], members) if markdown is None else markdown(row)
            self._stdout.write(without_controls(text.rstrip()) + "\n")
        elif human is not None:
            self._stdout.write(without_controls(human(row).rstrip()) + "\n")
        else:
            shown = {_words(key): value for key, value in _spread(row) if value not in _NOTHING}
            width = max((len(key) for key in shown), default=0)
            self._stdout.writelines(f"{key:<{width}}  {render_value(value)}\n" for key, value in shown.items())

    def lines(self, items: Iterable[Record | dict[str, Any]], columns: Sequence[str]) -> None:
        """Show things one by one as they come, one a line: `json` prints each as an object, others its columns."""
        for item in items:
            row = item.to_json() if isinstance(item, Record) else item
            if self.form == "json":
                self._stdout.write(json.dumps(row) + "\n")  # ASCII: it holds nothing that a terminal obeys
            else:
                shown = columns[:1] if self.form == "quiet" else columns
                cells = (render_value(reach(row, column), is_short=self.form == "human") for column in shown)
                self._stdout.write("  ".join(cells) + "\n")
            self._stdout.flush()

    def message(self, text: str) -> None:
        """Tell the person something that is not data."""
        if self.form != "quiet":
            self._stderr.write(without_controls(text) + "\n")

    @contextmanager
    def progress(self, what: str) -> Generator[Callable[[int, int], None]]:
        """A progress bar of bytes (done, total) on a terminal; silent elsewhere."""
        if self.form != "human" or not self._stderr.isatty():
            yield lambda _done, _total: None
            return
        from fairlead.sdk.progress_bar import progress_bar

        with progress_bar(without_controls(what), self._stderr) as advance:
            yield advance

    @contextmanager
    def waiting(self, what: str) -> Generator[None]:
        """A sign on a terminal that something goes on whose end nobody knows; silent elsewhere."""
        if self.form != "human" or not self._stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(file=self._stderr).status(without_controls(what)):
            yield

    def _print_json(self, value: object) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        # What JSON lets stand, a terminal might obey: DEL, C1 controls, direction marks, half surrogates.
        self._stdout.write(
            "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text) + "\n"
        )

    def _print_table(self, rows: Sequence[dict[str, Any]], columns: Sequence[str], title: str | None) -> None:
        from rich import box
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=self._stdout, width=None if self._stdout.isatty() else _PIPE_WIDTH, highlight=False)
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
        headings = [without_controls(_words(column.rpartition(".")[2])) for column in columns]
        cells = [[render_value(reach(row, column), is_short=True) for column in columns] for row in rows]
        widths = [max(map(cell_len, texts)) for texts in zip(headings, *cells, strict=True)]
        unbroken = _find_unbroken(widths, console.width - _COLUMN_GAP * len(columns))
        # Text, not markup, in every cell and heading.
        for number, heading in enumerate(headings):
            table.add_column(Text(heading), overflow="fold", no_wrap=number in unbroken)
        for texts in cells:
            table.add_row(*map(Text, texts))
        console.print(table)


def _find_unbroken(widths: Sequence[int], room: int) -> set[int]:
    """The columns, the narrowest first, that are shown unbroken while every other one keeps some width."""
    unbroken: set[int] = set()
    for number in sorted(range(len(widths)), key=widths.__getitem__):
        room -= widths[number]
        if room < _LEAST_WIDTH * (len(widths) - len(unbroken) - 1):
            break
        unbroken.add(number)
    return unbroken


def discard_stdout() -> None:
    """Let go of a stdout whose reader left (`| head`), so that the interpreter does not complain of it at exit."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  (a device)
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def reach(row: dict[str, Any], path: str) -> object:
    """The member of a JSON object of that name, or at that dotted path; None where there is none."""
    if path in row:
        return row[path]
    value: object = row
    for key in path.split("."):
        value = cast("dict[str, object]", value).get(key) if isinstance(value, dict) else None
    return value


def render_value(value: object, *, is_short: bool = False) -> str:
    """A JSON value as a person reads it, on one line.

    `is_short` cuts digests to their first digits, those inside an object's key too, and times to whole seconds.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        items = cast("list[object]", value)
        return ", ".join(render_value(item, is_short=is_short) for item in items) or "-"
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        rendered = (f"{key}={_render_inner(item, is_short=is_short)}" for key, item in members.items())
        return without_controls(", ".join(rendered), keep="") or "-"
    text = without_controls(str(value), keep="")
    if not is_short:
        return text
    if _DIGEST.fullmatch(text):
        return text[:_SHORT_DIGEST_LENGTH]
    time = _TIME.fullmatch(text)
    return f"{time[1]}Z" if time else _DIGITS_INSIDE.sub(r"\1…", text)


def _render_inner(value: object, *, is_short: bool) -> str:
    text = render_value(value, is_short=is_short)
    return f"({text})" if isinstance(value, dict | list) and value else text


def _spread(row: dict[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """The members of a thing; what holds objects itself has a line for each of their members."""
    for key, value in row.items():
        name = f"{above}{key}"
        items: list[tuple[str, object]] = []
        if isinstance(value, dict):
            items = list(cast("dict[str, object]", value).items())
        elif isinstance(value, list):
            items = [(str(number), item) for number, item in enumerate(cast("list[object]", value), start=1)]
        has_objects = any(isinstance(item, dict) and item for _, item in items)
        if has_objects:
            yield from _spread(dict(items), f"{name}.")
        elif isinstance(value, dict) and above:
            yield from _spread(cast("dict[str, Any]", value), f"{name}.")
        else:
            yield name, value


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; nothing in a cell is markup."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(markdown_text(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """A text that Markdown shows as it is, on one line: no markup, no link, no mention of a user."""
    flat = " ".join(without_controls(text, keep="").split())
    escaped = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@&#8203;")


def without_controls(text: str, *, keep: str = "\n") -> str:
    """The text with a `?` for each character that could move the cursor, colour the terminal or reverse the line."""
    return "".join(each if each.isprintable() or each in keep else "?" for each in text)


def _words(key: str) -> str:
    return key.replace("_", " ")
