"""Gates as expressions: a part of CEL (the Common Expression Language) that always ends, and soon.

An expression is parsed and checked when a policy is applied: every variable must be one of `CONTEXT`, every member one
that it has, and the whole must be true or false. What is wrong is refused with its line and column. An expression is at
most 1000 characters long and holds neither loops nor regular expressions, so that evaluating it takes no longer than
reading it, and there is a time limit for all of a policy's gates besides.

Numbers are doubles, whether written `1` or `1.0`. As in CEL, `&&` and `||` do not ask for what no longer matters: a
side that cannot be evaluated is forgiven where the other one decides.
"""

from __future__ import annotations

import functools
import math
import operator
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.clock import format_time
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.registry.gate_kinds import (
    ANY,
    BOOL,
    CONTEXT,
    DURATION,
    LIST,
    NULL,
    NUMBER,
    TEXT,
    TIME,
    Kind,
    comparable,
)

if TYPE_CHECKING:
    from lark import Token, Tree

EXPRESSION_MAX_LENGTH = 1_000
EVALUATION_SECONDS = 1.0
"""All of a promotion's expressions together."""

_DEPTH_MAX = 220
_LOOPS = frozenset({"all", "exists", "exists_one", "map", "filter", "reduce", "min"})
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_UNIT_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "relation_lt": operator.lt,
    "relation_le": operator.le,
    "relation_gt": operator.gt,
    "relation_ge": operator.ge,
    "relation_eq": operator.eq,
    "relation_ne": operator.ne,
}
_SIGNS = {"relation_lt": "<", "relation_le": "<=", "relation_gt": ">", "relation_ge": ">=", "relation_in": "in"}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "addition_add": operator.add,
    "addition_sub": operator.sub,
    "multiplication_mul": operator.mul,
    "multiplication_div": operator.truediv,
    "multiplication_mod": math.fmod,
}
_TEXT_METHODS: dict[str, Callable[[str, str], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
}


class CannotEvaluate(Exception):
    """Why an expression has no value for these facts; `root` is the variable that lacks something."""

    def __init__(self, detail: str, *, root: str | None = None, member: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.root = root
        self.member = member


@dataclass(slots=True)
class _Run:
    """One evaluation: the facts, what was asked of them, and until when it may take."""

    facts: Mapping[str, object]
    ends: float
    used: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])


_Value = Callable[[_Run], Any]


@dataclass(frozen=True, slots=True)
class _Term:
    """A part of an expression: its kind, how to evaluate it, and its path where it is a fact (`metrics.auc`)."""

    kind: Kind
    value: _Value
    path: str | None = None
    at: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What an expression came to: `is_true` is None where it has no value, and `error` then says why."""

    is_true: bool | None
    used: Mapping[str, JsonValue]
    error: CannotEvaluate | None = None


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression."""

    text: str
    _root: _Term

    def evaluate(self, facts: Mapping[str, object], *, deadline: float | None = None) -> Evaluated:
        """Evaluate over facts shaped as `CONTEXT` says; `deadline` is of `time.monotonic`."""
        run = _Run(facts, time.monotonic() + EVALUATION_SECONDS if deadline is None else deadline)
        try:
            result = self._root.value(run)
        except CannotEvaluate as error:
            return Evaluated(is_true=None, used=run.used, error=error)
        except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
            return Evaluated(is_true=None, used=run.used, error=CannotEvaluate(f"It has no value: {error}."))
        if not isinstance(result, bool):
            return Evaluated(is_true=None, used=run.used, error=CannotEvaluate("It is neither true nor false."))
        return Evaluated(is_true=result, used=run.used)


