"""What kind of numbers a span of bytes holds: a hint that makes it smaller, never one that changes it."""

from __future__ import annotations

from enum import IntEnum


class Dtype(IntEnum):
    """The kinds a stored block can name; the values are part of the stored format and never reused.

    Integers are signed or not: their bytes, and differences modulo their range, are the same.
    """

    BYTES = 0
    F16 = 1
    BF16 = 2
    F32 = 3
    F64 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    F8_E4M3 = 8
    F8_E5M2 = 9
    INT8 = 10

    @property
    def width(self) -> int:
        """The bytes of one element."""
        return _WIDTHS[self]

    @property
    def is_float(self) -> bool:
        """Whether the highest bit is a sign, with the exponent below it."""
        return Dtype.F16 <= self <= Dtype.F64 or self in {Dtype.F8_E4M3, Dtype.F8_E5M2}


_WIDTHS = {
    Dtype.BYTES: 1,
    Dtype.F16: 2,
    Dtype.BF16: 2,
    Dtype.F32: 4,
    Dtype.F64: 8,
    Dtype.INT16: 2,
    Dtype.INT32: 4,
    Dtype.INT64: 8,
    Dtype.F8_E4M3: 1,
    Dtype.F8_E5M2: 1,
    Dtype.INT8: 1,
}
