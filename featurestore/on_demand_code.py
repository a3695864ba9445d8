"""Runs the functions of on-demand views over columns, as Feast does where features are read online.

This file is copied as it is into what is deployed, so it imports nothing of Fairlead, and Arrow and pandas only where a
function is run. A function is given columns of one length: the features that it takes under their own names and as
`view__feature`, what it takes of the request, and the join keys. In mode `pandas` they are a DataFrame, in mode
`python` a dict of lists; a *singleton* is given one row at a time, as a dict of values. What it makes is brought to the
types that its view says, and a value that is no number of a DataFrame is a missing one.

A column has the type that its view or request source says, whatever the values of this request are: one that holds
nothing but missing values is a column of numbers all the same.
"""

from __future__ import annotations

import ast
import base64
import builtins
import importlib
import importlib.util
import symtable
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast

MODES = ("pandas", "python")
"""The modes whose functions are Python."""

_GIVEN = {"pd": "pandas", "pandas": "pandas", "np": "numpy", "numpy": "numpy"}
# What Feast makes of a stored value is a 64-bit number, whatever the view says; what is made is of the view's type.
_WIDE = {"FLOAT": "DOUBLE", "INT32": "INT64"}
_ARROW_TYPES = {
    "BOOL": "bool_",
    "INT32": "int32",
    "INT64": "int64",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "STRING": "string",
    "BYTES": "binary",
}


class RequestInvalid(ValueError):
    """The request lacks a value that a function takes, or has one of another type."""


class FunctionFailed(RuntimeError):
    """A function raised an error (which is the cause), or made something else than its view says."""


class InputMissing(FunctionFailed):
    """A stored feature that a function takes is not there."""


class FunctionNotLoadable(ValueError):
    """The text of a function is not all that it takes to run it."""


