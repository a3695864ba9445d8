"""Every difference between two contents is said, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.ids import Digest
from fairlead.featurestore.definitions import Column, ViewDefinition, content_digest
from fairlead.featurestore.differences import (
    definition_differences,
    on_demand_differences,
    service_differences,
    view_differences,
)
from fairlead.featurestore.on_demand import OnDemandDefinition, OnDemandInput
from fairlead.featurestore.services import OnDemandProjection, Projection, ServiceDefinition
from fairlead.featurestore.source_definitions import (
    DuckDBRows,
    HopsworksRows,
    ParquetFiles,
    PostgresRows,
    SourceDefinition,
)
from fairlead.featurestore.streams import StreamDefinition

few = st.sampled_from(["a", "b", "c"])
columns = st.lists(
    st.builds(Column, name=few, type=st.sampled_from(["FLOAT", "STRING"])),
    min_size=1,
    max_size=3,
    unique_by=lambda column: column.name,
).map(tuple)
names = st.lists(few, min_size=1, max_size=3, unique=True).map(tuple)
places = st.one_of(
    st.builds(ParquetFiles, uri=few),
    st.builds(PostgresRows, connection=few, table=few, query=st.none()),
    st.builds(PostgresRows, connection=few, table=st.none(), query=few),
    st.builds(DuckDBRows, database=few, table=few, query=st.none()),
    st.builds(HopsworksRows, connection=few, project=few, feature_group=few, version=st.integers(1, 2)),
)
sources = st.builds(
    SourceDefinition,
    place=places,
    timestamp_field=few,
    created_timestamp_column=st.none() | few,
    field_mapping=st.dictionaries(few, few, max_size=1),
)
streams = st.builds(StreamDefinition, name=few, kind=few, place=st.dictionaries(few, few, max_size=1))
views = st.builds(
    ViewDefinition,
    name=st.just("view"),
    entities=names,
    keys=columns,
    features=columns,
    source=sources,
    ttl_seconds=st.none() | st.sampled_from(["1", "60"]),
    residency=st.just(UNRESTRICTED),
    stream=st.none() | streams,
    transformation=st.none() | few,
)
on_demand_views = st.builds(
    OnDemandDefinition,
    is_singleton=st.booleans(),
    name=st.just("made"),
    inputs=st.lists(
        st.builds(OnDemandInput, view=few, features=names), min_size=1, max_size=2, unique_by=lambda each: each.view
    ).map(tuple),
    request=columns | st.just(()),
    features=columns,
    mode=st.sampled_from(["pandas", "python"]),
    function=few,
    residency=st.just(UNRESTRICTED),
)


@st.composite
def projections(draw: st.DrawFn) -> Projection:
    features = draw(names)
    return Projection(
        view=draw(few),
        alias=draw(few),
        features=features,
        join_key_map=draw(st.dictionaries(few, few, max_size=1)),
        hidden=frozenset(draw(st.sets(st.sampled_from(features)))),
    )


services = st.builds(
    ServiceDefinition,
    name=st.just("service"),
    projections=st.lists(projections(), max_size=3, unique_by=lambda each: each.alias).map(tuple),
    on_demand=st.lists(
        st.builds(OnDemandProjection, view=few, alias=few, features=names),
        max_size=2,
        unique_by=lambda each: each.alias,
    ).map(tuple),
)
SAME = Digest("sha256:" + "0" * 64)
DIGESTS: Mapping[str, Digest] = dict.fromkeys("abc", SAME)


def differ(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return content_digest(before) != content_digest(after)


@given(views, views)
def test_two_views_differ_exactly_where_their_versions_do(before: ViewDefinition, after: ViewDefinition) -> None:
    one, other = before.content(), after.content()
    assert bool(view_differences(one, other)) == differ(one, other)
    assert view_differences(one, one) == []


@given(on_demand_views, on_demand_views)
def test_two_on_demand_views_over_the_same_views_differ_where_their_versions_do(
    before: OnDemandDefinition, after: OnDemandDefinition
) -> None:
    one, other = before.content(DIGESTS), after.content(DIGESTS)
    assert bool(on_demand_differences(one, other)) == differ(one, other)


@given(services, services)
def test_two_services_of_the_same_views_differ_exactly_where_their_versions_do(
    before: ServiceDefinition, after: ServiceDefinition
) -> None:
    one, other = before.content(DIGESTS, DIGESTS), after.content(DIGESTS, DIGESTS)
    assert bool(service_differences(one, other, {}, {})) == differ(one, other)


@given(sources, sources)
def test_two_sources_differ_exactly_where_their_versions_do(before: SourceDefinition, after: SourceDefinition) -> None:
    one, other = before.content() | {"name": "s"}, after.content() | {"name": "s"}
    assert bool(definition_differences("FileSource", one, other)) == differ(one, other)


def test_what_an_on_demand_view_asks_for_more_breaks_who_reads_it() -> None:
    def made(request: tuple[Column, ...], function: str, features: tuple[Column, ...]) -> dict[str, Any]:
        view = OnDemandDefinition(
            name="made",
            inputs=(OnDemandInput(view="a", features=("a",)),),
            request=request,
            features=features,
            mode="pandas",
            function=function,
            residency=UNRESTRICTED,
        )
        return view.content(DIGESTS)

    one, two = Column(name="one", type="FLOAT"), Column(name="two", type="FLOAT")
    found = on_demand_differences(made((one,), "f", (one, two)), made((one, two), "g", (one,)))
    assert {(each.path, each.effect) for each in found} == {
        ("on-demand view made / feature two", "breaks"),
        ("on-demand view made / request two", "breaks"),
        ("on-demand view made / function", "values"),
    }
    assert [
        each.effect for each in on_demand_differences(made((one, two), "f", (one,)), made((one,), "f", (one,)))
    ] == ["values"]
