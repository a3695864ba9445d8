from __future__ import annotations

import io
import json
import struct

import numpy as np
import pyfastcdc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from fairlead.sync.store.codec import BLOCK_MAX_BYTES
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.split import Span, iter_spans


def _split(data: bytes) -> list[tuple[Span, bytes]]:
    pieces = [(span, bytes(piece)) for span, piece in iter_spans(io.BytesIO(data), len(data))]
    assert b"".join(piece for _, piece in pieces) == data
    position = 0
    for span, piece in pieces:
        assert (span.offset, span.length) == (position, len(piece))
        assert 0 < span.length <= BLOCK_MAX_BYTES
        position += span.length
    return pieces


def _safetensors(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_the_fast_chunker_is_in_use() -> None:
    assert pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy"), "pyfastcdc runs without its C extension"


@given(data=st.binary(max_size=2000))
def test_the_spans_of_any_bytes_cover_them(data: bytes) -> None:
    _split(data)


def test_an_empty_file_has_no_spans() -> None:
    assert _split(b"") == []


def test_an_insertion_into_an_opaque_file_moves_few_cuts() -> None:
    data = np.random.default_rng(5).bytes(24 * 2**20)
    before = {piece for _, piece in _split(data)}
    after = {piece for _, piece in _split(data[: 5 * 2**20] + b"inserted" + data[5 * 2**20 :])}
    assert len(before) > 10
    assert len(after - before) <= 3


def test_a_safetensors_file_is_cut_at_its_tensors() -> None:
    big = np.zeros((3 * 2**20,), dtype=np.float32)
    data = save({"big": big, "half": np.zeros(70_000, dtype=np.float16), "ids": np.zeros(80_000, dtype=np.int64)})
    header = 8 + int.from_bytes(data[:8], "little")
    spans = [span for span, _ in _split(data)]
    assert spans[0] == Span(0, header)
    assert sorted((span.length, span.dtype) for span in spans[1:]) == [
        (140_000, Dtype.F16),
        (640_000, Dtype.INT64),
        (4 * 2**20, Dtype.F32),
        (8 * 2**20, Dtype.F32),
    ]


def test_small_neighbours_of_one_dtype_share_a_span() -> None:
    tensors = {f"bias.{index:03d}": np.zeros(256, dtype=np.float32) for index in range(200)}
    spans = [span for span, _ in _split(save(tensors))]
    assert all(16 * 2**10 <= span.length <= 64 * 2**10 for span in spans[1:-1])
    assert len(spans) > 4
    assert {span.dtype for span in spans[1:]} == {Dtype.F32}


def test_a_changed_tensor_changes_one_span() -> None:
    rng = np.random.default_rng(1)
    tensors = {f"layer.{index}": rng.normal(size=(300, 300)).astype(np.float32) for index in range(6)}
    before = {piece for _, piece in _split(save(tensors))}
    tensors["layer.3"] = tensors["layer.3"] + 1
    assert len({piece for _, piece in _split(save(tensors))} - before) == 1


def test_a_longer_header_changes_only_itself() -> None:
    tensors = {"a": np.ones((500, 500), dtype=np.float32), "b": np.ones(9, dtype=np.int8)}
    before = {piece for _, piece in _split(save(tensors))}
    after = {piece for _, piece in _split(save(tensors, metadata={"note": "x" * 5000}))}
    assert len(after - before) == 1


@pytest.mark.parametrize(
    "header",
    [
        b"{not json",
        b"{" * 20_000,
        b"[]",
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}},
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]}},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": {"dtype": "F32", "shape": [10**4000] * 50, "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2] * 100_000, "data_offsets": [0, 8]}},
        {"a": 7},
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]},
        },
    ],
)
def test_a_header_that_lies_makes_the_file_an_opaque_one(header: object) -> None:
    pieces = _split(_safetensors(header, bytes(8)))
    assert len(pieces) == 1
    assert pieces[0][0].dtype is Dtype.BYTES


def test_a_tensor_of_an_unknown_dtype_is_bytes() -> None:
    spans = [
        s for s, _ in _split(_safetensors({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}, bytes(8)))
    ]
    assert spans[1].dtype is Dtype.BYTES
