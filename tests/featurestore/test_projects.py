"""A Feast project is applied as a whole: versions by what definitions mean, and names that it has no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.core.errors import FeatureDefinitionInvalid, FeatureServiceNotFound, FeaturesInUse, InvalidInput
from fairlead.featurestore.applied import FeatureDefinitions, FeatureObject
from fairlead.registry.paging import PageRequest
from tests.featurestore.feature_fleet import cells_view, genes_view, patient, service, view_spec
from tests.featurestore.test_comparing import use_in
from tests.fleet import ADMIN
from tests.record_world import World, make_world
from tests.records import open_record

CELLS, GENES = Path("/data/cells.parquet"), Path("/data/genes.parquet")


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_record(database_url) as database:
        yield make_world(database)


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureDefinitions]:
    with open_record(f"sqlite:///{tmp_path_factory.mktemp('record') / 'fairlead.db'}") as database:
        yield FeatureDefinitions(database, make_world(database).clock)


def everything() -> list[FeatureObject]:
    return [patient(), cells_view(CELLS), genes_view(GENES), service()]


def changes(planned: Any) -> dict[str, str]:
    return {each.name: each.change for each in planned if each.change != "unchanged"}


def test_what_a_project_has_no_more_is_said_and_goes_when_it_is_asked_to(world: World) -> None:
    definitions = FeatureDefinitions(world.database, world.clock)
    caller, fewer = world.owner, [patient(), cells_view(CELLS), service(views={"cells": [("radius", "FLOAT")]})]
    definitions.apply(caller, everything(), project="clinic")
    definitions.apply(caller, [view_spec("theirs", [("radius", "FLOAT")], CELLS)], project="other")
    pinned = definitions.get_service(caller, "diagnosis")

    planned = definitions.apply(caller, fewer, project="clinic", dry_run=True)
    assert changes(planned) == {"diagnosis": "changed", "genes": "gone"}
    assert changes(definitions.apply(caller, fewer, project="clinic", dry_run=True, prune=True)) == {
        "diagnosis": "changed", "genes": "removed",
    }  # fmt: skip
    # What stays is still there for others to take; the second time it is still gone.
    definitions.apply(caller, fewer, project="clinic")
    assert changes(definitions.apply(caller, fewer, project="clinic")) == {"genes": "gone"}
    definitions.apply(caller, [service("second", {"genes": [("marker", "STRING")]})])
    with pytest.raises(FeatureDefinitionInvalid, match="'second' takes features of 'genes'"):
        definitions.apply(caller, fewer, project="clinic", prune=True)
    definitions.apply(caller, [service("second", {"cells": [("radius", "FLOAT")]})])

    assert changes(definitions.apply(caller, fewer, project="clinic", prune=True)) == {"genes": "removed"}
    assert changes(definitions.apply(caller, fewer, project="clinic", prune=True)) == {}
    views = definitions.list(caller, "FeatureView", PageRequest(size=10))
    assert [view.name for view in views.items] == ["cells", "theirs"], "what another project has stays"
    # What was pinned before reads as it did, and the name comes back as the version that it was.
    assert set(definitions.on_demand(caller, "diagnosis", pinned.digest).views) == {"cells", "genes"}
    again = definitions.apply(caller, everything(), project="clinic")
    assert changes(again) == {"genes": "added", "diagnosis": "changed"}
    assert all(each.number == 1 for each in again)


def test_a_service_that_was_taken_away_is_not_there_and_its_residency_stays(world: World) -> None:
    definitions = FeatureDefinitions(world.database, world.clock)
    definitions.apply(world.owner, everything(), project="clinic")
    pinned = definitions.get_service(world.owner, "diagnosis")
    definitions.apply(world.owner, [patient()], project="clinic", prune=True)
    with pytest.raises(FeatureServiceNotFound):
        definitions.get_service(world.owner, "diagnosis")
    assert definitions.on_demand(world.owner, "diagnosis", pinned.digest).digest == pinned.digest
    with pytest.raises(FeatureDefinitionInvalid, match="residency class"):
        definitions.apply(world.owner, [genes_view(GENES, residency="unrestricted")])
    with pytest.raises(InvalidInput, match="without the project"):
        definitions.apply(world.owner, everything(), prune=True)


def test_what_a_model_in_production_takes_is_taken_away_by_force_alone(world: World) -> None:
    definitions = use_in(world, "production")
    columns = [("radius", "FLOAT"), ("texture", "DOUBLE")]
    takes = service(views={"cells": columns, "genes": [("marker", "STRING")]})
    definitions.apply(
        world.owner, [patient(), view_spec("cells", columns, CELLS), genes_view(GENES), takes], project="clinic"
    )
    assert [each.used_by for each in definitions.apply(
        world.owner, [patient()], project="clinic", prune=True, dry_run=True
    ) if each.name == "diagnosis"] == [("churn/1 (production)",)]  # fmt: skip
    with pytest.raises(FeaturesInUse, match=r"churn/1 \(production\)"):
        definitions.apply(world.owner, [patient()], project="clinic", prune=True)
    definitions.apply(world.owner, [patient()], project="clinic", prune=True, force=True)


# Others are refused.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)
VARIANTS = st.fixed_dictionaries(
    {
        "features": st.sampled_from([["radius"], ["radius", "area"], ["area", "radius"]]),
        "ttl": st.sampled_from(["0s", "60s", "86400s"]),
        "path": st.sampled_from(["/a.parquet", "/b.parquet"]),
        "mapping": st.sampled_from([{}, {"r": "radius"}]),
        "function": st.sampled_from(["return 1", "return 2"]),
        "value_type": st.sampled_from(["INT64", "STRING"]),
        "tags": st.dictionaries(st.sampled_from(["team", "note"]), TEXTS, max_size=2),
    }
)
TRIALS = iter(range(10**6))


def written(name: str, said: dict[str, Any]) -> tuple[list[FeatureObject], str]:
    """Definitions of this name, and what of them changes what somebody reads."""
    features = [(each, "FLOAT") for each in said["features"]]
    view = view_spec(
        name, features, Path(said["path"]), ttl=said["ttl"], tags=said["tags"], entities=[f"{name}_id"],
        entityColumns=[],
    )  # fmt: skip
    view.spec["spec"]["batchSource"]["fieldMapping"] = said["mapping"]
    taken = {"featureViewName": name, "featureColumns": [{"name": each, "valueType": kind} for each, kind in features]}
    made = {"name": f"{name}_made", "features": [{"name": "made", "valueType": "FLOAT"}], "mode": "python",
            "sources": {name: {"featureViewProjection": taken}},
            "featureTransformation": {"userDefinedFunction": {"name": "f", "bodyText": said["function"]}}}  # fmt: skip
    takes = {"name": f"{name}_service", "tags": said["tags"],
             "features": [taken, {"featureViewName": f"{name}_made", "featureColumns": made["features"]}]}  # fmt: skip
    objects = [
        FeatureObject(kind="Entity", spec={"spec": {"name": f"{name}_id", "valueType": said["value_type"]}}),
        view,
        FeatureObject(kind="OnDemandFeatureView", spec={"spec": made}),
        FeatureObject(kind="FeatureService", spec={"spec": takes}),
    ]
    return objects, repr(sorted((key, value) for key, value in said.items() if key != "tags"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8)
@given(st.lists(VARIANTS, min_size=2, max_size=5))
def test_as_many_versions_as_meanings_whatever_the_order(
    definitions: FeatureDefinitions, history: list[dict[str, Any]]
) -> None:
    name = f"v{next(TRIALS)}"
    seen: dict[str, tuple[str, int]] = {}
    for said in [*history, history[0]]:  # (A -> B -> A)
        objects, meaning = written(name, said)
        definitions.apply(ADMIN, objects)
        now = definitions.get_service(ADMIN, f"{name}_service")
        known = seen.setdefault(meaning, (now.digest, now.number))
        assert known == (now.digest, now.number), "one meaning is one version, however it was reached"
        assert all(each.change == "unchanged" for each in definitions.apply(ADMIN, objects))
    assert len({digest for digest, _ in seen.values()}) == len(seen), "another meaning is another version"
    assert sorted(number for _, number in seen.values()) == list(range(1, len(seen) + 1))
