"""Small model files of many formats, some written by hand from the formats' descriptions, for tests that cut them."""

# NumPy's, safetensors' and PyArrow's writers are typed in part.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

Tensors = dict[str, "np.ndarray[Any, Any]"]
Writer = Callable[[Tensors], bytes]

_TORCH_STORAGES = {
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "<f8": "DoubleStorage",
    "<i8": "LongStorage",
    "|i1": "CharStorage",
    "<u2": "BFloat16Storage",
}
_ONNX_TYPES = {"<f4": 1, "|i1": 3, "<i8": 7, "<f2": 10, "<f8": 11, "<u2": 16}
_GGUF_TYPES = {"<f4": 0, "<f2": 1, "|i1": 24, "<i8": 27, "<f8": 28, "<u2": 30}


def write_torch(tensors: Tensors) -> bytes:
    """A PyTorch archive: the pickle's opcodes are written one by one, the storages are stored at aligned places."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("model/data.pkl", torch_pickle(tensors))
        for index, tensor in enumerate(tensors.values()):
            info = zipfile.ZipInfo(f"model/data/{index}")
            # An extra field pads the header, as PyTorch does.
            used = body.tell() + 30 + len(info.filename) + 4
            padding = -used % 64
            info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
            archive.writestr(info, tensor.tobytes())
        archive.writestr("model/version", "3\n")
    return body.getvalue()


def write_torch_64(tensors: Tensors) -> bytes:
    """The same archive in the form that PyTorch gives one over 4 GiB: all sizes and offsets in fields of 64 bits."""
    members = {"model/data.pkl": torch_pickle(tensors)}
    members |= {f"model/data/{index}": tensor.tobytes() for index, tensor in enumerate(tensors.values())}
    out, directory = b"", b""
    beyond = 0xFFFFFFFF
    for name, body in members.items():
        size, offset = len(body), len(out)
        local = struct.pack("<HHQQ", 1, 16, size, size)
        out += struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, 0, beyond, beyond, len(name), len(local))
        out += name.encode() + local + body
        extra = struct.pack("<HHI", 0x4246, 4, 0) + struct.pack("<HHQQQ", 1, 24, size, size, offset)
        head = struct.pack("<4s6H3I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, beyond, beyond)
        directory += head + struct.pack("<5H2I", len(name), len(extra), 0, 0, 0, 0, beyond) + name.encode() + extra
    count, end = len(members), len(out) + len(directory)
    tail = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), len(out))
    tail += struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    return out + directory + tail + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, beyond, beyond, 0)


def torch_pickle(tensors: Tensors) -> bytes:
    """The pickle of a state dict as PyTorch writes it, with storages as persistent ids."""
    out = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for index, (name, tensor) in enumerate(tensors.items()):
        key = str(index).encode()
        storage = _TORCH_STORAGES[tensor.dtype.str].encode()
        out += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(("]
        out += [_text("storage"), b"ctorch\n", storage, b"\n", _text(key.decode()), _text("cpu")]
        out += [struct.pack("<ci", b"J", tensor.size), b"tQK\x00("]
        out += [struct.pack("<ci", b"J", length) for length in tensor.shape]
        out += [b"t(", *(struct.pack("<ci", b"J", stride) for stride in tensor.shape), b"t"]
        out += [b"\x89ccollections\nOrderedDict\n)RtR"]
    return b"".join([*out, b"u."])


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def write_onnx(tensors: Tensors) -> bytes:
    """An ONNX model whose graph has one node and these initializers."""
    initializers = b"".join(
        _field(
            5,
            b"".join(_number_field(1, length) for length in tensor.shape)
            + _number_field(2, _ONNX_TYPES[tensor.dtype.str])
            + _field(8, name.encode())
            + _field(9, tensor.tobytes()),
        )
        for name, tensor in tensors.items()
    )
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Identity")
    graph = _field(1, node) + _field(2, b"graph") + initializers
    return _number_field(1, 10) + _field(2, b"by hand") + _field(7, graph) + _field(8, _number_field(2, 21))


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _number_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def write_gguf(tensors: Tensors) -> bytes:
    """A GGUF file with a few entries of metadata, a list of tokens among them."""
    tokens = b"".join(_long_text(f"token {index}") for index in range(50))
    entries = [
        _long_text("general.architecture") + struct.pack("<I", 8) + _long_text("bert"),
        _long_text("general.alignment") + struct.pack("<II", 4, 64),
        _long_text("tokenizer.scores") + struct.pack("<IIQ", 9, 6, 50) + bytes(200),
        _long_text("tokenizer.tokens") + struct.pack("<IIQ", 9, 8, 50) + tokens,
    ]
    directory, data = b"", b""
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]
        directory += _long_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        directory += struct.pack("<IQ", _GGUF_TYPES[tensor.dtype.str], len(data))
        data += tensor.tobytes()
        data += bytes(-len(data) % 64)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries) + directory
    return head + bytes(-len(head) % 64) + data


def _long_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def write_npz(tensors: Tensors) -> bytes:
    """An archive of .npy files, as NumPy writes it without compression."""
    body = io.BytesIO()
    np.savez(body, **tensors)  # pyright: ignore[reportArgumentType]  (its stub takes the switch for an array)
    return body.getvalue()


def write_compressed_npz(tensors: Tensors) -> bytes:
    """An archive of .npy files whose members are deflated."""
    body = io.BytesIO()
    np.savez_compressed(body, **tensors)  # pyright: ignore[reportArgumentType]  (as above)
    return body.getvalue()


def write_npy(tensors: Tensors) -> bytes:
    """The first tensor alone, as NumPy writes it."""
    body = io.BytesIO()
    np.save(body, next(iter(tensors.values())))
    return body.getvalue()


def write_joblib(tensors: Tensors) -> bytes:
    """What joblib, and so scikit-learn's users, write."""
    body = io.BytesIO()
    joblib.dump({"weights": tensors}, body)
    return body.getvalue()


def write_pickle(tensors: Tensors, protocol: int = 5) -> bytes:
    """A pickle of arrays in a dictionary."""
    return pickle.dumps({"weights": tensors}, protocol=protocol)


def write_parquet(tensors: Tensors) -> bytes:
    """A table of plain columns without compression, as long as the shortest tensor."""
    rows = min(tensor.size for tensor in tensors.values())
    columns = {name: tensor.reshape(-1)[:rows] for name, tensor in tensors.items()}
    body = io.BytesIO()
    pq.write_table(pa.table(columns), body, compression="none", use_dictionary=False)
    return body.getvalue()


TENSOR_WRITERS: dict[str, Writer] = {
    "safetensors": save,
    "torch": write_torch,
    "torch over 4 GiB": write_torch_64,
    "onnx": write_onnx,
    "gguf": write_gguf,
    "npz": write_npz,
    "joblib": write_joblib,
    "pickle 5": write_pickle,
    "pickle 4": lambda tensors: write_pickle(tensors, 4),
}
"""Formats that hold named tensors as they are."""

OTHER_WRITERS: dict[str, Writer] = {
    "npy": write_npy,
    "parquet": write_parquet,
    "deflated npz": write_compressed_npz,
    "pickle 2": lambda tensors: write_pickle(tensors, 2),
}
