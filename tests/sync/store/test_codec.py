from __future__ import annotations

import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairlead.core.errors import CorruptBlock
from fairlead.core.ids import sha256_digest
from fairlead.sync.store.codec import BLOCK_MAX_BYTES, STORED_MAX_BYTES, decode_block, encode_block
from fairlead.sync.store.dtype import Dtype

_MIB = 2**20


def _round_trip(plain: bytes, dtype: Dtype) -> bytes:
    stored = encode_block(plain, dtype)
    assert decode_block(stored, digest=sha256_digest(plain), plain_length=len(plain)) == plain
    assert len(stored) <= len(plain) + 9 + (len(plain) // 2**18 + 1) * 50
    return stored


def _weights(count: int, dtype: Dtype, *, seed: int = 0) -> bytes:
    normal = np.random.default_rng(seed).normal(0, 0.02, count)
    if dtype is Dtype.BF16:
        return (normal.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return normal.astype({Dtype.F16: "<f2", Dtype.F32: "<f4", Dtype.F64: "<f8"}[dtype]).tobytes()


@given(plain=st.binary(min_size=1, max_size=3000), dtype=st.sampled_from(Dtype))
@example(plain=b"\0", dtype=Dtype.F64)
@example(plain=b"\x01\x80\xff\x7f" * 9, dtype=Dtype.F32)
def test_any_bytes_survive_under_any_hint(plain: bytes, dtype: Dtype) -> None:
    _round_trip(plain, dtype)


@given(
    pieces=st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 9000)), min_size=1, max_size=4),
    dtype=st.sampled_from(Dtype),
)
def test_repetitive_blocks_of_several_chunks_survive(pieces: list[tuple[bytes, int]], dtype: Dtype) -> None:
    _round_trip(b"".join(piece * count for piece, count in pieces), dtype)


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("length", [1, 7, 2**18 - 1, 2**18, 2**18 + 1, 3 * 2**18 + 5])
def test_noise_survives_at_the_edges_of_chunks(dtype: Dtype, length: int) -> None:
    _round_trip(np.random.default_rng(length).bytes(length), dtype)


@pytest.mark.parametrize("dtype", list(Dtype))
def test_a_block_of_the_largest_size_survives(dtype: Dtype) -> None:
    plain = np.random.default_rng(1).bytes(BLOCK_MAX_BYTES)
    assert len(_round_trip(plain, dtype)) <= STORED_MAX_BYTES


