from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairlead.core.errors import CorruptBlock, InvalidInput
from fairlead.core.ids import sha256_digest
from fairlead.sync.store.codec import BLOCK_MAX_BYTES, encode_block
from fairlead.sync.store.delta import decode_delta, encode_delta
from fairlead.sync.store.dtype import Dtype

_WORDS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def _round_trip(plain: bytes, base: bytes, dtype: Dtype) -> bytes:
    stored = encode_delta(plain, base, dtype)
    assert decode_delta(stored, base, digest=sha256_digest(plain), plain_length=len(plain)) == plain
    assert len(stored) <= len(plain) + 200 + len(plain) // 256
    return stored


def _bf16(values: np.ndarray[Any, Any]) -> bytes:
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


@given(pair=st.binary(min_size=2, max_size=3000), dtype=st.sampled_from(Dtype))
@example(pair=b"\0\0", dtype=Dtype.F64)
@example(pair=b"\x01\x80\xff\x7f\xff\xff\xff\xff" * 9, dtype=Dtype.F32)
def test_any_bytes_survive_on_any_base_under_any_hint(pair: bytes, dtype: Dtype) -> None:
    half = len(pair) // 2
    _round_trip(pair[:half], pair[half : 2 * half], dtype)


@given(
    length=st.integers(1, 40_000),
    dtype=st.sampled_from(Dtype),
    changed=st.floats(0, 1),
    place=st.sampled_from(["front", "anywhere"]),
    seed=st.integers(0, 99),
)
def test_some_changed_elements_survive_wherever_they_are(
    length: int, dtype: Dtype, changed: float, place: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    base = np.frombuffer(rng.bytes(length), "<u1")
    mask = np.arange(length) < changed * length if place == "front" else rng.random(length) < changed
    plain = np.where(mask, base + rng.integers(1, 4, length, dtype=np.uint8), base).astype(np.uint8)
    _round_trip(plain.tobytes(), base.tobytes(), dtype)


@pytest.mark.parametrize("dtype", list(Dtype))
def test_every_bit_pattern_survives_also_nan_payloads_and_negative_zero(dtype: Dtype) -> None:
    bits = 8 * dtype.width
    every = np.arange(2 ** min(bits, 16), dtype=np.uint64)
    patterns = np.concatenate(
        [every << np.uint64(max(0, bits - 16)), every, np.array([1 << (bits - 1), 2**bits - 1], np.uint64)]
    )
    plain = patterns.astype(_WORDS[dtype.width])
    rng = np.random.default_rng(0)
    _round_trip(plain.tobytes(), rng.permutation(plain).tobytes(), dtype)
    _round_trip(plain.tobytes(), np.roll(plain, 1).tobytes(), dtype)


@pytest.mark.parametrize("dtype", [Dtype.BF16, Dtype.F32, Dtype.BYTES])
def test_a_block_of_the_largest_size_survives(dtype: Dtype) -> None:
    base = np.random.default_rng(1).bytes(BLOCK_MAX_BYTES)
    _round_trip(base[::-1], base, dtype)
    assert len(_round_trip(base, base, dtype)) < 100


def test_a_fine_tune_takes_far_less_than_standing_alone_or_than_an_exclusive_or() -> None:
    rng = np.random.default_rng(2)
    weights = rng.normal(0, 0.02, 300_000)
    base, plain = _bf16(weights), _bf16(weights + rng.normal(0, 1e-5, len(weights)))
    stored = len(_round_trip(plain, base, Dtype.BF16))
    exclusive = (np.frombuffer(plain, "<u2") ^ np.frombuffer(base, "<u2")).astype("<u2").tobytes()
    assert stored < 0.15 * len(encode_block(plain, Dtype.BF16))
    assert stored < 0.65 * len(encode_block(exclusive, Dtype.INT16))


def test_untouched_rows_cost_nothing() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(0, 0.02, (5000, 64)).astype("<f4")
    plain = base.copy()
    plain[100:150] += rng.normal(0, 1e-4, (50, 64)).astype("<f4")
    touched = len(encode_delta(plain[100:150].tobytes(), base[100:150].tobytes(), Dtype.F32))
    assert len(_round_trip(plain.tobytes(), base.tobytes(), Dtype.F32)) < touched + 100


def test_blocks_of_two_lengths_have_no_difference() -> None:
    with pytest.raises(InvalidInput):
        encode_delta(b"four", b"three")


def test_another_base_is_refused() -> None:
    base, plain = _bf16(np.linspace(-1, 1, 500)), _bf16(np.linspace(-1, 1.01, 500))
    stored = encode_delta(plain, base, Dtype.BF16)
    for other in (base[::-1], base[:-1], base + b"x", b""):
        with pytest.raises(CorruptBlock) as caught:
            decode_delta(stored, other, digest=sha256_digest(plain), plain_length=len(plain))
        assert caught.value.attributes == {"block": sha256_digest(plain)}


@given(noise=st.binary(max_size=300), base=st.binary(max_size=40))
def test_arbitrary_bytes_are_refused(noise: bytes, base: bytes) -> None:
    with pytest.raises(CorruptBlock):
        decode_delta(noise, base, digest=sha256_digest(b"the block"), plain_length=len(base))


@given(
    body=st.binary(max_size=200),
    dtype=st.integers(0, 11),
    key_bits=st.integers(0, 18),
    granules=st.integers(0, 255),
    chunk=st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 8, 32, 64, 2**32 - 1]), st.integers(0, 3)),
)
def test_a_well_formed_frame_around_arbitrary_bytes_is_refused(
    body: bytes, dtype: int, key_bits: int, granules: int, chunk: tuple[int, int, int]
) -> None:
    form, count, method = chunk
    header = struct.pack("<3sBBBIBIB", b"FLD", 1, dtype, key_bits, 64, 0, 1, granules)
    stored = header + struct.pack("<BIBI", form, count, method, len(body)) + body
    with pytest.raises(CorruptBlock):
        decode_delta(stored, bytes(64), digest=sha256_digest(b"something else"), plain_length=64)


@given(
    dtype=st.sampled_from(Dtype),
    position=st.floats(0, 1, exclude_max=True),
    change=st.integers(1, 255),
    seed=st.integers(0, 9),
)
def test_a_changed_byte_is_refused_or_changes_nothing(dtype: Dtype, position: float, change: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1, 900).astype("<f4")
    base, plain = weights.tobytes() + b"abc", (weights * np.float32(1.0001)).tobytes() + b"xyz"
    stored = bytearray(encode_delta(plain, base, dtype))
    stored[int(position * len(stored))] ^= change
    try:
        found = decode_delta(bytes(stored), base, digest=sha256_digest(plain), plain_length=len(plain))
    except CorruptBlock:
        return
    assert found == plain
