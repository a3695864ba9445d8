"""Files are told by their content and cut at their tensors; one that lies is only a file of bytes."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.sync.store.codec import BLOCK_MAX_BYTES, encode_block
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.guess import guess_dtype
from fairlead.sync.store.split import Span, iter_spans, plan_spans, tensor_signature
from tests.model_files import OTHER_WRITERS, TENSOR_WRITERS, Tensors, torch_pickle, write_onnx, write_parquet

WRITERS = TENSOR_WRITERS | OTHER_WRITERS
FORMATS = sorted(TENSOR_WRITERS)


def _cut(data: bytes) -> list[tuple[Span, bytes]]:
    pieces = [(span, bytes(piece)) for span, piece in iter_spans(io.BytesIO(data), len(data))]
    position = 0
    for span, piece in pieces:
        assert (span.offset, span.length) == (position, len(piece))
        assert 0 < span.length <= BLOCK_MAX_BYTES
        position += span.length
    assert b"".join(piece for _, piece in pieces) == data
    plan = plan_spans(io.BytesIO(data), len(data))
    assert plan is None or plan == [span for span, _ in pieces]
    return pieces


def _new_bytes(before: bytes, after: bytes) -> int:
    known = {piece for _, piece in _cut(before)}
    return sum(len(piece) for _, piece in _cut(after) if piece not in known)


def _model(seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for layer in range(6):
        tensors[f"encoder.layer.{layer}.dense.weight"] = rng.normal(0, 0.03, (200, 120)).astype(np.float32)
        tensors[f"encoder.layer.{layer}.dense.bias"] = rng.normal(0, 0.03, 200).astype(np.float32)
        tensors[f"encoder.layer.{layer}.norm.weight"] = rng.normal(1, 0.03, 200).astype(np.float32)
    return tensors


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_tensors_is_cut_at_them(name: str) -> None:
    tensors: Tensors = {
        "words": np.arange(60_000, dtype=np.float32).reshape(300, 200),
        "half": np.arange(50_000, dtype=np.float16),
        "ids": np.arange(20_000, dtype=np.int64),
        "bytes": np.arange(90_000, dtype=np.int8),
    }
    pieces = _cut(TENSOR_WRITERS[name](tensors))
    found = {span.dtype: (span.label or "", piece) for span, piece in pieces if span.length > 70_000}
    dtypes = {Dtype.F32: "words", Dtype.F16: "half", Dtype.INT64: "ids", Dtype.INT8: "bytes"}
    assert set(found) == set(dtypes)
    for dtype, tensor in dtypes.items():
        label, piece = found[dtype]
        assert tensor in label
        assert piece == tensors[tensor].tobytes()


@pytest.mark.parametrize("name", FORMATS)
def test_versions_that_differ_in_values_have_the_same_labels(name: str) -> None:
    one, two = (_cut(TENSOR_WRITERS[name](_model(seed))) for seed in (1, 2))
    labels = [span.label for span, _ in one if span.label]
    assert labels == [span.label for span, _ in two if span.label]
    assert len(set(labels)) == len(labels) >= 6
    assert tensor_signature({"a": [span for span, _ in one]}) == tensor_signature({"b": [span for span, _ in two]})


@pytest.mark.parametrize("name", FORMATS)
def test_a_changed_tensor_is_all_that_is_new(name: str) -> None:
    before, after = _model(), _model()
    after["encoder.layer.3.dense.weight"] = after["encoder.layer.3.dense.weight"] + np.float32(1)
    # An archive has checksums in its directory, too.
    assert _new_bytes(TENSOR_WRITERS[name](before), TENSOR_WRITERS[name](after)) < 96_000 + 8000


@pytest.mark.parametrize("name", FORMATS)
def test_an_added_tensor_is_all_that_is_new(name: str) -> None:
    before = _model()
    items = list(before.items())
    added = ("encoder.adapter.weight", np.arange(24_000, dtype=np.float32))
    after = dict([*items[:7], added, *items[7:]])
    assert _new_bytes(TENSOR_WRITERS[name](before), TENSOR_WRITERS[name](after)) < 96_000 + 14_000


@pytest.mark.parametrize("name", FORMATS)
def test_renaming_every_tensor_resends_only_what_holds_the_names(name: str) -> None:
    before = _model()
    after = {f"bert.{key}": tensor for key, tensor in before.items()}
    assert _new_bytes(TENSOR_WRITERS[name](before), TENSOR_WRITERS[name](after)) < 16_000


def test_a_small_tensor_more_moves_few_groups() -> None:
    rng = np.random.default_rng(3)
    tensors: Tensors = {f"block.{index:04d}.bias": rng.normal(size=300).astype(np.float32) for index in range(600)}
    one = TENSOR_WRITERS["safetensors"](tensors)
    two = TENSOR_WRITERS["safetensors"](tensors | {"block.0100.again": np.ones(300, dtype=np.float32)})
    header = int.from_bytes(two[:8], "little")
    assert _new_bytes(one, two) < header + 2 * 2**16


def test_the_plan_of_a_large_file_reads_only_its_header(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    header = {f"t{n}": {"dtype": "BF16", "shape": [2**24], "data_offsets": [n << 25, (n + 1) << 25]} for n in range(40)}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + (40 << 25))
    read = 0

    class Counting(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            data = super().read(-1 if size is None else size)
            read += len(data)
            return data

    with Counting(path) as stream:
        spans = plan_spans(stream, path.stat().st_size)
    assert spans is not None
    assert len(spans) == 1 + 160
    assert read < 2 * len(text) + 100_000


def test_a_long_header_is_cut_by_its_content() -> None:
    rng = random.Random(4)
    notes = {str(n): rng.randbytes(500).hex() for n in range(4000)}
    tensors = {"a": {"dtype": "F32", "shape": [100_000], "data_offsets": [0, 400_000]}}
    one, two = (
        struct.pack("<Q", len(text)) + text + bytes(400_000)
        for text in (json.dumps({"__metadata__": part} | tensors).encode() for part in (notes, notes | {"end": "x"}))
    )
    assert len(_cut(one)) > 3
    assert _new_bytes(one, two) < 3 * 2**20


def test_pages_of_plain_numbers_are_typed() -> None:
    rng = np.random.default_rng(0)
    table: Tensors = {"id": np.arange(90_000) * 3, "value": rng.normal(size=90_000), "small": np.ones(90_000, "f4")}
    data = write_parquet(table)
    pieces = _cut(data)
    typed = {span.dtype for span, _ in pieces if span.label}
    assert typed == {Dtype.INT64, Dtype.F64, Dtype.F32}
    stored = sum(len(encode_block(piece, span.dtype)) for span, piece in pieces)
    assert stored < 0.85 * sum(len(encode_block(data[at : at + 2**20])) for at in range(0, len(data), 2**20))


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (trap,)

    weights = {"w": np.arange(50_000, dtype=np.float32)}
    for protocol in (2, 4, 5):
        _cut(pickle.dumps({"weights": weights, "bomb": Bomb()}, protocol=protocol))
    unknown = torch_pickle(weights).replace(b"ctorch._utils\n", b"cno_such_module\n")
    _cut(unknown)
    assert not trap.exists()


def test_storages_that_no_pickle_describes_are_looked_at() -> None:
    rng = np.random.default_rng(6)
    tensors: Tensors = {"w": rng.normal(0, 0.03, 100_000).astype(np.float32)}
    data = TENSOR_WRITERS["torch"](tensors).replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9")
    spans = [span for span, _ in _cut(data) if span.length == 400_000]
    assert [span.dtype.width for span in spans] == [4]


_SMALL: Tensors = {f"layer.{n}.w": np.arange(n * 500, n * 500 + 2000, dtype=np.float32) for n in range(8)}
_SEEDS = {name: write(_SMALL) for name, write in WRITERS.items()}
_EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(
            [b"", b"\x00", b"\xff", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"\xff" * 8, b"PK\x05\x06", b"(("]
        ),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=250)
@given(name=st.sampled_from(sorted(_SEEDS)), edits=_EDITS, near=st.sampled_from(["start", "end", "anywhere"]))
def test_a_damaged_file_is_cut_all_the_same(name: str, edits: list[tuple[float, bytes, int]], near: str) -> None:
    data = bytearray(_SEEDS[name])
    for where, new, removed in edits:
        reach = len(data) if near == "anywhere" else min(len(data), 3000)
        at = int(where * reach) + (len(data) - reach if near == "end" else 0)
        data[at : at + removed] = new
    _cut(bytes(data))


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(_SEEDS)), length=st.floats(0, 1))
def test_a_file_that_ends_early_is_cut_all_the_same(name: str, length: float) -> None:
    _cut(_SEEDS[name][: int(length * len(_SEEDS[name]))])


def _gguf(entries: bytes, count: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, count) + entries


_HOSTILE: dict[str, bytes] = {
    "a pickle of marks": b"\x80\x04" + b"(" * 501_000,
    "a pickle of nested tuples": b"\x80\x04)" + b"\x85" * 100_000 + b".",
    "a pickle that doubles": b"\x80\x04)" + b"2\x86" * 60_000 + b".",
    "a pickle of one long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + bytes(1000),
    "a pickle of a long number": b"\x80\x04I" + b"9" * 60_000 + b"\n.",
    "an ONNX of empty nodes": b"\x08\x0a\x3a" + b"\x80\xc2\xd7\x2f" + b"\x0a\x00" * 3_000_000,
    "an ONNX in itself": b"\x08\x0a" + b"\x3a\xff\xff\xff\x07" * 200,
    "a GGUF of endless metadata": _gguf(bytes(12) * 200_000, 2**63),
    "a GGUF of nested lists": _gguf(struct.pack("<QI", 0, 9) + struct.pack("<IQ", 9, 2**40) * 100_000),
    "a header of open brackets": struct.pack("<Q", 5_000_000) + b'{"a":' + b"[" * 5_000_000,
    "an array of open brackets": b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000,
    "an array of signs": b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"-" * 60_000,
    "a Parquet of nested structs": b"PAR1" + b"\x1c" * 100_000 + struct.pack("<I", 100_000) + b"PAR1",
    "a Parquet of a long list": b"PAR1" + b"\x49\xf5\xff\xff\xff\xff\x0f" + bytes(3_000_000) + b"\x00\x00\x2d\x00PAR1",
    "an archive of too many members": b"PK\x03\x04" + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 9, 65535, 9, 0, 0),
}


@pytest.mark.parametrize("name", sorted(_HOSTILE))
def test_a_hostile_file_costs_little_and_is_no_file_of_tensors(name: str) -> None:
    data = _HOSTILE[name]
    began = time.process_time()
    assert plan_spans(io.BytesIO(data), len(data)) is None
    assert time.process_time() - began < 10


@pytest.mark.parametrize("phase", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["f4", "f8", "bf16", "i8"])
def test_opaque_numbers_are_told_by_a_sample(kind: str, phase: int) -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(0, 0.03, 600_000)
    if kind == "bf16":
        numbers = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    else:
        numbers = rng.integers(0, 10**6, 600_000) if kind == "i8" else values.astype(f"<{kind}")
    data = bytes(phase) + numbers.tobytes()
    pieces = _cut(data)
    typed = sum(len(encode_block(piece, span.dtype)) for span, piece in pieces)
    plain = sum(len(encode_block(piece, Dtype.BYTES)) for _, piece in pieces)
    best = len(pieces) * 200 + len(encode_block(numbers.tobytes()[: 2**20], _DTYPES[kind])) / 2**20 * len(data)
    assert typed < 0.97 * plain
    assert typed < 1.02 * best


_DTYPES = {"f4": Dtype.F32, "f8": Dtype.F64, "bf16": Dtype.BF16, "i8": Dtype.INT64}


@pytest.mark.parametrize(
    "plain", [random.Random(1).randbytes(200_000), bytes(200_000), Path(__file__).read_bytes() * 9, b"short"]
)
def test_what_is_no_numbers_stays_bytes(plain: bytes) -> None:
    assert guess_dtype(memoryview(plain)) == (Dtype.BYTES, 0)


def test_elements_stay_whole_where_an_opaque_file_is_cut() -> None:
    values = np.random.default_rng(9).normal(0, 0.03, 3_000_000).astype("<f4")
    numbers = (values.view("<u4") >> 16).astype("<u2").tobytes()
    spans = [span for span, _ in _cut(b"odd" + numbers)]
    assert {(span.offset - 3) % 2 for span in spans[1:]} == {0}
    assert {span.dtype for span in spans[1:]} == {Dtype.BF16}


def test_a_signature_is_of_names_kinds_and_shapes() -> None:
    def signature(tensors: Tensors) -> str | None:
        data = TENSOR_WRITERS["safetensors"](tensors)
        return tensor_signature({"m": plan_spans(io.BytesIO(data), len(data)) or []})

    one = {"a": np.ones((4, 6), dtype=np.float32)}
    assert signature(one) == signature({"a": np.zeros((4, 6), dtype=np.float32)})
    others = [{"b": one["a"]}, {"a": one["a"].T.copy()}, {"a": one["a"].astype(np.float64)}]
    assert len({signature(one), *(signature(other) for other in others)}) == 4
    assert tensor_signature({"m": [Span(0, 9)]}) is None


def test_a_file_on_a_disk_is_cut_like_one_in_memory() -> None:
    data = write_onnx(_model())
    with tempfile.TemporaryFile() as stream:
        stream.write(data)
        assert [span for span, _ in iter_spans(stream, len(data))] == [span for span, _ in _cut(data)]
