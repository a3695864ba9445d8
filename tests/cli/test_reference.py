"""The reference pages say what the code does."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.app.settings import ServerSettings
from fairlead.cli.reference import FOLDER, command_paths, update
from fairlead.core.errors import ExitCode
from fairlead.sdk.settings import ClientSettings

ROOT = Path(__file__).parents[2]
CLI, SETTINGS, TARGETS = FOLDER / "cli.md", FOLDER / "settings.md", FOLDER / "targets.md"
SOURCES = [
    source
    for folder in ("fairlead", "registry", "sync", "featurestore", "serving", "migrations")
    for source in sorted((ROOT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("page", [CLI, SETTINGS, TARGETS], ids=lambda page: page.name)
def test_the_generated_parts_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == update(text), "Run: python -m fairlead.cli.reference"


def test_every_exit_code_is_explained() -> None:
    text = CLI.read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"\n| {code.value} | `{code.name}` | " in text


def test_every_command_is_explained() -> None:
    text = CLI.read_text(encoding="utf-8")
    for path in command_paths():
        assert re.search(rf"^### `fairlead {path}[ `]", text, re.MULTILINE)


def test_every_setting_is_explained() -> None:
    text = SETTINGS.read_text(encoding="utf-8")
    for field in dataclasses.fields(ClientSettings):
        assert f"| `{field.metadata['env']}` | {field.metadata['help']} |" in text
    for name, field in ServerSettings.model_fields.items():
        assert field.description
        assert f"| `FAIRLEAD_{name.upper()}` | {field.description} |" in text


def test_every_variable_that_the_code_names_is_explained() -> None:
    text = SETTINGS.read_text(encoding="utf-8")
    named = {name for source in SOURCES for name in re.findall(r"FAIRLEAD_[A-Z_]+[A-Z]", source.read_text())}
    assert [name for name in sorted(named) if name not in text] == []


def test_every_command_that_the_code_tells_people_to_type_exists() -> None:
    commands = command_paths()
    unknown = [
        f"{where}: fairlead {words}"
        for where, words in _typed_commands()
        if not any(words == command or words.startswith(f"{command} ") for command in commands)
    ]
    assert unknown == []


def _typed_commands() -> Iterator[tuple[str, str]]:
    """What follows `fairlead` in every `hint`, with its file and line."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.keyword) and node.arg == "hint"):
                continue
            for found in re.finditer(r"\bfairlead ((?:[a-z]+(?:-[a-z]+)* ?)+)", _literal_text(node.value)):
                yield f"{source.relative_to(ROOT)}:{node.value.lineno}", found[1].strip()


def _literal_text(node: ast.expr) -> str:
    pieces = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return "{}".join(piece for piece in pieces if isinstance(piece, str))