@functools.lru_cache(maxsize=512)
def compile_expression(text: str) -> Expression:
    """Parse and check an expression.

    Raises:
        InvalidInput: saying what is wrong, with `line` and `column`.
    """
    if len(text) > EXPRESSION_MAX_LENGTH:
        raise InvalidInput(
            f"The expression is longer than {EXPRESSION_MAX_LENGTH} characters.", hint="Make two gates of it."
        )
    try:
        tree = _parse(text)
        _check_depth(tree)
        root = _Compiler().term(tree)
    except RecursionError:
        raise _wrong("The expression is nested too deeply", (1, 1)) from None
    except OverflowError:
        raise _wrong("The expression holds a number that is too large", (1, 1)) from None
    if root.kind not in {BOOL, ANY}:
        raise _wrong(f"The expression is {root.kind}, and a gate must be true or false", root.at)
    return Expression(text, root)


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `36h`, `7d` or `1h30m`.

    Raises:
        InvalidInput: if it is none.
    """
    parts = list(_DURATION_PART.finditer(text)) if len(text) <= 40 else []
    if not parts or "".join(part[0] for part in parts) != text:
        raise InvalidInput(f"{text[:40]!r} is no duration.", hint="Write it like 36h, 7d or 1h30m.")
    seconds = sum(float(part[1]) * _UNIT_SECONDS[part[2]] for part in parts)
    if seconds > 100 * 366 * 86_400:
        raise InvalidInput(f"{text[:40]!r} is more than a hundred years.", hint="Write it like 36h or 7d.")
    return timedelta(seconds=seconds)


def parse_moment(text: str) -> datetime:
    """Read a time in RFC 3339.

    Raises:
        InvalidInput: if it is none, or says no time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
        in_utc = None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        in_utc = None
    if in_utc is None:
        raise InvalidInput(f"{text[:40]!r} is no time.", hint="Write it like 2026-12-24T18:00:00Z.")
    return in_utc


def _parse(text: str) -> Tree[Token]:
    # Half a second, which only those pay that have such gates.
    from celpy.celparser import CELParseError

    try:
        return _parser().parse(text)
    except CELParseError as error:
        at = (error.line or 1, error.column or max(len(text), 1))
        raise _wrong("The expression is no CEL", at) from None


@functools.cache
def _parser() -> Any:
    from celpy.celparser import CELParser

    return CELParser()


def _check_depth(tree: Tree[Token]) -> None:
    level: list[Any] = [tree]
    for _ in range(_DEPTH_MAX):
        level = [child for node in level for child in cast("list[Any]", node.children) if hasattr(child, "children")]
        if not level:
            return
    raise _wrong("The expression is nested too deeply", (1, 1))


