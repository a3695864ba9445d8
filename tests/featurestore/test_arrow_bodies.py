"""What is read of the Arrow streams that callers send, and what is refused before it takes memory."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.arrow_bodies import read_arrow_body

pa: Any = import_module("pyarrow")


def stream(table: Any, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_ordinary_rows_are_read_as_they_were_sent(rows: int) -> None:
    sent = pa.table(
        {
            "patient_id": pa.array(range(rows), pa.int64()),
            "ward": pa.array(["east", None][each % 2] for each in range(rows)).cast(pa.string()).dictionary_encode(),
            "level": pa.array([each % 3 for each in range(rows)], pa.int8()).dictionary_encode(),
            "readings": pa.array([[1.0, 2.0]] * rows, pa.list_(pa.float32())),
            "nothing": pa.nulls(rows),
        }
    )
    assert read_arrow_body(stream(sent)).equals(sent)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("is_dictionary", [False, True])
def test_compressed_streams_are_refused_before_they_are_unpacked(codec: str, *, is_dictionary: bool) -> None:
    zeros = pa.array(["0" * 100_000] * 100) if is_dictionary else pa.array([0] * 1_000_000)
    body = stream(pa.table({"a": zeros.dictionary_encode() if is_dictionary else zeros}), compression=codec)
    assert len(body) < 100_000
    before = pa.total_allocated_bytes()
    with pytest.raises(InvalidInput, match="compressed"):
        read_arrow_body(body)
    assert pa.total_allocated_bytes() == before


def test_columns_that_unfold_to_far_more_than_was_sent_are_refused() -> None:
    text = pa.array(["x" * 1_000_000])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), text)
    for column in (
        repeated,
        pa.RunEndEncodedArray.from_arrays(pa.array([50], pa.int32()), pa.array([7])),
        pa.array(["a longer text than twelve bytes"], pa.string_view()),
        pa.array([{"a": "b"}], pa.struct([("a", pa.dictionary(pa.int8(), pa.string()))])),
    ):
        with pytest.raises(InvalidInput, match="unfolds"):
            read_arrow_body(stream(pa.table({"a": column})))
    with pytest.raises(InvalidInput, match="claims 1000000 rows"):
        read_arrow_body(stream(pa.table({"a": pa.nulls(1_000_000)})))


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff\xff", b"{}" * 50, stream(pa.table({"a": [1, 2]}))[:-40]])
def test_what_is_no_whole_stream_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not an Arrow IPC stream"):
        read_arrow_body(body)
