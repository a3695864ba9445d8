"""A pickle's opcodes followed without running anything: what it would build, as inert nodes.

No class is imported and nothing is called: a call is a node that says what would have been called with what. Large byte
strings are not read, only noted with their place in the file. The stream's own structure bounds time and memory.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from fairlead.sync.store.formats.structure import Cursor, Unrecognised

_LINE_MAX_BYTES = 64 * 2**10
_SMALL_BYTES = 4 * 2**10
_OPCODES_MAX = 500_000
_NAME_MAX = 120
_ARGUMENT_BYTES = {opcode.code.encode("latin-1"): opcode.arg.n if opcode.arg else 0 for opcode in pickletools.opcodes}
# Negative sizes are codes: a line of text, or a length of so many bytes before the argument.
_LENGTH_BYTES = {-2: 1, -3: 4, -4: 4, -5: 8}
_LINE = -1


@dataclass(frozen=True, slots=True)
class Buffer:
    """Bytes that stand in the stream as they are: their place in the file."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function, by its name alone."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Node:
    """What a pickle would build: a container, or a call of `head` with `arguments`, then given `items` and `state`."""

    head: object = None
    arguments: object = ()
    items: list[tuple[object, object]] = field(default_factory=list[tuple[object, object]])
    state: object = None

    def is_call(self, *names: str) -> bool:
        """Whether it is a call of a function or class of one of these names, whatever its module."""
        return isinstance(self.head, Global) and self.head.name in names


def read_pickle(cursor: Cursor, on_build: Callable[[Node, Cursor], None] | None = None) -> object:
    """What the pickle at the cursor would build; the cursor is left behind its end.

    `on_build` is told of every object that was given its state: what follows in the file may then be its own.

    Raises:
        Unrecognised: if it is no pickle, or a larger one than any file of weights needs.
    """
    machine = _Machine(cursor, on_build)
    for _ in range(_OPCODES_MAX):
        opcode = cursor.take(1)
        if opcode == b".":
            return machine.pop()
        machine.run(opcode, _read_argument(cursor, opcode))
    raise Unrecognised


def iter_nodes(root: object) -> Iterator[tuple[str, Node]]:
    """Every node below a root once, with the keys that lead to it, joined by dots."""
    pending: list[tuple[str, object]] = [("", root)]
    seen: set[int] = set()
    while pending:
        name, value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        children: Sequence[tuple[object, object]]
        if isinstance(value, Node):
            yield name, value
            pending += [(name, below) for below in (value.state, value.arguments) if isinstance(below, Node | tuple)]
            children = value.items
        else:
            children = list(enumerate(cast("tuple[object, ...]", value)))
        pending += [(_join(name, key), item) for key, item in reversed(children) if isinstance(item, Node | tuple)]


def _join(name: str, key: object) -> str:
    if not isinstance(key, str | int) or len(name) > _NAME_MAX:
        return name
    return f"{name}.{str(key)[:_NAME_MAX]}" if name else str(key)[:_NAME_MAX]


def _read_argument(cursor: Cursor, opcode: bytes) -> Any:
    size = _ARGUMENT_BYTES.get(opcode)
    if size is None:
        raise Unrecognised
    if size >= 0:
        return cursor.take(size)
    if size == _LINE:
        lines = 2 if opcode in (b"c", b"i") else 1
        return [_read_line(cursor) for _ in range(lines)]
    length = cursor.number(_LENGTH_BYTES[size])
    if length <= _SMALL_BYTES:
        return cursor.take(length)
    buffer = Buffer(cursor.position, length)
    cursor.skip(length)
    return buffer


def _read_line(cursor: Cursor) -> bytes:
    line = bytearray()
    while (byte := cursor.take(1)) != b"\n":
        line += byte
        if len(line) > _LINE_MAX_BYTES:
            raise Unrecognised
    return bytes(line)


