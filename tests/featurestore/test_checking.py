"""Checks of rows by themselves: limits of floats, columns of other types, and sides with nothing in them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.catalog import UNRESTRICTED
from fairlead.core.errors import InvalidInput
from fairlead.featurestore.checking import Expected, Finding, PartRows, check_part
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.duck import open_duckdb
from fairlead.featurestore.expectations import check_features, expectation_from_json, from_json
from fairlead.featurestore.snapshot_report import count_bars
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition

arrow: Any = pa
parquet: Any = pq
NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAN = float("nan")


def view(kind: str = "DOUBLE") -> ViewDefinition:
    place = ParquetFiles(uri="x.parquet")
    source = SourceDefinition(place=place, timestamp_field="at", created_timestamp_column=None, field_mapping={})
    return ViewDefinition(
        name="v",
        entities=("thing",),
        keys=(Column(name="id", type="INT64"),),
        features=(Column(name="x", type=kind),),
        source=source,
        ttl_seconds=None,
        residency=UNRESTRICTED,
    )


def rows(folder: Path, values: list[Any], kind: str = "DOUBLE", name: str = "now") -> PartRows:
    types = {"DOUBLE": arrow.float64(), "FLOAT": arrow.float32(), "STRING": arrow.string(), "INT64": arrow.int64()}
    table = arrow.table(
        {
            "id": arrow.array(range(len(values)), arrow.int64()),
            "x": arrow.array(values, types[kind], from_pandas=False),
            "at": arrow.array([NOW] * len(values), arrow.timestamp("us", tz="UTC")),
        }
    )
    path = folder / f"{name}.parquet"
    parquet.write_table(table, path)
    return PartRows(view=view(kind), path=path, as_of=NOW)


def check(folder: Path, present: PartRows, previous: PartRows | None = None, /, **said: Any) -> list[Finding]:
    expectation = expectation_from_json({"feature": "x", **said})
    return check_part(present, previous, [Expected(set="s", view="v", expectation=expectation)], scratch=folder)


def test_what_is_not_a_number_is_no_value_to_drift(tmp_path: Path) -> None:
    before = rows(tmp_path, [1.0, 2.0], name="before")
    (found,) = check(tmp_path, rows(tmp_path, [1.0, NAN, None, 2.0]), before, kind="drift", ks_at_most=0.1)
    assert found.value == 0.0


def test_limits_of_floats_are_compared_as_floats(tmp_path: Path) -> None:
    present = rows(tmp_path, [0.1, 0.7], "FLOAT")
    assert check(tmp_path, present, kind="values", allowed=[0.1, 0.7])[0].passed
    assert check(tmp_path, present, kind="range", min=0.1, max=0.7)[0].passed
    assert not check(tmp_path, present, kind="range", min=0.11, max=0.7)[0].passed
    whole = rows(tmp_path, [2**53 + 1], "INT64")
    assert not check(tmp_path, whole, kind="range", max=2**53)[0].passed


@pytest.mark.parametrize("values", [[], [None, None]])
def test_a_column_that_lost_all_its_values_has_drifted(tmp_path: Path, values: list[Any]) -> None:
    before = rows(tmp_path, [1.0, 2.0, 3.0], name="before")
    found = check(tmp_path, rows(tmp_path, values), before, kind="drift", psi_at_most=0.2, ks_at_most=0.2)
    assert [each.passed for each in found] == [False, False]
    # The other way round there is nothing to be compared with.
    found = check(tmp_path, before, rows(tmp_path, values), kind="drift", ks_at_most=0.2)
    assert [each.passed for each in found] == [True]


def test_a_column_of_another_type_cannot_be_compared_and_does_not_break_the_check(tmp_path: Path) -> None:
    before = rows(tmp_path, ["a", "b"], "STRING", name="before")
    (found,) = check(tmp_path, rows(tmp_path, [1.0]), before, kind="drift", psi_at_most=0.2)
    assert (found.passed, found.value) == (True, None)
    assert "type" in found.detail


def test_distributions_of_what_has_no_order_are_not_asked_for() -> None:
    asked = from_json({"view": "v", "expectations": [{"kind": "drift", "feature": "x", "ks_at_most": 0.1}]})
    with pytest.raises(InvalidInput, match="order"):
        check_features(asked, {"v": view("STRING")})
    check_features(asked, {"v": view("DOUBLE")})


def test_of_rows_that_stay_elsewhere_nothing_but_the_verdict_is_told(tmp_path: Path) -> None:
    (found,) = check(tmp_path, rows(tmp_path, [None, 1.0]), kind="nulls", at_most=0.0)
    told = found.without_values()
    assert (told.passed, told.rows, told.value, told.count, told.detail) == (False, 2, None, None, "")


def test_bars_hold_values_at_both_ends_of_what_there_is(tmp_path: Path) -> None:
    present = rows(tmp_path, [-1.7e308, 0.0, 1.7e308, NAN])
    with open_duckdb(tmp_path) as connection:
        bars = count_bars(connection, [present.path], "x")
    assert sum(bar.count for bar in bars) == 3
