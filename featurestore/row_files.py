"""The Parquet files that hold a view's rows: one form, written in a stream, and a digest of the rows themselves.

Files are plain and uncompressed, in row groups of one size: the content store cuts, deduplicates and compresses better
than pages of Parquet would. The *rows digest* names the rows and not the file: it is computed of the values alone, so
it is equal for equal rows whatever wrote or stores them. See `docs/reference/format.md`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fairlead.core.canonical import canonical_json
from fairlead.core.ids import Digest
from fairlead.featurestore.definitions import DUCKDB_TYPES, Column
from fairlead.featurestore.duck import ArrowSchema, ArrowTable, load_arrow

ROW_GROUP = 131_072
"""Rows in a row group; the last one of a file is shorter."""

ROWS_METADATA: Mapping[str, str] = {"fairlead.rows": "1"}
"""What a file of rows says of itself: the version of this form."""

_MAGIC = b"fairlead/rows\x00\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRows:
    """How many rows were written, and what names them."""

    rows: int
    digest: Digest


def arrow_schema(columns: Iterable[Column]) -> ArrowSchema:
    """The Arrow schema of columns of the definitions' types."""
    arrow = load_arrow()
    scalars: dict[str, Any] = {
        "INT32": arrow.int32(),
        "INT64": arrow.int64(),
        "FLOAT": arrow.float32(),
        "DOUBLE": arrow.float64(),
        "STRING": arrow.string(),
        "BOOL": arrow.bool_(),
        "BYTES": arrow.binary(),
        "UNIX_TIMESTAMP": arrow.timestamp("us", tz="UTC"),
    }
    return arrow.schema(
        [
            arrow.field(
                column.name,
                arrow.list_(scalars[column.type.removesuffix("_LIST")])
                if column.type.endswith("_LIST")
                else scalars[column.type],
            )
            for column in columns
        ]
    )


def columns_of(schema: ArrowSchema) -> list[Column]:
    """The columns that `arrow_schema` makes a schema of."""
    kinds = [kind for kind in DUCKDB_TYPES if not kind.endswith("_LIST")]
    scalars = {arrow_schema([Column(name="x", type=kind)]).field(0).type: kind for kind in kinds}

    def name_of(kind: Any) -> str:
        is_list = load_arrow().types.is_list(kind)
        return f"{scalars[kind.value_type]}_LIST" if is_list else scalars[kind]

    return [Column(name=field.name, type=name_of(field.type)) for field in schema]


class RowsDigest:
    """The digest of rows, of which `update` takes one group of `ROW_GROUP` after the other, the last one shorter."""

    def __init__(self, columns: Iterable[Column]) -> None:
        named = canonical_json([{"name": column.name, "type": column.type} for column in columns])
        self._sha256 = hashlib.sha256(_MAGIC + struct.pack("<I", len(named)) + named)

    def update(self, group: ArrowTable) -> None:
        """Take the rows of a group."""
        self._sha256.update(struct.pack("<I", group.num_rows))
        for column in group.columns:
            for piece in encoded(column.combine_chunks()):
                self._sha256.update(piece)

    def digest(self) -> Digest:
        """The digest of the rows so far."""
        return Digest(f"sha256:{self._sha256.hexdigest()}")


def encoded(array: Any) -> Iterator[Any]:
    """The bytes that stand for a column's values: which are there, their lengths where they have any, and they."""
    arrow = load_arrow()
    kind, compute = array.type, arrow.compute
    yield np.ones(len(array), np.uint8) if array.null_count == 0 else _numbers(array.is_valid()).view(np.uint8)
    if arrow.types.is_list(kind):
        yield _numbers(compute.list_value_length(array).fill_null(0)).astype("<u4")
        yield from encoded(array.flatten())
    elif arrow.types.is_string(kind) or arrow.types.is_binary(kind):
        filled = array.cast(arrow.binary()).fill_null(b"")
        offsets = np.frombuffer(filled.buffers()[1], np.int32, len(filled) + 1, filled.offset * 4)
        yield np.diff(offsets).astype("<u4")
        if len(filled) and offsets[-1] > offsets[0]:
            yield filled.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    elif arrow.types.is_boolean(kind):
        yield _numbers(array.fill_null(False)).view(np.uint8)  # noqa: FBT003  (a value)
    else:
        numbers = array.cast(arrow.int64()) if arrow.types.is_timestamp(kind) else array
        values = _numbers(numbers.fill_null(0))
        yield np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))


class RowWriter:
    """Writes rows, which come in canonical order and in tables of any size, and digests them.

    Used as a context, it closes its file; what an error cut short has no footer, and is no Parquet file.
    """

    def __init__(self, path: Path, columns: Iterable[Column], *, metadata: Mapping[str, str] = ROWS_METADATA) -> None:
        columns = list(columns)
        self._schema: ArrowSchema = arrow_schema(columns).with_metadata(dict(metadata) or None)
        self._digest = RowsDigest(columns)
        self._writer: Any = load_arrow().parquet.ParquetWriter(
            path, self._schema, compression="none", use_dictionary=False, version="2.6"
        )
        self._waiting: list[ArrowTable] = []
        self._waiting_rows = 0
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, table: ArrowTable) -> None:
        """Add rows."""
        while self._waiting_rows + table.num_rows >= ROW_GROUP:
            taken = ROW_GROUP - self._waiting_rows
            self._waiting.append(table.slice(0, taken))
            self._write_group()
            table = table.slice(taken)
        if table.num_rows:
            self._waiting.append(table)
            self._waiting_rows += table.num_rows

    def finish(self) -> WrittenRows:
        """Write what is left; nothing can be added then."""
        if self._waiting:
            self._write_group()
        self._writer.close()
        return WrittenRows(rows=self._rows, digest=self._digest.digest())

    def _write_group(self) -> None:
        group = load_arrow().concat_tables(self._waiting).cast(self._schema).combine_chunks()
        self._waiting, self._waiting_rows = [], 0
        self._rows += group.num_rows
        self._digest.update(group)
        self._writer.write_table(group, row_group_size=ROW_GROUP)


def iter_groups(path: Path) -> Iterator[ArrowTable]:
    """The rows of a file, a row group at a time."""
    with closing(load_arrow().parquet.ParquetFile(path, pre_buffer=False)) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, use_threads=False)


def _numbers(array: Any) -> Any:
    return array.to_numpy(zero_copy_only=False)
