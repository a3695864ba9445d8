"""What differs between two versions of features is said, and nothing that a model in production takes goes unforced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fairlead.core.errors import FeaturesInUse, InvalidInput, NotFound
from fairlead.featurestore.applied import FeatureDefinitions, FeatureObject
from fairlead.featurestore.comparing import Comparison, Comparisons
from fairlead.registry.tables import AliasRow, ModelVersionRow
from fairlead.registry.version_registration import VersionDraft
from tests.featurestore.feature_fleet import (
    FeatureFleet,
    cells_view,
    genes_view,
    open_feature_fleet,
    patient,
    service,
    view_spec,
)
from tests.fleet import ADMIN
from tests.record_world import World, make_world
from tests.records import open_record

CELLS, GENES = Path("/data/cells.parquet"), Path("/data/genes.parquet")
WIDE = [("radius", "FLOAT"), ("texture", "DOUBLE")]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_record(database_url) as database:
        yield make_world(database)


def objects(columns: list[tuple[str, str]], **changes: Any) -> list[FeatureObject]:
    takes = service(views={"cells": columns, "genes": [("marker", "STRING")]})
    return [patient(), view_spec("cells", columns, CELLS, **changes), genes_view(GENES), takes]


def use_in(world: World, environment: str) -> FeatureDefinitions:
    """Definitions whose service a version of `churn` pins, which holds an environment."""
    definitions = FeatureDefinitions(world.database, world.clock)
    definitions.apply(world.owner, objects(WIDE))
    pinned = definitions.get_service(world.owner, "diagnosis")
    world.model()
    upload = world.upload()
    world.verify(upload)
    draft = VersionDraft(upload_id=upload, feature_service="diagnosis", feature_service_digest=pinned.digest)
    version = world.versions.register(world.owner, "churn", draft)
    with world.database.write() as session:
        model_id = session.scalars(select(ModelVersionRow.model_id)).one()
        session.add(
            AliasRow(
                workspace_id=world.owner.workspace_id,
                model_id=model_id,
                name=environment,
                version=version.version,
                revision=1,
                moved_by="ana",
                moved_at=world.clock.now(),
            )
        )
    return definitions


def test_a_feature_that_a_model_in_production_takes_goes_only_by_force(world: World) -> None:
    definitions = use_in(world, "production")
    narrower = objects([("radius", "FLOAT")])
    planned = definitions.apply(world.owner, narrower, dry_run=True)
    assert {each.name: each.used_by for each in planned if each.used_by} == {
        "cells": ("churn/1 (production)",),
        "diagnosis": ("churn/1 (production)",),
    }
    for change in (narrower, objects([("radius", "FLOAT"), ("texture", "FLOAT")])):
        with pytest.raises(FeaturesInUse, match=r"churn/1 \(production\)"):
            definitions.apply(world.owner, change)
    assert definitions.get_service(world.owner, "diagnosis").number == 1, "nothing of a refused change is kept"
    # What adds, or changes values alone, goes through; so does what nobody takes.
    definitions.apply(world.owner, objects([*WIDE, ("area", "DOUBLE")], ttl="60s"))
    definitions.apply(world.owner, objects(WIDE))
    forced = definitions.apply(world.owner, narrower, force=True)
    assert {each.name for each in forced if each.used_by} == {"cells", "diagnosis"}
    # Going back breaks nobody.
    assert {each.change for each in definitions.apply(world.owner, objects(WIDE))} == {"changed", "unchanged"}


def test_what_is_only_tried_out_holds_nobody_up(world: World) -> None:
    definitions = use_in(world, "dev")
    assert definitions.apply(world.owner, objects([("radius", "FLOAT")]))


def test_a_key_that_changes_breaks_everybody_who_takes_the_view(world: World) -> None:
    definitions = use_in(world, "production")
    text = [
        patient(valueType="STRING"),
        view_spec("cells", WIDE, CELLS, entityColumns=[{"name": "patient_id", "valueType": "STRING"}]),
        genes_view(GENES, entityColumns=[{"name": "patient_id", "valueType": "STRING"}]),
    ]
    with pytest.raises(FeaturesInUse, match="view cells / keys"):
        definitions.apply(world.owner, text)


def paths(found: Comparison) -> dict[str, tuple[str, Any, Any]]:
    return {each.path: (each.effect, each.before, each.after) for each in found.differences}


def test_two_versions_are_explained_however_they_are_named(world: World) -> None:
    definitions = use_in(world, "dev")
    comparisons = Comparisons(world.database, world.versions)

    def compare(before: str, after: str) -> dict[str, tuple[str, Any, Any]]:
        return paths(comparisons.compare(world.owner, before, after))

    assert compare("churn/1", "diagnosis") == {}
    definitions.apply(world.owner, objects([("radius", "DOUBLE"), ("area", "INT64")], ttl="60s"))
    found = compare("churn@dev", "diagnosis")
    assert found["service diagnosis / view cells / feature texture"] == ("breaks", "texture", None)
    assert found["view cells / feature radius"] == ("breaks", "FLOAT", "DOUBLE")
    assert found["view cells / feature area"] == ("adds", None, "INT64")
    assert found["view cells / ttl_seconds"] == ("values", None, "60")
    assert found == compare("service:diagnosis:1", "diagnosis:2")
    views = compare("view:cells:1", "view:cells")
    assert views == {path: each for path, each in found.items() if path.startswith("view")}
    assert compare("view:cells:2", "view:cells:1")["view cells / feature area"] == ("breaks", "INT64", None)
    with pytest.raises(InvalidInput, match="FeatureView and"):
        compare("view:cells", "diagnosis")
    for missing in ("diagnosis:9", "nothing", "view:diagnosis", "diagnosis:sha256:00", "churn/2"):
        with pytest.raises(NotFound):
            compare(missing, "diagnosis")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        fleet.cells([(1, 0, 1.0), (2, 2, 2.5)])
        fleet.genes([(1, 1, "a")])
        yield fleet


def test_two_snapshots_differ_in_definition_and_data(fleet: FeatureFleet) -> None:
    fleet.apply(fleet.definitions())
    first = fleet.snapshot()
    fleet.cells([(1, 0, 1.0), (2, 2, 2.5), (2, 3, None)])
    fleet.apply([cells_view(fleet.sources / "cells.parquet", ttl="60s")])
    second = fleet.snapshot()
    found = paths(fleet.store.comparisons.compare(ADMIN, first.digest or "", f"snapshot:{second.id}"))
    assert found["view cells / ttl_seconds"][0] == "values"
    assert found["data of cells / rows"] == ("values", 2, 3)
    assert found["data of cells / nulls / radius"] == ("values", 0, 1)
    assert "data of cells / digest" in found
    assert not any(path.startswith("data of genes") for path in found)