@dataclass(frozen=True)
class OnDemandFunction:
    """One on-demand view and its function.

    `inputs` are (view, feature, type), `request` and `features` (name, type).
    """

    view: str
    mode: str
    is_singleton: bool
    inputs: Sequence[tuple[str, str, str]]
    request: Sequence[tuple[str, str]]
    features: Sequence[tuple[str, str]]
    call: Callable[[Any], Any]

    def compute(
        self,
        inputs: Mapping[tuple[str, str], Any],
        given: Mapping[str, Any],
        *,
        keys: Sequence[tuple[str, str]] = (),
        has_own_types: bool = False,
    ) -> dict[str, Any]:
        """An Arrow array for each of its features.

        Args:
            inputs: the columns of stored features by view and feature: lists of values, or series.
            given: what the request says, by column.
            keys: names and types of those that are join keys.
            has_own_types: leave what the function makes as it is, as Feast does in training sets.

        Raises:
            RequestInvalid: if the request lacks a column, or has one of another type.
            InputMissing: if `inputs` lacks a feature.
            FunctionFailed: if the function fails.
        """
        arrow: Any = importlib.import_module("pyarrow")
        if missing := [f"{view}:{name}" for view, name, _ in self.inputs if (view, name) not in inputs]:
            raise InputMissing(f"The on-demand view {self.view!r} is made of {missing[0]}, which is not here.")
        columns = [(f"{view}__{name}", _column(arrow, inputs[view, name], kind)) for view, name, kind in self.inputs]
        columns += [(name, self._request_column(arrow, given, name, kind)) for name, kind in self.request]
        taken = {name for name, _ in columns} | {name for _, name, _ in self.inputs}
        columns += [
            (name, self._key_column(arrow, given, name, kind))
            for name, kind in keys
            if name in given and name not in taken
        ]
        # Last, as Feast has them.
        columns += [(name, columns[position][1]) for position, (_, name, _) in enumerate(self.inputs)]
        table = arrow.Table.from_arrays([column for _, column in columns], names=[name for name, _ in columns])
        try:
            made = self._run(table)
        except Exception as error:  # (somebody else's code ran, and may raise anything)
            raise FunctionFailed(
                f"The function of the on-demand view {self.view!r} failed: {type(error).__name__}."
            ) from error
        return {
            name: self._made(arrow, made, name, "" if has_own_types else kind, table.num_rows)
            for name, kind in self.features
        }

    def _run(self, table: Any) -> dict[str, Any]:
        if self.mode == "pandas":
            return dict(self.call(table.to_pandas()).items())
        if self.mode not in MODES:
            return dict(self.call(table).to_pydict())
        columns = table.to_pydict()
        if not self.is_singleton:
            return dict(self.call(columns))
        rows = [self.call(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        return {name: [_single(row, self.view, name, kind) for row in rows] for name, kind in self.features}

    def _request_column(self, arrow: Any, given: Mapping[str, Any], name: str, kind: str) -> Any:
        if name not in given:
            raise RequestInvalid(
                f"{name!r} is missing, a value that the on-demand view {self.view!r} takes of the request."
            )
        values = given[name]
        try:
            if isinstance(values, list):
                values = [_from_json(each, kind) for each in cast("list[Any]", values)]
            return _column(arrow, values, kind)
        except (ValueError, TypeError, OverflowError) as error:
            raise RequestInvalid(
                f"{name!r}, which the on-demand view {self.view!r} takes of the request, is {kind}, and one of its "
                "values is not."
            ) from error

    def _key_column(self, arrow: Any, given: Mapping[str, Any], name: str, kind: str) -> Any:
        values = given[name]
        if not isinstance(values, list):
            return arrow.array(values)
        read = str if kind == "STRING" else int
        try:
            named = [None if each is None else read(each) for each in cast("list[Any]", values)]
            return arrow.array(named, _arrow_type(arrow, kind))
        except (ValueError, TypeError, OverflowError) as error:
            raise RequestInvalid(f"One of the values of the join key {name!r} is not {kind}.") from error

    def _made(self, arrow: Any, made: Mapping[str, Any], name: str, kind: str, count: int) -> Any:
        own = name if name in made else f"{self.view}__{name}"
        if own not in made:
            raise FunctionFailed(f"The function of the on-demand view {self.view!r} makes no {name!r}.")
        try:
            column = _typed(arrow, made[own], kind)
        except (ValueError, TypeError, OverflowError) as error:
            raise FunctionFailed(
                f"What the function of the on-demand view {self.view!r} makes as {name!r} is not {kind or 'one type'}."
            ) from error
        if len(column) != count:
            raise FunctionFailed(
                f"The function of the on-demand view {self.view!r} makes {len(column)} values of {name!r} for {count} "
                "rows."
            )
        return column


def load_function(text: str, name: str | None = None) -> Callable[[Any], Any]:
    """The function that a text defines, or the one of that name. Executes the text, but for decorators and annotations.

    As in Feast, the text is all there is, with pandas and NumPy under their usual names.

    Raises:
        FunctionNotLoadable: if it defines none, or imports a module that is not installed here.
    """
    tree, found = _parse(text, name)
    if missing := sorted(each for each in _imported(tree) if importlib.util.find_spec(each) is None):
        raise FunctionNotLoadable(f"it imports {missing[0]}, which is not installed here")
    code = compile(tree, "<on-demand view>", "exec", dont_inherit=True)
    namespace: dict[str, Any] = {each: importlib.import_module(module) for each, module in _GIVEN.items()}
    namespace["__name__"] = "fairlead_on_demand"
    try:
        exec(code, namespace)  # noqa: S102  (what runs here is the model's own)
    except Exception as error:
        raise FunctionNotLoadable(f"its text does not run: {type(error).__name__}") from error
    return namespace[found]


def check_function(text: str, name: str | None = None) -> None:
    """Refuse a text that is no function, or takes a name that is not in it. Nothing is run.

    Raises:
        FunctionNotLoadable: saying what is missing.
    """
    tree, _ = _parse(text, name)
    try:
        top = symtable.symtable(ast.unparse(tree), "<on-demand view>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise FunctionNotLoadable("its text is no function of Python") from None
    here = {each.get_name() for each in top.get_symbols() if each.is_assigned() or each.is_imported()}
    known = here | set(dir(builtins)) | set(_GIVEN) | {"__name__"}
    if missing := sorted(_free(top) - known):
        raise FunctionNotLoadable(f"it takes {missing[0]!r} from the module around it, which is not part of its text")


def _free(table: symtable.SymbolTable) -> set[str]:
    is_module = table.get_type() == "module"
    found = {
        each.get_name() for each in table.get_symbols() if each.is_referenced() and (is_module or each.is_global())
    }
    return found.union(*(_free(child) for child in table.get_children()))


def _parse(text: str, name: str | None) -> tuple[ast.Module, str]:
    """The text without decorators and annotations, which Feast's decorator and typing would be needed for."""
    try:
        tree = _Bare().visit(ast.parse(textwrap.dedent(text)))
        functions = [each.name for each in tree.body if isinstance(each, ast.FunctionDef)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        functions, tree = [], ast.Module(body=[], type_ignores=[])
    if not functions:
        raise FunctionNotLoadable("its text is no function of Python")
    return tree, name if name in functions else functions[0]


class _Bare(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.generic_visit(node)
        for each in node.body:
            if isinstance(each, ast.FunctionDef):
                each.decorator_list = []
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)


def _imported(tree: ast.Module) -> set[str]:
    """The modules that are imported anywhere in it; not those whose absence it looks out for."""
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Try):
            pending += [*node.orelse, *node.finalbody]
            continue
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        pending += ast.iter_child_nodes(node)
    return found - set(sys.stdlib_module_names)


def _column(arrow: Any, values: Any, kind: str) -> Any:
    """Values as an Arrow array; lists of the type that is said, as Feast has it online, series of their own."""
    if not isinstance(values, (list, tuple)):
        return arrow.array(values)
    base = kind.removesuffix("_LIST")
    wide = _arrow_type(arrow, kind.replace(base, _WIDE.get(base, base), 1))
    return arrow.array(cast("Sequence[Any]", values), wide)


def _typed(arrow: Any, values: Any, kind: str) -> Any:
    """What a function made, as an Arrow array of a type ("": its own)."""
    wanted = _arrow_type(arrow, kind) if kind else None
    if not hasattr(values, "__len__") or isinstance(values, (str, bytes)):
        values = [values]
    # Of a series, what is no number is a missing value.
    array = arrow.array(values, from_pandas=not isinstance(values, (list, tuple)))
    if isinstance(array, arrow.ChunkedArray):
        array = array.combine_chunks()
    if wanted is None or array.type == wanted:
        return array
    if arrow.types.is_timestamp(array.type) and kind == "INT64":
        # Seconds, as in Feast.
        array = array.cast(arrow.timestamp("s", tz=array.type.tz), safe=False)
    if arrow.types.is_integer(array.type) and arrow.types.is_timestamp(wanted):
        array = array.cast(arrow.int64()).cast(arrow.timestamp("s", tz="UTC"))
    if arrow.types.is_floating(array.type) and arrow.types.is_integer(wanted):
        # Towards zero, as Python's int; a number that does not fit is an error.
        return importlib.import_module("pyarrow.compute").trunc(array).cast(wanted)
    if arrow.types.is_timestamp(array.type) and array.type.tz is None and arrow.types.is_timestamp(wanted):
        array = array.cast(arrow.timestamp(array.type.unit, tz="UTC"))
    is_narrower = arrow.types.is_floating(wanted) or arrow.types.is_timestamp(wanted) or arrow.types.is_list(wanted)
    return array.cast(wanted, safe=not is_narrower)


def _arrow_type(arrow: Any, kind: str) -> Any:
    base = kind.removesuffix("_LIST")
    if base == "UNIX_TIMESTAMP":
        found = arrow.timestamp("us", tz="UTC")
    else:
        found = getattr(arrow, _ARROW_TYPES[base])() if base in _ARROW_TYPES else None
    return found if base == kind or found is None else arrow.list_(found)


_FROM_TEXT: Mapping[str, Callable[[str], Any]] = {
    "BOOL": lambda text: {"true": True, "false": False}.get(text, text),
    "INT32": int,
    "INT64": int,
    "FLOAT": float,
    "DOUBLE": float,
    "BYTES": lambda text: base64.b64decode(text, validate=True),
}


def _from_json(value: Any, kind: str) -> Any:
    """A value of a request, whose JSON has neither times nor bytes; numbers may be text, as join keys may."""
    if value is None:
        return None
    if kind.endswith("_LIST"):
        return [_from_json(each, kind.removesuffix("_LIST")) for each in value]
    if isinstance(value, str) and kind in _FROM_TEXT:
        return _FROM_TEXT[kind](value)
    if kind == "STRING" and isinstance(value, int) and not isinstance(value, bool):
        # A word of a command line may read as a number; so it is with join keys.
        return str(value)
    if kind == "UNIX_TIMESTAMP" and not isinstance(value, datetime):
        utc = timezone.utc  # noqa: UP017  (bundles may run on an older Python)
        moment = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, utc)
        return moment if moment.tzinfo else moment.replace(tzinfo=utc)
    return value


def _single(row: Mapping[str, Any], view: str, name: str, kind: str) -> Any:
    """What a singleton made of one row: a value, or a list that holds it."""
    value = row[name] if name in row else row[f"{view}__{name}"]
    listed = cast("list[Any]", value) if isinstance(value, list) else []
    is_held = len(listed) == 1 and (not kind.endswith("_LIST") or isinstance(listed[0], (list, tuple)))
    return cast("Any", listed[0] if is_held else value)
