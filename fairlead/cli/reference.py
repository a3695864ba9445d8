"""The parts of the reference pages that the code itself knows: commands with their options, and settings.

`python -m fairlead.cli.reference` rewrites them in `docs/reference`; a test fails while a page is behind.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import typer

from fairlead.cli.commands import command_line
from fairlead.sdk.settings import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[2] / "docs/reference"


def render(part: str) -> str:
    """One generated part as Markdown."""
    lines = {
        "commands": _commands,
        "client-settings": _client_settings,
        "server-settings": _server_settings,
        "target-kinds": _target_kinds,
        "target-deliveries": _target_deliveries,
    }[part]()
    return "\n".join(lines) + "\n"


def update(page: str) -> str:
    """A page with each of its parts (`<!-- begin PART -->` to `<!-- end PART -->`) rendered anew."""
    return re.sub(
        r"(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->)",
        lambda found: f"{found[1]}\n{render(found[2])}\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def command_paths() -> list[str]:
    """Every command as it is typed, such as `model promote`."""
    return [path for path, _ in _walk(typer.main.get_command(command_line()), "")]


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    members: dict[str, Any] | None = getattr(command, "commands", None)
    if members is None:
        yield path, command
        return
    if getattr(command, "invoke_without_command", False):
        yield path, command
    for name, member in members.items():
        yield from _walk(member, f"{path} {name}".strip())


def _commands() -> Iterator[str]:
    for path, command in _walk(typer.main.get_command(command_line()), ""):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join(f"{each.metavar or each.name.upper()}" for each in arguments)
        yield f"### `fairlead {path}{' ' + usage if usage else ''}`\n"
        yield f"{command.help}\n"
        rows = [_parameter(each) for each in command.params if each.name != "output"]
        if rows:
            yield from ("| | meaning | default |", "|---|---|---|", *rows, "")


def _parameter(each: Any) -> str:
    if each.param_type_name == "argument":
        name = each.metavar or each.name.upper()
    else:
        name = " / ".join((*each.opts, *each.secondary_opts))
    default = "needed" if each.required else _default(each.default)
    return f"| `{name}` | {_cell(each.help)} | {default} |"


def _client_settings() -> Iterator[str]:
    yield from ("| variable | meaning | default |", "|---|---|---|")
    for field in dataclasses.fields(ClientSettings):
        yield f"| `{field.metadata['env']}` | {_cell(field.metadata['help'])} | {_default(field.default)} |"


def _server_settings() -> Iterator[str]:
    from fairlead.app.settings import ServerSettings

    yield from ("| variable | meaning | default |", "|---|---|---|")
    for name, field in ServerSettings.model_fields.items():
        default: Any = field.get_default(call_default_factory=True)
        shown = _default(default.get_secret_value() if hasattr(default, "get_secret_value") else default)
        yield f"| `FAIRLEAD_{name.upper()}` | {_cell(field.description)} | {shown} |"


def _target_kinds() -> Iterator[str]:
    from fairlead.serving.kinds.registry import KINDS, find_kind

    for name, module in KINDS.items():
        if find_spec(f"fairlead.serving.kinds.{module}") is None:
            continue
        kind = find_kind(name)
        yield f"### `{kind.name}`\n"
        yield f"{_summary(sys.modules[kind.render.__module__])} Delivered by: {', '.join(kind.deliveries)}.\n"
        yield from _members(kind.settings)


def _target_deliveries() -> Iterator[str]:
    from fairlead.serving.kinds.registry import DELIVERIES

    for name, module in DELIVERIES.items():
        if find_spec(f"fairlead.serving.{module}") is None:
            continue
        delivery = import_module(f"fairlead.serving.{module}").DELIVERIES[name]
        yield f"### `{name}`\n"
        yield f"{_summary(delivery.settings)}\n"
        yield from _members(delivery.settings)


def _summary(what: object) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(what) or "").partition("\n\n")[0].split())


def _members(model: Any) -> Iterator[str]:
    """A table of the members of a pydantic model."""
    if not model.model_fields:
        return
    yield from ("| member | meaning | default |", "|---|---|---|")
    for name, field in model.model_fields.items():
        default = "needed" if field.is_required() else _default(field.get_default(call_default_factory=True))
        choices = ", ".join(f"`{each}`" for each in _choices(field.annotation))
        meaning = _cell(field.description) + (f" {choices}." if choices else "")
        yield f"| `{name}` | {meaning} | {default} |"
    yield ""


def _choices(annotation: Any) -> list[str]:
    """The words that a member may be, where they are few."""
    if get_origin(annotation) is Literal:
        return [str(each) for each in get_args(annotation)]
    return [each for part in get_args(annotation) for each in _choices(part)]


def _default(value: object) -> str:
    if value is None or value is False or value in ("", [], (), {}):
        return ""
    if value is True:
        return "yes"
    return f"`PT{value.total_seconds():g}S`" if isinstance(value, timedelta) else f"`{value}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def main() -> None:
    """Rewrite the generated parts of every reference page."""
    for path in sorted(FOLDER.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        path.write_text(update(page), encoding="utf-8")


if __name__ == "__main__":
    main()
