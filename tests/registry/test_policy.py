from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput
from fairlead.registry import policy
from fairlead.registry.policy import Candidate, Comparison, MetricGate, Policy, evaluate

REFERENCE = "churn/2"


def candidate(
    *,
    metrics: dict[str, float] | None = None,
    replica_states: dict[str, str] | None = None,
    held_by: frozenset[str] = frozenset(),
    approvers: tuple[str, ...] = (),
) -> Candidate:
    return Candidate(
        reference=REFERENCE,
        metrics=metrics or {},
        replica_states=replica_states or {},
        held_by=held_by,
        approvers=approvers,
    )


def gate(comparison: Comparison, limit: float) -> Policy:
    return Policy(gates=(MetricGate(metric="auc", comparison=comparison, limit=limit),))


def test_an_empty_policy_asks_for_nothing() -> None:
    assert evaluate(Policy(), candidate()) == ()


@pytest.mark.parametrize(
    ("comparison", "at_the_limit", "above"),
    [(">=", "passed", "passed"), (">", "failed", "passed"), ("<=", "passed", "failed"), ("<", "failed", "failed")],
)
def test_a_threshold_holds_at_its_limit_only_where_it_says_so(
    comparison: Comparison, at_the_limit: str, above: str
) -> None:
    (equal,) = evaluate(gate(comparison, 0.8), candidate(metrics={"auc": 0.8}))
    (greater,) = evaluate(gate(comparison, 0.8), candidate(metrics={"auc": 0.81}))
    assert (equal.verdict, greater.verdict) == (at_the_limit, above)


def test_a_missing_metric_fails_and_says_what_to_do() -> None:
    (result,) = evaluate(gate(">=", 0.8), candidate())
    assert (result.verdict, result.value, result.limit) == ("failed", None, 0.8)
    assert "auc" in result.detail
    assert "fairlead model register" in (result.next_step or "")


@pytest.mark.parametrize(
    ("state", "verdict"), [("VERIFIED", "passed"), ("COPYING", "failed"), ("CORRUPT", "failed"), (None, "failed")]
)
def test_only_a_verified_replica_counts(state: str | None, verdict: str) -> None:
    states = {} if state is None else {"aws:us-east-1": state}
    (result,) = evaluate(Policy(required_regions=("aws:us-east-1",)), candidate(replica_states=states))
    assert (result.verdict, result.value, result.limit) == (verdict, state, "VERIFIED")
    assert (result.next_step is None) == (verdict == "passed")


def test_the_previous_environment_must_hold_or_have_held_the_version() -> None:
    wanted = Policy(previous_environment="staging")
    assert evaluate(wanted, candidate(held_by=frozenset({"staging"})))[0].verdict == "passed"
    refused = evaluate(wanted, candidate(held_by=frozenset({"dev"})))[0]
    assert refused.verdict == "failed"
    assert refused.next_step == "Run: fairlead model promote churn/2 --to staging"


def test_approvals_wait_for_people_and_never_refuse() -> None:
    wanted = Policy(approvals=2)
    assert [evaluate(wanted, candidate(approvers=who))[0].verdict for who in ((), ("ben",), ("ben", "cho"))] == [
        "pending",
        "pending",
        "passed",
    ]


policies = st.builds(
    Policy,
    gates=st.lists(
        st.builds(
            MetricGate,
            metric=st.sampled_from(["auc", "loss"]),
            comparison=st.sampled_from([">=", "<=", ">", "<"]),
            limit=st.floats(allow_nan=False, allow_infinity=False),
        ),
        max_size=3,
    ).map(tuple),
    required_regions=st.lists(st.sampled_from(["aws:us-east-1", "gcp:europe-west4"]), unique=True).map(tuple),
    approvals=st.integers(0, 3),
    previous_environment=st.none() | st.just("staging"),
)


@given(policies)
def test_a_policy_comes_back_from_the_record_as_it_was(wanted: Policy) -> None:
    assert policy.from_json(policy.to_json(wanted)) == wanted


@given(policies)
def test_every_gate_that_does_not_pass_names_a_next_step(wanted: Policy) -> None:
    results = evaluate(wanted, candidate())
    assert [result.gate for result in results] == list(policy.gate_names(wanted))
    assert all((result.next_step is None) == (result.verdict == "passed") for result in results)


@pytest.mark.parametrize(
    "wanted",
    [
        Policy(approvals=-1),
        Policy(approvals=11),
        gate(">", float("nan")),
        gate("<", float("inf")),
        Policy(required_regions=tuple(str(number) for number in range(101))),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wanted: Policy) -> None:
    with pytest.raises(InvalidInput):
        policy.check_policy(wanted)