@pytest.mark.parametrize(("dtype", "word"), [(Dtype.F16, "<u2"), (Dtype.BF16, "<u2"), (Dtype.F32, "<u4")])
def test_every_kind_of_bit_pattern_survives_also_nan_payloads(dtype: Dtype, word: str) -> None:
    every_half = np.arange(2**16, dtype="<u4")
    patterns = every_half if word == "<u2" else np.concatenate([every_half << 16, every_half, every_half * 65537])
    _round_trip(patterns.astype(word).tobytes(), dtype)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(Dtype.F32, 0.84), (Dtype.BF16, 0.68), (Dtype.F16, 0.88), (Dtype.F64, 0.96)]
)
def test_random_weights_take_close_to_the_bytes_that_their_entropy_allows(dtype: Dtype, limit: float) -> None:
    plain = _weights(2 * _MIB // dtype.width, dtype)
    assert len(_round_trip(plain, dtype)) < limit * len(plain)


def test_what_repeats_shrinks_and_noise_does_not_grow() -> None:
    assert len(_round_trip(bytes(_MIB), Dtype.F32)) < _MIB / 500
    assert len(_round_trip(b"the same words again; " * 50_000, Dtype.BYTES)) < _MIB / 100
    counted = np.arange(_MIB // 8, dtype="<i8").tobytes()
    assert len(_round_trip(counted, Dtype.INT64)) < _MIB / 5
    noise = np.random.default_rng(3).bytes(_MIB)
    assert len(_round_trip(noise, Dtype.BYTES)) < _MIB + 100


@given(noise=st.binary(max_size=300), plain_length=st.integers(0, 400))
def test_arbitrary_bytes_are_refused_or_are_the_block(noise: bytes, plain_length: int) -> None:
    with pytest.raises(CorruptBlock):
        decode_block(noise, digest=sha256_digest(b"the block"), plain_length=plain_length)


@given(
    dtype=st.sampled_from(Dtype),
    position=st.floats(0, 1, exclude_max=True),
    change=st.integers(1, 255),
    seed=st.integers(0, 9),
)
def test_a_changed_byte_is_refused_or_changes_nothing(dtype: Dtype, position: float, change: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = rng.normal(0, 1, 600).astype("<f4").tobytes() + bytes(500) + rng.bytes(11)
    stored = bytearray(encode_block(plain, dtype))
    stored[int(position * len(stored))] ^= change
    try:
        found = decode_block(bytes(stored), digest=sha256_digest(plain), plain_length=len(plain))
    except CorruptBlock:
        return
    assert found == plain


@given(
    body=st.binary(max_size=200),
    method=st.integers(0, 3),
    form=st.integers(0, 3),
    dtype=st.integers(0, 11),
    count=st.sampled_from([0, 8, 16, 32, 64, 2**32 - 1]),
)
def test_a_well_formed_frame_around_arbitrary_bytes_is_refused(
    body: bytes, method: int, form: int, dtype: int, count: int
) -> None:
    stored = struct.pack("<3sBBIBIBI", b"FLB", 1, dtype, 64, form, count, method, len(body)) + body
    with pytest.raises(CorruptBlock):
        decode_block(stored, digest=sha256_digest(b"something else"), plain_length=64)


def _frame(method: int, body: bytes, plain_length: int) -> bytes:
    return struct.pack("<3sBBIBIBI", b"FLB", 1, 0, plain_length, 0, plain_length, method, len(body)) + body


def test_a_stream_that_would_inflate_beyond_its_declared_length_is_refused() -> None:
    import zstandard

    plain = bytes(64 * _MIB)
    frames = [
        _frame(1, zstandard.ZstdCompressor().compress(plain), 1000),
        _frame(1, zstandard.ZstdCompressor(write_content_size=False).compress(plain), 1000),
    ]
    for stored in frames:
        with pytest.raises(CorruptBlock):
            decode_block(stored, digest=sha256_digest(bytes(1000)), plain_length=1000)


@pytest.mark.parametrize("junk", [b"\0", b"more"])
@pytest.mark.parametrize("method", [0, 1])
def test_bytes_that_follow_a_stream_are_refused(method: int, junk: bytes) -> None:
    import zstandard

    plain = b"plain text " * 30
    bodies = {0: plain, 1: zstandard.ZstdCompressor().compress(plain)}
    digest = sha256_digest(plain)
    assert decode_block(_frame(method, bodies[method], len(plain)), digest=digest, plain_length=len(plain)) == plain
    for stored in (
        _frame(method, bodies[method] + junk, len(plain)),
        _frame(method, bodies[method], len(plain)) + junk,
    ):
        with pytest.raises(CorruptBlock):
            decode_block(stored, digest=digest, plain_length=len(plain))


def test_the_error_names_the_block() -> None:
    digest = sha256_digest(b"x")
    with pytest.raises(CorruptBlock) as caught:
        decode_block(b"", digest=digest, plain_length=1)
    assert caught.value.attributes == {"block": digest}


def test_pruned_weights_cost_a_bitmap_and_what_is_left() -> None:
    rng = np.random.default_rng(5)
    weights = rng.normal(0, 0.02, 400_000).astype("<f4")
    dense = len(encode_block(weights[:100_000].tobytes(), Dtype.F32))
    weights[rng.permutation(len(weights))[100_000:]] = 0
    assert len(_round_trip(weights.tobytes(), Dtype.F32)) < dense + len(weights) / 8


@pytest.mark.parametrize("dtype", [Dtype.INT8, Dtype.F8_E4M3, Dtype.F8_E5M2, Dtype.BYTES])
def test_quantized_weights_are_judged_by_a_sample_and_not_by_their_kind(dtype: Dtype) -> None:
    rng = np.random.default_rng(6)
    skewed = np.clip(rng.normal(0, 20, 300_000), -127, 127).astype("<i1").tobytes()
    assert len(_round_trip(skewed, dtype)) < 0.82 * len(skewed)
    uniform = rng.bytes(300_000)
    assert len(_round_trip(uniform, dtype)) < len(uniform) + 100


def test_without_the_second_binding_of_zstd_blocks_are_a_little_larger_and_read_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = _weights(200_000, Dtype.BF16)
    usual = len(_round_trip(plain, Dtype.BF16))
    monkeypatch.setitem(sys.modules, "zstandard.backend_cffi", None)
    # Compressors belong to threads: a new one has to do without.
    with ThreadPoolExecutor(1) as pool:
        assert usual < len(pool.submit(_round_trip, plain, Dtype.BF16).result()) < 1.005 * usual


@pytest.mark.parametrize("dtype", [Dtype.BYTES, Dtype.F32])
def test_a_sample_that_is_fooled_costs_some_bytes_and_no_more(dtype: Dtype) -> None:
    chunk = 2**18 // dtype.width
    words = np.random.default_rng(7).integers(1, 2**8, (4, chunk), dtype=np.uint32)
    words *= np.uint32(0x01010101)
    piece, step = 2048, (chunk - 2048) // 3
    for place in range(4):
        words[:, place * step : place * step + piece : 2] = 0
    plain = words.astype(f"<u{dtype.width}").tobytes()
    _round_trip(np.frombuffer(plain, "<u1").tobytes(), dtype)


def test_a_chunk_that_is_too_short_to_be_worth_reading_is_refused() -> None:
    plain = bytes(10_000)
    chunk = struct.pack("<BIBIB", 0, 100, 2, 1, 0)
    stored = struct.pack("<3sBBI", b"FLB", 1, 0, len(plain)) + chunk * 100
    with pytest.raises(CorruptBlock):
        decode_block(stored, digest=sha256_digest(plain), plain_length=len(plain))
