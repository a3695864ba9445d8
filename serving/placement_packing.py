"""How replicas of several models fit together on one instance: every full pattern, for a solver to choose from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from fairlead.catalog import Price
from fairlead.core.errors import InvalidInput
from fairlead.serving.placement_request import Resources

MOST_PATTERNS = 500
_FITS = 1e-9

Pattern = tuple[int, ...]
"""How many replicas of each model are on one instance, in the models' order."""


def full_patterns(price: Price, needs: Sequence[Resources]) -> tuple[Pattern, ...]:
    """The patterns of an instance type that no further replica of any model fits into.

    A replica that has a part of a board has it on one board; boards are filled largest part first.

    Raises:
        InvalidInput: if there are too many to choose from.
    """
    shape = (float(price.vcpus), float(price.memory_gib), price.accelerator_count)
    return _full_patterns(shape, tuple(needs))


@cache
def _full_patterns(shape: tuple[float, float, int], needs: tuple[Resources, ...]) -> tuple[Pattern, ...]:
    found: list[Pattern] = []
    for pattern in _patterns(shape, needs, ()):
        counts = list(pattern)
        is_full = True
        for model in range(len(needs)):
            counts[model] += 1
            is_full = is_full and not _fits(shape, needs, counts)
            counts[model] -= 1
        if is_full and any(pattern):
            found.append(pattern)
        if len(found) > MOST_PATTERNS:
            raise InvalidInput(
                f"More than {MOST_PATTERNS} ways to fill one instance with replicas of {len(needs)} models.",
                hint="Put fewer models, or larger parts of an accelerator, into one pool.",
            )
    return tuple(found)


def _patterns(shape: tuple[float, float, int], needs: Sequence[Resources], begun: Pattern) -> Iterator[Pattern]:
    if len(begun) == len(needs):
        yield begun
        return
    count = 0
    rest = (0,) * (len(needs) - len(begun) - 1)
    while _fits(shape, needs, [*begun, count, *rest]):
        yield from _patterns(shape, needs, (*begun, count))
        count += 1


def _fits(shape: tuple[float, float, int], needs: Sequence[Resources], counts: Sequence[int]) -> bool:
    vcpus, memory, boards = shape
    pairs = list(zip(needs, counts, strict=True))
    if sum(each.vcpus * count for each, count in pairs) > vcpus + _FITS:
        return False
    if sum(each.memory_gib * count for each, count in pairs) > memory + _FITS:
        return False
    if boards == 0:
        return True
    free = [1.0] * boards
    for share in sorted((each.accelerator_share for each, count in pairs for _ in range(count)), reverse=True):
        whole, part = (int(share), 0.0) if share >= 1 else (0, share)
        empty = [board for board, left in enumerate(free) if left >= 1 - _FITS]
        if whole:
            if len(empty) < whole:
                return False
            for board in empty[:whole]:
                free[board] = 0.0
            continue
        board = next((board for board, left in enumerate(free) if left >= part - _FITS), None)
        if board is None:
            return False
        free[board] -= part
    return True