class _Machine:
    """The stack, the marks in it, and the memo of an unpickler."""

    def __init__(self, cursor: Cursor, on_build: Callable[[Node, Cursor], None] | None) -> None:
        self._cursor = cursor
        self._on_build = on_build
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self, opcode: bytes, argument: Any) -> None:
        """Do one opcode.

        Raises:
            Unrecognised: if it does not fit what was before.
        """
        constant = _CONSTANTS.get(opcode)
        if constant is not None:
            self._stack.append(constant(argument))
            return
        action = _ACTIONS.get(opcode)
        if action is None:
            raise Unrecognised
        action(self, argument)

    def pop(self) -> object:
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) <= floor:
            raise Unrecognised
        return self._stack.pop()

    def pop_to_mark(self) -> list[object]:
        if not self._marks:
            raise Unrecognised
        mark = self._marks.pop()
        found = self._stack[mark:]
        del self._stack[mark:]
        return found

    def mark(self, _argument: object) -> None:
        self._marks.append(len(self._stack))

    def drop(self, _argument: object) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self.pop()

    def drop_to_mark(self, _argument: object) -> None:
        self.pop_to_mark()

    def repeat(self, _argument: object) -> None:
        value = self.pop()
        self._stack += [value, value]

    def pass_by(self, _argument: object) -> None:
        pass

    def make_tuple(self, count: int) -> None:
        self._stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def make_marked_tuple(self, _argument: object) -> None:
        self._stack.append(tuple(self.pop_to_mark()))

    def make_marked_list(self, _argument: object) -> None:
        self._stack.append(Node(items=list(enumerate(self.pop_to_mark()))))

    def make_marked_dict(self, _argument: object) -> None:
        values = self.pop_to_mark()
        self._stack.append(Node(items=list(zip(values[::2], values[1::2], strict=False))))

    def append(self, _argument: object) -> None:
        value = self.pop()
        items = self._top().items
        items.append((len(items), value))

    def extend(self, _argument: object) -> None:
        values = self.pop_to_mark()
        items = self._top().items
        items.extend((len(items) + index, value) for index, value in enumerate(values))

    def set_item(self, _argument: object) -> None:
        value, key = self.pop(), self.pop()
        self._top().items.append((key, value))

    def set_items(self, _argument: object) -> None:
        values = self.pop_to_mark()
        self._top().items.extend(zip(values[::2], values[1::2], strict=False))

    def call(self, _argument: object) -> None:
        arguments, head = self.pop(), self.pop()
        self._stack.append(Node(head=head, arguments=arguments))

    def call_with_names(self, _argument: object) -> None:
        names, arguments, head = self.pop(), self.pop(), self.pop()
        self._stack.append(Node(head=head, arguments=(arguments, names)))

    def call_marked(self, _argument: object) -> None:
        head, *arguments = self.pop_to_mark() or [None]
        self._stack.append(Node(head=head, arguments=tuple(arguments)))

    def call_named(self, lines: list[bytes]) -> None:
        self._stack.append(Node(head=_global(lines), arguments=tuple(self.pop_to_mark())))

    def build(self, _argument: object) -> None:
        state = self.pop()
        node = self._top()
        node.state = state
        if self._on_build is not None:
            self._on_build(node, self._cursor)

    def find_global(self, _argument: object) -> None:
        name, module = self.pop(), self.pop()
        self._stack.append(Global(str(module)[:_NAME_MAX], str(name)[:_NAME_MAX]))

    def find_persistent(self, _argument: object) -> None:
        self._stack.append(Node(head=Global("", "persistent"), arguments=self.pop()))

    def remember(self, _argument: object) -> None:
        self._memo[len(self._memo)] = self._peek()

    def remember_at(self, argument: Any) -> None:
        self._memo[_index(argument)] = self._peek()

    def recall(self, argument: Any) -> None:
        index = _index(argument)
        if index not in self._memo:
            raise Unrecognised
        self._stack.append(self._memo[index])

    def _peek(self) -> object:
        if not self._stack:
            raise Unrecognised
        return self._stack[-1]

    def _top(self) -> Node:
        top = self._peek()
        if not isinstance(top, Node):
            raise Unrecognised
        return top


