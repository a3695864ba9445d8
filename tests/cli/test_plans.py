"""Plans as text: what would happen, and what stands in the way."""

from __future__ import annotations

from fairlead.cli.plans import describe_deployment_plan, describe_plan


def gate(
    name: str, value: float | None, limit: float, verdict: str, next_step: str | None
) -> dict[str, str | float | None]:
    verdicts: dict[str, str | float | None] = {"gate": name, "value": value, "limit": limit, "verdict": verdict}
    return verdicts | {"detail": f"About {name}.", "next_step": next_step}


def test_a_promotion_shows_each_gate_with_value_limit_and_what_to_do_next() -> None:
    replica = {"region": "aws:eu-west-1", "bytes": 5, "usd": 0.01, "source_region": "aws:us-east-1"}
    text = describe_plan(
        {
            "moves": {"from": None, "to": 2},
            "gates": [
                gate("roc_auc", 0.97, 0.9, "passed", None),
                gate("latency", None, 50, "failed", "Log it."),
                gate("approvals", 0, 1, "pending", "Ask."),
            ],
            "missing_replicas": [replica],
            "deployments": ["churn"],
        }
    )
    assert text.splitlines() == [
        "move: version - -> 2",
        "  [pass] roc_auc: 0.97 (limit 0.9)",
        "  [FAIL] latency: - (limit 50)",
        "         About latency.",
        "         Log it.",
        "  [wait] approvals: 0 (limit 1)",
        "         About approvals.",
        "         Ask.",
        "  missing in aws:eu-west-1: 5 bytes, $0.01 from aws:us-east-1",
        "  deployment touched: churn",
    ]


def test_a_deployment_plan_shows_each_region_and_what_it_costs() -> None:
    start = {"region": "aws:us-east-1", "action": "start", "from_version": None, "to_version": 2, "bytes": 10}
    stop = {"region": "gcp:europe-west4", "action": "stop", "from_version": 1, "to_version": None, "bytes": 0}
    text = describe_deployment_plan(
        {
            "name": "churn",
            "model": "churn",
            "environment": "production",
            "version": 2,
            "bundle_state": "MISSING",
            "bundle_digest": None,
            "steps": [
                start | {"usd": "0.01", "source_region": "gcp:europe-west4", "usd_per_hour": "0.2"},
                stop | {"usd": "0", "source_region": None, "usd_per_hour": None},
            ],
            "bytes": 10,
            "usd": "0.01",
            "usd_per_hour": "0.2",
        }
    )
    assert text.splitlines() == [
        "churn: churn/2, following production",
        "bundle: MISSING -",
        "  start    aws:us-east-1: version - -> 2, 10 bytes from gcp:europe-west4 for $0.01, $0.2 an hour",
        "  stop     gcp:europe-west4: version 1 -> -",
        "copies: 10 bytes, $0.01; running: $0.2 an hour",
    ]
