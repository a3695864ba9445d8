"""Features of several regions: joined where they live, as if they were in one place, and no further than they may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.featurestore.federation_world import EU, US, WEST, FederationWorld, each_row, entity_rows, open_federation

ROWS = [(1, 1), (1, 4), (2, 4), (3, 4), (1, 9), (1, 1), (7, 3)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationWorld]:
    with open_federation(tmp_path_factory.mktemp("federation")) as found:
        yield found


def test_each_view_is_joined_where_it_lives_and_every_row_is_kept_in_its_place(world: FederationWorld) -> None:
    reader = world.reader(WEST)
    entities = entity_rows(ROWS, label=[0, 1, 2, 3, 4, 5, 6])
    read = reader.federation.read(entities, service="diagnosis")
    assert read.table.column_names == ["patient_id", "event_timestamp", "label", "radius", "marker", "count"]
    assert read.table.column("label").to_pylist() == [0, 1, 2, 3, 4, 5, 6]
    assert list(each_row(read.table, "radius", "marker", "count")) == [
        (1.0, "b", 3),
        (1.5, "b", 3),
        (None, None, 5),
        (None, "c", None),
        (9.0, "late", 3),
        (1.0, "b", 3),
        (None, None, None),
    ]
    assert [(hop.region, hop.outcome) for hop in read.hops] == [(WEST, "joined"), (US, "joined"), (EU, "joined")]