def _index(argument: bytes | list[bytes]) -> int:
    return int(argument[0][:20]) if isinstance(argument, list) else int.from_bytes(argument, "little")


def _global(lines: list[bytes]) -> Global:
    module, name = (line.decode("utf-8", "replace")[:_NAME_MAX] for line in lines)
    return Global(module, name)


def _unsigned(argument: bytes) -> int:
    return int.from_bytes(argument, "little")


def _signed(argument: bytes | Buffer) -> object:
    return argument if isinstance(argument, Buffer) else int.from_bytes(argument, "little", signed=True)


def _text(argument: bytes | Buffer) -> object:
    return argument if isinstance(argument, Buffer) else argument.decode("utf-8", "replace")


def _written_number(lines: list[bytes]) -> object:
    return int(lines[0][:20].rstrip(b"L") or b"0")


def _as_it_is(argument: object) -> object:
    return argument


def _node(_argument: object) -> object:
    return Node()


_CONSTANTS: dict[bytes, Callable[[Any], object]] = {
    b"I": _written_number,
    b"L": _written_number,
    b"J": _signed,
    b"K": _unsigned,
    b"M": _unsigned,
    b"\x8a": _signed,
    b"\x8b": _signed,
    b"S": lambda lines: lines[0],
    b"V": lambda lines: _text(lines[0]),
    b"T": _as_it_is,
    b"U": _as_it_is,
    b"B": _as_it_is,
    b"C": _as_it_is,
    b"\x8e": _as_it_is,
    b"\x96": _as_it_is,
    b"\x8c": _text,
    b"X": _text,
    b"\x8d": _text,
    b"N": lambda _: None,
    b"\x88": lambda _: True,
    b"\x89": lambda _: False,
    b"F": lambda _: 0.0,
    b"G": lambda argument: struct.unpack(">d", argument)[0],
    b"]": _node,
    b"}": _node,
    b"\x8f": _node,
    b")": lambda _: (),
    b"c": _global,
    b"P": lambda lines: Node(head=Global("", "persistent"), arguments=_text(lines[0])),
    b"\x82": _node,
    b"\x83": _node,
    b"\x84": _node,
    b"\x97": _node,
}

_ACTIONS: dict[bytes, Callable[[_Machine, Any], None]] = {
    b"\x80": _Machine.pass_by,
    b"\x95": _Machine.pass_by,
    b"\x98": _Machine.pass_by,
    b"(": _Machine.mark,
    b"0": _Machine.drop,
    b"1": _Machine.drop_to_mark,
    b"2": _Machine.repeat,
    b"\x85": lambda machine, _: machine.make_tuple(1),
    b"\x86": lambda machine, _: machine.make_tuple(2),
    b"\x87": lambda machine, _: machine.make_tuple(3),
    b"t": _Machine.make_marked_tuple,
    b"l": _Machine.make_marked_list,
    b"\x91": _Machine.make_marked_list,
    b"d": _Machine.make_marked_dict,
    b"a": _Machine.append,
    b"e": _Machine.extend,
    b"\x90": _Machine.extend,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    b"R": _Machine.call,
    b"\x81": _Machine.call,
    b"\x92": _Machine.call_with_names,
    b"o": _Machine.call_marked,
    b"i": _Machine.call_named,
    b"b": _Machine.build,
    b"\x93": _Machine.find_global,
    b"Q": _Machine.find_persistent,
    b"\x94": _Machine.remember,
    b"p": _Machine.remember_at,
    b"q": _Machine.remember_at,
    b"r": _Machine.remember_at,
    b"g": _Machine.recall,
    b"h": _Machine.recall,
    b"j": _Machine.recall,
}
