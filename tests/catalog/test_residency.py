"""A residency class says under which law data may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.catalog import (
    UNRESTRICTED,
    Region,
    Residency,
    check,
    load_catalog,
    parse_residency,
    permits,
    residency_classes,
)
from fairlead.core.errors import ResidencyViolation, UnknownRegion, UnknownResidency

regions = st.sampled_from(load_catalog().regions())
classes = st.sampled_from(residency_classes())


def test_there_is_one_class_for_each_jurisdiction_and_one_for_none() -> None:
    jurisdictions = {region.jurisdiction for region in load_catalog().regions()}
    assert set(residency_classes()) == {"unrestricted", *(each.lower() for each in jurisdictions)}


@given(region=regions)
def test_unrestricted_data_may_be_anywhere(region: Region) -> None:
    check(UNRESTRICTED, region.id)


@given(region=regions, residency=classes)
def test_check_refuses_exactly_what_permits_denies(region: Region, residency: Residency) -> None:
    if permits(residency, region.jurisdiction):
        check(residency, region.id)
    else:
        with pytest.raises(ResidencyViolation):
            check(residency, region.id)


def test_eu_data_stays_in_the_eu_and_eea_data_in_the_eu_or_the_rest_of_the_eea() -> None:
    eu, eea = parse_residency("eu"), parse_residency("EEA")
    assert permits(eu, "EU")
    assert not permits(eu, "EEA")
    assert permits(eea, "EU")
    assert permits(eea, "EEA")
    for outside in ("UK", "CH", "US"):
        assert not permits(eu, outside)
        assert not permits(eea, outside)


def test_a_violation_names_the_class_the_region_and_its_jurisdiction() -> None:
    with pytest.raises(ResidencyViolation) as refused:
        check(parse_residency("eu"), "aws:us-east-1")
    assert refused.value.attributes == {"residency": "eu", "region": "aws:us-east-1", "jurisdiction": "US"}
    assert "'eu'" in refused.value.detail


def test_an_unknown_region_is_not_mistaken_for_a_permitted_one() -> None:
    with pytest.raises(UnknownRegion):
        check(UNRESTRICTED, "aws:nowhere-1")


@pytest.mark.parametrize("text", ["", "europe", "EU ", "eu\n", "e" * 10_000])
def test_an_unknown_class_is_refused(text: str) -> None:
    with pytest.raises(UnknownResidency) as refused:
        parse_residency(text)
    assert "Use one of" in (refused.value.hint or "")
    assert len(str(refused.value)) < 400
