"""Pickles and joblib files: the arrays of NumPy in them, found by following the opcodes without running them."""

from __future__ import annotations

from typing import cast

from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.numpy_file import numpy_dtype
from fairlead.sync.store.formats.pickle_stream import Buffer, Node, iter_nodes, read_pickle
from fairlead.sync.store.formats.structure import Cursor, Tensor, Unrecognised, element_count, if_mostly

MAGICS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_pickled_arrays(cursor: Cursor) -> list[Tensor]:
    """The arrays of numbers in a pickle or a joblib file whose elements stand there as they are, in their order.

    There are none where most of the file is something else.

    Raises:
        Unrecognised: if it is none.
    """
    beside: dict[int, Buffer] = {}

    def find_elements(node: Node, at: Cursor) -> None:
        # joblib writes an array's elements behind the object that stands for it, in the midst of the pickle.
        if node.is_call("NumpyArrayWrapper"):
            beside[id(node)] = _joblib_elements(node, at)

    root = read_pickle(cursor, find_elements)
    arrays = (_array(name, node, beside.get(id(node))) for name, node in iter_nodes(root))
    return if_mostly((array for array in arrays if array is not None and array.dtype), cursor.size)


def _array(name: str, node: Node, beside: Buffer | None) -> Tensor | None:
    if beside is not None:
        fields = dict(_named_items(node.state))
        return _tensor(name, beside, fields.get("dtype"), fields.get("shape"))
    if node.is_call("_reconstruct") and isinstance(node.state, tuple) and len(cast("tuple[object]", node.state)) == 5:
        _, shape, descr, _, elements = cast("tuple[object, ...]", node.state)
        return _tensor(name, elements, descr, shape)
    if node.is_call("_frombuffer") and isinstance(node.arguments, tuple):
        arguments = cast("tuple[object, ...]", node.arguments)
        if len(arguments) >= 3:
            return _tensor(name, arguments[0], arguments[1], arguments[2])
    return None


def _tensor(name: str, elements: object, descr: object, shape: object) -> Tensor | None:
    if not isinstance(elements, Buffer) or not isinstance(shape, tuple):
        return None
    text = _dtype_text(descr)
    dtype, width = numpy_dtype(text)
    lengths = cast("tuple[int, ...]", shape)
    if width and element_count(lengths, elements.length) * width != elements.length:
        return None
    return Tensor(elements.offset, elements.length, dtype if width else Dtype.BYTES, name, text, lengths)


def _dtype_text(descr: object) -> str:
    """The array-protocol text of a pickled dtype: its constructor's argument behind the byte order of its state."""
    if not isinstance(descr, Node) or not descr.is_call("dtype") or not isinstance(descr.arguments, tuple):
        return "?"
    arguments = cast("tuple[object, ...]", descr.arguments)
    if not arguments or not isinstance(arguments[0], str):
        return "?"
    state = cast("tuple[object, ...]", descr.state) if isinstance(descr.state, tuple) else ()
    order = state[1] if len(state) > 3 and state[1] in ("<", ">", "|", "=") else ""
    return f"{order}{arguments[0]}"


def _joblib_elements(node: Node, cursor: Cursor) -> Buffer:
    fields = dict(_named_items(node.state))
    shape = fields.get("shape")
    _, width = numpy_dtype(_dtype_text(fields.get("dtype")))
    if not width or not isinstance(shape, tuple):
        raise Unrecognised
    length = element_count(cast("tuple[object, ...]", shape), cursor.size) * width
    if fields.get("numpy_array_alignment_bytes") is not None:
        cursor.skip(cursor.number(1))
    found = Buffer(cursor.position, length)
    cursor.skip(length)
    return found


def _named_items(state: object) -> list[tuple[str, object]]:
    items = state.items if isinstance(state, Node) else []
    return [(key, value) for key, value in items if isinstance(key, str)]
