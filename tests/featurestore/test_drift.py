"""Drift: the figures agree with what SciPy says, whatever the samples, and however they arrive."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.featurestore.drift import (
    Bin,
    SqlColumn,
    kolmogorov_p_value,
    ks,
    measure_drift,
    population_stability_index,
    psi,
)
from fairlead.featurestore.duck import open_duckdb

arrow: Any = pa
stats: Any = scipy.stats
FEW = settings(max_examples=15, deadline=None)
_NUMBERS = st.lists(
    st.one_of(st.sampled_from([0.0, -0.0, 1.0]), st.floats(-1e6, 1e6, allow_nan=False)), min_size=2, max_size=40
)
_COUNTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=12)


def column(values: Any, kind: Any = None) -> Any:
    return arrow.array(values, kind or arrow.float64())


@FEW
@given(_NUMBERS, _NUMBERS)
def test_the_statistic_is_scipys(expected: list[float], actual: list[float]) -> None:
    found = ks(column(expected), column(actual))
    assert found is not None
    assert found.statistic == pytest.approx(stats.ks_2samp(expected, actual, method="asymp").statistic, abs=1e-12)


@FEW
@given(_NUMBERS, _NUMBERS)
def test_every_value_is_in_one_bin_and_the_bins_are_what_they_say(expected: list[float], actual: list[float]) -> None:
    found = measure_drift(column(expected), column(actual), bins=4)
    for side, values in (("expected", expected), ("actual", actual)):
        counts = [
            sum(
                (each.lower is None or value > each.lower) and (each.upper is None or value <= each.upper)
                for value in values
            )
            for each in found.bins
        ]
        assert counts == [getattr(each, side) for each in found.bins]
        assert sum(counts) == len(values)


@FEW
@given(_COUNTS)
def test_the_index_is_the_symmetric_relative_entropy(counts: list[tuple[int, int]]) -> None:
    index = population_stability_index(counts)
    turned = population_stability_index([(actual, expected) for expected, actual in counts])
    sums = [sum(side) for side in zip(*counts, strict=True)]
    if not all(sums):
        assert index is None
        return
    assert index is not None
    assert turned is not None
    assert index >= 0
    assert index == pytest.approx(turned)
    if all(count >= total / 1e4 and count for pair in counts for count, total in zip(pair, sums, strict=True)):
        one, other = (np.array(side, dtype=float) for side in zip(*counts, strict=True))
        assert index == pytest.approx(stats.entropy(one, other) + stats.entropy(other, one), abs=1e-9)


@pytest.mark.parametrize("size", [(8, 9), (40, 25), (500, 300), (4000, 5000)])
def test_p_values_are_about_scipys(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(5)
    for shift in (0.0, 0.05, 0.3, 1.0):
        one, other = generator.normal(0, 1, size[0]), generator.normal(shift, 1, size[1])
        wanted = stats.ks_2samp(one, other, method="asymp")
        found = ks(column(one), column(other))
        assert found is not None
        assert found.p_value == pytest.approx(wanted.pvalue, abs=0.03)


def test_the_p_value_tends_to_kolmogorovs_distribution() -> None:
    for x in (0.1, 0.3, 0.5, 0.8, 1.17, 1.18, 1.5, 2.5):
        n = 10**12
        assert kolmogorov_p_value(x / math.sqrt(n / 2), n, n) == pytest.approx(stats.kstwobign.sf(x), abs=1e-6)


def test_equal_samples_show_no_drift_and_distant_ones_much() -> None:
    values = np.arange(1000.0)
    same, far = measure_drift(column(values), column(values)), measure_drift(column(values), column(values + 5000))
    assert (same.psi, len(same.bins)) == (0.0, 10)
    assert same.ks is not None
    assert (same.ks.statistic, same.ks.p_value) == (0.0, 1.0)
    assert far.psi is not None
    assert far.psi > 5
    assert far.ks is not None
    assert far.ks.statistic == 1.0


@pytest.mark.parametrize("other", [-5.0, 5.0])
def test_a_column_of_one_value_that_takes_another_has_drifted(other: float) -> None:
    found = psi(column([0.0] * 100), column([other] * 100))
    assert found is not None
    assert found > 5


def test_missing_values_are_a_bin_of_the_index_and_nothing_to_the_statistic() -> None:
    values = [float(number) for number in range(100)]
    found = measure_drift(column(values), column([*values, *[None] * 50, *[math.nan] * 50]))
    assert found.bins[-1] == Bin(expected=0, actual=100, is_missing=True)
    assert found.psi is not None
    assert found.psi > 1
    assert found.ks is not None
    assert found.ks.statistic == 0.0


def test_values_without_an_order_are_counted_and_rare_ones_together() -> None:
    expected = ["a"] * 60 + ["b"] * 40
    found = measure_drift(column(expected, arrow.string()), column(["a"] * 60 + ["c"] * 40, arrow.string()))
    assert [(each.value, each.expected, each.actual) for each in found.bins] == [
        ("a", 60, 60),
        ("b", 40, 0),
        (None, 0, 40),
    ]
    assert not found.is_ordered
    assert found.ks is None
    many = measure_drift(column([str(n) for n in range(500)], arrow.string()), column(["1"], arrow.string()))
    assert len(many.bins) == 51


@pytest.mark.parametrize(
    ("kind", "expected", "actual"),
    [
        (arrow.bool_(), [True, False], [True, True]),
        (arrow.binary(), [b"a", b"\xff"], [b"a"]),
        (arrow.list_(arrow.float32()), [[1.0], [1.0, 2.0]], [[1.0]]),
        (arrow.timestamp("us", tz="UTC"), [0, 10**6], [10**6]),
        (arrow.int64(), [2**62, 1], [2]),
    ],
)
def test_every_type_can_be_compared(kind: Any, expected: list[Any], actual: list[Any]) -> None:
    assert measure_drift(column(expected, kind), column(actual, kind)).psi is not None


def test_with_nothing_on_one_side_there_is_nothing_to_say() -> None:
    found = measure_drift(column([]), column([1.0]))
    assert (found.psi, found.ks) == (None, None)
    assert ks(column([None], arrow.float64()), column([1.0])) is None
    assert measure_drift(column([]), column([])).bins == ()


def test_queries_are_compared_across_batches_as_arrays_are(tmp_path: Path) -> None:
    queries = [
        "SELECT (hash(i) % 1000003)::DOUBLE FROM range(150000) t(i)",
        "SELECT (hash(i) % 1000003)::DOUBLE * 1.02 FROM range(90000) t(i)",
    ]
    with open_duckdb(tmp_path) as connection:
        found = measure_drift(*(SqlColumn(connection, query) for query in queries))
        arrays = [connection.sql(query).to_arrow_table().column(0) for query in queries]
        assert found == measure_drift(arrays[0], arrays[1])
    wanted = stats.ks_2samp(*(array.to_numpy() for array in arrays), method="asymp")
    assert found.ks is not None
    assert found.ks.statistic == pytest.approx(wanted.statistic, abs=1e-12)
    assert found.ks.p_value == pytest.approx(wanted.pvalue, rel=0.05)
    assert all(abs(each.expected - 15_000) < 50 for each in found.bins)
