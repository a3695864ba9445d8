"""A stable sort by small keys, and back: elements with one key side by side, in the order they had.

Both directions need nothing but the keys. Sorting piece by piece, each small enough for a core's cache, and then moving
the runs of each key to their places takes half the time of sorting all at once, and gives the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.sync.store.planes import Words

_PIECE = 128 * 2**10
# With more keys the runs of a piece become too short to be worth moving one by one.
_KEYS_MAX = 1024


class Grouping:
    """The order that at least one key gives: `(n_elements,)` uint8 or uint16."""

    def __init__(self, keys: Words) -> None:
        self._keys = keys
        n_keys = int(keys.max()) + 1
        piece = _PIECE if n_keys <= _KEYS_MAX else len(keys)
        self._starts = range(0, len(keys), piece)
        self._piece = piece
        pieces = [np.bincount(keys[start : start + piece], minlength=n_keys) for start in self._starts]
        self._counts = np.array(pieces, np.intp).reshape(len(pieces), n_keys)

    @property
    def ends(self) -> list[int]:
        """Where in the order each key's elements end, in order of the keys."""
        return np.cumsum(self._counts.sum(axis=0)).tolist()

    def group(self, values: Words) -> Words:
        """The values in the order of their keys."""
        grouped = np.empty_like(values)
        for start, order, runs in self._pieces():
            sorted_piece = values[start : start + self._piece][order]
            for here, there, count in runs:
                grouped[there : there + count] = sorted_piece[here : here + count]
        return grouped

    def ungroup(self, grouped: Words) -> Words:
        """The inverse of `group`."""
        values = np.empty_like(grouped)
        for start, order, runs in self._pieces():
            sorted_piece = np.empty(len(order), grouped.dtype)
            for here, there, count in runs:
                sorted_piece[here : here + count] = grouped[there : there + count]
            values[start : start + self._piece][order] = sorted_piece
        return values

    def _pieces(self) -> Iterator[tuple[int, npt.NDArray[np.intp], Iterator[tuple[Any, ...]]]]:
        """For each piece its start, its own sorted order, and the runs of that: place there, place in all, length."""
        if len(self._starts) == 1:
            yield 0, np.argsort(self._keys, kind="stable"), iter([(0, 0, len(self._keys))])
            return
        n_pieces = len(self._starts)
        ends = np.cumsum(self._counts.T.ravel()).reshape(-1, n_pieces).T
        there = ends - self._counts
        here = np.cumsum(self._counts, axis=1) - self._counts
        for index, start in enumerate(self._starts):
            used = np.flatnonzero(self._counts[index])
            columns = (here[index][used], there[index][used], self._counts[index][used])
            runs = zip(*(column.tolist() for column in columns), strict=True)
            yield start, np.argsort(self._keys[start : start + self._piece], kind="stable"), runs
