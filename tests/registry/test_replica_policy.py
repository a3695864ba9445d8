from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput
from fairlead.registry.replica_policy import (
    ArtifactFacts,
    ReplicaPolicy,
    Retention,
    Use,
    check_policy,
    from_json,
    to_json,
    wanted_regions,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REGIONS = ["aws:us-east-1", "gcp:europe-west4", "azure:westeurope"]


def use(model: str = "churn", *environments: str, newer: int = 0, days: int = 0) -> Use:
    return Use(model=model, environments=frozenset(environments), newer=newer, created_at=NOW - timedelta(days=days))


def model_files(*uses: Use, residency: str = "unrestricted", kind: str = "model", days: int = 0) -> ArtifactFacts:
    return ArtifactFacts(kind=kind, residency=residency, created_at=NOW - timedelta(days=days), uses=uses)


def test_without_a_policy_nothing_is_governed() -> None:
    assert wanted_regions([], model_files(use()), NOW) is None
    assert wanted_regions([ReplicaPolicy(models=("fraud",))], model_files(use()), NOW) is None
    assert wanted_regions([ReplicaPolicy(kinds=("bundle",))], model_files(use()), NOW) is None


def test_an_artifact_should_be_where_the_policies_that_apply_to_it_say_together() -> None:
    policies = [
        ReplicaPolicy(models=("churn*",), environments=("production",), regions=("gcp:*",)),
        ReplicaPolicy(models=("churn",), environments=("staging", "production"), regions=("aws:us-east-1",)),
        ReplicaPolicy(models=("fraud",), regions=("azure:*",)),
    ]
    assert wanted_regions(policies, model_files(use("churn", "production")), NOW) == ("gcp:*", "aws:us-east-1")
    assert wanted_regions(policies, model_files(use("churn", "staging")), NOW) == ("aws:us-east-1",)
    assert wanted_regions(policies, model_files(use("churn")), NOW) == ()


def test_files_that_two_models_share_are_wanted_for_both() -> None:
    policies = [ReplicaPolicy(models=("a",), regions=("aws:*",)), ReplicaPolicy(models=("b",), regions=("gcp:*",))]
    assert wanted_regions(policies, model_files(use("a"), use("b")), NOW) == ("aws:*", "gcp:*")


def test_retention_keeps_the_newest_the_young_and_what_an_environment_needs() -> None:
    newest = [ReplicaPolicy(retention=Retention(newest=2))]
    young = [ReplicaPolicy(retention=Retention(days=30))]
    both = [ReplicaPolicy(retention=Retention(newest=2, days=30))]
    assert wanted_regions(newest, model_files(use(newer=1, days=900)), NOW) == ("*",)
    assert wanted_regions(newest, model_files(use(newer=2)), NOW) == ()
    assert wanted_regions(young, model_files(use(newer=900, days=30)), NOW) == ("*",)
    assert wanted_regions(young, model_files(use(days=31)), NOW) == ()
    assert wanted_regions(both, model_files(use(newer=2, days=30)), NOW) == ("*",)
    assert wanted_regions(both, model_files(use(newer=2, days=31)), NOW) == ()
    assert wanted_regions(both, model_files(use("churn", "production", newer=99, days=999)), NOW) == ("*",)


def test_what_belongs_to_no_model_version_goes_by_kind_residency_and_its_own_age() -> None:
    snapshot = model_files(kind="snapshot", residency="eu", days=10)
    assert wanted_regions([ReplicaPolicy(kinds=("snapshot",), regions=("gcp:*",))], snapshot, NOW) == ("gcp:*",)
    assert wanted_regions([ReplicaPolicy(residency=("eu",), environments=("production",))], snapshot, NOW) == ()
    assert wanted_regions([ReplicaPolicy(retention=Retention(days=9))], snapshot, NOW) == ()
    assert wanted_regions([ReplicaPolicy(retention=Retention(newest=1))], snapshot, NOW) == ()


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        (ReplicaPolicy(kinds=("weights",)), "kind"),
        (ReplicaPolicy(regions=("aws:us-east-11",)), "No region"),
        (ReplicaPolicy(retention=Retention()), "neither"),
        (ReplicaPolicy(retention=Retention(newest=-1)), "newest"),
        (ReplicaPolicy(retention=Retention(days=10**9)), "days"),
        (ReplicaPolicy(models=("",)), "models"),
    ],
)
def test_a_policy_that_cannot_mean_what_its_owner_thinks_is_refused(policy: ReplicaPolicy, word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        check_policy(policy, REGIONS)


texts = st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple)
retentions = st.none() | st.builds(Retention, newest=st.none() | st.integers(0, 9), days=st.none() | st.integers(0, 9))
policies = st.builds(
    ReplicaPolicy,
    models=texts,
    kinds=texts,
    residency=texts,
    environments=texts,
    regions=texts,
    retention=retentions,
)


@given(policies)
def test_a_policy_is_read_as_it_was_written(policy: ReplicaPolicy) -> None:
    assert from_json(to_json(policy)) == policy


@given(st.lists(policies, max_size=4), policies)
def test_one_policy_more_never_takes_a_region_from_an_artifact_that_was_governed(
    some: list[ReplicaPolicy], more: ReplicaPolicy
) -> None:
    artifact = model_files(use("a", "production", newer=1, days=1))
    before = wanted_regions(some, artifact, NOW)
    after = wanted_regions([*some, more], artifact, NOW)
    assert before is None or (after is not None and set(before) <= set(after))