class _Compiler:
    """Turns each node of the syntax tree into a term, from the leaves up."""

    def term(self, node: Any) -> _Term:
        children = [child for child in node.children if child is not None]
        name = str(node.data)
        rule = getattr(self, f"_{name}", None)
        if rule is not None and not (name in _TRANSPARENT and len(children) == 1):
            return cast("_Term", rule(node, children))
        if len(children) == 1 and hasattr(children[0], "children"):
            return self.term(children[0])
        raise _wrong(f"Gates have no {name.replace('_', ' ')}", _at(node))

    # Logic.

    def _expr(self, node: Any, children: list[Any]) -> _Term:
        condition, then, otherwise = (self.term(child) for child in children)
        _expect(condition, BOOL, "A condition")
        kind = then.kind if then.kind == otherwise.kind else ANY

        def value(run: _Run) -> Any:
            return then.value(run) if _truth(condition.value(run)) else otherwise.value(run)

        return _Term(kind, value, at=_at(node))

    def _conditionalor(self, node: Any, children: list[Any]) -> _Term:
        return self._decide(node, children, deciding=True, sign="||")

    def _conditionaland(self, node: Any, children: list[Any]) -> _Term:
        return self._decide(node, children, deciding=False, sign="&&")

    def _decide(self, node: Any, children: list[Any], *, deciding: bool, sign: str) -> _Term:
        left, right = (self.term(child) for child in children)
        _expect(left, BOOL, f"The left side of {sign}")
        _expect(right, BOOL, f"The right side of {sign}")

        def value(run: _Run) -> bool:
            try:
                first = _truth(left.value(run))
            except (CannotEvaluate, ArithmeticError, TypeError):
                if _truth(right.value(run)) is deciding:
                    return deciding
                raise
            return first if first is deciding else _truth(right.value(run))

        return _Term(BOOL, value, at=_at(node))

    def _relation(self, node: Any, children: list[Any]) -> _Term:
        operation, right_node = children
        name = str(operation.data)
        left, right = self.term(operation.children[0]), self.term(right_node)
        if name == "relation_in":
            if right.kind.name not in {"map", "list", "any"}:
                raise _wrong(f"'in' needs a map or a list, not {right.kind}", right.at)
            return _Term(BOOL, lambda run: _is_in(left.value(run), right.value(run)), at=_at(node))
        if not comparable(left.kind, right.kind, is_equality=name in {"relation_eq", "relation_ne"}):
            sign = _SIGNS.get(name, "==")
            raise _wrong(f"{left.kind} cannot be compared ({sign}) with {right.kind}", left.at)
        compare = _RELATIONS[name]
        is_order = name not in {"relation_eq", "relation_ne"}

        def value(run: _Run) -> bool:
            one, other = left.value(run), right.value(run)
            if is_order and (one is None or other is None):
                missing = left if one is None else right
                raise CannotEvaluate(f"{missing.path or 'One side'} is null.", root=(missing.path or "").split(".")[0])
            return bool(compare(one, other)) if _same_kind(one, other) or not is_order else _unequal(one, other)

        return _Term(BOOL, value, at=_at(node))

    # Arithmetic.

    def _addition(self, node: Any, children: list[Any]) -> _Term:
        operation, right_node = children
        name = str(operation.data)
        left, right = self.term(operation.children[0]), self.term(right_node)
        kind = _sum_kind(name, left.kind, right.kind)
        if kind is None:
            raise _wrong(f"{left.kind} and {right.kind} cannot be put together so", left.at)
        compute = _ARITHMETIC[name]

        def value(run: _Run) -> Any:
            one, other = left.value(run), right.value(run)
            if one is None or other is None:
                raise CannotEvaluate(f"{(left if one is None else right).path or 'One side'} is null.")
            return compute(one, other)

        return _Term(kind, value, at=_at(node))

    _multiplication = _addition

    def _unary(self, node: Any, children: list[Any]) -> _Term:
        operation, operand_node = children
        operand = self.term(operand_node)
        if str(operation.data) == "unary_not":
            _expect(operand, BOOL, "What ! turns round")
            return _Term(BOOL, lambda run: not _truth(operand.value(run)), at=_at(node))
        _expect(operand, NUMBER, "What - turns round")
        return _Term(NUMBER, lambda run: -_number(operand.value(run)), at=_at(node))

    # Facts.

    def _ident(self, node: Any, children: list[Any]) -> _Term:
        name = str(children[0])
        if name not in CONTEXT:
            raise _wrong(f"There is no variable {name!r}; there are {', '.join(CONTEXT)}", _at(node))

        def value(run: _Run) -> Any:
            found = run.facts.get(name)
            _note(run, name, found)
            return found

        return _Term(CONTEXT[name], value, path=name, at=_at(node))

    def _member_dot(self, node: Any, children: list[Any]) -> _Term:
        of, member = self.term(children[0]), str(children[1])
        return self._reach(node, of, member)

    def _member_index(self, node: Any, children: list[Any]) -> _Term:
        of, index = self.term(children[0]), self.term(children[1])
        constant = index.value(_NOTHING) if index.path is None and index.kind in {TEXT, NUMBER} else None
        if isinstance(constant, str):
            return self._reach(node, of, constant)
        if of.kind.name == "list" or (of.kind == ANY and isinstance(constant, float)):
            return _Term(ANY, lambda run: _nth(of.value(run), index.value(run)), at=_at(node))
        raise _wrong("An index is a text in quotes, or the number of a list's item", index.at)

    def _reach(self, node: Any, of: _Term, member: str) -> _Term:
        kind = of.kind.member(member)
        if kind is None:
            has = f"; it has {', '.join(of.kind.names)}" if of.kind.names else ""
            raise _wrong(f"{of.path or of.kind} has no member {member!r}{has}", _at(node))
        path = None if of.path is None else f"{of.path}.{member}"

        def value(run: _Run) -> Any:
            container = of.value(run)
            if not isinstance(container, Mapping) or member not in container:
                what = f"{of.path or 'What was asked'} " + ("is null." if container is None else f"has no {member!r}.")
                raise CannotEvaluate(what, root=(of.path or "").split(".")[0], member=member)
            found = cast("Mapping[str, object]", container)[member]
            if path is not None:
                run.used.pop(cast("str", of.path), None)
                _note(run, path, found)
            return found

        return _Term(kind, value, path=path, at=_at(node))

    # Calls.

    def _ident_arg(self, node: Any, children: list[Any]) -> _Term:
        name, arguments = str(children[0]), self._arguments(children)
        if len(arguments) != 1 or name not in {"has", "size", "duration", "timestamp", "double", "int", "string"}:
            raise _wrong(
                f"There is no function {name!r} of that many values; there are has, size, duration, timestamp, double, "
                "int, string",
                _at(node),
            )
        (argument,) = arguments
        if name in {"duration", "timestamp"}:
            return _constant_time(name, argument, _at(node))
        if name == "has":
            return _Term(BOOL, lambda run: _has(argument, run), at=_at(node))
        if name == "size":
            if argument.kind.name not in {"map", "list", "text", "any"}:
                raise _wrong(f"{argument.kind} has no size", argument.at)
            return _Term(NUMBER, lambda run: float(len(argument.value(run))), at=_at(node))
        if name == "string":
            return _Term(TEXT, lambda run: _as_text(argument.value(run)), at=_at(node))
        convert: Callable[[Any], float] = float if name == "double" else lambda each: float(int(float(each)))
        return _Term(NUMBER, lambda run: convert(argument.value(run)), at=_at(node))

    def _member_dot_arg(self, node: Any, children: list[Any]) -> _Term:
        of, name, arguments = self.term(children[0]), str(children[1]), children[2:]
        if name in _LOOPS:
            raise _wrong(f"Gates hold no loops, and {name} is one", _at(node))
        if name not in _TEXT_METHODS:
            raise _wrong(f"There is no method {name!r}; there are {', '.join(_TEXT_METHODS)}", _at(node))
        inner: list[Any] = arguments[0].children if arguments else []
        found = [self.term(child) for child in inner]
        if len(found) != 1:
            raise _wrong(f"{name} takes one text", _at(node))
        _expect(of, TEXT, f"What {name} looks at")
        _expect(found[0], TEXT, f"What {name} looks for")
        method = _TEXT_METHODS[name]
        return _Term(BOOL, lambda run: method(_as_text(of.value(run)), _as_text(found[0].value(run))), at=_at(node))

    def _arguments(self, children: list[Any]) -> list[_Term]:
        return [self.term(child) for child in children[1].children] if len(children) > 1 else []

    # Constants.

    def _literal(self, node: Any, children: list[Any]) -> _Term:
        token = children[0]
        text = str(token)
        if token.type in {"INT_LIT", "UINT_LIT", "FLOAT_LIT"}:
            bare = text.rstrip("uU")
            number = float(int(bare, 16)) if "0x" in bare else float(bare)
            return _Term(NUMBER, lambda _: number, at=_at(node))
        if token.type == "BOOL_LIT":
            return _Term(BOOL, lambda _: text == "true", at=_at(node))
        if token.type == "NULL_LIT":
            return _Term(NULL, lambda _: None, at=_at(node))
        if token.type == "STRING_LIT":
            said = _unquote(text, _at(node))
            return _Term(TEXT, lambda _: said, at=_at(node))
        raise _wrong("Gates hold numbers, texts on one line, true, false and null", _at(node))

    def _list_lit(self, node: Any, children: list[Any]) -> _Term:
        items = [self.term(child) for child in cast("list[Any]", children[0].children)] if children else []
        return _Term(LIST, lambda run: [item.value(run) for item in items], at=_at(node))


