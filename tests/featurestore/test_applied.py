"""Versions of definitions: what makes one, what does not, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fairlead.core.db import Database
from fairlead.core.errors import FeatureDefinitionInvalid, FeatureServiceNotFound, InvalidName, UnknownResidency
from fairlead.featurestore.applied import FeatureDefinitions, FeatureObject
from fairlead.featurestore.tables import FeatureVersionRow
from fairlead.registry.paging import PageRequest
from fairlead.registry.tables import AuditEventRow
from fairlead.testing.clock import ManualClock
from tests.featurestore.feature_fleet import cells_view, genes_view, patient, service
from tests.fleet import ADMIN
from tests.records import open_record

CELLS, GENES = Path("/data/cells.parquet"), Path("/data/genes.parquet")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with open_record(database_url) as database:
        yield database


@pytest.fixture
def definitions(database: Database) -> FeatureDefinitions:
    return FeatureDefinitions(database, ManualClock())


@pytest.fixture
def local(tmp_path: Path) -> Iterator[FeatureDefinitions]:
    with open_record(f"sqlite:///{tmp_path / 'fairlead.db'}") as database:
        yield FeatureDefinitions(database, ManualClock())


def everything(**changes: Any) -> list[FeatureObject]:
    return [patient(), cells_view(CELLS, **changes), genes_view(GENES), service()]


def changes_of(definitions: FeatureDefinitions, objects: list[FeatureObject]) -> dict[str, tuple[str, int]]:
    return {each.name: (each.change, each.number) for each in definitions.apply(ADMIN, objects)}


def test_going_back_to_an_earlier_definition_is_that_version_again(
    database: Database, definitions: FeatureDefinitions
) -> None:
    assert changes_of(definitions, everything())["cells"] == ("added", 1)
    assert changes_of(definitions, everything(ttl="60s"))["cells"] == ("changed", 2)
    assert changes_of(definitions, everything())["cells"] == ("changed", 1)
    assert changes_of(definitions, everything())["cells"] == ("unchanged", 1)
    with database.read() as session:
        rows = session.scalars(select(FeatureVersionRow).where(FeatureVersionRow.name == "cells")).all()
        actions = session.scalars(select(AuditEventRow.action)).all()
    assert sorted(row.number for row in rows) == [1, 2]
    assert set(actions) == {"feature.apply"}


def test_a_service_follows_its_views_also_when_it_is_not_sent(definitions: FeatureDefinitions) -> None:
    definitions.apply(ADMIN, everything())
    before = definitions.get_service(ADMIN, "diagnosis")
    plan = definitions.apply(ADMIN, [cells_view(CELLS, ttl="60s")])
    assert [(each.name, each.change, each.reason) for each in plan] == [
        ("cells", "changed", None),
        ("diagnosis", "changed", "what it stands on changed"),
    ]
    assert definitions.get_service(ADMIN, "diagnosis").digest != before.digest


def test_a_dry_run_says_the_same_and_changes_nothing(definitions: FeatureDefinitions) -> None:
    planned = definitions.apply(ADMIN, everything(), dry_run=True)
    with pytest.raises(FeatureServiceNotFound):
        definitions.get_service(ADMIN, "diagnosis")
    assert definitions.apply(ADMIN, everything()) == planned


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "radius of the cell"},
        {"owner": "ana"},
        {"tags": {"team": "risk"}},
        {"online": False},
    ],
)
def test_what_changes_no_value_makes_no_version(local: FeatureDefinitions, changes: dict[str, Any]) -> None:
    local.apply(ADMIN, everything())
    assert changes_of(local, everything(**changes))["cells"] == ("unchanged", 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"ttl": "1s"},
        {"features": [{"name": "radius", "valueType": "DOUBLE"}]},
        {"features": [{"name": "radius", "valueType": "FLOAT"}, {"name": "area", "valueType": "FLOAT"}]},
        {"batchSource": {"timestampField": "event_timestamp", "fileOptions": {"uri": "/data/other.parquet"}}},
        {"batchSource": {"timestampField": "measured", "fileOptions": {"uri": str(CELLS)}}},
    ],
)
def test_what_changes_values_or_schema_makes_a_version(local: FeatureDefinitions, changes: dict[str, Any]) -> None:
    local.apply(ADMIN, everything())
    assert changes_of(local, everything(**changes))["cells"] == ("changed", 2)


def test_the_order_of_a_views_features_says_nothing_and_that_of_a_services_does(local: FeatureDefinitions) -> None:
    both = [{"name": "radius", "valueType": "FLOAT"}, {"name": "area", "valueType": "FLOAT"}]
    local.apply(ADMIN, [patient(), cells_view(CELLS, features=both)])
    assert changes_of(local, [cells_view(CELLS, features=both[::-1])]) == {"cells": ("unchanged", 1)}
    columns = [("radius", "FLOAT"), ("area", "FLOAT")]
    local.apply(ADMIN, [service(views={"cells": columns})])
    assert changes_of(local, [service(views={"cells": columns[::-1]})]) == {"diagnosis": ("changed", 2)}


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([cells_view(CELLS)], "entity 'patient', which is not defined"),
        ([patient(), cells_view(CELLS, features=[])], "names no features"),
        ([patient(name="__dummy")], "Feast keeps"),
        ([patient(), cells_view(CELLS, batchSource={})], "has no source"),
        ([patient(), cells_view(CELLS, batchSource={"type": "BATCH_BIGQUERY"})], "which is not read"),
        ([patient(), cells_view(CELLS, batchSource={"fileOptions": {"uri": "x"}})], "no timestamp_field"),
        ([patient(), cells_view(CELLS, ttl="soon")], "no length of time"),
        ([patient(), cells_view(CELLS, features=[{"name": "r", "valueType": "STRING_SET"}])], "type STRING_SET"),
        ([patient(), cells_view(CELLS, features=[{"name": 'r"; DROP', "valueType": "FLOAT"}])], "cannot be one"),
        ([patient(), cells_view(CELLS, features=[{"name": "Patient_id", "valueType": "FLOAT"}])], "more than one"),
        ([patient(), cells_view(CELLS, streamSource={"type": "STREAM_PULSAR"})], "stream source"),
        ([patient(valueType="DOUBLE")], "keys are whole numbers or strings"),
        ([service()], "no such feature view"),
        ([patient(), cells_view(CELLS), service(views={"cells": [("width", "FLOAT")]})], "does not have"),
        ([patient(), patient(joinKey="id")], "two definitions"),
        ([FeatureObject(kind="LabelView", spec={"name": "s"})], "not supported yet"),
        ([FeatureObject(kind="Entity", spec={"spec": []})], "Feast's JSON"),
    ],
)
def test_definitions_that_cannot_work_are_refused_whole(
    local: FeatureDefinitions, objects: list[FeatureObject], message: str
) -> None:
    with pytest.raises(FeatureDefinitionInvalid, match=message) as refused:
        local.apply(ADMIN, objects)
    assert refused.value.hint
    assert not local.list(ADMIN, "Entity", PageRequest()).items


def test_a_view_that_a_service_takes_cannot_lose_its_feature(local: FeatureDefinitions) -> None:
    local.apply(ADMIN, everything())
    with pytest.raises(FeatureDefinitionInvalid, match="'diagnosis' takes 'radius'"):
        local.apply(ADMIN, [cells_view(CELLS, features=[{"name": "area", "valueType": "FLOAT"}])])


def test_the_residency_class_of_a_view_never_changes(local: FeatureDefinitions) -> None:
    local.apply(ADMIN, everything())
    with pytest.raises(FeatureDefinitionInvalid, match="cannot become 'unrestricted'"):
        local.apply(ADMIN, [genes_view(GENES, residency="unrestricted")])
    with pytest.raises(UnknownResidency):
        local.apply(ADMIN, [genes_view(GENES, residency="atlantis")])


@pytest.mark.parametrize("name", ["", "a/b", "a\x00b", ".hidden", "x" * 256])
def test_names_follow_the_rules_of_names(local: FeatureDefinitions, name: str) -> None:
    with pytest.raises(InvalidName):
        local.apply(ADMIN, [patient(name=name)])
