"""HCL, laid out as `terraform fmt` lays it out.

A body maps names to values, in the order in which they are written. A value is an argument unless it is a `Block`, or a
tuple of them for a block that repeats. A string is what it says: nothing in it is a template. What Terraform evaluates
is an `Expression`, which is written as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

Value: TypeAlias = "str | int | float | bool | Expression | Call | Sequence[Value] | Mapping[str, Value] | None"
Body: TypeAlias = "Mapping[str, Value | Block | tuple[Block, ...]]"

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ESCAPES = {
    **{chr(code): f"\\u{code:04x}" for code in (*range(0x20), 0x7F)},
    "\\": "\\\\",
    '"': '\\"',
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
# How many there are of a resource stands first, and by itself.
_FIRST = frozenset({"count", "for_each"})


@dataclass(frozen=True, slots=True)
class Expression:
    """What Terraform evaluates, such as `var.vpc_id`."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function of one argument that is written out, such as `jsonencode`."""

    function: str
    argument: Value


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a body; top-level ones have labels."""

    body: Body
    labels: tuple[str, ...] = ()


Named: TypeAlias = "Sequence[tuple[str, Block]]"
"""Top-level blocks by what they are."""


def resource(kind: str, name: str, body: Body) -> tuple[str, Block]:
    """A resource for `to_text`."""
    return "resource", Block(body, (kind, name))


def variable(name: str, kind: str, description: str, **default: Value) -> tuple[str, Block]:
    """A variable for `to_text`, nullable only where its default is null."""
    body: dict[str, Value | Block | tuple[Block, ...]] = {"type": Expression(kind), "description": description}
    body |= default
    if default.get("default", ...) is not None:
        body["nullable"] = False
    return "variable", Block(body, (name,))


def output(name: str, description: str, value: str) -> tuple[str, Block]:
    """An output for `to_text`; `value` is an expression."""
    return "output", Block({"description": description, "value": Expression(value)}, (name,))


def to_text(blocks: Sequence[tuple[str, Block]]) -> str:
    """A file of top-level blocks, an empty line between two."""
    return "\n".join("\n".join(_block(kind, block, 0)) + "\n" for kind, block in blocks)


def quote(text: str) -> str:
    """A string that Terraform reads as it is."""
    plain = "".join(_ESCAPES.get(character, character) for character in text)
    return '"' + plain.replace("${", "$${").replace("%{", "%%{") + '"'


def _block(kind: str, block: Block, depth: int) -> list[str]:
    head = " ".join([kind, *(quote(label) for label in block.labels), "{"])
    inside = _body(block.body, depth + 1)
    indent = "  " * depth
    return [f"{indent}{head}", *inside, f"{indent}}}"] if inside else [f"{indent}{head}}}"]


def _body(body: Body, depth: int) -> list[str]:
    lines: list[str] = []
    arguments: dict[str, Value] = {}
    for name, value in body.items():
        blocks = (value,) if isinstance(value, Block) else value if isinstance(value, tuple) else None
        if blocks is None and name in _FIRST:
            lines += [*_arguments({name: cast("Value", value)}, depth), ""]
            continue
        if blocks is None:
            arguments[name] = cast("Value", value)
            continue
        lines += _arguments(arguments, depth)
        arguments = {}
        for block in cast("tuple[Block, ...]", blocks):
            lines += ["", *_block(name, block, depth)] if lines else _block(name, block, depth)
    if arguments:
        after_block = [""] if lines and lines[-1].strip() == "}" else []
        lines += [*after_block, *_arguments(arguments, depth)]
    return lines


def _arguments(arguments: Mapping[str, Value], depth: int) -> list[str]:
    """Arguments in lines; equal signs stand below each other in runs of arguments that take one line each."""
    lines: list[str] = []
    run: list[tuple[str, str]] = []
    indent = "  " * depth
    for name, value in arguments.items():
        written = _value(value, depth)
        if "\n" not in written:
            run.append((name, written))
            continue
        lines += [*_aligned(run, indent), f"{indent}{name} = {written}"]
        run = []
    return "\n".join([*lines, *_aligned(run, indent)]).split("\n") if lines or run else []


def _aligned(run: Sequence[tuple[str, str]], indent: str) -> list[str]:
    width = max((len(name) for name, _ in run), default=0)
    return [f"{indent}{name:<{width}} = {value}" for name, value in run]


def _value(value: Value, depth: int) -> str:
    match value:
        case Expression(text):
            return text
        case Call(function, argument):
            return f"{function}({_value(argument, depth)})"
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"{value:g}" if isinstance(value, float) else str(value)
        case str():
            return quote(value)
        case Mapping():
            return _object(value, depth)
        case _:
            return _list(value, depth)


def _list(values: Sequence[Value], depth: int) -> str:
    written = [_value(value, depth + 1) for value in values]
    if not any("\n" in each for each in written) and sum(map(len, written)) <= 80:
        return f"[{', '.join(written)}]"
    if len(written) == 1:
        return f"[{_value(values[0], depth)}]"
    indent = "  " * (depth + 1)
    return "\n".join(["[", *(f"{indent}{each}," for each in written), "  " * depth + "]"])


def _object(members: Mapping[str, Value], depth: int) -> str:
    if not members:
        return "{}"
    names = {name if _IDENTIFIER.fullmatch(name) else quote(name): value for name, value in members.items()}
    return "\n".join(["{", *_arguments(names, depth + 1), "  " * depth + "}"])