_TRANSPARENT = frozenset({"expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary"})
_NOTHING = _Run(facts={}, ends=math.inf)


def _wrong(detail: str, at: tuple[int, int]) -> InvalidInput:
    line, column = at
    return InvalidInput(
        f"{detail} (line {line}, column {column}).", hint="See docs/reference/policy.md.", line=line, column=column
    )


def _at(node: Any) -> tuple[int, int]:
    meta = getattr(node, "meta", None)
    return (getattr(meta, "line", 1), getattr(meta, "column", 1))


def _expect(term: _Term, kind: Kind, what: str) -> None:
    if term.kind not in {kind, ANY}:
        raise _wrong(f"{what} must be {kind}, and is {term.kind}", term.at)


def _sum_kind(name: str, left: Kind, right: Kind) -> Kind | None:
    # A kind that is known only when it is evaluated stands for a number here.
    one, other = (NUMBER if kind == ANY else kind for kind in (left, right))
    if one == other == NUMBER:
        return NUMBER
    if one == other == DURATION and name.startswith("addition"):
        return DURATION
    if one == other == TIME and name == "addition_sub":
        return DURATION
    if one == TIME and other == DURATION and name.startswith("addition"):
        return TIME
    return None


def _note(run: _Run, path: str, found: object) -> None:
    if time.monotonic() > run.ends:
        raise CannotEvaluate("The gates took too long.")
    if not isinstance(found, Mapping):
        run.used[path] = shown(found)


