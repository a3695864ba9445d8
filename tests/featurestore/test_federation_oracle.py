"""A federated read against a plain Python reading of what it promises, over random histories and entity rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.featurestore.applied import FeatureObject
from tests.featurestore.feature_fleet import service, view_spec
from tests.featurestore.federation_world import EU, US, WEST, FederationWorld, tagged

arrow: Any = pa
parquet: Any = pq

START = datetime(2026, 2, 19, tzinfo=UTC)
TTL = timedelta(days=2)
Entity = tuple[int | None, datetime | None]
Row = tuple[int, datetime, datetime | None, Any]

# Few values a microsecond, an hour or a day apart, so that keys meet, times tie and rows repeat.
_OFFSETS = [timedelta(days=days, microseconds=tick) for days in range(6) for tick in (-1, 0, 1)]
keys = st.integers(0, 2)
moments = st.sampled_from([START + offset for offset in _OFFSETS])
rows = st.lists(st.tuples(st.none() | keys, st.none() | moments), max_size=20)
# How the same times may be given: a column's unit and its zone.
forms = st.tuples(st.sampled_from(["us", "ns"]), st.sampled_from([None, "UTC", "Asia/Kolkata", "-03:30"]))


def history(value: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    return st.lists(st.tuples(keys, moments, st.none() | moments, st.none() | value), max_size=20)


def last_known(history: Sequence[Row], entity: Entity, ttl: timedelta | None) -> Any:
    """What is known of an entity at its time, by the words of the documentation."""
    key, moment = entity
    if key is None or moment is None:
        return None
    known = [row for row in history if row[0] == key and row[1] <= moment]
    # Of equal event timestamps the latest created counts, then the greatest feature; what is missing comes first.
    known.sort(key=lambda row: (row[1], row[2] is not None, row[2] or START))
    last = [row for row in known if row[1:3] == known[-1][1:3]]
    if not known or (ttl is not None and moment - known[-1][1] > ttl):
        return None
    return max((row[3] for row in last if row[3] is not None), default=None)


def write(world: FederationWorld, name: str, column: str, kind: Any, found: Sequence[Row]) -> None:
    times = arrow.timestamp("us", tz="UTC")
    parquet.write_table(
        arrow.table(
            {
                "patient_id": arrow.array([row[0] for row in found], arrow.int64()),
                "event_timestamp": arrow.array([row[1] for row in found], times),
                "created": arrow.array([row[2] for row in found], times),
                column: arrow.array([row[3] for row in found], kind),
            }
        ),
        world.sources / f"{name}.parquet",
    )


def with_created(view: FeatureObject) -> FeatureObject:
    spec: Any = json.loads(json.dumps(dict(view.spec)))
    spec["spec"]["batchSource"]["createdTimestampColumn"] = "created"
    return FeatureObject(kind=view.kind, spec=spec)


@pytest.fixture(scope="module")
def clinic(federation: FederationWorld) -> FederationWorld:
    """Two more views, at home in the US and in Europe, whose sources the tests write."""
    world = federation
    write(world, "pulse", "beats", arrow.float64(), [])
    write(world, "notes", "note", arrow.string(), [])
    pulse = view_spec("pulse", [("beats", "DOUBLE")], world.sources / "pulse.parquet", ttl="172800s")
    notes = view_spec("notes", [("note", "STRING")], world.sources / "notes.parquet")
    world.apply(
        [
            tagged(with_created(pulse), home=US),
            tagged(with_created(notes), home=EU),
            service("rounds", {"pulse": [("beats", "DOUBLE")], "notes": [("note", "STRING")]}),
        ]
    )
    return world


@settings(max_examples=12)
@given(
    pulse=history(st.sampled_from([-1.5, 0.0, 2.0])),
    notes=history(st.sampled_from(["", "a", "b"])),
    asked=rows,
    form=forms,
)
def test_every_row_is_kept_in_order_with_what_was_last_known_at_its_time(
    clinic: FederationWorld,
    pulse: list[Row],
    notes: list[Row],
    asked: list[Entity],
    form: tuple[Literal["us", "ns"], str | None],
) -> None:
    write(clinic, "pulse", "beats", arrow.float64(), pulse)
    write(clinic, "notes", "note", arrow.string(), notes)
    unit, zone = form
    times = arrow.array([moment for _, moment in asked], arrow.timestamp("us", tz="UTC"))
    # Only what the instants are called changes; without a zone they are called as in UTC.
    times = times.cast(arrow.timestamp(unit, tz="UTC")).cast(arrow.timestamp(unit, tz=zone))
    entities = arrow.table(
        {
            "patient_id": arrow.array([key for key, _ in asked], arrow.int64()),
            "event_timestamp": times,
            "label": arrow.array(range(len(asked)), arrow.int64()),
        }
    )
    read = clinic.reader(WEST).federation.read(entities, service="rounds", live=True)
    assert read.table.select(entities.column_names).equals(entities)
    assert read.table.column("beats").to_pylist() == [last_known(pulse, each, TTL) for each in asked]
    assert read.table.column("note").to_pylist() == [last_known(notes, each, None) for each in asked]
