"""Features of several regions: joined where they live, as if they were in one place, and no further than they may."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.errors import (
    AgentUnavailable,
    FeatureDefinitionInvalid,
    FeatureViewNotFound,
    InvalidInput,
    ResidencyViolation,
)
from tests.featurestore.feature_fleet import service, view_spec
from tests.featurestore.federation_world import (
    EU,
    US,
    WEST,
    FederationWorld,
    day,
    definitions,
    each_row,
    entity_rows,
    tagged,
)

arrow: Any = pa
parquet: Any = pq
ROWS = [(1, 1), (1, 4), (2, 4), (3, 4), (1, 9), (1, 1), (7, 3)]


def test_each_view_is_joined_where_it_lives_and_every_row_is_kept_in_its_place(federation: FederationWorld) -> None:
    reader = federation.reader(WEST)
    entities = entity_rows(ROWS, label=[0, 1, 2, 3, 4, 5, 6])
    read = reader.federation.read(entities, service="diagnosis")
    assert read.table.column_names == ["patient_id", "event_timestamp", "label", "radius", "marker", "count"]
    assert read.table.column("label").to_pylist() == [0, 1, 2, 3, 4, 5, 6]
    # Of equal times the greatest features count ("b", not "a"); on day 4 nothing of day 8 is seen.
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
    assert read.pinned is not None
    local = reader.features.training_set(
        "diagnosis", entities.to_pandas(), snapshot=read.pinned.snapshot_digest, region=EU
    )
    pd.testing.assert_frame_equal(read.frame(), local.frame)


@settings(max_examples=6)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.floats(-1, 12, allow_nan=False, allow_subnormal=False)), min_size=1, max_size=30
    )
)
def test_a_federated_read_has_the_rows_of_a_local_one(
    federation: FederationWorld, rows: list[tuple[int, float]]
) -> None:
    reader = federation.reader(EU)
    entities = entity_rows(rows, label=list(range(len(rows))))
    read = reader.federation.read(entities, service="diagnosis")
    local = reader.features.training_set("diagnosis", entities.to_pandas(), region=EU)
    pd.testing.assert_frame_equal(read.frame(), local.frame)


def test_features_may_be_named_one_by_one_and_read_from_their_sources(federation: FederationWorld) -> None:
    reader = federation.reader(WEST)
    named = ["genes:marker", "cells:radius"]
    snapshot = reader.federation.read(entity_rows(ROWS), features=named)
    assert snapshot.table.column_names[2:] == ["marker", "radius"]
    live = reader.federation.read(entity_rows(ROWS), features=named, live=True)
    assert live.table.equals(snapshot.table)
    assert all(not hop.snapshots for hop in live.hops)
    past = datetime(2026, 2, 20, tzinfo=UTC)
    early = reader.federation.read(entity_rows(ROWS), features=named, live=True, live_until=past)
    assert early.table.column("radius").to_pylist() == [1.0, 1.0, 2.0, None, 1.0, 1.0, None]
    with pytest.raises(FeatureViewNotFound, match="'teeth'"):
        reader.federation.plan(entity_rows(ROWS), features=["teeth:count"])
    with pytest.raises(FeatureViewNotFound, match="no feature 'length'"):
        reader.federation.plan(entity_rows(ROWS), features=["genes:length"])


def test_the_plan_says_what_crosses_what_it_costs_and_what_else_there_is(federation: FederationWorld) -> None:
    entities = entity_rows(ROWS)
    plan: Any = federation.reader(WEST).federation.plan(entities, service="diagnosis")
    here, cells, genes = plan["hops"]
    assert (here["region"], here["joiner"], here["usd_out"], here["usd_back"]) == (WEST, "service", "0", "0")
    assert cells["columns"] == ["patient_id", "event_timestamp"]
    assert cells["bytes_out"] == entities.nbytes + 8 * len(ROWS)
    # A number of 4 bytes with its bit for a missing value, and the row's number of 8.
    assert cells["views"][0]["bytes_back"] == math.ceil(len(ROWS) * 4.125)
    assert cells["bytes_back"] == cells["views"][0]["bytes_back"] + 8 * len(ROWS)
    assert float(cells["usd_back"]) > 0
    assert genes["views"][0]["residencies"] == ["eu"]
    # Both are copied to the reader's region anyway, so moving them costs nothing more.
    assert cells["views"][0]["moving"]["refused"] is None
    far: Any = federation.reader("aws:ap-northeast-1").federation.plan(entities, features=["cells:radius"])
    moving = far["hops"][0]["views"][0]["moving"]
    assert moving["bytes"] > 0
    assert float(moving["usd"]) > 0
    assert moving["pays_after"] > 1


def test_what_is_planned_agrees_with_what_crosses(federation: FederationWorld) -> None:
    world = federation
    texts = [(patient, 0, "x" * (80 + patient)) for patient in range(40)]
    world.write("letters", "letter", arrow.string(), texts)
    letters = view_spec("letters", [("letter", "STRING")], world.sources / "letters.parquet")
    world.apply([tagged(letters, home=EU), service("post", {"letters": [("letter", "STRING")]})])
    world.client.features.snapshot("post")
    read = world.reader(WEST).federation.read(entity_rows([(patient, 1) for patient, _, _ in texts]), service="post")
    (hop,) = read.hops
    assert hop.bytes_out == hop.planned_out
    assert hop.bytes_back == pytest.approx(hop.planned_back, rel=0.05)
    assert float(hop.usd) == pytest.approx(float(hop.planned_usd), rel=0.05)
    # Of a live read the alternative is that of the newest snapshot.
    far = world.reader("aws:ap-northeast-1")
    plans: list[Any] = [far.federation.plan(entity_rows(ROWS), service="post", live=live) for live in (False, True)]
    moving = [plan["hops"][0]["views"][0]["moving"] for plan in plans]
    assert moving[0]["bytes"] == moving[1]["bytes"] > 0


def test_what_crossed_is_in_the_ledger_and_the_audit_log(federation: FederationWorld) -> None:
    reader = federation.reader(WEST)
    read = reader.federation.read(entity_rows(ROWS), features=["cells:radius"])
    agent = federation.agents[US]
    agent.link.tell()
    agent.link.tell()
    mine = [row for row in reader.ledger.list(kind="federate") if str(read.plan["read"]) in row.subject]
    (hop,) = read.hops
    assert [(row.source_region, row.region, row.moved_bytes) for row in mine] == [
        (WEST, US, hop.bytes_out),
        (US, WEST, hop.bytes_back),
    ]
    assert hop.planned_out == hop.bytes_out
    assert sum(float(row.actual_usd) for row in mine) == pytest.approx(float(hop.usd))
    events = [event for event in reader.audit.list() if event.action == "feature.federate"]
    facts = next(event.facts for event in events if str(read.plan["read"]) in event.subject)
    assert (facts["reader"], facts["rows"], facts["region"]) == ("owner", len(ROWS), US)


def test_a_residency_rule_stops_a_read_before_anything_leaves(federation: FederationWorld) -> None:
    crossed = {region: len(agent.crossed) for region, agent in federation.agents.items()}
    reader = federation.reader(US)
    with pytest.raises(ResidencyViolation, match="genes") as results:
        reader.federation.read(entity_rows(ROWS), service="diagnosis")
    assert results.value.attributes | {"rule": "results", "view": "genes", "residency": "eu", "region": US} == (
        results.value.attributes
    )
    with pytest.raises(ResidencyViolation) as rows:
        federation.reader(EU).federation.read(entity_rows(ROWS), service="screening", residency="eu")
    assert rows.value.attributes | {"rule": "entity-rows", "view": "cells", "residency": "eu", "region": US} == (
        rows.value.attributes
    )
    with pytest.raises(InvalidInput, match="does not say where the reader is"):
        federation.client.federation.read(entity_rows(ROWS), service="diagnosis")
    assert {region: len(agent.crossed) for region, agent in federation.agents.items()} == crossed


def test_entity_rows_lack_nothing_and_hide_nothing(federation: FederationWorld) -> None:
    reader = federation.reader(WEST)
    with pytest.raises(InvalidInput, match="no column 'patient_id'"):
        reader.federation.read(entity_rows(ROWS).drop_columns(["patient_id"]), service="diagnosis")
    with pytest.raises(InvalidInput, match="no column 'event_timestamp'"):
        reader.federation.read(entity_rows(ROWS).drop_columns(["event_timestamp"]), service="diagnosis")
    with pytest.raises(InvalidInput, match="already have a column 'radius'"):
        reader.federation.read(entity_rows(ROWS, radius=[1.0] * len(ROWS)), service="diagnosis")
    empty = reader.federation.read(entity_rows([]), service="diagnosis")
    assert empty.table.num_rows == 0
    assert empty.table.column_names == ["patient_id", "event_timestamp", "radius", "marker", "count"]


def test_a_view_without_an_entity_is_joined_at_home_by_times_alone(federation: FederationWorld) -> None:
    path = federation.sources / "rates.parquet"
    times = arrow.array([day(0), day(3)], arrow.timestamp("us", tz="UTC"))
    parquet.write_table(arrow.table({"event_timestamp": times, "rate": [1.0, 1.5]}), path)
    rates = view_spec("rates", [("rate", "DOUBLE")], path, entities=[], entityColumns=[])
    taken = {"rates": [("rate", "DOUBLE")]}
    federation.apply(
        [tagged(rates, home=EU), service("market", taken), service("both", {**taken, "visits": [("count", "INT64")]})]
    )
    reader = federation.reader(WEST)
    agent = federation.agents[EU]
    entities = entity_rows(ROWS, label=list(range(len(ROWS))))
    expected = [1.0, 1.5, 1.5, 1.5, 1.5, 1.0, 1.5]
    for live, seen in ((True, []), (False, ["both", "market"])):
        for name in seen:
            federation.client.features.snapshot(name)
        crossed = len(agent.crossed)
        both = reader.federation.read(entities, service="both", live=live)
        assert list(each_row(both.table, "rate", "count"))[:3] == [(1.0, 3), (1.5, 3), (1.5, 5)]
        alone = reader.federation.read(entities.select(["event_timestamp"]), service="market", live=live)
        assert alone.table.column_names == ["event_timestamp", "rate"]
        assert alone.table.column("rate").to_pylist() == both.table.column("rate").to_pylist() == expected
        came = [table.column_names for way, table in agent.crossed[crossed:] if way == "in"]
        assert came == [["event_timestamp", "__row_number"]] * 2


def test_a_home_is_no_part_of_a_version_and_its_move_is_said(federation: FederationWorld) -> None:
    spec = view_spec("visits", [("count", "INT64")], federation.sources / "visits.parquet")
    planned = federation.server.service.features.definitions.apply(
        federation.server.owner, [tagged(spec, home=EU)], dry_run=True
    )
    (visits,) = [each for each in planned if each.name == "visits"]
    assert (visits.change, visits.digest) == ("changed", visits.previous_digest)
    assert visits.reason is not None
    assert f"its home is {EU}" in visits.reason
    with pytest.raises(FeatureDefinitionInvalid, match="no region of the catalog"):
        federation.apply([tagged(spec, home="aws:atlantis-1")])
    genes = definitions(federation.sources)[2]
    with pytest.raises(ResidencyViolation, match="cannot have its home in aws:us-east-1"):
        federation.apply([tagged(genes, home=US, residency="eu")])


def test_a_region_that_is_away_is_an_error_or_is_labelled(federation: FederationWorld) -> None:
    reader = federation.reader(WEST)
    federation.write_replicas()
    federation.agents[US].stop()
    try:
        with pytest.raises(AgentUnavailable) as away:
            reader.federation.read(entity_rows(ROWS), service="screening")
        assert (away.value.attributes["region"], away.value.attributes["views"]) == (US, ["cells"])

        stale = reader.federation.read(entity_rows(ROWS), service="screening", on_unavailable="stale")
        assert stale.table.column("radius").to_pylist() == [1.0, 1.5, None, None, 9.0, 1.0, None]
        hop = next(hop for hop in stale.hops if hop.region == US)
        assert (hop.outcome, hop.bytes_out, hop.snapshots["cells"][0]) == ("stale", 0, stale.plan["snapshot"])
        assert hop.age_seconds is not None
        assert stale.pinned is None

        missing = reader.federation.read(entity_rows(ROWS), service="screening", on_unavailable="missing")
        assert missing.table.column("radius").to_pylist() == [None] * len(ROWS)
        assert missing.table.column("count").to_pylist()[:3] == [3, 3, 5]
        assert [hop.outcome for hop in missing.hops] == ["joined", "missing"]

        # Known to be away: nothing is sent anywhere else either.
        federation.client.agents.remove(region=US, address=federation.agents[US].address)
        before = len(federation.agents[EU].crossed)
        with pytest.raises(AgentUnavailable, match="No feature agent of aws:us-east-1"):
            reader.federation.read(entity_rows(ROWS), service="diagnosis")
        assert len(federation.agents[EU].crossed) == before
    finally:
        federation.start_agent(US)