def shown(value: object) -> JsonValue:
    """A fact as verdicts show it."""
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds() / 3600:.2f}h"
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise CannotEvaluate(f"{shown(value)!r} is neither true nor false.")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CannotEvaluate(f"{shown(value)!r} is no number.")
    return float(value)


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value is None or isinstance(value, Mapping | Sequence):
        raise CannotEvaluate("What is no text was asked as one.")
    return str(shown(value))


def _same_kind(one: object, other: object) -> bool:
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return isinstance(one, bool) == isinstance(other, bool)
    return type(one) is type(other)


def _unequal(one: object, other: object) -> bool:
    raise CannotEvaluate(f"{shown(one)!r} cannot be compared with {shown(other)!r}.")


def _is_in(item: object, container: object) -> bool:
    if isinstance(container, Mapping):
        return item in container
    if isinstance(container, list):
        return any(_same_kind(item, each) and item == each for each in cast("list[object]", container))
    raise CannotEvaluate("What was looked in is neither a map nor a list.")


def _nth(container: object, index: object) -> object:
    if isinstance(container, list) and isinstance(index, float) and 0 <= index < len(cast("list[object]", container)):
        return cast("list[object]", container)[int(index)]
    raise CannotEvaluate("There is no such item.")


def _has(argument: _Term, run: _Run) -> bool:
    try:
        return argument.value(run) is not None
    except CannotEvaluate:
        return False


def _constant_time(name: str, argument: _Term, at: tuple[int, int]) -> _Term:
    if argument.kind != TEXT or argument.path is not None:
        raise _wrong(f"{name} takes a text in quotes", at)
    text = cast("str", argument.value(_NOTHING))
    try:
        moment = parse_duration(text) if name == "duration" else parse_moment(text)
    except InvalidInput as error:
        raise _wrong(error.detail.rstrip("."), at) from None
    return _Term(DURATION if name == "duration" else TIME, lambda _: moment, at=at)


def _unquote(text: str, at: tuple[int, int]) -> str:
    is_raw = text[0] in "rR"
    inner = text[2:-1] if is_raw else text[1:-1]
    if is_raw or "\\" not in inner:
        return inner
    plain = {"\\n": "\n", "\\t": "\t", "\\\\": "\\", '\\"': '"', "\\'": "'"}
    found = re.sub(r"\\.", lambda each: plain.get(each[0], "\0"), inner)
    if "\0" in found:
        raise _wrong("A text holds an escape other than \\n, \\t, \\\\, \\\" and \\'", at)
    return found
